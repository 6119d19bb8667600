"""`Store` in SQL: all queries, once, for every engine (`brokerkm.store.engine`)."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from brokerkm.errors import UsageError
from brokerkm.store import audit, rows, statements
from brokerkm.store.matching import like, matcher
from brokerkm.store.pages import Place, SealedPages
from brokerkm.store.protocol import Progress, ignore
from brokerkm.store.records import AuditRecord, Document, OutboxMessage, Status
from brokerkm.store.sealing import Seals
from brokerkm.store.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from brokerkm.store.engine import Engine, Session
    from brokerkm.store.records import (
        AuditEntry,
        Change,
        Finding,
        GroupRecord,
        MemberRecord,
        Page,
        Sighting,
        TokenRecord,
    )

_UID_SIZE: Final = 16  # bytes
_SERVER: Final = 0  # the group_id of the server's own documents
_AT_ONCE: Final = 64  # members that are looked up in one query
_SCAN: Final = 4096  # ids that are looked at in one query for those that match a pattern


class SqlStore:
    """`Store` over an engine, which it closes.

    Args:
        store_key: 32 bytes, or what returns them.
        next_key: returns the key that another server may put the store under by `rewrap`.

    Raises:
        StoreError: the store key is not the right one.
    """

    def __init__(
        self, engine: Engine, store_key: bytes | Callable[[], bytes], next_key: Callable[[], bytes] | None = None
    ) -> None:
        self._engine: Final = engine
        keys = [store_key if callable(store_key) else lambda: store_key, *([next_key] if next_key else [])]
        self._seals: Final = Seals(*keys)
        try:
            with engine.transaction() as session:
                self._seals.open(session)
            engine.scrub()  # what an upgrade has sealed was plain before
        except BaseException:
            engine.close()
            raise

    def create_group(self, record: GroupRecord, change: Change) -> int:
        """Add a group with its first messages."""
        with self._engine.transaction() as session:
            statements.lock_vault(session)
            if statements.found(session, "SELECT 1 FROM groups WHERE name = ?", record.name):
                message = f"there is a group {record.name} already"
                raise UsageError(message)
            vault, uid = self._seals.vault(session), os.urandom(_UID_SIZE)
            fixed = (record.name, uid, record.prefix, record.degree, int(record.suite))
            place = (record.epoch, record.height, record.time)
            seed = rows.seal_seed(vault, uid, record.name, record.signing_seed)
            tree = SealedPages(vault, Place(record.name, uid, record.degree, record.epoch, record.height))
            terms = rows.terms(record)
            session.change(statements.CREATE_GROUP, *fixed, *place, *terms, seed, tree.seal_header())
            sequence, after = self._write(session, record.name, change)
        self._seals.keep(after or tree)
        return sequence

    def destroy_group(self, name: str, audit: Iterable[AuditEntry], fence: int | None = None) -> None:
        """Forget a group and all that it had, save its audit log."""
        with self._engine.transaction() as session:
            number, _ = statements.lock(session, name, fence)
            for table in ("pages", "members", "tokens", "documents", "outbox"):
                session.change(f"DELETE FROM {table} WHERE group_id = ?", number)  # noqa: S608 - constants
            session.change("DELETE FROM groups WHERE id = ?", number)
            statements.append(session, name, audit)

    def groups(self) -> list[GroupRecord]:
        """Return all groups, by name."""
        with self._engine.reading() as session:
            found = session.rows(f"SELECT {rows.GROUP} FROM groups ORDER BY name")  # noqa: S608 - constants
            vault = self._seals.vault(session)
            return [rows.group(row, vault) for row in found]

    def group(self, name: str) -> GroupRecord | None:
        """Return one group, if there is one of that name."""
        with self._engine.reading() as session:
            found = session.rows(f"SELECT {rows.GROUP} FROM groups WHERE name = ?", name)  # noqa: S608 - constants
            vault = self._seals.vault(session)
            return next((rows.group(row, vault) for row in found), None)

    def pages(self, group: str) -> Iterator[Page]:
        """Yield the pages of the group's key tree."""
        with self._engine.reading() as session:
            yield from self._seals.load(session, group)

    def spares(self, group: str) -> tuple[bytes, ...]:
        """Return the next keys of the group's root."""
        with self._engine.reading() as session:
            return self._seals.spares(session, group)

    def seats(self, group: str) -> Iterator[tuple[str, int]]:
        """Yield (member id, slot) of the seated members."""
        seated = "SELECT member, slot FROM members WHERE group_id = ? AND slot IS NOT NULL ORDER BY slot"
        with self._read(group) as (session, number):
            yield from session.rows(seated, number)

    def member(self, group: str, member: str) -> MemberRecord | None:
        """Return what is known of a member id."""
        return self._member(group, "member = ?", member)

    def known(self, group: str, members: Sequence[str]) -> dict[str, MemberRecord]:
        """Return what is known of each of these member ids, for those of which anything is."""
        found: list[MemberRecord] = []
        with self._read(group) as (session, number):
            for start in range(0, len(members), _AT_ONCE):
                some = list(members[start : start + _AT_ONCE])
                size = _AT_ONCE if len(some) > 1 else 1  # two statements, which engines keep prepared
                some += some[-1:] * (size - len(some))
                query = f"SELECT {rows.MEMBER} FROM members WHERE group_id = ? AND member IN ({', '.join('?' * size)})"  # noqa: S608 - constants
                found += [rows.member(row) for row in session.rows(query, number, *some)]
        return {record.member: record for record in found}

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
            found = list(session.rows(query, number, token_id))
            return self._tokens(session, number, found)[0] if found else None

    def tokens(self, group: str) -> list[TokenRecord]:
        """Return all enrollment tokens, oldest first."""
        query = f"SELECT {rows.TOKEN} FROM tokens WHERE group_id = ? ORDER BY created, id"  # noqa: S608 - constants
        with self._read(group) as (session, number):
            return self._tokens(session, number, list(session.rows(query, number)))

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
            sequence, tree = self._write(session, group, change)
        if tree is not None:  # now it has happened
            self._seals.keep(tree)
        return sequence

    def touch(self, group: str, sightings: Iterable[Sighting]) -> None:
        """Note signs of life of members."""
        with self._engine.transaction() as session:
            number = statements.group_id(session, group)
            session.many(
                statements.TOUCH,
                (
                    (*statements.twice(seen, acked, counter), number, member)
                    for member, seen, acked, counter in sightings
                ),
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
            done = (statements.group_id(session, group), sequence)
            session.change(f"DELETE FROM outbox {where} AND audience IS NOT NULL", *done)  # noqa: S608 - constants
            session.change(f"UPDATE outbox SET published = 1 {where}", *done)  # noqa: S608 - constants

    def publish_again(self, group: str) -> int:
        """Queue all that is kept for publication again."""
        with self._engine.transaction() as session:
            number = statements.group_id(session, group)
            session.change("UPDATE outbox SET published = 0 WHERE group_id = ?", number)
            return int(statements.one(session, "SELECT count(*) FROM outbox WHERE group_id = ?", number))

    def waiting(self, group: str) -> int:
        """Return how many messages are to be published."""
        with self._read(group) as (session, number):
            return int(
                statements.one(session, "SELECT count(*) FROM outbox WHERE group_id = ? AND published = 0", number)
            )

    def audit(self, chain: str, after: int = 0, limit: int = 1000) -> list[AuditRecord]:
        """Return audit entries with numbers above `after`."""
        query = "SELECT number, entry, hash FROM audit WHERE chain = ? AND number > ? ORDER BY number LIMIT ?"
        with self._engine.reading() as session:
            found = session.rows(query, chain, after, limit)
            return [AuditRecord(number, audit.decode(text), link) for number, text, link in found]

    def scrub(self) -> None:
        """Empty what the engine keeps of replaced rows."""
        self._engine.scrub()

    def backup(self, path: str | os.PathLike[str], progress: Progress = ignore) -> None:
        """Write all that the store holds into a new SQLite store at `path`."""
        self._engine.backup(path, progress)

    def verify(self, progress: Progress = ignore, *, aside: bool = False) -> list[Finding]:
        """Return what is wrong with what the store holds."""
        if not aside:
            return verify(self._engine, self._seals, progress)
        seals = self._seals.again()
        with self._engine.snapshot(progress) as reading:
            return verify(reading, seals, progress)

    def rewrap(self, store_key: bytes, *, deep: bool = False, progress: Progress = ignore) -> None:
        """Put everything under another store key."""
        with self._engine.transaction() as session:
            if deep:
                self._seals.renew(session, store_key, progress)
            else:
                self._seals.rewrap(session, store_key)
        self._seals.use(store_key)
        self._engine.scrub()

    def close(self) -> None:
        """Release what is held."""
        self._engine.close()

    @contextmanager
    def _read(self, group: str) -> Generator[tuple[Session, int]]:
        """Read what is the group's, or the server's own."""
        with self._engine.reading() as session:
            yield session, statements.group_id(session, group) if group else _SERVER

    def _tokens(self, session: Session, number: int, found: list[tuple[Any, ...]]) -> list[TokenRecord]:
        vault = self._seals.vault(session)
        uid = statements.uid(session, number)
        return [rows.token(row, vault, uid) for row in found]

    def _member(self, group: str, condition: str, value: object) -> MemberRecord | None:
        query = f"SELECT {rows.MEMBER} FROM members WHERE group_id = ? AND {condition}"  # noqa: S608 - constants
        with self._read(group) as (session, number):
            return next((rows.member(row) for row in session.rows(query, number, value)), None)

    def _write(self, session: Session, group: str, change: Change) -> tuple[int, SealedPages | None]:
        number = sequence = _SERVER
        tree = None
        if group:
            number, sequence = statements.lock(session, group, change.fence)
            if change.keys is not None:
                tree = self._seals.commit(session, group, change.keys)
            self._change_group(session, group, number, change)
            sequence = statements.queue(session, number, sequence, change.messages)
        elif any((change.keys, change.record, change.members, change.tokens, change.spent, change.messages)):
            message = "the server's own part of the store has only documents and an audit log"
            raise UsageError(message)
        documents = ((number, one.kind, one.name, one.body, one.time) for one in change.documents)
        session.many(statements.PUT_DOCUMENT, documents)
        session.many(statements.DROP_DOCUMENT, ((number, *one) for one in change.dropped))
        statements.append(session, group, change.audit)
        return sequence, tree

    def _change_group(self, session: Session, group: str, number: int, change: Change) -> None:
        """Write what a server has none of."""
        if change.time is not None:
            session.change("UPDATE groups SET time = ? WHERE id = ?", change.time, number)
        if change.record is not None:
            sealed = rows.seal_seed(
                self._seals.vault(session), statements.uid(session, number), group, change.record.signing_seed
            )
            session.change(statements.PUT_TERMS, *rows.terms(change.record), sealed, number)
        if change.keys is None:
            statements.check_seats(session, number, change.members)
        # Those without a slot first: another may have got it.
        ordered = sorted(change.members, key=lambda record: record.slot is not None)
        session.many(statements.PUT_MEMBER, ((number, *rows.member_row(record)) for record in ordered))
        for token_id, uses in change.spent.items():
            statements.spend(session, group, (number, token_id), uses)
        session.many(statements.DROP_TOKEN, ((number, one) for one in change.revoked))
        for token in change.tokens:
            session.change(statements.DROP_EXPIRED, number, token.created)
            row = rows.token_row(token, self._seals.vault(session), statements.uid(session, number))
            session.change(statements.PUT_TOKEN, number, *row)
