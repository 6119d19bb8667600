"""A member at work: what its transport delivers goes in, its time passes, its gaps are healed.

Three tasks: one reads the transport, one calls `tick` when it is due, one subscribes and asks the server. The order of
recovery is the specification's; when to ask is `brokerkm.sdk.recovery`'s word. What peers send can be refused and
counted, it never ends a task; an error that should not be ends the session and comes out at the application.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from typing import TYPE_CHECKING, Final

from brokerkm.core.events import (
    AckDue,
    Dropped,
    Evicted,
    Joined,
    MessageReceived,
    Recovered,
    RequestRefused,
    ServerKeyChanged,
    Silent,
    Stale,
    Synced,
    Unreadable,
)
from brokerkm.core.names import Topics
from brokerkm.core.notice import GoodbyeReason, RefusalReason
from brokerkm.core.state import State
from brokerkm.errors import EvictedError, Reason, RefusedError, StateError, TransportError
from brokerkm.sdk.recovery import Ask, Pace, Recovery
from brokerkm.sdk.signal import Signal
from brokerkm.sdk.subscriptions import Subscriptions
from brokerkm.transport import Connected, Delivery, Disconnected

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from brokerkm.core.events import Event
    from brokerkm.core.request import Credential
    from brokerkm.sdk.events import Broadcast
    from brokerkm.sdk.keeper import Keeper
    from brokerkm.transport import Transport

_LONGEST_WAIT: Final = 30.0  # seconds; the loop's timers stand still while the machine sleeps, the clock does not
_SHORTEST_WAIT: Final = 0.01  # seconds

_log = logging.getLogger(__name__)

_ENOUGH: Final = 2  # Syncs without an answer, before a device with spare keys reads on by those


class Session:
    """One connection of one member, from `open` to `close`.

    Args:
        keeper: the member and how it is saved.
        transport: not yet open.
        clock: seconds since 1970.
        credential: for a Join, if there is one.
        pace: how patient to be.
        queue_size: messages that wait for one iterator.
        broadcast: takes every event but messages.
        rejoin: ask for a place again if the member learns that it is out.

    Attributes:
        rejoin: as given; to be cleared when the member is in.
    """

    def __init__(
        self,
        keeper: Keeper,
        transport: Transport,
        clock: Callable[[], float],
        *,
        credential: Credential | None,
        pace: Pace,
        queue_size: int,
        broadcast: Broadcast,
        rejoin: bool,
    ) -> None:
        self.keeper: Final = keeper
        self.member: Final = keeper.member
        self.transport: Final = transport
        self.clock: Final = clock
        self.moved: Final = Signal()  # fired whenever something that somebody may wait for has changed
        self.subscriptions: Final = Subscriptions(transport, queue_size, self.moved.fire)
        self.refused: Final[Counter[Reason]] = Counter()
        self.refusal: RefusalReason | None = None  # the server's last word on a request
        self.connected = False
        self.rejoin = rejoin
        self.is_out = False  # evicted, or has left, since it was opened; saved and told
        self.error: BaseException | None = None
        self._credential: Final = credential
        self._pace: Final = pace
        self._broadcast: Final = broadcast
        self._recovery: Final = Recovery(pace, random.SystemRandom().uniform)
        self._topics: Final = Topics(self.member.profile.group, self.member.profile.prefix)
        self._subscribed: set[str] = set()
        self._must_join = False
        self._fetch = False  # the retained messages are to be asked for again
        self._next_follow = 0.0
        self._settled = False  # the newest Beacon has been seen since the connection, or waited for
        self._settling: asyncio.TimerHandle | None = None
        self._wake_at = 0.0  # when the time keeper looks again
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Connect, subscribe, and ask for a place if the member has none.

        Raises:
            TransportError: the broker cannot be reached, or refuses the subscriptions.
            StoreError: a new member cannot be saved.
        """
        await self.keeper.finish()
        self._must_join = self.member.state in {State.NEW, State.EVICTED}
        await self.transport.open()
        self._start(self._read(), "reader")
        await self._subscribe(set(self.member.filters))
        self._settle_soon()
        self._start(self._keep_time(), "time")
        self._start(self._heal(), "recovery")

    async def close(self) -> None:
        """End all tasks, save what was received, disconnect; raises `StoreError` if that cannot be saved."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._settling is not None:
            self._settling.cancel()
        self.subscriptions.end(self.error)
        self._broadcast.end(self.error)
        self.moved.fire()
        try:
            await self.keeper.finish()
        finally:
            await self.transport.close()

    @property
    def is_current(self) -> bool:
        """Whether the member has the group's newest key, as far as it can know."""
        return self.member.state is State.ACTIVE and self._settled and not self.member.behind

    @property
    def is_ready(self) -> bool:
        """Whether all that comes from now on reaches the member, too."""
        return self.is_current and self._keeps_up

    @property
    def reads_on(self) -> bool:
        """Whether the member reads by its spare keys, because nobody answers who could tell it the group's newest."""
        member, asked = self.member, self._recovery.unanswered >= _ENOUGH
        return member.state is State.STALE and member.spares > 0 and asked and self._keeps_up

    @property
    def _keeps_up(self) -> bool:
        return self.keeper.is_saved and self._subscribed == set(self.member.filters)

    async def _ask(self, what: Ask) -> None:
        """Send a request; what becomes of it, events will tell."""
        member, now = self.member, self.clock()
        try:
            if what is Ask.JOIN:
                request = await self.keeper.change(lambda: member.join(now, self._credential))
            else:
                request = await self.keeper.change(lambda: member.sync(now))
        except StateError:
            return  # out of the group since it was decided to ask
        self.refusal = None
        if self._plan(now) is not None:
            self._recovery.asked(now)
        await self.send(request)
        self.moved.fire()

    async def _acknowledge(self) -> None:
        """Confirm what the member has; without a connection, the next Beacon makes it due again."""
        if self.connected:
            with contextlib.suppress(StateError):  # out of the group by now
                await self.send(await self.keeper.change(lambda: self.member.ack(self.clock())))

    async def send(self, request: bytes) -> None:
        """Send a request's bytes; a broker that does not take them is like a server that does not answer."""
        try:
            await self.transport.request(self.member.request_topic, request)
        except TransportError as error:
            _log.info("a request of %s was not sent: %s", self.member.profile.member, error)

    # What comes in.

    async def _read(self) -> None:
        async for item in self.transport.incoming():
            match item:
                case Delivery():
                    await self._receive(item)
                    continue
                case Connected():
                    self.connected = True
                    if self._subscribed:
                        self._fetch = True
                        self._settle_soon()
                case Disconnected():
                    self.connected = self._settled = False
            self._broadcast.put(item)
            self.moved.fire()
        message = "the connection to the broker was closed"
        raise TransportError(message)

    async def _receive(self, delivery: Delivery) -> None:
        topic, payload, member = delivery.topic, delivery.payload, self.member
        is_protocol = self._topics.owns(topic)
        try:
            events = await self.keeper.change(lambda: member.receive(topic, payload, self.clock()))
        except RefusedError as error:
            is_repeated = error.reason is Reason.REPLAY and delivery.retained
            if not (is_repeated and await self.subscriptions.repeat(topic, payload)):
                self.refused[error.reason] += 1
                _log.debug("refused %d bytes on %.100r: %s", len(payload), topic, error)
                if error.reason is Reason.BAD_SIGNATURE and self._subscribed != set(member.filters):
                    self.moved.fire()  # a hand-over to the key that signed it may be retained
            return
        for event in events:
            await self._emit(event, b"" if is_protocol else payload)
        if topic == self._topics.beacon and payload and member.slot is not None:
            self._settled |= not member.behind
            self.moved.fire()
        deadline = member.next_deadline
        if deadline is not None and deadline < self._wake_at:
            self.moved.fire()

    async def _emit(self, event: Event, sealed: bytes) -> None:
        """Act on an event and pass it on; `sealed` is what a message was in."""
        match event:
            case MessageReceived():
                self.keeper.has_new_windows = True
                await self.subscriptions.deliver(sealed, event)
                return
            case AckDue():
                await self._acknowledge()
                return
            case Dropped(_, reason):
                self.refused[reason] += 1
            case Stale() | Silent() | Unreadable() | ServerKeyChanged():
                self._fetch = True
            case Joined() | Synced() | Recovered():
                self._settled = True
            case RequestRefused(reason):
                self.refusal = reason
                self._recovery.refused(reason, self.clock())
            case _:
                pass
        self._broadcast.put(event)
        if isinstance(event, Evicted):
            self._expel(event)
        self.moved.fire()

    def _expel(self, event: Evicted) -> None:
        profile = self.member.profile
        if event.reason is GoodbyeReason.DESTROYED:
            message = f"group {profile.group} has been destroyed: this device needs another one's invitation"
        elif self.rejoin:  # it was put out while it was away
            self._must_join = True
            return
        else:
            message = f"the key server has put {profile.member} out of group {profile.group}"
        self.subscriptions.end(None if event.reason is GoodbyeReason.LEFT else EvictedError(message))
        self._broadcast.end()
        self.is_out = True

    def _settle_soon(self) -> None:
        """Take the saved keys for current in a while, if no Beacon says otherwise."""
        if self._settling is not None:
            self._settling.cancel()
        self._settling = asyncio.get_running_loop().call_later(self._pace.settle, self._settle)

    def _settle(self) -> None:
        self._settled |= self.connected
        self.moved.fire()

    # What is due.

    async def _keep_time(self) -> None:
        next_save = self.clock() + self._pace.windows
        while True:
            deadline = self.member.next_deadline
            times = [next_save] if deadline is None else [next_save, deadline]
            self._wake_at = min(times)
            await self._wait_until(self._wake_at)
            now = self.clock()
            if deadline is not None and deadline <= now:
                for event in await self.keeper.change(lambda: self.member.tick(self.clock())):
                    await self._emit(event, b"")
            if next_save <= now:
                await self.keeper.save_windows()
                next_save = self.clock() + self._pace.windows

    async def _heal(self) -> None:
        while True:
            if self._must_join:
                self._must_join = False
                await self._ask(Ask.JOIN)
            now = self.clock()
            at = self._plan(now)
            if self.connected and self._must_follow(now):
                await self._follow()
            elif self.connected and at is not None and at <= now:
                await self._ask(self._recovery.request)
            else:
                times = [time for time in (at, self._next_follow) if time is not None and time > now]
                await self._wait_until(min(times, default=now + _LONGEST_WAIT))

    def _plan(self, now: float) -> float | None:
        """Return when to ask the server; certificates that a new policy wants, within half its grace."""
        member = self.member
        return self._recovery.plan(member.state, member.certificate_expiry, now, member.policy.grace / 2)

    def _must_follow(self, now: float) -> bool:
        changed = self._fetch or self._subscribed != set(self.member.filters) or self.subscriptions.untidy
        return changed and now >= self._next_follow

    async def _follow(self) -> None:
        """Subscribe what the member's filters say by now, all of them if retained messages are wanted again."""
        wanted = set(self.member.filters)
        fetch, self._fetch = self._fetch, False
        try:
            await self._subscribe(wanted if fetch else wanted - self._subscribed)
            gone = self._subscribed - wanted
            if gone:
                await self.transport.unsubscribe(gone)
                self._subscribed -= gone
            await self.subscriptions.tidy()
            self.moved.fire()
        except TransportError as error:
            self._fetch |= fetch
            self._next_follow = self.clock() + self._pace.repeat
            _log.warning("%s cannot subscribe now: %s", self.member.profile.member, error)

    async def _subscribe(self, filters: set[str]) -> None:
        if filters:
            await self.transport.subscribe(sorted(filters))
            self._subscribed |= filters

    async def _wait_until(self, time: float) -> None:
        """Return at `time`, or when something has moved."""
        delay = min(max(time - self.clock(), _SHORTEST_WAIT), _LONGEST_WAIT)
        try:
            async with asyncio.timeout(delay):
                await self.moved.wait()
        except TimeoutError:
            pass

    # The tasks.

    def _start(self, work: Coroutine[None, None, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(self._guard(work), name=f"{self.member.profile.member} {name}"))

    async def _guard(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - whatever it is, the application shall see it
            self.error = error
            self.subscriptions.end(error)
            self._broadcast.end(error)
            self.moved.fire()
