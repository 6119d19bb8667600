"""The attacker works: it finds the key when there is something to find, and what protects the key is each rule."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest

from brokerkm.core import group
from brokerkm.core.crypto import ratchet
from brokerkm.core.renewal import Renewal, renew
from brokerkm.core.spares import settle
from brokerkm.core.welcome import NodeKey
from proof.attacker import Known, exhaustive
from proof.fleet import Fleet

if TYPE_CHECKING:
    from collections.abc import Callable

    from brokerkm.core.tree import KeyTree
    from proof.device import Device


def live(seed: int, degree: int) -> Fleet:
    """Return a fleet after many epochs in which all messages arrived."""
    fleet = Fleet(seed, degree)
    fleet.live(40, seed)
    return fleet


def join(fleet: Fleet, count: int) -> list[Device]:
    """Let new devices join in one epoch."""
    devices = [fleet.add() for _ in range(count)]
    for device in devices:
        fleet.ask(device, device.join(fleet.now))
    fleet.commit(lossy=set())
    return devices


def evict(fleet: Fleet, *devices: Device) -> None:
    """Cut devices off in one epoch; they are not told and go on listening."""
    for device in devices:
        device.ghost = True
        fleet.server.group.evict(device.name)
    fleet.commit(lossy=set())


def leaf_of(device: Device) -> Known:
    """Return what a thief of nothing but the leaf key has."""
    path = device.member._memory.path
    assert path is not None
    return Known(0, path.slot, path.leaf.birth, 0, path.leaf.key)


@pytest.mark.parametrize("degree", [2, 3, 4, 7])
@pytest.mark.parametrize("seed", [1, 2])
def test_outsiders_reach_no_key_of_any_epoch(seed: int, degree: int) -> None:
    """All who are outside an epoch collude, with what they learned before and after it; nobody reaches its key."""
    fleet = live(seed, degree)
    assert not [epoch for epoch in fleet.roots if fleet.is_broken(epoch)]


def test_names_mean_nothing_to_a_patient_attacker() -> None:
    """Every key of the evicted, moved on some steps, tried on every wrap ever published, does not give the key."""
    fleet = live(3, 3)
    epoch = fleet.server.group.epoch
    assert fleet.server.root.key not in exhaustive(fleet.outsiders(epoch), fleet.tape)


def test_one_leaked_leaf_key_is_enough() -> None:
    """With one current leaf key, and nothing else, the attacker reads the recorded messages up to the current key."""
    fleet = live(4, 4)
    fleet.server.group.rotate_all()
    fleet.commit(lossy=set())
    epoch = fleet.server.group.epoch
    current = [device for device in fleet.devices.values() if device.current]
    assert current
    for device in current:
        assert fleet.is_broken(epoch, leaf_of(device))
        assert fleet.server.root.key in exhaustive([leaf_of(device)], fleet.tape)
    assert not fleet.is_broken(epoch)


def test_colluding_neighbours_and_strangers_reach_nothing() -> None:
    """Half of a full tree, of the same bucket and of others, is cut off at once and one after the other."""
    fleet = Fleet(5, 4)
    devices = join(fleet, 64)
    evict(fleet, *devices[:8], *devices[20:40:3])
    for device in (devices[8], devices[9], devices[41], devices[63]):
        evict(fleet, device)
    assert not fleet.is_broken(fleet.server.group.epoch)
    assert len(fleet.server.group.directory) == sum(device.current for device in devices)


def test_who_comes_back_reads_from_then_on_and_not_between() -> None:
    """A member is out for some epochs: it never gets the keys of these, and has those before and after."""
    fleet = Fleet(6, 4)
    back, *others = join(fleet, 20)
    evict(fleet, back)
    join(fleet, 2)
    evict(fleet, others[3])
    fleet.talk(others[0])
    out = fleet.server.group.epoch
    fleet.ask(back, back.join(fleet.now))
    fleet.commit(lossy=set())
    fleet.read_old(back)
    assert back.current
    holders = [holder for holder in back.holders if holder.is_member(out + 1)]
    assert [(out + 1, None)] == [(holder.first, holder.end) for holder in holders]
    assert [False] * 4 == [fleet.is_broken(epoch) for epoch in range(out - 2, out + 2)]
    assert fleet.is_broken(out + 1, *holders[0].known)


def test_who_takes_over_a_slot_takes_over_no_key() -> None:
    """The same slot goes from hand to hand; each holder's keys are good for its own time only."""
    fleet = Fleet(7, 2)
    join(fleet, 5)
    slots: set[int | None] = set()
    for _ in range(6):
        (device,) = join(fleet, 1)
        slots.add(device.member.slot)
        evict(fleet, device)
    assert {5} == slots
    assert not [epoch for epoch in fleet.roots if fleet.is_broken(epoch)]


def forget_parent(_: KeyTree, renewal: Renewal) -> Renewal:
    """Leave out one fresh node of level 1."""
    nodes, fresh = [dict(level) for level in renewal.nodes], [set(level) for level in renewal.fresh]
    index = fresh[1].pop()
    del nodes[1][index]
    return Renewal(tuple(nodes), tuple(fresh))


