"""When the server commits, what it publishes, and what happens when store or broker fail at each step."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from service.faults import FaultyStore, FaultyTransport
from service.fleet import PATIENCE, Device, eventually

from brokerkm.core.events import Evicted, Joined, Rekeyed, RequestRefused
from brokerkm.core.notice import RefusalReason
from brokerkm.core.policy import Policy
from brokerkm.core.rekey import Beacon
from brokerkm.errors import StoreError, UsageError
from brokerkm.service import KeyServer
from brokerkm.service import publisher as publisher_module
from brokerkm.store import MemoryStore, SqliteStore
from brokerkm.transport import Options, Outgoing, Role, create

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    OpenDevice = Callable[..., Awaitable[Device]]

BROKER = "memory://commit"
SERVER = Options(role=Role.SERVER)


@contextlib.asynccontextmanager
async def serving(store: object, transport: object = None, **options: float) -> AsyncGenerator[KeyServer]:
    """Run a server that waits shortly for what is retained."""
    found = transport or create(BROKER, SERVER)
    settings = {"interval": 0.0, "retained_wait": 0.2, **options}
    async with KeyServer(store, found, broker=BROKER, **settings) as server:  # type: ignore[arg-type]
        yield server


async def fleet(server: KeyServer, device: OpenDevice, *names: str) -> list[Device]:
    """Return devices that have joined the new group `plant`, in one commit or more."""
    if "plant" not in server.groups:
        await server.admin.create_group("plant")
    descriptor = await server.admin.invite("plant", uses=len(names))
    assert descriptor.token is not None
    devices = [await device(descriptor, name) for name in names]
    for one in devices:
        await one.join(descriptor.token.key)
    for one in devices:
        await one.expect(Joined)
    return devices


async def all_published(server: KeyServer) -> None:
    """Return when nothing waits to be published."""
    assert server.publisher is not None
    assert await server.publisher.published("plant", 1 << 62, PATIENCE)


async def test_changes_wait_for_each_other(device: OpenDevice) -> None:
    """What comes within the interval is one epoch."""
    async with serving(MemoryStore(), interval=0.3) as server:
        await fleet(server, device, "a", "b", "c", "d")
        assert 1 == (await server.admin.show("plant")).epoch


async def test_two_devices_race_for_one_use(device: OpenDevice) -> None:
    """Of two joins in one commit only as many are seated as the token has uses, and the other is told."""
    async with serving(MemoryStore(), interval=3600, max_pending=2) as server:
        await server.admin.create_group("plant")
        descriptor = await server.admin.invite("plant")
        assert descriptor.token is not None
        first, second = await device(descriptor, "a"), await device(descriptor, "b")
        for one in (first, second):
            await one.join(descriptor.token.key)
        await first.expect(Joined)
        assert RefusalReason.NOT_ADMITTED is (await second.expect(RequestRefused)).reason


async def test_enough_changes_do_not_wait(device: OpenDevice) -> None:
    """The commit comes when as many wait as may wait."""
    async with serving(MemoryStore(), interval=3600, max_pending=2) as server:
        await fleet(server, device, "a", "b")


async def test_an_urgent_eviction_does_not_wait(device: OpenDevice) -> None:
    """It takes with it what waits, and returns once it is published; one that is not urgent waits."""
    async with serving(MemoryStore(), interval=3600, max_pending=3) as server:
        one, two, three = await fleet(server, device, "a", "b", "c")
        patient = asyncio.create_task(server.admin.evict("plant", "b", urgent=False))
        await eventually(lambda: len(server.groups["plant"].changes) == 1)
        outcome = await server.admin.evict("plant", "a")
        assert (2, True) == (outcome.epoch, outcome.published)
        assert outcome == await patient
        await one.expect(Evicted)
        await two.expect(Evicted)
        assert 2 == (await three.expect(Rekeyed)).epoch


@pytest.mark.parametrize("everything", [False, True])
async def test_rotation(device: OpenDevice, *, everything: bool) -> None:
    """Everybody gets the new root key."""
    async with serving(MemoryStore()) as server:
        devices = await fleet(server, device, *"abcdefg")
        outcome = await server.admin.rotate("plant", everything=everything)
        for one in devices:
            await one.reaches(outcome.epoch)
        assert outcome.published


async def test_beacons_come_at_their_interval(device: OpenDevice) -> None:
    """Each is newer than the one before, and all say when the next is due."""
    async with serving(MemoryStore()) as server:
        await server.admin.create_group("plant", beacon_interval=1)
        listener = create(BROKER, Options())
        await listener.open()
        await listener.subscribe([server.groups["plant"].topics.beacon])
        beacons: list[Beacon] = []
        async with asyncio.timeout(10):
            async for item in listener.incoming():
                if hasattr(item, "payload"):
                    beacons.append(Beacon.decode(item.payload))
                if len(beacons) == 3:
                    break
        await listener.close()
        assert sorted({beacon.time for beacon in beacons}) == [beacon.time for beacon in beacons]
        assert {1} == {beacon.due for beacon in beacons}


async def test_a_full_disk_delays_an_eviction(tmp_path: Path, device: OpenDevice) -> None:
    """The operator is told, the group does not move, and the eviction is made as soon as there is room."""
    store = FaultyStore(tmp_path / "store")
    async with serving(store) as server:
        one, two = await fleet(server, device, "a", "b")
        before = (await server.admin.show("plant")).epoch
        store.broken = frozenset({"commit"})
        with pytest.raises(StoreError, match="the disk is full"):
            await server.admin.evict("plant", "a")
        info = await server.admin.show("plant")
        assert (before, 1, 2) == (info.epoch, info.waiting, info.members)
        store.broken = frozenset()
        await one.expect(Evicted)
        await two.reaches(before + 1)
    store.close()


async def test_a_join_that_could_not_be_stored_can_be_evicted(tmp_path: Path, device: OpenDevice) -> None:
    """What the core has queued for a failed commit does not come back when it is void."""
    store = FaultyStore(tmp_path / "store")
    async with serving(store) as server:
        await server.admin.create_group("plant")
        descriptor = await server.admin.invite("plant")
        pump = await device(descriptor)
        store.broken = frozenset({"commit"})
        await pump.join(descriptor.token.key)  # type: ignore[union-attr]
        group = server.groups["plant"]
        await eventually(lambda: group.group.pending == 1)
        await eventually(lambda: group.waiting_join("pump") is not None)
        store.broken = frozenset()
        await server.admin.evict("plant", "pump")
        assert ["evicted"] == [info.status for info in await server.admin.list_members("plant")]
        assert group.group.leaf_key("pump") is None
    store.close()


async def test_a_join_that_could_not_be_stored_may_be_rejected_later(tmp_path: Path, device: OpenDevice) -> None:
    """If the id is given to another key meanwhile, the first one is not seated after all."""
    store = FaultyStore(tmp_path / "store")
    async with serving(store) as server:
        await server.admin.create_group("plant")
        descriptor = await server.admin.invite("plant")
        assert descriptor.token is not None
        pump = await device(descriptor)
        store.broken = frozenset({"commit"})
        await pump.join(descriptor.token.key)
        group = server.groups["plant"]
        await eventually(lambda: len(group.changes) == 1 and group.group.pending == 1)
        await server.admin.add_member("plant", "pump", bytes(32))
        store.broken = frozenset()
        await server.admin.rotate("plant")
        assert RefusalReason.NOT_ADMITTED is (await pump.expect(RequestRefused)).reason
        assert group.group.leaf_key("pump") is None
    store.close()


async def test_a_broker_that_is_away(tmp_path: Path, device: OpenDevice) -> None:
    """An eviction is stored and reported as not published; it goes out when the broker is back."""
    store, transport = SqliteStore(tmp_path / "store"), FaultyTransport(BROKER, SERVER)
    async with serving(store, transport) as server:
        one, two = await fleet(server, device, "a", "b")
        transport.broken = True
        publishing = server.groups["plant"].evict("a", urgent=True)
        epoch, sequence = await publishing
        assert server.publisher is not None
        assert await server.publisher.published("plant", sequence, 0.1) is False
        assert (await server.admin.show("plant")).unpublished > 0
        transport.broken = False
        server.publisher.wake()
        await one.expect(Evicted)
        await two.reaches(epoch)
        assert await server.publisher.published("plant", sequence, 5)
    store.close()


async def test_a_crash_between_storing_and_publishing(tmp_path: Path, device: OpenDevice) -> None:
    """The next server publishes what the first one stored: same bytes, no epoch twice."""
    store, transport = SqliteStore(tmp_path / "store"), FaultyTransport(BROKER, SERVER)
    async with serving(store, transport) as server:
        one, two = await fleet(server, device, "a", "b")
        transport.broken = True
        await server.groups["plant"].evict("a", urgent=True)
        waiting = [message.payload for message in store.unpublished("plant", 100)]
    assert [message.payload for message in store.unpublished("plant", 100)] == waiting
    transport = FaultyTransport(BROKER, SERVER)
    async with serving(store, transport) as server:
        epoch = server.groups["plant"].group.epoch
        await one.expect(Evicted)
        await two.reaches(epoch)
        await all_published(server)
    sent = [message.payload for message in transport.sent]
    assert waiting[:-1] == [payload for payload in sent if payload in waiting], "all but its Beacon, which is newer"
    store.close()


async def test_a_crash_between_publishing_and_marking(tmp_path: Path, device: OpenDevice) -> None:
    """Members that have had a commit are not disturbed when it comes again."""
    store = FaultyStore(tmp_path / "store")
    async with serving(store) as server:
        one, two = await fleet(server, device, "a", "b")
        await all_published(server)
        store.broken = frozenset({"mark_published"})
        await server.groups["plant"].evict("a", urgent=True)
        await one.expect(Evicted)
        epoch = (await two.expect(Rekeyed)).epoch
        assert store.unpublished("plant", 1)
    store.broken = frozenset()
    async with serving(store) as server:
        await all_published(server)
        assert (epoch, epoch) == (server.groups["plant"].group.epoch, two.member.epoch)
        await server.admin.rotate("plant")
        await two.reaches(epoch + 1)
    store.close()


async def test_a_restart_serves_the_same_fleet(tmp_path: Path, device: OpenDevice) -> None:
    """Tree, directory, tokens and signing key come back from the store."""
    store = SqliteStore(tmp_path / "store")
    async with serving(store) as server:
        devices = await fleet(server, device, *"abcdef")
        before = await server.admin.show("plant")
    store.close()
    store = SqliteStore(tmp_path / "store")
    async with serving(store) as server:
        after = await server.admin.show("plant")
        assert (before.epoch, before.members, before.server_key) == (after.epoch, after.members, after.server_key)
        outcome = await server.admin.evict("plant", "c")
        for one in devices:
            if one.member.profile.member != "c":
                await one.reaches(outcome.epoch)
    store.close()


async def test_a_restored_backup_is_refused(tmp_path: Path, device: OpenDevice) -> None:
    """A store behind the retained Beacon does not serve: it would use epochs twice."""
    path, backup = tmp_path / "store", tmp_path / "backup"
    store = SqliteStore(path)
    async with serving(store) as server:
        await fleet(server, device, "a", "b")
        await server.desk.call(store.scrub)
        shutil.copy(path, backup)
        await server.admin.evict("plant", "a")
    store.close()
    store = SqliteStore(backup)
    with pytest.raises(StoreError, match="restored from a backup"):
        async with serving(store):
            pass
    store.close()


async def test_a_second_server_on_a_copy_stops_the_first(tmp_path: Path, device: OpenDevice) -> None:
    """A server that sees epochs of its group which it did not make does not go on."""
    path, copy = tmp_path / "store", tmp_path / "copy"
    store = SqliteStore(path)
    async with serving(store) as server:
        await fleet(server, device, "a", "b")
        await server.desk.call(store.scrub)
        shutil.copy(path, copy)
        other = SqliteStore(copy)
        async with serving(other) as second:
            await second.admin.evict("plant", "a")
            with pytest.raises(StoreError, match="another server uses a copy"):
                await server.wait()
        other.close()
    store.close()


async def test_a_forged_beacon_stops_nobody(device: OpenDevice) -> None:
    """Anybody who can publish may write to the beacon topic; only the group's signature counts."""
    async with serving(MemoryStore()) as server:
        one, _ = await fleet(server, device, "a", "b")
        topic = server.groups["plant"].topics.beacon
        forged = Beacon.seal(
            Ed25519PrivateKey.generate(), "plant", (99, 1, 99, 0), int(time.time() * 1000), due=30, policy=Policy()
        )
        for payload in (forged, b"garbage", b""):
            await one.transport.publish(Outgoing(topic, payload))
        await server.admin.rotate("plant")
        await one.reaches(2)


