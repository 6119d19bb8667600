"""What changes beside the keys: the server's own key, the policy, and the server's store, which may be a backup."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from brokerkm.core import group
from brokerkm.core.crypto import Algorithm, load_signing_key, load_verify_key
from brokerkm.core.events import MessageReceived
from brokerkm.core.handover import Handover
from brokerkm.core.member import Member
from brokerkm.core.rekey import Beacon
from brokerkm.core.renewal import Renewal, renew
from brokerkm.core.trust import Trust
from brokerkm.core.welcome import NodeKey
from proof.fleet import DATA_TOPIC, Fleet

if TYPE_CHECKING:
    from brokerkm.core.events import Event
    from brokerkm.core.tree import KeyTree
    from proof.device import Device
    from proof.keyserver import Backup

PLAIN = 30  # seed of a group without source authentication


def grown(count: int) -> Fleet:
    """Return a fleet of so many members."""
    fleet = Fleet(PLAIN, 2)
    join(fleet, count)
    return fleet


def join(fleet: Fleet, count: int) -> list[Device]:
    """Let new devices join in one epoch."""
    devices = [fleet.add() for _ in range(count)]
    for device in devices:
        fleet.ask(device, device.join(fleet.now))
    fleet.commit(lossy=set())
    return devices


class Thief:
    """Has the server's signing key, which it stole after the server had handed over to another."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._stolen = load_signing_key(fleet.server._seed)
        self._own = load_signing_key(b"t" * 32)

    @property
    def key(self) -> bytes:
        """The key that it would have members believe."""
        return self._own.public_key().public_bytes_raw()

    def handover(self) -> bytes:
        """Return a link from the stolen key to its own."""
        link = Handover.sign(self._stolen, self._fleet.server.group.name, self.key, int(self._fleet.now * 1000))
        return Handover((link,)).encode()

    def lengthened(self, chain: bytes) -> bytes:
        """Return the server's own chain with a link of its own, signed by the stolen key, at its end."""
        links, time = Handover.decode(chain).links, int(self._fleet.now * 1000) + 1
        mine = Handover.sign(self._stolen, self._fleet.server.group.name, self.key, time)
        return Handover((*links, mine)).encode()

    def beacon(self) -> bytes:
        """Return a Beacon by the stolen key that announces a root that never was."""
        group = self._fleet.server.group
        at, time = (group.epoch + 1, group.tree.height, group.epoch + 1, 0), int(self._fleet.now * 1000) + 1
        return Beacon.seal(self._stolen, group.name, at, time, due=30, policy=group.policy)


def robbed() -> tuple[Fleet, Thief, Device, Device]:
    """Return a fleet after a hand-over, who has the old key, and two members: one that has followed, one that slept."""
    fleet = grown(6)
    followed, slept = fleet.devices["device-1"], fleet.devices["device-2"]
    slept.online = False
    thief = Thief(fleet)
    fleet.hand_over()
    fleet.pause()
    return fleet, thief, followed, slept


def is_moved(fleet: Fleet, thief: Thief, device: Device) -> bool:
    """Return whether any of what the thief can sign has an effect on a member."""
    topics, before = fleet.server.topics, device.member.dump()
    device.receive(topics.beacon, thief.beacon(), fleet.now)
    chain = fleet.server.group.handover
    assert chain is not None
    for forged in (thief.handover(), thief.lengthened(chain)):
        device.receive(topics.handover, forged, fleet.now)
    device.receive(topics.beacon, thief.beacon(), fleet.now)
    return before != device.member.dump()


def test_a_leaked_former_key_moves_nobody_who_has_followed() -> None:
    """It signs neither Beacons nor links for them any more; the server goes on speaking to them."""
    fleet, thief, followed, _ = robbed()
    assert not is_moved(fleet, thief, followed)
    join(fleet, 1)
    assert fleet.server.root == followed.root


def test_a_leaked_former_key_leads_those_astray_who_have_not() -> None:
    """As the specification says: a hand-over is no revocation. The server has lost them until told anew."""
    fleet, thief, _, slept = robbed()
    assert slept.receive(fleet.server.topics.handover, thief.handover(), fleet.now)
    assert thief.key == slept.member.server_keys[-1]
    handover = fleet.server.group.handover
    assert handover is not None
    assert slept.receive(fleet.server.topics.handover, handover, fleet.now) is None
    assert thief.key == slept.member.server_keys[-1]


