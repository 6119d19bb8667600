"""The same server on every kind of broker: a fleet forms, the server restarts, a member is evicted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from brokerkm.core.events import Evicted, Joined
from brokerkm.service import KeyServer
from brokerkm.store import MemoryStore
from brokerkm.transport import Options, Role, create

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from service.fleet import Device

    OpenDevice = Callable[..., Awaitable[Device]]


@pytest.mark.parametrize("broker", ["mosquitto", "amqtt", "nats", "rabbitmq", "zmq"])
async def test_a_fleet_through_a_restart(
    broker: str, request: pytest.FixtureRequest, tmp_path: Path, device: OpenDevice
) -> None:
    """Members that stayed get the new key, the one that was evicted is told so."""
    url = f"zmq+ipc://{tmp_path}/hub" if broker == "zmq" else request.getfixturevalue(broker).url
    group, store = f"fleet-{broker}", MemoryStore()
    async with KeyServer(store, create(url, Options(role=Role.SERVER)), interval=0, broker=url) as server:
        await server.admin.create_group(group)
        descriptor = await server.admin.invite(group, uses=5)
        assert descriptor.token is not None
        devices = await asyncio.gather(*(device(descriptor, name) for name in "abcde"))
        for one in devices:
            await one.join(descriptor.token.key)
        for one in devices:
            await one.expect(Joined)
    async with KeyServer(store, create(url, Options(role=Role.SERVER)), interval=0, broker=url) as server:
        outcome = await server.admin.evict(group, "c")
        assert outcome.published
        await devices[2].expect(Evicted)
        for one in devices[:2] + devices[3:]:
            await one.reaches(outcome.epoch)
