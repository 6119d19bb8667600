"""A group that is destroyed: its members are told, awake or not, the broker keeps nothing, the store forgets it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
import uuid
from typing import TYPE_CHECKING

import pytest
from service.faults import FaultyTransport
from service.fleet import PATIENCE, Device, eventually

from brokerkm.core.events import Evicted, Joined
from brokerkm.core.names import Topics
from brokerkm.core.notice import GoodbyeReason
from brokerkm.errors import StoreError, UnknownNameError, UsageError
from brokerkm.service import KeyServer
from brokerkm.store import MemoryStore, SqliteStore
from brokerkm.transport import Delivery, Options, Role, create

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
    from pathlib import Path

    from brokers.mqtt import MqttBroker

    from brokerkm.descriptor import Descriptor
    from brokerkm.store import AuditEntry, Change, Store

    OpenDevice = Callable[..., Awaitable[Device]]

DESTROYED = Evicted(GoodbyeReason.DESTROYED)


@pytest.fixture
def group() -> str:
    """Return a name that no other test has used at the same broker."""
    return f"gone-{uuid.uuid4().hex[:8]}"


@contextlib.asynccontextmanager
async def served(store: Store, url: str) -> AsyncGenerator[KeyServer]:
    """Run a server that commits at once."""
    transport = create(url, Options(role=Role.SERVER))
    async with KeyServer(store, transport, interval=0, retained_wait=0.5, broker=url) as server:
        yield server


async def fleet(server: KeyServer, group: str, device: OpenDevice, count: int = 6) -> tuple[Descriptor, list[Device]]:
    """Create a group with members, the first of whom is put out again."""
    await server.admin.create_group(group, degree=2)
    descriptor = await server.admin.invite(group, uses=count)
    assert descriptor.token is not None
    devices = [await device(descriptor, f"m{number}") for number in range(count)]
    for one in devices:
        await one.join(descriptor.token.key)
        await one.expect(Joined)
    outcome = await server.admin.evict(group, "m0")
    for one in devices[1:]:
        await one.reaches(outcome.epoch)
    return descriptor, devices


async def retained(url: str, topics: Iterable[str]) -> dict[str, bytes]:
    """Return what a broker keeps below some topics; one of the test's own says that all has come."""
    last = f"test/{uuid.uuid4().hex}"
    transport = create(url, Options(role=Role.SERVER))
    await transport.open()
    found: dict[str, bytes] = {}
    try:
        await transport.subscribe([*topics])
        await transport.subscribe([last])
        await transport.request(last, b"that was all")
        async with asyncio.timeout(PATIENCE):
            async for item in transport.incoming():
                if isinstance(item, Delivery):
                    if item.topic == last:
                        return found
                    found[item.topic] = item.payload
    finally:
        await transport.close()
    return found


async def test_members_are_told_and_the_broker_keeps_nothing(
    mosquitto: MqttBroker, group: str, device: OpenDevice
) -> None:
    """Of all that was retained the Goodbye is left, from which a member that slept learns it; the name is free."""
    topics, everything = Topics(group), [f"bkm/1/{group}/#"]
    async with served(MemoryStore(), mosquitto.url) as server:
        descriptor, devices = await fleet(server, group, device)
        asleep = devices.pop()
        await asleep.close()
        before = (await retained(mosquitto.url, everything)).keys()
        assert {topics.beacon, topics.node(0, 0), topics.member("m0")} < before
        assert (await server.admin.destroy(group)).published
        for one in devices[1:]:
            assert DESTROYED == await one.expect(Evicted)
        assert [topics.beacon] == list(await retained(mosquitto.url, everything))
        with pytest.raises(UnknownNameError):
            await server.admin.show(group)
        awake = await device(descriptor, "m5", member=asleep.member)
        assert DESTROYED == await awake.expect(Evicted)
        actions = [record.entry.action for record in server.store.audit(group)]
        assert ["destroy", "forget"] == actions[-2:]
        await fleet(server, group, device, 2)
        assert 1 == (await server.admin.show(group)).members


@pytest.mark.parametrize("broker", ["mosquitto", "amqtt", "nats", "rabbitmq", "zmq"])
async def test_every_broker_is_cleared(
    broker: str, group: str, request: pytest.FixtureRequest, tmp_path: Path, device: OpenDevice
) -> None:
    """Node by node and member by member."""
    url = f"zmq+ipc://{tmp_path}/hub" if broker == "zmq" else request.getfixturevalue(broker).url
    async with served(MemoryStore(), url) as server:
        _, devices = await fleet(server, group, device)
        topics = Topics(group)
        known = [topics.beacon, *(topics.member(f"m{number}") for number in range(6))]
        known += [topics.node(level, index) for level in range(4) for index in range(8 >> max(level, 1))]
        assert (await server.admin.destroy(group)).published
        for one in devices[1:]:
            assert DESTROYED == await one.expect(Evicted)
        if broker != "zmq":  # its only server is this one
            assert [topics.beacon] == list(await retained(url, known))


