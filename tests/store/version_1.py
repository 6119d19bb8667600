"""The tables of version 1 as that version made them, and a store of it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

from store.planted import SEED, TOKEN_KEY

if TYPE_CHECKING:
    from pathlib import Path

    from brokerkm.core.group import Group
    from brokerkm.core.tree import Level

TABLES: Final = """
CREATE TABLE groups (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    prefix TEXT NOT NULL,
    degree INTEGER NOT NULL,
    suite INTEGER NOT NULL,
    policy TEXT NOT NULL,             -- JSON array, as in a Welcome
    beacon_interval INTEGER NOT NULL, -- seconds
    signing_seed BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    height INTEGER NOT NULL,
    time INTEGER NOT NULL             -- milliseconds since 1970, as all times here
) STRICT;

CREATE TABLE pages (
    group_id INTEGER NOT NULL REFERENCES groups,
    level INTEGER NOT NULL,
    number INTEGER NOT NULL,
    page BLOB NOT NULL,
    UNIQUE (group_id, level, number)
) STRICT;

CREATE TABLE members (
    group_id INTEGER NOT NULL REFERENCES groups,
    member TEXT NOT NULL,
    status INTEGER NOT NULL,
    identity BLOB NOT NULL,
    slot INTEGER,
    kem_public BLOB NOT NULL,
    nonce BLOB NOT NULL,
    last_time INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    UNIQUE (group_id, member)
) STRICT;
CREATE UNIQUE INDEX members_by_slot ON members (group_id, slot) WHERE slot IS NOT NULL;

CREATE TABLE tokens (
    group_id INTEGER NOT NULL REFERENCES groups,
    id BLOB NOT NULL,
    key BLOB NOT NULL,
    uses_left INTEGER NOT NULL CHECK (uses_left >= 0),
    expiry INTEGER NOT NULL,
    UNIQUE (group_id, id)
) STRICT;

CREATE TABLE outbox (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    group_id INTEGER NOT NULL REFERENCES groups,
    topic TEXT NOT NULL,
    audience TEXT,
    payload BLOB NOT NULL,
    published INTEGER NOT NULL DEFAULT 0,
    UNIQUE (group_id, topic)
) STRICT;
CREATE INDEX outbox_waiting ON outbox (group_id, sequence) WHERE published = 0;
"""
NODES: Final = 64  # in a page


def page_of(level: Level, number: int, *, leaves: bool) -> bytes:
    """Return a page as version 1 wrote it."""
    first = NODES * number
    end = min(first + NODES, len(level.births))
    births = b"".join(birth.to_bytes(8, "big") for birth in level.births[first:end])
    steps = bytes(2 * (end - first)) if leaves else b"".join(step.to_bytes(2, "big") for step in level.steps[first:end])
    return bytes(level.keys[32 * first : 32 * end]) + births + steps


def make(path: Path, group: Group, policy: str) -> None:
    """Write a store of version 1 that holds `group`, its members, a token and two messages."""
    os.close(os.open(path, os.O_CREAT, 0o600))
    tree = group.tree
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA secure_delete = ON")
        file.executescript(TABLES)
        row = (1, group.name, "bkm/1", 4, 1, policy, 30, SEED, group.epoch, tree.height, 1_700_000_000_000)
        file.execute("INSERT INTO groups VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        for at, level in enumerate(tree.levels):
            for number in range(-(-len(level.births) // NODES)):
                values = (1, at, number, page_of(level, number, leaves=at == 0))
                file.execute("INSERT INTO pages VALUES (?, ?, ?, ?)", values)
        for slot, member in group.directory:
            values = (1, member, 2, b"i" * 32, slot, b"k" * 32, b"n" * 16, 5, 1)
            file.execute("INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        file.execute("INSERT INTO members VALUES (1, 'gone', 3, x'', NULL, x'', x'', 7, 2)")
        file.execute("INSERT INTO tokens VALUES (1, x'aabb', ?, 3, 9000)", (TOKEN_KEY,))
        file.execute("INSERT INTO outbox VALUES (7, 1, 'a', NULL, x'01', 1)")
        file.execute("INSERT INTO outbox VALUES (9, 1, 'm', 'm1', x'02', 0)")
        file.execute("PRAGMA application_id = 0x626B6D31")
        file.execute("PRAGMA user_version = 1")
        file.commit()
