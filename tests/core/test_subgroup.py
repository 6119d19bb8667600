"""Messages from the server to some members only."""

from __future__ import annotations

import itertools
from random import Random

import pytest
from core.forge import SERVER_KEY, bound, expand, head, replaced, signed
from core.refusal import refused
from core.world import START, World
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from brokerkm.core.crypto import load_signing_key
from brokerkm.core.events import SubgroupReceived
from brokerkm.core.member import Member
from brokerkm.core.subgroup import Subgroup
from brokerkm.core.welcome import NodeKey
from brokerkm.errors import Reason, RefusedError, UsageError

NODE = NodeKey(b"k" * 32, 7, 2)
SALT = b"saltsaltsaltsalt"
LABEL = "brokerkm v1 subgroup"
FIELDS: list[object] = [1, 10, 1000, None, 7, 2, SALT, bytes(20)]


@pytest.fixture
def world() -> World:
    """Members m0 to m7 of a group of degree 2."""
    made = World(degree=2)
    made.join(*(f"m{number}" for number in range(8)))
    return made


def deliver(world: World, names: list[str]) -> dict[str, bytes]:
    """Send "secret" to `names`, and return what each member of the group got of it."""
    got: dict[str, bytes] = {}
    for sent in world.group.seal_for(names, b"secret", world.now, world.random):
        topic = world.topics.node(sent.level, sent.index)
        for name, member in world.members.items():
            if topic in member.filters:
                for event in member.receive(topic, sent.payload, world.now):
                    assert isinstance(event, SubgroupReceived)
                    assert (topic, False) == (event.topic, name in got)
                    got[name] = event.payload
    return got


def by_hand(context: tuple[str, int, int] = ("fleet", 2, 0), slot: int | None = None) -> bytes:
    """Return a message made with plain msgpack and `cryptography`."""
    fields: list[object] = [1, 10, 1000, slot, 7, 2, SALT]
    key = expand(NODE.key, bound(LABEL, SALT))
    ciphertext = AESGCM(key).encrypt(bytes(12), b"secret", bound(LABEL, *context) + head(fields, 2))
    return signed(LABEL, context, [*fields, ciphertext])


@pytest.mark.parametrize("slot", [None, 5])
def test_message_is_encoded_as_specified(slot: int | None) -> None:
    """The bytes are those that the specification leads to."""
    context = ("fleet", 0 if slot else 2, 0)
    actual = Subgroup.seal(load_signing_key(b"s" * 32), context, NODE, b"secret", slot=slot, time=1000, salt=SALT)
    assert by_hand(context, slot) == actual


def test_message_is_read() -> None:
    """A member with the node's key reads what was written."""
    message = Subgroup.decode(by_hand(), 2)
    message.verify(SERVER_KEY, ("fleet", 2, 0))
    assert b"secret" == message.open(NODE.key, ("fleet", 2, 0))
    expected = (1000, None, 7, 2, SALT)
    assert expected == (message.time, message.slot, message.birth, message.step, message.salt)


@pytest.mark.parametrize("context", [("fleet2", 2, 0), ("fleet", 1, 0), ("fleet", 2, 1)])
def test_message_of_another_topic_is_refused(context: tuple[str, int, int]) -> None:
    """Group and node are bound by signature and tag."""
    message = Subgroup.decode(by_hand(), 2)
    with refused(Reason.BAD_SIGNATURE, "signature"):
        message.verify(SERVER_KEY, context)
    with refused(Reason.BAD_SEAL, "ciphertext"):
        message.open(NODE.key, context)


def test_message_under_another_key_is_refused() -> None:
    """Another node's key does not open it."""
    with refused(Reason.BAD_SEAL, "ciphertext"):
        Subgroup.decode(by_hand(), 2).open(bytes(32), ("fleet", 2, 0))


