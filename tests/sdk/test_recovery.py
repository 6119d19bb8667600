"""How a member comes back: retained messages, then Sync, then Join; and what it does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest
from sdk.yard import GROUP, PATIENCE, Yard, event, take, yard_at

from brokerkm.core.events import (
    Dropped,
    Evicted,
    Heard,
    Joined,
    Rekeyed,
    RequestRefused,
    Silent,
    Stale,
    Synced,
    Unreadable,
)
from brokerkm.core.messages import Kind
from brokerkm.core.names import Topics
from brokerkm.core.notice import RefusalReason
from brokerkm.core.policy import Policy
from brokerkm.core.wire import message_type
from brokerkm.errors import EvictedError, SilentError, StaleError, TransportError
from brokerkm.sdk.dial import Line
from brokerkm.transport import Connected, create

if TYPE_CHECKING:
    from pathlib import Path

    import brokerkm
    from brokerkm.transport import Delivery

TOPICS = Topics(GROUP)
Send = Callable[..., Awaitable[None]]


async def slept_through(yard: Yard, rekeys: int = 3) -> tuple[brokerkm.Descriptor, brokerkm.Fleet]:
    """Return the descriptor of `pump`, which was away during some rekeys, and a fleet that was not."""
    descriptor = await yard.invite()
    async with yard.connect(descriptor, "pump"):
        panel = await yard.join("panel")
        for number in range(rekeys):
            await yard.join(f"extra-{number}")
    for number in range(rekeys):
        await yard.server.admin.evict(GROUP, f"extra-{number}")
    return descriptor, panel


def node_topics() -> list[str]:
    """Return all that Rekeys of a small group may be retained on."""
    return [TOPICS.node(level, index) for level in range(4) for index in range(4)]


async def test_retained_rekeys_need_no_server(yard: Yard) -> None:
    """Who slept through rekeys catches up from what the broker retained while the server is down."""
    descriptor, panel = await slept_through(yard)
    await yard.stop()
    async with yard.connect(descriptor, "pump") as pump, panel.messages("a") as messages:
        assert pump.epoch == panel.epoch
        await pump.publish("a", b"back")
        assert [message.payload for message in await take(messages)] == [b"back"]


async def test_sync_heals_what_the_broker_lost(yard: Yard) -> None:
    """If the retained Rekeys are lost, the server is asked, and the keys are good before entering returns."""
    descriptor, panel = await slept_through(yard)
    await yard.forget(*node_topics())
    fleet = yard.connect(descriptor, "pump")
    events = fleet.events()
    await yard.enter(fleet)
    await event(events, Stale)
    await event(events, Synced)
    assert fleet.epoch == panel.epoch
    async with panel.messages("a") as messages:
        await fleet.publish("a", b"back")
        await take(messages)


async def test_stale_members_do_not_send(yard: Yard) -> None:
    """With Rekeys lost and no server, entering fails in time, as stale; nothing is sent under the old key."""
    descriptor, _ = await slept_through(yard)
    await yard.stop()
    await yard.forget(*node_topics())
    with pytest.raises(StaleError, match="still catching up"):
        await yard.connect(descriptor, "pump", timeout=1.5).__aenter__()
    await yard.start()
    assert (await yard.enter(yard.connect(descriptor, "pump"))).state == "active"


async def test_a_live_member_heals_itself(yard: Yard) -> None:
    """A Rekey that never came is noticed by the Beacon; publishing waits and then uses the new key."""
    pump, panel = await yard.join("pump"), await yard.join("panel")
    await yard.join("extra")
    events = pump.events()
    await lose(pump, lambda delivery: "/n/" in delivery.topic)
    await yard.forget(*node_topics())
    await yard.server.admin.evict(GROUP, "extra")
    await yard.forget(*node_topics())
    await event(events, Stale)
    with pytest.raises(StaleError):
        await pump.publish("a", b"0", timeout=0)
    async with panel.messages("a") as messages:
        await pump.publish("a", b"1")
        assert [message.payload for message in await take(messages)] == [b"1"]
    await event(events, Synced)
    assert pump.epoch == panel.epoch


async def test_join_follows_unanswered_syncs(yard: Yard) -> None:
    """When no Sync is answered, the member asks to join again, and gets a new leaf key."""
    descriptor, _ = await slept_through(yard)
    await yard.forget(*node_topics())
    await deafen(yard, Kind.SYNC)
    fleet = yard.connect(descriptor, "pump")
    events = fleet.events()
    await yard.enter(fleet)
    await event(events, Synced)
    assert fleet.state == "active"


async def test_eviction_while_away_is_seen(yard: Yard) -> None:
    """Who was evicted while away learns it from the retained Goodbye, with the server down."""
    descriptor = await yard.invite()
    async with yard.connect(descriptor, "pump"):
        await yard.join("panel")
    await yard.server.admin.evict(GROUP, "pump")
    await yard.stop()
    fleet = yard.connect(descriptor, "pump")
    events = fleet.events()
    with pytest.raises(EvictedError):
        await fleet.__aenter__()
    await event(events, Evicted)
    with pytest.raises(EvictedError):  # it is in the saved state now
        await yard.connect(descriptor, "pump").__aenter__()


async def test_readmitted_members_come_back(yard: Yard) -> None:
    """An evicted member that its owner admits again gets a place when it asks to."""
    descriptor = await yard.invite()
    async with yard.connect(descriptor, "pump") as pump:
        events = pump.events()
        await yard.server.admin.evict(GROUP, "pump")
        await event(events, Evicted)
    await yard.server.admin.readmit(GROUP, "pump")
    assert (await yard.enter(yard.connect(descriptor, "pump", rejoin=True))).state == "active"


async def test_readmitted_while_away(yard: Yard) -> None:
    """A member that was evicted and admitted again before it could know comes back at once; later it is not so."""
    descriptor = await yard.invite()
    async with yard.connect(descriptor, "pump"):
        await yard.join("panel")
    await yard.server.admin.evict(GROUP, "pump")
    await yard.server.admin.readmit(GROUP, "pump")
    fleet = await yard.enter(yard.connect(descriptor, "pump", rejoin=True))
    assert fleet.state == "active"
    await yard.server.admin.evict(GROUP, "pump")
    with pytest.raises(EvictedError):
        await anext(fleet.messages("a"))


async def test_silence_is_told_and_stops_sending(tmp_path: Path) -> None:
    """Without Beacons the member says so and sends no more; with them it goes on."""
    async with yard_at("memory://silence", tmp_path, Policy(max_silence=2, hold=1)) as yard:
        pump = await yard.join("pump")
        events = pump.events()
        await yard.stop()
        await event(events, Silent)
        assert pump.silent
        with pytest.raises(SilentError, match="has not been heard"):
            await pump.publish("a", b"0", timeout=0)
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(pump.publish("a", b"1"))
            await yard.start()
            await event(events, Heard)
            await asyncio.wait_for(sending, PATIENCE)
        assert not pump.silent


async def test_certificates_are_renewed(tmp_path: Path) -> None:
    """A sender certificate that is about to end is renewed by a Sync, without anybody's doing."""
    policy = Policy(source_authentication=True, hold=1)
    async with yard_at("memory://certificates", tmp_path, policy) as yard:
        pump, panel = await yard.join("pump"), await yard.join("panel")
        events = pump.events()
        session = pump._session
        assert session is not None
        expiry = session.member.certificate_expiry
        assert expiry is not None
        yard.clock_offset = expiry - session.clock() - 1
        session.clock._offset += yard.clock_offset  # type: ignore[attr-defined]
        session.moved.fire()
        await event(events, Synced)
        renewed = session.member.certificate_expiry
        assert renewed is not None
        assert renewed > expiry
        async with panel.messages("a") as messages:
            await pump.publish("a", b"1")
            await take(messages)


