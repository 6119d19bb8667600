"""Beacons and silence, Goodbyes, and messages that are where they do not belong."""

from __future__ import annotations

import pytest
from core.forge import proved, signed
from core.refusal import refused
from core.world import START, World, root_of

from brokerkm.core.events import Evicted, Heard, Joined, Silent
from brokerkm.core.member import Member
from brokerkm.core.notice import GoodbyeReason
from brokerkm.core.policy import Policy
from brokerkm.core.rekey import Beacon
from brokerkm.core.state import State
from brokerkm.errors import Reason, SilentError

SILENCE = 300  # seconds; the default policy's


@pytest.fixture
def world() -> World:
    """Members a, b and c of one group."""
    made = World()
    made.join("a", "b", "c")
    return made


def hear(world: World, name: str, payload: bytes, later: float = 0) -> list[object]:
    """Let a member hear a Beacon some seconds from now."""
    return [*world.members[name].receive(world.topics.beacon, payload, world.now + later)]


def test_silence_is_said_once(world: World) -> None:
    """When more than `max_silence` has passed without a Beacon, the member says so, and when it last heard one."""
    member = world.members["a"]
    assert [] == member.tick(world.now + SILENCE)
    deadline = member.next_deadline
    assert deadline is not None
    assert [Silent(world.now)] == member.tick(deadline)
    assert [] == member.tick(deadline + 1000)
    assert (True, None) == (member.silent, member.next_deadline)


def test_silent_member_does_not_send(world: World) -> None:
    """A broker that withholds rekeys gains no new traffic, whether the member was told the time or not."""
    member = world.members["a"]
    member.seal("plant/1", b"", world.now + SILENCE)
    with pytest.raises(SilentError, match="no beacon of group fleet for more than 300 s"):
        member.seal("plant/1", b"", world.now + SILENCE + 1)


def test_silent_member_sends_where_the_policy_lets_it() -> None:
    """A group may prefer to go on."""
    world = World(policy=Policy(stop_when_silent=False))
    world.join("a")
    member = world.members["a"]
    assert [Silent(world.now)] == member.tick(world.now + SILENCE + 1)
    member.seal("plant/1", b"", world.now + SILENCE + 1)


def test_beacon_ends_the_silence(world: World) -> None:
    """A new Beacon is heard, and sending goes on."""
    member = world.members["a"]
    member.tick(world.now + SILENCE + 1)
    world.now += SILENCE + 1
    assert [Heard()] == hear(world, "a", world.group.beacon(world.now))
    assert not member.silent
    member.seal("plant/1", b"", world.now + SILENCE)


def test_beacon_kept_back_ends_no_silence(world: World) -> None:
    """A Beacon that is older than `max_silence` by the server's clock shows no life, though it is new here."""
    beacon = world.group.beacon(world.now + 1)
    world.members["a"].tick(world.now + SILENCE + 1)
    assert [] == hear(world, "a", beacon, SILENCE + 1.001 + 1)
    assert world.members["a"].silent


def test_age_of_a_beacon_is_by_the_servers_clock() -> None:
    """A member whose clock is an hour behind hears Beacons as fresh as they are, and knows old ones."""
    world = World()
    member = world.create("a")
    world.enroll("a")
    commit = world.group.commit(START, world.random)
    assert [Joined(1)] == member.receive(world.topics.member("a"), commit.welcomes[0][1], START - 3600)
    member.tick(START - 3600 + SILENCE + 1)
    assert [Heard()] == hear(world, "a", world.group.beacon(START + SILENCE + 2), -3600 + SILENCE + 2)
    old = world.group.beacon(START + SILENCE + 3)
    member.tick(START - 3600 + 1000)
    assert [] == hear(world, "a", old, -3600 + 1000)


def test_replayed_beacon_shows_no_life(world: World) -> None:
    """The retained Beacon, delivered again and again, does not put off the silence."""
    beacon = world.retained[world.topics.beacon]
    assert [] == hear(world, "a", beacon, 200)
    assert [Silent(world.now)] == world.members["a"].tick(world.now + SILENCE + 1)
    assert [] == hear(world, "a", beacon, SILENCE + 1)


