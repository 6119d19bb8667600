"""A store of every earlier version becomes one of today, with all that it held, sealed."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from store import version_1
from store.planted import NOW, SEED, TOKEN_KEY

from brokerkm.core.commit import Enrollment
from brokerkm.core.group import Group
from brokerkm.core.policy import Policy
from brokerkm.core.tree import KeyTree
from brokerkm.errors import StoreError
from brokerkm.store import (
    Change,
    KeyChange,
    MemberRecord,
    OutboxMessage,
    Settings,
    SqliteStore,
    Status,
    TokenRecord,
    schema,
)

if TYPE_CHECKING:
    from pathlib import Path

KEY = b"k" * 32
MEMBERS = 700


@pytest.fixture
def group() -> Group:
    """Return a group whose pages are of both kinds, full and short."""
    made, dice = Group("plant", SEED), random.Random(1).randbytes
    for first in (0, 300):  # the tree grows after its first pages were written
        for number in range(first, first + MEMBERS // 2):
            made.enroll(Enrollment(f"m{number}"))
        made.commit(NOW, dice)
    made.evict("m20")
    made.commit(NOW, dice)
    return made


@pytest.fixture
def path(tmp_path: Path, group: Group) -> Path:
    """Write a store of version 1."""
    place = tmp_path / "brokerkm.sqlite"
    version_1.make(place, group, "[1, 2, 3, 0, 1]")
    return place


def test_all_of_version_1_is_there(path: Path, group: Group) -> None:
    """Keys, members, tokens and messages are what they were; what version 1 did not know begins at nothing."""
    with closing(SqliteStore(path, KEY)) as store:
        (record,) = store.groups()
        assert (SEED, 3, 0) == (record.signing_seed, record.epoch, record.policy.stop_when_silent)
        assert (Policy(1, 2, 3).grace, Settings(), False, ()) == (
            record.policy.grace,
            record.settings,
            record.frozen,
            record.handovers,
        )
        tree = KeyTree.load(4, record.height, store.pages("plant"))
        for mine, theirs in zip(group.tree.levels, tree.levels, strict=True):
            assert (mine.keys, mine.births) == (theirs.keys, theirs.births)
        since = 1_700_000_000_000
        one = MemberRecord("m1", Status.SEATED, b"i" * 32, 1, b"k" * 32, b"n" * 16, 5, 1, since)
        assert (one, MemberRecord("gone", Status.EVICTED, b"", last_time=7, epoch=2, since=since)) == (
            store.member("plant", "m1"),
            store.member("plant", "gone"),
        )
        assert [TokenRecord(b"\xaa\xbb", TOKEN_KEY, 3, 9000)] == store.tokens("plant")
        assert [OutboxMessage("m", b"\2", "m1", 9)] == store.unpublished("plant", 10)
        assert [] == store.verify()


def test_a_store_of_version_1_goes_on(path: Path, group: Group) -> None:
    """The next commit follows, here and after a restart."""
    with closing(SqliteStore(path, KEY)) as store:
        group.evict("m30")
        change = group.prepare(NOW, random.Random(2).randbytes).change
        keys = KeyChange(4, change.height, change.pages(group.tree))
        gone = MemberRecord("m30", Status.EVICTED, b"")
        assert 10 == store.write("plant", Change(keys=keys, members=[gone], messages=[OutboxMessage("b", b"")]))
    with closing(SqliteStore(path, KEY)) as store:
        assert [] == store.verify()


def test_no_plain_key_is_left(path: Path, group: Group) -> None:
    """Neither the file nor the write-ahead log has one after the upgrade."""
    keys = [bytes(level.keys[at : at + 32]) for level in group.tree.levels for at in range(0, len(level.keys), 32)]
    secrets = [SEED, TOKEN_KEY, *(key for key in keys if any(key))]

    def shown() -> int:
        files = [file.read_bytes() for file in path.parent.iterdir()]
        return sum(1 for secret in secrets if any(secret in content for content in files))

    assert len(secrets) == shown() > 800
    store = SqliteStore(path, KEY)
    assert 0 == shown()
    store.close()
    assert 0 == shown()


def test_an_upgrade_that_is_cut_off_is_done_again(path: Path, group: Group) -> None:
    """A store key that cannot be had stops it between tables and seals; the next start goes on."""

    def absent() -> bytes:
        message = "the store key cannot be read"
        raise StoreError(message)

    with pytest.raises(StoreError, match="cannot be read"):
        SqliteStore(path, absent)
    with closing(SqliteStore(path, KEY)) as store:
        assert (3, []) == (store.groups()[0].epoch, store.verify())


def test_an_upgraded_store_has_the_tables_of_a_new_one(path: Path, tmp_path: Path) -> None:
    """Whoever upgraded has the same indices, checks and triggers."""

    def tables(place: Path) -> list[tuple[str, str]]:
        SqliteStore(place, KEY).close()
        with closing(sqlite3.connect(place)) as file:
            assert (schema.VERSION,) == file.execute("PRAGMA user_version").fetchone()
            return file.execute(
                "SELECT name, sql FROM sqlite_schema WHERE name != 'sqlite_sequence' ORDER BY name"
            ).fetchall()

    assert tables(tmp_path / "new") == tables(path)
