"""Leading the groups whose lease this server has, beside other servers on the same PostgreSQL database.

It renews at a third of the lease, on connections and in threads that nothing else holds up. It stops acting for
a group a margin before the lease ends by its own clock, which counts from before it asked; the fence stops
it in the database even if that clock is wrong. While the database cannot be reached the groups stay in memory and wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Final

from brokerkm.clock import boot_time
from brokerkm.errors import StoreError, TransportError
from brokerkm.service.courier import Courier
from brokerkm.service.desk import StoreDesk
from brokerkm.service.fencing import MARGIN, Tenure, fenced
from brokerkm.service.leadership import describe_server
from brokerkm.service.sharing import plan
from brokerkm.store.lease import DURATION, PostgresLeases
from brokerkm.store.listener import Listener
from brokerkm.store.mailbox import PostgresMailbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from brokerkm.service.leadership import Host
    from brokerkm.store.lease import Lease, ServerRecord, Standing
    from brokerkm.store.postgres import PostgresStore
    from brokerkm.store.protocol import Store

_log = logging.getLogger(__name__)

RENEWALS: Final = 3  # in the time of a lease
_AT_ONCE: Final = 32  # groups that are acquired before the leases are renewed again
_SOON: Final = 0.03  # of a lease: how soon after the end of another's lease, or after a refusal, to look again
_REST: Final = 6.0  # leases until a group is asked for again that could not be led


class LeasedLeadership:
    """Leads a share of the groups of `store`.

    Args:
        duration: seconds of a lease.
        me: this server; its id is also its client id at the broker, by which the next leader cuts it off.

    Attributes:
        me: this server.
        courier: carries requests and calls.
    """

    def __init__(self, store: PostgresStore, duration: float = DURATION, me: ServerRecord | None = None) -> None:
        self.me: Final = me or describe_server()
        self._leases: Final = PostgresLeases(store.engine, duration)
        self._mailbox: Final = PostgresMailbox(store)
        self._listener: Final = Listener(store.engine.pool)
        self._desk: Final = StoreDesk()  # the leases' own
        self._mail_desk: Final = StoreDesk()
        self.courier: Final = Courier(self.me.id, self._mailbox, self._mail_desk, self._take)
        self._tenures: Final[dict[str, Tenure]] = {}
        self._begun: Final[set[str]] = set()  # those of them that the host serves
        self._resting: Final[dict[str, float]] = {}  # groups that could not be led, and until when
        self._unled: Final[dict[str, str]] = {}  # and why
        self._moves: Final[asyncio.Queue[Callable[[], Coroutine[None, None, None]]]] = asyncio.Queue()
        self._moving: Final[set[str]] = set()
        self._tasks: Final[list[asyncio.Task[None]]] = []
        self._wake: Final = asyncio.Event()
        self._mail: Final = asyncio.Event()
        self._next_renewal = 0.0
        self._dead: frozenset[str] = frozenset()  # servers that are not heard of, and have not taken their leave
        self._retired = False
        self._host: Host | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def guard(self, store: Store) -> Store:
        """Return the store, fenced."""
        return fenced(store, self._tenures, self._doubted)

    async def start(self, host: Host) -> None:
        """Take part, from now until `stop`."""
        self._host, self._loop = host, asyncio.get_running_loop()
        await self._desk.call(self._leases.heartbeat, self.me)
        await self._round()
        work = {"rounds": self._keep(), "moves": self._move_on(), "listening": self._listen(), "mail": self._collect()}
        self._tasks.extend(self._loop.create_task(one, name=f"leadership {name}") for name, one in work.items())

    def retire(self) -> None:
        """Take on nothing more, and hand nothing over."""
        self._retired = True

    async def stop(self, *, drained: bool) -> None:
        """Give the leases back, or let them run out if something may be under way: then the next leader cuts it off."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._unlisten()
        await self.courier.close()
        with contextlib.suppress(StoreError):  # then they run out
            for group in list(self._tenures):
                await self._part(group, drained=drained)
            await self._desk.call(self._leases.farewell, self.me.id)
        await self._desk.close()
        await self._mail_desk.close()

    async def claim(self, group: str) -> Tenure | None:
        """Ask for the lease of a new group."""
        lease = await self._desk.call(self._leases.acquire, self.me.id, group)
        if lease is None:
            return None
        self._begun.add(group)
        return self._hold(lease)

    async def give_up(self, group: str) -> None:
        """Forget a group that has been destroyed."""
        self._drop(group)
        await self._desk.call(self._leases.release, self.me.id, group)

    def forward(self, group: str, member: str, payload: bytes) -> None:
        """Hand a member's request on."""
        self.courier.forward(group, member, payload)

    async def call(self, group: str, name: str, arguments: object) -> object:
        """Have the server that leads `group` perform a call."""
        return await self.courier.call(group, name, arguments)

    def answer_calls(self, answer: Callable[[str, str, object], Awaitable[object]]) -> None:
        """Have `answer` perform what other servers call."""
        self.courier.answer = answer

    def lapse(self) -> str | None:
        """Return why this server may change nothing now: no lease was renewed for as long as one lasts."""
        renewed = self._next_renewal - self._leases.duration / RENEWALS
        if boot_time() < self._until(renewed):
            return ""
        return (
            "no lease can be renewed: nothing is changed or published until the database answers, or others take over"
        )

    @property
    def unled(self) -> Mapping[str, str]:
        """Groups that could not be led here when it was tried last, and why; another server may lead them."""
        return self._unled

    async def servers(self) -> list[ServerRecord]:
        """Return all servers that were heard of lately."""
        return await self._desk.call(self._leases.servers)

    async def move(self, group: str, to: str) -> None:
        """Hand a group over."""
        await self._desk.call(self._leases.move, group, to, pinned=True)

    # Rounds: renew, look around, take and hand over.

    async def _keep(self) -> None:
        """Do a round at least so often that no lease runs out."""
        failing = False
        while True:
            pause = self._leases.duration / RENEWALS
            try:
                pause = min(pause, await self._round())
                failing = False
            except StoreError as error:
                if not failing:
                    _log.warning("the leases cannot be renewed: %s", error)
                failing, pause = True, self._leases.duration / 10
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _round(self) -> float:
        """Return after how many seconds to look again."""
        duration = self._leases.duration
        now = boot_time()
        if now >= self._next_renewal - duration / RENEWALS / 4:  # what wakes a round now and then is not a reason
            await self._renew()
            self._next_renewal = now + duration / RENEWALS
        standings = await self._desk.call(self._leases.standings)
        vacant = {one.group for one in standings if one.holder in (None, self.me.id)}
        for other in self._unled.keys() - vacant:  # another server could lead it, or it is no more
            del self._unled[other]
        if self._host is not None:
            await self._host.know([one.group for one in standings])
        if self._retired:
            return self._next_renewal - boot_time()
        servers = await self._desk.call(self._leases.servers)
        live = [one.id for one in servers if one.live]
        self._dead = frozenset(one.id for one in servers if not one.live)
        if self._host is not None:
            self._host.seen(live, duration)
        todo = plan(self.me.id, live, [one for one in standings if not self._rests(one)], duration)
        refused = await self._acquire(todo.acquire[:_AT_ONCE])
        for group in set(todo.release) - self._moving:
            self._later(group, partial(self._hand_over, group))
        if todo.hand_over is not None and not self._moving:
            await self._desk.call(self._leases.move, *todo.hand_over, pinned=False)
        if refused or todo.acquire[_AT_ONCE:]:
            return _SOON * duration
        return max(_SOON * duration, min([self._next_renewal - boot_time(), *_ends(standings, self.me.id, duration)]))

    async def _renew(self) -> None:
        """Lengthen what this server has, and give up what it has lost."""
        asked = boot_time()
        await self._desk.call(self._leases.heartbeat, self.me)
        held = set(self._tenures)
        kept = await self._desk.call(self._leases.renew, self.me.id, held) if held else set[str]()
        for group in kept & self._tenures.keys():
            tenure = self._tenures[group]
            lapsed = tenure.ends < asked
            tenure.ends = self._until(asked)
            if lapsed and self._host is not None:
                _log.warning("group %s: the lease had run out, and nobody else had taken it", group)
                self._host.hurry([group])
        for group in held - kept:
            self._lose(group)
        await self._mail_desk.call(self._mailbox.clean)

    async def _acquire(self, groups: Sequence[str]) -> bool:
        """Ask for leases; return whether there was one that could not be had."""
        got: list[str] = []
        for group in groups:
            lease = await self._desk.call(self._leases.acquire, self.me.id, group)
            if lease is not None and group not in self._moving:
                self._hold(lease)
                got.append(group)
        if got:
            self._moving.update(got)
            self._moves.put_nowait(partial(self._begin, got))
        return len(got) < len(groups)

    def _hold(self, lease: Lease) -> Tenure:
        # The others too: whoever had the lease last may have died before it cut off the one before.
        formers = self._dead | {lease.former} if lease.former else frozenset[str]()
        tenure = Tenure(lease.fence, lease.ends - MARGIN * self._leases.duration, formers=formers)
        self._tenures[lease.group] = tenure
        return tenure

    def _until(self, asked: float) -> float:
        return asked + (1 - MARGIN) * self._leases.duration

    def _lose(self, group: str) -> None:
        """Stop at once: another server may lead the group already."""
        _log.warning("group %s: the lease is lost, another server may lead it by now", group)
        self._drop(group)
        self._later(group, partial(self._end, group))

    def _drop(self, group: str) -> None:
        """Have nothing done any more for a group, whatever the clock says."""
        self._begun.discard(group)
        tenure = self._tenures.pop(group, None)
        if tenure is not None:
            tenure.ends = -math.inf

    def _rests(self, one: Standing) -> bool:
        """Return whether a group is left to others because it could not be led here."""
        return one.holder is None and boot_time() < self._resting.get(one.group, 0.0)

    def _doubted(self, group: str) -> None:
        """Have a group loaded again; called in the store's thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._later, group, partial(self._reload, group))

    # What takes time is done by one task after the other, while the leases are renewed.

    def _later(self, group: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        self._moving.add(group)
        self._moves.put_nowait(work)

    async def _move_on(self) -> None:
        while True:
            work = await self._moves.get()
            try:
                await work()
            except (StoreError, TransportError) as error:
                _log.warning("a group could not be taken or given: %s", error)
            if self._moves.empty():
                self._moving.clear()
                self._wake.set()

    async def _begin(self, groups: Sequence[str]) -> None:
        """Lead groups whose leases have been had; one that cannot be led is left to others for a while."""
        assert self._host is not None  # noqa: S101 - started
        tenures = {group: self._tenures[group] for group in groups if group in self._tenures}
        if not tenures:
            return
        try:
            await self._host.lead(tenures)
        except (StoreError, TransportError) as error:
            if len(tenures) > 1:
                for group in tenures:
                    await self._begin([group])
                return
            (group,) = tenures
            _log.critical("group %s cannot be led: %s", group, error)
            self._rest(group, error)
            await self._part(group, drained=True)
            return
        self._begun.update(tenures)
        for group in tenures:
            self._unled.pop(group, None)
        self._mail.set()

    def _rest(self, group: str, why: StoreError | TransportError) -> None:
        """Leave a group to others for a while."""
        self._resting[group] = boot_time() + _REST * self._leases.duration
        self._unled[group] = str(why)

    async def withdraw(self, group: str, error: StoreError) -> None:
        """Have the host stop serving a group, in its turn."""
        self._later(group, partial(self._withdraw, group, error))

    async def _withdraw(self, group: str, error: StoreError) -> None:
        if self._host is None or group not in self._tenures:
            return
        _log.critical("group %s is not served any longer: %s", group, error)
        self._rest(group, error)
        await self._part(group, drained=await self._host.yield_(group, gracefully=False, why=error))

    async def _end(self, group: str) -> None:
        """Forget a group whose lease is lost."""
        if self._host is not None and group not in self._tenures:
            await self._host.yield_(group, gracefully=False)

    async def _hand_over(self, group: str) -> None:
        if self._host is None or group not in self._tenures:
            return
        await self._part(group, drained=await self._host.yield_(group, gracefully=True))

    async def _part(self, group: str, *, drained: bool) -> None:
        """Give a lease back; only one that runs out tells the next leader to cut off whom it follows."""
        self._drop(group)
        if drained:
            await self._desk.call(self._leases.release, self.me.id, group)
        else:
            _log.warning("group %s: something may still be under way: its lease is left to run out", group)

    async def _reload(self, group: str) -> None:
        """Find out what the store has, under the same lease, or give the group to others."""
        tenure = self._tenures.get(group)
        if tenure is None or not tenure.doubtful or self._host is None:
            return
        fresh = self._tenures[group] = Tenure(tenure.fence, tenure.ends, formers=tenure.formers)
        try:
            await self._host.reload(group, fresh)
        except StoreError as error:
            _log.warning("group %s cannot be loaded again yet: %s", group, error)
            fresh.doubtful = True
            await asyncio.sleep(self._leases.duration / 10)
            self._later(group, partial(self._reload, group))

    # What others say.

    async def _listen(self) -> None:
        """Hear what is said; a broken connection is made anew, and costs no more than waiting for the next round."""
        assert self._loop is not None  # noqa: S101 - started
        while True:
            broken = asyncio.Event()
            try:
                await self._mail_desk.call(self._listener.connect)
                self._loop.add_reader(self._listener.fileno, self._heard, broken)
                self._mail.set()
                self._wake.set()
                await broken.wait()
            except StoreError:
                await asyncio.sleep(self._leases.duration / 10)
            finally:
                self._unlisten()

    def _heard(self, broken: asyncio.Event) -> None:
        try:
            said = self._listener.heard()
        except StoreError:
            self._unlisten()
            broken.set()
            return
        if "leases" in said:
            self._wake.set()
        if any(one != "leases" for one in said):
            self._mail.set()

    def _unlisten(self) -> None:
        if self._loop is not None and self._listener.fileno >= 0:
            self._loop.remove_reader(self._listener.fileno)
        self._listener.close()

    async def _collect(self) -> None:
        """Take the mail when there may be some, and now and then without having been told."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._leases.duration):
                    await self._mail.wait()
            self._mail.clear()
            with contextlib.suppress(StoreError):  # the next round says so
                await self.courier.collect(list(self._begun))

    async def _take(self, group: str, member: str, payload: bytes) -> None:
        if self._host is not None:
            try:
                await self._host.take(group, member, payload)
            except StoreError as error:
                _log.warning("group %s: a request could not be handled: %s", group, error)


def _ends(standings: Sequence[Standing], me: str, duration: float) -> list[float]:
    """Return in how many seconds the leases of others end."""
    return [one.remaining + _SOON * duration for one in standings if one.holder not in (None, me)]
