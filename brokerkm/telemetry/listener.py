"""The HTTP listener of /metrics, /healthz and /readyz: GET only, no body is read, nothing can be changed by it.

It is apart from the administrators' interface, so that a scraper needs none of its rights. It knows HTTP/1.1 (RFC 9112)
just as far as it answers one request for each connection, and bounds what a stranger can take of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Self

from brokerkm.errors import TransportError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from brokerkm.config.address import Address

_log = logging.getLogger(__name__)

MAX_HEAD: Final = 8192  # bytes of a request's head
MAX_CLIENTS: Final = 64
PATIENCE: Final = 10.0  # seconds for a request, and for its answer


class Answer:
    """What a path says.

    Args:
        kind: its media type.
    """

    def __init__(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.body: Final = body
        self.kind: Final = kind
        self.status: Final = status

    @classmethod
    def of_check(cls, well: bool, report: dict[str, object]) -> Self:  # noqa: FBT001 - the first half of a pair
        """Return a report as JSON: 200 if all is well, 503 if not."""
        status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
        return cls(json.dumps(report).encode() + b"\n", "application/json", status)


class Listener:
    """Answers GET for a table of paths, from ``async with`` to its end.

    Args:
        address: port 0 for one that is free.
        paths: path to what makes its answer.
    """

    def __init__(self, address: Address, paths: Mapping[str, Callable[[], Awaitable[Answer]]]) -> None:
        self._address: Final = address
        self._paths: Final = paths
        self._server: asyncio.Server | None = None
        self._clients: Final[set[asyncio.Task[None]]] = set()

    @property
    def port(self) -> int:
        """The port, once it listens."""
        assert self._server is not None  # noqa: S101 - between enter and exit
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        host, port = self._address
        try:
            self._server = await asyncio.start_server(self._connected, host, port, limit=MAX_HEAD)
        except OSError as error:
            message = f"telemetry.listen {self._address}: {error.strerror or error}: take another port or address"
            raise TransportError(message) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
            for client in self._clients:
                client.cancel()
            await asyncio.gather(*self._clients, return_exceptions=True)
            await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs this in one
        try:
            if len(self._clients) < MAX_CLIENTS:
                self._clients.add(task)
                async with asyncio.timeout(PATIENCE):
                    await self._serve(reader, writer)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            pass  # `__aexit__` waits for it; asyncio's own callback would report it as an error
        except Exception:  # noqa: BLE001 - a scraper's request must not harm the key server
            _log.exception("a request to the metrics listener failed")
        finally:
            self._clients.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            answer = _plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            answer = await self._answer(head)
        lines = [
            f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
            f"Content-Type: {answer.kind}",
            f"Content-Length: {len(answer.body)}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            "Connection: close",
        ]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + answer.body)
        await writer.drain()

    async def _answer(self, head: bytes) -> Answer:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):  # noqa: PLR2004 - method, path, version
            return _plain(HTTPStatus.BAD_REQUEST)
        path = words[1].partition(b"?")[0].decode("ascii", "replace")
        if path not in self._paths:
            return _plain(HTTPStatus.NOT_FOUND)
        if words[0] != b"GET":
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED)
        return await self._paths[path]()


def _plain(status: HTTPStatus) -> Answer:
    return Answer(f"{status.phrase}\n".encode(), "text/plain", status)
