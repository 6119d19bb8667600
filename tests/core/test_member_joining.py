"""A member's way in: Join, Welcome, Sync; and what is no answer to them."""

from __future__ import annotations

import pytest
from core.forge import SERVER, signed
from core.refusal import refused
from core.world import START, World, root_of

from brokerkm.core.commit import Enrollment
from brokerkm.core.crypto import Suite
from brokerkm.core.events import Evicted, Joined, RequestRefused, Synced
from brokerkm.core.login import Principal, identity_of
from brokerkm.core.member import Member
from brokerkm.core.memory import Profile
from brokerkm.core.notice import GoodbyeReason, Refusal, RefusalReason
from brokerkm.core.request import Join, Leave, Sync, TokenKey, first_nonce
from brokerkm.core.state import State
from brokerkm.errors import EvictedError, NotJoinedError, Reason, RefusedError, UsageError


@pytest.fixture
def world() -> World:
    """Members a, b and c of one group."""
    made = World()
    made.join("a", "b", "c")
    return made


def sync(world: World, name: str) -> Sync:
    """Let a member send a Sync, and return it as the server reads it."""
    request = Sync.decode(world.members[name].sync(world.now))
    leaf = world.group.leaf_key(name)
    assert leaf is not None
    request.verify(leaf, "fleet", name)
    return request


def welcome(world: World, name: str, nonce: bytes) -> bytes:
    """Return the server's Welcome for a member with the nonce of its request."""
    memory = world.members[name]._memory
    public = memory.profile.suite.public_key(memory.kem_seed)
    return world.group.welcome(Enrollment(name, world.members[name].identity, public, nonce), world.now)


def test_new_member_knows_nothing() -> None:
    """Before its Join a member listens for itself alone, and has nothing to do."""
    member = World().create("a")
    actual = (member.state, member.epoch, member.slot, member.filters, member.next_deadline, member.request_topic)
    assert (State.NEW, 0, None, ("bkm/1/fleet/m/a",), None, "bkm/1/fleet/r/a") == actual
    assert [] == member.tick(START)


def test_identity_may_be_given() -> None:
    """A device with a key of its own uses it; others draw one."""
    world = World()
    profile = Profile("fleet", "a", world.group.server_key)
    one, two = (Member.create(profile, world.random, b"i" * 32) for _ in range(2))
    assert one.identity == two.identity != Member.create(profile, world.random).identity


def test_login_is_by_the_identity() -> None:
    """What a member shows a broker names its key, and nobody else's."""
    world = World()
    member = world.create("a")
    username, password = member.login
    assert ("fleet:a", member.identity) == (username, identity_of(Principal("fleet", "a"), password))
    assert member.login == Member.load(member.dump(), world.random, START).login


@pytest.mark.parametrize("name", ["", "a/b", "x" * 65])
def test_member_has_a_name_for_topics(name: str) -> None:
    """A member's name is part of its topics."""
    with pytest.raises(UsageError, match="member"):
        Member.create(Profile("fleet", name, bytes(32)), World().random)


@pytest.mark.parametrize("suite", Suite)
def test_member_joins(suite: Suite) -> None:
    """A Join is answered by a Welcome, after which the member has the group's key."""
    world = World(suite=suite)
    world.enroll("a")
    assert State.JOINING is world.members["a"].state
    commit = world.group.commit(world.now, world.random)
    assert [Joined(1)] == world.publish(commit)["a"]
    member = world.members["a"]
    assert (State.ACTIVE, 1, 0, world.root) == (member.state, member.epoch, member.slot, root_of(member))


def test_member_follows_the_topics_of_its_path() -> None:
    """After joining, and again after the tree has grown, the filters are bucket and path, beacon and own."""
    world = World(degree=2)
    world.join("a", "b", "c", "d")
    expected = ["m/c", "b", "n/0/1", "n/1/1", "n/2/0"]
    assert [f"bkm/1/fleet/{rest}" for rest in expected] == list(world.members["c"].filters)
    world.join("e")
    expected.append("n/3/0")
    assert [f"bkm/1/fleet/{rest}" for rest in expected] == list(world.members["c"].filters)


