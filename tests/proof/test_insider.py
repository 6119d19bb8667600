"""An insider has valid keys of its path, its own identity, and lacks one thing: the server's signature."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from brokerkm.core.crypto import labelled, load_signing_key
from brokerkm.core.data import Sealer, traffic_key
from brokerkm.core.events import MessageReceived
from brokerkm.core.handover import Handover
from brokerkm.core.messages import Kind
from brokerkm.core.notice import Goodbye, GoodbyeReason, Refusal, RefusalReason
from brokerkm.core.policy import Policy
from brokerkm.core.rekey import Beacon, Rekey
from brokerkm.core.signing import sign_all
from brokerkm.core.subgroup import Subgroup
from brokerkm.core.welcome import Certificate, NodeKey, Recipient, Welcome, WelcomeSecrets
from brokerkm.core.wire import VERSION, pack
from brokerkm.errors import Reason, RefusedError
from proof.fleet import DATA_TOPIC, GROUP, Fleet
from proof.mutants import cuts, flips, rebuilt

if TYPE_CHECKING:
    from collections.abc import Callable

    from brokerkm.core.path import KeyPath
    from proof.device import Device

OWN = load_signing_key(b"i" * 32)  # the insider's, in place of the server's


def path_of(device: Device) -> KeyPath:
    """Return the keys that a device holds."""
    path = device.member._memory.path
    assert path is not None
    return path


def rekey(fleet: Fleet, victim: Device) -> tuple[str, bytes]:
    """Wrap a key of the insider's choice under a node key that it shares with the victim."""
    path = path_of(victim)
    level = path.height - 1
    cover, index = path.keys[level - 1], path.nodes[level][1]
    entry = (None, cover.birth, cover.step, aes_key_wrap(cover.key, b"x" * 32))
    fields = (VERSION, Kind.REKEY, victim.member.epoch + 1, path.height, (entry,), b"")
    body = bytes((0x98,)) + pack(fields)[1:]
    context = labelled(Rekey.LABEL, GROUP, level, index)
    return fleet.server.topics.node(level, index), sign_all(OWN, [body], [context])[0]


def rekey_in_block(fleet: Fleet, victim: Device) -> tuple[str, bytes]:
    """Sign it as one of many, so that it comes with a proof."""
    topic, single = rekey(fleet, victim)
    body = single[: -66 - 1]
    level, index = (int(part) for part in topic.split("/")[-2:])
    context = labelled(Rekey.LABEL, GROUP, level, index)
    return topic, sign_all(OWN, [body] * 65, [context] * 65)[3]


def beacon(fleet: Fleet, victim: Device) -> tuple[str, bytes]:
    """Announce a root that never was."""
    at = (victim.member.epoch + 1, path_of(victim).height, victim.member.epoch + 1, 0)
    return fleet.server.topics.beacon, Beacon.seal(OWN, GROUP, at, int(fleet.now * 1000) + 1, due=30, policy=Policy())


def ratcheting_beacon(fleet: Fleet, victim: Device) -> tuple[str, bytes]:
    """Push the victim's root ahead of the group's."""
    root = path_of(victim).root
    at = (victim.member.epoch + 1, path_of(victim).height, root.birth, root.step + 5)
    return fleet.server.topics.beacon, Beacon.seal(OWN, GROUP, at, int(fleet.now * 1000) + 1, due=30, policy=Policy())


def welcome(fleet: Fleet, victim: Device) -> tuple[str, bytes]:
    """Seal keys of the insider's choice to the victim's public key, in answer to its very request."""
    enrollment = fleet.server.on_file[victim.name]
    nonce = victim.sync(fleet.now)[5:21]
    keys = (NodeKey(b"x" * 32, 50, 0),) * 3
    time = int(fleet.now * 1000) + 1
    secrets = WelcomeSecrets(50, time, 1, 2, NodeKey(b"y" * 32, 50, 0), keys, Policy(), None)
    to = Recipient(victim.name, enrollment.kem_public, nonce)
    return fleet.server.topics.member(victim.name), Welcome.seal(OWN, fleet.server.group.suite, GROUP, to, secrets)


