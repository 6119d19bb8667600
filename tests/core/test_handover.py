"""One server key after another: links, chains, and members that follow them or must not."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from core.forge import bound, pack
from core.refusal import refused
from core.world import START, World, group_of, root_of

from brokerkm.core.commit import Enrollment
from brokerkm.core.crypto import load_signing_key
from brokerkm.core.events import Event, Joined, MessageReceived, ServerKeyChanged, Synced
from brokerkm.core.group import Group
from brokerkm.core.handover import MAX_LINKS, Handover, Link
from brokerkm.core.member import Member
from brokerkm.core.notice import RefusalReason
from brokerkm.core.policy import Policy
from brokerkm.core.request import Sync
from brokerkm.core.state import State
from brokerkm.core.welcome import CERTIFICATE_LIFETIME, Certificate
from brokerkm.errors import Reason, RefusedError, UsageError

DAY = 24 * 3600
FIRST = load_signing_key(b"s" * 32)
SIGNED = Policy(source_authentication=True, max_silence=10 * DAY)


def seed(number: int) -> bytes:
    """Return the signing seed that a group gets by its hand-over of this number."""
    return bytes((number,)) * 32


def public(number: int) -> bytes:
    """Return the public key of that seed; 0 for the first of all."""
    return (load_signing_key(seed(number)) if number else FIRST).public_key().public_bytes_raw()


def chain(*numbers: int, start: int = 1000) -> Handover:
    """Return the Handover that leads from the first of `numbers` over all the others."""
    keys = [(load_signing_key(seed(number)) if number else FIRST) for number in numbers]
    links = [
        Handover.sign(one, "fleet", other.public_key().public_bytes_raw(), start + at)
        for at, (one, other) in enumerate(pairwise(keys))
    ]
    return Handover(tuple(links))


@pytest.fixture
def world() -> World:
    """Members a, b and c of a group."""
    made = World()
    made.join("a", "b", "c")
    return made


def hand_over(world: World, number: int) -> bytes:
    """Give the group another signing key; retain the Handover and a Beacon by the new key."""
    world.now += 1
    handover = world.group.hand_over(seed(number), world.now)
    world.retained[world.topics.handover] = handover
    world.retained[world.topics.beacon] = world.group.beacon(world.now)
    return handover


def catch_up(world: World, name: str) -> list[Event]:
    """Let a member take in what is retained, again and again as long as it subscribes to something new."""
    member, events, filters = world.members[name], list[Event](), tuple[str, ...]()
    for _ in range(5):
        if member.filters == filters:
            break
        filters = member.filters
        for topic in filters:
            if topic not in member.filters:
                continue  # out of the group since it was asked
            try:
                events += member.receive(topic, world.retained.get(topic, b""), world.now)
            except RefusedError as error:
                assert error.reason is Reason.BAD_SIGNATURE  # noqa: PT017 - many messages, some refused
    return events


def sync(world: World, name: str) -> list[Event]:
    """Let a member ask for the current keys, and return what it makes of the answer."""
    member = world.members[name]
    nonce = Sync.decode(member.sync(world.now)).nonce
    kem = member.profile.suite.public_key(member._memory.kem_seed)
    answer = world.group.welcome(Enrollment(name, member.identity, kem, nonce), world.now)
    world.retained[world.topics.member(name)] = answer
    try:
        return [*member.receive(world.topics.member(name), answer, world.now)]
    except RefusedError:
        return catch_up(world, name)


# The message.


def test_link_is_built_as_specified() -> None:
    """It is signed by the key before it, over group, key and time."""
    (link,) = chain(0, 1).links
    assert (public(1), 1000) == (link.key, link.time)
    FIRST.public_key().verify(link.signature, bound("brokerkm v1 handover", "fleet", public(1), 1000))


def test_message_is_encoded_as_specified() -> None:
    """A list of links, oldest first."""
    handover = chain(0, 1, 2)
    assert pack([1, 11, [list(link) for link in handover.links]]) == handover.encode()
    assert handover == Handover.decode(handover.encode())


def test_longest_chain_fits_a_message() -> None:
    """The newest 64 links are sent; each has its full size."""
    longest = chain(*range(MAX_LINKS + 1), start=1 << 62)
    assert longest == Handover.decode(longest.encode())


@pytest.mark.parametrize(
    ("links", "reason", "field"),
    [
        (None, Reason.WRONG_TYPE, "links"),
        ([], Reason.WRONG_LENGTH, "links"),
        ([[bytes(32), 5]], Reason.WRONG_LENGTH, "links"),
        ([[bytes(31), 5, bytes(64)]], Reason.WRONG_LENGTH, "links.key"),
        ([[bytes(32), -5, bytes(64)]], Reason.OUT_OF_RANGE, "links.time"),
        ([[bytes(32), 5, bytes(63)]], Reason.WRONG_LENGTH, "links.signature"),
        ([[bytes(32), 5, bytes(64)], [b"k" * 32, 5, bytes(64)]], Reason.OUT_OF_RANGE, "links.time"),
        ([[bytes(32), 5, bytes(64)], [bytes(32), 6, bytes(64)]], Reason.OUT_OF_RANGE, "links.key"),
        ([[bytes((n,)) * 32, n, bytes(64)] for n in range(MAX_LINKS + 1)], Reason.WRONG_LENGTH, "links"),
    ],
)
def test_malformed_handover_is_refused(links: object, reason: Reason, field: str) -> None:
    """Each field has its type, length and range; keys are there once, times grow."""
    with refused(reason, field):
        Handover.decode(pack([1, 11, links]))


# The group.


def test_group_signs_by_its_new_key() -> None:
    """The Handover leads from the key of before to the one of now."""
    group = group_of("a")
    handover = Handover.decode(group.hand_over(seed(1), START + 100))
    assert public(1) == group.server_key
    assert [public(1)] == [link.key for link in handover.after(public(0), "fleet")]
    assert handover.encode() == group.handover


def test_group_without_hand_over_has_none() -> None:
    """There is nothing to retain."""
    assert group_of("a").handover is None


def test_prepared_hand_over_changes_nothing() -> None:
    """What cannot be stored has not happened."""
    group = group_of("a")
    time = group.time
    succession = group.prepare_handover(seed(1), START + 100)
    assert (public(0), None, time) == (group.server_key, group.handover, group.time)
    assert seed(1).hex() not in repr(succession)
    assert repr(seed(1)) not in repr(succession)


def test_restored_group_goes_on_with_its_chain() -> None:
    """What is stored is each link alone; the message has them all."""
    group = group_of("a")
    group.hand_over(seed(1), START + 100)
    restored = Group("fleet", seed(1), epoch=group.epoch, time=group.time, handovers=group.handovers)
    handover = Handover.decode(restored.hand_over(seed(2), START + 1))
    assert [public(1), public(2)] == [link.key for link in handover.after(public(0), "fleet")]
    assert handover.links[0].time < handover.links[1].time


@pytest.mark.parametrize("number", [0, 1, 2])
def test_key_is_never_taken_twice(number: int) -> None:
    """A key that was the server's before, or is now, does not come back."""
    group = group_of("a")
    for new in (1, 2):
        group.hand_over(seed(new), START + 100)
    if number == 0:
        group.handovers = (Handover((Link(public(0), 1, bytes(64)),)).encode(), *group.handovers)
    with pytest.raises(UsageError, match="was in use before"):
        group.prepare_handover(seed(number) if number else b"s" * 32, START + 100)


