"""Spares: root keys that a device gets beforehand, and what they are and are not good for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from core.refusal import refused
from core.world import World, root_of

from brokerkm.core import reserve
from brokerkm.core.commit import Enrollment
from brokerkm.core.crypto import Algorithm, ratchet
from brokerkm.core.data import Sealer, traffic_key
from brokerkm.core.events import Dropped, MessageReceived, Rekeyed
from brokerkm.core.member import Member
from brokerkm.core.policy import Policy
from brokerkm.core.state import State
from brokerkm.core.welcome import MAX_SPARES, NodeKey
from brokerkm.errors import Reason, RefusedError, StaleError, UsageError

if TYPE_CHECKING:
    from brokerkm.core.events import Event

SENDER: Final = "b"
AWAY: Final = "a"
TOPIC: Final = "plant/1"


def world_of(spares: int = 3, *, policy: Policy | None = None) -> World:
    """Return a group of five with a device that has got `spares` by file and hears nothing from then on."""
    world = World(policy=policy)
    world.join("b", "c", "d", "e")
    carry(world, AWAY, spares)
    return world


def carry(world: World, name: str, spares: int) -> None:
    """Seat a device by file."""
    member = world.create(name)
    join = world.ask(name)
    who = Enrollment(name, join.identity, join.kem_public, join.nonce, spares)
    world.group.enroll(who)
    world.commit(without=[name])
    member.receive(world.topics.member(name), world.group.welcome(who, world.now), world.now)


def rotate(world: World, *hearing: str) -> None:
    """Renew the root; only those named, and those who are online, hear of it."""
    world.group.rotate()
    world.commit(without={AWAY} - set(hearing))


def read(events: list[Event]) -> list[bytes]:
    """Return the payloads of the messages among `events`."""
    return [event.payload for event in events if isinstance(event, MessageReceived)]


def forged(root: NodeKey, counter: int = 0, sender: str = SENDER, *, algorithm: Algorithm | None = None) -> bytes:
    """Return Data that whoever has a root key can make."""
    sealer = Sealer("fleet", sender, b"saltsalt", "bkm/1/")
    sealer.use(traffic_key("fleet", root), root.birth, root.step, algorithm or Algorithm.AES_256_GCM)
    sealer._counter = counter
    return sealer.seal(TOPIC, b"forged")


def test_group_draws_what_is_missing() -> None:
    """Spares are drawn by the commit that seats who wants them; those that are there count."""
    world = world_of(2)
    first = world.group.spares
    carry(world, "f", 3)
    assert (2, 3) == (len(first), len(world.group.spares))
    assert first == world.group.spares[:2]
    carry(world, "g", 1)
    assert (2, 3, 1) == tuple(world.members[name].spares for name in (AWAY, "f", "g"))
    assert 3 == len(world.group.spares)


def test_rotation_takes_the_oldest_spare() -> None:
    """A rotation of the root alone uses up one spare, in the commit that publishes it; then they are drawn as ever."""
    world = world_of(2)
    expected = world.group.spares
    for spare in expected:
        rotate(world)
        assert NodeKey(spare, world.group.epoch, 0) == world.root
    assert () == world.group.spares
    rotate(world)
    assert world.root.key not in expected


def test_prepared_commit_takes_no_spare() -> None:
    """A commit that could not be stored has used nothing up."""
    world = world_of(2)
    world.group.rotate()
    change = world.group.prepare(world.now, world.random).change
    assert change.spares == world.group.spares[1:]
    assert 2 == len(world.group.spares)


def test_join_takes_no_spare_but_growth_does() -> None:
    """A join ratchets the root; a new root above it is a rotation."""
    world = world_of(2)
    first, _ = world.group.spares
    world.join("f")
    assert 2 == len(world.group.spares)
    world.join(*(f"g{number}" for number in range(20)))
    assert (first, 1) == (world.root.key, len(world.group.spares))


@pytest.mark.parametrize("change", ["evict", "refresh", "rotate_all", "subtree", "leave", "recover"])
def test_whatever_shuts_somebody_out_drops_all_spares(change: str) -> None:
    """Who is shut out may hold them, and where keys are feared to have leaked they may have leaked as well."""
    world = world_of(2)
    spares = world.group.spares
    if change in {"evict", "leave"}:
        world.group.evict("b")
    elif change == "refresh":
        world.enroll("b")
    elif change == "rotate_all":
        world.group.rotate_all()
    elif change == "subtree":
        world.group.rotate(1)
    else:
        world.group.recover(99, 0)
        world.enroll("b", "c", "d", "e", AWAY)
    world.group.rotate()  # waits as well
    world.commit()
    assert () == world.group.spares
    assert world.root.key not in spares


def test_spares_that_are_wanted_beside_an_eviction_are_new() -> None:
    """A device gets spares that nobody had who goes in the same commit."""
    world = world_of(2)
    before = world.group.spares
    world.group.evict("b")
    carry(world, "f", 2)
    assert 2 == len(world.group.spares)
    assert not set(before) & set(world.group.spares)


@pytest.mark.parametrize("count", [-1, MAX_SPARES + 1])
def test_number_of_spares_is_bounded(count: int) -> None:
    """A group keeps 32 at most."""
    with pytest.raises(UsageError, match="0 to 32 spare keys"):
        World().group.enroll(Enrollment("a", spares=count))


def test_other_welcomes_carry_none() -> None:
    """What the broker carries has no spares: neither the commit's Welcome nor the answer to a Sync."""
    world = World()
    member = world.create(AWAY)
    join = world.ask(AWAY)
    world.group.enroll(Enrollment(AWAY, join.identity, join.kem_public, join.nonce, 2))
    world.commit()
    assert (0, 2) == (member.spares, len(world.group.spares))


