"""A group that was restored from a backup: the epoch jumps, every key is new, and everybody is welcomed again."""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING

import pytest
from core.refusal import refused
from core.world import World, root_of

from brokerkm.core.commit import Enrollment
from brokerkm.core.events import MessageReceived, Synced
from brokerkm.core.group import Group
from brokerkm.core.member import Member
from brokerkm.core.rekey import Beacon
from brokerkm.core.state import State
from brokerkm.core.tree import KeyTree
from brokerkm.errors import Reason, RefusedError, UsageError

if TYPE_CHECKING:
    from brokerkm.core.request import Join

MARGIN = 1 << 20


class Backed:
    """A world whose server is restored from a backup that was made in `__init__`."""

    def __init__(self, *names: str) -> None:
        self.world = world = World()
        self.joins: dict[str, Join] = {}
        for name in names:
            world.create(name)
            self._seat(name)
        group, tree = world.group, world.group.tree
        levels = [(level, number) for level, nodes in enumerate(tree.levels) for number in range(-(-len(nodes) // 128))]
        pages = [(*place, tree.page(*place)) for place in levels]
        self._saved = (group.epoch, group.time, tree.height, pages, copy.deepcopy(group.directory), dict(self.joins))

    def _seat(self, name: str) -> None:
        join = self.joins[name] = self.world.ask(name)
        self.world.group.enroll(Enrollment(name, join.identity, join.kem_public, join.nonce))
        self.world.commit()

    def seat(self, name: str) -> None:
        """Let somebody join, or renew its leaf, after the backup."""
        if name not in self.world.members:
            self.world.create(name)
        self._seat(name)

    def restore(self) -> int:
        """Let the server have the backup; return the epoch that the broker knows of."""
        epoch, time, height, pages, directory, self.joins = self._saved
        newest = self.world.group.epoch
        tree = KeyTree.load(4, height, pages)
        self.world.group = Group("fleet", b"s" * 32, epoch=epoch, time=time, tree=tree, directory=directory)
        return newest

    def recover(self, *evicted: str, without: tuple[str, ...] = ()) -> None:
        """Recover as the service does; those `without` a connection hear nothing."""
        world, newest = self.world, Beacon.decode(self.world.retained[self.world.topics.beacon])
        world.group.recover(newest.epoch + MARGIN, newest.time)
        for name, join in self.joins.items():
            if name in evicted:
                world.group.evict(name)
            else:
                world.group.enroll(Enrollment(name, join.identity, join.kem_public, join.nonce))
        world.commit(without=without)


def talks(world: World, one: str, other: str) -> bool:
    """Return whether `other` can read what `one` sends."""
    return [MessageReceived] == [type(event) for event in world.send(one, other, b"hello")]


def test_everybody_talks_again_after_a_recovery() -> None:
    """Those that the backup knew get a Welcome that their last granted Join opens, with an epoch above all others."""
    backed = Backed(*"abcde")
    world = backed.world
    world.evict("b")
    newest = backed.restore()
    backed.recover("b")
    assert newest + MARGIN == world.group.epoch
    for name in "acde":
        assert (State.ACTIVE, world.root) == (world.members[name].state, root_of(world.members[name]))
    assert talks(world, "a", "e")
    world.join("f")
    world.evict("c")
    assert talks(world, "a", "f")


def test_no_key_of_before_is_used_after() -> None:
    """Whoever holds the backup, or keys of after it, reads nothing: every leaf and every node is new."""
    backed = Backed(*"abcdefgh")
    backed.restore()
    tree = backed.world.group.tree
    before = {bytes(level.keys[at : at + 32]) for level in tree.levels for at in range(0, len(level.keys), 32)}
    backed.recover()
    after = [bytes(level.keys[at : at + 32]) for level in tree.levels for at in range(0, len(level.keys), 32)]
    assert before.isdisjoint(key for key in after if any(key))
    assert all(birth in {0, backed.world.group.epoch} for level in tree.levels for birth in level.births)


def test_recovery_needs_no_rekey_message() -> None:
    """Nobody holds a key that a new one could be wrapped by."""
    backed = Backed(*"abcdefgh")
    world = backed.world
    backed.restore()
    backed.world.group.recover(1000, 0)
    for join in [*backed.joins]:
        world.group.enroll(Enrollment(join, kem_public=backed.joins[join].kem_public, nonce=backed.joins[join].nonce))
    commit = world.group.prepare(world.now, world.random)
    assert ((), 8) == (commit.rekeys, len(commit.welcomes))


def test_one_that_was_evicted_after_the_backup_stays_out_if_it_is_named() -> None:
    """Even if it has kept everything it ever had."""
    backed = Backed(*"abc")
    world = backed.world
    kept = world.members["b"].dump()
    world.evict("b")
    backed.restore()
    backed.recover("b")
    thief = Member.load(kept, world.random, world.now)
    for topic, payload in world.retained.items():
        if "/m/" not in topic:
            with contextlib.suppress(RefusedError):
                thief.receive(topic, payload, world.now)
    assert thief.behind
    assert world.root != root_of(thief)
    world.members["b"] = thief
    world.fetch("b")
    assert State.EVICTED is thief.state


def test_one_whose_leaf_was_renewed_after_the_backup_joins_again() -> None:
    """Its Welcome is under a Join that it has forgotten; the Beacon shows it that something is missing."""
    backed = Backed(*"abc")
    world = backed.world
    backed.seat("b")
    backed.restore()
    backed.recover(without=("b",))
    with refused(Reason.WRONG_NONCE, "nonce"):
        world.fetch("b")
    world.members["b"].receive(world.topics.beacon, world.retained[world.topics.beacon], world.now)
    assert world.members["b"].behind
    backed.seat("b")
    assert State.ACTIVE is world.members["b"].state
    assert talks(world, "a", "b")


def test_one_that_joined_after_the_backup_joins_again() -> None:
    """The server does not know it; its Join is that of a newcomer."""
    backed = Backed("a", "b")
    world = backed.world
    backed.seat("c")
    backed.restore()
    backed.recover()
    world.members["c"].receive(world.topics.beacon, world.retained[world.topics.beacon], world.now)
    assert world.members["c"].behind
    assert world.group.leaf_key("c") is None
    backed.seat("c")
    assert talks(world, "a", "c")


def test_a_member_with_keys_of_the_lost_future_takes_its_welcome() -> None:
    """Rekeys of after the backup, even retained ones, are old beside a Welcome of the recovery."""
    backed = Backed(*"abcdef")
    world = backed.world
    world.evict("f")
    old = dict(world.retained)
    backed.restore()
    backed.recover("f")
    for name in "abcde":
        for topic in world.members[name].filters:
            if topic in old and "/n/" in topic:
                assert [] == world.members[name].receive(topic, old[topic], world.now)
        assert world.root == root_of(world.members[name])
    sync = world.members["a"].sync(world.now)
    answer = Enrollment("a", b"", backed.joins["a"].kem_public, sync[5:21])
    events = world.members["a"].receive(world.topics.member("a"), world.group.welcome(answer, world.now), world.now)
    assert [Synced] == [type(event) for event in events]


def test_recovery_is_refused_unless_it_renews_everybody() -> None:
    """A member that kept its leaf key could read on with what it had before."""
    backed = Backed("a", "b")
    group = backed.world.group
    with pytest.raises(UsageError, match="is at epoch 2: it cannot recover at epoch 2"):
        group.recover(2, 0)
    group.recover(3, 0)
    group.enroll(Enrollment("a"))
    with pytest.raises(UsageError, match="each of its members needs a new leaf key"):
        group.prepare(backed.world.now, backed.world.random)
    group.discard()
    group.enroll(Enrollment("a"))
    assert 3 == group.commit(backed.world.now, backed.world.random).epoch


def test_time_goes_on_from_what_was_seen() -> None:
    """A clock that is behind that of before the disaster must not make new Beacons and Welcomes look old."""
    backed = Backed("a")
    group = backed.world.group
    group.recover(100, group.time + 5_000_000)
    expected = group.time + 1
    group.enroll(Enrollment("a"))
    assert expected == group.commit(backed.world.now, backed.world.random).change.time