def test_oldest_links_make_room() -> None:
    """Who believes a key of more than 64 hand-overs ago finds no way to the newest."""
    group = group_of("a")
    for number in range(1, MAX_LINKS + 3):
        group.hand_over(seed(number), START + 100)
    assert MAX_LINKS == len(group.handovers)
    handover = Handover.decode(group.handover or b"")
    with refused(Reason.BAD_SIGNATURE, "links.signature"):
        handover.after(public(1), "fleet")
    assert MAX_LINKS == len(handover.after(public(2), "fleet"))


# Members that follow.


def test_member_looks_for_a_hand_over_when_a_signature_fails(world: World) -> None:
    """It subscribes to one topic more; nothing is saved for that."""
    hand_over(world, 1)
    alice, saved = world.members["a"], world.members["a"].dump()
    before = alice.filters
    with refused(Reason.BAD_SIGNATURE, "signature"):
        alice.receive(world.topics.beacon, world.retained[world.topics.beacon], world.now)
    assert {world.topics.handover} == set(alice.filters) - set(before)
    assert saved == alice.dump()


def test_member_follows(world: World) -> None:
    """From then on it believes the new key alone, says so, saves it, and looks no longer."""
    handover, beacon = hand_over(world, 1), world.retained[world.topics.beacon]
    alice, before = world.members["a"], world.members["a"].filters
    version = alice.version
    with refused(Reason.BAD_SIGNATURE, "signature"):
        alice.receive(world.topics.beacon, beacon, world.now)
    assert [ServerKeyChanged(public(1))] == alice.receive(world.topics.handover, handover, world.now)
    assert before == alice.filters
    assert [] == alice.receive(world.topics.beacon, beacon, world.now)
    assert alice.version > version
    assert (public(0), public(1)) == alice.server_keys
    loaded = Member.load(alice.dump(), world.random, world.now)
    assert (public(0), public(1)) == loaded.server_keys
    assert [] == loaded.receive(world.topics.beacon, world.group.beacon(world.now), world.now)


