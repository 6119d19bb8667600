"""The API on its sockets: `control.sock` in the state directory, for the same user and root, and TLS for others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from brokerkm.api.connection import check_path
from brokerkm.api.door import Door
from brokerkm.errors import StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    import uvicorn
    from litestar.types import ASGIApp

    from brokerkm.api.gate import Gate, Limits
    from brokerkm.automation import Automation
    from brokerkm.service.credentials import Role
    from brokerkm.service.server import KeyServer

BACKLOG: Final = 128
DRAIN_TIME: Final = 10  # seconds that requests under way have when the server stops; an outcome waits 5 for the broker
MAX_HEAD: Final = 16 * 1024  # bytes of a request's line and headers
_PRIVATE: Final = 0o600


@dataclass(frozen=True, slots=True)
class TlsListener:
    """Where and how to listen for those on other machines.

    Args:
        certificate, key: PEM files; the certificate with its chain.
        client_ca: PEM file of the CA of client certificates; without it there are none.
        roles: of client certificates, by the common name of their subject.
    """

    host: str
    port: int
    certificate: Path
    key: Path
    client_ca: Path | None = None
    roles: Mapping[str, Role] = field(default_factory=dict["str", "Role"])

    def context(self) -> ssl.SSLContext:
        """Return the TLS settings; raises `UsageError` for files that cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self.certificate, self.key)
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
                context.verify_mode = ssl.CERT_OPTIONAL  # a bearer token does as well
        except (OSError, ssl.SSLError) as error:
            message = f"TLS of the API: {self.certificate}, {self.key}, {self.client_ca or 'no client CA'}: {error}"
            raise UsageError(message) from error
        return context


class ApiServer:
    """Serves the API from `start` to `stop`.

    Args:
        path: of the Unix socket; an old one is replaced, because the store's lock says that its server is gone.
        automation: what runs the server's rules.
    """

    def __init__(
        self,
        server: KeyServer,
        path: str | os.PathLike[str],
        *,
        tls: TlsListener | None = None,
        limits: Limits | None = None,
        automation: Automation | None = None,
    ) -> None:
        self._server: Final = server
        self._automation: Final = automation
        self._path: Final = Path(path)
        self._tls: Final = tls
        self._limits: Final = limits
        self._gate: Gate | None = None
        self._context: ssl.SSLContext | None = None
        self._stopping: Final = asyncio.Event()
        self._running: list[tuple[uvicorn.Server, asyncio.Task[None], socket.socket]] = []

    @property
    def port(self) -> int:
        """The port of the TLS listener, where it was left to the system."""
        return int(self._running[-1][2].getsockname()[1])

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen.

        Raises:
            StoreError: a socket cannot be made.
            UsageError: TLS cannot be set up, or the packages of the server are missing.
        """
        self._gate = app = self._app()
        self._context = context = None if self._tls is None else self._tls.context()
        try:
            await self._listen(app, self._bind_local(), None)
            if self._tls is not None:
                await self._listen(app, self._bind_tls(self._tls), context)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Listen no longer; what is under way has some time to end."""
        self._stopping.set()
        running, self._running = self._running, []
        for server, task, listener in running:
            server.should_exit = True
            await task
            await server.shutdown([listener])
        if running:
            self._path.unlink(missing_ok=True)

    def renew(self, tls: TlsListener) -> None:
        """Show another certificate to those who connect from now on.

        Raises:
            UsageError: it cannot be used; the one from before goes on.
        """
        tls.context()  # on its own first: half of a certificate would be worse than the old one
        if self._context is not None:
            self._context.load_cert_chain(tls.certificate, tls.key)

    def limit(self, limits: Limits) -> None:
        """Let callers ask so often from now on."""
        if self._gate is not None:
            self._gate.limit(limits)

    def _app(self) -> Gate:
        try:
            from brokerkm.api.app import make_app  # noqa: PLC0415 - Litestar, for who serves only
            from brokerkm.api.gate import Limits  # noqa: PLC0415
        except ImportError as error:
            message = f"the HTTP API needs more packages ({error.name}): pip install 'brokerkm[server]'"
            raise UsageError(message) from error
        roles = {} if self._tls is None else dict(self._tls.roles)
        return make_app(
            self._server,
            limits=self._limits or Limits(),
            roles=roles,
            stopping=self._stopping,
            automation=self._automation,
        )

    async def _listen(self, app: ASGIApp, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        import uvicorn  # noqa: PLC0415 - for who serves only

        from brokerkm.api.peer import PeerProtocol  # noqa: PLC0415

        config = uvicorn.Config(
            app,
            http=PeerProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=DRAIN_TIME,
            h11_max_incomplete_event_size=MAX_HEAD,
        )
        config.load()
        config.ssl = context
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup([listener])
        self._running.append((server, asyncio.get_running_loop().create_task(server.main_loop()), listener))

    def _bind_local(self) -> socket.socket:
        check_path(self._path)
        listener = socket.socket(socket.AF_UNIX)
        try:
            self._path.unlink(missing_ok=True)
            listener.bind(os.fspath(self._path))
            self._path.chmod(_PRIVATE)  # before it listens: nobody connects in between
        except OSError as error:
            listener.close()
            message = f"control socket {self._path}: {error.strerror}: check its directory"
            raise StoreError(message) from error
        return listener

    def _bind_tls(self, tls: TlsListener) -> socket.socket:
        with contextlib.ExitStack() as stack:
            try:
                family, *_, address = socket.getaddrinfo(tls.host, tls.port, type=socket.SOCK_STREAM)[0]
                listener = stack.enter_context(Door(family))
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(address)
            except OSError as error:
                message = f"the API cannot listen on {tls.host}:{tls.port}: {error.strerror}; is it in use already?"
                raise StoreError(message) from error
            stack.pop_all()
            return listener
