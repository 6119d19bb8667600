"""Backups of a store that is in use, what comes back of them, and what `verify` finds."""

from __future__ import annotations

import sqlite3
import stat
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from store.planted import SEED, Planted

from brokerkm.errors import StoreError, UsageError
from brokerkm.store import (
    AuditEntry,
    Change,
    Finding,
    GroupRecord,
    MemberRecord,
    MemoryStore,
    SqliteStore,
    Status,
    schema,
)
from brokerkm.store.backup import COLUMNS, copy_tables, restore
from brokerkm.store.database import SqliteEngine
from brokerkm.store.postgres import PostgresStore, restore_database

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

KEY = b"k" * 32


@pytest.fixture
def planted(tmp_path: Path) -> Generator[Planted]:
    """Plant a group of 600 in a store."""
    store = SqliteStore(tmp_path / "brokerkm.sqlite", KEY)
    yield Planted(store)
    store.close()


def contents(path: Path) -> list[object]:
    """Return all that a store holds."""
    with closing(SqliteStore(path, KEY)) as store:
        assert [] == store.verify()
        group = [list(store.pages("plant")), list(store.seats("plant")), store.tokens("plant"), store.audit("plant")]
        return [store.groups(), *group, store.unpublished("plant", 100)]


def test_a_backup_is_the_store(planted: Planted, tmp_path: Path) -> None:
    """It is private, and holds what the store held."""
    steps: list[tuple[int, int]] = []
    planted.store.backup(tmp_path / "backup", lambda done, total: steps.append((done, total)))
    assert 0o600 == stat.S_IMODE((tmp_path / "backup").stat().st_mode)
    assert steps[-1][0] == steps[-1][1] > 0
    planted.store.close()
    assert contents(tmp_path / "brokerkm.sqlite") == contents(tmp_path / "backup")
    assert SEED not in (tmp_path / "backup").read_bytes()
    assert [] == [name for name in tmp_path.iterdir() if ".part" in name.name]


def test_a_backup_while_commits_go_on(planted: Planted, tmp_path: Path) -> None:
    """Commits are not held up until it is done, and it holds one state of the store, with all pages of it."""
    for number in range(40):  # some megabytes, to be copied in several steps
        filler = "x" * 100_000
        planted.store.write("plant", Change(audit=[AuditEntry(number, "operator", "note", "plant", {"text": filler})]))
    begun, steps = threading.Event(), []

    def report(done: int, total: int) -> None:
        steps.append((done, total))
        begun.set()

    backing = threading.Thread(target=planted.store.backup, args=(tmp_path / "backup", report))
    backing.start()
    assert begun.wait(30)
    during = 0
    while backing.is_alive():
        planted.evict(f"m{during}")
        during += 1
    backing.join()
    assert len(steps) > 3
    assert during > 3
    planted.evict("m599")
    with closing(SqliteStore(tmp_path / "backup", KEY)) as store:
        assert [] == store.verify()
        assert 1 < store.groups()[0].epoch <= 1 + during


def test_a_restored_backup_goes_on(planted: Planted, tmp_path: Path) -> None:
    """It is a store like any other, in a place of its own."""
    planted.store.backup(tmp_path / "backup")
    planted.evict("m1")
    restore(tmp_path / "backup", tmp_path / "restored")
    with closing(SqliteStore(tmp_path / "restored", KEY)) as store:
        assert (1, [], 600) == (store.groups()[0].epoch, store.verify(), store.count("plant")[Status.SEATED])


def test_nothing_is_overwritten(planted: Planted, tmp_path: Path) -> None:
    """Neither a backup nor a restored store takes the place of a file."""
    planted.store.backup(tmp_path / "backup")
    with pytest.raises(UsageError, match="there is a file already"):
        planted.store.backup(tmp_path / "backup")
    with pytest.raises(UsageError, match="there is a file already"):
        restore(tmp_path / "backup", tmp_path / "brokerkm.sqlite")


def test_a_backup_that_cannot_be_written(planted: Planted, tmp_path: Path) -> None:
    """The error says so, and nothing is left behind."""
    with pytest.raises(StoreError, match="it cannot be written"):
        planted.store.backup(tmp_path / "none" / "backup")


