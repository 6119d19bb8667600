"""Goodbye and Refusal."""

from __future__ import annotations

import pytest
from core.forge import SERVER, SERVER_KEY, proved, replaced, signed
from core.refusal import refused

from brokerkm.core.notice import EVERYBODY, Goodbye, GoodbyeReason, Refusal, RefusalReason
from brokerkm.errors import Reason

NONCE = b"n" * 16
SALT = b"s" * 16
GOODBYE: list[object] = [1, 4, 9, 2, SALT]
REFUSAL: list[object] = [1, 9, NONCE, 3, 1_000_000]


def test_goodbye_is_encoded_as_specified() -> None:
    """A single Goodbye is signed by itself, for its member alone."""
    expected = [proved("brokerkm v1 goodbye", ("fleet", "m"), GOODBYE)]
    assert expected == Goodbye.seal_all(SERVER, "fleet", 9, [("m", GoodbyeReason.LEFT)], lambda _: SALT)


@pytest.mark.parametrize("count", [1, 3, 70])
def test_goodbyes_reach_their_members(count: int) -> None:
    """However many are sent at once, each is good for its own member."""
    evicted = [(f"m{number}", GoodbyeReason.EVICTED) for number in range(count)]
    for (member, _), payload in zip(evicted, Goodbye.seal_all(SERVER, "fleet", 9, evicted, bytes), strict=True):
        goodbye = Goodbye.decode(payload)
        goodbye.verify(SERVER_KEY, "fleet", member)
        assert (9, GoodbyeReason.EVICTED) == (goodbye.epoch, goodbye.reason)


def test_no_goodbye_can_be_foreseen() -> None:
    """Each holds 16 random bytes, so that nobody can prepare a collision of what a block signs."""
    salts = b"1" * 16 + b"2" * 16
    evicted = [("m", GoodbyeReason.EVICTED)] * 2
    sealed = Goodbye.seal_all(SERVER, "fleet", 9, evicted, lambda _: salts)
    assert [b"1" * 16, b"2" * 16] == [Goodbye.decode(payload).salt for payload in sealed]


@pytest.mark.parametrize("count", [2, 70])
def test_goodbye_of_another_is_refused(count: int) -> None:
    """Nobody is sent off by another's Goodbye, nor by another group's."""
    evicted = [(f"m{number}", GoodbyeReason.EVICTED) for number in range(count)]
    goodbye = Goodbye.decode(Goodbye.seal_all(SERVER, "fleet", 9, evicted, bytes)[0])
    for group, member in (("fleet", "m1"), ("fleet2", "m0")):
        with refused(Reason.BAD_SIGNATURE, "signature"):
            goodbye.verify(SERVER_KEY, group, member)


@pytest.mark.parametrize(
    ("place", "value", "reason", "field"),
    [
        (2, 0, Reason.OUT_OF_RANGE, "epoch"),
        (3, 0, Reason.OUT_OF_RANGE, "reason"),
        (3, 4, Reason.OUT_OF_RANGE, "reason"),
        (3, None, Reason.WRONG_TYPE, "reason"),
        (4, bytes(15), Reason.WRONG_LENGTH, "salt"),
    ],
)
def test_malformed_goodbye_is_refused(place: int, value: object, reason: Reason, field: str) -> None:
    """Epoch, reason and salt have their ranges."""
    with refused(reason, field):
        Goodbye.decode(proved("brokerkm v1 goodbye", ("fleet", "m"), replaced(GOODBYE, place, value)))


def test_goodbye_to_everybody_is_for_the_end_of_the_group_alone() -> None:
    """One member cannot be told that the group is no more, nor all of them anything else."""
    told = {(member, reason) for member in ("m", EVERYBODY) for reason in GoodbyeReason}
    for member, reason in told:
        goodbye = Goodbye.decode(Goodbye.seal_all(SERVER, "fleet", 9, [(member, reason)], bytes)[0])
        if (member == EVERYBODY) == (reason is GoodbyeReason.DESTROYED):
            goodbye.verify(SERVER_KEY, "fleet", member)
        else:
            with refused(Reason.OUT_OF_RANGE, "reason"):
                goodbye.verify(SERVER_KEY, "fleet", member)


def test_refusal_is_encoded_as_specified() -> None:
    """A Refusal carries nonce, reason and the server's time."""
    expected = signed("brokerkm v1 refusal", ("fleet", "m"), REFUSAL)
    actual = Refusal.seal(SERVER, "fleet", "m", nonce=NONCE, reason=RefusalReason.WRONG_TIME, time=1_000_000)
    assert expected == actual


@pytest.mark.parametrize("reason", RefusalReason)
def test_refusal_is_read(reason: RefusalReason) -> None:
    """The member reads nonce, reason and time."""
    refusal = Refusal.decode(signed("brokerkm v1 refusal", ("fleet", "m"), [1, 9, NONCE, int(reason), 7]))
    refusal.verify(SERVER_KEY, "fleet", "m")
    assert (NONCE, reason, 7) == (refusal.nonce, refusal.reason, refusal.time)


@pytest.mark.parametrize(("group", "member"), [("fleet2", "m"), ("fleet", "m2")])
def test_refusal_of_another_is_refused(group: str, member: str) -> None:
    """Group and member are signed."""
    refusal = Refusal.decode(signed("brokerkm v1 refusal", ("fleet", "m"), REFUSAL))
    with refused(Reason.BAD_SIGNATURE, "signature"):
        refusal.verify(SERVER_KEY, group, member)


@pytest.mark.parametrize(
    ("place", "value", "reason", "field"),
    [
        (2, b"", Reason.WRONG_LENGTH, "nonce"),
        (3, 0, Reason.OUT_OF_RANGE, "reason"),
        (3, 5, Reason.OUT_OF_RANGE, "reason"),
        (4, 2**63, Reason.OUT_OF_RANGE, "time"),
    ],
)
def test_malformed_refusal_is_refused(place: int, value: object, reason: Reason, field: str) -> None:
    """Nonce, reason and time have their lengths and ranges."""
    with refused(reason, field):
        Refusal.decode(signed("brokerkm v1 refusal", ("fleet", "m"), replaced(REFUSAL, place, value)))
