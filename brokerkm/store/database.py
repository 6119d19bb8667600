"""One SQLite file, opened for one process alone: permissions, lock, durability, migrations and what errors mean.

WAL with ``synchronous=FULL``: a transaction is on the disk when COMMIT returns. ``locking_mode=EXCLUSIVE``: the lock
is taken at once and held until `close`, so a second process is told so instead of serving the same groups.
``secure_delete``: what is replaced or deleted is overwritten with zeros in the file; `scrub` does that to the WAL.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from brokerkm.errors import StoreError
from brokerkm.store.backup import copied, copy_database
from brokerkm.store.schema import APPLICATION_ID, VERSION, sqlite_migration

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from brokerkm.store.protocol import Progress

_ADVICE: Final = {
    "SQLITE_BUSY": "another process has it open: stop that one, or ask the running server through its control socket",
    "SQLITE_LOCKED": "another process has it open: stop that one, or ask the running server through its control socket",
    "SQLITE_FULL": "the disk is full: free some space; the change is lost, what was stored before is intact",
    "SQLITE_READONLY": "it cannot be written: check its owner, its mode, and that the file system is not read-only",
    "SQLITE_PERM": "it cannot be written: check its owner and its mode",
    "SQLITE_CANTOPEN": "it cannot be opened: check that its directory exists and may be written",
    "SQLITE_IOERR": "the disk fails to read or write: check the system's log",
    "SQLITE_CORRUPT": "it is damaged: restore a backup",
    "SQLITE_NOTADB": "it is not a SQLite file: is this the right path?",
}
_PRIVATE_FILE: Final = 0o600
_PRIVATE_DIRECTORY: Final = 0o700
_OTHERS: Final = 0o077


class SqliteSession:
    """The connection, as queries use it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection: Final = connection

    def rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Yield the rows that a query finds."""
        return self._connection.execute(query, values)

    def change(self, statement: str, *values: object) -> int:
        """Return how many rows a statement has changed."""
        return self._connection.execute(statement, values).rowcount

    def many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Execute a statement once for each of `rows`."""
        self._connection.executemany(statement, rows)


class SqliteReading:
    """One connection to a file, for reading.

    Args:
        path: what to call the file in errors.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path: Final = path
        self.connection: Final = connection
        self._session: Final = SqliteSession(connection)

    @contextlib.contextmanager
    def errors(self) -> Generator[None]:
        """Turn SQLite's errors into `StoreError` that say what to do."""
        with _errors(self._path):
            yield

    @contextlib.contextmanager
    def reading(self) -> Generator[SqliteSession]:
        """Read; nobody else changes anything, because there is one connection and one thread."""
        with self.errors():
            yield self._session

    def findings(self) -> Iterator[str]:
        """Yield what SQLite's own check says is wrong."""
        with self.errors():
            for check in ("integrity_check", "foreign_key_check"):
                for row in self.connection.execute(f"PRAGMA {check}"):
                    if row != ("ok",):
                        yield f"{check}: {' '.join(map(str, row))}"

    def close(self) -> None:
        """Release the lock."""
        self.connection.close()


class SqliteEngine(SqliteReading):
    """The store's file, and the one connection to it; created if there is none and `create`. Raises `StoreError`."""

    def __init__(self, path: str | os.PathLike[str], *, create: bool = True) -> None:
        place = Path(path)
        _open_file(place, os.O_CREAT if create else 0)
        with _errors(place):
            # One thread at a time uses it, but not the one that opened it.
            connection = sqlite3.connect(place, timeout=0, isolation_level=None, check_same_thread=False)
        super().__init__(place, connection)
        try:
            with self.errors():
                self._configure()
        except BaseException:
            self.connection.close()
            raise

    @contextlib.contextmanager
    def transaction(self) -> Generator[SqliteSession]:
        """Do all that is done inside, durably, or nothing of it."""
        with self.errors():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._session
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:  # SQLite ends it by itself when the disk is full
                    self.connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def snapshot(self, progress: Progress) -> Generator[SqliteReading]:
        """Copy the file, whose lock lets no second connection in, and give the copy, which is removed afterwards."""
        with copied(self.connection, self._path, progress) as copy:
            yield SqliteReading(self._path, copy)

    def scrub(self) -> None:
        """Move all into the main file, where what was deleted is zeros, and empty the WAL, where it is not."""
        with self.errors():
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def backup(self, path: str | os.PathLike[str], progress: Progress) -> None:
        """Copy the file, a megabyte at a time; SQLite lets others in between, and takes over what they commit."""
        copy_database(self.connection, path, progress)

    def _configure(self) -> None:
        for pragma in (
            "locking_mode = EXCLUSIVE",  # before the first access to the WAL
            "journal_mode = WAL",
            "synchronous = FULL",
            "secure_delete = ON",
            "temp_store = MEMORY",  # no key in a temporary file
            "foreign_keys = ON",
        ):
            self.connection.execute(f"PRAGMA {pragma}").fetchone()
        with self.transaction():  # takes the lock
            connection = self.connection
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if application != APPLICATION_ID and (application or version or tables):
                message = f"store {self._path}: it is the SQLite file of another program"
                raise StoreError(message)
            if version > VERSION:
                message = (
                    f"store {self._path}: a newer brokerkm made it (version {version}); this one is too old for it"
                )
                raise StoreError(message)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            for statement in sqlite_migration(version):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")


@contextlib.contextmanager
def _errors(path: Path) -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        advice = next((text for code, text in _ADVICE.items() if name == code or name.startswith(code + "_")), None)
        message = f"store {path}: {advice or error}" + (f" ({name})" if name else "")
        raise StoreError(message) from error


def _open_file(path: Path, flag: int) -> None:
    """Look at the file, or make it, readable by its owner alone; SQLite gives its WAL the same mode."""
    try:
        if flag and not path.parent.exists():
            path.parent.mkdir(mode=_PRIVATE_DIRECTORY, parents=True)
        descriptor = os.open(path, os.O_RDWR | flag | os.O_CLOEXEC, _PRIVATE_FILE)
        try:
            mode = os.fstat(descriptor).st_mode
        finally:
            os.close(descriptor)
    except OSError as error:
        message = f"store {path}: {error.strerror}: check that the directory exists and may be written"
        raise StoreError(message) from error
    if mode & _OTHERS:
        message = f"store {path}: others than its owner may read it, and it holds keys: chmod 600 {path}"
        raise StoreError(message)
