"""Groups and members as a guard asks for them, from a key server in another process: `brokerkm.guard.fleet.Fleet`.

What was asked once is remembered as long as the key server tells what changes. One that shares its groups with others
hears only of those that it leads, so nothing is remembered for longer than a second then.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeVar

from brokerkm.errors import BrokerkmError, StoreError, TransportError, UnknownNameError
from brokerkm.guard.fleet import GuardedGroup
from brokerkm.guard.rules import DataFilters
from brokerkm.service.api import PAGE
from brokerkm.service.feed import Kind
from brokerkm.store.records import MemberRecord, Status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from brokerkm.service.api import AdminApi, Event, MemberInfo

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

MAX_AGE: Final = 1.0  # seconds that a list of groups is used, and members beside other servers
_MAX_LAG: Final = 3.0  # seconds that the groups are used while they are looked up again
MAX_MEMBERS: Final = 200_000  # that are remembered
LINES: Final = 4  # connections to the key server
_FIRST_PAUSE: Final = 0.2  # seconds
_LONGEST_PAUSE: Final = 5.0  # seconds
_OF_MEMBERS: Final = frozenset({Kind.SEATED, Kind.EVICTED, Kind.LEFT, Kind.STANDING})
_OF_ALL: Final = frozenset({Kind.DATA_TOPICS, Kind.DESTROYED, Kind.LEAD, Kind.YIELD, Kind.UNSERVED, Kind.MISSED})


class RemoteFleet:
    """The fleet of a key server; works while `run` does.

    Args:
        reach: returns a new connection to the key server.
    """

    def __init__(self, reach: Callable[[], Awaitable[AdminApi]]) -> None:
        self._reach: Final = reach
        self._idle: Final[list[AdminApi]] = []
        self._lines: Final = asyncio.Semaphore(LINES)
        self._members: Final[OrderedDict[tuple[str, str], tuple[float, MemberRecord | None]]] = OrderedDict()
        self._groups: tuple[float, dict[str, GuardedGroup]] | None = None
        self._asking: asyncio.Task[dict[str, GuardedGroup]] | None = None
        self._follows = False  # whether what changes is heard
        self._alone = False  # whether no other server leads groups
        self._changes = 0

    async def run(self) -> None:
        """Hear what changes; a key server that is away is tried again after a growing pause."""
        pause = _FIRST_PAUSE
        while True:
            try:
                admin = await self._reach()
                try:
                    await self._follow(admin.events())
                finally:
                    pause = _FIRST_PAUSE if self._follows else pause
                    self._follows = False
                    self._forget()
                    await _hang_up(admin)
            except (BrokerkmError, StopAsyncIteration) as error:
                _log.warning("the key server tells nothing: %s", error)
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads load
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def groups(self) -> dict[str, GuardedGroup]:
        """Return all groups by name, as they were moments ago; nobody waits while they are looked up in good time."""
        known, now = self._groups, time.monotonic()
        if known is not None and now - known[0] < MAX_AGE:
            return known[1]
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask_groups())
            self._asking.add_done_callback(_look)
        if known is not None and self._follows and now - known[0] < _MAX_LAG:
            return known[1]
        return await asyncio.shield(self._asking)

    async def member(self, group: str, member: str) -> MemberRecord | None:
        """Return what is known of a member id."""
        key, now = (group, member), time.monotonic()
        found = self._members.get(key)
        if found is not None and self._follows and (self._alone or now - found[0] < MAX_AGE):
            return found[1]
        before = self._changes

        async def ask(admin: AdminApi) -> MemberRecord | None:
            try:
                return _record(await admin.show_member(group, member))
            except UnknownNameError:
                return None

        record = await self._ask(ask)
        if self._follows and before == self._changes:
            self._members[key] = (now, record)
            if len(self._members) > MAX_MEMBERS:
                self._members.popitem(last=False)
        return record

    async def members(self, group: str) -> AsyncIterator[MemberRecord]:
        """Yield all that is known of a group's members, by id."""
        after = ""
        while True:
            page = await self._ask(functools.partial(_page, group, after))
            for info in page:
                yield _record(info)
            if len(page) < PAGE:
                return
            after = page[-1].member

    async def close(self) -> None:
        """Hang up."""
        while self._idle:
            await _hang_up(self._idle.pop())

    async def _ask_groups(self) -> dict[str, GuardedGroup]:
        before = self._changes

        async def ask(admin: AdminApi) -> dict[str, GuardedGroup]:
            found: dict[str, GuardedGroup] = {}
            for info in await admin.list_groups():
                if info.destroyed or info.problem:
                    continue
                data = await admin.show_data(info.name)
                filters = DataFilters(tuple(data.publish), tuple(data.subscribe))
                found[info.name] = GuardedGroup(info.name, info.prefix, info.degree, filters)
            self._alone = len(await admin.servers()) <= 1
            return found

        now = time.monotonic()
        groups = await self._ask(ask)
        if before == self._changes:
            self._groups = (now, groups)
        return groups

    async def _ask(self, question: Callable[[AdminApi], Awaitable[_T]]) -> _T:
        async with self._lines:
            admin = self._idle.pop() if self._idle else await self._reach()
            try:
                answer = await question(admin)
            except UnknownNameError as error:
                self._idle.append(admin)
                raise StoreError(str(error)) from error
            except BaseException:
                await _hang_up(admin)
                raise
            self._idle.append(admin)
            return answer

    async def _follow(self, events: AsyncGenerator[Event]) -> None:
        """Hear what happens; raises when that ends."""
        following = asyncio.ensure_future(anext(events))
        try:
            await asyncio.wait([following], timeout=_FIRST_PAUSE)  # the stream has begun by then
            self._forget()
            self._follows = True
            while True:
                self._hear(await following)
                following = asyncio.ensure_future(anext(events))
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await events.aclose()

    def _hear(self, event: Event) -> None:
        if event.kind in _OF_MEMBERS:
            self._changes += 1
            self._members.pop((event.group, event.member), None)
        elif event.kind in _OF_ALL:
            self._forget()

    def _forget(self) -> None:
        self._changes += 1
        self._members.clear()
        self._groups = None


def _look(task: asyncio.Task[dict[str, GuardedGroup]]) -> None:
    """Take note of a failure that nobody waits for: the next one who asks meets it."""
    if not task.cancelled():
        task.exception()


async def _page(group: str, after: str, admin: AdminApi) -> list[MemberInfo]:
    return await admin.list_members(group, after=after)


def _record(info: MemberInfo) -> MemberRecord:
    return MemberRecord(info.member, Status[info.status.upper()], bytes.fromhex(info.identity), info.slot)


async def _hang_up(admin: AdminApi) -> None:
    close = getattr(admin, "close", None)
    if close is not None:
        with contextlib.suppress(TransportError):
            await close()
