"""Rekey and Beacon as a member reads them."""

from __future__ import annotations

import pytest
from core.forge import SERVER_KEY, proved, replaced, signed
from core.refusal import refused

from brokerkm.core.crypto import Algorithm
from brokerkm.core.policy import Policy
from brokerkm.core.rekey import Beacon, Entry, Rekey
from brokerkm.errors import Reason

WRAPPED = bytes(range(40))
REKEY: list[object] = [1, 1, 9, 3, [[None, 4, 2, WRAPPED]], WRAPPED]
BUCKET: list[object] = [1, 1, 9, 2, [[4, 1, 0, WRAPPED], [6, 3, 0, WRAPPED]], WRAPPED]
BEACON: list[object] = [1, 2, 9, 3, 8, 2, 1_000_000, 30, [30, 5, 300, 1, 0, 2, 60]]


def rekey(fields: list[object], level: int = 1, index: int = 5) -> bytes:
    """Return a signed Rekey for the topic of `(level, index)`."""
    return proved("brokerkm v1 rekey", ("fleet", level, index), fields)


def test_rekey_of_a_node_is_read() -> None:
    """A cover node's message has one entry without slot, and a chain up to the root."""
    message = Rekey.decode(rekey(REKEY), 1)
    message.verify(SERVER_KEY, "fleet", 1, 5)
    expected = (9, 3, (Entry(None, 4, 2, WRAPPED),), WRAPPED, None)
    assert expected == (message.epoch, message.height, message.entries, message.chain, message.proof)


def test_rekey_of_a_bucket_is_read() -> None:
    """A bucket's message has one entry for each leaf, with its slot."""
    message = Rekey.decode(rekey(BUCKET, 0), 0)
    message.verify(SERVER_KEY, "fleet", 0, 5)
    assert (Entry(4, 1, 0, WRAPPED), Entry(6, 3, 0, WRAPPED)) == message.entries


@pytest.mark.parametrize("topic", [("fleet2", 1, 5), ("fleet", 2, 5), ("fleet", 1, 6)])
def test_rekey_of_another_topic_is_refused(topic: tuple[str, int, int]) -> None:
    """Group, level and index are signed though they are not sent."""
    with refused(Reason.BAD_SIGNATURE, "signature"):
        Rekey.decode(rekey(REKEY), 1).verify(SERVER_KEY, *topic)


@pytest.mark.parametrize(
    ("place", "value", "reason", "field"),
    [
        (2, 0, Reason.OUT_OF_RANGE, "epoch"),
        (2, 2**63, Reason.OUT_OF_RANGE, "epoch"),
        (2, None, Reason.WRONG_TYPE, "epoch"),
        (3, 1, Reason.OUT_OF_RANGE, "height"),
        (3, 25, Reason.OUT_OF_RANGE, "height"),
        (4, None, Reason.WRONG_TYPE, "entries"),
        (4, [], Reason.WRONG_LENGTH, "entries"),
        (4, [[None, 4, 2, WRAPPED]] * 2, Reason.WRONG_LENGTH, "entries"),
        (4, [[None, 4, 2]], Reason.WRONG_LENGTH, "entries"),
        (4, [None], Reason.WRONG_TYPE, "entries"),
        (4, [[0, 4, 2, WRAPPED]], Reason.WRONG_TYPE, "entries.slot"),
        (4, [[None, 0, 2, WRAPPED]], Reason.OUT_OF_RANGE, "entries.birth"),
        (4, [[None, 4, 65536, WRAPPED]], Reason.OUT_OF_RANGE, "entries.step"),
        (4, [[None, 4, 2, WRAPPED[:-1]]], Reason.WRONG_LENGTH, "entries.wrapped"),
        (5, b"", Reason.WRONG_LENGTH, "chain"),
        (5, WRAPPED * 2, Reason.WRONG_LENGTH, "chain"),
        (5, "", Reason.WRONG_TYPE, "chain"),
    ],
)
def test_malformed_rekey_is_refused(place: int, value: object, reason: Reason, field: str) -> None:
    """Each field of a cover node's message has its type, length and range."""
    with refused(reason, field):
        Rekey.decode(rekey(replaced(REKEY, place, value)), 1)


