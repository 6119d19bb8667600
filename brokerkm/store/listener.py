"""LISTEN: hears at once that leases have changed hands or that there is mail, on a connection of its own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from brokerkm.store.lease import CHANNEL

if TYPE_CHECKING:
    from psycopg import Connection

    from brokerkm.store.pool import Pool


class Listener:
    """What is said on the channel, as long as the connection lasts; to be made anew after it broke.

    `connect` blocks; then `fileno` becomes readable when `heard` has something to return. Raises `StoreError`.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool: Final = pool
        self._connection: Connection[Any] | None = None
        self.fileno = -1  # of the socket to wait for, while connected

    def connect(self) -> None:
        """Listen from now on."""
        with self._pool.errors():
            connection = self._pool.connect()
            try:
                connection.execute(f"LISTEN {CHANNEL}".encode())
            except BaseException:
                connection.close()
                raise
        self._connection, self.fileno = connection, connection.fileno()

    def heard(self) -> list[str]:
        """Return what was said since the last call, without waiting."""
        assert self._connection is not None  # noqa: S101 - connected
        said: list[str] = []
        with self._pool.errors():
            raw = self._connection.pgconn
            raw.consume_input()
            while (one := raw.notifies()) is not None:
                said.append(one.extra.decode())
        return said

    def close(self) -> None:
        """Hang up; may be called twice."""
        connection, self._connection, self.fileno = self._connection, None, -1
        if connection is not None:
            with contextlib.suppress(Exception):  # a broken one may complain
                connection.close()
