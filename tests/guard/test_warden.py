"""The warden: a guard hears of every change, once the broker can be told, and nothing is forgotten."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from brokerkm.core.crypto import Suite
from brokerkm.core.policy import Policy
from brokerkm.errors import StoreError, TransportError
from brokerkm.guard import warden as warden_module
from brokerkm.guard.rules import DataFilters
from brokerkm.guard.warden import Warden
from brokerkm.service.desk import StoreDesk
from brokerkm.service.feed import Feed, Kind
from brokerkm.service.guarded import BREATH, DATA, FAREWELL, GUARD, StoredFleet, inform, read_filters, write_filters
from brokerkm.store.memory import MemoryStore
from brokerkm.store.records import Change, Document, GroupRecord, MemberRecord, Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from brokerkm.guard.rules import Grant
    from brokerkm.guard.seam import Difference

PATIENCE = 10.0


class Ledger:
    """A guard that writes down what it hears, and fails as often as it is told to."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.failures = 0
        self.stuck: asyncio.Event | None = None

    async def _hear(self, what: str) -> None:
        if self.failures:
            self.failures -= 1
            message = "the broker does not answer"
            raise TransportError(message)
        self.heard.append(what)
        if self.stuck is not None:
            await self.stuck.wait()

    async def open(self) -> None:
        """Write it down."""
        await self._hear("open")

    async def close(self) -> None:
        """Do nothing."""

    async def admit(self, grant: Grant) -> None:
        """Write it down."""
        await self._hear(f"admit {grant.topics.group} {grant.member} {grant.rank.value} {grant.slot}")

    async def evict(self, group: str, member: str) -> None:
        """Write it down."""
        await self._hear(f"evict {group} {member}")

    async def forget(self, group: str) -> None:
        """Write it down."""
        await self._hear(f"forget {group}")

    async def diff(self) -> AsyncIterator[Difference]:
        """Find nothing."""
        return
        yield

    async def sync(self, progress: Callable[[int, int], None]) -> int:
        """Write it down."""
        await self._hear("sync")
        return 0


@contextlib.asynccontextmanager
async def running(ledger: Ledger) -> AsyncIterator[tuple[Warden, MemoryStore, Feed]]:
    """Give a warden that runs, its store with one group, and a feed that it hears."""
    store, desk, feed = MemoryStore(), StoreDesk(), Feed()
    store.create_group(GroupRecord("plant", bytes(32), 4, suite=Suite.X25519, policy=Policy()), Change())
    warden = Warden(ledger, StoredFleet(store, desk))
    end = inform(warden, feed)
    task = asyncio.get_running_loop().create_task(warden.run())
    try:
        yield warden, store, feed
    finally:
        end()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await desk.close()