@pytest.mark.parametrize(
    ("place", "value", "reason", "field"),
    [
        (2, -1, Reason.OUT_OF_RANGE, "time"),
        (3, 5, Reason.WRONG_TYPE, "slot"),
        (4, 0, Reason.OUT_OF_RANGE, "birth"),
        (5, 65536, Reason.OUT_OF_RANGE, "step"),
        (6, SALT[1:], Reason.WRONG_LENGTH, "salt"),
        (7, None, Reason.WRONG_TYPE, "ciphertext"),
    ],
)
def test_malformed_message_is_refused(place: int, value: object, reason: Reason, field: str) -> None:
    """Each field has its type, length and range."""
    with refused(reason, field):
        Subgroup.decode(signed(LABEL, ("fleet", 2, 0), replaced(FIELDS, place, value)), 2)


@pytest.mark.parametrize(("slot", "reason"), [(None, Reason.WRONG_TYPE), (1 << 24, Reason.OUT_OF_RANGE)])
def test_message_on_a_bucket_names_a_slot(slot: int | None, reason: Reason) -> None:
    """Under a leaf's key, the message says whose."""
    with refused(reason, "slot"):
        Subgroup.decode(signed(LABEL, ("fleet", 0, 0), replaced(FIELDS, 3, slot)), 0)


@pytest.mark.parametrize("size", range(1, 9))
def test_exactly_the_named_members_read_it(world: World, size: int) -> None:
    """Whatever the set, its members get the payload once, and nobody else gets it."""
    sets = list(itertools.combinations(sorted(world.members), size))
    for chosen in Random(size).sample(sets, min(6, len(sets))):
        assert dict.fromkeys(chosen, b"secret") == deliver(world, [*chosen])


def test_members_follow_after_joins_and_evictions(world: World) -> None:
    """A node whose key has moved on since is still opened by its members."""
    world.evict("m7")
    world.join("m8")
    assert dict.fromkeys(("m6", "m8"), b"secret") == deliver(world, ["m6", "m8"])
    assert {"m6": b"secret"} == deliver(world, ["m6"])


def test_outsider_cannot_open(world: World) -> None:
    """A member below another node has no key for it, though it sees the bytes."""
    (sent,) = world.group.seal_for(["m0", "m1"], b"secret", world.now, world.random)
    topic = world.topics.node(sent.level, sent.index)
    with refused(Reason.WRONG_TOPIC, "topic"):
        world.members["m2"].receive(topic, sent.payload, world.now)
    message = Subgroup.decode(sent.payload, sent.level)
    path = world.members["m2"]._path()
    for key in (path.leaf, *path.keys):
        with refused(Reason.BAD_SEAL, "ciphertext"):
            message.open(key.key, ("fleet", sent.level, sent.index))


def test_neighbour_in_the_bucket_cannot_open(world: World) -> None:
    """A leaf's message comes to the whole bucket; the neighbour passes over it, and has no key for it."""
    (sent,) = world.group.seal_for(["m0"], b"secret", world.now, world.random)
    topic = world.topics.node(0, 0)
    assert (0, 0) == (sent.level, sent.index)
    assert [] == world.members["m1"].receive(topic, sent.payload, world.now)
    assert [SubgroupReceived(topic, b"secret")] == world.members["m0"].receive(topic, sent.payload, world.now)


def test_stranger_has_no_such_topic(world: World) -> None:
    """Who has not joined is in no subgroup."""
    world.create("m9")
    (sent,) = world.group.seal_for(["m0"], b"secret", world.now, world.random)
    with refused(Reason.WRONG_TOPIC, "topic"):
        world.members["m9"].receive(world.topics.node(0, 0), sent.payload, world.now)


