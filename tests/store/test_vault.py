"""Keys at rest: what is sealed, what is found when the file is changed, and other store keys."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from store.planted import SEED, SPARES, TOKEN_KEY, Planted

from brokerkm.core.tree import KeyTree
from brokerkm.errors import StoreError
from brokerkm.store import Change, GroupRecord, KeyChange, SqliteStore
from brokerkm.store.vault import Box, Vault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = b"k" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store is."""
    return tmp_path / "brokerkm.sqlite"


@pytest.fixture
def planted(path: Path) -> Planted:
    """Plant a group of 600 in a store."""
    return Planted(SqliteStore(path, KEY))


def keys_of(tree: KeyTree) -> list[bytes]:
    """Return all node keys of a tree."""
    return [
        bytes(level.keys[at : at + 32])
        for level in tree.levels
        for at in range(0, len(level.keys), 32)
        if any(level.keys[at : at + 32])
    ]


def shown(path: Path, secrets: list[bytes]) -> list[bytes]:
    """Return those of `secrets` that a file of the store shows."""
    return [secret for file in path.parent.iterdir() for secret in secrets if secret in file.read_bytes()]


def raw(path: Path) -> sqlite3.Connection:
    """Open the file as somebody does who has got at the disk."""
    return sqlite3.connect(path, isolation_level=None)


def load(path: Path, name: str = "plant") -> list[tuple[int, int, bytes]]:
    """Open the store and read all pages of a group."""
    with closing(SqliteStore(path, KEY)) as store:
        return list(store.pages(name))


def test_no_file_shows_a_key(planted: Planted, path: Path) -> None:
    """Neither the file nor its write-ahead log has a node key, signing key, token key or the store key."""
    secrets = [SEED, TOKEN_KEY, KEY, *planted.group.spares, *keys_of(planted.group.tree)]
    assert (SPARES, True) == (len(planted.group.spares), len(secrets) > 800)
    assert [] == shown(path, secrets)
    planted.store.close()
    assert [] == shown(path, secrets)


def test_what_was_sealed_is_opened(planted: Planted, path: Path) -> None:
    """Another process with the same key finds the same keys."""
    planted.store.close()
    with closing(SqliteStore(path, lambda: KEY)) as store:
        (record,) = store.groups()
        tree = KeyTree.load(4, record.height, store.pages("plant"))
        assert (SEED, TOKEN_KEY) == (record.signing_seed, store.tokens("plant")[0].key)
    assert keys_of(planted.group.tree) == keys_of(tree)


def test_another_key_is_refused(planted: Planted, path: Path) -> None:
    """The error says what is wrong, and shows no key."""
    planted.store.close()
    with pytest.raises(StoreError, match="this is not the store key") as caught:
        SqliteStore(path, b"x" * 32)
    assert "xxx" not in str(caught.value)
    load(path)


@pytest.mark.parametrize("key", [b"", b"k" * 31])
def test_a_key_of_another_size_is_refused(path: Path, key: bytes) -> None:
    """Nothing is stored under a weak key."""
    with pytest.raises(StoreError, match="a store key has 32 bytes"):
        SqliteStore(path, lambda: key)


def test_a_lost_key_file_is_not_replaced(path: Path) -> None:
    """A new key would open nothing: the error says what is missing."""
    SqliteStore(path).close()
    path.with_name("store.key").unlink()
    with pytest.raises(StoreError, match=re.escape("store.key: put it back there")):
        SqliteStore(path)
    assert not path.with_name("store.key").exists()


def pages_of(path: Path, where: str) -> list[tuple[int, int, int, int, bytes]]:
    """Return rows of the table of pages."""
    with closing(raw(path)) as file:
        query = f"SELECT group_id, level, number, version, page FROM pages WHERE {where}"  # noqa: S608 - the tests' own
        return file.execute(query).fetchall()


