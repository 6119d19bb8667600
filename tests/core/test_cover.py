"""The cover of a set of members, against brute force."""

from __future__ import annotations

import itertools
from random import Random

import pytest

from brokerkm.core.cover import complete_subtree_cover
from brokerkm.core.tree import KeyTree
from brokerkm.core.welcome import NodeKey


def tree_of(degree: int, height: int, occupied: set[int]) -> KeyTree:
    """Return a tree with members at `occupied`."""
    tree = KeyTree(degree)
    tree.extend(height, max(occupied) + 1)
    tree.grow(height)
    tree.set(0, {slot: NodeKey(b"k" * 32, 1, 0) for slot in occupied})
    tree.count_members(sorted(occupied), 1)
    return tree


def below(tree: KeyTree, node: tuple[int, int], occupied: set[int]) -> set[int]:
    """Return the members below a node."""
    return {slot for slot in occupied if slot // tree.degree ** node[0] == node[1]}


def fewest(tree: KeyTree, wanted: set[int], occupied: set[int]) -> int:
    """Return the size of the smallest set of nodes that covers `wanted` and nobody else, by trying them all."""
    nodes = {(level, slot // tree.degree**level) for level in range(tree.height + 1) for slot in wanted}
    good = [members for node in nodes if (members := below(tree, node, occupied)) <= wanted]
    for size in range(1, len(wanted) + 1):
        if any(set().union(*choice) == wanted for choice in itertools.combinations(good, size)):
            return size
    raise AssertionError


@pytest.mark.parametrize(("degree", "height"), [(2, 3), (3, 2), (4, 2)])
@pytest.mark.parametrize("seed", range(12))
def test_cover_is_exact_and_smallest(degree: int, height: int, seed: int) -> None:
    """The cover reaches all who are wanted and no one else, and no smaller one does."""
    rng = Random(seed)
    slots = degree**height
    occupied = set(rng.sample(range(slots), rng.randint(2, min(slots, 10))))
    wanted = set(rng.sample(sorted(occupied), rng.randint(1, len(occupied))))
    tree = tree_of(degree, height, occupied)
    cover = complete_subtree_cover(tree, wanted)
    assert wanted == set().union(*(below(tree, node, occupied) for node in cover))
    assert fewest(tree, wanted, occupied) == len(cover)


def test_everybody_is_covered_by_the_root() -> None:
    """One message reaches the whole group, empty slots or not."""
    assert [(2, 0)] == complete_subtree_cover(tree_of(4, 2, {0, 5, 6, 11}), [0, 5, 6, 11])


def test_lone_member_is_covered_as_high_as_it_is_alone() -> None:
    """A member with empty slots around it is reached by the node above them."""
    tree = tree_of(4, 2, {0, 4, 5})
    assert [(1, 0)] == complete_subtree_cover(tree, [0])
    assert [(0, 4)] == complete_subtree_cover(tree, [4])


def test_cover_is_listed_from_the_lowest_level() -> None:
    """Leaves come before inner nodes, in order of their index."""
    tree = tree_of(2, 3, set(range(8)))
    assert [(0, 0), (0, 7), (1, 1), (1, 2)] == complete_subtree_cover(tree, [7, 5, 4, 3, 2, 0, 0])
