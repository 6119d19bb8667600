"""The SQLite file's tables, and how an older file becomes a newer one: forward only, one script a version."""

from typing import Final

APPLICATION_ID: Final = 0x626B6D31  # "bkm1", in the file's header: a file of another program is refused

_VERSION_1: Final = """
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

MIGRATIONS: Final = (_VERSION_1,)
"""Script n makes version n + 1 of version n; version 0 is an empty file."""