def put_back(path: Path, rows: list[tuple[int, int, int, int, bytes]]) -> None:
    """Write rows of pages over those that are there."""
    with closing(raw(path)) as file:
        file.executemany("REPLACE INTO pages (group_id, level, number, version, page) VALUES (?, ?, ?, ?, ?)", rows)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("UPDATE pages SET number = 9 WHERE level = 0 AND number = 4", "page 9 of level 0 .* moved or added"),
        (
            "UPDATE pages SET page = (SELECT page FROM pages WHERE number = 1) WHERE number = 2",
            "page 2 of level 0 of group plant is not what was sealed there",
        ),
        ("UPDATE pages SET page = zeroblob(length(page)) WHERE level = 5", "page 0 of level 5 .* not what was sealed"),
        ("UPDATE pages SET page = x'00' WHERE level = 5", "page 0 of level 5 .* not what was sealed"),
        ("UPDATE pages SET version = 9 WHERE number = 3", "what is above page 3 of level 0 .* was rolled back"),
        ("DELETE FROM pages WHERE level = 0 AND number = 3", "page 3 of level 0 of group plant is missing"),
        ("DELETE FROM pages WHERE level = 5", "page 0 of level 5 of group plant is missing"),
        ("UPDATE groups SET epoch = 7", "the header of group plant is not the one of epoch 7"),
        ("UPDATE groups SET header = x''", "the header of group plant is not"),
        ("UPDATE groups SET height = 4", "the header of group plant is for height 5, not 4"),
        ("UPDATE groups SET uid = zeroblob(16)", "the header of group plant is not"),
    ],
)
def test_a_changed_file_is_found(planted: Planted, path: Path, change: str, error: str) -> None:
    """Pages that were moved, swapped, damaged or deleted are named."""
    planted.store.close()
    with closing(raw(path)) as file:
        assert file.execute(change).rowcount >= 1
    with pytest.raises(StoreError, match=error):
        load(path)


@pytest.mark.parametrize(
    "change", ["UPDATE groups SET signing_seed = zeroblob(60)", "UPDATE groups SET name = 'other'"]
)
def test_a_signing_key_belongs_to_its_group(planted: Planted, path: Path, change: str) -> None:
    """It opens under the name of its group alone."""
    planted.store.close()
    with closing(raw(path)) as file:
        file.execute(change)
    with closing(SqliteStore(path, KEY)) as store, pytest.raises(StoreError, match="the signing key of group"):
        store.groups()


def test_a_token_key_belongs_to_its_token(planted: Planted, path: Path) -> None:
    """One token's key is not another's."""
    planted.store.close()
    with closing(raw(path)) as file:
        file.execute("UPDATE tokens SET id = x'aa'")
    with closing(SqliteStore(path, KEY)) as store, pytest.raises(StoreError, match="the key of token aa is not"):
        store.token("plant", b"\xaa")


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("level = 0 AND number = 0", "page 0 of level 0 of group plant was rolled back: it is of epoch 1, not 2"),
        ("level = 0", "page 0 of level 0 of group plant was rolled back"),  # with its siblings
        ("level IN (0, 1)", "page 0 of level 1 of group plant was rolled back"),
        ("level < 5", "page 0 of level 4 of group plant was rolled back"),
        ("1", "page 0 of level 5 of group plant was rolled back"),  # with all above it: the header knows
    ],
)
def test_pages_that_were_rolled_back_are_found(planted: Planted, path: Path, where: str, error: str) -> None:
    """An older page, alone or with its siblings or with those above it, is named."""
    planted.store.close()
    old = pages_of(path, where)
    planted.store = SqliteStore(path, KEY)
    planted.evict("m1")
    planted.store.close()
    put_back(path, old)
    with pytest.raises(StoreError, match=error):
        load(path)


def test_a_version_does_not_make_an_old_page_new(planted: Planted, path: Path) -> None:
    """The version that is sealed counts, not the one in the row."""
    planted.store.close()
    old = [
        (group, level, number, 2, page) for group, level, number, _, page in pages_of(path, "level = 0 AND number = 0")
    ]
    planted.store = SqliteStore(path, KEY)
    planted.evict("m1")
    planted.store.close()
    put_back(path, old)
    with pytest.raises(StoreError, match="page 0 of level 0 of group plant is not what was sealed there"):
        load(path)


def test_a_header_that_was_rolled_back_is_found(planted: Planted, path: Path) -> None:
    """The group's row of an earlier epoch does not fit the pages."""
    planted.store.close()
    with closing(raw(path)) as file:
        header = file.execute("SELECT header, epoch FROM groups").fetchone()
    planted.store = SqliteStore(path, KEY)
    planted.evict("m1")
    planted.store.close()
    with closing(raw(path)) as file:
        file.execute("UPDATE groups SET header = ?, epoch = ?", header)
    with pytest.raises(StoreError, match=r"what is above page 0 of level 5 .* not 1 as the header says"):
        load(path)


def test_pages_of_a_group_that_is_gone_are_found(planted: Planted, path: Path) -> None:
    """A group that takes the name of another does not take its pages."""
    planted.store.close()
    old = pages_of(path, "1")
    with closing(SqliteStore(path, KEY)) as store:
        store.destroy_group("plant", [])
        Planted(store)
    (group,) = {row[0] for row in pages_of(path, "1")}
    put_back(path, [(group, *row[1:]) for row in old])
    with pytest.raises(StoreError, match="is not what was sealed there"):
        load(path)


