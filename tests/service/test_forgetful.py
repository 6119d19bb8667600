"""A broker that forgets what it retained."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from brokers import mqtt
from brokers.process import free_port
from service.fleet import PATIENCE, Device

from brokerkm.core.events import Joined
from brokerkm.core.names import Topics
from brokerkm.service import KeyServer
from brokerkm.store import MemoryStore
from brokerkm.transport import Delivery, Options, Role, create

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    OpenDevice = Callable[..., Awaitable[Device]]

GROUP = "forgotten"


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
