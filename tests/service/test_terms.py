"""What a group asks of its members, and the key that it signs by, changed while it is served."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from service.fleet import Device, eventually

from brokerkm.core.crypto import Algorithm
from brokerkm.core.events import Joined, PolicyChanged, ServerKeyChanged
from brokerkm.core.group import Group
from brokerkm.core.handover import Handover
from brokerkm.core.policy import Policy
from brokerkm.errors import StoreError, UsageError
from brokerkm.service import KeyServer
from brokerkm.store import SqliteStore
from brokerkm.store.records import Settings
from brokerkm.transport import Delivery, Options, Outgoing, Role, create

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from brokerkm.store import Change, Store

    OpenDevice = Callable[..., Awaitable[Device]]

BROKER = "memory://fleet"
OTHER = Policy(grace=7, algorithm=Algorithm.CHACHA20_POLY1305)


async def seated(server: KeyServer, device: OpenDevice, name: str = "pump") -> Device:
    """Return a device that has its place."""
    descriptor = await server.admin.invite("plant")
    found: Device = await device(descriptor, name)
    await found.join(descriptor.token.key if descriptor.token else None)
    await found.expect(Joined)
    return found


def serving(store: Store) -> KeyServer:
    """Return a server of `store` that is not started yet."""
    transport = create(BROKER, Options(role=Role.SERVER))
    return KeyServer(store, transport, interval=0, retained_wait=0.2, broker=BROKER)


async def restarted(server: KeyServer) -> KeyServer:
    """Return another server on the store of one that is stopped."""
    await server.stop()
    again = serving(server.store)
    await again.start()
    return again


async def test_policy_reaches_members_and_outlives_the_server(server: KeyServer, device: OpenDevice) -> None:
    """Members hear of it at once; a restarted server asks the same, and the audit log says who wanted it."""
    pump = await seated(server, device)
    outcome = await server.admin.acting("operator:alice").set_policy("plant", OTHER)
    assert outcome.published
    assert PolicyChanged(OTHER) == await pump.expect(PolicyChanged)
    entry = server.store.audit("plant")[-1].entry
    assert ("operator:alice", "set-policy", {"grace": 7, "algorithm": 2}) == (entry.actor, entry.action, entry.details)
    again = await restarted(server)
    try:
        assert OTHER == again.groups["plant"].group.policy == again.groups["plant"].record.policy
    finally:
        await again.stop()


async def test_two_operators_change_different_terms_at_once(server: KeyServer) -> None:
    """Each names what it wants; neither takes back what the other did."""
    admin = server.admin
    one, two, three = {"grace": 7}, {"hold": 8, "algorithm": "chacha20-poly1305"}, {"root_period": 60}
    await asyncio.gather(admin.change("plant", one, {}), admin.change("plant", two, three))
    record = server.groups["plant"].record
    policy = replace(Policy(), grace=7, hold=8, algorithm=Algorithm.CHACHA20_POLY1305)
    assert (policy, 60) == (record.policy, record.settings.root_period)
    stored = server.store.group("plant")
    assert stored is not None
    assert (record.policy, record.settings) == (stored.policy, stored.settings)


async def test_policy_and_settings_are_one_change(server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are stored, or neither."""
    before = server.groups["plant"].record
    written: list[Change] = []

    def fail(_group: str, change: Change) -> int:
        written.append(change)
        message = "disk full"
        raise StoreError(message)

    monkeypatch.setattr(server.store, "write", fail)
    with pytest.raises(StoreError, match="disk full"):
        await server.admin.change("plant", {"grace": 7}, {"root_period": 60})
    assert ["set", "set-policy"] == [entry.action for change in written for entry in change.audit]
    assert before == server.groups["plant"].record
    assert before.policy == server.groups["plant"].group.policy


async def test_members_follow_a_hand_over(server: KeyServer, device: OpenDevice) -> None:
    """The new key is stored before anything is signed by it, retained, and followed; invitations name it."""
    pump = await seated(server, device)
    old = server.groups["plant"].group.server_key
    outcome = await server.admin.hand_over("plant")
    new = server.groups["plant"].group.server_key
    assert outcome.published
    assert old != new
    assert ServerKeyChanged(new) == await pump.expect(ServerKeyChanged)
    assert new == (await server.admin.invite("plant")).server_key
    await server.admin.rotate("plant")
    await pump.reaches(server.groups["plant"].group.epoch)
    entry = next(record.entry for record in server.store.audit("plant") if record.entry.action == "hand-over")
    assert {"from": old.hex()} == entry.details


