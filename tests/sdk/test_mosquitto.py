"""The SDK at a real broker: restarts, cut lines, many messages, and the facade for scripts."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest
from brokers import mqtt
from sdk.yard import PACE, PATIENCE, Yard, event, take, yard_at

import brokerkm
from brokerkm.core.events import Evicted, Rekeyed
from brokerkm.errors import EvictedError, TransportError, UsageError
from brokerkm.testing.cable import Cable
from brokerkm.transport import Connected, Disconnected, Options

if TYPE_CHECKING:
    from pathlib import Path

    from brokerkm import Descriptor, SyncFleet


async def test_a_fleet_survives_its_broker(tmp_path: Path) -> None:
    """While the broker restarts, publishing waits; afterwards rekeys and messages arrive as before.

    The reader has a session that the broker keeps, or what is sent before it is back would not be for it.
    """
    with mqtt.open_mosquitto() as broker:
        async with yard_at(broker.url, tmp_path) as yard:
            pump = await yard.join("pump")
            panel = await yard.join("panel", options=Options(client_id="panel", session_expiry=300))
            await yard.join("extra")
            events = pump.events()
            async with panel.messages("a/#") as messages:
                await asyncio.to_thread(broker.restart)
                await event(events, Disconnected)
                await asyncio.gather(*(pump.publish(f"a/{number}", b"1") for number in range(5)))
                await event(events, Connected)
                assert {message.topic for message in await take(messages, 5)} == {f"a/{number}" for number in range(5)}
                await yard.server.admin.evict(yard.group, "extra")
                await event(events, Rekeyed)
                await pump.publish("a/rekeyed", b"1")
                await take(messages)


async def test_a_cut_line_is_caught_up_on(mqtt_yard: Yard) -> None:
    """A member whose line was cut during rekeys has the newest key before it sends anything again."""
    yard = mqtt_yard
    panel = await yard.join("panel")
    await yard.join("extra")
    async with Cable("127.0.0.1", int(yard.url.rsplit(":", 1)[1])) as cable:
        descriptor = await yard.invite()
        url = f"mqtt://127.0.0.1:{cable.port}"
        pump = await yard.enter(
            brokerkm.connect(url, descriptor, member="pump", state_dir=yard.path / "pump", pace=PACE)
        )
        await yard.level(pump)
        events, rekeys = pump.events(), panel.events()
        await cable.cut()
        await event(events, Disconnected)
        assert not pump.connected
        with pytest.raises(TransportError, match="not connected"):
            await pump.publish("a", b"0", timeout=0)
        await yard.server.admin.evict(yard.group, "extra")
        await event(rekeys, Rekeyed)
        await cable.mend()
        async with panel.messages("a") as messages:
            await pump.publish("a", b"1")
            (message,) = await take(messages)
            assert (message.payload, message.birth) == (b"1", panel.epoch)


async def test_a_slow_reader_loses_nothing(mqtt_yard: Yard) -> None:
    """With small queues and a reader that starts late, every message arrives, in order."""
    pump = await mqtt_yard.join("pump")
    panel = await mqtt_yard.join("panel", queue_size=10, options=Options(queue_size=16))
    count = 500
    async with panel.messages("a") as messages:
        for start in range(0, count, 50):
            await asyncio.gather(*(pump.publish("a", b"%d" % (start + number)) for number in range(50)))
        received = [int(message.payload) for message in await take(messages, count)]
    assert received == list(range(count))


async def test_scripts_have_the_same_names(mqtt_yard: Yard) -> None:
    """The facade joins, sends, receives, watches and leaves, in a thread without an event loop."""
    descriptor = await mqtt_yard.invite()
    await asyncio.wait_for(asyncio.to_thread(script, mqtt_yard, descriptor), PATIENCE)


def connect_sync(yard: Yard, descriptor: Descriptor, **options: object) -> SyncFleet:
    """Return a fleet for a script."""
    arguments = {"member": "pump", "state_dir": yard.path / "pump", "pace": PACE, **options}
    return brokerkm.connect_sync(None, descriptor, **arguments)  # type: ignore[arg-type]


def script(yard: Yard, descriptor: Descriptor) -> None:
    """Do what a script does."""
    fleet = connect_sync(yard, descriptor)
    with pytest.raises(UsageError, match=r"with brokerkm\.connect_sync"):
        fleet.publish("a", b"1")
    assert repr(fleet) == f"SyncFleet({yard.group!r}, 'pump', not entered)"
    with fleet:
        events, messages = fleet.events(timeout=PATIENCE), fleet.messages("a/+", timeout=PATIENCE)
        fleet.publish("a/1", b"1")
        fleet.publish("a/2", b"2", retain=True, timeout=5)
        assert [next(messages).payload, next(messages).payload] == [b"1", b"2"]
        assert list(fleet.messages("b", timeout=0.05)) == []
        assert (fleet.group, fleet.member, fleet.state_dir) == (yard.group, "pump", yard.path / "pump")
        assert (fleet.state, fleet.epoch, fleet.slot) == ("active", 1, 0)
        assert (fleet.connected, fleet.silent, len(fleet.identity)) == (True, False, 32)
        assert fleet.refused == {}
        fleet.leave()
        assert isinstance(list(events)[-1], Evicted)
        assert list(messages) == []
    with pytest.raises(EvictedError):
        connect_sync(yard, descriptor).__enter__()
    assert not [thread for thread in threading.enumerate() if thread.name == "brokerkm"]


def test_unused_names_are_not_imported() -> None:
    """`import brokerkm` is quick, and says what it does not have."""
    start = time.perf_counter()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = brokerkm.nonsense
    assert set(dir(brokerkm)) == set(brokerkm.__all__)
    assert all(getattr(brokerkm, name) for name in brokerkm.__all__)
    assert time.perf_counter() - start < PATIENCE
