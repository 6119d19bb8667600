"""`mosquitto-plugin`: the kit for guarded brokers, a large table, and a broker that answers nonsense."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

import pytest
from brokers.mosquitto import KEYSERVER, GuardedMosquitto, built_plugin

from brokerkm.core.names import Topics
from brokerkm.errors import TransportError, UsageError
from brokerkm.guard.fleet import GuardedGroup
from brokerkm.guard.rules import DataFilters, Grant, Rank
from brokerkm.store.records import MemberRecord, Status
from brokerkm.testing.guard import GuardConformance
from brokerkm.testing.guarded import GuardedSite
from brokerkm_mosquitto import control
from brokerkm_mosquitto.plugin import MosquittoPluginGuard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from brokerkm.guard.fleet import Fleet
    from brokerkm.guard.seam import BrokerGuard

THOUSANDS = 20_000  # members of a large group


class PluginSite(GuardedSite):
    """Mosquitto with the plugin, on the same port after each restart."""

    def __init__(self, broker: GuardedMosquitto) -> None:
        self._broker = broker
        self.url, self.server_options = self._broker.url, KEYSERVER

    async def start_broker(self) -> None:
        """Start it."""
        self._broker.start()

    async def stop_broker(self) -> None:
        """Stop it."""
        self._broker.stop()

    async def lose_state(self) -> None:
        """Remove the plugin's state file."""
        self._broker.lose_state()

    def guard(self, fleet: Fleet) -> BrokerGuard:
        """Return a new one."""
        return MosquittoPluginGuard(fleet, {"url": self.url, **KEYSERVER})


@pytest.fixture(scope="module")
def plugin() -> Iterator[Path]:
    """Build the plugin."""
    with built_plugin() as path:
        yield path


class TestMosquittoPlugin(GuardConformance):
    """The kit."""

    @pytest.fixture
    def site(self, plugin: Path) -> Iterator[PluginSite]:
        """Run Mosquitto here."""
        broker = GuardedMosquitto(plugin)
        yield PluginSite(broker)
        broker.remove()


def identity(number: int) -> bytes:
    """Return an identity key, which nobody has the other half of."""
    return struct.pack(">IQQQI", number + 1, 1, 2, 3, 4)


class Crowd:
    """A fleet of one group in which member number n sits at place n; tests change what differs from that."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.group = GuardedGroup("crowd", "bkm/1", 4)
        self.others: dict[str, GuardedGroup] = {}
        self.changed: dict[int, MemberRecord | None] = {}

    def record(self, number: int) -> MemberRecord:
        """Return a member's record, as it was at first."""
        return MemberRecord(f"m{number:07}", Status.SEATED, identity=identity(number), slot=number)

    async def groups(self) -> dict[str, GuardedGroup]:
        """Return the group."""
        return {"crowd": self.group, **self.others}

    async def member(self, group: str, member: str) -> MemberRecord | None:
        """Return what is known of a member id."""
        number = int(member[1:])
        return self.changed.get(number, self.record(number) if number < self.size else None)

    async def members(self, group: str) -> AsyncIterator[MemberRecord]:
        """Yield them all."""
        for number in range(self.size if group == "crowd" else 0):
            record = self.changed.get(number, self.record(number))
            if record is not None:
                yield record


def progress(_done: int, _total: int) -> None:
    """Take no notice."""


async def differences(guard: MosquittoPluginGuard) -> set[tuple[str, str]]:
    """Return who differs and how."""
    return {(found.member, found.what) async for found in guard.diff()}


