"""The store in one SQLite file: the default of `brokerkm serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from brokerkm.errors import StoreError
from brokerkm.store import statements
from brokerkm.store.backup import copy_tables, new_file
from brokerkm.store.database import SqliteEngine
from brokerkm.store.sql import SqlStore
from brokerkm.storekey.file import FileKey

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from brokerkm.store.engine import Engine
    from brokerkm.store.protocol import Progress

KEY_FILE: Final = "store.key"


class SqliteStore(SqlStore):
    """`Store` in the SQLite file at `path`; created if there is none, and locked against other processes.

    Args:
        store_key: 32 bytes, or what returns them; by default those in the file ``store.key`` beside the store, which is
            made with a new store.
        create: make a store where there is none; otherwise that is an error.

    Raises:
        StoreError: the file is in use, cannot be opened, is readable by others, is none of ours, or is sealed under
            another store key.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        store_key: bytes | Callable[[], bytes] | None = None,
        *,
        create: bool = True,
    ) -> None:
        engine = SqliteEngine(path, create=create)
        super().__init__(engine, store_key or (lambda: _key_beside(Path(path), engine, create=create)))


def write_backup(source: Engine, path: str | os.PathLike[str], progress: Progress) -> None:
    """Write one state of a store of another engine into a new SQLite store; raises as `new_file` does."""
    with new_file(path) as partial:
        target = SqliteEngine(partial)
        try:
            with source.reading() as reading, target.transaction() as writing:
                copy_tables(reading, writing, progress)
            target.scrub()
        finally:
            target.close()


def _key_beside(path: Path, engine: SqliteEngine, *, create: bool) -> bytes:
    """Return the key in the file beside the store; a store that nothing is sealed in yet may have a new one."""
    place = path.with_name(KEY_FILE)
    source = FileKey(place)
    if not place.exists():
        with engine.reading() as session:
            if statements.found(session, "SELECT 1 FROM vault"):
                message = f"store {path}: its key is not in {place}: put it back there, or name where it is"
                raise StoreError(message)
        if not create:
            message = f"store {path}: it has no key yet: `brokerkm serve` makes one at its first start"
            raise StoreError(message)
        source.create()
    return source.read()
