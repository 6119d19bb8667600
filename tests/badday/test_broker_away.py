"""The broker is gone for long while hundreds of changes are made."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING

from brokers import mqtt
from brokers.process import free_port

from brokerkm.core.events import Evicted, Joined
from brokerkm.core.rekey import Beacon
from brokerkm.service import KeyServer
from brokerkm.service.feed import Kind
from brokerkm.store import SqliteStore
from brokerkm.transport import Delivery, Options, Role, create

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from service.fleet import Device

    from brokerkm.transport import Transport

    OpenDevice = Callable[..., Awaitable[Device]]

GROUP = "plant"
CHANGES = 300
PATIENCE = 60.0  # seconds until everything is well again; the transport waits between its tries


async def test_changes_of_an_outage_arrive_when_it_is_over(tmp_path: Path, device: OpenDevice) -> None:
    """Nothing that was changed meanwhile is lost or comes in a wrong order, and the fleet goes on by itself."""
    port = free_port()
    with (
        mqtt.mosquitto(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false", port) as broker,
        closing(SqliteStore(tmp_path / "store")) as store,
    ):
        transport = create(broker.url, Options(role=Role.SERVER))
        async with KeyServer(store, transport, interval=0, retained_wait=0.5, broker=broker.url) as server:
            await server.admin.create_group(GROUP)
            descriptor = await server.admin.invite(GROUP, uses=12)
            assert descriptor.token is not None
            devices = [await device(descriptor, f"d{number}") for number in range(12)]
            for one in devices:
                await one.join(descriptor.token.key)
            for one in devices:
                await one.expect(Joined)
            live = server.groups[GROUP]
            before = live.group.epoch
            with server.feed.follow() as happenings:
                broker.process.kill()
                async with asyncio.timeout(PATIENCE):
                    async for happening in happenings:
                        if happening.kind is Kind.BROKER_LOST:
                            break
                for number in range(CHANGES):
                    gone = live.evict(f"d{number}", urgent=True) if number < 4 else live.rotate(everything=False)
                    await gone
            assert before + CHANGES == live.group.epoch
            waiting = await server.desk.call(store.waiting, GROUP)
            assert 0 < waiting < CHANGES  # one message a topic, not one a change
            broker.process.start()
            heard = await listen(broker.url, f"bkm/1/{GROUP}/b")
            async with asyncio.timeout(PATIENCE):
                for one in devices[:4]:
                    await one.expect(Evicted)
                while min(one.member.epoch for one in devices[4:]) < live.group.epoch:  # noqa: ASYNC110 - it is told by nobody
                    await asyncio.sleep(0.05)
                epochs = await heard(live.group.epoch)
            assert sorted(epochs) == epochs
            assert (await server.admin.rotate(GROUP)).published  # with all that came before it
            assert 0 == await server.desk.call(store.waiting, GROUP)
            for one in devices[4:]:
                await one.reaches(live.group.epoch)


async def listen(url: str, topic: str) -> Callable[[int], Awaitable[list[int]]]:
    """Return what waits for the Beacon of an epoch and gives the epochs of all that came before."""
    watcher: Transport = create(url, Options())
    await watcher.open()
    await watcher.subscribe([topic])

    async def until(epoch: int) -> list[int]:
        epochs: list[int] = []
        async for item in watcher.incoming():
            if isinstance(item, Delivery):
                epochs.append(Beacon.decode(item.payload).epoch)
                if epochs[-1] >= epoch:
                    break
        await watcher.close()
        return epochs

    return until
