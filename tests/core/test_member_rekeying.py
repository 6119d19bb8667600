"""How a member follows the group: Rekeys in any order, Beacons, gaps and recovery."""

from __future__ import annotations

import itertools

import pytest
from core.forge import data, proved
from core.refusal import refused
from core.world import World, root_of
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from brokerkm.core.events import Cause, Evicted, Joined, Recovered, Rekeyed, Stale, Synced, Unreadable
from brokerkm.core.member import Member
from brokerkm.core.notice import GoodbyeReason
from brokerkm.core.state import State
from brokerkm.errors import EvictedError, NotJoinedError, Reason, StaleError

HOLD = 5  # seconds; the default policy's


@pytest.fixture
def world() -> World:
    """Eight members m0 to m7 of a group of degree 2."""
    made = World(degree=2)
    made.join(*(f"m{number}" for number in range(8)))
    return made


def rekey(world: World, level: int, index: int, *, epoch: int, height: int, entry: list[object], chain: bytes) -> bytes:
    """Return a Rekey that the server has signed, though it would never make it."""
    fields: list[object] = [1, 1, epoch, height, [entry], chain]
    return proved("brokerkm v1 rekey", ("fleet", level, index), fields)


def test_rekey_is_followed(world: World) -> None:
    """Every remaining member has the new root after an eviction, and says so once."""
    world.group.evict("m5")
    events = world.publish(world.group.commit(world.now, world.random))
    expected = {f"m{number}": [Rekeyed(2)] for number in range(8) if number != 5} | {
        "m5": [Evicted(GoodbyeReason.EVICTED)]
    }
    assert expected == events
    assert {world.root} == {root_of(member) for name, member in world.members.items() if name != "m5"}


def test_join_moves_the_root_by_its_beacon(world: World) -> None:
    """A join that costs no Rekey is followed by the Beacon's step, without an event."""
    world.evict("m7")
    world.enroll("m8")
    events = world.publish(world.group.commit(world.now, world.random))
    assert {"m8": [Joined(3)]} == {name: found for name, found in events.items() if found}
    assert (1, {world.root}) == (
        world.root.step,
        {root_of(world.members[name]) for name in ("m0", "m6", "m8")},
    )


def test_member_knows_that_it_is_behind(world: World) -> None:
    """A Beacon of a newer root shows that something is missing, and the Rekey makes up for it."""
    world.group.evict("m5")
    commit = world.commit(without={"m0"})
    member = world.members["m0"]
    member.receive(world.topics.beacon, commit.beacon, world.now)
    behind = member.behind
    world.fetch("m0")
    assert (True, False) == (behind, member.behind)


def test_growth_is_followed(world: World) -> None:
    """The old root's topic carries the new root, several levels up at once."""
    names = [f"n{number}" for number in range(20)]
    world.join(*names)
    assert 5 == world.group.tree.height
    assert {world.root} == {root_of(member) for member in world.members.values()}


def test_old_rekey_is_ignored(world: World) -> None:
    """A retained Rekey that was applied already comes again with every subscription."""
    world.evict("m5")
    before = world.members["m0"].dump()
    assert [] == world.fetch("m0")
    assert before == world.members["m0"].dump()


def test_forged_rekey_is_refused(world: World) -> None:
    """An insider who holds the keys cannot sign for the server."""
    commit = world.group.prepare(world.now, world.random)
    world.group.rotate()
    commit = world.group.prepare(world.now, world.random)
    forged = bytearray(commit.rekeys[0].payload)
    forged[-1] ^= 1
    before = world.members["m0"].dump()
    with refused(Reason.BAD_SIGNATURE, "signature"):
        world.members["m0"].receive(world.topics.node(2, 0), bytes(forged), world.now)
    assert before == world.members["m0"].dump()


