"""What somebody gains who has the server refuse false requests with a member's nonce, or keeps its answers: nothing."""

from __future__ import annotations

import pytest
from core.refusal import refused
from core.world import World

from brokerkm.core.commit import Enrollment
from brokerkm.core.events import Event, Heard, RequestRefused, Silent, Synced
from brokerkm.core.notice import RefusalReason
from brokerkm.core.request import Sync
from brokerkm.core.state import State
from brokerkm.errors import Reason, SilentError

SILENCE = 300  # seconds; the default policy's


@pytest.fixture
def world() -> World:
    """Member a of one group."""
    made = World()
    made.join("a")
    return made


def take(world: World, payload: bytes) -> list[Event]:
    """Return what member a makes of a message for it."""
    return world.members["a"].receive(world.topics.member("a"), payload, world.now)


def ask_sync(world: World) -> tuple[bytes, bytes]:
    """Let member a send a Sync; return its nonce and the server's Welcome."""
    member = world.members["a"]
    nonce = Sync.decode(member.sync(world.now)).nonce
    public = member.profile.suite.public_key(member._memory.kem_seed)
    return nonce, world.group.welcome(Enrollment("a", member.identity, public, nonce), world.now)


@pytest.mark.parametrize("reason", [RefusalReason.NOT_ADMITTED, RefusalReason.WRONG_TIME, RefusalReason.TRY_LATER])
def test_join_that_seems_refused_is_still_granted(reason: RefusalReason) -> None:
    """A false Join with the nonce of the true one is refused; the Welcome of the true one is taken all the same."""
    world = World()
    world.enroll("a")
    nonce = world.members["a"]._memory.join_nonces[-1]
    refusal = world.group.refusal("a", nonce, reason, world.now)
    assert [RequestRefused(reason, world.now)] == take(world, refusal)
    world.commit()
    assert State.ACTIVE is world.members["a"].state


def test_sync_that_seems_refused_is_still_granted(world: World) -> None:
    """The same with a false Sync."""
    nonce, welcome = ask_sync(world)
    take(world, world.group.refusal("a", nonce, RefusalReason.NOT_ADMITTED, world.now))
    assert [Synced(1)] == take(world, welcome)


@pytest.mark.parametrize("reason", RefusalReason)
def test_granted_join_is_refused_no_longer(world: World, reason: RefusalReason) -> None:
    """What the server said to a false request with a Join's nonce is not to be kept for later: nobody is put out."""
    nonce = world.members["a"]._memory.join_nonces[-1]
    before = world.members["a"].dump()
    with refused(Reason.WRONG_NONCE, "nonce"):
        take(world, world.group.refusal("a", nonce, reason, world.now))
    assert before == world.members["a"].dump()


def test_join_for_a_new_leaf_is_not_answered_by_not_a_member(world: World) -> None:
    """Only a Sync or Leave is; a false Sync with the nonce of a Join puts nobody out."""
    nonce = world.ask("a").nonce
    with refused(Reason.WRONG_NONCE, "nonce"):
        take(world, world.group.refusal("a", nonce, RefusalReason.NOT_A_MEMBER, world.now))
    reason = RefusalReason.TRY_LATER
    assert [RequestRefused(reason, world.now)] == take(world, world.group.refusal("a", nonce, reason, world.now))


def test_refusal_that_was_kept_does_not_set_the_clock_back(world: World) -> None:
    """An hour later the broker cannot make Beacons of an hour ago look new by it, and end the silence."""
    nonce, _ = ask_sync(world)
    refusal = world.group.refusal("a", nonce, RefusalReason.WRONG_TIME, world.now)
    beacon = world.group.beacon(world.now + 30)
    world.now += 3600
    assert [Silent(world.now - 3600)] == world.members["a"].tick(world.now)
    take(world, refusal)
    assert [] == world.members["a"].receive(world.topics.beacon, beacon, world.now)
    with pytest.raises(SilentError):
        world.members["a"].seal("plant/1", b"", world.now)


def test_welcome_that_was_kept_does_not_set_the_clock_back(world: World) -> None:
    """Nor by a Welcome, which is a sign of life of then, not of now."""
    _, welcome = ask_sync(world)
    beacon, asked = world.group.beacon(world.now + 30), world.now
    world.now += 3600
    assert [Synced(1)] == take(world, welcome)
    assert [Silent(asked + SILENCE)] == world.members["a"].tick(world.now)
    assert [] == world.members["a"].receive(world.topics.beacon, beacon, world.now)
    with pytest.raises(SilentError):
        world.members["a"].seal("plant/1", b"", world.now)
    fresh = world.group.beacon(world.now)
    assert [Heard()] == world.members["a"].receive(world.topics.beacon, fresh, world.now)


def test_clock_that_was_set_judges_certificates(world: World) -> None:
    """What a Refusal says of the time holds for all that the member judges by it."""
    nonce, _ = ask_sync(world)
    take(world, world.group.refusal("a", nonce, RefusalReason.WRONG_TIME, world.now + 5))
    assert 5000 == world.members["a"]._traffic.opener.clock_offset