def test_a_commit_without_the_pages_above_is_refused(planted: Planted) -> None:
    """What could not be found again is not stored."""
    for pages, error in (
        ([(0, 0, b"p")], "page 0 of level 1 does not change with the pages below it"),
        ([(1, 0, b"p"), (0, 0, b"p")], "page 0 of level 0 comes after level 1"),
        ([(9, 0, b"p")], "page 0 of level 9 comes after level 0"),
    ):
        with pytest.raises(StoreError, match=error):
            planted.store.write("plant", Change(keys=KeyChange(2, 5, pages)))
    planted.evict("m1")


def test_a_failed_commit_is_forgotten(planted: Planted, path: Path) -> None:
    """The versions that count are those of what is stored."""
    planted.group.evict("m1")
    spent = {b"none": 1}
    change = planted.group.prepare(1.0, os.urandom).change
    keys = KeyChange(change.epoch, change.height, change.pages(planted.group.tree))
    with pytest.raises(StoreError, match="uses left"):
        planted.store.write("plant", Change(keys=keys, spent=spent))
    planted.commit()
    planted.store.close()
    load(path)


@pytest.mark.parametrize("deep", [False, True])
def test_rewrapping(planted: Planted, path: Path, *, deep: bool) -> None:
    """Afterwards the new key opens everything and the old one nothing, in the same store and after a restart."""
    new, (before,) = b"n" * 32, pages_of_first(path, planted)
    steps: list[tuple[int, int]] = []
    planted.store.rewrap(new, deep=deep, progress=lambda done, total: steps.append((done, total)))
    planted.evict("m2")
    assert [] == planted.store.verify()
    assert (SEED, TOKEN_KEY) == (planted.store.groups()[0].signing_seed, planted.store.tokens("plant")[0].key)
    planted.store.close()
    with pytest.raises(StoreError, match="this is not the store key"):
        SqliteStore(path, KEY)
    with closing(SqliteStore(path, new)) as store:
        assert keys_of(planted.group.tree) == keys_of(KeyTree.load(4, planted.group.tree.height, store.pages("plant")))
    (after,) = pages_of(path, "level = 0 AND number = 4")
    assert deep == (before != after)
    assert deep == (steps[-1:] == [(11, 11)])


def pages_of_first(path: Path, planted: Planted) -> list[tuple[int, int, int, int, bytes]]:
    """Return the row of a page that no test here changes; the store is open again afterwards."""
    planted.store.close()
    found = pages_of(path, "level = 0 AND number = 4")
    planted.store = SqliteStore(path, KEY)
    return found


def test_rewrapping_leaves_no_old_wrapping(planted: Planted, path: Path) -> None:
    """Who has the old store key and the file of today learns nothing."""
    planted.store.close()
    with closing(raw(path)) as file:
        (old,) = file.execute("SELECT wrapped FROM vault").fetchone()
    with closing(SqliteStore(path, KEY)) as store:
        assert shown(path, [old])
        store.rewrap(b"n" * 32, deep=True)
        assert [] == shown(path, [old])


def test_a_deep_rewrap_of_a_damaged_store_is_refused(planted: Planted, path: Path) -> None:
    """What is false is not sealed as if it were true; the store stays as it was."""
    planted.store.close()
    with closing(raw(path)) as file:
        file.execute("UPDATE pages SET version = 0 WHERE level = 0 AND number = 2")
    with closing(SqliteStore(path, KEY)) as store, pytest.raises(StoreError, match="was rolled back"):
        store.rewrap(b"n" * 32, deep=True)
    SqliteStore(path, KEY).close()


def test_boxes_do_not_open_each_others() -> None:
    """Scope and place count."""
    vault = Vault(bytes(32))
    sealed = vault.box("a", 1).seal(b"secret", 0, 1)
    assert b"secret" == vault.box("a", 1).open(sealed, 0, 1)
    others: list[Callable[[], bytes | None]] = [
        lambda: vault.box("a", 2).open(sealed, 0, 1),
        lambda: vault.box("a", 1).open(sealed, 1, 0),
        lambda: Vault(b"o" * 32).box("a", 1).open(sealed, 0, 1),
        lambda: vault.box("a", 1).open(b"short", 0, 1),
        lambda: Box(bytes(32)).open(sealed, 0, 1),
    ]
    assert [None] * 5 == [other() for other in others]
    assert sealed != vault.box("a", 1).seal(b"secret", 0, 1)


def test_a_new_group_has_its_own_seal(path: Path) -> None:
    """The same key in two groups is stored in two ways."""
    with closing(SqliteStore(path, KEY)) as store:
        for name in ("a", "b"):
            store.create_group(GroupRecord(name, SEED, 4), Change())
    with closing(raw(path)) as file:
        assert 2 == len(set(file.execute("SELECT signing_seed FROM groups")))
