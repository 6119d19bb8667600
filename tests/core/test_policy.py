"""The policy on the wire."""

from __future__ import annotations

import pytest
from core.refusal import refused

from brokerkm.core.crypto import Algorithm
from brokerkm.core.policy import Policy
from brokerkm.errors import Reason

CHACHA = Algorithm.CHACHA20_POLY1305


def test_fields_are_the_attributes_in_order() -> None:
    """Flags and the algorithm are sent as integers."""
    policy = Policy(1, 2, 3, stop_when_silent=False, source_authentication=True, algorithm=CHACHA, acknowledge=60)
    assert (1, 2, 3, 0, 1, 2, 60) == policy.fields


def test_policy_is_read_back() -> None:
    """What was sent is what is read, with flags as booleans."""
    policy = Policy.from_fields([1, 2, 3, 0, 1, 2, 60])
    expected = Policy(1, 2, 3, stop_when_silent=False, source_authentication=True, algorithm=CHACHA, acknowledge=60)
    assert expected == policy
    assert policy.algorithm is CHACHA
    assert policy.stop_when_silent is False
    assert policy.source_authentication is True


def test_largest_times_are_accepted() -> None:
    """Times are 32-bit seconds."""
    read = Policy.from_fields([*[2**32 - 1] * 3, 1, 0, 1, 2**32 - 1])
    assert [2**32 - 1] * 4 == [read.grace, read.hold, read.max_silence, read.acknowledge]


@pytest.mark.parametrize(
    ("value", "reason", "field"),
    [
        (None, Reason.WRONG_TYPE, "policy"),
        ([30, 5, 300, 1, 0, 1], Reason.WRONG_LENGTH, "policy"),
        ([30, 5, 300, 1, 0, 1, 0, 0], Reason.WRONG_LENGTH, "policy"),
        ([30, 5, 300, 1, 0, 0, 0], Reason.OUT_OF_RANGE, "policy.algorithm"),
        ([30, 5, 300, 1, 0, 3, 0], Reason.OUT_OF_RANGE, "policy.algorithm"),
        ([30, 5, 300, 1, 0, 1, 2**32], Reason.OUT_OF_RANGE, "policy.acknowledge"),
        ([2**32, 5, 300, 1, 0, 1, 0], Reason.OUT_OF_RANGE, "policy.grace"),
        ([30, 2**32, 300, 1, 0, 1, 0], Reason.OUT_OF_RANGE, "policy.hold"),
        ([30, 5, 0, 1, 0, 1, 0], Reason.OUT_OF_RANGE, "policy.max_silence"),
        ([30, 5, 2**32, 1, 0, 1, 0], Reason.OUT_OF_RANGE, "policy.max_silence"),
        ([30, 5, 300, 2, 0, 1, 0], Reason.OUT_OF_RANGE, "policy.stop_when_silent"),
        ([30, 5, 300, True, 0, 1, 0], Reason.WRONG_TYPE, "policy.stop_when_silent"),
        ([30, 5, 300, 1, 2, 1, 0], Reason.OUT_OF_RANGE, "policy.source_authentication"),
        (["30", 5, 300, 1, 0, 1, 0], Reason.WRONG_TYPE, "policy.grace"),
    ],
)
def test_malformed_policy_is_refused(value: object, reason: Reason, field: str) -> None:
    """Each field has its type and range."""
    with refused(reason, field):
        Policy.from_fields(value)
