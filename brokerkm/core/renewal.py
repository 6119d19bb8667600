"""Which node keys a commit replaces, and by what.

*Fresh* nodes get a key drawn at random: every ancestor of an emptied leaf, every new root, what a rotation names with
all its ancestors. *Ratcheted* nodes, the other ancestors of a joining leaf, move on by the one-way function, so
that nobody who holds the old key has to be told. The set of fresh nodes is closed upwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from brokerkm.core.crypto import KEY_SIZE, ratchet
from brokerkm.core.messages import MAX_STEP
from brokerkm.core.welcome import NodeKey

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from brokerkm.core.crypto import Random
    from brokerkm.core.tree import KeyTree


class Renewal(NamedTuple):
    """New keys by level and index, and which of the inner nodes are fresh; level 0 of `fresh` is empty."""

    nodes: tuple[dict[int, NodeKey], ...]
    fresh: tuple[set[int], ...]

    @property
    def height(self) -> int:
        """The tree's height after the commit."""
        return len(self.nodes) - 1


@dataclass(frozen=True, slots=True)
class Rotation:
    """A node to renew, with every inner node below it if `deep`, and always with its ancestors."""

    level: int
    index: int
    deep: bool


def renew(
    tree: KeyTree,
    epoch: int,
    height: int,
    *,
    emptied: Collection[int],
    seated: Sequence[int],
    rotations: Iterable[Rotation],
    random: Random,
) -> Renewal:
    """Return the keys that `epoch` begins with; `tree` has room for them and is left as it is.

    Args:
        emptied: slots whose holder must be cut off: of evicted members and of refreshed leaves.
        seated: slots that get a new leaf key.
        rotations: nodes to renew besides.
    """
    degree = tree.degree
    leaves = dict.fromkeys(emptied, NodeKey(bytes(KEY_SIZE), 0, 0))
    leaves.update(zip(seated, _draw(len(seated), epoch, random), strict=True))
    nodes: list[dict[int, NodeKey]] = [leaves]
    fresh: list[set[int]] = [set()]
    below, touched = set(emptied), set(seated)
    rotated = _rotated(tree, rotations, height)
    for level in range(1, height + 1):
        below = {index // degree for index in below} | rotated[level]
        touched = {index // degree for index in touched}
        if level > tree.height:
            below.add(0)  # a new root
        new: dict[int, NodeKey] = {}
        unborn: list[int] = []
        for index in touched - below:
            if not tree.birth(level, index):
                unborn.append(index)
            elif tree.levels[level].steps[index] == MAX_STEP:
                below.add(index)
            else:
                key, birth, step = tree.get(level, index)
                new[index] = NodeKey(ratchet(key), birth, step + 1)
        drawn = sorted(below) + sorted(unborn)
        new.update(zip(drawn, _draw(len(drawn), epoch, random), strict=True))
        nodes.append(new)
        fresh.append(below)
    return Renewal(tuple(nodes), tuple(fresh))


def _draw(count: int, epoch: int, random: Random) -> list[NodeKey]:
    """Return new random keys born in `epoch`."""
    keys = random(KEY_SIZE * count)
    return [NodeKey(keys[at : at + KEY_SIZE], epoch, 0) for at in range(0, KEY_SIZE * count, KEY_SIZE)]


def _rotated(tree: KeyTree, rotations: Iterable[Rotation], height: int) -> list[set[int]]:
    """Return, by level, the nodes with a key that rotations name; their ancestors are not in it."""
    named: list[set[int]] = [set() for _ in range(height + 1)]
    for rotation in rotations:
        for at in range(1 if rotation.deep else rotation.level, rotation.level + 1):
            span = tree.degree ** (rotation.level - at)
            candidates = range(rotation.index * span, min((rotation.index + 1) * span, len(tree.levels[at])))
            named[at].update(node for node in candidates if tree.birth(at, node))
    return named