def test_join_with_token_is_provable() -> None:
    """A Join carries the token that the application has."""
    world, token = World(), TokenKey(b"token-id", b"k" * 32)
    world.create("a")
    join = world.ask("a", token)
    join.verify_token(token, "fleet", "a")
    join.verify_signature("fleet", "a")
    assert (token.id, world.members["a"].identity) == (join.token, join.identity)


@pytest.mark.parametrize("answered", range(4))
def test_answer_to_any_of_the_last_joins_fits(answered: int) -> None:
    """A repeated Join has the same KEM key and another nonce and time; the answer to each opens."""
    world = World()
    world.create("a")
    joins = [world.ask("a") for _ in range(4)]
    assert (1, 4, 4) == tuple(len({getattr(join, name) for join in joins}) for name in ("kem_public", "nonce", "time"))
    assert [1_000_000_000, 1_000_000_001, 1_000_000_002, 1_000_000_003] == [join.time for join in joins]
    join = joins[answered]
    world.group.enroll(Enrollment("a", join.identity, join.kem_public, join.nonce))
    world.commit()
    assert State.ACTIVE is world.members["a"].state


def test_only_the_last_four_requests_are_remembered() -> None:
    """The answer to a Join that was repeated four times is no longer awaited."""
    world = World()
    world.create("a")
    first, *_ = (world.ask("a") for _ in range(5))
    world.group.enroll(Enrollment("a", first.identity, first.kem_public, first.nonce))
    with refused(Reason.WRONG_NONCE, "nonce"):
        world.commit()


def test_unasked_welcome_is_refused(world: World) -> None:
    """A Welcome with a nonce that the member did not send is none of its own."""
    payload = welcome(world, "a", b"?" * 16)
    before = world.members["a"].dump()
    with refused(Reason.WRONG_NONCE, "nonce"):
        world.members["a"].receive(world.topics.member("a"), payload, world.now)
    assert before == world.members["a"].dump()


def test_welcome_of_another_member_is_refused(world: World) -> None:
    """Neither on its own topic nor on this member's is another's Welcome taken."""
    payload = welcome(world, "b", sync(world, "b").nonce)
    with refused(Reason.WRONG_TOPIC, "topic"):
        world.members["a"].receive(world.topics.member("b"), payload, world.now)
    with refused(Reason.WRONG_NONCE, "nonce"):
        world.members["a"].receive(world.topics.member("a"), payload, world.now)


def test_forged_welcome_is_refused(world: World) -> None:
    """A Welcome that the server has not signed changes nothing."""
    payload = bytearray(welcome(world, "a", sync(world, "a").nonce))
    payload[-1] ^= 1
    with refused(Reason.BAD_SIGNATURE, "signature"):
        world.members["a"].receive(world.topics.member("a"), bytes(payload), world.now)


def test_welcome_that_does_not_open_is_refused(world: World) -> None:
    """A signed Welcome sealed to another key changes nothing."""
    nonce = sync(world, "a").nonce
    sealed = Suite.X25519.seal(Suite.X25519.public_key(b"?" * 32), b"", b"")
    payload = signed("brokerkm v1 welcome", ("fleet", "a"), [1, 3, nonce, sealed], SERVER)
    before = world.members["a"].dump()
    with refused(Reason.BAD_SEAL, "sealed"):
        world.members["a"].receive(world.topics.member("a"), payload, world.now)
    assert before == world.members["a"].dump()


def test_replayed_welcome_is_ignored(world: World) -> None:
    """The retained Welcome comes with every subscription, and is taken once."""
    before = world.members["a"].dump()
    assert [] == world.members["a"].receive(
        world.topics.member("a"), world.retained[world.topics.member("a")], world.now + 1
    )
    assert before == world.members["a"].dump()


