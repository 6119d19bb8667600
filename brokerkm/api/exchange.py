"""One request after the other over one HTTP connection, in threads, so that the event loop goes on.

Each change has an idempotency key: if the connection breaks, it is asked for once more, and made once.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import secrets
import socket
import urllib.parse
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from brokerkm.api.connection import connect
from brokerkm.errors import StoreError, TransportError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from brokerkm.api.connection import Target

PATIENCE: Final = 60.0  # seconds; a commit of a large batch takes some, a broker that is away 5 more
MAX_ANSWER: Final = 32 << 20  # bytes; a report of 100,000 rows has 10 MB
MAX_LINE: Final = 64 * 1024  # bytes of an event
TRIES_WHEN_BUSY: Final = 5
_MAX_PAUSE: Final = 10.0  # seconds that a server may ask to wait
_ERRORS: Final = {"unknown-name": UnknownNameError, "store": StoreError, "transport": TransportError}
_IDENTIFIERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"


def segment(name: str) -> str:
    """Return a name as a part of a path; raises `UsageError` for one that can be no name and no part of a path."""
    if not name or name in (".", "..") or len(name) > 200:  # noqa: PLR2004 - whatever is longer names nothing
        message = f"{name[:80]!r} names nothing that can be asked for"
        raise UsageError(message)
    return urllib.parse.quote(name, safe=_IDENTIFIERS)


class Exchange:
    """A client's side of the API.

    Args:
        patience: seconds that the server may take for an answer.
    """

    def __init__(self, target: Target, patience: float = PATIENCE) -> None:
        self._target: Final = target
        self._patience: Final = patience
        self._lock: Final = asyncio.Lock()
        self._connection: http.client.HTTPConnection | None = None

    async def open(self) -> None:
        """Connect; raises `TransportError`."""
        self._connection = await asyncio.to_thread(connect, self._target, self._patience)

    async def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def ask(self, method: str, path: str, body: object = None, **query: object) -> Any:  # noqa: ANN401 - JSON
        """Return the answer to a request; parameters that are None are left out.

        Raises:
            UsageError, StoreError: what the server said.
            TransportError: it does not answer, or cannot be understood.
        """
        named = {name: value for name, value in query.items() if value is not None}
        url = f"{path}?{urllib.parse.urlencode(named)}" if named else path
        headers = self._target.headers()
        data: bytes | None = None
        if isinstance(body, bytes):
            data = body
            headers["Content-Type"] = "application/jsonl"
        elif body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        if method != "GET":
            headers["Idempotency-Key"] = secrets.token_hex(16)
        async with self._lock:
            tries = 1
            while True:
                status, answer, pause = await asyncio.to_thread(self._twice, method, url, data, headers)
                if status != HTTPStatus.TOO_MANY_REQUESTS or tries == TRIES_WHEN_BUSY:
                    break
                tries += 1
                await asyncio.sleep(pause)
        return self._understand(status, answer)

    async def follow(self, path: str, body: object, progress: Callable[[int, int], None]) -> Any:  # noqa: ANN401 - JSON
        """Return what comes of something long, and tell `progress` how far it is; raises as `ask` does.

        It is not asked for twice: when the connection breaks, the server gives it up.
        """
        async with contextlib.aclosing(self.stream(path, json.dumps(body).encode(), "application/jsonl")) as lines:
            async for line in lines:
                match self._parse(line):
                    case {"result": found}:
                        return found
                    case {"problem": {"status": int(status)} as problem}:
                        return self._judge(status, cast("dict[str, object]", problem))
                    case {"done": int(done), "total": int(total)}:
                        progress(done, total)
                    case _:
                        break
        message = f"what answers at {self._target.name} is no key server"
        raise TransportError(message)

    async def stream(self, path: str, body: bytes | None = None, kind: str = "*/*") -> AsyncGenerator[str]:
        """Yield the lines of an answer that is not there at once, over a connection of its own; with a body: of POST.

        Args:
            kind: media type that is asked for.
        """
        connection = await asyncio.to_thread(connect, self._target, self._patience)
        sock = connection.sock
        try:
            headers = self._target.headers() | {"Accept": kind}
            response = await asyncio.to_thread(_begin, connection, path, headers, body)
            if response.status != HTTPStatus.OK:
                self._understand(response.status, response.read(MAX_LINE))
            while line := await asyncio.to_thread(response.readline, MAX_LINE):
                yield line.decode("utf-8", "replace").rstrip("\r\n")
        except (OSError, http.client.HTTPException) as error:
            message = f"the key server at {self._target.name} is gone: {error}"
            raise TransportError(message) from error
        finally:
            _shut(sock)
            connection.close()
        message = f"the key server at {self._target.name} has ended the stream: it was stopped"
        raise TransportError(message)

    def _twice(self, method: str, url: str, data: bytes | None, headers: dict[str, str]) -> tuple[int, bytes, float]:
        """Send a request; once more if the connection, which may have been idle for long, breaks."""
        first = self._connection
        try:
            return self._once(first or connect(self._target, self._patience), method, url, data, headers)
        except TimeoutError as error:
            raise self._silent(method, url) from error
        except (OSError, http.client.HTTPException):
            self._drop()
        try:
            return self._once(connect(self._target, self._patience), method, url, data, headers)
        except (OSError, http.client.HTTPException) as error:
            raise self._silent(method, url) from error

    def _once(
        self, connection: http.client.HTTPConnection, method: str, url: str, data: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes, float]:
        self._connection = connection
        connection.request(method, url, body=data, headers=headers)
        response = connection.getresponse()
        answer = response.read(MAX_ANSWER + 1)
        if response.will_close or len(answer) > MAX_ANSWER:
            self._drop()
        pause = response.getheader("Retry-After", "1")
        return response.status, answer, min(float(pause) if pause.isdecimal() else 1.0, _MAX_PAUSE)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _silent(self, method: str, url: str) -> TransportError:
        self._drop()
        path = url.partition("?")[0]
        return TransportError(
            f"the key server did not answer {method} {path}: it may have been stopped; look whether it was done"
        )

    def _understand(self, status: int, answer: bytes) -> Any:  # noqa: ANN401 - JSON
        found = self._parse(answer)
        if status < HTTPStatus.BAD_REQUEST:
            return found
        return self._judge(status, cast("dict[str, object]", found) if isinstance(found, dict) else {})

    def _parse(self, text: bytes | str) -> Any:  # noqa: ANN401 - JSON
        try:
            return json.loads(text) if text else None
        except (ValueError, RecursionError) as error:
            message = f"what answers at {self._target.name} is no key server"
            raise TransportError(message) from error

    def _judge(self, status: int, problem: Mapping[str, object]) -> NoReturn:
        """Raise what the server raised."""
        kind = str(problem.get("type", "")).rpartition(":")[2]
        detail = str(problem.get("detail", f"status {status}"))
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _ERRORS.get(kind, StoreError)(detail)
        raise _ERRORS.get(kind, UsageError)(detail)


def _begin(
    connection: http.client.HTTPConnection, path: str, headers: dict[str, str], body: bytes | None
) -> http.client.HTTPResponse:
    if body is not None:
        headers = headers | {"Content-Type": "application/json"}
    connection.request("GET" if body is None else "POST", path, body=body, headers=headers)
    return connection.getresponse()


def _shut(sock: Any) -> None:  # noqa: ANN401 - of a connection, which types it loosely
    """Wake a thread that reads from a socket."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
