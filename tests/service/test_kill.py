"""A real server process on SQLite and Mosquitto: killed at random moments, and a broker that forgets."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgpack
import pytest
from brokers import mqtt
from brokers.process import free_port
from service.fleet import PATIENCE, Device, eventually

from brokerkm.api import RemoteAdmin, open_admin
from brokerkm.core.events import Evicted, Joined
from brokerkm.core.names import Topics
from brokerkm.core.rekey import Beacon
from brokerkm.errors import TransportError
from brokerkm.service import STORE_FILE, KeyServer
from brokerkm.service.local import CONTROL_SOCKET
from brokerkm.store import MemoryStore, SqliteStore
from brokerkm.transport import Delivery, Options, Role, create

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    OpenDevice = Callable[..., Awaitable[Device]]

GROUP = "killed"
ROUNDS = 12
VICTIM = Path(__file__).with_name("victim.py")


class Witness:
    """Sees all that is published for the group, and that no epoch is used for two different things."""

    def __init__(self) -> None:
        self.messages: dict[tuple[str, int], bytes] = {}
        self.epochs: list[int] = []

    async def watch(self, url: str) -> None:
        """Watch until cancelled."""
        transport = create(url, Options(client_id="witness"))
        await transport.open()
        try:
            topics = Topics(GROUP)
            await transport.subscribe([topics.beacon, f"{topics.root}/n/#"])
            async for item in transport.incoming():
                if isinstance(item, Delivery):
                    self.see(topics, item)
        finally:
            await transport.close()

    def see(self, topics: Topics, item: Delivery) -> None:
        """Note one message."""
        if item.topic == topics.beacon:
            beacon = Beacon.decode(item.payload)
            self.epochs.append(beacon.epoch)
            key, what = (item.topic, beacon.epoch), b"%d %d" % (beacon.birth, beacon.step)
        else:
            key, what = (item.topic, msgpack.unpackb(item.payload)[2]), item.payload
        assert what == self.messages.setdefault(key, what), f"epoch {key[1]} was used twice on {item.topic}"


@contextlib.asynccontextmanager
async def victim(state: Path, url: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Run a server until it is killed, here or by the test."""
    process = await asyncio.create_subprocess_exec(sys.executable, VICTIM, state, url, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert b"serving\n" == await asyncio.wait_for(process.stdout.readline(), 30)
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()


async def rotate_for_ever(admin: RemoteAdmin, acknowledged: list[int]) -> None:
    """Rotate the group's key until the server is gone."""
    while True:
        outcome = await admin.rotate(GROUP)
        acknowledged.append(outcome.epoch)


async def test_killed_at_random_moments(mosquitto: mqtt.MqttBroker, tmp_path: Path, device: OpenDevice) -> None:
    """Nothing that was acknowledged is lost, no epoch is used twice, and the members end up with the same key."""
    dice = random.Random(2627)
    url, witness, acknowledged = mosquitto.url, Witness(), [0]
    async with open_admin(tmp_path) as admin:
        await admin.create_group(GROUP)
        descriptor = await admin.invite(GROUP, uses=6, broker=url)
    assert descriptor.token is not None
    watching = asyncio.create_task(witness.watch(url))
    devices = [await device(descriptor, name) for name in "abcdef"]
    async with victim(tmp_path, url):
        for one in devices:
            await one.join(descriptor.token.key)
        for one in devices:
            await one.expect(Joined)
    for round_ in range(ROUNDS):
        async with victim(tmp_path, url) as process:
            admin = await RemoteAdmin.connect(tmp_path / CONTROL_SOCKET)
            if round_ == ROUNDS // 2:
                acknowledged.append((await admin.evict(GROUP, "a")).epoch)
            with contextlib.suppress(TransportError):
                rotating = asyncio.create_task(rotate_for_ever(admin, acknowledged))
                await asyncio.wait([rotating], timeout=dice.uniform(0.0, 0.05))
                process.send_signal(signal.SIGKILL)
                await rotating
            await admin.close()
        with contextlib.closing(SqliteStore(tmp_path / STORE_FILE)) as store:
            assert store.groups()[0].epoch >= acknowledged[-1]
    async with victim(tmp_path, url):
        admin = await RemoteAdmin.connect(tmp_path / CONTROL_SOCKET)
        last = (await admin.rotate(GROUP)).epoch
        await devices[0].expect(Evicted)
        for one in devices[1:]:
            await one.reaches(last)
        await eventually(lambda: watching.done() or last in witness.epochs)
        assert 0 == (await admin.show(GROUP)).unpublished
        await admin.close()
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):  # not what the witness says about an epoch
        await watching
    assert acknowledged == sorted(set(acknowledged)), "each acknowledged epoch once"
    assert witness.epochs == sorted(witness.epochs)


async def test_a_broker_that_loses_what_it_retained(device: OpenDevice) -> None:
    """After a restart that forgot everything, the server publishes it all again by itself."""
    port = free_port()
    with mqtt.mosquitto(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false", port) as broker:
        transport = create(broker.url, Options(role=Role.SERVER))
        async with KeyServer(MemoryStore(), transport, interval=0, retained_wait=0.5, broker=broker.url) as server:
            await server.admin.create_group(GROUP)
            descriptor = await server.admin.invite(GROUP, uses=5)
            assert descriptor.token is not None
            devices = [await device(descriptor, name) for name in "abcde"]
            for one in devices:
                await one.join(descriptor.token.key)
            for one in devices:
                await one.expect(Joined)
            outcome = await server.admin.evict(GROUP, "a")
            await asyncio.to_thread(broker.restart)
            topics = Topics(GROUP)
            late = create(broker.url, Options())
            await late.open()
            await late.subscribe([topics.beacon, topics.node(0, 0), topics.node(1, 1)])
            seen: set[str] = set()
            async with asyncio.timeout(3 * PATIENCE):
                async for item in late.incoming():
                    if isinstance(item, Delivery):
                        seen.add(item.topic)
                    if len(seen) == 3:
                        break
            await late.close()
            for one in devices[1:]:
                await one.reaches(outcome.epoch)
            again = await server.admin.rotate(GROUP)
            for one in devices[1:]:
                await one.reaches(again.epoch)
