"""The key server: loads the groups of a store and serves them at a broker.

Nothing is published that is not stored. A server whose store is behind what the broker shows does not
start (`brokerkm.service.retained`). Cancelling any call at any time leaves the store whole; `stop` ends it gracefully.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING, Final, Self

from brokerkm.core.group import Group
from brokerkm.core.names import BeaconTopic, RequestTopic
from brokerkm.errors import BrokerkmError, RefusedError, StoreError, TransportError, UsageError
from brokerkm.service.admin import Admin
from brokerkm.service.desk import StoreDesk
from brokerkm.service.feed import Feed, Kind
from brokerkm.service.live import LiveGroup, Rejection, load_group
from brokerkm.service.publisher import Publisher
from brokerkm.service.requests import Requests
from brokerkm.service.retained import RetainedBeacons
from brokerkm.service.schedule import Schedule
from brokerkm.store.records import AuditEntry, Change, OutboxMessage
from brokerkm.transport import Connected, Delivery, Disconnected

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

    from brokerkm.core.crypto import Random
    from brokerkm.store.protocol import Store
    from brokerkm.store.records import GroupRecord
    from brokerkm.transport import Transport

_log = logging.getLogger(__name__)

DRAIN_TIME: Final = 5.0  # seconds that `stop` gives the broker to take what is left


class KeyServer:
    """Serves all groups of `store`.

    Args:
        store: its caller closes it, after `stop`.
        transport: not yet open, of the server's role; None to change groups without a broker. What is to be published
            then waits in the store.
        clock: seconds since 1970.
        random: source of keys.
        interval: seconds that a change waits for others, unless it is urgent.
        max_pending: how many changes wait at most.
        retained_wait: seconds in which the broker delivers a retained message that it has.
        broker: URL for the descriptors that `invite` makes.

    Attributes:
        admin: how to change and look at the groups, once started.
        feed: what happens.
        connected: whether the broker is reached now.
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
        retained_wait: float = 1.0,
        broker: str | None = None,
    ) -> None:
        self.store: Final = store
        self.clock: Final = clock
        self.random: Final = random
        self.broker: Final = broker
        self.feed: Final = Feed(clock)
        self.connected = False
        self.desk: Final = StoreDesk()
        self.groups: Final[dict[str, LiveGroup]] = {}
        self.admin: Final = Admin(self)
        self._interval: Final = interval
        self._max_pending: Final = max_pending
        self._transport: Final = transport
        self._by_root: Final[dict[str, LiveGroup]] = {}
        self._unsubscribed: Final[set[str]] = set()  # groups whose requests are not subscribed yet
        self._schedules: Final[list[Schedule]] = []
        self._tasks: Final[dict[str, asyncio.Task[None]]] = {}
        self._failure: asyncio.Future[None] | None = None
        self._reconnected: Final = asyncio.Event()
        self._stopping = False
        self.publisher: Publisher | None = None
        self.requests: Requests | None = None
        if transport is not None:
            self.publisher = Publisher(transport, store, self.desk, self.feed)
            self.requests = Requests(store, self.desk, self.publisher, clock, self.feed)
            self._retained = RetainedBeacons(transport, retained_wait)

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
        self._failure = asyncio.get_running_loop().create_future()
        try:
            for record in await self.desk.call(self.store.groups):
                self._add(record, await self.desk.call(load_group, self.store, record))
            if self._transport is not None:
                await self._connect(self._transport)
            for group in self.groups.values():
                self._begin(group)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Commit what waits, publish what the broker takes within seconds, and disconnect; may be called twice."""
        self._stopping = True
        for schedule in self._schedules:
            schedule.stop()
        await self._ended([name for name in self._tasks if name.startswith("schedule ")], None)
        if self.publisher is not None:
            self.publisher.stop()
            await self._ended(["publisher"], DRAIN_TIME)
        for task in self._tasks.values():
            task.cancel()
        await self._ended(list(self._tasks), None)
        if self._transport is not None:
            await self._transport.close()
        if self.requests is not None:
            await self.requests.sightings.flush()
        await self.desk.close()
        if self._failure is not None and not self._failure.done():
            self._failure.set_result(None)

    async def wait(self) -> None:
        """Return when the server has been stopped.

        Raises:
            StoreError: another server is using a copy of the store; this one must not go on.
            TransportError: the transport has ended by itself.
        """
        if self._failure is None:
            message = "start the server first"
            raise UsageError(message)
        await asyncio.shield(self._failure)

    async def create_group(self, record: GroupRecord, actor: str = "operator") -> LiveGroup:
        """Store and serve a new group, which must be well-formed."""
        group = Group(
            record.name,
            record.signing_seed,
            degree=record.degree,
            suite=record.suite,
            policy=record.policy,
            beacon_interval=record.beacon_interval,
        )
        live = self._make(record, group)  # checks the names
        self._check_apart(live)
        now = self.clock()
        beacon = OutboxMessage(live.topics.beacon, group.beacon(now))
        audit = AuditEntry(int(now * 1000), actor, "create", record.name)
        change = Change(time=group.time, messages=[beacon], audit=[audit])
        await self.desk.call(self.store.create_group, record, change)
        self._add_live(live)
        self._begin(live)
        if self._transport is not None:
            try:
                await self._subscribe(self._transport)
            except TransportError as error:
                _log.warning("group %s: requests are not subscribed yet: %s", record.name, error)
        return live

    def _check_apart(self, new: LiveGroup) -> None:
        """Raise `UsageError` if the topics of `new` would lie among those of another group."""
        mine = f"{new.topics.root}/"
        for other in self.groups.values():
            theirs = f"{other.topics.root}/"
            if other.name != new.name and (mine.startswith(theirs) or theirs.startswith(mine)):
                message = (
                    f"the topics below {mine} would get mixed up with those of group {other.name}: take another prefix"
                )
                raise UsageError(message)

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

    def _add(self, record: GroupRecord, group: Group) -> None:
        self._add_live(self._make(record, group))

    def _add_live(self, live: LiveGroup) -> None:
        self.groups[live.name] = live
        self._by_root[live.topics.root] = live
        self._unsubscribed.add(live.name)

    def _begin(self, group: LiveGroup) -> None:
        settings = group.record.settings
        schedule = Schedule(
            group,
            interval=self._interval if settings.interval is None else settings.interval,
            max_pending=self._max_pending if settings.max_pending is None else settings.max_pending,
            beacons=self._transport is not None,
            stored=lambda: self._stored(group.name),
        )
        self._schedules.append(schedule)
        self._spawn(f"schedule {group.name}", schedule.run())
        self._stored(group.name)  # what an earlier server left

    def _stored(self, group: str) -> None:
        if self.publisher is not None:
            self.publisher.wake(group)

    def _reject(self, group: LiveGroup, rejection: Rejection) -> None:
        if self.requests is not None:
            self.requests.rejected(group, rejection)

    def _spawn(self, name: str, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._watched(work), name=f"key server {name}")
        self._tasks[name] = task

    async def _watched(self, work: Coroutine[None, None, None]) -> None:
        """Do `work`; what nobody expected ends the server rather than a part of it."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - the failure is handed to `wait`
            if self._failure is not None and not self._failure.done():
                self._failure.set_exception(error)
                self._failure.exception()  # whoever calls `wait` is told; nobody has to
            _log.critical("the key server cannot go on: %s", error, exc_info=not isinstance(error, BrokerkmError))

    async def _ended(self, names: list[str], patience: float | None) -> None:
        tasks = [self._tasks[name] for name in names if name in self._tasks]
        if tasks:
            await asyncio.wait(tasks, timeout=patience)

    async def _connect(self, transport: Transport) -> None:
        await transport.open()
        self.connected = True
        self._spawn("consumer", self._consume(transport))
        await self._check_retained()
        await self._subscribe(transport)
        self._spawn("reconnection", self._resume(transport))
        if self.publisher is not None:
            self._spawn("publisher", self.publisher.run())
        if self.requests is not None:
            self._spawn("sightings", self.requests.sightings.run())

    async def _check_retained(self) -> None:
        """Publish again what the broker has lost; raises `StoreError` if it knows more than the store."""
        if self.publisher is not None:
            for group in await self._retained.forgotten(self.groups.values()):
                self.publisher.publish_again(group.name)

    async def _subscribe(self, transport: Transport) -> None:
        names = list(self._unsubscribed)
        topics = [self.groups[name].topics for name in names]
        if names:
            await transport.subscribe([one for topic in topics for one in (topic.requests, topic.beacon)])
            self._unsubscribed.difference_update(names)

    async def _resume(self, transport: Transport) -> None:
        """After each reconnection, see what the broker still has."""
        while True:
            await self._reconnected.wait()
            self._reconnected.clear()
            if self.publisher is not None:
                self.publisher.wake()
            try:
                await self._subscribe(transport)
                await self._check_retained()
            except TransportError as error:
                _log.warning("after the reconnection: %s", error)  # there will be another one

    async def _consume(self, transport: Transport) -> None:
        async for item in transport.incoming():
            match item:
                case Delivery():
                    await self._deliver(item)
                case Disconnected():
                    self.connected = False
                    self.feed.emit(Kind.BROKER_LOST, reason=item.reason)
                    _log.warning("the broker is gone: %s", item.reason)
                case Connected() if not self.connected:
                    self.connected = True
                    _log.info("the broker is back")
                    self.feed.emit(Kind.BROKER_BACK)
                    self._reconnected.set()
                case Connected():
                    pass
        if not self._stopping:
            message = "the transport ended by itself: start the server again"
            raise TransportError(message)

    async def _deliver(self, delivery: Delivery) -> None:
        for parts in (1, 2):  # ROOT/b and ROOT/r/MEMBER
            group = self._by_root.get(delivery.topic.rsplit("/", parts)[0])
            if group is not None:
                break
        else:
            return
        try:
            name = group.topics.parse(delivery.topic)
        except RefusedError as error:  # anybody may invent topics
            _log.debug("group %s: %s", group.name, error)
            return
        match name:
            case BeaconTopic():
                self._retained.heard(group, delivery.payload, retained=delivery.retained)
            case RequestTopic(member) if self.requests is not None and not delivery.retained:
                try:
                    await self.requests.handle(group, member, delivery.payload)
                except StoreError as error:
                    _log.warning("group %s: a request could not be handled: %s", group.name, error)
                    self.feed.emit(Kind.STORE_FAILED, group.name, reason=str(error))
            case _:
                pass