def test_device_reads_on_by_its_spares() -> None:
    """Without any Rekey, it opens what is sealed under the roots to come, in any order, each message once."""
    world = world_of(3)
    member = world.members[AWAY]
    rotate(world)
    early = world.members[SENDER].seal(TOPIC, b"1", world.now)
    rotate(world)
    rotate(world)
    late = world.members[SENDER].seal(TOPIC, b"3", world.now)
    state = member.version
    assert [b"3"] == read(member.receive(TOPIC, late, world.now))
    assert [b"1"] == read(member.receive(TOPIC, early, world.now))
    for message in (early, late):
        with refused(Reason.REPLAY, "counter"):
            member.receive(TOPIC, message, world.now)
    assert (3, state) == (member.spares, member.version)
    rotate(world)  # beyond its spares
    assert [] == world.send(SENDER, AWAY, b"4")


def test_device_follows_joins_under_a_spare() -> None:
    """A spare is ratcheted as far as the header says, up to a bound."""
    world = world_of(1)
    rotate(world)
    for name in ("f", "g", "h"):
        world.join(name) if name != "h" else world.enroll("h")
    world.commit(without=[AWAY])
    assert [b"x"] == read(world.send(SENDER, AWAY, b"x"))
    for step, opened in ((reserve.MAX_AHEAD, [b"forged"]), (reserve.MAX_AHEAD + 1, [])):
        later = NodeKey(ratchet(world.root.key, step - world.root.step), world.root.birth, step)
        assert opened == read(world.members[AWAY].receive(TOPIC, forged(later), world.now))


def test_nothing_is_sent_under_a_spare() -> None:
    """What a spare opens moves no state: the member still misses a Rekey, and its own Data is under the old root."""
    world = world_of(2)
    member, before = world.members[AWAY], root_of(world.members[AWAY])
    rotate(world)
    assert [b"x"] == read(world.send(SENDER, AWAY, b"x"))
    assert (before, State.ACTIVE) == (root_of(member), member.state)
    member.receive(world.topics.beacon, world.retained[world.topics.beacon], world.now)
    member.tick(world.now + member.policy.hold)
    assert State.STALE is member.state
    with pytest.raises(StaleError):
        member.seal(TOPIC, b"y", world.now)
    assert [b"z"] == read(world.send(SENDER, AWAY, b"z"))


def test_rekey_ends_the_spares_up_to_it() -> None:
    """The spare that has become the root, and those before it, are dropped; what was read is still a replay."""
    world = world_of(3)
    member = world.members[AWAY]
    rotate(world)
    rotate(world)
    message = world.members[SENDER].seal(TOPIC, b"x", world.now)
    assert [b"x"] == read(member.receive(TOPIC, message, world.now))
    assert Rekeyed(world.group.epoch) in world.fetch(AWAY)
    assert (1, world.root) == (member.spares, root_of(member))
    with refused(Reason.REPLAY, "counter"):
        member.receive(TOPIC, message, world.now)
    rotate(world)
    assert [b"y"] == read(world.send(SENDER, AWAY, b"y"))


