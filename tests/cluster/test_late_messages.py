"""What a server had under way when it lost its lease never replaces, at the broker, what the next leader has sent."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
from typing import TYPE_CHECKING, Final

import psycopg
from service.fleet import eventually

from brokerkm.core.names import Topics
from brokerkm.testing import Cable
from brokerkm.transport import Delivery, Options, create
from cluster.harness import PATIENCE, Cluster, cluster

if TYPE_CHECKING:
    from brokers.mqtt import MqttBroker

_numbers = itertools.count(1)
MEMBERS: Final = 300
PAUSES: Final = int(os.environ.get("BROKERKM_PAUSES", "2"))  # at random instants of a large commit's publishing
QUIET: Final = 600  # seconds between Beacons: none comes by itself


def stored(database: str) -> dict[str, bytes]:
    """Return the newest message of each topic that the store has."""
    with psycopg.connect(database) as connection:
        return dict(connection.execute("SELECT topic, payload FROM outbox").fetchall())


def waiting(database: str) -> int:
    """Return how many messages are not published."""
    with psycopg.connect(database) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM outbox WHERE published = 0").fetchall()
    return int(count)


async def retained(url: str, group: str, expected: int) -> dict[str, bytes]:
    """Return what the broker retains for all of a group, once it has sent so many topics."""
    transport, found = create(url, Options()), dict[str, bytes]()
    await transport.open()
    try:
        await transport.subscribe([Topics(group).beacon, f"{Topics(group).root}/n/#"])
        async with asyncio.timeout(PATIENCE):
            async for item in transport.incoming():
                if isinstance(item, Delivery) and item.retained:
                    found[item.topic] = item.payload
                if len(found) >= expected:
                    return found
    finally:
        await transport.close()
    return found


async def agrees(servers: Cluster, group: str) -> None:
    """See that every retained message at the broker is the store's newest."""
    await eventually(lambda: waiting(servers.database) == 0)
    newest = stored(servers.database)
    assert len(newest) > MEMBERS // 4
    assert newest == await retained(servers.broker, group, len(newest))


async def test_what_a_network_held_back_is_dropped(database: str, mosquitto: MqttBroker) -> None:
    """Messages that left a leader in time, and come out of a network after another one leads, change nothing."""
    group = f"late-{next(_numbers)}"
    async with Cable("127.0.0.1", mosquitto.port) as cable, cluster(database, mosquitto.url, 0) as servers:
        old = await servers.start(f"mqtt://127.0.0.1:{cable.port}")
        await old.call(group, "create", beacon_interval=QUIET)
        await old.leads(group)
        await old.call(group, "seat", members=MEMBERS)
        await old.call(group, "rotate", everything=True)
        await agrees(servers, group)
        cable.freeze()
        epoch = await old.call(group, "rotate", everything=True)
        await eventually(lambda: waiting(database) > 0)
        new = await servers.start()
        old.signal(signal.SIGSTOP)
        await new.leads(group)
        assert epoch + 1 == await new.call(group, "rotate", everything=True)
        await eventually(lambda: waiting(database) == 0)
        cable.thaw()
        old.signal(signal.SIGCONT)
        await old.yields(group)
        assert epoch + 1 == await old.call(group, "show")  # asked of the new leader
        await old.call("mine", "create")  # it publishes again: what it had under way is past
        await eventually(lambda: waiting(database) == 0)
        with psycopg.connect(database) as connection:
            connection.execute("DELETE FROM outbox WHERE topic LIKE '%mine/%'")
        await agrees(servers, group)


async def test_a_leader_is_paused_while_it_publishes(database: str, mosquitto: MqttBroker) -> None:
    """At whatever instant of a large commit's publishing it is paused, the broker has the newest in the end."""
    group = f"late-{next(_numbers)}"
    pick = random.Random(7)
    async with cluster(database, mosquitto.url, 2) as servers:
        await servers.servers[0].call(group, "create", beacon_interval=QUIET)
        leader = await servers.leader(group)
        await leader.call(group, "seat", members=MEMBERS)
        await leader.call(group, "rotate", everything=True)
        await agrees(servers, group)
        for _ in range(PAUSES):
            other = next(server for server in servers.servers if server is not leader)
            asked = asyncio.create_task(leader.call(group, "rotate", everything=True))
            before = stored(database)[Topics(group).beacon]
            await eventually(lambda before=before: stored(database)[Topics(group).beacon] != before)
            await asyncio.sleep(pick.uniform(0, 0.03))  # an instant, not a wait
            leader.signal(signal.SIGSTOP)
            await other.leads(group)
            await other.call(group, "rotate", everything=True)
            leader.signal(signal.SIGCONT)
            await leader.yields(group)
            await asyncio.wait([asked])
            asked.exception()
            await other.call(group, "show")
            await agrees(servers, group)
            leader = other


async def test_a_leader_is_stopped_while_the_network_holds_its_messages(database: str, mosquitto: MqttBroker) -> None:
    """It does not give its lease back: the next leader waits for its end, and cuts off what is under way."""
    group = f"late-{next(_numbers)}"
    async with Cable("127.0.0.1", mosquitto.port) as cable, cluster(database, mosquitto.url, 0) as servers:
        old = await servers.start(f"mqtt://127.0.0.1:{cable.port}")
        await old.call(group, "create", beacon_interval=QUIET)
        await old.leads(group)
        await old.call(group, "seat", members=MEMBERS)
        await old.call(group, "rotate", everything=True)
        await agrees(servers, group)
        cable.freeze()
        epoch = await old.call(group, "rotate", everything=True)
        await eventually(lambda: waiting(database) > 0)
        await old.stop()
        with psycopg.connect(database) as connection:
            assert [(old.id,)] == connection.execute("SELECT holder FROM leases").fetchall()
        new = await servers.start()
        await new.leads(group)
        assert epoch + 1 == await new.call(group, "rotate", everything=True)
        await eventually(lambda: waiting(database) == 0)
        cable.thaw()
        await agrees(servers, group)
