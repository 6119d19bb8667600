"""The stores that the conformance tests run on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from brokerkm.store import Change, GroupRecord, MemoryStore, SqliteStore
from brokerkm.store.postgres import PostgresStore

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from brokerkm.store import Store


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Store]:
    """Open a store that holds the group g at epoch 0."""
    opened: Store
    match request.param:
        case "memory":
            opened = MemoryStore()
        case "sqlite":
            opened = SqliteStore(tmp_path / "brokerkm.sqlite", bytes(32))
        case _:
            opened = PostgresStore(request.getfixturevalue("database"), bytes(32))
    opened.create_group(GroupRecord("g", bytes(32), 4), Change())
    yield opened
    opened.close()
