"""What the key server tells its broker's guard: who stands how, from the store, and what changes, from the feed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar, cast

from brokerkm.errors import StoreError, UsageError
from brokerkm.guard.fleet import GuardedGroup
from brokerkm.guard.rules import DataFilters
from brokerkm.guard.warden import Warden
from brokerkm.service.feed import Kind

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from brokerkm.guard.fleet import Fleet
    from brokerkm.guard.seam import BrokerGuard
    from brokerkm.service.desk import StoreDesk
    from brokerkm.service.feed import Feed, Happening
    from brokerkm.service.server import KeyServer
    from brokerkm.store.protocol import Store
    from brokerkm.store.records import Document, GroupRecord, MemberRecord

GUARD: Final = "guard"  # kind of the documents about what brokers let members do
DATA: Final = "data"  # name of the one that holds a group's data filters
FAREWELL: Final = 0.5  # seconds that an evicted member stays connected at most, with a broker that takes no messages
BREATH: Final = 0.05  # seconds from when a broker has acknowledged a Goodbye until it has surely handed it on
_PORTION: Final = 1000  # members that are read at a time

P = ParamSpec("P")
T = TypeVar("T")


class StoredFleet:
    """`brokerkm.guard.fleet.Fleet` of all groups in a store."""

    def __init__(self, store: Store, desk: StoreDesk) -> None:
        self._store: Final = store
        self._desk: Final = desk

    async def groups(self) -> dict[str, GuardedGroup]:
        """Return all guarded groups by name."""
        return await self._call(self._groups)

    async def member(self, group: str, member: str) -> MemberRecord | None:
        """Return what is known of a member id."""
        try:
            return await self._call(self._store.member, group, member)
        except UsageError:  # there is no such group
            return None

    async def members(self, group: str) -> AsyncIterator[MemberRecord]:
        """Yield all that is known of a group's members, by id."""
        after = ""
        while True:
            portion = await self._call(self._portion, group, after)
            for record in portion:
                yield record
            if len(portion) < _PORTION:
                return
            after = portion[-1].member

    async def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await self._desk.call(function, *args, **kwargs)
        except RuntimeError as error:  # the desk's thread has ended
            message = "the key server is stopping"
            raise StoreError(message) from error

    def _portion(self, group: str, after: str) -> list[MemberRecord]:
        return self._store.members(group, after=after, limit=_PORTION)

    def _groups(self) -> dict[str, GuardedGroup]:
        return {record.name: self._group(record) for record in self._store.groups()}

    def _group(self, record: GroupRecord) -> GuardedGroup:
        data = read_filters(self._store.document(record.name, GUARD, DATA))
        return GuardedGroup(record.name, record.prefix, record.degree, data)


def read_filters(document: Document | None) -> DataFilters:
    """Return the data filters that a document holds, the default ones if there is none; raises `StoreError`."""
    if document is None:
        return DataFilters()
    try:
        values = cast("dict[str, list[str]]", json.loads(document.body))
        return DataFilters(tuple(values["publish"]), tuple(values["subscribe"]))
    except (ValueError, KeyError, TypeError, UsageError) as error:
        message = f"the stored data filters are damaged: {error}; set them again with `brokerkm guard data`"
        raise StoreError(message) from error


def write_filters(filters: DataFilters) -> bytes:
    """Return the document's body for data filters."""
    return json.dumps({"publish": filters.publish, "subscribe": filters.subscribe}).encode()


class Farewells:
    """Who is out and has not been disconnected yet: the guard is told once the broker has the Goodbye.

    A device that were disconnected first could not tell an eviction from a broker that is misconfigured.
    """

    def __init__(self, warden: Warden) -> None:
        self._warden: Final = warden
        self._sequences: Final[dict[str, int]] = {}
        self._leaving: Final[dict[tuple[str, int], list[str]]] = {}  # members by group and sequence of the commit

    def committed(self, group: str, sequence: int) -> None:
        """Learn under which sequence the messages of a commit end, before who leaves by it."""
        self._sequences[group] = sequence

    def leaves(self, group: str, member: str) -> None:
        """Let go of a member as soon as it has heard why, or cannot hear it soon."""
        key = (group, self._sequences.get(group, 0))
        if key not in self._leaving:
            self._leaving[key] = []
            asyncio.get_running_loop().call_later(FAREWELL, self._let_go, key)
        self._leaving[key].append(member)
        self._warden.note_leaving(group, member)

    def published(self, group: str, sequence: int) -> None:
        """Learn what the broker has taken."""
        for key in [key for key in self._leaving if key[0] == group and key[1] <= sequence]:
            asyncio.get_running_loop().call_later(BREATH, self._let_go, key)

    def _let_go(self, key: tuple[str, int]) -> None:
        for member in self._leaving.pop(key, ()):
            self._warden.note(key[0], member)


def inform(warden: Warden, feed: Feed) -> Callable[[], None]:
    """Note for the warden what happens; the returned function ends that."""
    farewells = Farewells(warden)

    def hear(happening: Happening) -> None:
        group, details = happening.group, happening.details
        match happening.kind:
            case Kind.COMMIT:
                farewells.committed(group, int(details["sequence"]))
            case Kind.PUBLISHED:
                farewells.published(group, int(details["sequence"]))
            case Kind.EVICTED | Kind.LEFT:
                farewells.leaves(group, happening.member)
            case Kind.SEATED | Kind.STANDING:
                warden.note(group, happening.member)
            case Kind.BROKER_BACK | Kind.LEAD | Kind.DATA_TOPICS:
                warden.note_everything()
            case Kind.DESTROYED:
                warden.note_gone(group)
            case _:
                pass

    return feed.listen(hear)


@contextlib.asynccontextmanager
async def guarding(server: KeyServer, create: Callable[[Fleet], BrokerGuard]) -> AsyncGenerator[Warden]:
    """Keep the broker's guard in step with a server, which is started in this context and stopped before its end.

    Args:
        create: makes the guard, not yet open.

    Raises:
        UsageError: it cannot be made.
        TransportError: it cannot be imported.
    """
    fleet = StoredFleet(server.store, server.desk)
    warden = Warden(create(fleet), fleet)
    if server.publisher is not None:
        server.publisher.warden = warden
    silence = inform(warden, server.feed)
    task = asyncio.get_running_loop().create_task(warden.run(), name="warden")
    try:
        yield warden
    finally:
        silence()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await warden.guard.close()
