"""The key server: loads the groups of a store that it leads, and serves them at a broker.

Nothing is published that is not stored. A server whose store is behind what the broker shows does not
start (`brokerkm.service.retained`). Cancelling any call at any time leaves the store whole; `stop` ends it gracefully.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING, Final, Self

from brokerkm.clock import boot_time
from brokerkm.core.group import Group
from brokerkm.core.names import Topics
from brokerkm.errors import LeaseLostError, StoreError, TransportError, UnfitError
from brokerkm.service.admin import Admin
from brokerkm.service.desk import StoreDesk
from brokerkm.service.ending import Ending
from brokerkm.service.expulsion import Expulsion
from brokerkm.service.feed import Feed, Kind
from brokerkm.service.leadership import SoleLeadership
from brokerkm.service.live import LiveGroup, load_group
from brokerkm.service.publisher import Publisher
from brokerkm.service.reception import Reception
from brokerkm.service.requests import Requests
from brokerkm.service.restored import Restored
from brokerkm.service.retained import RetainedBeacons
from brokerkm.service.roster import Roster
from brokerkm.service.routes import Routes
from brokerkm.service.schedule import Schedule
from brokerkm.service.served import Served
from brokerkm.service.tasks import Tasks
from brokerkm.service.terms import Terms
from brokerkm.store.records import AuditEntry, Change, OutboxMessage
from brokerkm.store.seats import StoredSeats

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from types import TracebackType

    from brokerkm.core.crypto import Random
    from brokerkm.service.changes import Rejection
    from brokerkm.service.fencing import Tenure
    from brokerkm.service.leadership import Leadership
    from brokerkm.store.protocol import Store
    from brokerkm.store.records import GroupRecord
    from brokerkm.transport import Transport

_log = logging.getLogger(__name__)

DRAIN_TIME: Final = 5.0  # seconds that `stop` gives the broker to take what is left


class KeyServer:
    """Serves the groups of `store`: all of them, or those that its leadership says.

    Args:
        store: its caller closes it, after `stop`.
        transport: not yet open, of the server's role; None to change groups without a broker. What is to be published
            then waits in the store.
        clock: seconds since 1970.
        random: source of keys.
        interval: seconds that a change waits for others, unless it is urgent.
        max_pending: how many changes wait at most.
        terms: what new groups begin with.
        retained_wait: seconds in which the broker delivers a retained message that it has.
        broker: URL for the descriptors that `invite` makes.
        leadership: which groups to lead; all of them if none is given.

    Attributes:
        admin: how to change and look at the groups, once started.
        feed: what happens.
        groups: those that this server leads, by name.
        leadership: knows the other servers, if there are any.
        terms: what groups begin with that are made from now on.
    """

    def __init__(
        self,
        store: Store,
        transport: Transport | None = None,
        *,
        clock: Callable[[], float] = time.time,
        random: Random = os.urandom,
        interval: float = 1.0,
        max_pending: int = 1024,
        terms: Terms = Terms(),  # noqa: B008 - frozen
        retained_wait: float = 1.0,
        broker: str | None = None,
        leadership: Leadership | None = None,
    ) -> None:
        self.leadership: Final = leadership or SoleLeadership()
        self.store: Final = self.leadership.guard(store)
        self.clock: Final = clock
        self.random: Final = random
        self.broker: Final = broker
        self.feed: Final = Feed(clock)
        self.desk: Final = StoreDesk()
        self._routes: Final = Routes(transport, sharing=leadership is not None)
        self._roster: Final = Roster(self._routes)
        self.groups: Final = self._roster.groups
        self.admin: Final = Admin(self)
        self.terms = terms
        self._interval = interval
        self._max_pending = max_pending
        self._transport: Final = transport
        self._tasks: Final = Tasks()
        self._started = False
        self._reception: Reception | None = None
        self._expulsion: Expulsion | None = None
        self.publisher: Publisher | None = None
        self.requests: Requests | None = None
        if transport is not None:
            roster = self._roster
            self.publisher = publisher = Publisher(
                transport, self.store, self.desk, self.feed, roster.remaining, retains=roster.retains
            )
            self._expulsion = expulsion = Expulsion(transport, publisher.wake, publisher.publish_again)
            roster.holds = expulsion.holds
            self.requests = Requests(self.store, self.desk, self.publisher, clock, self.feed, serves=roster.serves)
            self._retained = RetainedBeacons(transport, retained_wait)
            self._restored = Restored(self.store, self.desk)
            self._reception = Reception(
                transport,
                self._routes,
                roster,
                retained=self._retained,
                requests=self.requests,
                forward=self.leadership.forward,
                unfit=self._unfit,
                feed=self.feed,
            )

    @property
    def connected(self) -> bool:
        """Whether the broker is reached now."""
        return self._reception is not None and self._reception.connected

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Load the groups, connect, compare with what the broker retained, and serve.

        Raises:
            StoreError: the store cannot be read, or is behind what the broker shows.
            TransportError: the broker cannot be reached.
        """
        self._tasks.begin()
        try:
            if self._transport is not None and self._reception is not None:
                await self._connect(self._transport, self._reception)
            await self.leadership.start(self)
            self._started = True
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Commit what waits, publish what the broker takes within seconds, and disconnect; may be called twice."""
        if self._reception is not None:
            self._reception.stop()
        self.leadership.retire()
        await asyncio.gather(*(served.end(commit=True, patience=None) for served in self._roster.served.values()))
        drained = True
        if self.publisher is not None:
            self.publisher.stop()
            await self._tasks.ended("publisher", DRAIN_TIME)
            drained = self.publisher.drained_at_last
        await self._tasks.cancel()
        if self._transport is not None:
            await self._transport.close()
        if self.requests is not None:
            await self.requests.stop()
        await self.leadership.stop(drained=drained)
        await self.desk.close()
        self._tasks.finish()

    async def wait(self) -> None:
        """Return when the server has been stopped.

        Raises:
            StoreError: another server is using a copy of the store; this one must not go on.
            TransportError: the transport has ended by itself.
        """
        await self._tasks.wait()

    def pace(self, interval: float, max_pending: int) -> None:
        """Let changes wait so long, and so many, from now on, where a group's settings do not say otherwise."""
        self._interval, self._max_pending = interval, max_pending
        for served in self._roster.served.values():
            if isinstance(served.schedule, Schedule):
                served.schedule.pace(interval, max_pending)

    async def create_group(self, record: GroupRecord, actor: str = "operator") -> LiveGroup:
        """Store and serve a new group, which must be well-formed."""
        group = Group(
            record.name,
            record.signing_seed,
            degree=record.degree,
            suite=record.suite,
            policy=record.policy,
            beacon_interval=record.beacon_interval,
            directory=StoredSeats(self.store, record.name, 0),
        )
        live = self._make(record, group)  # checks the names
        self._routes.check_apart(record.name, live.topics)
        now = self.clock()
        beacon = OutboxMessage(live.topics.beacon, group.beacon(now))
        audit = AuditEntry(int(now * 1000), actor, "create", record.name)
        change = Change(time=group.time, messages=[beacon], audit=[audit])
        await self.desk.call(self.store.create_group, record, change)
        tenure = await self.leadership.claim(record.name)
        if tenure is not None:  # otherwise another server has been faster
            self._begin(live, tenure)
            self.feed.emit(Kind.LEAD, live.name, fence=tenure.fence or 0)
            await self._settle([live.name])
        return live

    async def destroy(self, group: str, actor: str, *, patience: float, now: bool = False) -> bool:
        """End a group for good; return whether it is forgotten, within `patience` seconds.

        Its members are told, and what the broker retains of it is cleared first; `now` leaves that alone.

        Raises:
            StoreError: it could not be stored; the group goes on if it was not destroyed before.
        """
        served = self._roster.served[group]
        tenure = self._roster.tenures[group]
        await served.end(commit=False, patience=None)
        try:
            await served.live.destroy(actor)
            if now:
                await self._bury(served.live)
                return True
        finally:
            if self._roster.served.get(group) is served:
                self._begin(served.live, tenure)
        ending = self._roster.served.get(group)
        return ending is not None and isinstance(ending.schedule, Ending) and await ending.schedule.finished(patience)

    # What its leadership asks for.

    async def stored(self) -> list[str]:
        """Return the names of all groups that the store has."""
        return [record.name for record in await self.desk.call(self.store.groups)]

    async def lead(self, tenures: Mapping[str, Tenure]) -> None:
        """Load these groups and serve them.

        Raises:
            StoreError: one of them cannot be loaded, or the store is behind what the broker shows; none is served.
            TransportError: at the start only, the broker does not do what is needed.
        """
        lives = [await self._load(name) for name in tenures]
        for live in lives:
            self._roster.enter(live, tenures[live.name])
            if self._expulsion is not None:
                self._expulsion.owe(live.name, tenures[live.name].formers)
        try:
            await self._check_retained(lives)
            await self._settle(tenures)
            _check_fit(tenures)
        except BaseException:
            for live in lives:
                self._forget(live.name)
            raise
        for live in lives:
            self._begin(live, tenures[live.name])
            self.feed.emit(Kind.LEAD, live.name, fence=tenures[live.name].fence or 0)

    async def yield_(self, group: str, *, gracefully: bool, why: StoreError | None = None) -> bool:
        """Stop serving a group; return whether nothing of it can be under way any more."""
        served = self._roster.served.get(group)
        if served is None:
            return True
        drained = await served.end(commit=gracefully, patience=DRAIN_TIME)
        if gracefully and self.publisher is not None:
            drained &= await self.publisher.drained(group, DRAIN_TIME)
        message = f"group {group} is led by another server now: try again"
        served.live.changes.refuse(why or LeaseLostError(message))
        self._forget(group)
        await self.desk.call(served.wipe)  # after what the store's thread may still be doing with the keys
        await self._settle([group])
        self.feed.emit(Kind.YIELD, group)
        return drained

    async def reload(self, group: str, tenure: Tenure) -> None:
        """Load a group again that the store may be ahead of, with the changes that wait."""
        served = self._roster.served.get(group)
        if served is None:
            return
        await served.end(commit=False, patience=DRAIN_TIME)
        live = await self._load(group)
        live.changes = served.live.changes
        live.urgent = served.live.urgent
        self._begin(live, tenure)
        live.changed.set()
        await self.desk.call(served.wipe)

    async def know(self, groups: Collection[str]) -> None:
        """Take requests for these groups, whoever leads them, as far as the broker shares them out."""
        known = self._routes.known()
        for name in known.keys() - set(groups) - self.groups.keys():
            self._routes.remove(name)
        for name in set(groups) - known.keys():
            record = await self.desk.call(self.store.group, name)
            if record is not None and name not in self.groups:
                self._routes.add(name, Topics(name, record.prefix), led=False)
        if self._routes.known().keys() != known.keys():
            await self._settle(None)

    async def take(self, group: str, member: str, payload: bytes) -> None:
        """Handle a request that another server has read; raises `StoreError`."""
        live = self.groups.get(group)
        if live is not None and self.requests is not None:
            await self.requests.handle(live, member, payload)

    def seen(self, live: Collection[str], duration: float) -> None:
        """Learn which servers are alive, and for how long a lease lasts, in seconds."""
        if self._expulsion is not None:
            self._expulsion.seen(live, boot_time(), duration)

    def hurry(self, groups: Iterable[str]) -> None:
        """Try at once what had to wait because a lease had run out."""
        for name in groups:
            if name in self._roster.served:
                self._roster.served[name].schedule.hurry()
            self._stored(name)

    # Groups.

    def _make(self, record: GroupRecord, group: Group) -> LiveGroup:
        return LiveGroup(
            record,
            group,
            store=self.store,
            desk=self.desk,
            clock=self.clock,
            random=self.random,
            rejected=self._reject,
            feed=self.feed,
        )

    async def _load(self, name: str) -> LiveGroup:
        record = await self.desk.call(self.store.group, name)
        if record is None:
            message = f"group {name} is not in the store any more"
            raise StoreError(message)
        return self._make(record, await self.desk.call(load_group, self.store, record))

    def _begin(self, live: LiveGroup, tenure: Tenure) -> None:
        """Let a group commit and publish; requests reach it already."""
        self._roster.enter(live, tenure)
        schedule: Schedule | Ending = Schedule(
            live,
            interval=self._interval,
            max_pending=self._max_pending,
            beacons=self._transport is not None,
            stored=lambda: self._stored(live.name),
        )
        if live.record.destroyed:
            schedule = Ending(live, self.store, self.desk, self.publisher, self._bury)
        task = self._tasks.spawn(f"schedule {live.name}", schedule.run())
        self._roster.served[live.name] = Served(live, schedule, task)
        self._stored(live.name)  # what an earlier server left

    def _forget(self, group: str) -> None:
        live = self._roster.strike(group)
        self._tasks.forget(f"schedule {group}")
        if self._expulsion is not None:
            self._expulsion.forget(group)
        if self.publisher is not None:
            self.publisher.forget(group, live.topics.root)

    async def _bury(self, live: LiveGroup) -> None:
        """Forget a group that has been destroyed; raises `StoreError`."""
        entry = AuditEntry(int(self.clock() * 1000), "server", "forget", live.name)
        await self.desk.call(self.store.destroy_group, live.name, [entry])
        served = self._roster.served[live.name]
        self._forget(live.name)
        await self.desk.call(served.wipe)
        await self.leadership.give_up(live.name)
        self._routes.remove(live.name)
        await self._settle(None)
        self.feed.emit(Kind.DESTROYED, live.name)

    def _stored(self, group: str) -> None:
        if self.publisher is not None:
            self.publisher.wake(group)

    def _reject(self, group: LiveGroup, rejection: Rejection) -> None:
        if self.requests is not None:
            self.requests.rejected(group, rejection)

    async def _connect(self, transport: Transport, reception: Reception) -> None:
        await transport.open()
        reception.connected = True
        self._tasks.spawn("reception", reception.run())
        self._tasks.spawn("reconnection", self._resume(reception.reconnected))
        if self.publisher is not None:
            self._tasks.spawn("publisher", self.publisher.run())
        if self._expulsion is not None:
            self._tasks.spawn("expulsion", self._expulsion.run())
        if self.requests is not None:
            self._tasks.spawn("requests", self.requests.intake.run())
            self._tasks.spawn("sightings", self.requests.sightings.run())

    async def _check_retained(self, groups: Collection[LiveGroup], *, served: bool = False) -> None:
        """Publish again what the broker has lost; raises `UnfitError` if it knows more than the store."""
        groups = [group for group in groups if not group.record.destroyed]
        if self.publisher is None or not groups:
            return
        marks = {} if served else await self._restored.marks([group.name for group in groups])
        if not self.connected:
            await self._restored.judge(marks, None)
            return
        try:
            shown = await self._retained.epochs(groups)
            await self._restored.judge(marks, shown)
            for group in groups:
                if shown.get(group.name, -1) < group.group.epoch:
                    self.publisher.publish_again(group.name)
        except TransportError as error:
            if not self._started or marks:
                raise
            _log.warning("what the broker retained could not be seen: %s", error)
            return
        for group in groups:
            self._routes.note(group.name, [group.topics.beacon])

    def _unfit(self, live: LiveGroup, error: UnfitError) -> None:
        """Change, publish and answer nothing more in a group from now on, and have it withdrawn."""
        tenure = self._roster.tenures.get(live.name)
        if tenure is None or tenure.doubtful or self.groups.get(live.name) is not live:
            return
        tenure.doubtful = True
        if live.name in self._roster.served:  # otherwise whoever begins with it finds out
            self._tasks.spawn(f"withdrawal {live.name}", self._withdraw(live.name, error))

    async def _withdraw(self, group: str, error: UnfitError) -> None:
        await self.leadership.withdraw(group, error)
        self.feed.emit(Kind.UNSERVED, group, reason=str(error))
        self._tasks.forget(f"withdrawal {group}")

    async def _settle(self, groups: Iterable[str] | None) -> None:
        """Subscribe what has changed; once started, what the broker does not grant now is asked for again later."""
        try:
            await self._routes.settle(groups)
        except TransportError as error:
            if not self._started:
                raise
            _log.warning("requests are not subscribed yet: %s", error)

    async def _resume(self, reconnected: asyncio.Event) -> None:
        """After each reconnection, see what the broker still has."""
        while True:
            await reconnected.wait()
            reconnected.clear()
            if self.publisher is not None:
                self.publisher.wake()
            await self._settle(None)
            for live in list(self.groups.values()):
                try:
                    await self._check_retained([live], served=True)
                except UnfitError as error:
                    self._unfit(live, error)


def _check_fit(tenures: Mapping[str, Tenure]) -> None:
    """Raise `UnfitError` if one of the groups has turned out unfit while it was looked at."""
    for name, tenure in tenures.items():
        if tenure.doubtful:
            message = f"group {name}: another server has gone on with it just now"
            raise UnfitError(message)
