"""One group that cannot be served keeps no other from being served."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import TYPE_CHECKING

import pytest
from service.fleet import PATIENCE, eventually

from brokerkm.core.events import Joined
from brokerkm.core.group import Group
from brokerkm.core.names import Topics
from brokerkm.errors import StoreError
from brokerkm.service import KeyServer
from brokerkm.store import SqliteStore
from brokerkm.telemetry import health
from brokerkm.transport import Options, Outgoing, Role, create

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from service.fleet import Device

    from brokerkm.transport import Transport

    OpenDevice = Callable[..., Awaitable[Device]]

URL = "memory://unserved"


@contextlib.asynccontextmanager
async def served(path: Path) -> AsyncGenerator[KeyServer]:
    """Run a server over the store in a file."""
    with contextlib.closing(SqliteStore(path)) as store:
        transport = create(URL, Options(role=Role.SERVER))
        async with KeyServer(store, transport, interval=0, retained_wait=0.2, broker=URL) as server:
            yield server


@pytest.fixture
async def broker() -> AsyncGenerator[Transport]:
    """Hold the broker open while servers come and go."""
    transport = create(URL, Options(role=Role.SERVER))
    await transport.open()
    yield transport
    await transport.close()


@pytest.fixture
async def path(tmp_path: Path, broker: Transport) -> Path:
    """Make a store with three groups."""
    found = tmp_path / "store.sqlite"
    async with served(found) as server:
        for name in ("hall", "plant", "yard"):
            await server.admin.create_group(name)
            await server.admin.rotate(name)
    return found


async def put_ahead(broker: Transport, path: Path, *names: str) -> None:
    """Have the broker show later Beacons of groups, as if their store had been put back to an earlier day."""
    with contextlib.closing(SqliteStore(path)) as store:
        for record in store.groups():
            if record.name in names:
                group = Group(record.name, record.signing_seed, epoch=record.epoch + 5, time=record.time)
                await broker.publish(Outgoing(Topics(record.name).beacon, group.beacon(1e9), retain=True))


async def test_a_group_that_is_behind(path: Path, broker: Transport, device: OpenDevice) -> None:
    """It is shown with its reason and refused to all who ask for it; the others admit, evict and rotate."""
    await put_ahead(broker, path, "plant")
    async with served(path) as server:
        admin = server.admin
        assert ["", True, ""] == [
            info.problem if info.name != "plant" else "group recover plant" in info.problem
            for info in await admin.list_groups()
        ]
        assert "the store is at epoch 1" in (await admin.show("plant")).problem
        status = await admin.status()
        assert (3, ["plant"]) == (status.groups, list(status.unserved))
        holds, report = health.ready(server)
        assert (True, {"plant": status.unserved["plant"]}) == (holds, report["unserved"])
        with pytest.raises(StoreError, match=r"group plant is not served: .*brokerkm group recover plant"):
            await admin.rotate("plant")
        descriptor = await admin.invite("yard")
        assert descriptor.token is not None
        pump = await device(descriptor)
        await pump.join(descriptor.token.key)
        await pump.expect(Joined)
        assert (await admin.rotate("hall")).published


async def test_a_group_that_is_damaged(path: Path) -> None:
    """Its pages are not what was sealed there."""
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE groups SET header = x'00' WHERE name = 'hall'")
    async with served(path) as server:
        assert ["hall"] == list((await server.admin.status()).unserved)
        assert {"plant", "yard"} == set(server.groups)


async def test_a_group_with_which_another_server_goes_on(path: Path, broker: Transport, device: OpenDevice) -> None:
    """A later Beacon of it, while the server runs, ends that group's service alone; then that of the last one."""
    async with served(path) as server:
        happened: list[str] = []
        server.feed.listen(lambda one: happened.append(f"{one.kind} {one.group}"))
        await put_ahead_of(server, broker, "plant")
        await eventually(lambda: "unserved plant" in happened)
        assert {"hall", "yard"} == set(server.groups)
        with pytest.raises(StoreError, match="group plant is not served"):
            await server.admin.rotate("plant")
        assert (await server.admin.rotate("hall")).published
        for name in ("hall", "yard"):
            await put_ahead_of(server, broker, name)
        with pytest.raises(StoreError, match="brokerkm group recover"):
            async with asyncio.timeout(PATIENCE):
                await server.wait()


async def put_ahead_of(server: KeyServer, broker: Transport, name: str) -> None:
    """Have a later Beacon published, as by a server with a copy of the store."""
    record = server.store.group(name)
    assert record is not None
    group = Group(name, record.signing_seed, epoch=record.epoch + 5, time=record.time)
    await broker.publish(Outgoing(Topics(name).beacon, group.beacon(1e9), retain=True))


async def test_a_server_without_any_group_to_serve_does_not_start(path: Path, broker: Transport) -> None:
    """It says what the first one's matter is."""
    await put_ahead(broker, path, "hall", "plant", "yard")
    with pytest.raises(StoreError, match="brokerkm group recover hall"):
        async with served(path):
            pass