def test_group_goes_on_after_a_hand_over(world: World) -> None:
    """Rekeys, Welcomes and Goodbyes by the new key are taken by those who have followed."""
    hand_over(world, 1)
    for name in "abc":
        catch_up(world, name)
    world.join("d")
    world.evict("b")
    assert world.root == root_of(world.members["a"]) == root_of(world.members["d"])
    assert State.EVICTED is world.members["b"].state


def test_rekey_and_goodbye_make_a_member_look(world: World) -> None:
    """Whatever the server signs shows that there is a new key."""
    hand_over(world, 1)
    world.group.evict("b")
    commit = world.group.commit(world.now, world.random)
    topics = dict(world.messages(commit))
    refusal = world.group.refusal("c", world.members["c"].sync(world.now)[5:21], RefusalReason.TRY_LATER, world.now)
    for name, topic, payload in (
        ("a", world.topics.node(0, 0), topics[world.topics.node(0, 0)]),
        ("b", world.topics.member("b"), topics[world.topics.member("b")]),
        ("c", world.topics.member("c"), refusal),
    ):
        with refused(Reason.BAD_SIGNATURE, "signature"):
            world.members[name].receive(topic, payload, world.now)
        assert world.topics.handover in world.members[name].filters


def test_member_that_slept_through_several_recovers(world: World) -> None:
    """Rekeys under a key in between are lost to it; the Sync is not."""
    for number in (1, 2, 3):
        hand_over(world, number)
        world.group.evict("b") if number == 1 else world.group.rotate()
        world.commit(without="abc")
    assert ServerKeyChanged(public(3)) in catch_up(world, "a")
    assert any(isinstance(event, Synced) for event in sync(world, "a"))
    assert world.root == root_of(world.members["a"])
    assert 4 == len(world.members["a"].server_keys)


def test_newcomer_with_an_old_descriptor_joins(world: World) -> None:
    """What it was told to believe is where its chain begins; the Welcome that it refused is retained."""
    profile_key = public(0)
    for number in (1, 2):
        hand_over(world, number)
    dora = world.create("d")
    world.members["d"] = dora = Member.create(replace(dora.profile, server_key=profile_key), world.random)
    join = world.ask("d")
    world.group.enroll(Enrollment("d", join.identity, join.kem_public, join.nonce))
    for topic, payload in world.messages(world.group.commit(world.now, world.random)):
        world.retained[topic] = payload
    assert [ServerKeyChanged(public(2)), Joined(2)] == catch_up(world, "d")
    assert world.root == root_of(dora)


def test_evicted_member_learns_of_it_by_the_new_key(world: World) -> None:
    """A Goodbye of after the hand-over is believed as soon as the chain was walked."""
    hand_over(world, 1)
    world.group.evict("a")
    world.commit(without="abc")
    catch_up(world, "a")
    assert State.EVICTED is world.members["a"].state


# Members that must not follow.


def test_member_never_goes_back(world: World) -> None:
    """The old key's word is nothing any longer, and no older chain brings it back."""
    old_beacon = Group("fleet", b"s" * 32, epoch=9).beacon(world.now + 1000)
    older = hand_over(world, 1)
    hand_over(world, 2)
    alice = world.members["a"]
    catch_up(world, "a")
    with refused(Reason.BAD_SIGNATURE, "signature"):
        alice.receive(world.topics.beacon, old_beacon, world.now)
    with refused(Reason.BAD_SIGNATURE, "links.signature"):
        alice.receive(world.topics.handover, older, world.now)
    assert [] == alice.receive(world.topics.handover, world.retained[world.topics.handover], world.now)
    assert public(2) == alice.server_keys[-1]


def test_fork_by_the_old_key_is_refused_by_those_who_have_followed(world: World) -> None:
    """Who has stolen the key of before leads nobody astray that has the new one."""
    hand_over(world, 1)
    catch_up(world, "a")
    with refused(Reason.BAD_SIGNATURE, "links.signature"):
        world.members["a"].receive(world.topics.handover, chain(0, 9, start=1 << 60).encode(), world.now)


def tampered() -> dict[str, Handover]:
    """Return what an attacker makes of the chain from 0 over 1 to 2 without any of their keys."""
    one, two = chain(0, 1, 2).links
    mine = load_signing_key(seed(66))
    inserted = Handover.sign(mine, "fleet", public(77), one.time + 1)
    return {
        "own key": chain(66, 67),
        "other group": Handover((Handover.sign(FIRST, "fleet2", public(1), 1000),)),
        "other key": Handover((one._replace(key=public(66)), two)),
        "other time": Handover((one._replace(time=one.time - 1), two)),
        "inserted": Handover((one, inserted._replace(time=one.time + 1), two._replace(time=two.time + 1))),
        "appended": Handover((one, two, Handover.sign(mine, "fleet", public(66), two.time + 1))),
        "left out": Handover((two,)),
        "turned around": Handover((two._replace(time=1), one._replace(time=2))),
    }


