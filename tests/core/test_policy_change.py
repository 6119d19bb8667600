"""A policy that changes: how members learn of it, and what they do while not all know it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from core.refusal import refused
from core.world import World

from brokerkm.core.commit import Enrollment
from brokerkm.core.crypto import Algorithm
from brokerkm.core.events import (
    Dropped,
    Heard,
    Joined,
    MessageReceived,
    PolicyChanged,
    Silent,
    Synced,
    Unreadable,
)
from brokerkm.core.member import Member
from brokerkm.core.policy import Policy
from brokerkm.core.request import Sync
from brokerkm.errors import Reason, StaleError

AES = Policy()
CHACHA = Policy(algorithm=Algorithm.CHACHA20_POLY1305)
SIGNED = Policy(source_authentication=True)


@pytest.fixture
def world() -> World:
    """Members a, b and c of a group."""
    made = World()
    made.join("a", "b", "c")
    return made


def change(world: World, policy: Policy, *names: str) -> None:
    """Let the server change the policy, and `names` hear of it."""
    world.group.set_policy(policy)
    world.now += 1
    beacon = world.group.beacon(world.now)
    world.retained[world.topics.beacon] = beacon
    for name in names:
        assert [PolicyChanged(policy)] == world.members[name].receive(world.topics.beacon, beacon, world.now)


def synced(world: World, name: str) -> list[object]:
    """Let a member ask for the current keys, and return what it makes of the answer."""
    member = world.members[name]
    sync = Sync.decode(member.sync(world.now))
    kem = member.profile.suite.public_key(member._memory.kem_seed)
    answer = world.group.welcome(Enrollment(name, member.identity, kem, sync.nonce), world.now)
    return [*member.receive(world.topics.member(name), answer, world.now)]


def got(text: bytes, sender: str = "a") -> list[MessageReceived]:
    """Return the events of a message that was received."""
    return [MessageReceived("plant/1", sender, text, 1)]


# How members learn of it.


def test_beacon_changes_the_policy(world: World) -> None:
    """The next Beacon says so to all; the one after that is nothing new."""
    policy = Policy(grace=7, hold=3, max_silence=40, acknowledge=60)
    change(world, policy, "a", "b", "c")
    assert policy == world.members["a"].policy
    world.now += 1
    assert [] == world.beat()


def test_changed_policy_is_saved_and_others_are_not(world: World) -> None:
    """A change is worth a write to a device's flash; the Beacon that repeats it is not."""
    alice = world.members["a"]
    before = alice.version
    change(world, CHACHA, "a")
    saved = alice.version
    assert saved > before
    world.now += 1
    alice.receive(world.topics.beacon, world.group.beacon(world.now), world.now)
    assert saved == alice.version
    assert CHACHA == Member.load(alice.dump(), world.random, world.now).policy


def test_new_max_silence_counts_at_once(world: World) -> None:
    """What changes is what is kept from then on."""
    change(world, Policy(max_silence=10), "a")
    assert [Silent(world.now)] == world.members["a"].tick(world.now + 10.5)
    change(world, Policy(max_silence=300))
    alice = world.members["a"]
    world.now += 20
    events = alice.receive(world.topics.beacon, world.group.beacon(world.now), world.now)
    assert [Heard(), PolicyChanged(Policy())] == events


def test_older_beacon_changes_nothing_back(world: World) -> None:
    """A replayed Beacon of an earlier policy is ignored."""
    old = world.retained[world.topics.beacon]
    change(world, CHACHA, "a")
    assert [] == world.members["a"].receive(world.topics.beacon, old, world.now)
    assert CHACHA == world.members["a"].policy


def test_forged_beacon_changes_nothing(world: World) -> None:
    """Only the server's signature changes a policy."""
    world.group.set_policy(CHACHA)
    beacon = world.group.beacon(world.now + 1)
    with refused(Reason.BAD_SIGNATURE, "signature"):
        world.members["a"].receive(world.topics.beacon, beacon[:-1] + bytes((beacon[-1] ^ 1,)), world.now)
    assert AES == world.members["a"].policy


def test_welcome_brings_a_policy_that_was_missed(world: World) -> None:
    """A member that has heard no Beacon learns of it by the answer to its Sync."""
    change(world, CHACHA)
    world.now += 1
    assert [Synced(1), PolicyChanged(CHACHA)] == synced(world, "a")


