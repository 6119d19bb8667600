"""What a change does, statement by statement, and the SQL of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from brokerkm.errors import LeaseLostError, StoreError, UsageError
from brokerkm.store import audit, rows
from brokerkm.store.records import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from brokerkm.store.engine import Session
    from brokerkm.store.records import AuditEntry, MemberRecord, OutboxMessage

CREATE_GROUP: Final = """
INSERT INTO groups (name, uid, prefix, degree, suite, epoch, height, time, policy, beacon_interval, settings, frozen,
    handovers, signing_seed, header, sequence, fence)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0)
"""
PUT_TERMS: Final = """
UPDATE groups SET policy = ?, beacon_interval = ?, settings = ?, frozen = ?, handovers = ?, signing_seed = ?
WHERE id = ?
"""
PUT_MEMBER: Final = f"""
INSERT INTO members (group_id, {rows.MEMBER}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (group_id, member) DO UPDATE SET
    status = excluded.status, identity = excluded.identity, slot = excluded.slot, kem_public = excluded.kem_public,
    nonce = excluded.nonce, last_time = excluded.last_time, epoch = excluded.epoch, since = excluded.since,
    seen = excluded.seen, acked = excluded.acked, blocked_until = excluded.blocked_until, counter = excluded.counter
"""  # noqa: S608 - constants
TOUCH: Final = """
UPDATE members SET
    seen = CASE WHEN ? > seen THEN ? ELSE seen END,
    acked = CASE WHEN ? > acked THEN ? ELSE acked END,
    counter = CASE WHEN ? > counter THEN ? ELSE counter END
WHERE group_id = ? AND member = ?
"""
PUT_PAGE: Final = """
INSERT INTO pages (group_id, level, number, version, page) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (group_id, level, number) DO UPDATE SET version = excluded.version, page = excluded.page
"""
PUT_TOKEN: Final = f"INSERT INTO tokens (group_id, {rows.TOKEN}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants
PUT_DOCUMENT: Final = """
INSERT INTO documents (group_id, kind, name, body, time) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (group_id, kind, name) DO UPDATE SET body = excluded.body, time = excluded.time
"""
_QUEUE: Final = """
INSERT INTO outbox (group_id, topic, sequence, audience, payload, published) VALUES (?, ?, ?, ?, ?, 0)
ON CONFLICT (group_id, topic) DO UPDATE SET
    sequence = excluded.sequence, audience = excluded.audience, payload = excluded.payload, published = 0
"""


DROP_DOCUMENT: Final = "DELETE FROM documents WHERE group_id = ? AND kind = ? AND name = ?"
DROP_TOKEN: Final = "DELETE FROM tokens WHERE group_id = ? AND id = ?"  # noqa: S105 - a statement
DROP_EXPIRED: Final = "DELETE FROM tokens WHERE group_id = ? AND expiry <= ?"


def found(session: Session, query: str, *values: object) -> bool:
    """Return whether a query finds anything."""
    return any(True for _ in session.rows(query, *values))


def one(session: Session, query: str, *values: object) -> Any:  # noqa: ANN401 - of any type
    """Return the one value that a query finds."""
    (row,) = session.rows(query, *values)
    return row[0]


def group_id(session: Session, group: str) -> int:
    """Return the id of a group; raises `UsageError` if there is none of that name."""
    for (number,) in session.rows("SELECT id FROM groups WHERE name = ?", group):
        return int(number)
    raise unknown(group)


def uid(session: Session, number: int) -> bytes:
    """Return what tells a group from another that had its name."""
    return bytes(one(session, "SELECT uid FROM groups WHERE id = ?", number))


def unknown(group: str) -> UsageError:
    """Return what a call on a group that is not there raises."""
    return UsageError(f"there is no group {group}")


def lock(session: Session, group: str, fence: int | None) -> tuple[int, int]:
    """Keep others from changing the group until the end of the transaction; return its id and newest sequence."""
    if not session.change("UPDATE groups SET fence = fence WHERE name = ?", group):
        raise unknown(group)
    ((number, sequence, stored),) = session.rows("SELECT id, sequence, fence FROM groups WHERE name = ?", group)
    if fence is not None and fence != stored:
        message = f"group {group} is led by another server by now: this one's changes do not count any more"
        raise LeaseLostError(message)
    return int(number), int(sequence)


def lock_vault(session: Session) -> None:
    """Keep others from making groups, and from sealing everything anew, until the end of the transaction."""
    session.change("UPDATE vault SET id = id")


def lock_all(session: Session) -> None:
    """Keep others from changing or making any group until the end of the transaction."""
    lock_vault(session)
    session.change("UPDATE groups SET fence = fence")


def check_seats(session: Session, number: int, members: Iterable[MemberRecord]) -> None:
    """Refuse to seat or unseat anybody without a commit."""
    for record in members:
        query = "SELECT slot FROM members WHERE group_id = ? AND member = ?"
        before = next((slot for (slot,) in session.rows(query, number, record.member)), None)
        if record.slot != before or (record.status is Status.SEATED) != (before is not None):
            message = f"{record.member} would get or lose a seat: only a commit changes that"
            raise StoreError(message)


def spend(session: Session, group: str, token: tuple[int, bytes], uses: int) -> None:
    """Take `uses` from a token; one that has none left is deleted."""
    where = "WHERE group_id = ? AND id = ? AND uses_left >= ?"
    if not session.change(f"UPDATE tokens SET uses_left = uses_left - ? {where}", uses, *token, uses):  # noqa: S608 - constants
        message = f"token {token[1].hex()} of group {group} has not {uses} uses left"
        raise StoreError(message)
    session.change("DELETE FROM tokens WHERE group_id = ? AND id = ? AND uses_left = 0", *token)


def queue(session: Session, number: int, sequence: int, messages: Iterable[OutboxMessage]) -> int:
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


def append(session: Session, chain: str, entries: Iterable[AuditEntry]) -> None:
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


def twice(*values: int) -> Iterator[int]:
    """Yield each value two times."""
    for value in values:
        yield value
        yield value
