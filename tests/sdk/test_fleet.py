"""What an application does with a fleet: enter, send, receive, leave."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from brokers.hub import tcp_url
from sdk.yard import GROUP, PATIENCE, Yard, event, rest, take, yard_at

import brokerkm
from brokerkm.core.events import Evicted, Joined, MessageReceived, Rekeyed
from brokerkm.core.notice import GoodbyeReason
from brokerkm.errors import EvictedError, NotJoinedError, Reason, UsageError
from brokerkm.sdk.events import MAX_EVENTS, Broadcast
from brokerkm.sdk.subscriptions import MAX_VALUES, MAX_VALUES_SIZE, LastValues
from brokerkm.transport import Connected
from brokerkm_memory.broker import broker

if TYPE_CHECKING:
    from pathlib import Path

    from brokerkm.sdk.subscriptions import Messages


async def test_members_read_each_other(yard: Yard) -> None:
    """What one member publishes, all that listen receive with topic, sender and payload."""
    pump, panel = await yard.join("pump"), await yard.join("panel")
    async with panel.messages("hall/+/heat") as heat, pump.messages("hall/#") as own:
        await pump.publish("hall/1/heat", b"21.4")
        for messages in (heat, own):
            (message,) = await take(messages)
            assert (message.topic, message.sender, message.payload) == ("hall/1/heat", "pump", b"21.4")


async def test_a_resumed_member_needs_no_server(yard: Yard) -> None:
    """A member with a saved state reads and sends while the server is down."""
    descriptor = await yard.invite()
    async with yard.connect(descriptor, "pump") as fleet:
        epoch, identity, slot = fleet.epoch, fleet.identity, fleet.slot
    panel = await yard.join("panel")
    await yard.stop()
    async with yard.connect(descriptor, "pump") as again, again.messages("a") as messages:
        assert (again.identity, again.slot) == (identity, slot)
        assert again.epoch > epoch  # the join of the other has ratcheted the root; the retained Beacon says so
        await panel.publish("a", b"1")
        assert [message.payload for message in await take(messages)] == [b"1"]


async def test_eviction_is_seen_everywhere(yard: Yard) -> None:
    """An evicted member hears it from the server; what it does after that says so."""
    pump, panel = await yard.join("pump"), await yard.join("panel")
    events, others = pump.events(), panel.events()
    async with pump.messages("a") as messages:
        await panel.publish("a", b"before")
        assert await yard.server.admin.evict(GROUP, "pump")
        assert (await event(events, Evicted)).reason is GoodbyeReason.EVICTED
        assert [message.payload for message in await take(messages)] == [b"before"]
        with pytest.raises(EvictedError, match="put pump out"):
            await take(messages)
    assert await rest(events) == []
    await event(others, Rekeyed)
    with pytest.raises(EvictedError, match="rejoin=True"):
        await pump.publish("a", b"x")
    with pytest.raises(EvictedError):
        await anext(pump.messages("b"))
    assert (pump.state, pump.slot) == ("evicted", None)


async def test_leaving_ends_iterators_quietly(yard: Yard) -> None:
    """After `leave` iterators end without an error; the member can join again when asked to."""
    descriptor = await yard.invite()
    async with yard.connect(descriptor, "pump") as pump, pump.messages("a") as messages:
        await pump.leave()
        assert [message async for message in messages] == []
        with pytest.raises(EvictedError):
            await pump.leave()
    with pytest.raises(EvictedError, match="rejoin=True"):
        await yard.connect(descriptor, "pump").__aenter__()
    back = await yard.enter(yard.connect(descriptor, "pump", rejoin=True))
    assert back.state == "active"


async def test_a_listed_identity_needs_no_token(yard: Yard) -> None:
    """`identity` makes a device's key before it has met the server."""
    descriptor = await yard.invite()
    key = await asyncio.to_thread(brokerkm.identity, descriptor, member="pump", state_dir=yard.path / "pump")
    assert key == await asyncio.to_thread(brokerkm.identity, descriptor, member="pump", state_dir=yard.path / "pump")
    await yard.server.admin.add_member(GROUP, "pump", key)
    bare = brokerkm.Descriptor(broker=yard.url, group=GROUP, suite=descriptor.suite, server_key=descriptor.server_key)
    fleet = await yard.enter(yard.connect(bare, "pump"))
    assert fleet.identity == key