def test_older_beacon_is_ignored(world: World) -> None:
    """Neither an earlier epoch nor an earlier time is looked at, however it is signed."""
    old = world.retained[world.topics.beacon]
    world.beat()
    world.now += 1
    world.beat()
    before = world.members["a"].dump()
    assert [] == hear(world, "a", old)
    assert [] == hear(world, "a", old[:-1] + bytes((old[-1] ^ 1,)))
    assert before == world.members["a"].dump()


def test_forged_beacon_is_refused(world: World) -> None:
    """Only the server shows life."""
    beacon = world.group.beacon(world.now + 1)
    before = world.members["a"].dump()
    with refused(Reason.BAD_SIGNATURE, "signature"):
        hear(world, "a", beacon[:-1] + bytes((beacon[-1] ^ 1,)))
    assert before == world.members["a"].dump()


def test_beacon_before_joining_is_nothing(world: World) -> None:
    """Without keys there is nothing to compare it with."""
    world.create("d")
    assert [] == hear(world, "d", world.retained[world.topics.beacon])


def test_beacon_of_an_older_root_changes_nothing(world: World) -> None:
    """A Beacon that its Rekey has overtaken is no gap."""
    world.group.evict("c")
    commit = world.commit(without=["a"])
    old = Beacon.decode(world.retained[world.topics.beacon])
    world.members["a"].receive(world.topics.node(0, 0), commit.rekeys[0].payload, world.now)
    late: list[object] = [1, 2, 1, 1, 1, 0, old.time + 1, 30, list(Policy().fields)]
    assert [] == hear(world, "a", signed("brokerkm v1 beacon", ("fleet",), late))
    assert [] == world.members["a"].tick(world.now + 60)
    assert world.root == root_of(world.members["a"])


def test_beacon_of_an_older_step_does_not_move_the_root_back(world: World) -> None:
    """Steps only go up."""
    world.join("d")
    root = root_of(world.members["a"])
    late: list[object] = [1, 2, 2, 1, 1, 0, int(world.now * 1000) + 5, 30, list(Policy().fields)]
    assert [] == hear(world, "a", signed("brokerkm v1 beacon", ("fleet",), late))
    assert (1, root) == (root.step, root_of(world.members["a"]))


def test_silence_goes_on_across_a_restart(world: World) -> None:
    """What was last heard is saved."""
    restarted = Member.load(world.members["a"].dump(), world.random, world.now + SILENCE + 5)
    assert [Silent(world.now)] == restarted.tick(world.now + SILENCE + 5)


def test_goodbye_ends_the_membership(world: World) -> None:
    """The member says why, and nothing of its keys is left in its state."""
    member = world.members["a"]
    path = member._path()
    keys = [
        path.leaf.key,
        *(key.key for key in path.keys),
        member._traffic.opener.accepted[0][2],
        member._memory.kem_seed,
    ]
    assert all(key in member.dump() for key in keys)
    world.evict("a")
    assert (State.EVICTED, None, None) == (member.state, member.slot, member.next_deadline)
    assert [] == [key for key in keys if key in member.dump()]
    assert (world.topics.member("a"),) == member.filters


def test_goodbye_of_an_earlier_membership_is_ignored(world: World) -> None:
    """The Goodbye that a broker still retains does not end what has begun since."""
    world.evict("a")
    old = world.retained[world.topics.member("a")]
    world.join("a")
    assert [] == world.members["a"].receive(world.topics.member("a"), old, world.now)
    assert State.ACTIVE is world.members["a"].state


def test_goodbye_of_the_epoch_that_seated_the_member_is_ignored(world: World) -> None:
    """A join and an earlier eviction may share a commit: a Goodbye ends what was there before its epoch."""
    payload = proved("brokerkm v1 goodbye", ("fleet", "a"), [1, 4, 1, 1, bytes(16)])
    assert [] == world.members["a"].receive(world.topics.member("a"), payload, world.now)
    assert State.ACTIVE is world.members["a"].state


def test_goodbye_without_membership_is_ignored(world: World) -> None:
    """Who is out already, or not in yet, is told nothing new."""
    world.evict("a")
    topic = world.topics.member("a")
    assert [] == world.members["a"].receive(topic, world.retained[topic], world.now)