def goodbye(fleet: Fleet, victim: Device) -> tuple[str, bytes]:
    """Tell the victim that it is out."""
    evicted = [(victim.name, GoodbyeReason.EVICTED)]
    return fleet.server.topics.member(victim.name), Goodbye.seal_all(OWN, GROUP, 50, evicted, bytes)[0]


def refusal(fleet: Fleet, victim: Device) -> tuple[str, bytes]:
    """Tell the victim, in answer to its very request, that it is no member."""
    nonce = victim.sync(fleet.now)[5:21]
    time, reason = int(fleet.now * 1000), RefusalReason.NOT_A_MEMBER
    sealed = Refusal.seal(OWN, GROUP, victim.name, nonce=nonce, reason=reason, time=time)
    return fleet.server.topics.member(victim.name), sealed


def subgroup(fleet: Fleet, victim: Device) -> tuple[str, bytes]:
    """Send an order under a node key that the insider shares with the victim."""
    path = path_of(victim)
    node, time = (path.height, 0), int(fleet.now * 1000)
    sealed = Subgroup.seal(OWN, (GROUP, *node), path.root, b"open the gate", slot=None, time=time, salt=bytes(16))
    return fleet.server.topics.node(*node), sealed


def handover(fleet: Fleet, victim: Device) -> tuple[str, bytes]:
    """Hand the victim over to a key of the insider's own."""
    mine = load_signing_key(b"m" * 32).public_key().public_bytes_raw()
    link = Handover.sign(OWN, GROUP, mine, int(fleet.now * 1000))
    return fleet.server.topics.handover, Handover((link,)).encode()


@pytest.fixture
def fleet() -> Fleet:
    """Eight members, without source authentication."""
    return grown(10)


def grown(seed: int) -> Fleet:
    """Return a fleet of eight."""
    fleet = Fleet(seed, 2)
    for _ in range(8):
        device = fleet.add()
        fleet.ask(device, device.join(fleet.now))
    fleet.commit(lossy=set())
    return fleet


FORGERS = [rekey, rekey_in_block, beacon, ratcheting_beacon, welcome, goodbye, refusal, subgroup, handover]


@pytest.mark.parametrize("forge", FORGERS)
def test_forgery_under_valid_keys_is_refused(forge: Callable[[Fleet, Device], tuple[str, bytes]], fleet: Fleet) -> None:
    """Everything about these messages is right but the signature."""
    victim = fleet.devices["device-1"]
    topic, payload = forge(fleet, victim)
    before = victim.member.dump()
    with pytest.raises(RefusedError) as caught:
        victim.member.receive(topic, payload, fleet.now)
    assert Reason.BAD_SIGNATURE is caught.value.reason
    assert before == victim.member.dump()
    assert [] == victim.member.tick(fleet.now + 6)