def test_what_comes_meanwhile_is_not_overwritten(planted: Planted, tmp_path: Path) -> None:
    """Neither a file that appears at the same place nor another copy that is under way."""
    (tmp_path / "backup.part").touch()
    with pytest.raises(UsageError, match="another copy may be under way"):
        planted.store.backup(tmp_path / "backup")
    (tmp_path / "backup.part").unlink()
    with pytest.raises(UsageError, match="there is a file already"):
        planted.store.backup(tmp_path / "backup", lambda *_: (tmp_path / "backup").write_bytes(b"mine") and None)
    assert b"mine" == (tmp_path / "backup").read_bytes()


def test_a_symbolic_link_is_not_followed(planted: Planted, tmp_path: Path) -> None:
    """Somebody who may write there does not choose where keys go; the link is named, and nothing stays behind."""
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="/link: there is a file already"):
        planted.store.backup(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "link.part").exists()


@pytest.mark.parametrize("content", [b"", b"no database" * 1000])
def test_what_is_no_backup_is_not_restored(tmp_path: Path, content: bytes) -> None:
    """The error says so, and there is no store then."""
    (tmp_path / "backup").write_bytes(content)
    with pytest.raises(StoreError, match="backup"):
        restore(tmp_path / "backup", tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_a_damaged_backup_is_not_restored(planted: Planted, tmp_path: Path) -> None:
    """A backup that was cut off is found before anything is made of it."""
    planted.store.backup(tmp_path / "backup")
    content = (tmp_path / "backup").read_bytes()
    (tmp_path / "backup").write_bytes(content[: len(content) // 2])
    with pytest.raises(StoreError, match="take another one"):
        restore(tmp_path / "backup", tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_a_missing_backup(tmp_path: Path) -> None:
    """The error names it."""
    with pytest.raises(StoreError, match="absent: it cannot be read"):
        restore(tmp_path / "absent", tmp_path / "restored")


def test_tables_are_copied_from_engine_to_engine(planted: Planted, tmp_path: Path) -> None:
    """Row by row comes the same store."""
    more = [MemberRecord(f"x{number}", Status.LISTED, b"") for number in range(2000)]
    planted.store.write("plant", Change(members=more))
    planted.store.close()
    source, target = SqliteEngine(tmp_path / "brokerkm.sqlite"), SqliteEngine(tmp_path / "copy")
    steps: list[tuple[int, int]] = []
    with source.reading() as reading, target.transaction() as writing:
        copy_tables(reading, writing, lambda done, total: steps.append((done, total)))
    for engine in (source, target):
        engine.close()
    assert steps[-1][0] == steps[-1][1] > 2600
    assert contents(tmp_path / "brokerkm.sqlite") == contents(tmp_path / "copy")


def test_every_column_is_copied(tmp_path: Path) -> None:
    """No table and no column is forgotten."""
    with closing(SqliteEngine(tmp_path / "store")) as engine:
        found = {
            name: ", ".join(row[1] for row in engine.connection.execute(f"PRAGMA table_info({name})"))
            for (name,) in engine.connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
            if not name.startswith("sqlite_")
        }
    assert set(found) == set(schema.TABLE_NAMES)
    assert {name: set(columns.split(", ")) for name, columns in found.items()} == {
        name: set(columns.split(", ")) for name, columns in COLUMNS.items()
    }


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ("UPDATE members SET slot = 900 WHERE member = 'm1'", "m1 sits at slot 900, which has no key"),
        (
            "UPDATE members SET slot = NULL WHERE member = 'm1'",
            "m1 has a seat, or not: its slot is None, its status seated",
        ),
        ("DELETE FROM members WHERE member = 'm1'", "600 leaves have keys, but 599 members sit at them"),
        ("UPDATE outbox SET sequence = 99", "1 messages of the outbox are newer than the newest"),
        ("INSERT INTO pages SELECT group_id, 9, 0, 1, page FROM pages WHERE level = 5", "1 pages are of levels that"),
        ("UPDATE pages SET page = x'' WHERE level = 0 AND number = 1", "page 1 of level 0 of group plant is not what"),
        ("UPDATE tokens SET key = x''", "the key of token 746f6b656e2d6964 is not what was sealed"),
        ("UPDATE chains SET number = 9", "its audit log ends with entry 2, but 9 were written"),
        ("DELETE FROM chains", "its audit log has entries, but no head"),
        ("DROP TRIGGER audit_no_delete; DELETE FROM audit WHERE number = 1", "entry 1 does not fit"),
        ("DROP TRIGGER audit_no_delete; DELETE FROM audit WHERE number = 2", "ends with entry 1, but 2 were written"),
        ("DROP TRIGGER audit_no_update; UPDATE audit SET entry = '{}' WHERE number = 2", "entry 2 does not fit"),
    ],
)
def test_what_does_not_fit_is_found(planted: Planted, tmp_path: Path, change: str, finding: str) -> None:
    """Every kind of damage is named, with the group that has it."""
    assert [] == planted.store.verify()
    planted.store.close()
    with closing(sqlite3.connect(tmp_path / "brokerkm.sqlite")) as file:
        file.executescript(change)
    with closing(SqliteStore(tmp_path / "brokerkm.sqlite", KEY)) as store:
        findings = store.verify()
    assert {"plant"} == {one.group for one in findings}
    assert any(finding in one.what for one in findings)


def test_a_damaged_file_is_found(planted: Planted, tmp_path: Path) -> None:
    """SQLite's own check is part of it."""
    planted.store.close()
    path = tmp_path / "brokerkm.sqlite"
    with closing(sqlite3.connect(path)) as file:
        (root,) = file.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'members_by_status'").fetchone()
        (size,) = file.execute("PRAGMA page_size").fetchone()
    content = bytearray(path.read_bytes())
    content[size * (root - 1) + 12 : size * (root - 1) + 60] = bytes(48)
    path.write_bytes(content)
    with closing(SqliteStore(path, KEY)) as store:
        findings = store.verify()
    assert any(one.group == "" and ("integrity_check" in one.what or "damaged" in one.what) for one in findings)


def test_the_audit_log_can_only_be_added_to(planted: Planted) -> None:
    """The database itself refuses to change or delete entries."""
    assert isinstance(planted.store, SqliteStore)
    for statement in ("UPDATE audit SET number = 7", "DELETE FROM audit"):
        with pytest.raises(StoreError, match="can only be added to"), planted.store._engine.transaction() as session:
            session.change(statement)
    assert [1, 2] == [record.number for record in planted.store.audit("plant")]


def test_a_memory_store_has_nothing_to_keep() -> None:
    """What makes no sense there is refused; there is nothing to find."""
    store = MemoryStore()
    with pytest.raises(UsageError, match="in memory"):
        store.backup("backup")
    with pytest.raises(UsageError, match="no store key"):
        store.rewrap(bytes(32))
    assert [] == store.verify()
    assert Finding("g", "w") == Finding("g", "w")
    assert MemberRecord("m", Status.LISTED, b"").since == 0


def test_a_backup_becomes_a_database(planted: Planted, tmp_path: Path, database: str) -> None:
    """A store moves from SQLite to PostgreSQL and back, and goes on there; nothing takes the place of a store."""
    planted.store.backup(tmp_path / "backup")
    restore_database(tmp_path / "backup", database)
    with closing(PostgresStore(database, KEY)) as store:
        assert (planted.store.groups(), []) == (store.groups(), store.verify())
        assert planted.store.members("plant") == store.members("plant")
        planted.store.close()
        planted.store = store
        planted.evict("m1")
        store.create_group(GroupRecord("new", SEED, 4), Change())
        store.backup(tmp_path / "again")
    with pytest.raises(UsageError, match="there is a store in this database already, test"):
        restore_database(tmp_path / "backup", database)
    with closing(SqliteStore(tmp_path / "again", KEY)) as store:
        assert ([], ["new", "plant"]) == (store.verify(), [record.name for record in store.groups()])