def test_who_slept_and_hears_the_server_first_is_safe_from_then_on() -> None:
    """The genuine chain comes first: the thief is too late."""
    fleet, thief, _, slept = robbed()
    slept.online = True
    fleet.fetch(slept)
    assert fleet.server.keys == list(slept.member.server_keys)
    assert not is_moved(fleet, thief, slept)


def believe_first(self: Trust, handover: Handover) -> bool:
    """Follow a chain from the first key that was ever believed: that is, go back."""
    memory = self._memory
    first = (*(key for key, _ in memory.former_keys), memory.server_key)[0]
    memory.server_key = handover.after(first, memory.profile.group)[-1].key
    self.key = load_verify_key(memory.server_key, "server_key")
    return True


def test_a_member_that_goes_back_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that would walk a chain from a key that it has left is moved by the thief of that key."""
    fleet, thief, followed, _ = robbed()
    monkeypatch.setattr(Trust, "follow", believe_first)
    assert is_moved(fleet, thief, followed)


def test_a_member_that_checks_no_link_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that believes a chain unchecked is moved by it."""
    fleet, thief, followed, _ = robbed()
    monkeypatch.setattr("brokerkm.core.handover.check_signature", lambda *_: None)
    assert is_moved(fleet, thief, followed)


def toggle(fleet: Fleet) -> list[bool]:
    """Let the policy change there and back, replay all Beacons to a member; return whether it stayed in step."""
    device, policy = fleet.devices["device-1"], fleet.server.group.policy
    in_step = []
    for changed in (replace(policy, algorithm=Algorithm.CHACHA20_POLY1305), policy):
        fleet.pause()
        fleet.set_policy(changed)
        for topic, payload in reversed(fleet.log):
            if topic == fleet.server.topics.beacon:
                device.receive(topic, payload, fleet.now)
        in_step.append(fleet.is_in_step(device))
    return in_step


def test_no_old_beacon_brings_an_old_policy_back() -> None:
    """Every Beacon ever sent is repeated after each change."""
    assert [True, True] == toggle(grown(3))