def test_rekey_on_another_topic_is_refused(world: World) -> None:
    """A member takes Rekeys from the topics of its own path, and each from its own topic."""
    world.group.rotate()
    one, other = world.group.prepare(world.now, world.random).rekeys
    assert [(2, 0), (2, 1)] == [(rekey.level, rekey.index) for rekey in (one, other)]
    with refused(Reason.WRONG_TOPIC, "topic"):
        world.members["m0"].receive(world.topics.node(2, 1), other.payload, world.now)
    with refused(Reason.WRONG_TOPIC, "topic"):
        world.members["m0"].receive(world.topics.node(4, 0), other.payload, world.now)
    with refused(Reason.BAD_SIGNATURE, "signature"):
        world.members["m0"].receive(world.topics.node(2, 0), other.payload, world.now)


def test_rekey_before_joining_is_refused(world: World) -> None:
    """Who has no path has no topics of nodes."""
    world.create("m8")
    world.evict("m0")
    topic = world.topics.node(0, 0)
    with refused(Reason.WRONG_TOPIC, "topic"):
        world.members["m8"].receive(topic, world.retained[topic], world.now)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_retained_rekeys_are_applied_in_any_order(order: tuple[int, ...]) -> None:
    """A member that slept through several commits catches up from the retained messages, however they come."""
    world = World(degree=2)
    world.join(*(f"m{number}" for number in range(8)))
    asleep = ["m0"]
    for name in ("m1", "m3", "m7"):  # each renews more of m0's path than the next
        world.group.evict(name)
        world.commit(without=asleep)
    member = world.members["m0"]
    topics = [topic for topic in member.filters if topic in world.retained and "/n/" in topic]
    topics.append(world.topics.beacon)
    assert 4 == len(topics)
    for place in order:
        member.receive(topics[place], world.retained[topics[place]], world.now)
    assert (world.root, 4, State.ACTIVE) == (root_of(member), member.epoch, member.state)
    assert [] == member.tick(world.now + HOLD)


def test_pending_rekey_gives_way_to_a_newer_one_only(world: World) -> None:
    """Of two Rekeys that wait on one topic the newer is kept, in whatever order they come."""
    world.group.evict("m1")
    world.commit(without=["m0"])
    topic, waiting = world.topics.node(2, 0), list[bytes]()
    for _ in range(2):
        world.group.rotate()
        world.commit(without=["m0"])
        waiting.append(world.retained[topic])
    for payload in (*waiting, waiting[0]):
        assert [] == world.members["m0"].receive(topic, payload, world.now)
    assert [4] == [rekey.epoch for rekey in world.members["m0"]._catch_up._waiting.values()]


def test_waiting_rekey_that_contradicts_is_dropped(world: World) -> None:
    """A Rekey that turns out wrong when its key is there goes away, and the rest is kept."""
    world.group.evict("m1")
    world.commit(without=["m0"])
    member = world.members["m0"]
    bad = rekey(world, 2, 0, epoch=9, height=3, entry=[None, 2, 0, bytes(40)], chain=b"")
    assert [] == member.receive(world.topics.node(2, 0), bad, world.now)
    assert [Rekeyed(2)] == world.fetch("m0")
    assert (world.root, {}) == (root_of(member), member._catch_up._waiting)


@pytest.mark.parametrize(
    ("entry", "height", "reason", "field"),
    [
        ([None, 1, 0, bytes(40)], 3, Reason.BAD_SEAL, "entries.wrapped"),
        ([None, 1, 0, bytes(40)], 2, Reason.OUT_OF_RANGE, "height"),
        ([None, 0, 0, bytes(40)], 3, Reason.OUT_OF_RANGE, "entries.birth"),
    ],
)
def test_rekey_that_contradicts_is_refused(
    world: World, entry: list[object], height: int, reason: Reason, field: str
) -> None:
    """Even a signed Rekey changes nothing if its keys do not open or its tree is smaller."""
    bad = rekey(world, 1, 0, epoch=9, height=height, entry=entry, chain=bytes(40 * (height - 2)))
    before = world.members["m0"].dump()
    with refused(reason, field):
        world.members["m0"].receive(world.topics.node(1, 0), bad, world.now)
    assert before == world.members["m0"].dump()


