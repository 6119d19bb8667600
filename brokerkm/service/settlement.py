"""How a batch of changes becomes one stored epoch: looked up for good, prepared, and written in one transaction.

All of it runs in the store's thread. The group in memory stays where it is: `Group.apply` is its caller's, once the
transaction is through.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from brokerkm.core.notice import GoodbyeReason, RefusalReason
from brokerkm.errors import RefusedError, UsageError
from brokerkm.sealing import write_on_all_cores
from brokerkm.service.changes import Rejection
from brokerkm.store.records import AuditEntry, Change, Document, KeyChange, MemberRecord, OutboxMessage, Status
from brokerkm.store.seats import StoredSeats

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from brokerkm.core.commit import Commit
    from brokerkm.core.crypto import Random
    from brokerkm.core.group import Group
    from brokerkm.core.names import Topics
    from brokerkm.service.changes import Changes, PendingEviction, PendingJoin
    from brokerkm.store.protocol import Store

_log = logging.getLogger(__name__)

BINDING: Final = "binding"  # kind of the documents that say by which credential a member came


class Settled(NamedTuple):
    """What became of a batch of changes; `commit` is None if the group's keys did not have to move.

    Args:
        prepare, store: seconds that the commit and its transaction took.
    """

    commit: Commit | None
    sequence: int
    rejected: list[Rejection]
    prepare: float = 0.0
    store: float = 0.0


class Settlement:
    """Commits of one group, up to and including their transaction.

    Args:
        name: the group id.
    """

    def __init__(self, name: str, group: Group, topics: Topics, store: Store, random: Random) -> None:
        self._name: Final = name
        self._group: Final = group
        self._topics: Final = topics
        self._store: Final = store
        self._random: Final = random

    def settle(self, batch: Changes, now: float) -> Settled:
        """Prepare the commit of `batch` and store it; in the store's thread, where nothing else happens meanwhile.

        Admission looked things up a while ago; here they are looked up for good.
        """
        try:
            return self._settle(batch, now, frozenset())
        except RefusedError:
            return self._settle(batch, now, frozenset(self._group.discard_unusable()))

    def _settle(self, batch: Changes, now: float, unusable: frozenset[str]) -> Settled:
        found = self._store.known(self._name, [*batch.joins, *batch.evictions])
        slots = {member: found[member].slot if member in found else None for member in (*batch.joins, *batch.evictions)}
        with self._knowing(slots):
            return self._prepare(batch, now, unusable, found)

    def _prepare(
        self, batch: Changes, now: float, unusable: frozenset[str], found: Mapping[str, MemberRecord]
    ) -> Settled:
        self._group.discard()  # what a batch that could not be stored has left there; its changes are in this one
        joined: dict[str, _Newcomer] = {}
        rejected: list[Rejection] = []
        spent: Counter[bytes] = Counter()
        for join in batch.joins.values():
            who = join.enrollment
            known = found.get(who.member)
            if who.member in unusable:
                rejected.append(Rejection(join, RefusalReason.NOT_ADMITTED, "no Welcome can be sealed to its KEM key"))
            elif (rejection := self._enroll(join, known, spent)) is not None:
                rejected.append(rejection)
            else:
                joined[who.member] = _Newcomer(join, known)
        gone = (self._remove(member, eviction, found.get(member), now) for member, eviction in batch.evictions.items())
        removed = [record for record in gone if record is not None]
        if batch.rotate:
            self._group.rotate()
        if batch.rotate_all:
            self._group.rotate_all()
        if not self._group.pending:
            audit = self._audit(batch, removed, int(now * 1000), self._group.epoch)
            noted = Change(members=removed, documents=list(batch.documents.values()), audit=audit)
            return Settled(None, self._store.write(self._name, noted), rejected)
        began = time.perf_counter()
        commit = self._group.prepare(now, self._random, write_on_all_cores)
        prepared = time.perf_counter()
        change = commit.change
        since = int(now * 1000)
        seated = [joined[who.member].seated(slot, change.epoch, since) for slot, who, _ in change.seated]
        renewed = {member for member, one in joined.items() if one.is_renewed}
        whole = Change(
            keys=KeyChange(change.epoch, change.height, change.pages(self._group.tree), spares=change.spares),
            time=change.time,
            members=[*(replace(record, epoch=change.epoch) for record in removed), *seated],
            spent=spent,
            documents=[*batch.documents.values(), *self._bindings(batch, seated, since)],
            messages=self._messages(commit),
            audit=[*self._audit(batch, removed, since, change.epoch), *_seatings(batch, seated, renewed, since)],
        )
        sequence = self._store.write(self._name, whole)
        return Settled(commit, sequence, rejected, prepared - began, time.perf_counter() - prepared)

    def _knowing(self, slots: Mapping[str, int | None]) -> contextlib.AbstractContextManager[None]:
        """Save the group one query for each member."""
        seats = self._group.directory
        return seats.knowing(slots) if isinstance(seats, StoredSeats) else contextlib.nullcontext()

    def _enroll(self, join: PendingJoin, known: MemberRecord | None, spent: Counter[bytes]) -> Rejection | None:
        """Queue the join in the group and count its token; return why it cannot be, or None."""
        who = join.enrollment
        if known is not None and known.status in (Status.EVICTED, Status.PENDING):
            return Rejection(join, RefusalReason.NOT_ADMITTED, f"it is {known.status.name.lower()} by now")
        bound = known.identity if known is not None else b""
        binds = bound != who.identity
        if binds and not self._may_bind(join, known, spent):
            return Rejection(join, RefusalReason.NOT_ADMITTED, "nothing lets in its identity key any more")
        try:
            self._group.enroll(who)
        except RefusedError as error:
            return Rejection(join, RefusalReason.NOT_ADMITTED, str(error))
        except UsageError as error:  # the group is full
            return Rejection(join, RefusalReason.TRY_LATER, str(error))
        if binds and join.token:
            spent[join.token] += 1
        return None

    def _may_bind(self, join: PendingJoin, known: MemberRecord | None, spent: Counter[bytes]) -> bool:
        """Return whether an identity key may take an id that is free, or another key's."""
        if join.voucher is not None:
            return known is None or known.status is Status.LISTED
        bound = known is not None and bool(known.identity)
        return bound == join.replaces and self._has_credential(join, spent)

    def _has_credential(self, join: PendingJoin, spent: Counter[bytes]) -> bool:
        """Return whether what let a device in, under a key that is not bound to its id yet, still does."""
        if not join.token:
            return bool(join.credential)
        token = self._store.token(self._name, join.token)
        return token is not None and token.uses_left > spent[token.id]

    def _remove(
        self, member: str, eviction: PendingEviction, known: MemberRecord | None, now: float
    ) -> MemberRecord | None:
        """Queue the eviction in the group, if it has a place there, and return what is known of it from now on.

        None if that is what is known already: two operators have wanted the same at the same time.
        """
        try:
            self._group.evict(member, eviction.reason)
        except UsageError:
            _log.debug("group %s: %s had no place to lose", self._name, member)
        if known is None:
            known = MemberRecord(member, Status.LISTED, eviction.identity)
        elif known.status is Status.EVICTED:
            return None
        milder = eviction.reason is GoodbyeReason.LEFT
        return replace(
            known,
            status=Status.LISTED if milder else Status.EVICTED,
            slot=None,
            kem_public=b"",
            nonce=b"",
            last_time=max(known.last_time, eviction.time),
            epoch=0,
            since=int(now * 1000),
            acked=0,
        )

    def _audit(self, batch: Changes, removed: list[MemberRecord], time: int, epoch: int) -> list[AuditEntry]:
        """Return what the audit log is to say of a commit, but for those whom it seats."""
        entries = [replace(entry, time=time) for entry in batch.audit]
        if batch.rotate or batch.rotate_all:
            details = {"epoch": epoch, "everything": batch.rotate_all}
            entries.append(AuditEntry(time, batch.rotated_by, "rotate", self._name, details))
        for record in removed:
            eviction = batch.evictions[record.member]
            action = "leave" if eviction.reason is GoodbyeReason.LEFT else "evict"
            actor = eviction.actor or f"member:{record.member}"
            entries.append(AuditEntry(time, actor, action, record.member, {"epoch": epoch}))
        return entries

    def _bindings(self, batch: Changes, seated: list[MemberRecord], time: int) -> list[Document]:
        """Return what new members are to be recognised by, should they come back with another key."""
        shown = ((record.member, batch.joins[record.member].credential) for record in seated)
        return [Document(BINDING, member, credential.encode(), time) for member, credential in shown if credential]

    def _messages(self, commit: Commit) -> list[OutboxMessage]:
        """Return what to publish, in order: the Beacon last, so that whoever hears it finds what it announces."""
        topics = self._topics
        messages = [OutboxMessage(topics.node(rekey.level, rekey.index), rekey.payload) for rekey in commit.rekeys]
        messages += [
            OutboxMessage(topics.member(member), payload, member)
            for member, payload in (*commit.welcomes, *commit.goodbyes)
        ]
        messages.append(OutboxMessage(topics.beacon, commit.beacon))
        return messages