async def test_what_the_server_refuses_is_told(yard: Yard) -> None:
    """Without token and listing, or after an eviction, entering fails at once and says what to do."""
    descriptor = await yard.invite()
    bare = brokerkm.Descriptor(broker=yard.url, group=GROUP, suite=descriptor.suite, server_key=descriptor.server_key)
    with pytest.raises(NotJoinedError, match="the descriptor has no token"):
        await yard.connect(bare, "pump").__aenter__()
    async with yard.connect(descriptor, "pump"):
        with pytest.raises(NotJoinedError, match="used up"):
            await yard.connect(descriptor, "panel").__aenter__()
        await yard.server.admin.evict(GROUP, "pump")
    with pytest.raises(NotJoinedError, match="owner invite or readmit"):
        await yard.connect(descriptor, "pump", rejoin=True).__aenter__()


async def test_no_answer_is_told(yard: Yard) -> None:
    """If no server answers, entering fails in time and says where to look."""
    descriptor = await yard.invite()
    await yard.stop()
    with pytest.raises(NotJoinedError, match=r"publish on bkm/1/plant/r/pump and read bkm/1/plant/m/pump"):
        await yard.connect(descriptor, "pump", timeout=0.5).__aenter__()


async def test_events_can_be_had_before_entering(yard: Yard) -> None:
    """An iterator made before entering sees the member join."""
    fleet = yard.connect(await yard.invite(), "pump")
    events = fleet.events()
    await yard.enter(fleet)
    assert (await event(events, Joined)).epoch == 1


async def test_misuse_is_told(yard: Yard, tmp_path: Path) -> None:
    """What cannot be done raises UsageError and changes nothing."""
    fleet = yard.connect(await yard.invite(), "pump")
    with pytest.raises(UsageError, match="enter the fleet first"):
        await fleet.publish("a", b"")
    with pytest.raises(UsageError, match="enter the fleet first"):
        _ = fleet.epoch
    assert "not entered" in repr(fleet)
    async with fleet:
        assert repr(fleet) == "Fleet('plant', 'pump', active)"
        for topic in ("a/+", "", "bkm/1/plant/b"):
            with pytest.raises(UsageError):
                await fleet.publish(topic, b"")
        for pattern in ("a/#/b", "bkm/1/plant/b"):
            with pytest.raises(UsageError):
                fleet.messages(pattern)
        messages = fleet.messages("a")
        async with messages:
            with pytest.raises(UsageError, match="begins once"):
                await messages.__aenter__()
        with pytest.raises(StopAsyncIteration):
            await anext(messages)
        with pytest.raises(UsageError, match="entered once"):
            await fleet.__aenter__()
    with pytest.raises(UsageError, match="has been left"):
        await fleet.publish("a", b"")
    with pytest.raises(UsageError, match="member 'a/b' is not"):
        brokerkm.connect(None, await yard.invite(), member="a/b", state_dir=tmp_path)


async def test_iterators_end_when_the_fleet_is_left(yard: Yard) -> None:
    """Whoever waits for a message or an event, in whatever task, is let go."""
    fleet = yard.connect(await yard.invite(), "pump")
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group, fleet:
        messages = fleet.messages("a")
        await messages.__aenter__()

        reading, watching = group.create_task(read(messages)), group.create_task(rest(fleet.events()))
        waiting = fleet.messages("b")
        await asyncio.sleep(0)
    assert reading.result() == []
    assert watching.result() == []
    with pytest.raises(StopAsyncIteration):
        await anext(waiting)
    assert await rest(fleet.events()) == []