def test_welcome_that_a_rekey_overtook_is_ignored(world: World) -> None:
    """An answer of an earlier epoch does not take the member back."""
    payload = welcome(world, "a", sync(world, "a").nonce)
    world.evict("c")
    root = root_of(world.members["a"])
    assert [] == world.members["a"].receive(world.topics.member("a"), payload, world.now)
    assert root == root_of(world.members["a"])


def test_sync_gives_the_current_keys(world: World) -> None:
    """A member that missed everything has it all by one Sync."""
    world.group.evict("c")
    world.commit(without=["a"])
    request = sync(world, "a")
    assert 1 == request.epoch
    events = world.members["a"].receive(world.topics.member("a"), welcome(world, "a", request.nonce), world.now)
    assert ([Synced(2)], world.root) == (events, root_of(world.members["a"]))
    assert request.nonce not in world.members["a"]._memory.sync_nonces


def test_second_join_gives_a_new_leaf(world: World) -> None:
    """Joining again keeps the place and renews the leaf; until the answer comes, the member stays active."""
    old = world.members["a"]._path().leaf
    world.enroll("a")
    assert State.ACTIVE is world.members["a"].state
    commit = world.group.commit(world.now, world.random)
    events = world.publish(commit)["a"]
    assert [Synced(2)] == [event for event in events if not isinstance(event, Joined)]
    new = world.members["a"]._path().leaf
    assert (0, world.group.leaf_key("a"), True) == (world.members["a"].slot, new.key, new != old)
    assert world.root == root_of(world.members["a"])


def test_welcome_may_come_after_the_rekey_that_leaves_its_member_out(world: World) -> None:
    """In a leaf refresh the bucket's Rekey has no entry for the member: its Welcome heals that."""
    world.enroll("a")
    commit = world.commit(without=["a"])
    for topic, payload in world.messages(commit):
        if topic in world.members["a"].filters:
            world.members["a"].receive(topic, payload, world.now)
    assert world.root == root_of(world.members["a"])
    assert [] == world.members["a"].tick(world.now + 60)


def test_sync_is_still_answered_while_a_second_join_waits(world: World) -> None:
    """The key of the Join that was granted opens the Sync's answer; the other one waits for its own."""
    request = sync(world, "a")
    world.ask("a")
    events = world.members["a"].receive(world.topics.member("a"), welcome(world, "a", request.nonce), world.now)
    assert [Synced(1)] == events
    assert world.members["a"]._memory.join_nonces


def test_leave_is_provable(world: World) -> None:
    """A member asks to be let go with its leaf key."""
    leaf = world.group.leaf_key("a")
    assert leaf is not None
    Leave.decode(world.members["a"].leave(world.now)).verify(leaf, "fleet", "a")
    world.group.evict("a", GoodbyeReason.LEFT)
    assert [Evicted(GoodbyeReason.LEFT)] == world.publish(world.group.commit(world.now, world.random))["a"]


@pytest.mark.parametrize("ask", ["sync", "leave"])
def test_requests_need_a_leaf(world: World, ask: str) -> None:
    """Who never joined, or is out, has nothing to ask with."""
    world.create("d")
    with pytest.raises(NotJoinedError, match="d has not joined group fleet"):
        getattr(world.members["d"], ask)(world.now)
    world.evict("a")
    with pytest.raises(EvictedError, match="a is out of group fleet"):
        getattr(world.members["a"], ask)(world.now)


def refuse(world: World, name: str, nonce: bytes, reason: RefusalReason) -> list[object]:
    """Return what a member makes of the server's Refusal."""
    payload = world.group.refusal(name, nonce, reason, world.now)
    return [*world.members[name].receive(world.topics.member(name), payload, world.now)]


@pytest.mark.parametrize("reason", set(RefusalReason) - {RefusalReason.NOT_A_MEMBER})
def test_refused_join_is_said(reason: RefusalReason) -> None:
    """A member that is not in yet hears the reason, and goes on asking."""
    world = World()
    world.create("a")
    nonce = world.ask("a").nonce
    assert [RequestRefused(reason, world.now)] == refuse(world, "a", nonce, reason)
    assert State.JOINING is world.members["a"].state


