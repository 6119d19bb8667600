"""The store in one SQLite file: the default of `brokerkm serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brokerkm.store.database import SqliteEngine
from brokerkm.store.sql import SqlStore

if TYPE_CHECKING:
    import os


class SqliteStore(SqlStore):
    """`Store` in the SQLite file at `path`; created if there is none, and locked against other processes.

    Raises:
        StoreError: the file is in use, cannot be opened, is readable by others, or is none of ours.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(SqliteEngine(path))
