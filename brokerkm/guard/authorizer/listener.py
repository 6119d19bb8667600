"""The authorisation service on its socket."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final, Self

from brokerkm.errors import StoreError, UsageError

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    import uvicorn
    from litestar.types import ASGIApp

BACKLOG: Final = 1024  # a whole fleet may connect anew at once
MAX_HEAD: Final = 16 * 1024  # bytes of a request's line and headers
IDLE: Final = 120  # seconds that a broker's connection may be idle
DRAIN_TIME: Final = 2  # seconds that questions under way have


class Listener:
    """Serves an application from ``async with`` to its end; entering raises `StoreError` if the port is not to be had.

    Args:
        port: 0 for one that is free.
        context: for HTTPS.
    """

    def __init__(self, app: ASGIApp, host: str, port: int, context: ssl.SSLContext | None = None) -> None:
        self._app: Final = app
        self._context: Final = context
        self._host: Final = host
        self.port = port
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'http' if self._context is None else 'https'}://{host}:{self.port}"

    async def __aenter__(self) -> Self:
        try:
            import uvicorn  # noqa: PLC0415 - for who serves only
        except ImportError as error:
            message = f"the authorisation service needs more packages ({error.name}): pip install 'brokerkm[server]'"
            raise UsageError(message) from error
        config = uvicorn.Config(
            self._app,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=IDLE,
            timeout_graceful_shutdown=DRAIN_TIME,
            h11_max_incomplete_event_size=MAX_HEAD,
        )
        config.load()
        config.ssl = self._context
        self._socket = self._bind()
        self.port = self._socket.getsockname()[1]
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        await self._server.startup([self._socket])
        self._task = asyncio.get_running_loop().create_task(self._server.main_loop(), name="authorisation service")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None and self._task is not None and self._socket is not None:
            self._server.should_exit = True
            await self._task
            await self._server.shutdown([self._socket])

    def _bind(self) -> socket.socket:
        try:
            family, *_, address = socket.getaddrinfo(self._host, self.port, type=socket.SOCK_STREAM)[0]
            listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # or Nagle stays on
        except OSError as error:
            raise self._busy(error) from error
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError as error:
            listener.close()
            raise self._busy(error) from error
        return listener

    def _busy(self, error: OSError) -> StoreError:
        return StoreError(f"cannot listen on {self._host}:{self.port}: {error.strerror}; is it in use already?")
