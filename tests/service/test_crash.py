"""A real server process, killed at every step of a commit and at random instants: nothing is lost, no epoch repeated.

BROKERKM_KILLS=1000 kills it that often, which takes minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from service.doomed_group import DOOMED, GROUP, STEPS
from service.fleet import PATIENCE, Device, eventually
from service.witness import Witness

from brokerkm.core.events import Evicted, Joined
from brokerkm.core.names import Topics
from brokerkm.service import STORE_FILE, KeyServer
from brokerkm.store import SqliteStore, Status
from brokerkm.transport import Delivery, Options, Role, create

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from brokers import mqtt

    OpenDevice = Callable[..., Awaitable[Device]]

PROGRAM = Path(__file__).with_name("doomed.py")
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(filter(None, [str(PROGRAM.parents[1]), os.environ.get("PYTHONPATH")])),
}
KILLS = int(os.environ.get("BROKERKM_KILLS", "40"))
DEVICES = ("a", "b", "c", *(f"{DOOMED}{number}" for number in range(6)))


@contextlib.asynccontextmanager
async def serving(state: Path, url: str) -> AsyncGenerator[KeyServer]:
    """Serve the store in this process."""
    transport = create(url, Options(role=Role.SERVER, client_id="doomed"))
    with contextlib.closing(SqliteStore(state / STORE_FILE)) as store:
        async with KeyServer(store, transport, interval=0, broker=url, retained_wait=0.5) as server:
            yield server


async def fleet(state: Path, url: str, device: OpenDevice, name: str) -> list[Device]:
    """Return members of a new group."""
    async with serving(state, url) as server:
        await server.admin.create_group(name)
        descriptor = await server.admin.invite(name, uses=len(DEVICES))
        assert descriptor.token is not None
        devices = [await device(descriptor, one) for one in DEVICES]
        for one in devices:
            await one.join(descriptor.token.key)
        for one in devices:
            await one.expect(Joined)
    return devices


async def doom(state: Path, url: str, group: str, step: str = "never", count: int = 1) -> asyncio.subprocess.Process:
    """Start a server that is going to be killed."""
    command = (sys.executable, PROGRAM, state, url, group, step, str(count))
    return await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=ENVIRONMENT)


async def last_words(process: asyncio.subprocess.Process) -> list[int]:
    """Return the epochs that a server has acknowledged, once it is dead."""
    assert process.stdout is not None
    words = await asyncio.wait_for(process.stdout.read(), 30)
    assert -signal.SIGKILL == await process.wait()
    return [int(line) for line in words.splitlines() if line.isdigit()]


def check_store(state: Path, acknowledged: int) -> int:
    """Check that the store is whole and has all that was acknowledged; return its epoch."""
    with contextlib.closing(SqliteStore(state / STORE_FILE)) as store:
        assert [] == store.verify()
        (record,) = store.groups()
        assert record.epoch >= acknowledged
        return record.epoch


async def nothing_lost(store: SqliteStore, url: str, group: str) -> None:
    """Check that the broker retains what the store has for all members, to the byte."""
    with store._engine.reading() as session:
        kept = dict(session.rows("SELECT topic, payload FROM outbox WHERE audience IS NULL"))
    assert Topics(group).beacon in kept
    late = create(url, Options())
    await late.open()
    await late.subscribe(kept)
    async with asyncio.timeout(PATIENCE):
        async for item in late.incoming():
            if isinstance(item, Delivery):
                assert item.payload == kept.pop(item.topic, item.payload), item.topic
            if not kept:
                break
    await late.close()


async def goes_on(state: Path, url: str, group: str, devices: list[Device], witness: Witness) -> None:
    """Check that a new server brings all members to the same new epoch, and tells those who are out."""
    async with serving(state, url) as server:
        assert server.publisher is not None
        assert await server.publisher.published(group, 1 << 62, PATIENCE)
        assert isinstance(server.store, SqliteStore)
        await nothing_lost(server.store, url, group)
        last = (await server.admin.evict(group, "a")).epoch
        for one in devices:
            known = server.store.member(group, one.member.profile.member)
            if known is not None and known.status is Status.EVICTED:
                await one.expect(Evicted)
            else:
                await one.reaches(last)
        await eventually(lambda: last in witness.epochs)
        assert await server.publisher.published(group, 1 << 62, PATIENCE)
    assert witness.epochs == sorted(witness.epochs)


@pytest.mark.parametrize("step", STEPS)
async def test_killed_at_every_step(mosquitto: mqtt.MqttBroker, tmp_path: Path, device: OpenDevice, step: str) -> None:
    """Wherever it dies, the store is whole, and the next server goes on from there."""
    group = f"{GROUP}-{STEPS.index(step)}"
    witness, url = Witness(group), mosquitto.url
    devices = await fleet(tmp_path, url, device, group)
    async with witness.watching(url) as watching:
        acknowledged = await last_words(await doom(tmp_path, url, group, step, 4))
        check_store(tmp_path, max(acknowledged, default=0))
        await goes_on(tmp_path, url, group, devices, witness)
        assert not watching.done()


async def test_killed_at_random_instants(mosquitto: mqtt.MqttBroker, tmp_path: Path, device: OpenDevice) -> None:
    """While it starts, serves, stores or publishes: all that was acknowledged is there, and no epoch comes twice."""
    dice, group, url = random.Random(2627), f"{GROUP}-often", mosquitto.url
    witness, highest, moved = Witness(group), 0, 0
    devices = await fleet(tmp_path, url, device, group)
    async with witness.watching(url) as watching:
        for number in range(KILLS):
            process = await doom(tmp_path, url, group)
            assert process.stdout is not None
            if number % 4:  # the others die while they start
                assert b"serving\n" == await asyncio.wait_for(process.stdout.readline(), 30)
            with contextlib.suppress(TimeoutError):
                instant = dice.uniform(0.0, 0.06 if number % 4 else 0.7)
                await asyncio.wait_for(process.wait(), instant)
            process.send_signal(signal.SIGKILL)
            acknowledged = await last_words(process)
            moved += bool(acknowledged)
            assert acknowledged == sorted(set(acknowledged))
            assert not acknowledged or acknowledged[0] > highest, "an epoch was given twice"
            highest = check_store(tmp_path, max(acknowledged, default=highest))
        assert moved > KILLS // 4, "most lived long enough to commit"
        await goes_on(tmp_path, url, group, devices, witness)
        assert not watching.done()
