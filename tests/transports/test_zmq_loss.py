"""ZeroMQ: a subscriber that is too slow loses messages, learns of it, and disturbs nobody else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import zmq
from brokers import hub

from brokerkm.transport import Connected, Delivery, Disconnected, Options, Outgoing, Role
from brokerkm_zmq import ZmqTransport, settings, wire

if TYPE_CHECKING:
    from collections.abc import Iterator

TINY = "?high_water=8&patience_ms=50"
BIG = 60_000  # bytes; a few of these fill the kernel's buffers


@pytest.fixture
def url() -> Iterator[str]:
    """Address of a hub that does not run yet."""
    with hub.ipc_url() as address:
        yield address


async def flood(server: hub.Watched, topic: str, rounds: int) -> None:
    """Publish much more than anything between hub and subscriber holds."""
    for index in range(rounds):
        await server.transport.publish(Outgoing(topic, b"%06d" % index + bytes(BIG), retain=True))


async def test_a_stalled_subscriber_sees_a_gap_and_reads_the_last_value(url: str) -> None:
    """What is missing in the middle is shown by events, and the newest value arrives in the end."""
    stalled = ZmqTransport(url + "?high_water=8", Options(queue_size=1))
    async with hub.opened(url + TINY, Role.SERVER) as server:
        await stalled.open()
        try:
            await stalled.subscribe(["t"])
            await flood(server, "t", 300)
            seen = hub.Watched(stalled)
            last = (b"000299", True)
            await seen.until(lambda _: last in {(item.payload[:6], item.retained) for item in seen.delivered})
            await seen.reconnected()
            numbers = [int(item.payload[:6]) for item in seen.delivered]
            assert sorted(numbers) == numbers
            assert len(set(numbers)) < 300
            (gap,) = [item for item in seen.seen if isinstance(item, Disconnected)]
            assert "gap" in gap.reason
            await server.transport.publish(Outgoing("t", b"after"))
            await seen.until(lambda _: seen.delivered[-1].payload == b"after")
        finally:
            await stalled.close()


async def test_others_lose_nothing_and_see_no_gap(url: str) -> None:
    """A healthy subscriber of the same topic gets every message, in order, without an event."""
    stalled = ZmqTransport(url + "?high_water=8", Options(queue_size=1))
    patient = url + "?high_water=8&patience_ms=500"
    async with hub.opened(patient, Role.SERVER) as server, hub.opened(url + "?high_water=8") as healthy:
        await stalled.open()
        try:
            await stalled.subscribe(["t"])
            await healthy.transport.subscribe(["t", "other"])
            await flood(server, "t", 300)
            found = await healthy.deliveries(300)
            assert list(range(300)) == [int(item.payload[:6]) for item in found]
            await healthy.transport.subscribe(["more"])  # its answer shows the beat
            beats = healthy.transport._end.subscriber._beat, server.transport._end.hub._beat  # type: ignore[union-attr]
            assert beats[0] == beats[1] > 0
            assert [Connected()] == [item for item in healthy.seen if not isinstance(item, Delivery)]
        finally:
            await stalled.close()


async def test_a_stalled_subscriber_holds_up_the_hub_once(url: str) -> None:
    """After its patience the hub does not wait for the same subscriber again."""
    stalled = ZmqTransport(url + "?high_water=8", Options(queue_size=1))
    async with hub.opened(url + "?high_water=8&patience_ms=1000", Role.SERVER) as server:
        await stalled.open()
        try:
            await stalled.subscribe(["t"])
            loop = asyncio.get_running_loop()
            started = loop.time()
            await flood(server, "t", 200)
            assert 1.0 <= loop.time() - started < 4.0  # 200 waits would take 200 seconds
        finally:
            await stalled.close()


async def test_a_subscriber_that_keeps_up_in_the_end_loses_nothing(url: str) -> None:
    """The hub waits for one that is slow but reads: publishing slows down, nothing is lost."""
    slow = ZmqTransport(url + "?high_water=8", Options(queue_size=1))
    async with hub.opened(url + "?high_water=8&patience_ms=10000", Role.SERVER) as server:
        await slow.open()
        try:
            await slow.subscribe(["t"])
            publishing = asyncio.create_task(flood(server, "t", 200))
            numbers = []
            async for item in slow.incoming():
                if isinstance(item, Delivery):
                    numbers.append(int(item.payload[:6]))
                    await asyncio.sleep(0.001)  # slow on purpose
                if len(numbers) == 200:
                    break
            await publishing
            assert list(range(200)) == numbers
        finally:
            await slow.close()


async def test_answers_that_do_not_fit_are_a_gap_too(url: str) -> None:
    """Who asks and does not read misses answers, and sees that it did."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    xsub = context.socket(zmq.XSUB)
    xsub.set(zmq.RCVHWM, 8)
    xsub.set(zmq.RCVTIMEO, 5000)
    try:
        async with hub.opened(url + TINY, Role.SERVER) as server:
            await server.transport.publish(Outgoing("t", bytes(BIG), retain=True))
            xsub.connect(settings.endpoints(url, Role.MEMBER)[0])
            for number in range(300):
                xsub.send(b"\x01" + wire.command(wire.Command(number, wire.Op.SUBSCRIBE, ("t",))))
            beats: list[int] = []
            while len(beats) < 10 and beats == list(range(1, len(beats) + 1)):  # on a busy machine some get through
                frames = await asyncio.to_thread(xsub.recv_multipart)
                if frames[0][:1] == wire.BEAT:
                    beats.append(wire.read_number(frames[0][1:]))
            assert beats[-1] > len(beats)  # one, which says that something is missing, was missed itself
    finally:
        xsub.close(linger=0)
        context.term()


async def test_a_page_that_does_not_fit_is_asked_for_again(url: str) -> None:
    """More last values than the hub's queue holds: the newcomer gets them all the same."""
    async with hub.opened(url + TINY, Role.SERVER) as server, hub.opened(url + "?high_water=8") as member:
        names = [f"n/{index}" for index in range(100)]
        for name in names:
            await server.transport.publish(Outgoing(name, name.encode() + bytes(BIG), retain=True))
        await member.transport.subscribe(["n/+"])
        await member.until(lambda _: set(names) <= {item.topic for item in member.delivered})


async def test_a_hub_that_falls_silent_is_tried_again_until_it_answers(url: str) -> None:
    """The connection is restored, but no subscription; once the hub obeys again, all is well."""
    async with hub.opened(url, Role.SERVER) as server, hub.opened(url, timeout=1.2) as member:
        await member.transport.subscribe(["t"])
        running = server.transport._end.hub  # type: ignore[union-attr]
        obey = running._obey
        ignored = asyncio.Event()
        running._obey = lambda *_: ignored.set()
        running.skip()
        await asyncio.wait_for(ignored.wait(), hub.PATIENCE)
        await member.until(lambda seen: isinstance(seen[-1], Disconnected))
        ignored.clear()
        await asyncio.wait_for(ignored.wait(), hub.PATIENCE)
        running._obey = obey
        await member.reconnected()
        await server.transport.publish(Outgoing("t", b"heard"))
        await member.until(lambda _: member.delivered[-1:] == [Delivery("t", b"heard")])
