"""The store in one SQLite file: the default of `brokerkm serve`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from brokerkm.core.crypto import Suite
from brokerkm.core.policy import Policy
from brokerkm.errors import RefusedError, StoreError, UsageError
from brokerkm.store.database import Database
from brokerkm.store.records import GroupRecord, MemberRecord, OutboxMessage, Status, TokenRecord

if TYPE_CHECKING:
    import os
    import sqlite3
    from collections.abc import Iterable, Iterator, Sequence

    from brokerkm.store.records import CommitRecord

_GROUP_COLUMNS = "name, signing_seed, degree, prefix, suite, policy, beacon_interval, epoch, height, time"
_MEMBER_COLUMNS = "member, status, identity, slot, kem_public, nonce, last_time, epoch"
_PUT_MEMBER = f"""
INSERT INTO members (group_id, {_MEMBER_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (group_id, member) DO UPDATE SET
    status = excluded.status, identity = excluded.identity, slot = excluded.slot, kem_public = excluded.kem_public,
    nonce = excluded.nonce, last_time = excluded.last_time, epoch = excluded.epoch
"""  # noqa: S608 - constants
_PUT_PAGE = """
INSERT INTO pages (group_id, level, number, page) VALUES (?, ?, ?, ?)
ON CONFLICT (group_id, level, number) DO UPDATE SET page = excluded.page
"""


class SqliteStore:
    """`Store` in the SQLite file at `path`; created if there is none, and locked against other processes.

    Raises:
        StoreError: the file is in use, cannot be opened, is readable by others, or is none of ours.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._database = Database(path)
        self._ids: dict[str, int] = {}

    def create_group(self, record: GroupRecord, messages: Sequence[OutboxMessage]) -> None:
        """Add a group."""
        with self._database.transaction() as connection:
            if connection.execute("SELECT 1 FROM groups WHERE name = ?", (record.name,)).fetchone():
                message = f"there is a group {record.name} already"
                raise UsageError(message)
            added = connection.execute(
                f"INSERT INTO groups ({_GROUP_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants
                (
                    record.name,
                    record.signing_seed,
                    record.degree,
                    record.prefix,
                    record.suite,
                    json.dumps(record.policy.fields),
                    record.beacon_interval,
                    record.epoch,
                    record.height,
                    record.time,
                ),
            )
            _queue(connection, int(added.lastrowid or 0), messages)

    def groups(self) -> list[GroupRecord]:
        """Return all groups, by name."""
        return [_group(row) for row in self._rows(f"SELECT {_GROUP_COLUMNS} FROM groups ORDER BY name")]  # noqa: S608 - constants

    def pages(self, group: str) -> Iterator[tuple[int, int, bytes]]:
        """Yield the pages of the group's key tree."""
        yield from self._rows("SELECT level, number, page FROM pages WHERE group_id = ?", self._id(group))

    def seats(self, group: str) -> Iterator[tuple[str, int]]:
        """Yield (member id, slot) of the seated members."""
        seated = "SELECT member, slot FROM members WHERE group_id = ? AND slot IS NOT NULL ORDER BY slot"
        yield from self._rows(seated, self._id(group))

    def member(self, group: str, member: str) -> MemberRecord | None:
        """Return what is known of a member id."""
        one = f"SELECT {_MEMBER_COLUMNS} FROM members WHERE group_id = ? AND member = ?"  # noqa: S608 - constants
        return next((_member(row) for row in self._rows(one, self._id(group), member)), None)

    def members(self, group: str, after: str = "", limit: int = 1000) -> list[MemberRecord]:
        """Return records of members with ids above `after`."""
        some = f"SELECT {_MEMBER_COLUMNS} FROM members WHERE group_id = ? AND member > ? ORDER BY member LIMIT ?"  # noqa: S608 - constants
        return [_member(row) for row in self._rows(some, self._id(group), after, limit)]

    def put_member(self, group: str, record: MemberRecord) -> None:
        """Keep what is known of a member that has no seat."""
        number = self._id(group)
        with self._database.transaction() as connection:
            seated = "SELECT 1 FROM members WHERE group_id = ? AND member = ? AND slot IS NOT NULL"
            if record.slot is not None or connection.execute(seated, (number, record.member)).fetchone():
                message = f"{record.member} has a seat: only a commit changes that"
                raise StoreError(message)
            connection.execute(_PUT_MEMBER, (number, *_member_row(record)))

    def token(self, group: str, token_id: bytes) -> TokenRecord | None:
        """Return an enrollment token."""
        one = "SELECT id, key, uses_left, expiry FROM tokens WHERE group_id = ? AND id = ?"
        return next((TokenRecord(*row) for row in self._rows(one, self._id(group), token_id)), None)

    def add_token(self, group: str, token: TokenRecord, now: int) -> None:
        """Keep a new token, and forget those that had expired."""
        number = self._id(group)
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM tokens WHERE group_id = ? AND expiry <= ?", (number, now))
            row = (number, token.id, token.key, token.uses_left, token.expiry)
            connection.execute("INSERT INTO tokens (group_id, id, key, uses_left, expiry) VALUES (?, ?, ?, ?, ?)", row)

    def record_commit(self, group: str, commit: CommitRecord) -> int:
        """Store a commit with its messages."""
        number = self._id(group)
        with self._database.transaction() as connection:
            moved = connection.execute(
                "UPDATE groups SET epoch = ?, height = ?, time = ? WHERE id = ? AND epoch = ?",
                (commit.epoch, commit.height, commit.time, number, commit.epoch - 1),
            )
            if moved.rowcount != 1:
                message = f"epoch {commit.epoch} does not follow the stored epoch of group {group}"
                raise StoreError(message)
            for token_id, uses in commit.spent.items():
                _spend(connection, group, (number, token_id), uses)
            connection.executemany(_PUT_PAGE, ((number, *page) for page in commit.pages))
            # Those without a slot first: another may have got it.
            ordered = sorted(commit.members, key=lambda record: record.slot is not None)
            connection.executemany(_PUT_MEMBER, ((number, *_member_row(record)) for record in ordered))
            return _queue(connection, number, commit.messages)

    def record_beacon(self, group: str, time: int, message: OutboxMessage) -> int:
        """Move the group's clock and queue its Beacon."""
        number = self._id(group)
        with self._database.transaction() as connection:
            connection.execute("UPDATE groups SET time = ? WHERE id = ?", (time, number))
            return _queue(connection, number, [message])

    def unpublished(self, group: str, limit: int) -> list[OutboxMessage]:
        """Return messages that are to be published, in order."""
        waiting = """
            SELECT topic, payload, audience, sequence FROM outbox
            WHERE group_id = ? AND published = 0 ORDER BY sequence LIMIT ?
        """
        return [OutboxMessage(*row) for row in self._rows(waiting, self._id(group), limit)]

    def mark_published(self, group: str, sequence: int) -> None:
        """Note that all messages up to `sequence` are published."""
        done = (self._id(group), sequence)
        where = "WHERE group_id = ? AND published = 0 AND sequence <= ?"
        with self._database.transaction() as connection:
            connection.execute(f"DELETE FROM outbox {where} AND audience IS NOT NULL", done)  # noqa: S608 - constants
            connection.execute(f"UPDATE outbox SET published = 1 {where}", done)  # noqa: S608 - constants

    def publish_again(self, group: str) -> int:
        """Queue all that is kept for publication again."""
        number = self._id(group)
        with self._database.transaction() as connection:
            connection.execute("UPDATE outbox SET published = 0 WHERE group_id = ?", (number,))
            (count,) = connection.execute("SELECT count(*) FROM outbox WHERE group_id = ?", (number,)).fetchone()
            return int(count)

    def scrub(self) -> None:
        """Empty the write-ahead log, which still holds what was replaced."""
        self._database.scrub()

    def close(self) -> None:
        """Release the file."""
        self._database.close()

    def _id(self, group: str) -> int:
        if group not in self._ids:
            rows = self._rows("SELECT id FROM groups WHERE name = ?", group)
            self._ids.update((group, row[0]) for row in rows)
        if group not in self._ids:
            message = f"there is no group {group}"
            raise UsageError(message)
        return self._ids[group]

    def _rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        with self._database.errors():
            yield from self._database.connection.execute(query, values)


def _group(row: tuple[Any, ...]) -> GroupRecord:
    name, signing_seed, degree, prefix, suite, policy, beacon_interval, epoch, height, time = row
    try:
        rules, sealed_by = Policy.from_fields(json.loads(policy)), Suite(suite)
    except (RefusedError, ValueError) as error:
        message = f"the stored group {name} is damaged: {error}; restore a backup"
        raise StoreError(message) from error
    return GroupRecord(name, signing_seed, degree, prefix, sealed_by, rules, beacon_interval, epoch, height, time)


def _member(row: tuple[Any, ...]) -> MemberRecord:
    member, status, *rest = row
    return MemberRecord(member, Status(status), *rest)


def _member_row(record: MemberRecord) -> tuple[object, ...]:
    return (
        record.member,
        record.status,
        record.identity,
        record.slot,
        record.kem_public,
        record.nonce,
        record.last_time,
        record.epoch,
    )


def _spend(connection: sqlite3.Connection, group: str, token: tuple[int, bytes], uses: int) -> None:
    """Take `uses` from a token; one that has none left is deleted."""
    where = "WHERE group_id = ? AND id = ? AND uses_left >= ?"
    if not connection.execute(f"UPDATE tokens SET uses_left = uses_left - ? {where}", (uses, *token, uses)).rowcount:  # noqa: S608 - constants
        message = f"token {token[1].hex()} of group {group} has not {uses} uses left"
        raise StoreError(message)
    connection.execute("DELETE FROM tokens WHERE group_id = ? AND id = ? AND uses_left = 0", token)


def _queue(connection: sqlite3.Connection, number: int, messages: Iterable[OutboxMessage]) -> int:
    """Put `messages` into the outbox in place of older ones of their topics; return the last sequence."""
    rows = ((number, message.topic, message.audience, message.payload) for message in messages)
    connection.executemany("REPLACE INTO outbox (group_id, topic, audience, payload) VALUES (?, ?, ?, ?)", rows)
    (sequence,) = connection.execute("SELECT coalesce(max(sequence), 0) FROM outbox").fetchone()
    return int(sequence)