async def test_a_flood_of_forged_beacons_fills_no_log(
    server: KeyServer, device: OpenDevice, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said now and then that there are forgeries; most are not even looked at."""
    (one,) = (await fleet(server, device, "a"))[:1]
    topic = server.groups["plant"].topics.beacon
    forged = Beacon.seal(
        Ed25519PrivateKey.generate(), "plant", (99, 1, 99, 0), int(time.time() * 1000), due=30, policy=Policy()
    )
    await one.transport.publish_batch([Outgoing(topic, forged)] * 500)
    await server.admin.rotate("plant")
    await one.reaches(2)
    assert 1 <= caplog.text.count("a Beacon that this server did not sign") <= 9
    assert server._retained._forged < 200


async def test_an_answer_that_was_forgotten_does_not_come_back() -> None:
    """A Welcome that the broker did not take goes out no more once an eviction has said otherwise."""
    transport = FaultyTransport(BROKER, SERVER)
    async with serving(MemoryStore(), transport) as server:
        assert server.publisher is not None
        transport.stall = asyncio.Event()
        server.publisher.answer(Outgoing("m/a", b"welcome", retain=True))
        server.publisher.answer(Outgoing("m/b", b"welcome", retain=True))
        await eventually(lambda: server.publisher is not None and not server.publisher._answers)
        server.publisher.forget_answer("m/a")
        transport.broken = True
        transport.stall.set()
        await eventually(lambda: server.publisher is not None and bool(server.publisher._answers))
        transport.broken = False
        server.publisher.wake()
        await eventually(lambda: "m/b" in {message.topic for message in transport.sent})
        assert "m/a" not in {message.topic for message in transport.sent}


async def test_a_broker_that_forgot_is_told_again(tmp_path: Path, device: OpenDevice) -> None:
    """A new broker, which has no Beacon, gets all that is kept: members recover without the server's help."""
    store = SqliteStore(tmp_path / "store")
    async with serving(store) as server:
        await fleet(server, device, *"abcdef")
        await server.admin.evict("plant", "b")
    assert [] == store.unpublished("plant", 1)
    kept = {topic for (topic,) in store._engine.connection.execute("SELECT topic FROM outbox")}
    transport = FaultyTransport("memory://empty", SERVER)
    async with serving(store, transport):
        await eventually(lambda: kept <= {message.topic for message in transport.sent})
    assert any("/n/" in topic for topic in kept)
    store.close()


async def test_a_message_that_the_broker_cannot_carry() -> None:
    """It is dropped with a word in the log; what comes after it is published."""
    transport = FaultyTransport(BROKER, SERVER)
    async with serving(MemoryStore(), transport) as server:
        await server.admin.create_group("plant")
        assert server.publisher is not None
        server.publisher.answer(Outgoing("too/long", bytes(300_000)))
        server.publisher.answer(Outgoing("right", b"payload"))
        await eventually(lambda: any(message.topic == "right" for message in transport.sent))
        assert 1 == server.publisher.dropped


async def test_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """When too many answers wait, members have to ask again; one answer a topic waits."""
    monkeypatch.setattr(publisher_module, "MAX_ANSWERS", 2)
    transport = FaultyTransport(BROKER, SERVER)
    async with serving(MemoryStore(), transport) as server:
        assert server.publisher is not None
        transport.broken = True
        for topic in ("a", "a", "b", "c"):
            server.publisher.answer(Outgoing(topic, topic.encode()))
        await eventually(lambda: server.publisher is not None and not server.publisher._wake.is_set())
        assert 1 == server.publisher.dropped
        transport.broken = False
        server.publisher.wake()
        await eventually(lambda: {"a", "b"} == {message.topic for message in transport.sent})


async def test_stopping_commits_what_waits(tmp_path: Path, device: OpenDevice) -> None:
    """A Leave that was granted is not forgotten by a graceful stop."""
    store = SqliteStore(tmp_path / "store")
    async with serving(store, interval=3600, max_pending=2) as server:
        one, _ = await fleet(server, device, "a", "b")
        await one.send(one.member.leave(time.time()))
        await eventually(lambda: len(server.groups["plant"].changes) == 1)
    await one.expect(Evicted)
    assert [("b", 1)] == list(store.seats("plant"))
    store.close()


async def test_cancelling_whoever_waits_changes_nothing(device: OpenDevice) -> None:
    """An eviction whose caller went away is made all the same."""
    async with serving(MemoryStore(), interval=3600, max_pending=2) as server:
        one, two = await fleet(server, device, "a", "b")
        call = asyncio.create_task(server.admin.evict("plant", "a", urgent=False))
        await eventually(lambda: len(server.groups["plant"].changes) == 1)
        call.cancel()
        await asyncio.wait([call])
        await server.admin.rotate("plant")
        await one.expect(Evicted)
        await two.reaches(2)


async def test_what_nobody_expected_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect in a part of the server is reported by `wait`, instead of leaving half a server."""
    async with serving(MemoryStore()) as server:
        await server.admin.create_group("plant")

        def defect(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(server.groups["plant"]._settlement, "settle", defect)
        with pytest.raises(ZeroDivisionError):
            await server.admin.rotate("plant")
        with pytest.raises(ZeroDivisionError):
            await server.wait()


async def test_a_server_is_started_before_it_is_waited_for() -> None:
    """`wait` says so; `stop` without `start`, and twice, is harmless."""
    server = KeyServer(MemoryStore())
    with pytest.raises(UsageError, match="start the server first"):
        await server.wait()
    await server.stop()
    await server.stop()


async def test_wait_ends_with_stop() -> None:
    """Whoever waits for a server returns when it has been stopped."""
    async with serving(MemoryStore()) as server:
        waiter = asyncio.create_task(server.wait())
        await asyncio.sleep(0)
    await asyncio.wait_for(waiter, 5)


async def test_a_transport_that_ends_is_reported() -> None:
    """A server without a transport cannot go on, and says so."""
    transport = create(BROKER, SERVER)
    async with serving(MemoryStore(), transport) as server:
        await transport.close()
        with pytest.raises(Exception, match="the transport ended by itself"):
            await server.wait()


@pytest.mark.parametrize(("name", "prefix"), [("b", "bkm/1/plant"), ("1", "bkm")])
async def test_groups_do_not_lie_among_each_others_topics(server: KeyServer, name: str, prefix: str) -> None:
    """A group below another's topics, or above them, is refused; groups side by side share a prefix."""
    with pytest.raises(UsageError, match="mixed up with those of group plant"):
        await server.admin.create_group(name, prefix=prefix)
    assert (await server.admin.create_group("other")).prefix == "bkm/1"
