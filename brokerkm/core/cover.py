"""The fewest nodes that cover a set of members and no one else: a complete-subtree cover.

Naor, Naor and Lotspiech ("Revocation and tracing schemes for stateless receivers", 2001) use it for revocation; RFC
2627, section 5.4, names subgroup messages under node keys as a use of its tree. Empty slots count for neither side:
nobody holds their keys.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from brokerkm.core.tree import KeyTree


def complete_subtree_cover(tree: KeyTree, slots: Iterable[int]) -> list[tuple[int, int]]:
    """Return the (level, index) of the highest nodes below which all members are at `slots`, lowest level first.

    Args:
        tree: the key tree.
        slots: occupied slots; doubles count once.
    """
    cover: list[tuple[int, int]] = []
    complete = set(slots)
    wanted = Counter(dict.fromkeys(complete, 1))
    for level in range(tree.height):
        above: Counter[int] = Counter()
        for index, count in wanted.items():
            above[index // tree.degree] += count
        members = tree.levels[level + 1].members
        full = {index for index, count in above.items() if count == members[index]}
        cover += [(level, index) for index in sorted(complete) if index // tree.degree not in full]
        wanted, complete = above, full
    return cover + [(tree.height, index) for index in complete]
