"""Shared subscriptions: which transports have them, and that each message goes to one of those who share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from brokerkm.transport import Delivery, Options, Outgoing, Role, create

if TYPE_CHECKING:
    from brokers.mqtt import MqttBroker

    from brokerkm.transport import Transport

COUNT = 20


async def test_mosquitto_shares_messages_out(mosquitto: MqttBroker) -> None:
    """Two who share a filter get every message once between them, and both get some."""
    transports = [create(mosquitto.url, Options(role=Role.SERVER)) for _ in range(3)]
    for transport in transports:
        await transport.open()
        assert transport.supports_shared
    *readers, writer = transports
    got: list[tuple[int, bytes]] = []
    done = asyncio.Event()

    async def read(number: int, transport: Transport) -> None:
        async for item in transport.incoming():
            if isinstance(item, Delivery):
                got.append((number, item.payload))
                if len(got) == COUNT:
                    done.set()

    tasks = [asyncio.create_task(read(number, reader)) for number, reader in enumerate(readers)]
    for reader in readers:
        await reader.subscribe(["$share/brokerkm/shared/r/+"])
    await writer.publish_batch([Outgoing(f"shared/r/{number}", b"%d" % number) for number in range(COUNT)])
    async with asyncio.timeout(10):
        await done.wait()
    for transport in transports:
        await transport.close()
    await asyncio.wait(tasks)
    assert {b"%d" % number for number in range(COUNT)} == {payload for _, payload in got}
    assert {0, 1} == {number for number, _ in got}


async def test_others_have_none(nats: MqttBroker) -> None:
    """NATS speaks MQTT 3.1.1 alone, and the broker inside the process shares nothing."""
    for url in (nats.url, "memory://shared"):
        transport = create(url, Options(role=Role.SERVER))
        await transport.open()
        try:
            assert not transport.supports_shared
        finally:
            await transport.close()