async def test_a_large_table_is_loaded_compared_and_mended(plugin: Path) -> None:
    """Only what differs is sent again; what was sent is in force."""
    crowd = Crowd(THOUSANDS)
    with GuardedMosquitto(plugin).running() as broker:
        guard = MosquittoPluginGuard(crowd, {"url": broker.url, **KEYSERVER})
        await guard.open()
        try:
            assert {("", "is not loaded at the broker")} == await differences(guard)
            began = time.monotonic()
            assert await guard.sync(progress) == 1
            print(f"loaded {THOUSANDS} members in {time.monotonic() - began:.2f} s")  # noqa: T201 - a figure
            began = time.monotonic()
            assert await guard.sync(progress) == 0
            print(f"compared them in {time.monotonic() - began:.2f} s")  # noqa: T201 - a figure
            crowd.changed = {5: None, 6: MemberRecord("m0000006", Status.EVICTED, identity(6))}
            crowd.size += 1
            crowd.group = GuardedGroup("crowd", "bkm/1", 4, DataFilters(("app/%m",), ("app/#",)))
            crowd.others = {"other": GuardedGroup("other", "bkm/1", 2)}
            expected = {
                ("", "is not loaded at the broker"),
                ("", "has other settings at the broker: data filters, degree, prefix"),
                ("m0000005", "has rights at the broker, but is not known to the store"),
                ("m0000006", "has other rights at the broker"),
                (f"m{THOUSANDS:07}", "is missing at the broker"),
            }
            assert expected == await differences(guard)
            assert await guard.sync(progress) == len(expected)
            assert not await differences(guard)
            crowd.others = {}
            assert {("", "is guarded at the broker, but there is no such group")} == await differences(guard)
            assert await guard.sync(progress) == 1
            assert not await differences(guard)
        finally:
            await guard.close()


async def test_a_change_goes_to_no_broker_that_was_started_since_the_comparison(plugin: Path) -> None:
    """It has to be compared first, whether it lost its table or not."""
    crowd = Crowd(3)
    topics = Topics("crowd")
    with GuardedMosquitto(plugin).running() as broker:
        guard = MosquittoPluginGuard(crowd, {"url": broker.url, **KEYSERVER})
        await guard.open()
        try:
            grant = Grant(topics, 4, "m0000003", Rank.MEMBER, 3, identity=identity(3))
            with pytest.raises(TransportError, match="group: it is not loaded"):
                await guard.admit(grant)
            await guard.sync(progress)
            await guard.admit(grant)
            assert {("m0000003", "has rights at the broker, but is not known to the store")} == await differences(guard)
            await guard.evict("crowd", "m0000003")
            assert not await differences(guard)
            broker.stop()
            broker.lose_state()
            broker.start()
            with pytest.raises(TransportError):
                await guard.admit(grant)
            assert await guard.sync(progress) == 1
            await guard.evict("crowd", "m0000001")
            assert {("m0000001", "has other rights at the broker")} == await differences(guard)
        finally:
            await guard.close()


async def test_a_broker_without_the_plugin_is_named(plugin: Path) -> None:
    """The error says what to look at."""
    with GuardedMosquitto(None).running() as broker:
        guard = MosquittoPluginGuard(Crowd(0), {"url": broker.url, "timeout": "0.3", **KEYSERVER})
        with pytest.raises(TransportError, match="plugin is loaded"):
            await guard.open()
        await guard.close()


def test_a_guard_needs_a_broker() -> None:
    """Also a timeout that is a number."""
    with pytest.raises(UsageError, match="URL"):
        MosquittoPluginGuard(Crowd(0), {})
    with pytest.raises(UsageError, match="timeout"):
        MosquittoPluginGuard(Crowd(0), {"url": "mqtt://127.0.0.1", "timeout": "soon"})


HEADER = bytes([1, control.Kind.HELLO, 0, 0, 0, 1])


@pytest.mark.parametrize(
    "answer",
    [
        HEADER,
        HEADER + b"\0",
        HEADER + b"\0" + bytes(8) + b"\0\1\0\0" + b"\0\1" + b"\5plan",
        HEADER + b"\0" + bytes(8) + b"\0\1\0\0" + b"\0\1" + b"\5pl nt",
        HEADER + b"\0" + bytes(8) + b"\0\1\0\0" + b"\0\0" + b"x",
        b"\2" + HEADER[1:] + b"\0" + bytes(14),
        bytes([1, control.Kind.STATE]) + HEADER[2:] + b"\0" + bytes(14),
    ],
)
def test_a_malformed_answer_is_an_error_of_the_brokers(answer: bytes) -> None:
    """Whatever is cut short, too long, or of another kind."""
    with pytest.raises(TransportError, match="cannot be read"):
        control.read_answer(control.Kind.HELLO, answer).hello()


def test_what_the_plugin_refuses_is_said() -> None:
    """Its own words are in the error."""
    with pytest.raises(TransportError, match="did not do hello: refused: group: too many"):
        control.read_answer(control.Kind.HELLO, HEADER + b"\2group: too many")
