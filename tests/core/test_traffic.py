"""Application messages between members: older keys, newer keys, later steps, and what is kept for how long."""

from __future__ import annotations

import msgpack
import pytest
from core.forge import data
from core.refusal import refused
from core.world import World, root_of

from brokerkm.core.crypto import ratchet
from brokerkm.core.events import Dropped, MessageReceived, Rekeyed, Unreadable
from brokerkm.core.member import Member
from brokerkm.core.policy import Policy
from brokerkm.core.state import State
from brokerkm.errors import Reason, RefusedError


@pytest.fixture
def world() -> World:
    """Members a, b, c and d of one group."""
    made = World(degree=8)
    made.join("a", "b", "c", "d")
    return made


def received(sender: str, payload: bytes, birth: int, topic: str = "plant/1") -> MessageReceived:
    """Return the event of one message."""
    return MessageReceived(topic, sender, payload, birth)


def test_message_is_received(world: World) -> None:
    """What one member seals, another opens, first and later."""
    expected = [received("a", text, 1) for text in (b"one", b"two", b"")]
    assert expected == [event for text in (b"one", b"two", b"") for event in world.send("a", "b", text)]


def test_member_opens_its_own_messages(world: World) -> None:
    """A broker that echoes a message to its sender does no harm."""
    assert [received("a", b"echo", 1)] == world.send("a", "a", b"echo")


def test_message_built_from_the_specification_is_received(world: World) -> None:
    """Bytes made without the codec under test open under the group's key."""
    message = data(world.root, "plant/1", b"21.4", sender="a")
    assert [received("a", b"21.4", 1)] == world.members["b"].receive("plant/1", message, world.now)


def test_message_before_joining_is_nothing(world: World) -> None:
    """Who has no keys cannot tell Data from noise."""
    message = world.members["a"].seal("plant/1", b"", world.now)
    assert [] == world.create("e").receive("plant/1", message, world.now)


@pytest.mark.parametrize("first", [True, False])
def test_replay_is_refused(world: World, *, first: bool) -> None:
    """The same bytes are received once, on the thorough way and on the short one."""
    if not first:
        world.send("a", "b", b"earlier")
    message = world.members["a"].seal("plant/1", b"x", world.now)
    world.members["b"].receive("plant/1", message, world.now)
    for _ in range(2):
        with refused(Reason.REPLAY, "counter"):
            world.members["b"].receive("plant/1", message, world.now)


def test_replay_after_a_rekey_is_refused(world: World) -> None:
    """The window of a sender goes on across traffic keys."""
    message = world.members["a"].seal("plant/1", b"x", world.now)
    world.members["b"].receive("plant/1", message, world.now)
    world.evict("d")
    with refused(Reason.REPLAY, "counter"):
        world.members["b"].receive("plant/1", message, world.now)


def test_replay_after_a_restart_is_refused(world: World) -> None:
    """The window is part of what is saved; what was not seen yet still opens."""
    seen, unseen = (world.members["a"].seal("plant/1", text, world.now) for text in (b"seen", b"unseen"))
    world.members["b"].receive("plant/1", seen, world.now)
    restarted = Member.load(world.members["b"].dump(), world.random, world.now)
    with refused(Reason.REPLAY, "counter"):
        restarted.receive("plant/1", seen, world.now)
    assert [received("a", b"unseen", 1)] == restarted.receive("plant/1", unseen, world.now)


def test_sender_starts_anew_after_a_restart(world: World) -> None:
    """A restarted sender draws another salt, so that no nonce is used twice and nothing is taken for a replay."""
    world.send("a", "b", b"before")
    world.members["a"] = Member.load(world.members["a"].dump(), world.random, world.now)
    assert [received("a", b"after", 1)] == world.send("a", "b", b"after")


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("place", [-1, -20, 5, 12])
def test_changed_message_is_refused(world: World, place: int, *, known: bool) -> None:
    """A bit changed in header or ciphertext opens nothing; the original still does."""
    if known:
        world.send("a", "b", b"earlier")
    message = world.members["a"].seal("plant/1", b"value", world.now)
    changed = bytearray(message)
    changed[place] ^= 1
    with pytest.raises(RefusedError):
        world.members["b"].receive("plant/1", bytes(changed), world.now)
    assert [received("a", b"value", 1)] == world.members["b"].receive("plant/1", message, world.now)


