"""What `SqlStore` asks of a database: the `Engine` Protocol.

Queries are SQL that every engine understands, with ``?`` for each value, whatever the driver's own style is: upserts
by ON CONFLICT, no REPLACE, no row ids. Values are int, str, bytes and None. An engine turns its driver's
errors into `StoreError` that say what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from brokerkm.store.protocol import Progress


class Session(Protocol):
    """A connection, inside a transaction or for reading."""

    def rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Yield the rows that a query finds; they are not all in memory at once."""
        ...

    def change(self, statement: str, *values: object) -> int:
        """Return how many rows a statement has changed."""
        ...

    def many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Execute a statement once for each of `rows`."""


class Reading(Protocol):
    """What can be read of a database with the tables of `brokerkm.store.schema`."""

    def reading(self) -> AbstractContextManager[Session]:
        """Read one state of the database, that of the first query."""
        ...

    def findings(self) -> Iterator[str]:
        """Yield what the database's own check of its integrity says is wrong."""
        ...


class Engine(Reading, Protocol):
    """Such a database, also for writing."""

    def transaction(self) -> AbstractContextManager[Session]:
        """Do all that is done inside, durably, or nothing of it; no other transaction writes meanwhile what it read."""
        ...

    def snapshot(self, progress: Progress) -> AbstractContextManager[Reading]:
        """Give one state of the database to one who reads it at length, from any thread, while others go on."""
        ...

    def scrub(self) -> None:
        """See to it that what was replaced or deleted cannot be read from the storage any more, where possible."""

    def backup(self, path: str | os.PathLike[str], progress: Progress) -> None:
        """Copy the database to a new SQLite file; from any thread, while others go on."""

    def close(self) -> None:
        """Release what is held; may be called twice."""
