"""One group in service: changes wait, a commit stores them, then the group in memory moves on.

The order is fixed: `Group.prepare` computes the commit, the store keeps it with its messages in one transaction, and
only then `Group.apply` moves the group. So the group in memory is never ahead of the store, and what cannot
be stored goes on waiting. Publishing is the business of `brokerkm.service.publisher`, which reads the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from brokerkm.core.directory import Directory
from brokerkm.core.group import Group
from brokerkm.core.names import Topics
from brokerkm.core.notice import GoodbyeReason, RefusalReason
from brokerkm.core.tree import KeyTree
from brokerkm.errors import RefusedError, UsageError
from brokerkm.service.changes import Changes, PendingEviction, PendingJoin
from brokerkm.store.records import CommitRecord, MemberRecord, OutboxMessage, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from brokerkm.core.commit import Commit
    from brokerkm.core.crypto import Random
    from brokerkm.service.desk import StoreDesk
    from brokerkm.store.protocol import Store
    from brokerkm.store.records import GroupRecord

_log = logging.getLogger(__name__)


class Rejection(NamedTuple):
    """A join that was found impossible when it was to be committed."""

    join: PendingJoin
    reason: RefusalReason


class Settled(NamedTuple):
    """What became of a batch of changes; `commit` is None if the group's keys did not have to move."""

    commit: Commit | None
    sequence: int
    rejected: list[Rejection]