@pytest.mark.parametrize("what", ["birth", "step"])
def test_rekey_of_a_version_that_is_gone_is_refused(world: World, what: str) -> None:
    """An entry for an older key than the one held is wrong: keys do not go back."""
    member = world.members["m0"]
    world.evict("m7")
    world.evict("m1")
    world.join("m9")
    world.group.rotate()
    world.commit()
    birth, step = member._path().keys[1][1:]
    assert (3, 1) == (birth, step)
    entry: list[object] = [None, birth - 1, step, bytes(40)] if what == "birth" else [None, birth, 0, bytes(40)]
    bad = rekey(world, 2, 0, epoch=9, height=3, entry=entry, chain=b"")
    before = member.dump()
    with refused(Reason.WRONG_BIRTH, "birth"):
        member.receive(world.topics.node(2, 0), bad, world.now)
    assert before == member.dump()


def test_broken_chain_is_refused(world: World) -> None:
    """All of a Rekey is taken, or nothing."""
    key = world.members["m0"]._path().keys[0]
    entry: list[object] = [None, key.birth, key.step, aes_key_wrap(key.key, b"n" * 32)]
    bad = rekey(world, 1, 0, epoch=9, height=3, entry=entry, chain=bytes(40))
    before = world.members["m0"].dump()
    with refused(Reason.BAD_SEAL, "chain"):
        world.members["m0"].receive(world.topics.node(1, 0), bad, world.now)
    assert before == world.members["m0"].dump()


def test_missing_rekey_makes_stale_after_hold(world: World) -> None:
    """A Beacon of another root is a gap; after `hold` the member does not send, until the Rekey comes."""
    world.group.evict("m5")
    commit = world.commit(without=["m0"])
    member = world.members["m0"]
    assert [] == member.receive(world.topics.beacon, commit.beacon, world.now)
    assert world.now + HOLD == member.next_deadline
    assert [] == member.tick(world.now + HOLD - 0.001)
    assert [Stale(Cause.BEACON)] == member.tick(world.now + HOLD)
    assert member.state == "stale"
    with pytest.raises(StaleError, match="m0 has missed a rekey of group fleet"):
        member.seal("plant/1", b"", world.now)
    assert [] == member.tick(world.now + 2 * HOLD)
    assert [Rekeyed(2), Recovered(2)] == world.fetch("m0")
    assert member.state == "active"


def test_gap_that_ends_within_hold_is_nothing(world: World) -> None:
    """Topics are not ordered among each other: a Beacon may overtake its Rekey."""
    world.group.evict("m5")
    commit = world.commit(without=["m0"])
    world.members["m0"].receive(world.topics.beacon, commit.beacon, world.now)
    assert [Rekeyed(2)] == world.fetch("m0")
    assert [] == world.members["m0"].tick(world.now + HOLD)


def test_rekey_ahead_makes_stale(world: World) -> None:
    """A Rekey that needs a missing key is a gap as well."""
    world.group.evict("m1")
    world.commit(without=["m0"])
    world.group.rotate()
    commit = world.commit(without=["m0"])
    topic = world.topics.node(2, 0)
    assert topic in dict(world.messages(commit))
    world.members["m0"].receive(topic, world.retained[topic], world.now)
    assert [Stale(Cause.REKEY)] == world.members["m0"].tick(world.now + HOLD)
    world.fetch("m0")
    assert (State.ACTIVE, world.root) == (world.members["m0"].state, root_of(world.members["m0"]))


def test_gap_goes_on_from_when_it_was_first_seen(world: World) -> None:
    """Later Beacons do not put off the moment."""
    world.group.evict("m5")
    world.commit(without=["m0"])
    first = world.now
    for _ in range(3):
        world.beat()
        world.now += 1
    assert first + HOLD == world.members["m0"].next_deadline


