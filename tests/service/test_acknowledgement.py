"""Acks and counters at a real server: what is noted, what is written, what is reported."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from service.fleet import Device, eventually

from brokerkm.core.events import Joined, Synced
from brokerkm.core.member import Member
from brokerkm.errors import Reason, StoreError
from brokerkm.service.feed import Kind
from brokerkm.service.sightings import Sightings
from brokerkm.store.records import Sighting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from brokerkm.service import KeyServer
    from brokerkm.service.feed import Happening
    from brokerkm.service.requests import Requests

    OpenDevice = Callable[..., Awaitable[Device]]


@pytest.fixture
async def pump(server: KeyServer, device: OpenDevice) -> Device:
    """Return a device that is in."""
    descriptor = await server.admin.invite("plant")
    found = await device(descriptor)
    assert descriptor.token is not None
    await found.join(descriptor.token.key)
    await found.expect(Joined)
    return found


def requests_of(server: KeyServer) -> Requests:
    """Return what handles requests."""
    assert server.requests is not None
    return server.requests


def heard(server: KeyServer, kind: Kind) -> list[Happening]:
    """Return a list that happenings of `kind` are put in from now on."""
    found: list[Happening] = []
    server.feed.listen(lambda happening: found.append(happening) if happening.kind is kind else None)
    return found


async def test_an_ack_is_noted_and_written(server: KeyServer, pump: Device) -> None:
    """The server knows which epoch a member has confirmed and when it was there."""
    acks = heard(server, Kind.ACK)
    await pump.send(pump.member.ack(time.time()))
    await eventually(lambda: len(acks) == 1)
    assert ("pump", {"epoch": 1}) == (acks[0].member, acks[0].details)
    await requests_of(server).sightings.flush()
    known = server.store.member("plant", "pump")
    assert known is not None
    assert (1, 2) == (known.acked, known.counter)
    assert abs(known.seen - time.time() * 1000) < 5000


async def test_an_ack_of_what_is_not_yet_counts_for_what_is(server: KeyServer, pump: Device) -> None:
    """A member cannot confirm the future, and thereby never lag again."""
    acks = heard(server, Kind.ACK)
    pump.member._memory.epoch = 1000
    await pump.send(pump.member.ack(time.time()))
    await eventually(lambda: len(acks) == 1)
    assert {"epoch": 1} == acks[0].details


async def test_a_false_ack_is_counted_and_not_answered(server: KeyServer, pump: Device) -> None:
    """An Ack under another leaf key shows nothing, and nobody is told."""
    forged = pump.member.ack(time.time())
    await requests_of(server).handle(server.groups["plant"], "pump", forged[:-1] + bytes((forged[-1] ^ 1,)))
    assert 1 == requests_of(server).refused[Reason.BAD_MAC]
    assert 1 == requests_of(server).sightings.last("plant", "pump", server.store.member("plant", "pump")).counter


async def test_two_holders_of_one_state_are_reported(server: KeyServer, pump: Device) -> None:
    """The second to use a counter is granted what it asks, and the feed says that the member may have been cloned."""
    suspected = heard(server, Kind.CLONE_SUSPECTED)
    clone = Member.load(pump.member.dump(), bytes, time.time())
    await pump.send(pump.member.sync(time.time()))
    await pump.expect(Synced)
    assert [] == suspected
    await pump.send(clone.sync(time.time() + 1))
    await eventually(lambda: len(suspected) == 1)
    assert {"conduct": "repeated", "request": "sync"} == suspected[0].details


async def test_a_device_restored_from_a_backup_is_reported(server: KeyServer, pump: Device) -> None:
    """It falls back behind what it used before."""
    suspected, saved = heard(server, Kind.CLONE_SUSPECTED), pump.member.dump()
    for ahead in range(3):
        await pump.send(pump.member.ack(time.time() + ahead))
    restored = Member.load(saved, bytes, time.time())
    await pump.send(restored.ack(time.time() + 10))
    await eventually(lambda: len(suspected) == 1)
    assert {"conduct": "behind", "request": "ack"} == suspected[0].details


async def test_a_replay_after_a_restart_raises_no_suspicion(server: KeyServer, pump: Device) -> None:
    """What a broker repeats is refused by its time, which is stored with the counter."""
    suspected, requests = heard(server, Kind.CLONE_SUSPECTED), requests_of(server)
    ack = pump.member.ack(time.time())
    await requests.handle(server.groups["plant"], "pump", ack)
    await requests.sightings.flush()
    requests._times.clear()
    await requests.handle(server.groups["plant"], "pump", ack)
    assert 1 == requests.refused[Reason.REPLAY]
    assert [] == suspected


async def test_signs_of_life_outlast_a_store_that_fails(
    server: KeyServer, pump: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be written waits for the next batch."""
    touch, failed = server.store.touch, []

    def broken(_group: str, sightings: Iterable[Sighting]) -> None:
        failed.extend(sightings)
        message = "the disk is full"
        raise StoreError(message)

    sightings = requests_of(server).sightings
    monkeypatch.setattr(server.store, "touch", broken)
    await requests_of(server).handle(server.groups["plant"], "pump", pump.member.ack(time.time()))
    await sightings.flush()
    assert ["pump"] == [sighting.member for sighting in failed]
    monkeypatch.setattr(server.store, "touch", touch)
    await sightings.flush()
    known = server.store.member("plant", "pump")
    assert known is not None
    assert 1 == known.acked


async def test_what_waits_is_bounded(server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """More members than the limit are not remembered until the next batch; those that are, go on."""
    monkeypatch.setattr("brokerkm.service.sightings.MAX_WAITING", 2)
    sightings = Sightings(server.store, server.desk)
    for counter, member in enumerate(("a", "b", "c", "a"), 1):
        sightings.note("plant", Sighting(member, counter=counter))
    assert [4, 2, 0] == [sightings.last("plant", member, None).counter for member in "abc"]
