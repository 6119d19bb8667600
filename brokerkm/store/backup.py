"""Copies of a store: a backup is a SQLite store file, whatever the engine, and a restored store is a copy of it.

A backup is sealed like the store, under the store key that the store had at the time: the two are to be kept apart.
A store that was restored is behind the Beacons that its groups have sent since: the server refuses to serve
them before `group recover`.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from brokerkm.errors import StoreError, UsageError
from brokerkm.store.protocol import Progress, ignore
from brokerkm.store.schema import APPLICATION_ID, TABLE_NAMES, VERSION

if TYPE_CHECKING:
    from collections.abc import Generator

    from brokerkm.store.engine import Session

_STEP: Final = 256  # database pages, 1 MB, that are copied before others may go on
_REST: Final = 0.001  # seconds that others have between two steps
_BATCH: Final = 1000  # rows
_PRIVATE: Final = 0o600


def copy_database(source: sqlite3.Connection, path: str | os.PathLike[str], progress: Progress = ignore) -> None:
    """Copy a SQLite database that others go on using through the same connection; what they commit is in the copy.

    Raises:
        UsageError: there is a file at `path`.
        StoreError: it cannot be written.
    """

    def report(_status: int, remaining: int, total: int) -> None:
        progress(total - remaining, total)
        time.sleep(_REST)

    with new_file(path) as partial, closing(sqlite3.connect(partial)) as target:
        source.backup(target, pages=_STEP, progress=report, sleep=_REST)


@contextmanager
def copied(source: sqlite3.Connection, path: Path, progress: Progress) -> Generator[sqlite3.Connection]:
    """Yield a connection to a copy of a SQLite database beside it, which is removed when the block ends.

    Raises:
        StoreError: there is no room for a copy, or it cannot be written.
    """
    place = path.with_name(f"{path.name}.snapshot")
    leftover = [place.with_name(f"{place.name}{suffix}") for suffix in ("", ".part", ".part-journal")]
    size = sum(one.stat().st_size for one in (path, path.with_name(f"{path.name}-wal")) if one.exists())
    free = shutil.disk_usage(path.parent).free
    if free < 2 * size:  # the server needs the rest to go on
        message = (
            f"store {path}: to look at it while others go on takes a copy of {size >> 20} MB, and twice that has to be "
            f"free in its directory, where {free >> 20} MB are: make room, or copy it elsewhere by "
            "`brokerkm store backup FILE` and look at that by `brokerkm store verify FILE`"
        )
        raise StoreError(message)
    for one in leftover:  # of a process that was killed; the lock says that no other is at work
        one.unlink(missing_ok=True)
    try:
        copy_database(source, place, progress)
        with closing(sqlite3.connect(place, isolation_level=None)) as copy:
            yield copy
    finally:
        for suffix in ("", "-wal", "-shm"):
            place.with_name(f"{place.name}{suffix}").unlink(missing_ok=True)


def copy_tables(source: Session, target: Session, progress: Progress = ignore) -> None:
    """Copy all rows of one database, in one state, into the empty tables of another, of whatever engine."""
    totals = {name: next(source.rows(f"SELECT count(*) FROM {name}"))[0] for name in TABLE_NAMES}  # noqa: S608 - constants
    done, total = 0, sum(totals.values())
    for name in TABLE_NAMES:
        columns = COLUMNS[name]
        marks = ", ".join("?" * len(columns.split(", ")))
        insert = f"INSERT INTO {name} ({columns}) VALUES ({marks})"  # noqa: S608 - constants
        batch: list[tuple[object, ...]] = []
        for row in source.rows(f"SELECT {columns} FROM {name}"):  # noqa: S608 - constants
            batch.append(row)
            if len(batch) == _BATCH:
                target.many(insert, batch)
                done += len(batch)
                batch.clear()
                progress(done, total)
        target.many(insert, batch)
        done += len(batch)
        progress(done, total)


COLUMNS: Final = {
    "groups": "id, name, uid, prefix, degree, suite, policy, beacon_interval, settings, frozen, handovers, "
    "signing_seed, header, epoch, height, time, sequence, fence",
    "pages": "group_id, level, number, version, page",
    "members": "group_id, member, status, identity, slot, kem_public, nonce, last_time, epoch, since, seen, acked, "
    "blocked_until, counter",
    "tokens": "group_id, id, key, uses_left, expiry, pattern, created, note",
    "documents": "group_id, kind, name, body, time",
    "outbox": "group_id, topic, sequence, audience, payload, published",
    "audit": "chain, number, entry, hash",
    "chains": "chain, number, hash",
    "vault": "id, wrapped",
}
"""The columns of each table, in the order of copying."""


def restore(backup: str | os.PathLike[str], path: str | os.PathLike[str], progress: Progress = ignore) -> None:
    """Make a store at `path`, where there is none, of a backup; its key does not come with it.

    Raises:
        UsageError: there is a file at `path`.
        StoreError: the backup is none, or is damaged, or the store cannot be written.
    """
    with open_backup(backup) as source:
        copy_database(source, path, progress)


@contextmanager
def open_backup(backup: str | os.PathLike[str]) -> Generator[sqlite3.Connection]:
    """Open a backup for reading, after a look at whether it is a whole one of this version; raises `StoreError`."""
    place = Path(backup).resolve()
    try:
        with closing(sqlite3.connect(f"{place.as_uri()}?mode=ro&immutable=1", uri=True)) as source:
            (application,) = source.execute("PRAGMA application_id").fetchone()
            (version,) = source.execute("PRAGMA user_version").fetchone()
            if application != APPLICATION_ID or version != VERSION:
                message = f"backup {backup}: it is not a backup that this version of brokerkm made"
                raise StoreError(message)
            findings = [text for (text,) in source.execute("PRAGMA integrity_check(5)") if text != "ok"]
            if findings:
                message = f"backup {backup}: it is damaged: {findings[0]}: take another one"
                raise StoreError(message)
            yield source
    except sqlite3.Error as error:
        message = f"backup {backup}: it cannot be read, or is no backup: {error}: take another one"
        raise StoreError(message) from error


@contextmanager
def new_file(path: str | os.PathLike[str]) -> Generator[Path]:
    """Yield where to write a file that appears at `path`, whole and private, when the block ends well.

    Raises:
        UsageError: there is a file at `path`.
        StoreError: it cannot be written.
    """
    place = Path(path)
    partial = place.with_name(f"{place.name}.part")
    if place.exists():
        message = f"{place}: there is a file already: choose another name, or remove it"
        raise UsageError(message)
    try:
        os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE))
        try:
            yield partial
            _sync(partial, os.O_RDWR)
            os.link(partial, place)  # unlike a rename, it replaces nothing that came meanwhile
        finally:
            partial.unlink()
            for name in (f"{partial.name}-wal", f"{partial.name}-shm", f"{partial.name}-journal"):
                with suppress(FileNotFoundError):
                    partial.with_name(name).unlink()
        _sync(place.parent, os.O_RDONLY)
    except FileExistsError as error:
        there = error.filename2 or error.filename  # of a link, the second: it may be a symbolic link to nothing
        message = f"{there}: there is a file already: another copy may be under way; if not, remove it"
        raise UsageError(message) from error
    except (OSError, sqlite3.Error) as error:
        message = f"{place}: it cannot be written: {error}: check the space, the directory and its owner"
        raise StoreError(message) from error


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