@pytest.mark.parametrize("forge", FORGERS)
def test_forgery_would_work_with_the_servers_key(
    forge: Callable[[Fleet, Device], tuple[str, bytes]], fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the server's key the same messages are taken: nothing else about them is wrong."""
    monkeypatch.setattr(f"{__name__}.OWN", fleet.server.group._key)
    victim = fleet.devices["device-1"]
    topic, payload = forge(fleet, victim)
    before = victim.member.dump()
    victim.member.receive(topic, payload, fleet.now)
    assert before != victim.member.dump()


@pytest.mark.parametrize("certified", ["victim", "insider", "self-made"])
def test_insider_cannot_speak_for_another(certified: str) -> None:
    """With source authentication, a member's name counts with that member's key only."""
    fleet = grown(11)
    insider, other, receiver = (fleet.devices[f"device-{number}"] for number in range(3))
    root = path_of(insider).root
    sealer = Sealer(GROUP, other.name, b"saltsalt", "bkm/1/")
    own = insider.member._identity
    expiry = int(fleet.now * 1000) + 10**6
    sealer.certificate = {
        "victim": other.member._memory.certificate,
        "insider": insider.member._memory.certificate,
        "self-made": Certificate.issue(own, GROUP, other.name, own.public_key().public_bytes_raw(), expiry),
    }[certified]
    sealer.identity = own
    sealer.use(traffic_key(GROUP, root), root.birth, root.step)
    before = receiver.member.dump()
    with pytest.raises(RefusedError) as caught:
        receiver.member.receive(DATA_TOPIC, sealer.seal(DATA_TOPIC, b"lie"), fleet.now)
    assert Reason.BAD_SIGNATURE is caught.value.reason
    assert before == receiver.member.dump()
    truth = other.member.seal(DATA_TOPIC, b"truth", fleet.now)
    assert isinstance(receiver.member.receive(DATA_TOPIC, truth, fleet.now)[0], MessageReceived)


def test_insider_cannot_push_the_root_ahead(fleet: Fleet) -> None:
    """Data of a later step is read, because it may be true, but only the server moves the root."""
    insider, receiver = (fleet.devices[f"device-{number}"] for number in range(2))
    root = path_of(insider).root
    ahead = NodeKey(b"", root.birth, root.step + 7)
    path_of(insider).ratchet_root(ahead.step)
    sealer = Sealer(GROUP, insider.name, b"saltsalt", "bkm/1/")
    sealer.use(traffic_key(GROUP, path_of(insider).root), ahead.birth, ahead.step)
    events = receiver.member.receive(DATA_TOPIC, sealer.seal(DATA_TOPIC, b"x"), fleet.now)
    assert isinstance(events[0], MessageReceived)
    assert root == receiver.root


def fingerprint(fleet: Fleet) -> tuple[object, ...]:
    """Return all there is to a group's state."""
    group = fleet.server.group
    levels = [(bytes(level.keys), level.births.tolist(), level.steps.tolist()) for level in group.tree.levels]
    return (group.epoch, group.time, dict(group._pending), set(group._rotations), levels, list(group.directory))


@pytest.mark.parametrize("kind", ["join", "sync", "leave"])
def test_changed_requests_change_nothing(kind: str, fleet: Fleet) -> None:
    """No bit or field of a request can be changed, and it counts for its own member in its own group, once."""
    device, server = fleet.devices["device-3"], fleet.server
    payload = {"join": device.join, "sync": device.sync, "leave": device.leave}[kind](fleet.now)
    before = fingerprint(fleet)
    for mutant in (*flips(payload), *cuts(payload), *rebuilt(payload)):
        if mutant[1:3] in (b"\x01\x05", b"\x01\x06", b"\x01\x07"):  # a request, so that `handle` knows what it is
            with pytest.raises(RefusedError):
                server.handle(device.name, mutant, fleet.now)
    for other in ("device-2", "nobody"):
        with pytest.raises(RefusedError):
            server.handle(other, payload, fleet.now)
    for later in (301, -301):
        with pytest.raises(RefusedError):
            server.handle(device.name, payload, fleet.now + later)
    twin = Fleet(10, 2, "fleet-02")
    for _ in range(8):
        twin_device = twin.add()
        twin.ask(twin_device, twin_device.join(twin.now))
    twin.commit(lossy=set())
    with pytest.raises(RefusedError):
        twin.server.handle(device.name, payload, twin.now)
    assert before == fingerprint(fleet)
    server.handle(device.name, payload, fleet.now)
    assert before != fingerprint(fleet)
    after = fingerprint(fleet)
    with pytest.raises(RefusedError) as caught:
        server.handle(device.name, payload, fleet.now)
    assert Reason.REPLAY is caught.value.reason
    assert after == fingerprint(fleet)