def test_refusal_is_taken_once(world: World) -> None:
    """A replayed Refusal, or one of a request that was never made, is refused."""
    nonce = sync(world, "a").nonce
    refuse(world, "a", nonce, RefusalReason.TRY_LATER)
    for unknown in (nonce, b"?" * 16):
        with refused(Reason.WRONG_NONCE, "nonce"):
            refuse(world, "a", unknown, RefusalReason.TRY_LATER)


def test_forged_refusal_is_refused(world: World) -> None:
    """Only the server may say no."""
    payload = bytearray(world.group.refusal("a", sync(world, "a").nonce, RefusalReason.NOT_A_MEMBER, world.now))
    payload[-1] ^= 1
    with refused(Reason.BAD_SIGNATURE, "signature"):
        world.members["a"].receive(world.topics.member("a"), bytes(payload), world.now)
    assert State.ACTIVE is world.members["a"].state


def test_member_that_the_server_does_not_know_is_out(world: World) -> None:
    """A Sync refused because there is no such member is an eviction whose Goodbye was lost."""
    nonce = sync(world, "a").nonce
    assert [Evicted(GoodbyeReason.EVICTED)] == refuse(world, "a", nonce, RefusalReason.NOT_A_MEMBER)
    assert (State.EVICTED, None) == (world.members["a"].state, world.members["a"].slot)


@pytest.mark.parametrize("off", [-7200, 7200])
def test_refusal_for_wrong_time_sets_the_clock(off: int) -> None:
    """A member whose clock is wrong, by hours behind or ahead, asks again by the server's."""
    world = World()
    member = world.create("a")
    nonce = Join.decode(member.join(world.now + off), Suite.X25519).nonce
    refusal = world.group.refusal("a", nonce, RefusalReason.WRONG_TIME, world.now)
    member.receive(world.topics.member("a"), refusal, world.now + off)
    assert 1_000_000_000 <= Join.decode(member.join(world.now + off), Suite.X25519).time <= 1_000_000_001


def test_refusal_of_another_member_is_refused(world: World) -> None:
    """A Refusal is bound to its member."""
    nonce = sync(world, "a").nonce
    payload = Refusal.seal(SERVER, "fleet", "b", nonce=nonce, reason=RefusalReason.NOT_A_MEMBER, time=1)
    with refused(Reason.BAD_SIGNATURE, "signature"):
        world.members["a"].receive(world.topics.member("a"), payload, world.now)


def test_evicted_member_joins_again(world: World) -> None:
    """After an eviction a Join is a new beginning; the old Welcome does not open."""
    old = world.retained[world.topics.member("a")]
    world.evict("a")
    member = world.members["a"]
    with pytest.raises(RefusedError):
        member.receive(world.topics.member("a"), old, world.now)
    world.enroll("a")
    assert State.JOINING is member.state
    with refused(Reason.WRONG_NONCE, "nonce"):
        member.receive(world.topics.member("a"), old, world.now)
    assert [Joined(3)] == world.publish(world.group.commit(world.now, world.random))["a"]
    assert world.root == root_of(member)


def test_a_public_key_alone_is_enough_for_a_welcome() -> None:
    """The nonce of the first Join follows from its KEM key, so that it need not be sent; it answers later ones, too."""
    world = World()
    member = world.create("a")
    first, again = world.ask("a"), world.ask("a")
    assert first_nonce(first.kem_public) == first.nonce != again.nonce
    assert bytes.fromhex("45aaf307ccafa2b3b0d124c1a80d5acb") == first_nonce(b"k" * 32)
    world.group.enroll(Enrollment("a", first.identity, first.kem_public, first_nonce(first.kem_public)))
    world.commit()
    assert (State.ACTIVE, world.group.epoch) == (member.state, member.epoch)


def test_a_member_that_joins_again_has_another_first_nonce() -> None:
    """Each KEM key has its own, so that what answered one membership answers no other."""
    world = World()
    world.join("a")
    before = world.members["a"]._memory.join_nonces[0]
    join = world.ask("a")
    assert before != join.nonce == first_nonce(join.kem_public)