class _Newcomer(NamedTuple):
    """One that joins, and what was known of it."""

    join: PendingJoin
    known: MemberRecord | None

    @property
    def is_renewed(self) -> bool:
        """Whether it is seated already, and only gets another leaf key."""
        known = self.known
        return known is not None and known.status is Status.SEATED and known.nonce == self.join.enrollment.nonce

    def seated(self, slot: int, epoch: int, now: int) -> MemberRecord:
        """Return what is known of it from now on."""
        join, known, who = self.join, self.known, self.join.enrollment
        kem, nonce = who.kem_public, who.nonce
        if known is not None and self.is_renewed:
            return replace(known, slot=slot, kem_public=kem, nonce=nonce, epoch=epoch)
        last, seen, blocked = (known.last_time, known.seen, known.blocked_until) if known is not None else (0, 0, 0)
        last, seen = max(last, join.time), max(seen, join.time)
        seat = (slot, kem, nonce)
        return MemberRecord(
            who.member, Status.SEATED, who.identity, *seat, last, epoch, now, seen, 0, blocked, join.counter
        )


def _seatings(batch: Changes, seated: list[MemberRecord], renewed: set[str], time: int) -> Iterator[AuditEntry]:
    """Yield what the audit log is to say of those who have got a seat, or only a new leaf key."""
    for record in seated:
        actor = batch.joins[record.member].actor or f"member:{record.member}"
        details = {"epoch": record.epoch, "slot": record.slot or 0}
        if batch.joins[record.member].enrollment.spares:
            details["spares"] = batch.joins[record.member].enrollment.spares
        action = "refresh" if record.member in renewed else "seat"
        yield AuditEntry(time, actor, action, record.member, details)
