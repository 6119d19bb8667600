"""Administration over HTTP: the server on its Unix socket or on TLS, and its client.

The client needs the standard library alone; the server is Litestar on uvicorn, imported when it is started.
"""

from brokerkm.api.client import RemoteAdmin
from brokerkm.api.connection import Remote
from brokerkm.api.listen import ApiServer, TlsListener
from brokerkm.api.local import open_admin

__all__ = ["ApiServer", "Remote", "RemoteAdmin", "TlsListener", "open_admin"]
