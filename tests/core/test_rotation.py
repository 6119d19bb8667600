"""Keys that are renewed though nobody leaves: on request, and when a step is full."""

from __future__ import annotations

from random import Random

import pytest
from core.world import START, group_of

from brokerkm.core.commit import Enrollment
from brokerkm.errors import UsageError

RANDOM = Random(1).randbytes


@pytest.mark.parametrize(
    ("level", "index", "deep", "expected"),
    [
        (None, 0, False, {(2, 0)}),
        (2, 0, False, {(2, 0)}),
        (1, 1, False, {(1, 1), (2, 0)}),
        (2, 0, True, {(1, 0), (1, 1), (1, 2), (2, 0)}),
        (1, 1, True, {(1, 1), (2, 0)}),
    ],
)
def test_rotation_renews_what_it_names(
    level: int | None, index: int, *, deep: bool, expected: set[tuple[int, int]]
) -> None:
    """A rotation renews its node and those above, and all below if it is deep; leaves stay."""
    group = group_of(*"abcdefghi")
    group.rotate(level, index, deep=deep)
    nodes = group.commit(START, RANDOM).change.nodes
    assert expected == {(at, place) for at, level_nodes in enumerate(nodes) for place in level_nodes}
    assert {(2, 0)} == {key[1:] for level_nodes in nodes for key in level_nodes.values()}


def test_everything_is_rotated() -> None:
    """Rotating all renews every inner node."""
    group = group_of(*"abcdefghi")
    group.rotate_all()
    assert [0, 3, 1] == [len(nodes) for nodes in group.commit(START, RANDOM).change.nodes]


@pytest.mark.parametrize(("level", "index"), [(0, 0), (3, 0), (2, 1), (1, 4), (1, -1)])
def test_rotation_of_no_node_is_refused(level: int, index: int) -> None:
    """Leaves are refreshed, not rotated; and there is nothing beyond the root."""
    group = group_of(*"abcdefghi")
    with pytest.raises(UsageError, match="has no inner node"):
        group.rotate(level, index)


def test_full_step_makes_a_fresh_key() -> None:
    """A node that was ratcheted 65,535 times is drawn anew, with all above it."""
    group = group_of(*"abcdefg")
    group.tree.levels[1].steps[1] = 65534
    group.enroll(Enrollment("h"))
    group.commit(START, RANDOM)
    assert (1, 65535) == group.tree.get(1, 1)[1:]
    group.evict("h")
    group.commit(START, RANDOM)
    group.tree.levels[1].steps[1] = 65535
    group.enroll(Enrollment("i"))
    commit = group.commit(START, RANDOM)
    assert [(4, 0), (4, 0)] == [group.tree.get(1, 1)[1:], group.tree.get(2, 0)[1:]]
    assert [(1, 0), (0, 1)] == [(rekey.level, rekey.index) for rekey in commit.rekeys]