@pytest.mark.parametrize(
    ("entries", "reason", "field"),
    [
        ([[None, 1, 0, WRAPPED]], Reason.WRONG_TYPE, "entries.slot"),
        ([[1 << 24, 1, 0, WRAPPED]], Reason.OUT_OF_RANGE, "entries.slot"),
        ([[4, 1, 1, WRAPPED]], Reason.OUT_OF_RANGE, "entries.step"),
        ([[4, 1, 0, WRAPPED], [4, 1, 0, WRAPPED]], Reason.OUT_OF_RANGE, "entries.slot"),
        ([[6, 1, 0, WRAPPED], [4, 1, 0, WRAPPED]], Reason.OUT_OF_RANGE, "entries.slot"),
        ([[slot, 1, 0, WRAPPED] for slot in range(65)], Reason.WRONG_LENGTH, "entries"),
        ([], Reason.WRONG_LENGTH, "entries"),
    ],
)
def test_malformed_bucket_is_refused(entries: object, reason: Reason, field: str) -> None:
    """A bucket's slots ascend, there are at most 64, and leaf keys have no step."""
    with refused(reason, field):
        Rekey.decode(rekey(replaced(BUCKET, 4, entries), 0), 0)


def test_widest_bucket_is_read() -> None:
    """A tree of degree 64 has 64 entries in a bucket."""
    entries = [[slot, 1, 0, WRAPPED] for slot in range(64)]
    assert 64 == len(Rekey.decode(rekey(replaced(BUCKET, 4, entries), 0), 0).entries)


def test_malformed_rekey_proof_is_refused() -> None:
    """A proof of half a hash is none."""
    payload = rekey(REKEY)
    with refused(Reason.WRONG_LENGTH, "proof"):
        Rekey.decode(payload[:-67] + b"\xc4\x08" + bytes(8) + payload[-66:], 1)


def test_short_signature_is_refused() -> None:
    """A signature has 64 bytes."""
    with refused(Reason.WRONG_LENGTH, "signature"):
        Rekey.decode(rekey(REKEY)[:-66] + b"\xc4\x3f" + bytes(63), 1)


def test_beacon_is_read() -> None:
    """A Beacon says where the group stands."""
    beacon = Beacon.decode(signed("brokerkm v1 beacon", ("fleet",), BEACON))
    beacon.verify(SERVER_KEY, "fleet")
    actual = [beacon.epoch, beacon.height, beacon.birth, beacon.step, beacon.time, beacon.due]
    assert BEACON[2:8] == actual
    assert Policy(algorithm=Algorithm.CHACHA20_POLY1305, acknowledge=60) == beacon.policy


def test_beacon_of_another_group_is_refused() -> None:
    """The group is signed though it is not sent."""
    with refused(Reason.BAD_SIGNATURE, "signature"):
        Beacon.decode(signed("brokerkm v1 beacon", ("fleet",), BEACON)).verify(SERVER_KEY, "fleet2")


def test_beacon_of_an_empty_group_is_read() -> None:
    """Before the first member the root has birth 0."""
    fields: list[object] = [1, 2, 0, 1, 0, 0, 1, 1, [30, 5, 300, 1, 0, 1, 0]]
    assert 0 == Beacon.decode(signed("brokerkm v1 beacon", ("fleet",), fields)).birth


@pytest.mark.parametrize(
    ("place", "value", "reason", "field"),
    [
        (2, "9", Reason.WRONG_TYPE, "epoch"),
        (3, 0, Reason.OUT_OF_RANGE, "height"),
        (3, 25, Reason.OUT_OF_RANGE, "height"),
        (4, 10, Reason.OUT_OF_RANGE, "birth"),  # above the epoch
        (5, 65536, Reason.OUT_OF_RANGE, "step"),
        (6, -1, Reason.OUT_OF_RANGE, "time"),
        (7, 0, Reason.OUT_OF_RANGE, "due"),
        (7, 2**32, Reason.OUT_OF_RANGE, "due"),
        (8, [30, 5, 300, 1, 0], Reason.WRONG_LENGTH, "policy"),
        (8, [30, 5, 300, 1, 0, 3, 0], Reason.OUT_OF_RANGE, "policy.algorithm"),
    ],
)
def test_malformed_beacon_is_refused(place: int, value: object, reason: Reason, field: str) -> None:
    """Each field of a Beacon has its type and range."""
    with refused(reason, field):
        Beacon.decode(signed("brokerkm v1 beacon", ("fleet",), replaced(BEACON, place, value)))
