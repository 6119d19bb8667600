"""Wills, sessions and dead networks, with Mosquitto."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from brokerkm.errors import TransportError, UsageError
from brokerkm.testing import Cable, Ends, Listener, Site
from brokerkm.testing.site import PATIENCE, ends_at
from brokerkm.transport import Connected, Delivery, Disconnected, Options, Outgoing, Role, create
from brokerkm_mqtt import MqttTransport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from brokers.mqtt import MqttBroker


@pytest.fixture
async def cable(mosquitto: MqttBroker) -> AsyncGenerator[Cable]:
    """Lay the member's line to the broker."""
    async with Cable("127.0.0.1", mosquitto.port) as cable:
        yield cable


@pytest.fixture(params=["5", "3.1.1"])
async def ends(request: pytest.FixtureRequest, mosquitto: MqttBroker, cable: Cable) -> AsyncGenerator[Ends]:
    """Make the member at the end of the cable, with each version of MQTT."""
    query = f"?version={request.param}"
    site = Site(
        server_url=f"{mosquitto.url}{query}",
        member_url=f"mqtt://127.0.0.1:{cable.port}{query}",
        cut=cable.cut,
        mend=cable.mend,
    )
    async with ends_at(site) as ends:
        yield ends


async def test_will_is_published_for_who_vanishes(ends: Ends) -> None:
    """The broker speaks for a client whose line is cut."""
    server = await ends.server()
    will = Outgoing(ends.topic("will"), b"gone", retain=True)
    await ends.member(will=will)
    await server.subscribe([will.topic])
    await ends.site.cut()
    assert await Listener(server).delivery() == Delivery(will.topic, b"gone")


async def test_will_is_not_published_for_who_leaves(ends: Ends) -> None:
    """Who closes cleanly has no last will."""
    server = await ends.server()
    member = await ends.member(will=Outgoing(ends.topic("will"), b"gone"))
    await server.subscribe([ends.topic("will")])
    await member.close()
    await server.publish(Outgoing(ends.topic("will"), b"end"))
    assert (await Listener(server).delivery()).payload == b"end"


async def test_session_keeps_what_came_meanwhile(ends: Ends) -> None:
    """With a session of its own, a client that was away gets what it missed, retained or not."""
    server = await ends.server()
    member = await ends.member(client_id=ends.base[-8:], session_expiry=60)
    await member.subscribe([ends.topic("1")])
    listener = Listener(member)
    await ends.site.cut()
    await listener.event(Disconnected)
    await ends.site.mend()
    await listener.event(Connected)  # with MQTT 3.1.1 only now a session is kept: the first was begun clean
    await ends.site.cut()
    await listener.event(Disconnected)
    await server.publish_batch([Outgoing(ends.topic("1"), payload) for payload in (b"a", b"b")])
    await ends.site.mend()
    assert [one.payload for one in await listener.deliveries(2)] == [b"a", b"b"]


async def test_session_is_resumed_by_the_next_process(ends: Ends) -> None:
    """A later client with the same id and no clean start gets what was queued for the one before."""
    server = await ends.server()
    name = ends.base[-8:]
    for clean in (True, False):  # the second makes the session with MQTT 3.1.1, where a clean one never lasts
        member = await ends.member(client_id=name, clean_start=clean, session_expiry=60)
        await member.subscribe([ends.topic("1")])
        await member.close()
    await server.publish(Outgoing(ends.topic("1"), b"queued"))
    member = await ends.member(client_id=name, clean_start=False, session_expiry=60)
    assert (await Listener(member).delivery()).payload == b"queued"
    await member.close()
    await (await ends.member(client_id=name)).close()  # a clean start ends it


async def test_silent_network_is_noticed(ends: Ends, cable: Cable) -> None:
    """A connection over which nothing comes any more is given up after the keep-alive time, and made again."""
    member = await ends.member(keepalive=1)
    listener = Listener(member)
    await listener.event(Connected)
    cable.freeze()
    assert "sign of life" in (await listener.event(Disconnected)).reason
    cable.thaw()
    await listener.event(Connected)


async def test_slow_caller_keeps_its_connection(ends: Ends) -> None:
    """Taking no deliveries for longer than the keep-alive time does not cost the connection."""
    server = await ends.server()
    member = await ends.member(keepalive=1, queue_size=2, will=Outgoing(ends.topic("will"), b""))
    await server.subscribe([ends.topic("will")])
    await member.subscribe([ends.topic("1")])
    for index in range(50):
        await server.publish(Outgoing(ends.topic("1"), bytes([index]) * 100_000))
    will = asyncio.create_task(Listener(server).delivery())
    _, waiting = await asyncio.wait([will], timeout=2.5)
    assert waiting == {will}  # neither end has given up the connection
    will.cancel()
    assert list(range(50)) == [one.payload[0] for one in await Listener(member).deliveries(50)]


async def test_slow_network_takes_its_time(ends: Ends, cable: Cable) -> None:
    """What does not fit into a network that stands still waits, and goes out in order when it moves."""
    server, member = await ends.server(), await ends.member(timeout=PATIENCE)
    await server.subscribe([ends.topic("1")])
    cable.freeze()
    payloads = [bytes([index]) * 200_000 for index in range(100)]
    batch = asyncio.create_task(member.publish_batch([Outgoing(ends.topic("1"), payload) for payload in payloads]))
    _, waiting = await asyncio.wait([batch], timeout=0.2)
    assert waiting == {batch}
    cable.thaw()
    heard = [(await Listener(server).delivery()).payload for _ in payloads]
    await batch
    assert payloads == heard


async def test_close_does_not_wait_for_a_dead_network(ends: Ends, cable: Cable) -> None:
    """A farewell that is not answered is cut short after the timeout."""
    member = await ends.member(timeout=0.3)
    cable.freeze()
    async with asyncio.timeout(PATIENCE):
        await member.close()
    cable.thaw()


async def test_life_cycle_mistakes(ends: Ends) -> None:
    """Use before opening, opening twice and use after closing are told as such."""
    unopened = ends.site.make(Role.MEMBER)
    with pytest.raises(TransportError, match="not open"):
        await unopened.publish(Outgoing(ends.topic("1"), b""))
    member = await ends.member()
    with pytest.raises(UsageError, match="opened once"):
        await member.open()
    await member.close()
    with pytest.raises(TransportError, match="closed"):
        await member.subscribe([ends.topic("1")])


async def test_version_is_told(mosquitto: MqttBroker, rabbitmq: MqttBroker, amqtt: MqttBroker) -> None:
    """MQTT 5 where the broker knows it; otherwise 3.1.1, whether the broker says no, hangs up or falls silent."""
    versions: list[str] = []
    for broker in (mosquitto, rabbitmq, amqtt):
        transport = create(broker.url, Options(timeout=PATIENCE))
        assert isinstance(transport, MqttTransport)
        await transport.open()
        versions.append(transport.version)
        await transport.close()
        assert transport.version == ""
    assert versions == ["5", "3.1.1", "3.1.1"]