@pytest.mark.parametrize("name", tampered())
def test_tampered_chain_is_refused(world: World, name: str) -> None:
    """Not one link of it is taken, genuine ones included."""
    alice = world.members["a"]
    saved = alice.dump()
    with refused(Reason.BAD_SIGNATURE, "links.signature"):
        alice.receive(world.topics.handover, tampered()[name].encode(), world.now)
    assert saved == alice.dump()
    assert (public(0),) == alice.server_keys


@pytest.mark.parametrize(("topic", "kind"), [("b", "handover"), ("k", "beacon")])
def test_handover_belongs_to_its_topic(world: World, topic: str, kind: str) -> None:
    """Neither is taken where the other belongs."""
    payload = {"handover": chain(0, 1).encode(), "beacon": world.group.beacon(world.now)}[kind]
    with refused(Reason.WRONG_MESSAGE, "type"):
        world.members["a"].receive(f"{world.topics.root}/{topic}", payload, world.now)


def test_keys_remembered_are_bounded(world: World) -> None:
    """A member remembers as many former keys as a chain has links."""
    alice = world.members["a"]
    for number in range(1, MAX_LINKS + 10):
        alice.receive(world.topics.handover, chain(number - 1, number, start=number).encode(), world.now)
    assert MAX_LINKS + 1 == len(alice.server_keys)
    assert alice.server_keys == Member.load(alice.dump(), world.random, world.now).server_keys


# Certificates.


@pytest.fixture
def certified() -> World:
    """Members a, b and c of a group that asks for signatures."""
    made = World(policy=SIGNED)
    made.join("a", "b", "c")
    return made


def test_certificate_by_the_old_key_is_good_for_its_lifetime(certified: World) -> None:
    """Those who have followed go on hearing each other, whoever has a new certificate by now."""
    hand_over(certified, 1)
    for name in "ab":
        catch_up(certified, name)
    assert [MessageReceived("plant/1", "a", b"one", 1)] == certified.send("a", "b", b"one")
    assert 0.0 == certified.members["a"].certificate_expiry
    sync(certified, "a")
    assert certified.members["a"].certificate_expiry
    assert certified.members["a"].certificate_expiry
    assert [MessageReceived("plant/1", "a", b"two", 1)] == certified.send("a", "b", b"two")


def test_newcomer_believes_the_newest_key_only(certified: World) -> None:
    """It was never told of the one before: members renew their certificates for it."""
    hand_over(certified, 1)
    for name in "abc":
        catch_up(certified, name)
    certified.join("d")
    with refused(Reason.BAD_SIGNATURE, "certificate.signature"):
        certified.send("a", "d", b"one")
    sync(certified, "a")
    assert [MessageReceived("plant/1", "a", b"two", 1)] == certified.send("a", "d", b"two")


@pytest.mark.parametrize(
    ("expiry", "later", "expected"),
    [
        (CERTIFICATE_LIFETIME, 0, None),
        (CERTIFICATE_LIFETIME + 1, 0, Reason.BAD_SIGNATURE),  # made up after the key was handed over
        (CERTIFICATE_LIFETIME, CERTIFICATE_LIFETIME, None),
        (CERTIFICATE_LIFETIME, CERTIFICATE_LIFETIME + 1, Reason.WRONG_TIME),
        (1000, 1001, Reason.WRONG_TIME),
    ],
)
def test_old_key_certifies_for_no_longer_than_it_could(
    certified: World, expiry: int, later: int, expected: Reason | None
) -> None:
    """A certificate that outlasts its key by more than a certificate's lifetime was made up by a thief."""
    hand_over(certified, 1)
    catch_up(certified, "b")
    bob = certified.members["b"]
    end = bob._memory.former_keys[0][1]
    certificate = Certificate.issue(FIRST, "fleet", "a", public(9), end + expiry)
    caught = None
    try:
        bob._trust.check_certificate(certificate, "a", end + later)
    except RefusedError as error:
        caught = error.reason
    assert expected == caught


def test_certificate_by_nobody_is_refused_after_a_hand_over(certified: World) -> None:
    """Neither the newest key's nor a former one's."""
    hand_over(certified, 1)
    catch_up(certified, "b")
    now = int(certified.now * 1000)
    forged = Certificate.issue(load_signing_key(seed(66)), "fleet", "a", public(9), now + 1000)
    with refused(Reason.BAD_SIGNATURE, "certificate.signature"):
        certified.members["b"]._trust.check_certificate(forged, "a", now)
    expired = Certificate.issue(load_signing_key(seed(1)), "fleet", "a", public(9), now - 1)
    with refused(Reason.WRONG_TIME, "certificate.expiry"):
        certified.members["b"]._trust.check_certificate(expired, "a", now)
