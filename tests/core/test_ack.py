"""A member confirms the epochs that it has: when, and by what."""

from __future__ import annotations

import pytest
from core.world import World

from brokerkm.core import admission
from brokerkm.core.events import AckDue, Event
from brokerkm.core.member import Member
from brokerkm.core.policy import Policy
from brokerkm.core.request import Ack, Sync
from brokerkm.errors import EvictedError, NotJoinedError

WITHIN = 20


def joined(*names: str, acknowledge: int = WITHIN) -> World:
    """Return a world whose group asks for acknowledgements, with members."""
    world = World(policy=Policy(acknowledge=acknowledge))
    world.join(*names)
    return world


def due(world: World, name: str = "a") -> float:
    """Return when something is due at a member, in seconds from now; the Ack comes before everything else here."""
    deadline = world.members[name].next_deadline
    assert deadline is not None
    return deadline - world.now


def acks(events: list[Event]) -> list[Event]:
    """Return the AckDue among `events`."""
    return [event for event in events if isinstance(event, AckDue)]


def test_ack_is_due_at_a_random_moment_within_what_the_policy_says() -> None:
    """A fleet that takes the same rekey does not answer all at once."""
    world = joined(*"abcdefgh")
    moments = {due(world, name) for name in world.members}
    assert 8 == len(moments)
    assert all(0 <= moment <= WITHIN for moment in moments)
    member = world.members["a"]
    assert [] == acks(member.tick(world.now + due(world) - 0.001))
    assert [AckDue(1)] == acks(member.tick(world.now + due(world)))
    assert [] == acks(member.tick(world.now + WITHIN))


def test_ack_proves_the_leaf_key_and_names_the_epoch() -> None:
    """The server believes it, and its counter follows that of other requests."""
    world = joined("a", "b")
    world.evict("b")
    member = world.members["a"]
    sync, ack = Sync.decode(member.sync(world.now)), Ack.decode(member.ack(world.now))
    leaf_key = world.group.leaf_key("a")
    now = int(world.now * 1000) + 5
    admission.check_proof(ack, "fleet", "a", now=now, last_time=sync.time, leaf_key=leaf_key)
    assert (2, sync.counter + 1) == (ack.epoch, ack.counter)


def test_several_epochs_are_confirmed_at_once() -> None:
    """A newer epoch does not put off the moment that was drawn, and is what is confirmed."""
    world = joined("a", "b", "c")
    at = world.now + due(world)
    world.evict("b")
    assert at == world.members["a"].next_deadline
    assert [AckDue(2)] == acks(world.members["a"].tick(at))


def test_what_was_confirmed_is_not_confirmed_again() -> None:
    """Nothing is due until there is a newer epoch, not even after a restart."""
    world = joined("a", "b")
    member = world.members["a"]
    before = member.version
    member.ack(world.now)
    assert before < member.version, "the counter must be saved before it is sent"
    world.beat()
    assert [] == acks(member.tick(world.now + WITHIN))
    again = Member.load(member.dump(), world.random, world.now)
    assert [] == acks(again.tick(world.now + WITHIN))
    world.evict("b")
    assert WITHIN >= due(world)


def test_ack_that_was_not_made_falls_due_again() -> None:
    """A member without a connection may let it pass; a Beacon or a restart asks again."""
    world = joined("a")
    member = world.members["a"]
    member.tick(world.now + WITHIN)
    again = Member.load(member.dump(), world.random, world.now)
    world.beat()
    assert [AckDue(1)] == acks(member.tick(world.now + WITHIN))
    assert [AckDue(1)] == acks(again.tick(world.now + WITHIN))


def test_nothing_is_due_where_the_policy_does_not_ask() -> None:
    """Acknowledgements are optional, and can be given up."""
    world = joined("a", acknowledge=0)
    assert [] == acks(world.members["a"].tick(world.now + 200))
    world = joined("a")
    world.group.set_policy(Policy(acknowledge=0))
    world.now += 1
    world.beat()
    assert [] == acks(world.members["a"].tick(world.now + WITHIN))


def test_nothing_is_due_from_one_who_is_out() -> None:
    """An evicted member has no key to prove an Ack with; nor has one that was never in."""
    world = joined("a", "b")
    world.evict("a")
    assert [] == acks(world.members["a"].tick(world.now + WITHIN))
    with pytest.raises(EvictedError):
        world.members["a"].ack(world.now)
    with pytest.raises(NotJoinedError):
        world.create("c").ack(world.now)


def test_counter_grows_with_each_request() -> None:
    """Two holders of one state use a counter twice; one holder never does, whatever it asks and whenever it starts."""
    world = World()
    assert 1 == world.ask("a").counter if world.create("a") else None
    world.join("a")
    member = world.members["a"]
    first = Sync.decode(member.sync(world.now)).counter
    saved = member.dump()
    one, other = (Member.load(saved, world.random, world.now) for _ in range(2))
    counters = [Ack.decode(holder.ack(world.now)).counter for holder in (one, other)]
    assert (first, [first + 1, first + 1]) == (3, counters)
