"""A key server with its API on TLS and on a Unix socket, in a thread: for tests whose client blocks."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import ssl
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from brokerkm.api import ApiServer, TlsListener
from brokerkm.service import KeyServer
from brokerkm.service.credentials import Role
from brokerkm.store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from pathlib import Path

    from api.certificates import Authority

    from brokerkm.api.gate import Limits

PATIENCE = 30.0  # seconds


class Answer(NamedTuple):
    """A response; `value` is its JSON."""

    status: int
    value: Any
    headers: dict[str, str]


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = str(path)

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


@dataclass
class Running:
    """What a test needs of the server; `tokens` by role."""

    server: KeyServer
    path: Path
    port: int
    authority: Authority
    tokens: dict[str, str]
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        """Where TLS is."""
        return f"https://127.0.0.1:{self.port}"

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - whatever it gives
        """Do something in the server's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        certificate: tuple[Path, Path] | None = None,
        **headers: str,
    ) -> Answer:
        """Ask by TLS with a token or a certificate, or else by the socket; underscores in header names are dashes."""
        connection: http.client.HTTPConnection = UnixConnection(self.path)
        if token is not None or certificate is not None:
            context = ssl.create_default_context(cafile=self.authority.path)
            if certificate is not None:
                context.load_cert_chain(*certificate)
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=PATIENCE)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent["authorization"] = f"Bearer {token}"
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if data is not None:
            sent.setdefault("content-type", "application/json")
        with contextlib.closing(connection):
            connection.request(method, path, body=data, headers=sent)
            response = connection.getresponse()
            text = response.read()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, json.loads(text) if text else None, found)


@contextlib.contextmanager
def run(directory: Path, authority: Authority, limits: Limits | None = None) -> Iterator[Running]:
    """Run a server with a credential of each role, and the role operator for certificates of ``console``."""
    ready: list[Running] = []
    started, failed, stop = threading.Event(), list[BaseException](), asyncio.Event()

    async def serve() -> None:
        tls = TlsListener(
            "127.0.0.1", 0, *authority.issue("server"), client_ca=authority.path, roles={"console": Role.OPERATOR}
        )
        async with KeyServer(MemoryStore(), interval=0, broker="memory://x") as server:
            api = ApiServer(server, directory / "control.sock", tls=tls, limits=limits)
            async with api:
                tokens = {
                    role.value: (await server.admin.create_credential(f"test-{role}", role)).token for role in Role
                }
                loop = asyncio.get_running_loop()
                ready.append(Running(server, directory / "control.sock", api.port, authority, tokens, loop))
                started.set()
                await stop.wait()

    def work() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
            failed.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=work, name="key server")
    thread.start()
    try:
        assert started.wait(PATIENCE)
        if not failed:
            yield ready[0]
    finally:
        if ready:
            ready[0].loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE)
    for error in failed:
        raise error