async def eventually(condition: Callable[[], object]) -> None:
    """Return once a condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - it becomes true in many ways
            await asyncio.sleep(0)


def put(store: MemoryStore, member: str, status: Status) -> None:
    """Store a member without a commit."""
    store.write("plant", Change(members=[MemberRecord(member, status, b"i" * 32)]))


async def test_it_starts_with_a_comparison() -> None:
    """Whatever the broker had before, it is as the store says afterwards."""
    ledger = Ledger()
    async with running(ledger) as (warden, _, _):
        assert await warden.settled(PATIENCE)
        assert ["open", "sync"] == ledger.heard
        assert warden.failure is None


async def test_it_tells_how_members_stand_now() -> None:
    """What happened is looked up: the guard hears how it is, not how it was."""
    ledger = Ledger()
    async with running(ledger) as (warden, store, feed):
        assert await warden.settled(PATIENCE)
        put(store, "pump", Status.LISTED)
        put(store, "thief", Status.EVICTED)
        for member in ("pump", "thief", "ghost"):
            feed.emit(Kind.SEATED, "plant", member)
        feed.emit(Kind.SEATED, "plant", "pump")
        feed.emit(Kind.ROTATE, "plant")
        assert 3 == warden.pending
        assert await warden.settled(PATIENCE)
        assert ["admit plant pump applicant None", "evict plant thief", "evict plant ghost"] == ledger.heard[2:]


async def test_who_leaves_hears_why_first() -> None:
    """The guard is told of an eviction once the broker has its Goodbye; it is not, only that much later."""
    ledger = Ledger()
    async with running(ledger) as (warden, _, feed):
        assert await warden.settled(PATIENCE)
        loop = asyncio.get_running_loop()
        for sequence, member in ((7, "thief"), (9, "other")):
            feed.emit(Kind.COMMIT, "plant", sequence=sequence)
            feed.emit(Kind.EVICTED, "plant", member)
        began = loop.time()
        assert not await warden.settled(4 * BREATH)
        feed.emit(Kind.PUBLISHED, "plant", sequence=8)
        await eventually(lambda: ledger.heard[2:])
        assert ["evict plant thief"] == ledger.heard[2:]
        assert loop.time() - began < FAREWELL
        assert await warden.settled(PATIENCE)
        assert ["evict plant thief", "evict plant other"] == ledger.heard[2:]
        assert loop.time() - began >= FAREWELL


async def test_a_broker_that_fails() -> None:
    """It is tried again, and then compared as a whole; meanwhile the failure can be seen."""
    ledger = Ledger()
    async with running(ledger) as (warden, _, feed):
        assert await warden.settled(PATIENCE)
        ledger.failures = 2
        feed.emit(Kind.EVICTED, "plant", "thief")
        await eventually(lambda: warden.failure is not None)
        assert "the broker does not answer" == warden.failure
        assert await warden.settled(PATIENCE)
        assert ["open", "sync", "sync"] == ledger.heard
        assert warden.failure is None


async def test_a_broker_that_is_back() -> None:
    """It may have forgotten everything."""
    ledger = Ledger()
    async with running(ledger) as (warden, _, feed):
        assert await warden.settled(PATIENCE)
        feed.emit(Kind.BROKER_BACK)
        assert await warden.settled(PATIENCE)
        assert ["open", "sync", "sync"] == ledger.heard


async def test_a_group_that_is_gone() -> None:
    """Its members lose everything at once."""
    ledger = Ledger()
    async with running(ledger) as (warden, _, _):
        assert await warden.settled(PATIENCE)
        warden.note_gone("plant")
        assert await warden.settled(PATIENCE)
        assert ["forget plant"] == ledger.heard[2:]


async def test_many_changes_become_one_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is bounded."""
    monkeypatch.setattr(warden_module, "MAX_NOTED", 3)
    ledger = Ledger()
    async with running(ledger) as (warden, _, feed):
        assert await warden.settled(PATIENCE)
        for number in range(10):
            feed.emit(Kind.SEATED, "plant", f"m{number}")
        assert 3 >= warden.pending
        assert await warden.settled(PATIENCE)
        assert ["sync"] == ledger.heard[2:]


async def test_what_changes_during_a_comparison() -> None:
    """It is told afterwards: the comparison may have passed it already."""
    ledger = Ledger()
    ledger.stuck = asyncio.Event()
    async with running(ledger) as (warden, _, feed):
        ledger.stuck.set()
        assert await warden.settled(PATIENCE)
        ledger.stuck.clear()
        feed.emit(Kind.BROKER_BACK)
        await eventually(lambda: ledger.heard == ["open", "sync", "sync"])
        feed.emit(Kind.EVICTED, "plant", "thief")
        assert not await warden.settled(0.05)
        ledger.stuck.set()
        assert await warden.settled(PATIENCE)
        assert ["evict plant thief"] == ledger.heard[3:]


async def test_a_fleet_in_the_store() -> None:
    """Groups come with their data filters, members one after the other, and unknown ones are none."""
    store, desk = MemoryStore(), StoreDesk()
    store.create_group(GroupRecord("plant", bytes(32), 4, suite=Suite.X25519, policy=Policy()), Change())
    fleet = StoredFleet(store, desk)
    assert DataFilters() == (await fleet.groups())["plant"].data
    filters = DataFilters(("site/%m",), ("site/#",))
    store.write("plant", Change(documents=[Document(GUARD, DATA, write_filters(filters), 0)]))
    assert filters == (await fleet.groups())["plant"].data
    for number in range(1234):
        put(store, f"m{number:04}", Status.LISTED)
    assert [f"m{number:04}" for number in range(1234)] == [one.member async for one in fleet.members("plant")]
    assert await fleet.member("nowhere", "pump") is None
    await desk.close()


def test_damaged_filters() -> None:
    """What cannot be read lets nobody do more: it is an error."""
    for body in (b"", b"{}", b"[]", b'{"publish": ["a#"], "subscribe": []}', b'{"publish": 1, "subscribe": []}'):
        with pytest.raises(StoreError, match="data filters are damaged"):
            read_filters(Document(GUARD, DATA, body, 0))