def test_welcome_of_before_the_newest_beacon_changes_nothing_back(world: World) -> None:
    """A Welcome that the broker kept back does not bring back the policy of its day."""
    alice = world.members["a"]
    sync = Sync.decode(alice.sync(world.now))
    kem = alice.profile.suite.public_key(alice._memory.kem_seed)
    late = world.group.welcome(Enrollment("a", alice.identity, kem, sync.nonce), world.now)
    change(world, CHACHA, "a")
    assert [Synced(1)] == alice.receive(world.topics.member("a"), late, world.now)
    assert CHACHA == alice.policy


def test_beacon_of_before_the_welcome_changes_nothing(world: World) -> None:
    """Nor does an old Beacon that is the first which a newcomer hears."""
    old = world.group.beacon(world.now)
    change(world, CHACHA)
    world.join("d")
    dora = world.members["d"]
    dora._memory.beacon_epoch = dora._memory.beacon_time = 0
    dora.receive(world.topics.beacon, old, world.now)
    assert CHACHA == dora.policy


def test_newcomer_has_no_grace_for_what_was_before_it(world: World) -> None:
    """Its Welcome is the only policy that it has known: an event would be news of nothing."""
    change(world, CHACHA, "a", "b", "c")
    world.enroll("d")
    events = world.publish(world.group.commit(world.now + 1, world.random))["d"]
    assert [Joined(2)] == events
    assert world.members["d"]._memory.algorithm_until is None


# Another algorithm.


def test_messages_go_on_under_the_other_algorithm(world: World) -> None:
    """Who has changed opens what the others send, and a second message goes the fast way."""
    change(world, CHACHA, "a", "b", "c")
    assert got(b"one") + got(b"two") == world.send("a", "b", b"one") + world.send("a", "b", b"two")


def test_known_sender_may_change_the_algorithm(world: World) -> None:
    """A sender that is known already is followed, and its counters go on."""
    world.send("a", "b", b"zero")
    change(world, CHACHA, "a", "b")
    message = world.members["a"].seal("plant/1", b"one", world.now)
    assert got(b"one") == world.members["b"].receive("plant/1", message, world.now)
    with refused(Reason.REPLAY, "counter"):
        world.members["b"].receive("plant/1", message, world.now)


def test_earlier_algorithm_opens_for_grace(world: World) -> None:
    """Who has not heard of the change is understood for grace seconds, and then no more."""
    change(world, CHACHA, "b")
    bob = world.members["b"]
    assert got(b"one") == world.send("a", "b", b"one")
    assert bob.next_deadline == world.now + 30
    assert [] == bob.tick(world.now + 30)
    world.now += 30
    assert [] == world.send("a", "b", b"two")
    assert [Dropped("plant/1", Reason.BAD_SEAL), Unreadable()] == bob.tick(world.now + 5)


def test_grace_survives_a_restart(world: World) -> None:
    """What is accepted for a while is saved with its end."""
    change(world, CHACHA, "b")
    world.members["b"] = Member.load(world.members["b"].dump(), world.random, world.now)
    assert got(b"one") == world.send("a", "b", b"one")
    world.members["b"].tick(world.now + 30)
    assert [] == world.send("a", "b", b"two")


def test_message_of_a_newer_policy_waits_for_it(world: World) -> None:
    """A sender that has heard first loses nothing: its messages wait for the receiver's Beacon."""
    change(world, CHACHA, "a")
    assert [] == world.send("a", "b", b"one")
    assert [] == world.send("a", "b", b"two")
    beacon = world.retained[world.topics.beacon]
    expected = [PolicyChanged(CHACHA), *got(b"one"), *got(b"two")]
    assert expected == world.members["b"].receive(world.topics.beacon, beacon, world.now)


def test_message_of_a_newer_policy_waits_no_longer_for_a_rekey(world: World) -> None:
    """A rekey that comes meanwhile does not put off the end of the waiting."""
    change(world, CHACHA, "a")
    world.send("a", "b", b"one")
    world.group.set_policy(AES)
    world.group.evict("c")
    bob, sent = world.members["b"], world.now
    world.commit(without=["a", "c"])
    assert Dropped("plant/1", Reason.BAD_SEAL) in bob.tick(sent + 5)


