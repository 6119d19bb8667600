"""What a member saves, and what it makes of a state that is damaged."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from core.forge import replaced
from core.refusal import refused
from core.world import World, root_of

from brokerkm.core.commit import Enrollment
from brokerkm.core.crypto import Suite
from brokerkm.core.events import Cause, Recovered, Stale
from brokerkm.core.member import Member
from brokerkm.core.memory import Memory, Profile
from brokerkm.core.policy import Policy
from brokerkm.core.state import State
from brokerkm.errors import Reason, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable


def new(world: World) -> None:
    """Member a is new."""
    world.create("a")


def joining(world: World) -> None:
    """Member a has sent two Joins."""
    world.create("a")
    world.ask("a")
    world.ask("a")


def active(world: World) -> None:
    """Member a is in, follows a rekey and a join, and has heard from b."""
    world.join("a", "b", "c", "d", "e")
    world.evict("c")
    world.join("f")
    world.send("b", "a", b"one")
    world.members["a"].sync(world.now)


def stale(world: World) -> None:
    """Member a has missed a rekey."""
    active(world)
    world.group.evict("d")
    commit = world.commit(without=["a"])
    world.members["a"].receive(world.topics.beacon, commit.beacon, world.now)
    assert [Stale(Cause.BEACON)] == world.members["a"].tick(world.now + 5)


def evicted(world: World) -> None:
    """Member a is out."""
    active(world)
    world.evict("a")


STATES = {State.NEW: new, State.JOINING: joining, State.ACTIVE: active, State.STALE: stale, State.EVICTED: evicted}
EVERY_STATE = pytest.mark.parametrize(("state", "prepare"), STATES.items())


def state_of(prepare: Callable[[World], None], **options: Any) -> tuple[World, Member]:  # noqa: ANN401 - the world's
    """Return a world and its member a in a state."""
    world = World(**options)
    prepare(world)
    return world, world.members["a"]


@EVERY_STATE
@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize("source", [True, False])
def test_state_is_saved_and_loaded(
    state: State, prepare: Callable[[World], None], suite: Suite, *, source: bool
) -> None:
    """In each state, what is loaded is what was saved, and saves as the same bytes."""
    world, member = state_of(prepare, suite=suite, policy=Policy(source_authentication=source))
    loaded = Member.load(member.dump(), world.random, world.now)
    assert state is loaded.state
    assert member._memory.profile == loaded._memory.profile
    assert (member.epoch, member.slot, member.filters) == (loaded.epoch, loaded.slot, loaded.filters)
    assert (member.identity, member.certificate_expiry) == (loaded.identity, loaded.certificate_expiry)
    assert member._memory.encode() == Memory.decode(member.dump()).encode()
    assert member._memory.windows == loaded._memory.windows


@EVERY_STATE
def test_saved_member_does_what_it_would_have_done(state: State, prepare: Callable[[World], None]) -> None:
    """A restart costs nothing: the answer that was awaited still fits, and the next rekey is followed."""
    world, member = state_of(prepare)
    world.members["a"] = Member.load(member.dump(), world.random, world.now)
    world.create("z")
    if state is State.JOINING:
        nonce = member._memory.join_nonces[-1]
        member = world.members["a"]
        join = member._memory.profile.suite.public_key(member._memory.join_seed)
        world.group.enroll(Enrollment("a", member.identity, join, nonce))
        world.commit()
    elif state in {State.NEW, State.EVICTED}:
        world.join("a")
    else:
        world.fetch("a")
    world.join("z")
    assert (State.ACTIVE, world.root) == (world.members["a"].state, root_of(world.members["a"]))
    assert 1 == len(world.send("a", "z", b"x"))


def test_stale_member_is_stale_until_a_beacon_agrees() -> None:
    """A restart does not make anyone forget a gap; the retained messages end it."""
    world, member = state_of(stale)
    restarted = world.members["a"] = Member.load(member.dump(), world.random, world.now)
    assert State.STALE is restarted.state
    assert Recovered(4) in world.fetch("a")
    assert world.root == root_of(restarted)


def test_window_is_saved_in_as_many_bytes_as_it_needs() -> None:
    """A state of 65,536 senders stays small: a window is saved without its leading zeros."""
    world, member = state_of(active)
    for _ in range(20):
        world.send("b", "a", b"")
    ((_, _, _, top, mask),) = msgpack.unpackb(member.dump())[12]
    assert (20, (1 << 21) - 1, 3) == (top, int.from_bytes(mask, "big"), len(mask))


@EVERY_STATE
def test_truncated_state_is_refused(state: State, prepare: Callable[[World], None]) -> None:
    """A state that was cut anywhere is refused, never half believed."""
    world, member = state_of(prepare)
    saved = member.dump()
    for end in range(len(saved)):
        with pytest.raises(RefusedError):
            Member.load(saved[:end], world.random, world.now)
    with refused(Reason.TRAILING, "message"):
        Member.load(saved + b"\0", world.random, world.now)


@EVERY_STATE
def test_flipped_bits_crash_nothing(state: State, prepare: Callable[[World], None]) -> None:
    """A state with a bit changed loads as another member or is refused, whichever bit it is; nothing else happens."""
    world, member = state_of(prepare)
    saved = member.dump()
    bits = range(8 * len(saved)) if len(saved) < 400 else Random(1).sample(range(8 * len(saved)), 3000)
    refusals = 0
    for bit in bits:
        damaged = bytearray(saved)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            Member.load(bytes(damaged), world.random, world.now).tick(world.now)
        except RefusedError:
            refusals += 1
    assert 0 < refusals < len(bits)


SAVED: list[Any] = msgpack.unpackb(state_of(active, policy=Policy(source_authentication=True))[1].dump())
PROFILE, SECRETS, NONCES, PROGRESS, ASKED, CLOCK, PATH, POLICY, CERTIFICATE, TRAFFIC, WINDOWS, TIMES, *REST = SAVED[2:]
TRUST, RESERVE = REST
KEY = b"k" * 32


@pytest.mark.parametrize(
    ("place", "value", "reason", "field"),
    [
        (0, "other", Reason.WRONG_MESSAGE, "state"),
        (1, 1, Reason.WRONG_VERSION, "state.format"),
        (2, PROFILE[:4], Reason.WRONG_LENGTH, "state.profile"),
        (2, replaced(PROFILE, 0, "a/b"), Reason.OUT_OF_RANGE, "state.group"),
        (2, replaced(PROFILE, 1, ""), Reason.OUT_OF_RANGE, "state.member"),
        (2, replaced(PROFILE, 2, KEY[1:]), Reason.WRONG_LENGTH, "state.server_key"),
        (2, replaced(PROFILE, 3, 3), Reason.OUT_OF_RANGE, "state.suite"),
        (2, replaced(PROFILE, 4, "a//b"), Reason.OUT_OF_RANGE, "state.prefix"),
        (2, replaced(PROFILE, 4, None), Reason.WRONG_TYPE, "state.prefix"),
        (3, replaced(SECRETS, 0, KEY[1:]), Reason.WRONG_LENGTH, "state.identity"),
        (3, replaced(SECRETS, 1, KEY[1:]), Reason.WRONG_LENGTH, "state.seed"),
        (3, replaced(SECRETS, 2, KEY[1:]), Reason.WRONG_LENGTH, "state.seed"),
        (4, replaced(NONCES, 0, [b""]), Reason.WRONG_LENGTH, "state.nonces"),
        (4, replaced(NONCES, 1, [b""]), Reason.WRONG_LENGTH, "state.nonces"),
        (4, replaced(NONCES, 2, [b""]), Reason.WRONG_LENGTH, "state.nonces"),
        (5, replaced(PROGRESS, 0, "asleep"), Reason.OUT_OF_RANGE, "state.state"),
        (5, replaced(PROGRESS, 0, "new"), Reason.OUT_OF_RANGE, "state.state"),
        (5, replaced(PROGRESS, 1, None), Reason.WRONG_TYPE, "state.epoch"),
        (6, replaced(ASKED, 0, -1), Reason.OUT_OF_RANGE, "state.last_request"),
        (6, replaced(ASKED, 1, -1), Reason.OUT_OF_RANGE, "state.counter"),
        (6, replaced(ASKED, 2, -1), Reason.OUT_OF_RANGE, "state.acked"),
        (7, [2**63, 0], Reason.OUT_OF_RANGE, "state.clock_offset"),
        (7, [0, -1], Reason.OUT_OF_RANGE, "state.heard"),
        (8, None, Reason.OUT_OF_RANGE, "state.state"),
        (8, replaced(PATH, 0, 1 << 24), Reason.OUT_OF_RANGE, "state.slot"),
        (8, replaced(PATH, 1, 65), Reason.OUT_OF_RANGE, "state.degree"),
        (8, replaced(PATH, 2, PATH[2][:1]), Reason.WRONG_LENGTH, "state.keys"),
        (8, replaced(PATH, 2, [[KEY, 1, 0]] * 26), Reason.WRONG_LENGTH, "state.keys"),
        (8, replaced(PATH, 2, [[KEY, 1, 0], [KEY, 0, 0]]), Reason.OUT_OF_RANGE, "state.keys"),
        (8, replaced(PATH, 2, [[KEY, 1, 0], [KEY, 1, 65536]]), Reason.OUT_OF_RANGE, "state.keys"),
        (8, replaced(PATH, 2, [[KEY, 1, 0], [b"", 1, 0]]), Reason.WRONG_LENGTH, "state.keys"),
        (9, replaced(POLICY, 0, [30, 5, 0, 1, 0, 1, 0]), Reason.OUT_OF_RANGE, "policy.max_silence"),
        (9, replaced(POLICY, 1, -1), Reason.OUT_OF_RANGE, "state.policy_at"),
        (9, replaced(POLICY, 2, -1), Reason.OUT_OF_RANGE, "state.policy_at"),
        (9, replaced(POLICY, 3, -1), Reason.OUT_OF_RANGE, "state.algorithm_until"),
        (9, replaced(POLICY, 4, -1), Reason.OUT_OF_RANGE, "state.source_until"),
        (10, CERTIFICATE[:2], Reason.WRONG_LENGTH, "certificate"),
        (11, [[1, 0, KEY]], Reason.WRONG_LENGTH, "state.traffic"),
        (11, [[1, 65536, KEY, None]], Reason.OUT_OF_RANGE, "state.traffic"),
        (11, [[1, 0, b"", None]], Reason.WRONG_LENGTH, "state.traffic"),
        (11, [[1, 0, KEY, -1]], Reason.OUT_OF_RANGE, "state.traffic"),
        (12, [[1, "b", b"", 0, b""]], Reason.WRONG_LENGTH, "state.windows"),
        (12, [[1, "b", bytes(8), 0, bytes(129)]], Reason.WRONG_LENGTH, "state.windows"),
        (12, [[1, "b/c", bytes(8), 0, b""]], Reason.OUT_OF_RANGE, "state.windows"),
        (12, [[-1, "b", bytes(8), 0, b""]], Reason.OUT_OF_RANGE, "state.windows"),
        (13, [[0, 0]], Reason.WRONG_LENGTH, "state.subgroup_times"),
        (13, [[0, 0, -1]], Reason.OUT_OF_RANGE, "state.subgroup_times"),
        (14, TRUST[:1], Reason.WRONG_LENGTH, "state.trust"),
        (14, replaced(TRUST, 0, KEY[1:]), Reason.WRONG_LENGTH, "state.server_key"),
        (14, replaced(TRUST, 1, [[KEY]]), Reason.WRONG_LENGTH, "state.former_keys"),
        (14, replaced(TRUST, 1, [[KEY[1:], 1]]), Reason.WRONG_LENGTH, "state.former_keys"),
        (14, replaced(TRUST, 1, [[KEY, -1]]), Reason.OUT_OF_RANGE, "state.former_keys"),
        (15, RESERVE[:1], Reason.WRONG_LENGTH, "state.reserve"),
        (15, [[[0, KEY, 0]], []], Reason.WRONG_LENGTH, "state.spares"),
        (15, [[[32, KEY]], []], Reason.OUT_OF_RANGE, "state.spares"),
        (15, [[[0, KEY[1:]]], []], Reason.WRONG_LENGTH, "state.spares"),
        (15, [[], [[-1, "b", bytes(8), 0, b""]]], Reason.OUT_OF_RANGE, "state.windows"),
    ],
)
def test_malformed_state_is_refused(place: int, value: object, reason: Reason, field: str) -> None:
    """Each field of a state has its type, length and range."""
    with refused(reason, field):
        Memory.decode(msgpack.packb(replaced(SAVED, place, value)))


def test_state_of_another_length_is_refused() -> None:
    """A state has sixteen parts, in their shortest encoding."""
    with refused(Reason.WRONG_LENGTH, "state"):
        Memory.decode(msgpack.packb(SAVED[:-1]))
    with refused(Reason.NOT_CANONICAL, "message"):
        Memory.decode(b"\xdd\x00\x00\x00\x10" + msgpack.packb(SAVED)[3:])


def test_state_of_before_there_were_spares_is_read() -> None:
    """A device that is updated goes on from what the program before has saved."""
    before = [SAVED[0], 2, *SAVED[2:15]]
    assert msgpack.packb(SAVED) == Memory.decode(msgpack.packb(before)).encode()


@pytest.mark.parametrize("junk", [b"", b"\x90", b"not a state", b"\x80", b"\x91\xc0"])
def test_other_files_are_no_state(junk: bytes) -> None:
    """A file of another kind is refused for what it is."""
    with pytest.raises(RefusedError):
        Memory.decode(junk)


def test_clock_offset_may_be_negative() -> None:
    """A member whose clock is ahead of the server's is saved as such."""
    memory = Memory(Profile("fleet", "a", KEY), KEY, clock_offset=-(10**12))
    assert -(10**12) == Memory.decode(memory.encode()).clock_offset