async def test_a_wrong_clock_is_put_right(yard: Yard) -> None:
    """A device whose clock is an hour behind is refused once, told the time, and joins."""
    yard.clock_offset = 3600
    fleet = yard.connect(await yard.invite(), "pump")
    events = fleet.events()
    await yard.enter(fleet)
    assert (await event(events, RequestRefused)).reason is RefusalReason.WRONG_TIME
    await event(events, Joined)


async def test_an_unknown_leaf_key_leads_to_a_join(yard: Yard) -> None:
    """A member whose leaf key is not the server's any longer is refused a Sync, and joins anew by its identity."""
    descriptor, panel = await slept_through(yard)
    saved = (yard.path / "pump" / "member.state").read_bytes()
    async with yard.connect(descriptor, "pump", rejoin=True) as pump:
        await pump.leave()
    async with yard.connect(descriptor, "pump", rejoin=True):
        pass
    (yard.path / "pump" / "member.state").write_bytes(saved)  # an old copy was restored
    await yard.forget(*node_topics(), TOPICS.member("pump"))
    back = yard.connect(descriptor, "pump")
    events = back.events()
    await yard.enter(back)
    assert (await event(events, RequestRefused)).reason is RefusalReason.NOT_ADMITTED
    await event(events, Synced)
    async with panel.messages("a") as messages:
        await back.publish("a", b"1")
        await take(messages)