def keep_leaf(_: KeyTree, renewal: Renewal) -> Renewal:
    """Forget that slots were emptied, so that the bucket still serves them."""
    return Renewal(({}, *renewal.nodes[1:]), renewal.fresh)


def keep_middle(tree: KeyTree, renewal: Renewal) -> Renewal:
    """Give out the old key of a node of level 2 as a new one."""
    return replace(renewal, 2, lambda index: tree.get(2, index).key)


def keep_root(tree: KeyTree, renewal: Renewal) -> Renewal:
    """Give out the old key of the root as a new one."""
    return replace(renewal, tree.height, lambda index: tree.get(tree.height, index).key)


def move_root(tree: KeyTree, renewal: Renewal) -> Renewal:
    """Make the root's new key out of the old one."""
    return replace(renewal, tree.height, lambda index: ratchet(tree.get(tree.height, index).key))


def replace(renewal: Renewal, level: int, key: Callable[[int], bytes]) -> Renewal:
    """Return `renewal` with other keys at `level`."""
    nodes = list(renewal.nodes)
    nodes[level] = {index: NodeKey(key(index), node.birth, 0) for index, node in nodes[level].items()}
    return Renewal(tuple(nodes), renewal.fresh)


def renew_wrongly(mutation: Callable[[KeyTree, Renewal], Renewal], tree: KeyTree, *args: Any, **kwargs: Any) -> Renewal:  # noqa: ANN401 - as `renew` has them
    """Do what `renew` does, but for one mistake."""
    return mutation(tree, renew(tree, *args, **kwargs))


@pytest.mark.parametrize("mutation", [forget_parent, keep_leaf, keep_middle, keep_root, move_root])
def test_a_server_that_forgets_is_found_out(
    mutation: Callable[[KeyTree, Renewal], Renewal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that leaves out one ancestor, one leaf or the root when it evicts gives the key away."""
    fleet = Fleet(8, 2)
    devices = join(fleet, 16)
    monkeypatch.setattr(group, "renew", functools.partial(renew_wrongly, mutation))
    for device in (devices[5], devices[12], devices[7]):
        fleet.server.group.evict(device.name)
        commit = fleet.server.commit(fleet.now)
        fleet.note_holders(commit)
        fleet.publish(fleet.server.messages(commit))
        root = fleet.server.root
        fleet.roots[commit.epoch] = Known(fleet.server.group.tree.height, 0, *root[1:], root.key)
    assert fleet.is_broken(fleet.server.group.epoch)


def test_spares_are_the_next_keys_for_those_who_stay() -> None:
    """They outlive a restart of the server; whoever steals a member's state has each of them when its time comes."""
    fleet = Fleet(10, 3)
    join(fleet, 7)
    device = fleet.add()
    fleet.carry(device, 3, online=False)
    given = fleet.server.group.spares
    for spare in given:
        fleet.server.restart()
        fleet.server.group.rotate()
        epoch = fleet.commit(lossy=set()).epoch
        assert spare == fleet.server.root.key
        assert fleet.is_broken(epoch, *device.holders[-1].known)
        assert not fleet.is_broken(epoch)


@pytest.mark.parametrize("drops", [True, False])
def test_spares_of_one_who_is_cut_off_are_void(monkeypatch: pytest.MonkeyPatch, *, drops: bool) -> None:
    """A server that goes on with them gives the key away."""
    fleet = Fleet(11, 3)
    join(fleet, 7)
    device, other = fleet.add(), fleet.add()
    fleet.carry(device, 3)
    fleet.carry(other, 1)
    if not drops:
        monkeypatch.setattr(group, "settle", lambda *args, **named: settle(*args, **named | {"shuts_out": False}))
    fleet.server.group.evict(device.name)
    device.ghost = True
    commit = fleet.server.commit(fleet.now)
    fleet.note_holders(commit)
    fleet.publish(fleet.server.messages(commit))
    root = fleet.server.root
    fleet.roots[commit.epoch] = Known(fleet.server.group.tree.height, 0, *root[1:], root.key)
    assert drops != fleet.is_broken(commit.epoch)


def test_a_server_that_does_not_move_keys_on_gives_newcomers_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the one-way step at a join, who joins reads what was sent before."""

    def still(key: bytes, steps: int = 1) -> bytes:
        return key

    fleet = Fleet(9, 3)
    join(fleet, 7)
    assert ratchet(bytes(32)) != still(bytes(32))
    monkeypatch.setattr("brokerkm.core.renewal.ratchet", still)
    newcomer = fleet.add()
    fleet.ask(newcomer, newcomer.join(fleet.now))
    commit = fleet.server.commit(fleet.now)
    fleet.note_holders(commit)
    fleet.publish(fleet.server.messages(commit))
    assert fleet.is_broken(1)
    assert NodeKey(fleet.roots[1].key, 1, 1) == fleet.server.root