async def test_newcomer_with_an_old_invitation_joins(server: KeyServer, device: OpenDevice) -> None:
    """The Handover is retained, and so is the Welcome that was refused."""
    descriptor = await server.admin.invite("plant")
    for _ in range(3):
        await server.admin.hand_over("plant")
    pump = await device(descriptor, "pump")
    await pump.join(descriptor.token.key if descriptor.token else None)
    assert server.groups["plant"].group.server_key == (await pump.expect(ServerKeyChanged)).server_key
    await pump.transport.unsubscribe(pump.member.filters)
    await pump.transport.subscribe(pump.member.filters)
    await pump.expect(Joined)


@pytest.mark.parametrize("retained", [True, False])
async def test_who_was_away_finds_the_new_key_where_nothing_else_is_retained(
    server: KeyServer, device: OpenDevice, *, retained: bool
) -> None:
    """Beacon and Handover are retained in every group; Rekeys and Welcomes where its settings say so."""
    await server.admin.configure("plant", Settings(retained=retained))
    pump = await seated(server, device)
    member, topics = pump.member, server.groups["plant"].topics
    await pump.close()
    await server.admin.rotate("plant")
    assert (await server.admin.hand_over("plant")).published
    late = create(BROKER, Options())
    await late.open()
    await late.subscribe([*member.filters, topics.handover])
    seen: set[str] = set()
    async with asyncio.timeout(10):
        async for item in late.incoming():
            if isinstance(item, Delivery) and item.retained:
                seen.add(item.topic)
            elif isinstance(item, Delivery) and item.topic == topics.beacon:
                break
            if {topics.beacon, topics.handover} <= seen:
                await server.groups["plant"].beacon()  # comes after all that was retained
                assert server.publisher is not None
                server.publisher.wake("plant")
    await late.close()
    always = {topics.beacon, topics.handover}
    assert always <= seen
    assert retained == bool(seen - always)
    descriptor = await server.admin.invite("plant")
    again = await Device.open(descriptor, "pump", member)
    try:
        assert ServerKeyChanged(descriptor.server_key) == await again.expect(ServerKeyChanged)
    finally:
        await again.close()


async def test_restarted_server_goes_on_with_its_chain(server: KeyServer, device: OpenDevice) -> None:
    """Seed and links are stored; the next link leads on from them."""
    pump = await seated(server, device)
    first = server.groups["plant"].group.server_key
    await server.admin.hand_over("plant")
    again = await restarted(server)
    try:
        await again.admin.hand_over("plant")
        group = again.groups["plant"].group
        handover = Handover.decode(group.handover or b"")
        assert group.server_key == handover.after(first, "plant")[-1].key
        await eventually(lambda: pump.member.server_keys[-1] == group.server_key)
    finally:
        await again.stop()


@pytest.mark.parametrize("what", ["policy", "key"])
async def test_nothing_changes_that_cannot_be_stored(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A store that fails leaves policy and key as they were, in memory too."""
    live = server.groups["plant"]
    before = (live.record, live.group.policy, live.group.server_key, live.group.handovers)

    def fail(*_: object) -> int:
        message = "no space left"
        raise StoreError(message)

    with monkeypatch.context() as patch:
        patch.setattr(server.store, "write", fail)
        with pytest.raises(StoreError, match="no space left"):
            await (server.admin.set_policy("plant", OTHER) if what == "policy" else server.admin.hand_over("plant"))
    assert before == (live.record, live.group.policy, live.group.server_key, live.group.handovers)
    await server.admin.set_policy("plant", replace(OTHER, grace=8))


async def test_group_has_to_be_there(server: KeyServer) -> None:
    """A group that there is not has neither."""
    with pytest.raises(UsageError, match="there is no group"):
        await server.admin.hand_over("plants")
    with pytest.raises(UsageError, match="there is no group"):
        await server.admin.set_policy("plants", OTHER)


async def test_store_of_before_a_hand_over_is_refused(tmp_path: Path) -> None:
    """Members believe a key that the backup does not have: serving it would only look as if it worked."""
    path, backup = tmp_path / "store", tmp_path / "backup"
    store = SqliteStore(path)
    async with serving(store) as server:
        await server.admin.create_group("plant")
        await server.desk.call(store.scrub)
        shutil.copy(path, backup)
        await server.admin.hand_over("plant")
    store.close()
    store = SqliteStore(backup)
    with pytest.raises(StoreError, match=r"was handed over to .*restored from a backup"):
        async with serving(store):
            pass
    store.close()


async def test_handover_of_a_stranger_keeps_no_server_from_starting(server: KeyServer) -> None:
    """Anybody may retain something there if the broker lets them."""
    forger = create(BROKER, Options(role=Role.SERVER))
    await forger.open()
    stranger = Group("plant", bytes(32)).hand_over(b"x" * 32, 1.0)
    await forger.publish(Outgoing(server.groups["plant"].topics.handover, stranger, retain=True))
    again = await restarted(server)
    assert "plant" in again.groups
    await again.stop()
    await forger.close()
