"""How a batch of changes becomes one stored epoch: looked up for good, prepared, and written in one transaction.

All of it runs in the store's thread. The group in memory stays where it is: `Group.apply` is its caller's, once the
transaction is through.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from brokerkm.core.notice import GoodbyeReason, RefusalReason
from brokerkm.errors import RefusedError, UsageError
from brokerkm.sealing import seal_on_all_cores
from brokerkm.service.changes import Rejection
from brokerkm.store.records import AuditEntry, Change, Document, KeyChange, MemberRecord, OutboxMessage, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        self._group.discard()  # what a batch that could not be stored has left there; its changes are in this one
        joined: dict[str, MemberRecord] = {}
        rejected: list[Rejection] = []
        spent: Counter[bytes] = Counter()
        for join in batch.joins.values():
            who = join.enrollment
            known = self._store.member(self._name, who.member)
            if who.member in unusable:
                rejected.append(Rejection(join, RefusalReason.NOT_ADMITTED, "no Welcome can be sealed to its KEM key"))
            elif (rejection := self._enroll(join, known, spent)) is not None:
                rejected.append(rejection)
            else:
                joined[who.member] = _seated(join, known)
        gone = (self._remove(member, eviction, now) for member, eviction in batch.evictions.items())
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
        commit = self._group.prepare(now, self._random, seal_on_all_cores)
        prepared = time.perf_counter()
        change = commit.change
        since = int(now * 1000)
        seats = ((joined[seat.enrollment.member], seat.slot) for seat in change.seated)
        seated = [replace(record, slot=slot, epoch=change.epoch, since=record.since or since) for record, slot in seats]
        renewed = {member for member, known in joined.items() if known.since}
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

    def _remove(self, member: str, eviction: PendingEviction, now: float) -> MemberRecord | None:
        """Queue the eviction in the group, if it has a place there, and return what is known of it from now on.

        None if that is what is known already: two operators have wanted the same at the same time.
        """
        try:
            self._group.evict(member, eviction.reason)
        except UsageError:
            _log.debug("group %s: %s had no place to lose", self._name, member)
        known = self._store.member(self._name, member)
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


def _seated(join: PendingJoin, known: MemberRecord | None) -> MemberRecord:
    """Return what is known from now on of one that joins; it has no slot yet. `since` is 0 if its membership is new."""
    who = join.enrollment
    known = known or MemberRecord(who.member, Status.LISTED, who.identity)
    seat = replace(known, status=Status.SEATED, slot=None, kem_public=who.kem_public, nonce=who.nonce)
    if known.status is Status.SEATED and known.nonce == who.nonce:  # only its leaf is renewed
        return seat
    seen, last = max(known.seen, join.time), max(known.last_time, join.time)
    return replace(seat, identity=who.identity, last_time=last, seen=seen, acked=0, since=0, counter=join.counter)


def _seatings(batch: Changes, seated: list[MemberRecord], renewed: set[str], time: int) -> Iterator[AuditEntry]:
    """Yield what the audit log is to say of those who have got a seat, or only a new leaf key."""
    for record in seated:
        actor = batch.joins[record.member].actor or f"member:{record.member}"
        details = {"epoch": record.epoch, "slot": record.slot or 0}
        if batch.joins[record.member].enrollment.spares:
            details["spares"] = batch.joins[record.member].enrollment.spares
        action = "refresh" if record.member in renewed else "seat"
        yield AuditEntry(time, actor, action, record.member, details)
