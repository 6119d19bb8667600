"""The tables, and how an older store becomes a newer one: forward only, one step a version.

The statements are written once; a `Dialect` has what the engines say differently. Version 1 was SQLite's alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

APPLICATION_ID: Final = 0x626B6D31  # "bkm1", in the header of a SQLite file: a file of another program is refused
VERSION: Final = 2


@dataclass(frozen=True, slots=True)
class Dialect:
    """What an engine calls things.

    Args:
        serial: a column that numbers its rows.
        integer, text, blob: types; text is compared byte by byte.
        table: what follows a table's columns.
        guard: statements that refuse UPDATE and DELETE of audit entries.
    """

    serial: str
    integer: str
    text: str
    blob: str
    table: str
    guard: tuple[str, ...]


SQLITE: Final = Dialect(
    serial="INTEGER PRIMARY KEY AUTOINCREMENT",
    integer="INTEGER",
    text="TEXT",
    blob="BLOB",
    table=" STRICT",
    guard=tuple(
        f"CREATE TRIGGER audit_no_{verb.lower()} BEFORE {verb} ON audit "
        "BEGIN SELECT RAISE(ABORT, 'the audit log can only be added to'); END"
        for verb in ("UPDATE", "DELETE")
    ),
)

_TABLES: Final = (
    # header: the group's epoch and the version of its root page, sealed. sequence: of the newest outbox message.
    # fence: of the lease under which the group is led.
    """CREATE TABLE groups (
    id {serial},
    name {text} NOT NULL UNIQUE,
    uid {blob} NOT NULL UNIQUE,
    prefix {text} NOT NULL,
    degree {integer} NOT NULL,
    suite {integer} NOT NULL,
    policy {text} NOT NULL,
    beacon_interval {integer} NOT NULL,
    settings {text} NOT NULL,
    frozen {integer} NOT NULL,
    handovers {blob} NOT NULL,
    signing_seed {blob} NOT NULL,
    header {blob} NOT NULL,
    epoch {integer} NOT NULL,
    height {integer} NOT NULL,
    time {integer} NOT NULL,
    sequence {integer} NOT NULL,
    fence {integer} NOT NULL
){table}""",
    # version: the epoch of the commit that wrote it; the page above says, sealed, which one it has to be.
    """CREATE TABLE pages (
    group_id {integer} NOT NULL REFERENCES groups,
    level {integer} NOT NULL,
    number {integer} NOT NULL,
    version {integer} NOT NULL,
    page {blob} NOT NULL,
    UNIQUE (group_id, level, number)
){table}""",
    """CREATE TABLE members (
    group_id {integer} NOT NULL REFERENCES groups,
    member {text} NOT NULL,
    status {integer} NOT NULL,
    identity {blob} NOT NULL,
    slot {integer},
    kem_public {blob} NOT NULL,
    nonce {blob} NOT NULL,
    last_time {integer} NOT NULL,
    epoch {integer} NOT NULL,
    since {integer} NOT NULL,
    seen {integer} NOT NULL,
    acked {integer} NOT NULL,
    blocked_until {integer} NOT NULL,
    counter {integer} NOT NULL,
    UNIQUE (group_id, member)
){table}""",
    "CREATE UNIQUE INDEX members_by_slot ON members (group_id, slot) WHERE slot IS NOT NULL",
    "CREATE INDEX members_by_status ON members (group_id, status, member)",
    """CREATE TABLE tokens (
    group_id {integer} NOT NULL REFERENCES groups,
    id {blob} NOT NULL,
    key {blob} NOT NULL,
    uses_left {integer} NOT NULL CHECK (uses_left >= 0),
    expiry {integer} NOT NULL,
    pattern {text} NOT NULL,
    created {integer} NOT NULL,
    note {text} NOT NULL,
    UNIQUE (group_id, id)
){table}""",
    # group_id 0: the server's own.
    """CREATE TABLE documents (
    group_id {integer} NOT NULL,
    kind {text} NOT NULL,
    name {text} NOT NULL,
    body {blob} NOT NULL,
    time {integer} NOT NULL,
    UNIQUE (group_id, kind, name)
){table}""",
    """CREATE TABLE outbox (
    group_id {integer} NOT NULL REFERENCES groups,
    topic {text} NOT NULL,
    sequence {integer} NOT NULL,
    audience {text},
    payload {blob} NOT NULL,
    published {integer} NOT NULL,
    UNIQUE (group_id, topic)
){table}""",
    "CREATE INDEX outbox_waiting ON outbox (group_id, sequence) WHERE published = 0",
    # By the group's name, not its id: the log outlives the group.
    """CREATE TABLE audit (
    chain {text} NOT NULL,
    number {integer} NOT NULL,
    entry {text} NOT NULL,
    hash {blob} NOT NULL,
    UNIQUE (chain, number)
){table}""",
    # The newest entry of each chain: what was cut off at the end is missed.
    """CREATE TABLE chains (
    chain {text} NOT NULL UNIQUE,
    number {integer} NOT NULL,
    hash {blob} NOT NULL
){table}""",
    # At most one row: the data key, wrapped under the store key.
    """CREATE TABLE vault (
    id {integer} NOT NULL UNIQUE CHECK (id = 1),
    wrapped {blob} NOT NULL
){table}""",
)
TABLE_NAMES: Final = ("groups", "pages", "members", "tokens", "documents", "outbox", "audit", "chains", "vault")


def tables(dialect: Dialect) -> list[str]:
    """Return the statements that make an empty store of the newest version."""
    words = {name: getattr(dialect, name) for name in ("serial", "integer", "text", "blob", "table")}
    return [statement.format(**words) for statement in _TABLES] + list(dialect.guard)


_OLD_1: Final = ("groups", "pages", "members", "tokens", "outbox")
_SQLITE_FROM_1: Final = (
    "DROP INDEX members_by_slot",
    "DROP INDEX outbox_waiting",
    *(f"ALTER TABLE {name} RENAME TO old_{name}" for name in _OLD_1),
    *tables(SQLITE),
    """INSERT INTO groups SELECT id, name, randomblob(16), prefix, degree, suite, policy, beacon_interval, '{}', 0,
    x'90', signing_seed, x'', epoch, height, time, (SELECT coalesce(max(sequence), 0) FROM old_outbox), 0
    FROM old_groups""",
    "INSERT INTO pages SELECT group_id, level, number, 0, page FROM old_pages",
    # Nothing is known of when they were seen: their silence begins now, as far as the group's clock tells.
    """INSERT INTO members SELECT group_id, member, status, identity, slot, kem_public, nonce, last_time, epoch,
    (SELECT time FROM old_groups WHERE id = group_id), 0, 0, 0, 0 FROM old_members""",
    "INSERT INTO tokens SELECT group_id, id, key, uses_left, expiry, '*', 0, '' FROM old_tokens",
    "INSERT INTO outbox SELECT group_id, topic, sequence, audience, payload, published FROM old_outbox",
    *(f"DROP TABLE old_{name}" for name in reversed(_OLD_1)),
)


def sqlite_migration(version: int) -> list[str]:
    """Return the statements that make a SQLite file of `version`, 0 for an empty one, one of the newest."""
    return {0: tables(SQLITE), 1: list(_SQLITE_FROM_1), VERSION: []}[version]
