"""`Store` in SQL: all queries, once, for every engine (`brokerkm.store.engine`)."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from brokerkm.errors import LeaseLostError, StoreError, UsageError
from brokerkm.store import audit, rows
from brokerkm.store.matching import like, matcher
from brokerkm.store.records import AuditRecord, Document, OutboxMessage, Status

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping

    from brokerkm.store.engine import Engine, Session
    from brokerkm.store.records import (
        AuditEntry,
        Change,
        GroupRecord,
        KeyChange,
        MemberRecord,
        Page,
        Sighting,
        TokenRecord,
    )

_CREATE_GROUP: Final = """
INSERT INTO groups (name, uid, prefix, degree, suite, epoch, height, time, policy, beacon_interval, settings, frozen,
    handovers, signing_seed, header, sequence, fence)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0)
"""
_PUT_TERMS: Final = """
UPDATE groups SET policy = ?, beacon_interval = ?, settings = ?, frozen = ?, handovers = ?, signing_seed = ?
WHERE id = ?
"""
_PUT_MEMBER: Final = f"""
INSERT INTO members (group_id, {rows.MEMBER}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (group_id, member) DO UPDATE SET
    status = excluded.status, identity = excluded.identity, slot = excluded.slot, kem_public = excluded.kem_public,
    nonce = excluded.nonce, last_time = excluded.last_time, epoch = excluded.epoch, since = excluded.since,
    seen = excluded.seen, acked = excluded.acked, blocked_until = excluded.blocked_until, counter = excluded.counter
"""  # noqa: S608 - constants
_TOUCH: Final = """
UPDATE members SET
    seen = CASE WHEN ? > seen THEN ? ELSE seen END,
    acked = CASE WHEN ? > acked THEN ? ELSE acked END,
    counter = CASE WHEN ? > counter THEN ? ELSE counter END
WHERE group_id = ? AND member = ?
"""
_PUT_PAGE: Final = """
INSERT INTO pages (group_id, level, number, version, page) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (group_id, level, number) DO UPDATE SET version = excluded.version, page = excluded.page
"""
_PUT_TOKEN: Final = f"INSERT INTO tokens (group_id, {rows.TOKEN}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants
_PUT_DOCUMENT: Final = """
INSERT INTO documents (group_id, kind, name, body, time) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (group_id, kind, name) DO UPDATE SET body = excluded.body, time = excluded.time
"""
_QUEUE: Final = """
INSERT INTO outbox (group_id, topic, sequence, audience, payload, published) VALUES (?, ?, ?, ?, ?, 0)
ON CONFLICT (group_id, topic) DO UPDATE SET
    sequence = excluded.sequence, audience = excluded.audience, payload = excluded.payload, published = 0
"""
_UID_SIZE: Final = 16  # bytes
_SERVER: Final = 0  # the group_id of the server's own documents
_SCAN: Final = 4096  # ids that are looked at in one query for those that match a pattern


class SqlStore:
    """`Store` over an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine: Final = engine

    def create_group(self, record: GroupRecord, change: Change) -> int:
        """Add a group with its first messages."""
        with self._engine.transaction() as session:
            if _found(session, "SELECT 1 FROM groups WHERE name = ?", record.name):
                message = f"there is a group {record.name} already"
                raise UsageError(message)
            fixed = (record.name, os.urandom(_UID_SIZE), record.prefix, record.degree, int(record.suite))
            place = (record.epoch, record.height, record.time)
            session.change(_CREATE_GROUP, *fixed, *place, *rows.terms(record), record.signing_seed, b"")
            return self._write(session, record.name, change)

    def destroy_group(self, name: str, audit: Iterable[AuditEntry]) -> None:
        """Forget a group and all that it had, save its audit log."""
        with self._engine.transaction() as session:
            number = _id(session, name)
            for table in ("pages", "members", "tokens", "documents", "outbox"):
                session.change(f"DELETE FROM {table} WHERE group_id = ?", number)  # noqa: S608 - constants
            session.change("DELETE FROM groups WHERE id = ?", number)
            _append(session, name, audit)

    def groups(self) -> list[GroupRecord]:
        """Return all groups, by name."""
        with self._engine.reading() as session:
            found = session.rows(f"SELECT {rows.GROUP} FROM groups ORDER BY name")  # noqa: S608 - constants
            return [self._group(row) for row in found]

    def group(self, name: str) -> GroupRecord | None:
        """Return one group, if there is one of that name."""
        with self._engine.reading() as session:
            found = session.rows(f"SELECT {rows.GROUP} FROM groups WHERE name = ?", name)  # noqa: S608 - constants
            return next((self._group(row) for row in found), None)

    def pages(self, group: str) -> Iterator[Page]:
        """Yield the pages of the group's key tree."""
        with self._read(group) as (session, number):
            yield from session.rows("SELECT level, number, page FROM pages WHERE group_id = ?", number)

    def seats(self, group: str) -> Iterator[tuple[str, int]]:
        """Yield (member id, slot) of the seated members."""
        seated = "SELECT member, slot FROM members WHERE group_id = ? AND slot IS NOT NULL ORDER BY slot"
        with self._read(group) as (session, number):
            yield from session.rows(seated, number)

    def member(self, group: str, member: str) -> MemberRecord | None:
        """Return what is known of a member id."""
        return self._member(group, "member = ?", member)

    def member_at(self, group: str, slot: int) -> MemberRecord | None:
        """Return who sits at a slot."""
        return self._member(group, "slot = ?", slot)

    def members(
        self,
        group: str,
        *,
        after: str = "",
        limit: int = 1000,
        status: Status | None = None,
        pattern: str = "*",
        unseen_since: int | None = None,
        behind: int | None = None,
    ) -> list[MemberRecord]:
        """Return records of members with ids above `after`."""
        conditions: list[str] = []
        values: list[object] = []
        if status is not None:
            conditions.append("status = ?")
            values.append(int(status))
        if unseen_since is not None:
            conditions.append("seen < ? AND since < ?")
            values += [unseen_since, unseen_since]
        if behind is not None:
            conditions.append("status = ? AND acked > 0 AND acked < ?")
            values += [int(Status.SEATED), behind]
        matches = matcher(pattern)
        if matches is not None:
            conditions.append("member LIKE ? ESCAPE '!'")
            values.append(like(pattern))
        where = "".join(f" AND {condition}" for condition in conditions)
        page = f"SELECT {rows.MEMBER} FROM members WHERE group_id = ? AND member > ?{where} ORDER BY member LIMIT ?"  # noqa: S608 - constants
        found: list[MemberRecord] = []
        size = limit if matches is None else max(limit, _SCAN)
        with self._read(group) as (session, number):
            while len(found) < limit:
                some = [rows.member(row) for row in session.rows(page, number, after, *values, size)]
                found += [record for record in some if matches is None or matches(record.member)]
                if len(some) < size:
                    break
                after = some[-1].member
        return found[:limit]

    def count(self, group: str) -> Mapping[Status, int]:
        """Return how many members there are of each status."""
        counts = dict.fromkeys(Status, 0)
        with self._read(group) as (session, number):
            query = "SELECT status, count(*) FROM members WHERE group_id = ? GROUP BY status"
            counts.update((Status(status), count) for status, count in session.rows(query, number))
        return counts

    def token(self, group: str, token_id: bytes) -> TokenRecord | None:
        """Return an enrollment token."""
        query = f"SELECT {rows.TOKEN} FROM tokens WHERE group_id = ? AND id = ?"  # noqa: S608 - constants
        with self._read(group) as (session, number):
            return next((rows.token(row, row[1]) for row in session.rows(query, number, token_id)), None)

    def tokens(self, group: str) -> list[TokenRecord]:
        """Return all enrollment tokens, oldest first."""
        query = f"SELECT {rows.TOKEN} FROM tokens WHERE group_id = ? ORDER BY created, id"  # noqa: S608 - constants
        with self._read(group) as (session, number):
            return [rows.token(row, row[1]) for row in session.rows(query, number)]

    def documents(self, group: str, kind: str) -> list[Document]:
        """Return all documents of a kind, by name."""
        query = "SELECT kind, name, body, time FROM documents WHERE group_id = ? AND kind = ? ORDER BY name"
        with self._read(group) as (session, number):
            return [Document(*row) for row in session.rows(query, number, kind)]

    def document(self, group: str, kind: str, name: str) -> Document | None:
        """Return one document."""
        query = "SELECT kind, name, body, time FROM documents WHERE group_id = ? AND kind = ? AND name = ?"
        with self._read(group) as (session, number):
            return next((Document(*row) for row in session.rows(query, number, kind, name)), None)

    def write(self, group: str, change: Change) -> int:
        """Store a change."""
        with self._engine.transaction() as session:
            return self._write(session, group, change)

    def touch(self, group: str, sightings: Iterable[Sighting]) -> None:
        """Note signs of life of members."""
        with self._engine.transaction() as session:
            number = _id(session, group)
            session.many(
                _TOUCH, ((*_twice(seen, acked, counter), number, member) for member, seen, acked, counter in sightings)
            )

    def unpublished(self, group: str, limit: int) -> list[OutboxMessage]:
        """Return messages that are to be published, in order."""
        waiting = """
            SELECT topic, payload, audience, sequence FROM outbox
            WHERE group_id = ? AND published = 0 ORDER BY sequence LIMIT ?
        """
        with self._read(group) as (session, number):
            return [OutboxMessage(*row) for row in session.rows(waiting, number, limit)]

    def mark_published(self, group: str, sequence: int) -> None:
        """Note that all messages up to `sequence` are published."""
        where = "WHERE group_id = ? AND published = 0 AND sequence <= ?"
        with self._engine.transaction() as session:
            done = (_id(session, group), sequence)
            session.change(f"DELETE FROM outbox {where} AND audience IS NOT NULL", *done)  # noqa: S608 - constants
            session.change(f"UPDATE outbox SET published = 1 {where}", *done)  # noqa: S608 - constants

    def publish_again(self, group: str) -> int:
        """Queue all that is kept for publication again."""
        with self._engine.transaction() as session:
            number = _id(session, group)
            session.change("UPDATE outbox SET published = 0 WHERE group_id = ?", number)
            return int(_one(session, "SELECT count(*) FROM outbox WHERE group_id = ?", number))

    def waiting(self, group: str) -> int:
        """Return how many messages are to be published."""
        with self._read(group) as (session, number):
            return int(_one(session, "SELECT count(*) FROM outbox WHERE group_id = ? AND published = 0", number))

    def audit(self, chain: str, after: int = 0, limit: int = 1000) -> list[AuditRecord]:
        """Return audit entries with numbers above `after`."""
        query = "SELECT number, entry, hash FROM audit WHERE chain = ? AND number > ? ORDER BY number LIMIT ?"
        with self._engine.reading() as session:
            found = session.rows(query, chain, after, limit)
            return [AuditRecord(number, audit.decode(text), link) for number, text, link in found]

    def scrub(self) -> None:
        """Empty what the engine keeps of replaced rows."""
        self._engine.scrub()

    def close(self) -> None:
        """Release what is held."""
        self._engine.close()

    @contextmanager
    def _read(self, group: str) -> Generator[tuple[Session, int]]:
        """Read what is the group's, or the server's own."""
        with self._engine.reading() as session:
            yield session, _id(session, group) if group else _SERVER

    def _group(self, row: tuple[Any, ...]) -> GroupRecord:
        return rows.group(row, row[9])

    def _member(self, group: str, condition: str, value: object) -> MemberRecord | None:
        query = f"SELECT {rows.MEMBER} FROM members WHERE group_id = ? AND {condition}"  # noqa: S608 - constants
        with self._read(group) as (session, number):
            return next((rows.member(row) for row in session.rows(query, number, value)), None)

    def _write(self, session: Session, group: str, change: Change) -> int:
        number = sequence = _SERVER
        if group:
            number, sequence = _lock(session, group, change.fence)
            self._change_group(session, group, number, change)
            sequence = _queue(session, number, sequence, change.messages)
        elif any((change.keys, change.record, change.members, change.tokens, change.spent, change.messages)):
            message = "the server's own part of the store has only documents and an audit log"
            raise UsageError(message)
        session.many(_PUT_DOCUMENT, ((number, one.kind, one.name, one.body, one.time) for one in change.documents))
        drop = "DELETE FROM documents WHERE group_id = ? AND kind = ? AND name = ?"
        session.many(drop, ((number, *one) for one in change.dropped))
        _append(session, group, change.audit)
        return sequence

    def _change_group(self, session: Session, group: str, number: int, change: Change) -> None:
        """Write what a server has none of."""
        if change.keys is not None:
            self._put_keys(session, group, number, change.keys)
        if change.time is not None:
            session.change("UPDATE groups SET time = ? WHERE id = ?", change.time, number)
        if change.record is not None:
            session.change(_PUT_TERMS, *rows.terms(change.record), change.record.signing_seed, number)
        if change.keys is None:
            _check_seats(session, number, change.members)
        # Those without a slot first: another may have got it.
        ordered = sorted(change.members, key=lambda record: record.slot is not None)
        session.many(_PUT_MEMBER, ((number, *rows.member_row(record)) for record in ordered))
        for token_id, uses in change.spent.items():
            _spend(session, group, (number, token_id), uses)
        session.many("DELETE FROM tokens WHERE group_id = ? AND id = ?", ((number, one) for one in change.revoked))
        for token in change.tokens:
            session.change("DELETE FROM tokens WHERE group_id = ? AND expiry <= ?", number, token.created)
            values = (token.uses_left, token.expiry, token.pattern, token.created, token.note)
            session.change(_PUT_TOKEN, number, token.id, token.key, *values)

    def _put_keys(self, session: Session, group: str, number: int, keys: KeyChange) -> None:
        stored = int(_one(session, "SELECT epoch FROM groups WHERE id = ?", number))
        if not (keys.epoch == stored + 1 or (keys.jump and keys.epoch > stored)):
            message = f"epoch {keys.epoch} does not follow epoch {stored} of group {group}"
            raise StoreError(message)
        session.change("UPDATE groups SET epoch = ?, height = ? WHERE id = ?", keys.epoch, keys.height, number)
        pages = ((number, level, at, keys.epoch, page) for level, at, page in keys.pages)
        session.many(_PUT_PAGE, pages)


def _found(session: Session, query: str, *values: object) -> bool:
    return any(True for _ in session.rows(query, *values))


def _one(session: Session, query: str, *values: object) -> Any:  # noqa: ANN401 - of any type
    (row,) = session.rows(query, *values)
    return row[0]


def _id(session: Session, group: str) -> int:
    for (number,) in session.rows("SELECT id FROM groups WHERE name = ?", group):
        return int(number)
    raise _unknown(group)


def _unknown(group: str) -> UsageError:
    return UsageError(f"there is no group {group}")


def _lock(session: Session, group: str, fence: int | None) -> tuple[int, int]:
    """Keep others from changing the group until the end of the transaction; return its id and newest sequence."""
    if not session.change("UPDATE groups SET fence = fence WHERE name = ?", group):
        raise _unknown(group)
    ((number, sequence, stored),) = session.rows("SELECT id, sequence, fence FROM groups WHERE name = ?", group)
    if fence is not None and fence != stored:
        message = f"group {group} is led by another server by now: this one's changes do not count any more"
        raise LeaseLostError(message)
    return int(number), int(sequence)


def _check_seats(session: Session, number: int, members: Iterable[MemberRecord]) -> None:
    """Refuse to seat or unseat anybody without a commit."""
    for record in members:
        query = "SELECT slot FROM members WHERE group_id = ? AND member = ?"
        before = next((slot for (slot,) in session.rows(query, number, record.member)), None)
        if record.slot != before or (record.status is Status.SEATED) != (before is not None):
            message = f"{record.member} would get or lose a seat: only a commit changes that"
            raise StoreError(message)


def _spend(session: Session, group: str, token: tuple[int, bytes], uses: int) -> None:
    """Take `uses` from a token; one that has none left is deleted."""
    where = "WHERE group_id = ? AND id = ? AND uses_left >= ?"
    if not session.change(f"UPDATE tokens SET uses_left = uses_left - ? {where}", uses, *token, uses):  # noqa: S608 - constants
        message = f"token {token[1].hex()} of group {group} has not {uses} uses left"
        raise StoreError(message)
    session.change("DELETE FROM tokens WHERE group_id = ? AND id = ? AND uses_left = 0", *token)


def _queue(session: Session, number: int, sequence: int, messages: Iterable[OutboxMessage]) -> int:
    """Put `messages` into the outbox in place of older ones of their topics; return the last sequence."""
    last = sequence

    def numbered() -> Iterator[tuple[object, ...]]:
        nonlocal last
        for last, one in enumerate(messages, sequence + 1):
            yield number, one.topic, last, one.audience, one.payload

    session.many(_QUEUE, numbered())
    if last != sequence:
        session.change("UPDATE groups SET sequence = ? WHERE id = ?", last, number)
    return last


def _append(session: Session, chain: str, entries: Iterable[AuditEntry]) -> None:
    """Add entries to an audit log."""
    waiting = list(entries)
    if not waiting:
        return
    session.change("INSERT INTO chains (chain, number, hash) VALUES (?, 0, ?) ON CONFLICT DO NOTHING", chain, b"")
    session.change("UPDATE chains SET number = number WHERE chain = ?", chain)  # nobody else adds to it meanwhile
    ((number, head),) = session.rows("SELECT number, hash FROM chains WHERE chain = ?", chain)
    linked = list(audit.extend(chain, number, head or audit.FIRST, waiting))
    session.many(
        "INSERT INTO audit (chain, number, entry, hash) VALUES (?, ?, ?, ?)", ((chain, *one) for one in linked)
    )
    number, _, head = linked[-1]
    session.change("UPDATE chains SET number = ?, hash = ? WHERE chain = ?", number, head, chain)


def _twice(*values: int) -> Iterator[int]:
    for value in values:
        yield value
        yield value
