"""The control channel's server: a Unix socket in the state directory, for the same user or root only.

The kernel says who connects (SO_PEERCRED), besides the socket's mode 0600 and the directory's 0700. The format is that
of `brokerkm.service.calls`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from brokerkm.errors import BrokerkmError, StoreError, UsageError
from brokerkm.service.calls import ERRORS, MAX_LINE, perform

if TYPE_CHECKING:
    from types import TracebackType

    from brokerkm.service.api import AdminApi

_log = logging.getLogger(__name__)

MAX_PATH: Final = 107  # bytes; sockaddr_un
MAX_CLIENTS: Final = 32
_PRIVATE: Final = 0o600
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid; unix(7)


class ControlServer:
    """Answers the calls of other processes with `admin`, from `start` to `stop`.

    Args:
        path: of the socket; an old one is replaced, because the store's lock says that its server is gone.
    """

    def __init__(self, admin: AdminApi, path: str | os.PathLike[str]) -> None:
        self._admin: Final = admin
        self._path: Final = Path(path)
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; raises `StoreError` if the socket cannot be made."""
        check_path(self._path)
        try:
            self._path.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._connected, self._path, limit=MAX_LINE)
            self._path.chmod(_PRIVATE)
        except OSError as error:
            message = f"control socket {self._path}: {error.strerror}: check its directory"
            raise StoreError(message) from error

    async def stop(self) -> None:
        """Listen no longer and hang up; a call under way is still done, but not answered."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
            for client in self._clients:
                client.cancel()
            if self._clients:
                await asyncio.wait(self._clients)
            await self._server.wait_closed()
            self._server = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._clients) >= MAX_CLIENTS or not _is_trusted(writer):
            writer.close()
            return
        self._clients.add(task)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client is gone
        except asyncio.CancelledError:
            pass  # `stop` waits for this task, nobody else does
        finally:
            self._clients.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                line = await reader.readuntil()
            except asyncio.LimitOverrunError:
                writer.write(_encode({"error": "usage", "message": f"a request has at most {MAX_LINE} bytes"}))
                await writer.drain()
                return
            writer.write(_encode(await self._answer(line)))
            await writer.drain()

    async def _answer(self, line: bytes) -> dict[str, object]:
        try:
            return {"ok": await perform(self._admin, _decode(line))}
        except BrokerkmError as error:
            kind = next((name for name, known in ERRORS.items() if isinstance(error, known)), "usage")
            return {"error": kind, "message": str(error)}
        except Exception:  # noqa: BLE001 - the client is told, the server goes on
            _log.exception("a call on the control socket failed")
            return {"error": "store", "message": "the server failed unexpectedly; its log says why"}


def check_path(path: Path) -> None:
    """Raise `UsageError` if the path is too long for a Unix socket."""
    if len(os.fsencode(path)) > MAX_PATH:
        message = f"control socket {path}: the path is longer than {MAX_PATH} bytes; use a shorter state directory"
        raise UsageError(message)


def _is_trusted(writer: asyncio.StreamWriter) -> bool:
    peer = writer.get_extra_info("socket")
    _, user, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if user in (0, os.geteuid()):
        return True
    _log.warning("user %d was turned away from the control socket", user)
    return False


def _decode(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        message = f"a request is a line of JSON: {error}"
        raise UsageError(message) from None


def _encode(answer: dict[str, object]) -> bytes:
    return json.dumps(answer).encode() + b"\n"
