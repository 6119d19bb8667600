"""The SQLite file: who may open it, what survives, what is wiped, and what its errors say."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sqlite3
import stat
import sys
import time
from typing import TYPE_CHECKING

import pytest

from brokerkm.errors import StoreError
from brokerkm.store import Change, GroupRecord, KeyChange, OutboxMessage, SqliteStore
from brokerkm.store.database import SqliteEngine
from brokerkm.store.schema import VERSION

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

GROUP = GroupRecord("g", b"seed" * 8, 4)
ROOT = (1, 0, b"root")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store goes; its directory does not exist yet."""
    return tmp_path / "state" / "brokerkm.sqlite"


@pytest.fixture
def store(path: Path) -> Generator[SqliteStore]:
    """Open a store with one group."""
    opened = SqliteStore(path)
    opened.create_group(GROUP, Change())
    yield opened
    opened.close()


def commit(epoch: int, page: bytes = b"page") -> Change:
    """Return a commit of one page and one message."""
    return Change(keys=KeyChange(epoch, 1, [(0, 0, page), ROOT]), messages=[OutboxMessage("t", b"%d" % epoch)])


def connection(store: SqliteStore) -> sqlite3.Connection:
    """Return the store's connection."""
    engine = store._engine
    assert isinstance(engine, SqliteEngine)
    return engine.connection


def test_a_commit_is_on_the_disk_when_it_returns(store: SqliteStore) -> None:
    """The engine's own connection waits for the disk at each commit (2: FULL)."""
    assert (2,) == connection(store).execute("PRAGMA synchronous").fetchone()


def test_only_the_owner_may_read(store: SqliteStore, path: Path) -> None:
    """File, write-ahead log and directory are private from the start."""
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert {"brokerkm.sqlite": 0o600, "brokerkm.sqlite-wal": 0o600, "store.key": 0o600} == files
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_others_may_read_is_refused(path: Path) -> None:
    """The error says how to repair it."""
    path.parent.mkdir()
    path.touch(mode=0o644)
    with pytest.raises(StoreError, match="chmod 600"):
        SqliteStore(path)


def test_a_second_user_is_told(store: SqliteStore, path: Path) -> None:
    """The file is locked from the moment it is open, even if nothing is done."""
    with pytest.raises(StoreError, match="another process has it open"):
        SqliteStore(path)


def _open_and_report(path: str, answer: multiprocessing.connection.Connection) -> None:
    try:
        SqliteStore(path)
    except StoreError as error:
        answer.send(str(error))


def test_a_second_process_is_told(store: SqliteStore, path: Path) -> None:
    """So is another process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_open_and_report, args=(str(path), theirs))
    process.start()
    assert ours.poll(30)
    assert "another process has it open" in ours.recv()
    process.join(30)


def test_the_lock_ends_with_the_store(store: SqliteStore, path: Path) -> None:
    """After `close`, which may be called twice, another may open it and finds everything."""
    store.close()
    store.close()
    again = SqliteStore(path)
    assert [GROUP] == again.groups()
    again.close()


def test_a_group_survives_in_full(path: Path) -> None:
    """What one process committed, the next finds."""
    store = SqliteStore(path)
    store.create_group(GROUP, Change())
    store.write("g", commit(1))
    store.close()
    again = SqliteStore(path)
    assert [ROOT, (0, 0, b"page")] == list(again.pages("g"))
    assert ["t"] == [message.topic for message in again.unpublished("g", 10)]
    again.close()


def test_what_is_not_ours_is_refused(path: Path) -> None:
    """Another program's database, a newer version's, and a file that is no database."""
    path.parent.mkdir()
    os.close(os.open(path, os.O_CREAT, 0o600))
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE t (c)")
    other.close()
    with pytest.raises(StoreError, match="another program"):
        SqliteStore(path)
    path.write_bytes(b"not a database, but long enough to be read as one" * 100)
    with pytest.raises(StoreError, match="not a SQLite file"):
        SqliteStore(path)


def test_a_newer_version_is_refused(store: SqliteStore, path: Path) -> None:
    """An old program does not touch what it cannot understand."""
    store.close()
    with sqlite3.connect(path) as later:
        later.execute(f"PRAGMA user_version = {VERSION + 1}")
    later.close()
    with pytest.raises(StoreError, match="newer brokerkm"):
        SqliteStore(path)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    """The error names the path and what to look at."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="check that the directory exists"):
        SqliteStore(tmp_path / "file" / "brokerkm.sqlite")