def test_a_member_that_takes_any_policy_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that does not ask which Beacon is newer goes back to the old policy."""
    genuine = Member.receive

    def receive(self: Member, topic: str, payload: bytes, now: float) -> list[Event]:
        events = genuine(self, topic, payload, now)
        if topic.endswith("/b"):
            self._memory.policy = Beacon.decode(payload).policy
        return events

    monkeypatch.setattr(Member, "receive", receive)
    assert toggle(grown(3)) != [True, True]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("algorithm", Algorithm)
def test_after_grace_only_what_the_policy_asks_for_is_read(signed: bool, algorithm: Algorithm) -> None:  # noqa: FBT001
    """Data as the policy of before wanted it is read until `grace` is over, whatever has changed, and then no more."""
    fleet = grown(4)
    sender, early, late, _ = fleet.devices.values()
    old = [sender.member.seal(DATA_TOPIC, b"21.4", fleet.now) for _ in range(2)]
    before = fleet.server.group.policy
    fleet.set_policy(replace(before, source_authentication=signed, algorithm=algorithm))
    for device in fleet.devices.values():
        fleet.ask(device, device.sync(fleet.now))
    fleet.talk(sender)
    assert [MessageReceived] == [type(event) for event in early.receive(DATA_TOPIC, old[0], fleet.now) or ()]
    fleet.pause(before.grace + 1)
    fleet.beat()
    events = late.receive(DATA_TOPIC, old[1], fleet.now) or []
    same = (before.source_authentication, before.algorithm) == (signed, algorithm)
    assert same == any(isinstance(event, MessageReceived) for event in events)
    fleet.talk(sender)


def test_a_copy_of_a_device_shows_by_its_counter() -> None:
    """Two that go on from one state come to the same counter; the device alone, crashed at any time, never does."""
    fleet = grown(3)
    device = fleet.devices["device-1"]
    copied = device.saved
    for _ in range(3):
        fleet.pause()
        assert fleet.ask(device, device.ack(fleet.now))
        device.restart(fleet.now, crashed=True)
    assert set() == fleet.server.suspects
    fleet.pause()
    clone = Member.load(copied, bytes, fleet.now)
    assert fleet.ask(device, clone.ack(fleet.now))
    assert {"device-1"} == fleet.server.suspects


def test_a_device_that_does_not_save_its_counter_is_found_out() -> None:
    """The state of before a request, loaded again, counts as a copy."""
    fleet = grown(3)
    device = fleet.devices["device-1"]
    for _ in range(2):
        before = device.saved
        fleet.pause()
        fleet.ask(device, device.ack(fleet.now))
        device.saved = before
        device.restart(fleet.now, crashed=True)
    assert {"device-1"} == fleet.server.suspects


def test_who_has_lost_a_leaf_key_is_safe_after_a_refresh() -> None:
    """The thief of a leaf key reads until that leaf is renewed, and nothing from there on."""
    fleet = grown(6)
    device, server = fleet.devices["device-1"], fleet.server
    stolen = list(device.holders[0].known)
    fleet.server.group.rotate_all()
    fleet.commit(lossy=set())
    assert fleet.is_broken(server.group.epoch, *stolen)
    server.group.refresh(server.on_file[device.name])
    fleet.commit(lossy=set())
    assert not fleet.is_broken(server.group.epoch, *stolen)
    assert device.current


def outdated() -> tuple[Fleet, Backup, Device, list[Device]]:
    """Return a fleet, a backup, one that was evicted after it, and those that joined after it."""
    fleet = grown(8)
    backup = fleet.server.backup()
    out = fleet.devices["device-3"]
    out.ghost = True
    fleet.server.group.evict(out.name)
    fleet.commit(lossy=set())
    return fleet, backup, out, join(fleet, 3)


def test_who_is_named_at_a_recovery_reads_nothing() -> None:
    """All keys are new: with what it has, and with all that outsiders have, it reaches no key of after."""
    fleet, backup, out, late = outdated()
    epoch = fleet.restore(backup, set()).epoch
    assert not [at for at in fleet.roots if fleet.is_broken(at)]
    assert {epoch} == {key.birth for key in (*fleet.server.group.tree.path(0), fleet.server.group.tree.get(0, 0))}
    assert all(device.current for device in fleet.devices.values() if device not in (out, *late))
    for device in late:
        fleet.recover(device)
        assert device.current
    fleet.talk(late[0])
    fleet.read_old(out)


def test_who_is_not_named_at_a_recovery_reads_again() -> None:
    """As the specification says: a backup cannot know of it, so the operator has to."""
    fleet, backup, out, _ = outdated()
    fleet.restore(backup, {out.name})
    assert out.current
    assert fleet.server.root == out.root
    assert not [at for at in fleet.roots if fleet.is_broken(at)]  # what was sent while it was out stays closed


def keep(level: int, tree: KeyTree, *args: Any, **kwargs: Any) -> Renewal:  # noqa: ANN401 - as `renew` has them
    """Do what `renew` does, but let the nodes of one level have the keys that they had."""
    right = renew(tree, *args, **kwargs)
    nodes = list(right.nodes)
    nodes[level] = {index: NodeKey(tree.get(level, index).key, node.birth, 0) for index, node in nodes[level].items()}
    return Renewal(tuple(nodes), right.fresh)


@pytest.mark.parametrize(("level", "slot"), [(1, 0), (2, 4)])
def test_a_recovery_that_keeps_a_key_is_found_out(level: int, slot: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an inner key of the backup in the new tree, one who is named as out reads on from the next eviction."""
    fleet, backup, *_ = outdated()
    with monkeypatch.context() as patch:
        patch.setattr(group, "renew", functools.partial(keep, level))
        fleet.restore(backup, set())
    fleet.server.group.evict(next(name for name, at in backup.seats.items() if at == slot))
    epoch = fleet.commit(lossy=set()).epoch
    assert fleet.is_broken(epoch)
