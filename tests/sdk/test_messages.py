"""Who receives which message: several iterators, wildcards, retained messages, slow readers."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import pytest
from sdk.yard import PATIENCE, Yard, rest, take

from brokerkm.errors import TransportError
from brokerkm.transport import Options
from brokerkm_memory.broker import broker

if TYPE_CHECKING:
    from collections.abc import Collection

    from brokerkm import Fleet


def filters() -> set[str]:
    """Return what is subscribed of the application's topics."""
    found = {pattern for subscriber in broker("yard").subscribers for pattern in subscriber.filters}
    return {pattern for pattern in found if not pattern.startswith("bkm/")}


async def until_filters(fleet: Fleet, expected: set[str]) -> None:
    """Return when exactly these filters are subscribed."""
    session = fleet._session
    assert session is not None
    async with asyncio.timeout(PATIENCE):
        await session.moved.until(lambda: filters() == expected)


async def test_each_iterator_has_its_own_filter(yard: Yard) -> None:
    """Iterators receive what their filters take in, each once, however filters overlap."""
    pump, panel = await yard.join("pump"), await yard.join("panel")
    async with (
        panel.messages("hall/+/heat") as heat,
        panel.messages("hall/#") as hall,
        panel.messages("hall/1/heat") as one,
    ):
        for topic in ("hall/1/heat", "hall/2/heat", "hall/1/dust", "yard/1/heat", "hall/1/heat"):
            await pump.publish(topic, topic.encode())
        assert [message.topic for message in await take(heat, 3)] == ["hall/1/heat", "hall/2/heat", "hall/1/heat"]
        assert len(await take(hall, 4)) == 4
        assert len(await take(one, 2)) == 2


async def test_filters_are_subscribed_as_long_as_they_are_needed(yard: Yard) -> None:
    """The broker is asked when the first iterator begins, and again when the last has ended."""
    fleet = await yard.join("pump")
    first, second = fleet.messages("a"), fleet.messages("a")
    assert filters() == set()
    async with first:
        async with second, fleet.messages("b/#"):
            assert filters() == {"a", "b/#"}
        assert filters() == {"a"}
    assert filters() == set()
    await first.aclose()


async def test_an_iterator_that_is_dropped_ends(yard: Yard) -> None:
    """Breaking off without closing is enough: what is no longer referred to is unsubscribed."""
    fleet = await yard.join("pump")
    await fleet.publish("a", b"1", retain=True)
    async for message in fleet.messages("a"):
        assert message.payload == b"1"
        break
    gc.collect()
    await until_filters(fleet, set())


async def test_a_transport_that_ends_is_told(yard: Yard) -> None:
    """What ends the connection unforeseen comes out wherever the application waits, and when it leaves."""
    fleet = yard.connect(await yard.invite(), "pump")
    await fleet.__aenter__()
    session = fleet._session
    assert session is not None
    events = fleet.events()
    async with fleet.messages("a") as messages:
        await session.transport.close()
        with pytest.raises(TransportError, match="was closed"):
            await take(messages)
    with pytest.raises(TransportError, match="was closed"):
        await rest(events)
    with pytest.raises(TransportError, match="was closed"):
        await anext(fleet.messages("b"))
    with pytest.raises(TransportError, match="was closed"):
        await fleet.publish("a", b"")
    with pytest.raises(TransportError, match="was closed"):
        await fleet.leave()
    with pytest.raises(TransportError, match="was closed"):
        await fleet.__aexit__(None, None, None)


async def test_a_refused_subscription_is_told(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the transport cannot subscribe, so says the first message asked for; the next attempt may succeed."""
    fleet = await yard.join("pump")
    session = fleet._session
    assert session is not None

    async def refuse(filters: Collection[str]) -> None:
        message = f"refused {filters}"
        raise TransportError(message)

    with monkeypatch.context() as patch:
        patch.setattr(session.transport, "subscribe", refuse)
        with pytest.raises(TransportError, match="refused"):
            await anext(fleet.messages("a"))
    async with fleet.messages("a") as messages:
        monkeypatch.setattr(session.transport, "unsubscribe", refuse)
        await fleet.publish("a", b"1")
        await take(messages)
    assert filters() == {"a"}  # more arrives than is wanted, which is harmless


async def test_retained_messages_reach_every_new_iterator(yard: Yard) -> None:
    """A retained message is received once by each iterator, whenever it begins."""
    pump, panel = await yard.join("pump"), await yard.join("panel")
    await pump.publish("a/1", b"old", retain=True)
    await pump.publish("a/1", b"kept", retain=True)
    async with panel.messages("a/+") as first:
        assert [message.payload for message in await take(first)] == [b"kept"]
        async with panel.messages("a/+") as second, panel.messages("#") as third:
            for messages in (second, third):
                assert [message.payload for message in await take(messages)] == [b"kept"]
            await pump.publish("a/1", b"new", retain=True)
            for messages in (first, second, third):
                assert [message.payload for message in await take(messages)] == [b"new"]
    async with panel.messages("a/1") as later:
        assert [message.payload for message in await take(later)] == [b"new"]


async def test_a_slow_reader_slows_the_sender(yard: Yard) -> None:
    """Nothing is dropped: while a reader does not read, its sender waits; then everything is there, in order."""
    pump = await yard.join("pump")
    panel = await yard.join("panel", queue_size=5, options=Options(queue_size=5))
    count = 50

    async def send() -> None:
        for number in range(count):
            await pump.publish("a", b"%d" % number)

    async with panel.messages("a") as messages, asyncio.TaskGroup() as group:
        sending = group.create_task(send())
        assert [message.payload for message in await take(messages)] == [b"0"]
        assert not sending.done()
        received = [message.payload for message in await take(messages, count - 1)]
    assert received == [b"%d" % number for number in range(1, count)]


async def test_a_reader_that_ends_lets_others_go_on(yard: Yard) -> None:
    """A full queue whose reader goes away holds up nobody any longer."""
    pump = await yard.join("pump")
    panel = await yard.join("panel", queue_size=1, options=Options(queue_size=2))
    async with panel.messages("a") as messages:
        slow = panel.messages("#")
        await slow.__aenter__()
        async with asyncio.TaskGroup() as group:
            group.create_task(_send(pump, 10))
            await take(messages, 1)
            await slow.aclose()
            await take(messages, 9)


async def _send(fleet: Fleet, count: int) -> None:
    for number in range(count):
        await fleet.publish("a", b"%d" % number)
