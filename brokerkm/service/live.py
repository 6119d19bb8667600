"""One group in service: changes wait, a commit stores them, then the group in memory moves on.

The order is fixed: `Settlement.settle` computes the commit and the store keeps it with its messages in one transaction,
and only then `Group.apply` moves the group. So the group in memory is never ahead of the store, and what cannot
be stored goes on waiting. Publishing is the business of `brokerkm.service.publisher`, which reads the store.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final

from brokerkm.core.commit import Enrollment
from brokerkm.core.crypto import KEY_SIZE
from brokerkm.core.group import Group
from brokerkm.core.names import Topics
from brokerkm.core.notice import GoodbyeReason
from brokerkm.core.tree import KeyTree
from brokerkm.errors import UsageError
from brokerkm.service.changes import Changes, PendingEviction, PendingJoin, Rejection
from brokerkm.service.feed import Feed, Kind
from brokerkm.service.settlement import Settlement
from brokerkm.service.terms import adopt_policy
from brokerkm.store.records import AuditEntry, Change, OutboxMessage
from brokerkm.store.seats import StoredSeats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from brokerkm.core.commit import Commit
    from brokerkm.core.crypto import Random
    from brokerkm.core.policy import Policy
    from brokerkm.service.desk import StoreDesk
    from brokerkm.service.settlement import Settled
    from brokerkm.service.terms import Named
    from brokerkm.store.protocol import Store
    from brokerkm.store.records import Document, GroupRecord, MemberRecord, Settings

_log = logging.getLogger(__name__)


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
        feed: Feed | None = None,
    ) -> None:
        self.record = record
        self.group: Final = group
        self.topics: Final = Topics(record.name, record.prefix)
        self.changed: Final = asyncio.Event()
        self.urgent = False
        self.imported = 0  # sequence of the newest import's last message
        self.changes = Changes()
        self._in_flight = Changes()
        self._committing = False
        self._turn: Final = asyncio.Lock()  # a Beacon must not be made of an epoch that a commit is about to end
        self._store: Final = store
        self._desk: Final = desk
        self._settlement: Final = Settlement(record.name, group, self.topics, store, random)
        self._clock: Final = clock
        self._random: Final = random
        self._rejected: Final = rejected
        self._feed: Final = feed or Feed(clock)

    @property
    def name(self) -> str:
        """The group id."""
        return self.record.name

    @property
    def newest_epoch(self) -> int:
        """The highest epoch that a message of this server can show by now."""
        return self.group.epoch + self._committing

    def is_ahead(self, known: MemberRecord | None) -> bool:
        """Return whether a commit that seats or removes the member is stored, but not in memory yet."""
        return known is not None and known.epoch > self.group.epoch

    def leaf_key(self, known: MemberRecord | None) -> bytes | None:
        """Return the leaf key that proves the requests of a member that is not ahead, if it has a seat."""
        return None if known is None or known.slot is None else self.group.leaf_key_at(known.slot)

    def is_leaving(self, member: str) -> bool:
        """Return whether the member's eviction waits."""
        return member in self.changes.evictions or member in self._in_flight.evictions

    def waiting_join(self, member: str) -> PendingJoin | None:
        """Return the member's Join that waits, if there is one."""
        return self.changes.joins.get(member) or self._in_flight.joins.get(member)

    def join(self, join: PendingJoin) -> None:
        """Queue a join whose proof has been checked; not for a member whose eviction waits."""
        self.changes.join(join)
        self._note()

    def seat(self, *joins: PendingJoin) -> asyncio.Future[tuple[int, int]]:
        """Queue joins that an operator vouches for; the future gives epoch and sequence once that is decided."""
        for join in joins:
            self.changes.join(join)
        return self._wait(urgent=True)

    async def welcome(self, who: Enrollment) -> tuple[bytes, int]:
        """Return a Welcome for one that has a seat, to be carried to it, and how many spares could be put into it."""
        async with self._turn:
            given = min(who.spares, len(self.group.spares))
            return await self._desk.call(self.group.welcome, who, self._clock()), given

    def refresh(self, records: Iterable[MemberRecord], actor: str) -> asyncio.Future[tuple[int, int]]:
        """Queue new leaf keys for seated members: each joins again at its place, as it did when it was seated."""
        for known in records:
            if self.waiting_join(known.member) is None and not self.is_leaving(known.member):
                who = Enrollment(known.member, known.identity, known.kem_public, known.nonce)
                self.changes.join(PendingJoin(who, known.last_time, None, actor))
        return self._wait(urgent=True)

    def attach(self, document: Document, entry: AuditEntry) -> None:
        """Store `document` and `entry` in the transaction of the changes that wait."""
        self.changes.attach(document, entry)

    def is_noting(self, kind: str, name: str) -> bool:
        """Return whether a document is attached to changes that are not stored yet."""
        return (kind, name) in self.changes.documents or (kind, name) in self._in_flight.documents

    async def note(self, document: Document, audit: Sequence[AuditEntry] = ()) -> None:
        """Store a document and what the audit log says of it, without a commit; raises `StoreError`."""
        await self._desk.call(self._store.write, self.name, Change(documents=[document], audit=audit))

    def leave(self, member: str, time: int) -> None:
        """Queue the leave of a member whose proof has been checked."""
        self.changes.evict(member, PendingEviction(GoodbyeReason.LEFT, time=time))
        self._note()

    def evict(self, member: str, *, urgent: bool, actor: str = "operator") -> asyncio.Future[tuple[int, int]]:
        """Queue an eviction; the future gives epoch and last message sequence once it is stored."""
        waiting = self.waiting_join(member)
        identity = waiting.enrollment.identity if waiting else b""
        self.changes.evict(member, PendingEviction(GoodbyeReason.EVICTED, identity, actor=actor))
        return self._wait(urgent=urgent)

    def rotate(self, *, everything: bool, actor: str = "operator") -> asyncio.Future[tuple[int, int]]:
        """Queue a new root key, or new keys for all inner nodes."""
        self.changes.rotated_by = actor
        if everything:
            self.changes.rotate_all = True
        else:
            self.changes.rotate = True
        return self._wait(urgent=True)

    def _wait(self, *, urgent: bool) -> asyncio.Future[tuple[int, int]]:
        future: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
        self.changes.waiters.append(future)
        self.urgent |= urgent
        self._note()
        return future

    def _note(self) -> None:
        """Wake the schedule for a change that has been queued."""
        if self.changes.since is None:
            self.changes.since = asyncio.get_running_loop().time()
        self.changed.set()

    async def commit(self) -> None:
        """Store all that waits as one epoch and apply it; not to be called twice at a time.

        Raises:
            StoreError: it could not be stored; those who wait are told, and the changes go on waiting.
        """
        async with self._turn:
            await self._commit()

    async def _commit(self) -> None:
        batch, self.changes, self.urgent = self.changes, Changes(), False
        self._in_flight, self._committing = batch, True
        try:
            settled = await self._desk.call(self._settlement.settle, batch, self._clock())
        except Exception as error:
            self.changes.put_back(batch)
            self._feed.emit(Kind.STORE_FAILED, self.name, reason=str(error))
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
                self._tell(settled, settled.commit, batch)
            self._tell_evictions(batch)
            for waiter in batch.waiters:
                if not waiter.done():
                    waiter.set_result((self.group.epoch, settled.sequence))
            for rejection in settled.rejected:
                if rejection.join.voucher is not None:
                    rejection.join.voucher(rejection)
                else:
                    self._rejected(self, rejection)
        finally:
            self._in_flight, self._committing = Changes(), False

    def _tell(self, settled: Settled, commit: Commit, batch: Changes) -> None:
        """Say on the feed what a commit has changed."""
        epoch, now = commit.change.epoch, asyncio.get_running_loop().time()
        self._feed.emit(
            Kind.COMMIT,
            self.name,
            epoch=epoch,
            seated=len(commit.change.seated),
            removed=len(commit.change.removed),
            rekeys=len(commit.rekeys),
            sequence=settled.sequence,
            prepare_seconds=settled.prepare,
            store_seconds=settled.store,
            waited_seconds=now - (batch.since if batch.since is not None else now),
        )
        if batch.rotate or batch.rotate_all:
            self._feed.emit(Kind.ROTATE, self.name, epoch=epoch)
        for seat in commit.change.seated:
            self._feed.emit(Kind.SEATED, self.name, seat.enrollment.member, epoch=epoch)

    def _tell_evictions(self, batch: Changes) -> None:
        """Say on the feed who is out, also those who had no place to lose."""
        for member, eviction in batch.evictions.items():
            kind = Kind.LEFT if eviction.reason is GoodbyeReason.LEFT else Kind.EVICTED
            self._feed.emit(kind, self.name, member, epoch=self.group.epoch)

    async def beacon(self) -> int:
        """Store a new Beacon and return its sequence; raises `StoreError`."""
        async with self._turn:
            return await self._beacon()

    async def _beacon(self) -> int:
        payload = self.group.beacon(self._clock())
        message = OutboxMessage(self.topics.beacon, payload)
        return await self._desk.call(self._store.write, self.name, Change(time=self.group.time, messages=[message]))

    async def set_policy(self, policy: Policy, actor: str) -> tuple[int, int]:
        """Ask something else of the members; return epoch and sequence of the Beacon that says so.

        Raises:
            StoreError: it could not be stored, and nothing has changed; or only that Beacon, and the next says it.
        """
        async with self._turn:
            await self._desk.call(self._store_terms, policy, self.record.settings, actor)
            self._feed.emit(Kind.POLICY, self.name)
            return self.group.epoch, await self._beacon()

    async def change(self, policy: Named, settings: Named, actor: str) -> tuple[int, int]:
        """Change what is named of policy and settings; return epoch and sequence of the Beacon that says so, or 0.

        Raises:
            StoreError: as for `set_policy`.
        """
        kept: dict[str, Any] = dict(settings)
        async with self._turn:
            before = self.record
            adopted = adopt_policy(before.policy, policy)
            await self._desk.call(self._store_terms, adopted, replace(before.settings, **kept), actor)
            self.changed.set()  # for the schedule, which goes by the record
            if adopted == before.policy:
                return self.group.epoch, 0
            self._feed.emit(Kind.POLICY, self.name)
            return self.group.epoch, await self._beacon()

    def _store_terms(self, policy: Policy, settings: Settings, actor: str) -> None:
        """Store both in one transaction, if either is another than before; in the store's thread."""
        now, before = int(self._clock() * 1000), self.record
        other = _news(before.settings, settings)
        changed: dict[str, dict[str, str | int | bool]] = {
            "set": {name: value if isinstance(value, int) else str(value) for name, value in other},
            "set-policy": {name: int(value) for name, value in _news(before.policy, policy)},
        }
        audit = [AuditEntry(now, actor, action, self.name, details) for action, details in changed.items() if details]
        if not audit:
            return
        record = replace(before, policy=policy, settings=settings)
        self._store.write(self.name, Change(record=record, audit=audit))
        self.group.set_policy(policy)
        self.record = record

    async def hand_over(self, actor: str) -> tuple[int, int]:
        """Sign by a new key from now on; return epoch and sequence of the first Beacon that does.

        Raises:
            StoreError: it could not be stored, and nothing has changed; or only that Beacon, and the next shows it.
        """
        async with self._turn:
            await self._desk.call(self._store_handover, actor, self._clock())
            self._feed.emit(Kind.HANDOVER, self.name, server_key=self.group.server_key.hex())
            return self.group.epoch, await self._beacon()

    async def destroy(self, actor: str) -> None:
        """Store that the group is no more, and the Goodbye to its members; raises `StoreError`, and it goes on."""
        async with self._turn:
            if self.record.destroyed:
                return
            record = replace(self.record, frozen=True, destroyed=True)
            farewell = OutboxMessage(self.topics.beacon, self.group.farewell(self._random))
            entry = AuditEntry(int(self._clock() * 1000), actor, "destroy", self.name)
            change = Change(record=record, messages=[farewell], audit=[entry])
            await self._desk.call(self._store.write, self.name, change)
            self.record = record
        self.changes.refuse(UsageError(f"group {self.name} has been destroyed"))

    async def freeze(self, actor: str, *, frozen: bool) -> None:
        """Commit nothing from now on, or go on; raises `StoreError`, and nothing has changed."""
        await self._amend(actor, "freeze" if frozen else "thaw", {}, frozen=frozen)

    async def _amend(
        self,
        actor: str,
        action: str,
        details: Mapping[str, str | int | bool],
        **named: Any,  # noqa: ANN401 - fields of the record
    ) -> None:
        """Store the record with other fields, and say by whose will."""
        async with self._turn:
            record = replace(self.record, **named)
            entry = AuditEntry(int(self._clock() * 1000), actor, action, self.name, details)
            await self._desk.call(self._store.write, self.name, Change(record=record, audit=[entry]))
            self.record = record
        self.changed.set()  # for the schedule, which goes by the record

    def _store_handover(self, actor: str, now: float) -> None:
        """Store the new key with the way to it, then sign by it; in the store's thread, between two commits."""
        succession = self.group.prepare_handover(self._random(KEY_SIZE), now)
        record = replace(self.record, signing_seed=succession.seed, handovers=succession.handovers)
        details = {"from": self.group.server_key.hex()}
        self._store.write(
            self.name,
            Change(
                record=record,
                time=succession.time,
                messages=[OutboxMessage(self.topics.handover, succession.message)],
                audit=[AuditEntry(int(now * 1000), actor, "hand-over", self.name, details)],
            ),
        )
        self.group.apply_handover(succession)
        self.record = record


def load_group(store: Store, record: GroupRecord) -> Group:
    """Return the group that `record` and the store's pages describe; raises `StoreError`."""
    tree = KeyTree.load(record.degree, record.height, store.pages(record.name))
    return Group(
        record.name,
        record.signing_seed,
        degree=record.degree,
        suite=record.suite,
        policy=record.policy,
        beacon_interval=record.beacon_interval,
        epoch=record.epoch,
        time=record.time,
        tree=tree,
        directory=StoredSeats(store, record.name, tree.count),
        handovers=record.handovers,
        spares=store.spares(record.name),
    )


def _news(before: Policy | Settings, after: Policy | Settings) -> list[tuple[str, Any]]:
    """Return the fields that are not what they were."""
    pairs = [(item.name, getattr(after, item.name)) for item in fields(after)]
    return [(name, value) for name, value in pairs if value != getattr(before, name)]