def test_any_other_new_root_ends_them_all() -> None:
    """A member that hears of an eviction has no use for spares: the server has dropped them."""
    world = world_of(3)
    world.evict("c")
    assert 0 == world.members[AWAY].spares


def test_sync_ends_the_spares_up_to_its_root() -> None:
    """A Welcome does what a Rekey does, also if the root was ratcheted since; of the same root it changes nothing."""
    world = world_of(3)
    member = world.members[AWAY]
    join = Enrollment(AWAY, member.identity, member._memory.profile.suite.public_key(member._memory.kem_seed))

    def sync() -> None:
        nonce = member.sync(world.now)[5:21]
        world.now += 1
        welcome = world.group.welcome(Enrollment(AWAY, join.identity, join.kem_public, nonce), world.now)
        member.receive(world.topics.member(AWAY), welcome, world.now)

    sync()
    assert 3 == member.spares
    rotate(world)
    rotate(world)
    world.enroll("f")
    world.commit(without=[AWAY])
    message = world.members[SENDER].seal(TOPIC, b"x", world.now)
    assert [b"x"] == read(member.receive(TOPIC, message, world.now))
    sync()
    assert (1, world.root) == (member.spares, root_of(member))
    with refused(Reason.REPLAY, "counter"):
        member.receive(TOPIC, message, world.now)
    root = world.root._replace(birth=world.group.epoch + 1, step=reserve.MAX_AHEAD + 1)
    member._traffic.reserve.follow(root)
    assert 0 == member.spares


def test_eviction_ends_them() -> None:
    """Who is told that it is out forgets all keys, and what it has seen under them."""
    world = world_of(3)
    rotate(world)
    assert [b"x"] == read(world.send(SENDER, AWAY, b"x"))
    world.evict(AWAY)
    member = world.members[AWAY]
    assert (State.EVICTED, 0, {}) == (member.state, member.spares, member._traffic.opener.windows)


def test_new_bundle_replaces_what_there_was() -> None:
    """A device that is seated anew has the new spares and no others."""
    world = world_of(3)
    member = world.members[AWAY]
    join = world.ask(AWAY)
    who = Enrollment(AWAY, join.identity, join.kem_public, join.nonce, 2)
    world.group.enroll(who)
    world.commit(without=[AWAY])
    member.receive(world.topics.member(AWAY), world.group.welcome(who, world.now), world.now)
    assert dict(enumerate(world.group.spares)) == member._memory.spares


def test_restart_keeps_spares_and_what_was_seen() -> None:
    """Spares are saved with the state, and so is what they opened."""
    world = world_of(3)
    rotate(world)
    rotate(world)
    message = world.members[SENDER].seal(TOPIC, b"x", world.now)
    assert [b"x"] == read(world.members[AWAY].receive(TOPIC, message, world.now))
    saved = world.members[AWAY].dump()
    member = world.members[AWAY] = Member.load(saved, world.random, world.now)
    assert (3, saved) == (member.spares, member.dump())
    assert all(spare not in repr(member._memory).encode() for spare in world.group.spares)
    with refused(Reason.REPLAY, "counter"):
        member.receive(TOPIC, message, world.now)
    assert [b"y"] == read(world.send(SENDER, AWAY, b"y"))


def test_other_rules_hold_under_spares() -> None:
    """Where senders have to sign, what a spare opens has to be signed, too."""
    world = world_of(2, policy=Policy(source_authentication=True))
    rotate(world)
    assert [b"x"] == read(world.send(SENDER, AWAY, b"x"))
    with refused(Reason.NOT_SIGNED, "signature"):
        world.members[AWAY].receive(TOPIC, forged(world.root), world.now)


def test_algorithm_that_is_not_accepted_waits_as_ever() -> None:
    """Genuine Data by another algorithm is of one who knows a newer policy: it waits, and is then given up."""
    world = world_of(2)
    rotate(world)
    member = world.members[AWAY]
    message = forged(world.root, algorithm=Algorithm.CHACHA20_POLY1305)
    assert [] == member.receive(TOPIC, message, world.now)
    assert Dropped(TOPIC, Reason.WRONG_BIRTH) in member.tick(world.now + member.policy.hold)


