"""Administration over HTTP: the server on its Unix socket or on TLS, and its client.

The client needs the standard library alone; the server is Litestar on uvicorn, imported when it is started.
"""