def test_message_of_a_later_step_and_a_newer_policy_waits(world: World) -> None:
    """Neither of what it is ahead by moves the receiver's root, and it is opened in the end."""
    world.enroll("d")
    world.commit(without=["b", "c"])
    change(world, CHACHA, "a")
    assert [] == world.send("a", "b", b"one")
    events = world.members["b"].receive(world.topics.beacon, world.retained[world.topics.beacon], world.now)
    assert [PolicyChanged(CHACHA), *got(b"one")] == events


def test_forgery_is_refused_whatever_the_algorithm(world: World) -> None:
    """A tag that holds under neither is no message that might wait."""
    change(world, CHACHA, "a", "b")
    for text in (b"one", b"two"):
        message = world.members["a"].seal("plant/1", text, world.now)
        with refused(Reason.BAD_SEAL, "ciphertext"):
            world.members["b"].receive("plant/1", message[:-1] + bytes((message[-1] ^ 1,)), world.now)
        assert got(text) == world.members["b"].receive("plant/1", message, world.now)


# Signatures.


def test_signatures_are_wanted_after_grace(world: World) -> None:
    """Unsigned messages are taken for grace seconds; then who has no certificate must not send."""
    change(world, SIGNED, "a", "b")
    alice, bob = world.members["a"], world.members["b"]
    assert 0.0 == alice.certificate_expiry
    assert got(b"one") == world.send("a", "b", b"one")
    late = alice.seal("plant/1", b"late", world.now)
    for member in (alice, bob):
        member.tick(world.now + 30)
    world.now += 30
    with refused(Reason.NOT_SIGNED, "signature"):
        bob.receive("plant/1", late, world.now)
    with pytest.raises(StaleError, match="no sender certificate"):
        alice.seal("plant/1", b"two", world.now)
    assert [Synced(1)] == synced(world, "a")
    assert got(b"three") == world.send("a", "b", b"three")


def test_certificate_that_comes_within_grace_is_used(world: World) -> None:
    """Who has one signs at once, and nothing changes for it when grace is over."""
    change(world, SIGNED, "a", "b")
    synced(world, "a")
    message = world.members["a"].seal("plant/1", b"one", world.now)
    assert 0x9A == message[0]
    assert got(b"one") == world.members["b"].receive("plant/1", message, world.now)
    for name in "ab":
        world.members[name].tick(world.now + 30)
    assert got(b"two") == world.send("a", "b", b"two")


def test_grace_for_signatures_survives_a_restart(world: World) -> None:
    """A member that starts again within grace may still send unsigned, and not after it."""
    change(world, SIGNED, "a", "b")
    world.members["a"] = alice = Member.load(world.members["a"].dump(), world.random, world.now)
    assert got(b"one") == world.send("a", "b", b"one")
    alice.tick(world.now + 30)
    with pytest.raises(StaleError):
        alice.seal("plant/1", b"two", world.now)


def test_signatures_go_on_for_grace_when_no_longer_wanted() -> None:
    """Those who have not heard that they may be left out are not cut off."""
    world = World(policy=SIGNED)
    world.join("a", "b", "c")
    change(world, AES, "a")
    assert world.members["a"].certificate_expiry is None
    assert got(b"one") == world.send("a", "b", b"one")
    synced(world, "a")  # the answer has no certificate any longer
    assert got(b"two") == world.send("a", "b", b"two")
    world.members["a"].tick(world.now + 30)
    assert 0x98 == world.members["a"].seal("plant/1", b"three", world.now)[0]


def test_member_without_identity_is_not_certified() -> None:
    """Nothing can be certified where there is no key: such a member listens."""
    world = World()
    world.create("a")
    join = world.ask("a")
    world.group.enroll(Enrollment("a", b"", join.kem_public, join.nonce))
    world.group.set_policy(replace(SIGNED, grace=0))
    world.commit()
    assert 0.0 == world.members["a"].certificate_expiry
    with pytest.raises(StaleError):
        world.members["a"].seal("plant/1", b"x", world.now)


def test_end_of_grace_while_out_of_the_group_is_nothing(world: World) -> None:
    """A member that was evicted meanwhile has nothing to sign."""
    change(world, SIGNED, "a", "b", "c")
    world.evict("a")
    world.members["a"].tick(world.now + 60)
    world.join("a")
    assert world.members["a"].certificate_expiry
