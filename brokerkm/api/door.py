"""How many connections wait at the door: a listening socket that takes a bounded number of them.

What asyncio counts begins after the TLS handshake. Whoever connects and says nothing would otherwise take one file
descriptor after the other, until the store and the broker cannot be opened any more.
"""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from typing import Final

MAX_OPEN: Final = 300  # connections, those that have not said anything among them
MAX_OF_ADDRESS: Final = 64  # of one address: a stranger alone does not keep the others out


class Door(socket.socket):
    """A TCP listener; a connection too many is closed as soon as it is made."""

    def __init__(self, family: int, most: int = MAX_OPEN, most_of_address: int = MAX_OF_ADDRESS) -> None:
        super().__init__(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # or asyncio leaves Nagle on: 40 ms an answer
        self._most: Final = most
        self._most_of_address: Final = most_of_address
        self._taken: list[tuple[socket.socket, str]] = []

    def accept(self) -> tuple[socket.socket, tuple[object, ...]]:
        """Return the next connection.

        Raises:
            ConnectionAbortedError: it was one too many; asyncio goes on with what else there is.
        """
        connection, address = super().accept()
        self._taken = [(one, host) for one, host in self._taken if one.fileno() >= 0]
        host = str(address[0])
        if len(self._taken) < self._most and Counter(name for _, name in self._taken)[host] < self._most_of_address:
            self._taken.append((connection, host))
            return connection, address
        with contextlib.suppress(OSError):
            connection.close()
        message = "too many connections"
        raise ConnectionAbortedError(message)
