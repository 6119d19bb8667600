"""What paho takes for its socket: one packet in, many packets out, the network behind it is asyncio's."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

_CHUNK: Final = 64 * 1024  # bytes; as many packets as fit go out in one system call


class Pipe:
    """A socket to paho (`recv`, `send`, `close`, `fileno`, `setblocking`), buffers to us."""

    def __init__(self, network: asyncio.Transport) -> None:
        self.blocked = False
        self._network = network
        self._packet = b""
        self._position = 0
        self._out = bytearray()

    def feed(self, packet: bytes) -> None:
        """Let paho read `packet`; the one before has been read."""
        self._packet = packet
        self._position = 0

    def recv(self, buffer_size: int) -> bytes:
        """Return what is left of the packet."""
        start = self._position
        data = self._packet[start : start + buffer_size]
        if not data:
            raise BlockingIOError
        self._position = start + len(data)
        return data

    def send(self, buffer: bytes | bytearray) -> int:
        """Take the whole of `buffer`, or nothing while the network is slow."""
        if self.blocked:
            raise BlockingIOError
        self._out += buffer
        if len(self._out) >= _CHUNK:
            self.flush()
        return len(buffer)

    def flush(self) -> None:
        """Hand to the network what paho has sent."""
        if self._out:
            self._network.write(bytes(self._out))
            self._out.clear()

    def close(self) -> None:
        """Close the network once it has sent all."""
        with contextlib.suppress(RuntimeError):  # paho's destructor comes here too, maybe after the event loop's end
            self.flush()
            self._network.close()

    def fileno(self) -> int:
        """Return no descriptor: nobody selects on this."""
        return -1

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - the name and shape are the socket module's
        """Nothing here ever blocks."""
