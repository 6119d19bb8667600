"""Forged requests pour in, thousands a second."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from brokers import mqtt
from brokers.process import free_port

from brokerkm.core.events import Joined, Synced
from brokerkm.service import KeyServer
from brokerkm.store import SqliteStore
from brokerkm.transport import Options, Role, create

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from service.fleet import Device

    OpenDevice = Callable[..., Awaitable[Device]]

FLOODER = Path(__file__).with_name("flooder.py")
GROUP = "plant"
MEMBERS = tuple(f"d{number}" for number in range(10))
PATIENCE = 150.0  # seconds
RATE = "3000"  # a second; what the broker and this process carry while other tests run beside them
ASK_AGAIN = 3.0  # seconds, as members do
FLOOD = 10_000  # requests that have to be refused while the members are served


@contextlib.asynccontextmanager
async def flood(port: int) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Flood the broker from another process."""
    process = await asyncio.create_subprocess_exec(sys.executable, FLOODER, str(port), RATE, GROUP, *MEMBERS)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def served(device: Device) -> int:
    """Ask until there is an answer; return how often that was."""
    for asked in range(1, 1000):
        await device.send(device.member.sync(time.time()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ASK_AGAIN):
                await device.expect(Synced)
                return asked
    return 0


@pytest.mark.timeout(240)
async def test_members_that_were_away_are_served_in_a_flood(tmp_path: Path, device: OpenDevice) -> None:
    """A server that has just started, and knows nobody yet, tells true requests from forged ones under the same ids."""
    port = free_port()
    with (
        mqtt.mosquitto(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false", port) as broker,
        closing(SqliteStore(tmp_path / "store")) as store,
    ):

        def server() -> KeyServer:
            transport = create(broker.url, Options(role=Role.SERVER))
            return KeyServer(store, transport, interval=0, retained_wait=0.5, broker=broker.url)

        async with server() as before:
            await before.admin.create_group(GROUP)
            descriptor = await before.admin.invite(GROUP, uses=len(MEMBERS))
            assert descriptor.token is not None
            devices = [await device(descriptor, name) for name in MEMBERS]
            for one in devices:
                await one.join(descriptor.token.key)
            for one in devices:
                await one.expect(Joined)
        async with server() as now, flood(port) as flooder:
            assert now.requests is not None
            refused = now.requests.refused
            async with asyncio.timeout(PATIENCE):
                while refused.total() < FLOOD:  # noqa: ASYNC110 - it is told by nobody
                    await asyncio.sleep(0.05)
                assert all(await asyncio.gather(*(served(one) for one in devices)))
                while refused.total() < 2 * FLOOD:  # noqa: ASYNC110 - it is told by nobody
                    await asyncio.sleep(0.05)
            assert flooder.returncode is None
            forged, late = {"unknown-member", "bad-mac"}, {"rate", "busy", "replay"}  # a device asks again meanwhile
            assert forged <= set(refused) <= forged | late
