"""Bad disks: full, read-only, and a last write that was torn. What was stored before is never lost."""

from __future__ import annotations

import random
import shutil
import sqlite3
import struct
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from store.disks import Disk, mounted
from store.planted import Planted

from brokerkm.errors import StoreError
from brokerkm.store import SqliteStore
from brokerkm.store.database import SqliteEngine

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

KEY = b"k" * 32


@pytest.fixture
def disk(tmp_path: Path) -> Generator[Disk | None]:
    """Mount a disk of 4 MB."""
    with mounted(tmp_path / "disk") as found:
        yield found


def fill(disk: Disk | None, store: SqliteStore) -> Path | sqlite3.Connection:
    """Leave no room for the store to grow."""
    if disk is not None:
        return disk.fill()
    engine = store._engine  # where nothing can be mounted, SQLite itself keeps a limit
    assert isinstance(engine, SqliteEngine)
    (pages,) = engine.connection.execute("PRAGMA page_count").fetchone()
    engine.connection.execute(f"PRAGMA max_page_count = {pages}")
    return engine.connection


def make_room(filled: Path | sqlite3.Connection) -> None:
    """Undo `fill`."""
    if isinstance(filled, sqlite3.Connection):
        filled.execute("PRAGMA max_page_count = 1000000")
    else:
        filled.unlink()


def test_a_full_disk(disk: Disk | None, tmp_path: Path) -> None:
    """Commits fail and say why until there is room; then they go on where they were."""
    path = tmp_path / "disk" / "brokerkm.sqlite"
    store = SqliteStore(path, KEY)
    planted = Planted(store)
    planted.store.scrub()
    filled = fill(disk, store)
    grown = 0
    with pytest.raises(StoreError, match="the disk is full: free some space"):  # noqa: PT012 - until it is
        for grown in range(600):
            planted.evict(f"m{grown}")
    before = planted.group.epoch
    assert before == store.groups()[0].epoch
    with pytest.raises(StoreError, match="the disk is full"):
        planted.evict("m599")
    assert [] == store.verify()
    make_room(filled)
    planted.evict("m598")
    assert before + 1 == store.groups()[0].epoch
    store.close()
    with closing(SqliteStore(path, KEY)) as again:
        assert ([], before + 1) == (again.verify(), again.groups()[0].epoch)


def test_a_read_only_file_system(disk: Disk | None, tmp_path: Path) -> None:
    """The store is not opened, says why, and is what it was when the file system can be written again."""
    path = tmp_path / "disk" / "brokerkm.sqlite"
    with closing(SqliteStore(path, KEY)) as store:
        Planted(store)
    if disk is None:  # where nothing can be mounted, others' rights do; root has all, but root may mount
        path.chmod(0o400)
        path.parent.chmod(0o500)
    else:
        disk.remount("ro")
    with pytest.raises(StoreError, match=r"check .*written"):
        SqliteStore(path, KEY)
    if disk is None:
        path.parent.chmod(0o700)
        path.chmod(0o600)
    else:
        disk.remount("rw")
    with closing(SqliteStore(path, KEY)) as store:
        assert ([], 1) == (store.verify(), store.groups()[0].epoch)


@pytest.fixture
def torn(tmp_path: Path) -> tuple[Path, Path, int]:
    """Return a store as a power cut leaves it, its log with three commits, and where the last of them begins."""
    store = SqliteStore(tmp_path / "brokerkm.sqlite", KEY)
    planted = Planted(store, members=200)
    store.scrub()
    log = tmp_path / "brokerkm.sqlite-wal"
    for member in ("m1", "m2"):
        planted.evict(member)
    begin = used(log)
    planted.evict("m3")
    place = tmp_path / "torn"
    place.mkdir()
    for file in (tmp_path / "brokerkm.sqlite", log):
        shutil.copy(file, place / file.name)
    end = used(log)
    (place / log.name).write_bytes(log.read_bytes()[:end])
    store.close()
    return place / "brokerkm.sqlite", place / log.name, begin


def used(log: Path) -> int:
    """Return how far the frames of the log's newest generation reach (SQLite's file format, section 4)."""
    content = log.read_bytes()
    (size,) = struct.unpack_from(">I", content, 8)
    salts, end = content[16:24], 32
    while content[end + 8 : end + 16] == salts and len(content) >= end + 24 + size:
        end += 24 + size
    return end


def opened(path: Path) -> int:
    """Return the epoch of a store that is whole."""
    with closing(SqliteStore(path, KEY)) as store:
        assert [] == store.verify()
        return store.groups()[0].epoch


def test_a_whole_log_is_taken_over(torn: tuple[Path, Path, int]) -> None:
    """What was committed and is only in the log yet is there."""
    assert 4 == opened(torn[0])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("how", ["cut off", "zeros", "garbage"])
def test_a_torn_last_write(torn: tuple[Path, Path, int], share: float, how: str) -> None:
    """A last commit that is not there as a whole is not there at all, and all before it are."""
    path, log, begin = torn
    content = log.read_bytes()
    at = begin + int(share * (len(content) - begin))
    rest = len(content) - at
    tail = {"cut off": b"", "zeros": bytes(rest), "garbage": random.Random(share).randbytes(rest)}[how]
    log.write_bytes(content[:at] + tail)
    assert 3 == opened(path)


def test_a_lost_log(torn: tuple[Path, Path, int]) -> None:
    """Without its log the store is what it was when the log was taken over last."""
    path, log, _ = torn
    log.unlink()
    assert 1 == opened(path)