def test_member_that_is_left_out_is_stale(world: World) -> None:
    """An evicted member whose Goodbye is withheld notices by the Rekey without an entry for it."""
    world.group.evict("m1")
    commit = world.commit(without=["m1"])
    topic = world.topics.node(0, 0)
    assert [] == world.members["m1"].receive(topic, dict(world.messages(commit))[topic], world.now)
    assert [Stale(Cause.REKEY)] == world.members["m1"].tick(world.now + HOLD)
    assert [Evicted(GoodbyeReason.EVICTED)] == world.fetch("m1")[:1]


def test_member_that_was_given_another_slot_waits_for_nothing_below_the_old_one(world: World) -> None:
    """An eviction of which only the Rekey arrived, and a Join since: the Welcome for another slot ends the gap."""
    world.evict("m7")
    member, old = world.members["m1"], world.topics.node(0, 0)
    world.group.evict("m1")
    commit = world.commit(without=["m1"])
    member.receive(old, dict(world.messages(commit))[old], world.now)
    world.join("m8")
    world.enroll("m1")
    events = world.publish(world.group.commit(world.now, world.random))["m1"]
    assert [Synced(5)] == [event for event in events if isinstance(event, Synced)]
    assert (1, 7, {}) == (world.group.directory.slot("m8"), member.slot, member._catch_up._waiting)
    assert [] == member.tick(world.now + HOLD)


def test_data_under_an_unknown_key_is_said_once_in_a_while(world: World) -> None:
    """Anybody can forge a header: it never moves the state, and is worth a word once in `max_silence` seconds."""
    member = world.members["m0"]
    said: list[list[bool]] = []
    for _ in range(3):
        forged = data((bytes(32), 99, 0), "plant/1", b"")
        member.receive("plant/1", forged, world.now)
        said.append([isinstance(event, Unreadable) for event in member.tick(world.now + HOLD)])
        assert (State.ACTIVE, False) == (member.state, member.behind)
        world.now += 200
        world.beat()
    assert [[False, True], [False], [False, True]] == said


def test_what_was_unreadable_is_explained_by_the_beacon(world: World) -> None:
    """A member that missed a Rekey is told so by the retained Beacon, which is signed."""
    world.group.evict("m5")
    commit = world.commit(without=["m0"])
    member = world.members["m0"]
    member.receive("plant/1", world.members["m2"].seal("plant/1", b"", world.now), world.now)
    assert Unreadable() in member.tick(world.now + HOLD)
    member.receive(world.topics.beacon, commit.beacon, world.now + HOLD)
    assert [Stale(Cause.BEACON)] == member.tick(world.now + 2 * HOLD)
    for topic in member.filters:
        if "/n/" in topic and topic in world.retained:
            assert [Rekeyed(2), Recovered(2)] == member.receive(topic, world.retained[topic], world.now)


def test_seal_says_why_it_cannot(world: World) -> None:
    """Before joining and after eviction there is no key to seal with."""
    world.create("m8")
    with pytest.raises(NotJoinedError, match="m8 has not joined group fleet"):
        world.members["m8"].seal("plant/1", b"", world.now)
    world.evict("m0")
    with pytest.raises(EvictedError, match="m0 is out of group fleet: join again"):
        world.members["m0"].seal("plant/1", b"", world.now)


def test_saved_state_is_due_when_keys_have_changed(world: World) -> None:
    """The version counts up with every change that a restart must know of."""
    versions = [world.members["m0"].version]
    world.evict("m5")
    versions.append(world.members["m0"].version)
    world.fetch("m0")
    versions.append(world.members["m0"].version)
    world.members["m0"].sync(world.now)
    versions.append(world.members["m0"].version)
    assert [True, False, True] == [one < two for one, two in itertools.pairwise(versions)]


def test_restarted_member_catches_up(world: World) -> None:
    """A member restored from its state takes the retained messages without asking anyone."""
    saved = world.members["m0"].dump()
    for name in ("m1", "m6"):
        world.evict(name)
    world.members["m0"] = Member.load(saved, world.random, world.now)
    assert [Rekeyed(2), Rekeyed(3)] == [event for event in world.fetch("m0") if isinstance(event, Rekeyed)]
    assert world.root == root_of(world.members["m0"])