def test_forged_goodbye_is_refused(world: World) -> None:
    """Nobody but the server sends a member off."""
    payload = proved("brokerkm v1 goodbye", ("fleet", "a"), [1, 4, 9, 1, bytes(16)])
    before = world.members["a"].dump()
    with refused(Reason.BAD_SIGNATURE, "signature"):
        world.members["a"].receive(world.topics.member("a"), payload[:-1] + bytes((payload[-1] ^ 1,)), world.now)
    assert before == world.members["a"].dump()
    expected = [Evicted(GoodbyeReason.EVICTED)]
    assert expected == world.members["a"].receive(world.topics.member("a"), payload, world.now)


@pytest.mark.parametrize("topic", ["n/0/0", "n/1/0", "b", "m/a", "m/b", "r/a"])
def test_cleared_topic_is_nothing(world: World, topic: str) -> None:
    """An empty message says that a retained one was cleared."""
    assert [] == world.members["a"].receive(f"bkm/1/fleet/{topic}", b"", world.now)


@pytest.mark.parametrize(
    ("topic", "kind"),
    [
        *(("n/0/0", kind) for kind in (2, 3, 4, 5, 6, 7, 8, 9)),
        *(("b", kind) for kind in (1, 3, 5, 6, 7, 8, 9, 10)),
        *(("m/a", kind) for kind in (1, 2, 5, 6, 7, 8, 10, 0, 255)),
        *(("r/a", kind) for kind in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)),
    ],
)
def test_message_on_a_topic_of_another_kind_is_refused(world: World, topic: str, kind: int) -> None:
    """Each kind of message has its kind of topic."""
    payload = bytes((0x92, 1)) + (bytes((kind,)) if kind < 128 else b"\xcc" + bytes((kind,)))
    with refused(Reason.WRONG_MESSAGE, "type"):
        world.members["a"].receive(f"bkm/1/fleet/{topic}", payload, world.now)


@pytest.mark.parametrize("kind", [3, 4, 9])
def test_message_for_another_member_is_refused(world: World, kind: int) -> None:
    """What a broker delivers by mistake is not looked into."""
    with refused(Reason.WRONG_TOPIC, "topic"):
        world.members["a"].receive("bkm/1/fleet/m/b", bytes((0x92, 1, kind)), world.now)


@pytest.mark.parametrize("topic", ["bkm/1/other/b", "bkm/1/fleet/x", "bkm/1/"])
def test_reserved_topic_of_no_meaning_is_refused(world: World, topic: str) -> None:
    """Below the prefix there is no application's data."""
    with refused(Reason.WRONG_TOPIC, "topic"):
        world.members["a"].receive(topic, world.members["b"].seal("x", b"", world.now), world.now)


@pytest.mark.parametrize("topic", ["n/0/0", "n/1/0", "b", "m/a"])
def test_noise_is_refused(world: World, topic: str) -> None:
    """What is no message at all changes nothing, wherever it comes."""
    before = world.members["a"].dump()
    for noise in (b"\0", b"\x90", b"\xc1", b"\xff" * 20, bytes(20_000)):
        with pytest.raises(Exception, match=r"message|version"):
            world.members["a"].receive(f"bkm/1/fleet/{topic}", noise, world.now)
    assert before == world.members["a"].dump()


def test_the_end_of_the_group_is_heard_once(world: World) -> None:
    """All keys go; what comes afterwards is nothing, a Beacon of before as well."""
    beacon, farewell = world.group.beacon(world.now + 1), world.group.farewell(bytes)
    for name in ("a", "b", "c"):
        assert [Evicted(GoodbyeReason.DESTROYED)] == hear(world, name, farewell)
        assert [] == hear(world, name, farewell)
        assert [] == hear(world, name, beacon)
        assert State.EVICTED is world.members[name].state


def test_the_end_of_an_earlier_group_is_ignored(world: World) -> None:
    """A group that was recovered from a backup goes on for those whom it has welcomed since."""
    farewell = world.group.farewell(bytes)
    world.enroll("a")
    world.commit()
    assert [] == hear(world, "a", farewell)
    assert [Evicted(GoodbyeReason.DESTROYED)] == hear(world, "b", farewell)