async def test_refused_messages_are_counted(yard: Yard) -> None:
    """What anybody can send to the topics of a member is counted by reason, and hurts nobody."""
    fleet = await yard.join("pump")
    stranger = await yard.transport()
    async with fleet.messages("a") as messages:
        for payload in (b"\xc1", b"", b"x" * 100):
            await stranger.publish(brokerkm.transport.Outgoing("a", payload))
            await stranger.publish(brokerkm.transport.Outgoing("bkm/1/plant/b", payload))
        await fleet.publish("a", b"1")
        assert [message.payload for message in await take(messages)] == [b"1"]
    assert sum(fleet.refused.values()) == 6 - 1  # an empty payload clears a retained one
    assert set(fleet.refused) <= set(Reason)


async def read(messages: Messages) -> list[MessageReceived]:
    """Return all that is still to come."""
    return [message async for message in messages]


async def test_a_watcher_that_lags_behind_loses_the_oldest() -> None:
    """Events hold up nothing: who does not read them finds the newest."""
    broadcast = Broadcast()
    events, dropped = broadcast.listen(), broadcast.listen()
    for epoch in range(MAX_EVENTS + 3):
        broadcast.put(Rekeyed(epoch))
    await dropped.aclose()
    broadcast.end()
    broadcast.end(ValueError("the first end counts"))
    assert await rest(events) == [Rekeyed(epoch) for epoch in range(3, MAX_EVENTS + 3)]
    assert await rest(dropped) == []


def test_the_newest_messages_are_kept_within_bounds() -> None:
    """Both the number of topics and the bytes that are kept for later iterators are bounded."""
    values = LastValues()
    for number in range(MAX_VALUES + 2):
        values.put(b"sealed", MessageReceived(f"{number}", "pump", b"1", 1))
    assert [values.get(f"{number}", b"sealed") is not None for number in (0, 1, 2)] == [False, False, True]
    values.put(bytes(MAX_VALUES_SIZE // 2), MessageReceived("big", "pump", bytes(MAX_VALUES_SIZE // 2), 1))
    assert values.get("big", bytes(MAX_VALUES_SIZE // 2)) is not None
    assert values.get(f"{MAX_VALUES}", b"sealed") is None
    assert values.get("big", b"other") is None


async def test_entering_can_be_cancelled(yard: Yard) -> None:
    """Whoever gives up entering leaves nothing behind: no task, no connection, no lock."""
    descriptor = await yard.invite()
    await yard.stop()
    before = asyncio.all_tasks()
    fleet = yard.connect(descriptor, "pump")
    events = fleet.events()
    entering = asyncio.create_task(fleet.__aenter__())
    await event(events, Connected)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert asyncio.all_tasks() == before
    assert not broker("yard").subscribers
    await yard.start()
    await yard.enter(yard.connect(descriptor, "pump"))


async def test_a_fleet_without_a_broker(tmp_path: Path) -> None:
    """Over ZeroMQ all is the same: joining, talking, an eviction, and catching up."""
    async with yard_at(tcp_url(), tmp_path) as yard:
        pump, panel = await yard.join("pump"), await yard.join("panel")
        descriptor = await yard.invite()
        async with yard.connect(descriptor, "third"):
            pass
        rekeys = panel.events()
        await yard.server.admin.evict(GROUP, "pump")
        await event(rekeys, Rekeyed)
        with pytest.raises(EvictedError):
            await pump.publish("a", b"0")
        third = await yard.enter(yard.connect(descriptor, "third"))
        assert third.epoch == panel.epoch
        async with panel.messages("a/#") as messages, third.messages("a/1") as own:
            await third.publish("a/1", b"1", retain=True)
            await take(messages)
            await take(own)
            async with panel.messages("a/1") as late:
                assert [message.payload for message in await take(late)] == [b"1"]