@pytest.mark.parametrize("known", [True, False])
def test_message_moved_to_another_topic_is_refused(world: World, *, known: bool) -> None:
    """A broker cannot pass one topic's message off as another's."""
    if known:
        world.send("a", "b", b"", topic="plant/2")
    message = world.members["a"].seal("plant/1", b"value", world.now)
    with refused(Reason.BAD_SEAL, "ciphertext"):
        world.members["b"].receive("plant/2", message, world.now)


def test_malformed_message_of_a_known_sender_is_refused(world: World) -> None:
    """The short way lets nothing pass that the thorough one refuses."""
    root, bob = root_of(world.members["a"]), world.members["b"]
    good = data(root, "plant/1", b"value", sender="a")
    bob.receive("plant/1", good, world.now)
    start, counter = good[:17], good[17:18]
    assert b"\0" == counter
    for encoded, reason, field in (
        (b"\xc3", Reason.WRONG_TYPE, "counter"),
        (b"\xff", Reason.OUT_OF_RANGE, "counter"),
        (b"\xcc\x05", Reason.NOT_CANONICAL, "message"),
    ):
        with refused(reason, field):
            bob.receive("plant/1", start + encoded + good[18:], world.now)
    with refused(Reason.WRONG_TYPE, "ciphertext"):
        bob.receive("plant/1", start + b"\x05\xb5" + b"x" * 21, world.now)
    with refused(Reason.TRAILING, "message"):
        bob.receive("plant/1", good + b"\0", world.now)
    with refused(Reason.NOT_CANONICAL, "message"):
        bob.receive("plant/1", start + b"\x05\xc5\x00\x15" + good[20:], world.now)


def test_older_key_is_accepted_for_its_grace(world: World) -> None:
    """A message that a rekey overtook is still received, until the policy's grace has passed."""
    late, too_late = (world.members["b"].seal("plant/1", text, world.now) for text in (b"late", b"too late"))
    world.evict("d")
    alice = world.members["a"]
    assert world.now + 30 == alice.next_deadline
    alice.tick(world.now + 29.999)
    assert [received("b", b"late", 1)] == alice.receive("plant/1", late, world.now + 29.999)
    alice.tick(world.now + 30)
    with refused(Reason.OLD, "birth"):
        alice.receive("plant/1", too_late, world.now + 30)


def test_grace_goes_on_across_a_restart(world: World) -> None:
    """A saved older key ends when it would have ended."""
    late, too_late = (world.members["b"].seal("plant/1", text, world.now) for text in (b"late", b"too late"))
    world.evict("d")
    restarted = Member.load(world.members["a"].dump(), world.random, world.now + 20)
    assert [received("b", b"late", 1)] == restarted.receive("plant/1", late, world.now + 20)
    restarted.tick(world.now + 30)
    with refused(Reason.OLD, "birth"):
        restarted.receive("plant/1", too_late, world.now + 30)
    assert [received("b", b"now", 2)] == restarted.receive(
        "plant/1", world.members["b"].seal("plant/1", b"now", world.now), world.now + 31
    )


def test_newer_key_waits_for_its_rekey(world: World) -> None:
    """Data that comes before the Rekey is received when that comes."""
    world.group.evict("d")
    commit = world.commit(without=["a"])
    alice = world.members["a"]
    assert [] == world.send("b", "a", b"early")
    assert world.now + 5 == alice.next_deadline
    events = [
        event for topic, payload in world.messages(commit)[:1] for event in alice.receive(topic, payload, world.now)
    ]
    assert [Rekeyed(2), received("b", b"early", 2)] == events


def test_newer_key_that_does_not_come_is_given_up(world: World) -> None:
    """After `hold` the message is dropped, and the member says that it may have missed something."""
    world.group.evict("d")
    world.commit(without=["a"])
    world.send("b", "a", b"early")
    alice = world.members["a"]
    assert [] == alice.tick(world.now + 4.999)
    assert [Dropped("plant/1", Reason.WRONG_BIRTH), Unreadable()] == alice.tick(world.now + 5)
    assert State.ACTIVE is alice.state


def test_forgery_that_waited_is_dropped(world: World) -> None:
    """When the key comes, what was held is checked like anything else."""
    world.group.evict("d")
    commit = world.commit(without=["a"])
    message = bytearray(world.members["b"].seal("plant/1", b"early", world.now))
    message[-1] ^= 1
    alice = world.members["a"]
    alice.receive("plant/1", bytes(message), world.now)
    topic, payload = world.messages(commit)[0]
    assert [Rekeyed(2), Dropped("plant/1", Reason.BAD_SEAL)] == alice.receive(topic, payload, world.now)


