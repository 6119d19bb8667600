"""A few connections to one PostgreSQL database, replaced when they break.

Not `psycopg_pool`, whose pauses between attempts to connect grow to minutes and hold up its users: whoever takes a
connection here gets one that works or, within seconds, an error. That the database is gone is said once, and once
that it is back.
"""

from __future__ import annotations

import logging
import select
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from brokerkm.errors import StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Generator

    from psycopg import Connection

_log = logging.getLogger(__name__)

SIZE: Final = 4  # the store's thread, the leases', the mail's, and one for who reads while it reads
_CONNECT_TIMEOUT: Final = 3  # seconds, for each address that the host name has
_UNANSWERED: Final = 10_000  # milliseconds after which data without acknowledgement end a connection


class Pool:
    """Connections that commit each statement, unless it says BEGIN.

    Args:
        url: ``postgresql://…``, or libpq's own form; a password in it appears in no error and no log.
        size: how many are open at most.
    """

    def __init__(self, url: str, size: int = SIZE) -> None:
        try:
            import psycopg  # noqa: PLC0415 - an extra
            from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415
        except ImportError as error:
            message = f"PostgreSQL needs more than is installed ({error}): pip install 'brokerkm[postgres]'"
            raise UsageError(message) from error
        self.driver: Final = psycopg
        self._url: Final = url
        try:
            parts = conninfo_to_dict(url)
        except psycopg.ProgrammingError:  # its text may hold the password
            message = "not a URL of a PostgreSQL database: postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
            raise UsageError(message) from None
        self.name: Final = f"{parts.get('dbname', '')} at {parts.get('host', 'its socket')}:{parts.get('port', 5432)}"
        self._idle: list[Connection[Any]] = []
        self._lock: Final = threading.Lock()
        self._slots: Final = threading.BoundedSemaphore(size)
        self._down = False
        self._closed = False

    @contextmanager
    def connection(self) -> Generator[Connection[Any]]:
        """Lend a connection that works; what goes wrong with the database inside is a `StoreError`."""
        with self._slots, self.errors():
            connection = self._take()
            try:
                yield connection
            except BaseException:
                self._undo(connection)
                raise
            self._give_back(connection)

    def connect(self) -> Connection[Any]:
        """Return a new connection, which the caller closes; raises the driver's errors."""
        try:
            connection = self.driver.connect(
                self._url,
                autocommit=True,
                connect_timeout=_CONNECT_TIMEOUT,
                tcp_user_timeout=_UNANSWERED,
                keepalives_idle=_UNANSWERED // 1000,
                application_name="brokerkm",
            )
        except self.driver.OperationalError as error:
            self.note(error)
            raise
        self.note(None)
        return connection

    def note(self, error: Exception | None) -> None:
        """Say that the database is gone, or back, if that is news."""
        with self._lock:
            news, self._down = (error is not None) != self._down, error is not None
        if news and error is not None:
            _log.warning("the database %s is gone: %s; what waits is kept", self.name, _brief(error))
        elif news:
            _log.warning("the database %s is back", self.name)

    @contextmanager
    def errors(self) -> Generator[None]:
        """Turn the driver's errors into `StoreError`."""
        try:
            yield
        except (self.driver.OperationalError, self.driver.InterfaceError) as error:
            message = f"the database {self.name} did not do it: {_brief(error)}; nothing has changed"
            raise StoreError(message) from error
        except self.driver.Error as error:
            message = f"the database {self.name} refused: {_brief(error)}"
            raise StoreError(message) from error

    def close(self) -> None:
        """Close all connections that nobody uses, and the others when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self) -> Connection[Any]:
        while True:
            with self._lock:
                if self._closed:
                    message = "the store is closed"
                    raise StoreError(message)
                if not self._idle:
                    break
                connection = self._idle.pop()
            if _is_quiet(connection):
                return connection
            connection.close()
        return self.connect()

    def _undo(self, connection: Connection[Any]) -> None:
        try:
            connection.rollback()
        except self.driver.Error:  # it is broken, or in the middle of something
            connection.close()
        self._give_back(connection)

    def _give_back(self, connection: Connection[Any]) -> None:
        with self._lock:
            if not (self._closed or connection.closed):
                self._idle.append(connection)
                return
        connection.close()


def _is_quiet(connection: Connection[Any]) -> bool:
    """Return whether a connection looks alive: the server says something unasked only to take leave."""
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
    return not poll.poll(0)


def _brief(error: Exception) -> str:
    """Return the first line of an error: further ones quote the statement."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