@pytest.mark.parametrize("names", [["m0"], ["m0", "m1"], [f"m{number}" for number in range(8)]])
def test_replay_is_refused(world: World, names: list[str]) -> None:
    """Each message is taken once, and none older than the newest."""
    older, newer = (world.group.seal_for(names, b"secret", world.now, world.random)[0] for _ in range(2))
    topic = world.topics.node(newer.level, newer.index)
    member = world.members["m0"]
    assert 1 == len(member.receive(topic, newer.payload, world.now))
    for sent in (newer, older):
        with refused(Reason.REPLAY, "time"):
            member.receive(topic, sent.payload, world.now)


def test_replay_after_a_restart_is_refused(world: World) -> None:
    """What was taken is part of what is saved; the next message is still read."""
    taken, later = (world.group.seal_for(["m0", "m1"], b"secret", world.now, world.random)[0] for _ in range(2))
    topic = world.topics.node(taken.level, taken.index)
    version = world.members["m0"].version
    world.members["m0"].receive(topic, taken.payload, world.now)
    assert version < world.members["m0"].version
    restarted = Member.load(world.members["m0"].dump(), world.random, world.now)
    with refused(Reason.REPLAY, "time"):
        restarted.receive(topic, taken.payload, world.now)
    assert [SubgroupReceived(topic, b"secret")] == restarted.receive(topic, later.payload, world.now)


def test_times_of_a_lost_path_are_forgotten(world: World) -> None:
    """After a Welcome for another slot, only the topics that are still the member's own are remembered."""
    for names in (["m1"], [f"m{number}" for number in range(8)]):
        deliver(world, names)
    assert {(0, 0), (3, 0)} == set(world.members["m1"]._memory.subgroup_times)
    world.group.evict("m1")
    world.group.evict("m5")
    world.commit(without=["m1"])
    world.join("m8")
    world.join("m1")
    assert {(3, 0)} == set(world.members["m1"]._memory.subgroup_times)


def test_forged_message_is_refused(world: World) -> None:
    """An insider with the node's key cannot speak for the server; the true message is still taken."""
    (sent,) = world.group.seal_for(["m0", "m1"], b"secret", world.now, world.random)
    topic = world.topics.node(sent.level, sent.index)
    forged = sent.payload[:-1] + bytes((sent.payload[-1] ^ 1,))
    with refused(Reason.BAD_SIGNATURE, "signature"):
        world.members["m0"].receive(topic, forged, world.now)
    assert 1 == len(world.members["m0"].receive(topic, sent.payload, world.now))


def test_message_of_a_version_that_is_not_held_is_refused(world: World) -> None:
    """A member that has missed a rekey cannot open what is under the newer key."""
    world.group.evict("m2")
    world.commit(without=["m0"])
    sent = world.group.seal_for(["m0", "m1", "m3"], b"secret", world.now, world.random)[0]
    with pytest.raises(RefusedError):
        world.members["m0"].receive(world.topics.node(sent.level, sent.index), sent.payload, world.now)


def test_payload_of_16000_bytes_fits(world: World) -> None:
    """The largest payload makes a message within 16 KiB, and arrives."""
    (sent,) = world.group.seal_for(["m0"], bytes(16_000), world.now, world.random)
    assert len(sent.payload) <= 16 * 1024
    assert 1 == len(world.members["m0"].receive(world.topics.node(0, 0), sent.payload, world.now))


def test_larger_payload_is_refused(world: World) -> None:
    """One byte more is the caller's mistake."""
    with pytest.raises(UsageError, match="at most 16000 bytes, not 16001"):
        world.group.seal_for(["m0"], bytes(16_001), START, world.random)


def test_subgroup_of_nobody_is_refused(world: World) -> None:
    """A subgroup has members."""
    with pytest.raises(UsageError, match="at least one member"):
        world.group.seal_for([], b"", START, world.random)


def test_subgroup_with_a_stranger_is_refused(world: World) -> None:
    """All of a subgroup are members of the group."""
    with pytest.raises(UsageError, match="'ghost' is not a member of group fleet"):
        world.group.seal_for(["m0", "ghost"], b"", START, world.random)