def test_message_of_a_still_newer_key_waits_on(world: World) -> None:
    """Two epochs ahead, a message waits through the first Rekey for the second."""
    for name in ("d", "c"):
        world.group.evict(name)
        world.commit(without=["a"])
        world.send("b", "a", name.encode())
    bucket = world.topics.node(0, 0)
    events = world.members["a"].receive(bucket, world.retained[bucket], world.now)
    assert [Rekeyed(3), Dropped("plant/1", Reason.OLD), received("b", b"c", 3)] == events


def test_held_message_stays_held_while_an_older_rekey_comes(world: World) -> None:
    """The Rekey in between opens its own messages only."""
    rekeys = []
    for name in ("d", "c"):
        world.group.evict(name)
        rekeys.append(world.messages(world.commit(without=["a"]))[0])
        world.send("b", "a", name.encode())
    alice = world.members["a"]
    assert [Rekeyed(2), received("b", b"d", 2)] == alice.receive(*rekeys[0], world.now)
    assert [Rekeyed(3), received("b", b"c", 3)] == alice.receive(*rekeys[1], world.now)


@pytest.mark.parametrize(("size", "kept"), [(1, 256), (300_000, 3), (600_000, 1), (1_100_000, 0)])
def test_waiting_room_is_bounded(world: World, size: int, kept: int) -> None:
    """At most 256 messages and 1 MiB wait; the oldest make room, and are said to be dropped."""
    world.group.evict("d")
    commit = world.commit(without=["a"])
    sent = kept + 3
    events = [event for _ in range(sent) for event in world.send("b", "a", bytes(size))]
    assert [Dropped("plant/1", Reason.WRONG_BIRTH)] * 3 == events
    topic, payload = world.messages(commit)[0]
    assert [Rekeyed(2)] + [received("b", bytes(size), 2)] * kept == world.members["a"].receive(
        topic, payload, world.now
    )


def test_message_of_a_later_step_is_opened_ahead(world: World) -> None:
    """A join that this member has not heard of yet costs it no message, and does not move its own key."""
    world.enroll("e")
    world.commit(without=["a"])
    before = root_of(world.members["a"])
    expected = [received("b", b"one", 1), received("b", b"two", 1)]
    assert expected == world.send("b", "a", b"one") + world.send("b", "a", b"two")
    assert (1, before) == (world.root.step, root_of(world.members["a"]))


def test_beacon_moves_on_to_the_step_that_was_opened_ahead(world: World) -> None:
    """What was opened ahead is the group's key once the server says so; replays stay replays."""
    world.enroll("e")
    commit = world.commit(without=["a"])
    message = world.members["b"].seal("plant/1", b"one", world.now)
    alice = world.members["a"]
    alice.receive("plant/1", message, world.now)
    alice.receive(world.topics.beacon, commit.beacon, world.now)
    assert world.root == root_of(alice)
    with refused(Reason.REPLAY, "counter"):
        alice.receive("plant/1", message, world.now)
    assert [received("a", b"back", 1)] == world.send("a", "b", b"back")


def test_later_steps_are_counted_from_where_the_root_is(world: World) -> None:
    """After the root has moved, looking ahead begins anew; after an eviction, at another key."""
    for name, gone in (("e", None), ("f", None), ("g", "d"), ("h", None)):
        if gone:
            world.evict(gone)
        world.enroll(name)
        commit = world.commit(without=["a"])
        assert 1 == len(world.send("b", "a", name.encode()))
        world.members["a"].receive(world.topics.beacon, commit.beacon, world.now)
        assert world.root == root_of(world.members["a"])


@pytest.mark.parametrize("steps", [1, 3, 1024])
def test_member_looks_1024_steps_ahead(world: World, steps: int) -> None:
    """Later steps are derived, once each, in any order."""
    key, birth, step = root_of(world.members["a"])
    for number, at in enumerate((steps, 1, steps)):
        message = data((ratchet(key, at), birth, step + at), "plant/1", b"x", sender="b", counter=number)
        assert [received("b", b"x", 1)] == world.members["a"].receive("plant/1", message, world.now)


def test_member_does_not_look_further_ahead(world: World) -> None:
    """A header of one step more costs nothing but its reading."""
    key, birth, step = root_of(world.members["a"])
    message = data((key, birth, step + 1025), "plant/1", b"x", sender="b")
    with refused(Reason.OUT_OF_RANGE, "step"):
        world.members["a"].receive("plant/1", message, world.now)