def test_a_full_disk_loses_nothing(store: SqliteStore) -> None:
    """A commit that does not fit leaves the group where it was, and fits once there is room."""
    raw = connection(store)
    (pages,) = raw.execute("PRAGMA page_count").fetchone()
    raw.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="the disk is full: free some space"):
        store.write("g", commit(1, bytes(100_000)))
    assert ([], [], [GROUP]) == (list(store.pages("g")), store.unpublished("g", 10), store.groups())
    raw.execute("PRAGMA max_page_count = 100000")
    store.write("g", commit(1))
    assert store.groups()[0].epoch == 1


def test_a_read_only_store_says_so(store: SqliteStore) -> None:
    """The error says what to check."""
    connection(store).execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError, match="it cannot be written: check its owner"):
        store.write("g", commit(1))


def test_a_damaged_policy_is_found(store: SqliteStore) -> None:
    """What cannot be a policy is not served."""
    connection(store).execute("UPDATE groups SET policy = '[1, 2, 0]'")
    with pytest.raises(StoreError, match="the stored group g is damaged"):
        store.groups()


def sealed_page(store: SqliteStore) -> bytes:
    """Return how the first page is stored."""
    (page,) = connection(store).execute("SELECT page FROM pages WHERE level = 0").fetchone()
    return bytes(page)


def test_replaced_pages_are_wiped(store: SqliteStore, path: Path) -> None:
    """After a scrub no file of the store holds a page that was replaced, though it is sealed."""
    store.write("g", commit(1, os.urandom(2400)))
    old = sealed_page(store)

    def found(page: bytes) -> bool:
        return any(page[at : at + 40] in file.read_bytes() for file in path.parent.iterdir() for at in (0, 1000, 2000))

    assert found(old)
    store.write("g", commit(2, os.urandom(2400)))
    assert found(old), "the write-ahead log still has it, so this test can fail"
    store.scrub()
    assert (False, True) == (found(old), found(sealed_page(store)))


def test_published_welcomes_are_wiped(store: SqliteStore, path: Path) -> None:
    """So are messages that are gone."""
    secret = os.urandom(40)
    welcome = OutboxMessage("m/ann", secret * 20, "ann")
    last = store.write("g", Change(keys=KeyChange(1, 1, []), messages=[welcome]))
    store.scrub()
    assert secret in path.read_bytes()
    store.mark_published("g", last)
    store.scrub()
    assert secret not in path.read_bytes()


def _commit_for_ever(path: str, epochs: multiprocessing.connection.Connection) -> None:
    store = SqliteStore(path)
    store.create_group(GROUP, Change())
    for epoch in range(1, sys.maxsize):
        store.write("g", commit(epoch, b"%08d" % epoch * 500))
        epochs.send(epoch)


def test_killed_while_it_commits(path: Path) -> None:
    """Every epoch that was reported is there, whole, after a kill -9 in the middle of the work."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_commit_for_ever, args=(str(path), theirs))
    process.start()
    theirs.close()
    reported = [ours.recv() for _ in range(20)]
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    try:
        while True:
            reported.append(ours.recv())
    except EOFError:
        pass
    store = SqliteStore(path)
    (group,) = store.groups()
    assert group.epoch in (reported[-1], reported[-1] + 1)
    assert [ROOT, (0, 0, b"%08d" % group.epoch * 500)] == list(store.pages("g"))
    assert [b"%d" % group.epoch] == [message.payload for message in store.unpublished("g", 10)]
    store.close()


def test_a_large_commit_is_stored_in_seconds(store: SqliteStore) -> None:
    """65,000 messages and 27,000 pages, as ten thousand evictions from a million members make them at worst."""
    messages = [OutboxMessage(f"bkm/1/g/n/{at % 5}/{at}", b"x" * 300) for at in range(65_000)]
    sizes = [20_000, 5_000, 1_250, 313, 79, 20, 5, 2, 1]
    pages = ((level, at, bytes(5376)) for level, size in enumerate(sizes) for at in range(size))
    start = time.perf_counter()
    store.write("g", Change(keys=KeyChange(1, 8, pages), messages=messages))
    assert time.perf_counter() - start < 20, "2 s on two busy cores"