class LiveGroup:
    """A group, its store, and what waits for the next commit.

    Args:
        rejected: called for each join that turns out to be impossible.
    """

    def __init__(
        self,
        record: GroupRecord,
        group: Group,
        *,
        store: Store,
        desk: StoreDesk,
        clock: Callable[[], float],
        random: Random,
        rejected: Callable[[LiveGroup, Rejection], None],
    ) -> None:
        self.record: Final = record
        self.group: Final = group
        self.topics: Final = Topics(record.name, record.prefix)
        self.changed: Final = asyncio.Event()
        self.urgent = False
        self.changes = Changes()
        self._in_flight = Changes()
        self._committing = False
        self._store: Final = store
        self._desk: Final = desk
        self._clock: Final = clock
        self._random: Final = random
        self._rejected: Final = rejected

    @property
    def name(self) -> str:
        """The group id."""
        return self.record.name

    @property
    def newest_epoch(self) -> int:
        """The highest epoch that a message of this server can show by now."""
        return self.group.epoch + self._committing

    def is_leaving(self, member: str) -> bool:
        """Return whether the member's eviction waits."""
        return member in self.changes.evictions or member in self._in_flight.evictions

    def waiting_join(self, member: str) -> PendingJoin | None:
        """Return the member's Join that waits, if there is one."""
        return self.changes.joins.get(member) or self._in_flight.joins.get(member)

    def join(self, join: PendingJoin) -> None:
        """Queue a join whose proof has been checked; not for a member whose eviction waits."""
        self.changes.join(join)
        self.changed.set()

    def leave(self, member: str, time: int) -> None:
        """Queue the leave of a member whose proof has been checked."""
        self.changes.evict(member, PendingEviction(GoodbyeReason.LEFT, time=time))
        self.changed.set()

    def evict(self, member: str, *, urgent: bool) -> asyncio.Future[tuple[int, int]]:
        """Queue an eviction; the future gives epoch and last message sequence once it is stored."""
        waiting = self.waiting_join(member)
        self.changes.evict(
            member, PendingEviction(GoodbyeReason.EVICTED, waiting.enrollment.identity if waiting else b"")
        )
        return self._wait(urgent=urgent)

    def rotate(self, *, everything: bool) -> asyncio.Future[tuple[int, int]]:
        """Queue a new root key, or new keys for all inner nodes."""
        if everything:
            self.changes.rotate_all = True
        else:
            self.changes.rotate = True
        return self._wait(urgent=True)

    def _wait(self, *, urgent: bool) -> asyncio.Future[tuple[int, int]]:
        future: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
        self.changes.waiters.append(future)
        self.urgent |= urgent
        self.changed.set()
        return future

    async def commit(self) -> None:
        """Store all that waits as one epoch and apply it; not to be called twice at a time.

        Raises:
            StoreError: it could not be stored; those who wait are told, and the changes go on waiting.
        """
        batch, self.changes, self.urgent = self.changes, Changes(), False
        self._in_flight, self._committing = batch, True
        try:
            settled = await self._desk.call(self._settle, batch, self._clock())
        except Exception as error:
            self.changes.put_back(batch)
            for waiter in batch.waiters:
                if not waiter.done():
                    waiter.set_exception(error)
            raise
        else:
            if settled.commit is not None:
                self.group.apply(settled.commit)
                _log.info(
                    "group %s: epoch %d, %d seated, %d removed, %d rekeys",
                    self.name,
                    self.group.epoch,
                    len(settled.commit.change.seated),
                    len(settled.commit.change.removed),
                    len(settled.commit.rekeys),
                )
            for waiter in batch.waiters:
                if not waiter.done():
                    waiter.set_result((self.group.epoch, settled.sequence))
            for rejection in settled.rejected:
                self._rejected(self, rejection)
        finally:
            self._in_flight, self._committing = Changes(), False

    async def beacon(self) -> None:
        """Store a new Beacon; raises `StoreError`."""
        payload = self.group.beacon(self._clock())
        message = OutboxMessage(self.topics.beacon, payload)
        await self._desk.call(self._store.record_beacon, self.name, self.group.time, message)

    def _settle(self, batch: Changes, now: float) -> Settled:
        """Prepare the commit of `batch` and store it; in the store's thread, where nothing else happens meanwhile.

        Admission looked things up a while ago; here they are looked up for good.
        """
        self.group.discard()  # what a batch that could not be stored has left there; its changes are in this one
        joined: dict[str, MemberRecord] = {}
        rejected: list[Rejection] = []
        spent: Counter[bytes] = Counter()
        for join in batch.joins.values():
            reason = self._enroll(join, spent)
            who = join.enrollment
            if reason is None:
                joined[who.member] = MemberRecord(
                    who.member, Status.SEATED, who.identity, None, who.kem_public, who.nonce, join.time
                )
            else:
                rejected.append(Rejection(join, reason))
        removed = [self._remove(member, eviction) for member, eviction in batch.evictions.items()]
        if batch.rotate:
            self.group.rotate()
        if batch.rotate_all:
            self.group.rotate_all()
        if not self.group.pending:
            for record in removed:
                self._store.put_member(self.name, record)
            return Settled(None, 0, rejected)
        commit = self.group.prepare(now, self._random)
        change = commit.change
        seated = [replace(joined[seat.enrollment.member], slot=seat.slot) for seat in change.seated]
        whole = CommitRecord(
            change.epoch,
            change.height,
            change.time,
            change.pages(self.group.tree),
            [replace(member, epoch=change.epoch) for member in removed + seated],
            spent,
            self._messages(commit),
        )
        sequence = self._store.record_commit(self.name, whole)
        return Settled(commit, sequence, rejected)

    def _enroll(self, join: PendingJoin, spent: Counter[bytes]) -> RefusalReason | None:
        """Queue the join in the group and count its token; return why it cannot be, or None."""
        who = join.enrollment
        known = self._store.member(self.name, who.member)
        if known is not None and (known.identity != who.identity or known.status is Status.EVICTED):
            return RefusalReason.NOT_ADMITTED
        if known is None:
            token = self._store.token(self.name, join.token) if join.token else None
            if token is None or token.uses_left <= spent[token.id]:
                return RefusalReason.NOT_ADMITTED
        try:
            self.group.enroll(who)
        except RefusedError:
            return RefusalReason.NOT_ADMITTED
        except UsageError:  # the group is full
            return RefusalReason.TRY_LATER
        if known is None and join.token:
            spent[join.token] += 1
        return None

    def _remove(self, member: str, eviction: PendingEviction) -> MemberRecord:
        """Queue the eviction in the group, if it has a place there, and return what is known of it from now on."""
        try:
            self.group.evict(member, eviction.reason)
        except UsageError:
            _log.debug("group %s: %s had no place to lose", self.name, member)
        known = self._store.member(self.name, member)
        status = Status.LISTED if eviction.reason is GoodbyeReason.LEFT else Status.EVICTED
        identity = known.identity if known else eviction.identity
        return MemberRecord(member, status, identity, last_time=max(known.last_time if known else 0, eviction.time))

    def _messages(self, commit: Commit) -> list[OutboxMessage]:
        """Return what to publish, in order: the Beacon last, so that whoever hears it finds what it announces."""
        topics = self.topics
        messages = [OutboxMessage(topics.node(rekey.level, rekey.index), rekey.payload) for rekey in commit.rekeys]
        messages += [
            OutboxMessage(topics.member(member), payload, member)
            for member, payload in (*commit.welcomes, *commit.goodbyes)
        ]
        messages.append(OutboxMessage(topics.beacon, commit.beacon))
        return messages


def load_group(store: Store, record: GroupRecord) -> Group:
    """Return the group that `record` and the store's pages describe; raises `StoreError`."""
    directory = Directory()
    for member, slot in store.seats(record.name):
        directory.add(member, slot)
    return Group(
        record.name,
        record.signing_seed,
        degree=record.degree,
        suite=record.suite,
        policy=record.policy,
        beacon_interval=record.beacon_interval,
        epoch=record.epoch,
        time=record.time,
        tree=KeyTree.load(record.degree, record.height, store.pages(record.name)),
        directory=directory,
    )