def test_what_has_waited_is_opened_with_the_first_that_is_tried() -> None:
    """A flood of made-up births leaves no trials for a while; what came meanwhile is read as soon as one succeeds."""
    world = world_of(MAX_SPARES)
    rotate(world)
    member, sender = world.members[AWAY], world.members[SENDER]
    for number in range(reserve.MAX_TRIALS):
        junk = forged(NodeKey(b"j" * 32, 1000 + number, 0), number)
        assert [] == member.receive(TOPIC, junk, world.now)
    kept = [sender.seal(TOPIC, bytes([number]), world.now) for number in range(3)]
    assert [[], []] == [member.receive(TOPIC, message, world.now) for message in kept[:2]]
    world.now += 1
    assert [b"\2", b"\0", b"\1"] == read(member.receive(TOPIC, kept[2], world.now))
    assert [b"x"] == read(world.send(SENDER, AWAY, b"x"))


def test_what_cannot_be_opened_goes_on_waiting() -> None:
    """Junk with a birth whose spare is known waits as all Data of a newer root does, whatever else is opened."""
    world = world_of(2)
    rotate(world)
    rotate(world)
    member, root = world.members[AWAY], world.root
    old = forged(NodeKey(b"j" * 32, root.birth - 1, 0))
    assert [] == member.receive(TOPIC, old, world.now)
    assert [b"forged"] == read(member.receive(TOPIC, forged(root._replace(birth=root.birth - 1), 1), world.now))
    assert [b"x"] == read(world.send(SENDER, AWAY, b"x"))
    assert Dropped(TOPIC, Reason.WRONG_BIRTH) in member.tick(world.now + member.policy.hold)


def test_insider_with_the_same_spares_mutes_nobody() -> None:
    """Data with a birth that is a lie is read, from an insider; the birth's own Data is read all the same, once."""
    world = world_of(3)
    rotate(world)
    member, root = world.members[AWAY], world.root
    lie = root._replace(key=world.group.spares[1])
    for number in range(3 * reserve.MAX_BIRTHS):
        world.now += 1
        made_up = lie._replace(birth=root.birth + number)
        assert [b"forged"] == read(member.receive(TOPIC, forged(made_up, number, "c"), world.now))
    assert reserve.MAX_BIRTHS == len(member._traffic.reserve._births)
    member.receive(TOPIC, forged(lie, 3 * reserve.MAX_BIRTHS, "c"), world.now)
    message = world.members[SENDER].seal(TOPIC, b"x", world.now)
    assert [b"x"] == read(member.receive(TOPIC, message, world.now))
    with refused(Reason.REPLAY, "counter"):
        member.receive(TOPIC, message, world.now)


def test_evicted_holder_reads_nothing() -> None:
    """Who has kept its spares beyond its eviction, and never heard of it, opens nothing that is sent afterwards."""
    world = world_of(3)
    world.group.evict(AWAY)
    world.commit(without=[AWAY])
    rotate(world)
    rotate(world)
    assert 3 == world.members[AWAY].spares
    assert [] == world.send(SENDER, AWAY, b"x")


def test_rekeys_of_a_spare_root_are_as_any_others() -> None:
    """The children of the root get the spare wrapped, as they get any new root."""
    world = world_of(1)
    expected = world.group.spares[0]
    rotate(world, AWAY)
    assert [expected] * 5 == [root_of(member).key for member in world.members.values()]


@pytest.mark.parametrize("spares", [1, MAX_SPARES])
def test_welcome_with_spares_fits_a_message(spares: int) -> None:
    """The largest bundle is far below 16 KiB."""
    world = world_of(spares)
    assert spares == world.members[AWAY].spares


def test_refusal_of_junk_changes_nothing() -> None:
    """Data that is malformed is refused before any spare is tried."""
    world = world_of(2)
    before = world.members[AWAY].dump()
    with pytest.raises(RefusedError):
        world.members[AWAY].receive(TOPIC, b"\x98\x01\x08", world.now)
    assert before == world.members[AWAY].dump()
