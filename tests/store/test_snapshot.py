"""A check of a store that is in use: it sees one state, holds nobody up, and leaves nothing behind."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from store.disks import mounted
from store.planted import Planted

from brokerkm.errors import StoreError
from brokerkm.store import SqliteStore
from brokerkm.store.postgres import PostgresStore

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from brokerkm.store import Finding
    from brokerkm.store.sql import SqlStore

KEY = b"k" * 32
PATIENCE = 30.0  # seconds


@pytest.fixture(params=["sqlite", "postgres"])
def planted(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Planted]:
    """Plant a group of 600 in a store of each engine."""
    store: SqlStore
    if request.param == "sqlite":
        store = SqliteStore(tmp_path / "brokerkm.sqlite", KEY)
    else:
        store = PostgresStore(request.getfixturevalue("database"), KEY)
    yield Planted(store)
    store.close()


def test_an_eviction_commits_during_a_check(planted: Planted, tmp_path: Path) -> None:
    """The check stands still until it has; what it sees is the state of its beginning, which is whole."""
    begun, evicted, found = threading.Event(), threading.Event(), list["Finding"]()

    def report(done: int, total: int) -> None:
        if (done, total) == (0, 1):  # the first of one group: the state is fixed, nothing is checked yet
            begun.set()
            assert evicted.wait(PATIENCE)

    def check() -> None:
        found.extend(planted.store.verify(report, aside=True))

    checking = threading.Thread(target=check)
    checking.start()
    assert begun.wait(PATIENCE)
    planted.evict("m1")
    assert checking.is_alive()
    evicted.set()
    checking.join(PATIENCE)
    assert ([], [], 2) == (found, planted.store.verify(), planted.store.groups()[0].epoch)
    planted.evict("m2")
    assert not [path for path in tmp_path.iterdir() if "snapshot" in path.name]


def test_damage_is_found_aside_too(tmp_path: Path) -> None:
    """As by a check that has the store for itself; what a killed check has left is in nobody's way."""
    with closing(SqliteStore(tmp_path / "brokerkm.sqlite", KEY)) as store:
        Planted(store)
    with closing(sqlite3.connect(tmp_path / "brokerkm.sqlite")) as file:
        file.execute("UPDATE pages SET page = zeroblob(length(page)) WHERE level = 0 AND number = 2")
        file.commit()
    for suffix in ("", ".part"):
        (tmp_path / f"brokerkm.sqlite.snapshot{suffix}").write_bytes(b"left by a killed check")
    with closing(SqliteStore(tmp_path / "brokerkm.sqlite", KEY)) as store:
        found = store.verify(aside=True)
        assert (["plant"], found) == ([finding.group for finding in found], store.verify())
    assert {"brokerkm.sqlite"} == {path.name for path in tmp_path.iterdir()}


def test_a_check_does_not_fill_the_disk(tmp_path: Path) -> None:
    """Without room for a copy and as much again it says what to do; the server goes on."""
    with mounted(tmp_path / "disk") as disk:
        if disk is None:
            pytest.skip("mounting needs more rights")
        with closing(SqliteStore(disk.place / "brokerkm.sqlite", KEY)) as store:
            planted = Planted(store)
            disk.fill()
            with pytest.raises(StoreError, match=r"make room, or copy it elsewhere by `brokerkm store backup FILE`"):
                store.verify(aside=True)
            assert [] == store.verify()
            (disk.place / "ballast").unlink()
            planted.evict("m1")
            assert [] == store.verify(aside=True)