async def test_what_is_left_is_done_by_the_next_server(tmp_path: Path, group: str, device: OpenDevice) -> None:
    """While the broker is away the group is destroyed, not forgotten; a server that starts later sees to it."""
    url, path = f"memory://{group}", tmp_path / "store.sqlite"
    with contextlib.closing(SqliteStore(path)) as store:
        transport = FaultyTransport(url, Options(role=Role.SERVER))
        async with KeyServer(store, transport, interval=0, retained_wait=0.2, broker=url) as server:
            _, devices = await fleet(server, group, device)
            transport.broken = True
            assert not await server.destroy(group, "operator", patience=0.5)
            assert (await server.admin.show(group)).destroyed
            with pytest.raises(UsageError, match="is destroyed"):
                await server.admin.rotate(group)
            await devices[1].send(devices[1].member.sync(time.time()))
    with contextlib.closing(SqliteStore(path)) as store:
        async with served(store, url) as server:
            for one in devices[1:]:
                assert DESTROYED == await one.expect(Evicted)
            await eventually(lambda: not server.groups)
            assert [] == await server.admin.list_groups()
            await server.admin.create_group(group)


async def test_the_broker_is_left_alone_if_that_is_wanted(tmp_path: Path, group: str, device: OpenDevice) -> None:
    """The group is forgotten at once, also one that waits for the broker already."""
    url = f"memory://{group}"
    with contextlib.closing(SqliteStore(tmp_path / "store.sqlite")) as store:
        transport = FaultyTransport(url, Options(role=Role.SERVER))
        async with KeyServer(store, transport, interval=0, retained_wait=0.2, broker=url) as server:
            await fleet(server, group, device)
            transport.broken = True
            assert not await server.destroy(group, "operator", patience=0.1)
            assert (await server.admin.destroy(group, now=True)).published
            assert [] == await server.admin.list_groups()


@pytest.mark.parametrize("call", ["write", "destroy_group"])
async def test_what_cannot_be_stored_has_not_happened(
    tmp_path: Path, call: str, group: str, device: OpenDevice
) -> None:
    """A full disk keeps the group in service, or the destroyed one on the list."""
    url = f"memory://{group}"
    with contextlib.closing(BrokenStore(tmp_path / "store.sqlite")) as store:
        async with served(store, url) as server:
            _, devices = await fleet(server, group, device)
            store.broken = call
            if call == "write":
                with pytest.raises(StoreError, match="disk is full"):
                    await server.admin.destroy(group)
                store.broken = ""
                await devices[1].reaches((await server.admin.rotate(group)).epoch)
                assert (await server.admin.destroy(group)).published
            else:
                assert not await server.destroy(group, "operator", patience=0.5)
                store.broken = ""
            assert DESTROYED == await devices[1].expect(Evicted)
            await eventually(lambda: not server.groups)


async def test_a_backup_of_before_is_behind(
    tmp_path: Path, mosquitto: MqttBroker, group: str, device: OpenDevice
) -> None:
    """The Goodbye at the broker shows that the group was destroyed since; going on would use its epoch."""
    place, backup = tmp_path / "store", tmp_path / "backup"
    place.mkdir()
    with contextlib.closing(SqliteStore(place / "store.sqlite")) as store:
        async with served(store, mosquitto.url) as server:
            await fleet(server, group, device)
    shutil.copytree(place, backup)
    with contextlib.closing(SqliteStore(place / "store.sqlite")) as store:
        async with served(store, mosquitto.url) as server:
            assert (await server.admin.destroy(group)).published
    with (
        contextlib.closing(SqliteStore(backup / "store.sqlite")) as store,
        pytest.raises(StoreError, match="a Goodbye, because it was destroyed"),
    ):
        async with served(store, mosquitto.url):
            pass


class BrokenStore(SqliteStore):
    """A store that has no room for one kind of call."""

    broken = ""

    def write(self, group: str, change: Change) -> int:
        """Store a change, or raise."""
        self._check("write")
        return super().write(group, change)

    def destroy_group(self, name: str, audit: Iterable[AuditEntry], fence: int | None = None) -> None:
        """Forget a group, or raise."""
        self._check("destroy_group")
        super().destroy_group(name, audit, fence)

    def _check(self, call: str) -> None:
        if call == self.broken:
            message = f"{call}: the disk is full"
            raise StoreError(message)