async def test_who_is_no_member_is_told_when_it_asks(yard: Yard) -> None:
    """If even the Goodbye is lost, the answer to a Sync says that the member is out."""
    descriptor, _ = await slept_through(yard)
    await yard.server.admin.evict(GROUP, "pump")
    await yard.forget(*node_topics(), TOPICS.member("pump"))
    with pytest.raises(EvictedError):
        await yard.connect(descriptor, "pump").__aenter__()


async def test_an_unanswered_leave_is_told(yard: Yard) -> None:
    """Leave is repeated; when the time is over the application learns that nothing is certain."""
    pump = await yard.join("pump")
    await deafen(yard, Kind.LEAVE)
    with pytest.raises(TransportError, match="not answered the Leave"):
        await pump.leave(timeout=0.6)
    assert pump.state == "active"


async def test_messages_without_a_key_are_given_up(yard: Yard) -> None:
    """A message under a key that never comes is held for a while, then counted and told; it alone moves nothing."""
    pump, panel = await yard.join("pump"), await yard.join("panel")
    await yard.join("extra")
    events, others = pump.events(), panel.events()
    await lose(pump, lambda delivery: delivery.topic.startswith("bkm/"))
    async with pump.messages("a"):
        await yard.server.admin.evict(GROUP, "extra")
        await event(others, Rekeyed)
        await panel.publish("a", b"1")
        assert (await event(events, Dropped)).topic == "a"
        await event(events, Unreadable)
    assert pump.refused == {"wrong-birth": 1}


async def test_a_broker_that_takes_nothing_is_tried_again(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests and subscriptions that fail are repeated until they succeed."""
    fleet = yard.connect(await yard.invite(), "pump")
    failures = {"request": 2, "subscribe": 2}
    transport = create(fleet._line.url, fleet._line.options)
    monkeypatch.setattr(Line, "transport", lambda _line, _member: transport)
    for name in failures:
        monkeypatch.setattr(transport, name, failing(name, getattr(transport, name), failures))
    failures["subscribe"] = 0  # the first is for entering: it has to succeed
    events = fleet.events()
    async with asyncio.TaskGroup() as group:
        entering = group.create_task(yard.enter(fleet))
        await event(events, Connected)
        failures["subscribe"] = 2
        await asyncio.wait_for(entering, PATIENCE)
    assert failures == {"request": 0, "subscribe": 0}


def failing(
    name: str, work: Callable[..., Awaitable[None]], failures: dict[str, int]
) -> Callable[..., Awaitable[None]]:
    """Return `work`, failing as often as `failures` says."""

    async def fail(*arguments: object) -> None:
        if failures[name]:
            failures[name] -= 1
            message = f"no {name} now"
            raise TransportError(message)
        await work(*arguments)

    return fail


async def lose(fleet: brokerkm.Fleet, is_lost: object) -> None:
    """Keep what `is_lost` says from the member, as a broker or an attacker can."""
    session = fleet._session
    assert session is not None
    receive = session._receive

    async def lossy(delivery: Delivery) -> None:
        if not is_lost(delivery):  # type: ignore[operator]
            await receive(delivery)

    session._receive = lossy  # type: ignore[method-assign]


async def deafen(yard: Yard, kind: Kind) -> None:
    """Make the server miss all requests of a kind."""
    requests = yard.server.requests
    assert requests is not None
    offer = requests.offer

    def deaf(group: object, member: str, payload: bytes) -> None:
        if message_type(payload) != kind:
            offer(group, member, payload)  # type: ignore[arg-type]

    requests.offer = deaf  # type: ignore[method-assign]