def test_forged_later_step_leaves_no_trace(world: World) -> None:
    """An outsider's header makes no key accepted."""
    alice = world.members["a"]
    before = alice.dump()
    _, birth, step = root_of(alice)
    with refused(Reason.BAD_SEAL, "ciphertext"):
        alice.receive("plant/1", data((b"?" * 32, birth, step + 2), "plant/1", b"x", sender="b"), world.now)
    assert before == alice.dump()


def test_earlier_step_is_old(world: World) -> None:
    """A step that the root has left is accepted for its grace only."""
    message = world.members["b"].seal("plant/1", b"x", world.now)
    world.join("e")
    world.members["a"].tick(world.now + 30)
    with refused(Reason.OLD, "birth"):
        world.members["a"].receive("plant/1", message, world.now + 30)


def test_key_opened_ahead_expires(world: World) -> None:
    """A later step that no Beacon confirms is accepted for a while, then derived anew."""
    world.enroll("e")
    world.commit(without=["a"])
    world.send("b", "a", b"one")
    alice = world.members["a"]
    assert world.now + 30 == alice.next_deadline
    alice.tick(world.now + 30)
    assert [received("b", b"two", 1)] == world.send("b", "a", b"two")


def test_evicted_member_opens_nothing(world: World) -> None:
    """After a Goodbye all traffic keys are gone."""
    message = world.members["a"].seal("plant/1", b"x", world.now)
    world.evict("d")
    assert [] == world.members["d"].receive("plant/1", message, world.now)
    assert [] == world.members["d"]._traffic.opener.accepted


def test_counters_used_up_by_an_insider_are_its_own_epochs(world: World) -> None:
    """Who forges another's newest counter mutes it until the next root key, not beyond its own eviction."""
    alice, bob = world.members["a"], world.members["b"]
    header = msgpack.unpackb(alice.seal("plant/1", b"", world.now))
    last = data(root_of(bob), "plant/1", b"forged", sender="a", salt=header[5], counter=(1 << 63) - 1)
    bob.receive("plant/1", last, world.now)
    with refused(Reason.REPLAY, "counter"):
        bob.receive("plant/1", alice.seal("plant/1", b"muted", world.now), world.now)
    world.evict("d")
    assert [received("a", b"heard", 2)] == world.send("a", "b", b"heard")


def test_windows_of_a_key_that_has_expired_are_forgotten(world: World) -> None:
    """What nobody can replay any longer needs no memory."""
    world.send("b", "a", b"one")
    world.evict("d")
    world.send("b", "a", b"two")
    opener = world.members["a"]._traffic.opener
    before = [birth for birth, *_ in opener.windows]
    world.members["a"].tick(world.now + 30)
    assert ([1, 2], [2]) == (before, [birth for birth, *_ in opener.windows])


def test_senders_remembered_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender that was new longest ago makes room; the others' replays are still refused."""
    monkeypatch.setattr("brokerkm.core.opener.MAX_SENDERS", 2)
    root, bob = root_of(world.members["b"]), world.members["b"]
    messages = [data(root, "plant/1", b"x", sender=name) for name in "uvw"]
    for message in messages:
        bob.receive("plant/1", message, world.now)
    with refused(Reason.REPLAY, "counter"):
        bob.receive("plant/1", messages[1], world.now)
    assert [(1, "v", b"saltsalt"), (1, "w", b"saltsalt")] == list(bob._traffic.opener.windows)
    assert 2 == len(bob._traffic.opener._sources)


def test_topics_remembered_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver of ever new topics forgets the old ones, and opens their messages as before."""
    monkeypatch.setattr("brokerkm.core.opener.MAX_TOPICS", 3)
    for number in range(20):
        topic = f"t/{number % 5}"
        assert [received("a", b"x", 1, topic)] == world.send("a", "b", b"x", topic)
    assert len(world.members["b"]._traffic.opener._contexts) <= 3


def test_policy_of_a_group_without_grace() -> None:
    """With no grace and no hold, only the current key counts, from the next tick."""
    world = World(policy=Policy(grace=0, hold=0))
    world.join("a", "b", "c")
    message = world.members["b"].seal("plant/1", b"late", world.now)
    world.evict("c")
    world.members["a"].tick(world.now)
    with refused(Reason.OLD, "birth"):
        world.members["a"].receive("plant/1", message, world.now)


def test_node_key_of_the_traffic_is_not_the_root(world: World) -> None:
    """A traffic key that leaks does not show the root key it came from."""
    assert root_of(world.members["a"]).key not in world.members["a"]._traffic.opener.accepted[0]
