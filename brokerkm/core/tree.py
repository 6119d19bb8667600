"""The key tree in flat arrays: a million members cost tens of megabytes, not a Python object a node.

Node `(level, index)`: leaves are level 0, the parent of `(l, i)` is `(l + 1, i // degree)`, the root is
`(height, 0)` (RFC 2627, section 5.4; the naming is the specification's section "Tree"). A node without a key
has birth 0. Keys that are
replaced or dropped are overwritten in place. The tree knows nothing of members' names, epochs' meaning or messages.
"""

from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING, Final

from brokerkm.core.crypto import KEY_SIZE
from brokerkm.core.messages import MAX_DEGREE
from brokerkm.core.names import MAX_LEVEL, MAX_SLOTS
from brokerkm.core.welcome import NodeKey
from brokerkm.errors import StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PAGE_NODES: Final = 128  # nodes a page: 128 x 42 bytes, 4 KB of keys; its parents all lie in one page (store, pages)
RECORD_SIZE: Final = KEY_SIZE + 8 + 2  # bytes a node in a page: key, birth, step
_UNCHANGED: Final[Mapping[int, NodeKey]] = {}


class Level:
    """All nodes of one level: keys, births, steps and how many members sit below each."""

    __slots__ = ("births", "keys", "members", "steps")

    def __init__(self) -> None:
        self.keys: Final = bytearray()
        self.births: Final = array("Q")
        self.steps: Final = array("H")
        self.members: Final = array("I")

    def __len__(self) -> int:
        return len(self.births)

    def put(self, first: int, count: int, page: bytes, *, leaves: bool) -> None:
        """Take over the nodes of a stored page."""
        self.extend(first + count, leaves=leaves)
        keys_end = KEY_SIZE * count
        self.keys[KEY_SIZE * first : KEY_SIZE * (first + count)] = page[:keys_end]
        self.births[first : first + count] = array("Q", struct.unpack_from(f">{count}Q", page, keys_end))
        if not leaves:
            self.steps[first : first + count] = array("H", struct.unpack_from(f">{count}H", page, keys_end + 8 * count))

    def extend(self, size: int, *, leaves: bool) -> None:
        """Have room for at least `size` nodes; leaves never ratchet and are their own member."""
        missing = size - len(self.births)
        if missing > 0:
            self.keys.extend(bytes(KEY_SIZE * missing))
            self.births.frombytes(bytes(8 * missing))
            if not leaves:
                self.steps.frombytes(bytes(2 * missing))
                self.members.frombytes(bytes(4 * missing))


class KeyTree:
    """Keys, versions and occupancy of a tree of `degree`; slots are handed out lowest free first.

    Args:
        degree: children of a node, 2 to 64.
    """

    __slots__ = ("degree", "free", "height", "levels", "used")

    def __init__(self, degree: int) -> None:
        if not 2 <= degree <= MAX_DEGREE:  # noqa: PLR2004 - protocol.md section 1
            message = f"degree {degree} is not 2 to {MAX_DEGREE}"
            raise UsageError(message)
        self.degree: Final = degree
        self.height = 1
        self.levels: Final[list[Level]] = []
        self.extend(1, 1)
        self.used = 0  # slots at and above this one were never used
        self.free: list[int] = []  # slots below `used` without a member: a heap

    @property
    def count(self) -> int:
        """How many members the tree holds."""
        return self.used - len(self.free)

    def extend(self, height: int, slots: int) -> None:
        """Have room for `slots` leaves under a root at `height`; what is there stays as it is."""
        if slots > MAX_SLOTS or height > MAX_LEVEL:
            message = f"a group holds at most {MAX_SLOTS} members"
            raise UsageError(message)
        size = slots
        for level in range(height + 1):
            if level == len(self.levels):
                self.levels.append(Level())
            self.levels[level].extend(size, leaves=level == 0)
            size = -(-size // self.degree)

    def grow(self, height: int) -> None:
        """Put roots above the old one, up to `height`, for which there must be room."""
        for level in range(self.height + 1, height + 1):
            self.levels[level].members[0] = self.count
        self.height = height

    def get(self, level: int, index: int) -> NodeKey:
        """Return the key of a node that has one."""
        nodes = self.levels[level]
        key = bytes(nodes.keys[index * KEY_SIZE : (index + 1) * KEY_SIZE])
        return NodeKey(key, nodes.births[index], nodes.steps[index] if level else 0)

    def birth(self, level: int, index: int) -> int:
        """Return the birth of a node's key, 0 if it has none."""
        births = self.levels[level].births
        return births[index] if index < len(births) else 0

    def set(self, level: int, nodes: Mapping[int, NodeKey]) -> None:
        """Store the keys of `nodes` (index to key) at `level`, over what was there."""
        keys, births, steps = self.levels[level].keys, self.levels[level].births, self.levels[level].steps
        for index, (key, birth, step) in nodes.items():
            keys[index * KEY_SIZE : (index + 1) * KEY_SIZE] = key
            births[index] = birth
            if level:
                steps[index] = step

    def count_members(self, slots: Sequence[int], change: int) -> None:
        """Add `change` to the count of members of every ancestor of each of `slots`."""
        for level in range(1, self.height + 1):
            members, span = self.levels[level].members, self.degree**level
            for slot in slots:
                members[slot // span] += change

    def path(self, slot: int) -> tuple[NodeKey, ...]:
        """Return the keys from the parent of `slot` up to the root."""
        return tuple(self.get(level, slot // self.degree**level) for level in range(1, self.height + 1))

    def page(self, level: int, number: int, changes: Mapping[int, NodeKey] = _UNCHANGED) -> bytes:
        """Return the stored form of nodes `128 * number` and on, with `changes` (by index) on top.

        A page has, for each of its nodes (128, or fewer at a level's end), the key; then for each the birth (8 bytes,
        big-endian); then for each the step (2 bytes).
        """
        nodes, first = self.levels[level], PAGE_NODES * number
        end = min(first + PAGE_NODES, len(nodes))
        keys, births = nodes.keys[KEY_SIZE * first : KEY_SIZE * end], nodes.births[first:end]
        steps = nodes.steps[first:end] if level else array("H", bytes(2 * (end - first)))
        for index in range(first, end):
            if index in changes:
                at = index - first
                keys[KEY_SIZE * at : KEY_SIZE * (at + 1)], births[at], steps[at] = changes[index]
        return bytes(keys) + struct.pack(f">{end - first}Q{end - first}H", *births, *steps)

    @classmethod
    def load(cls, degree: int, height: int, pages: Iterable[tuple[int, int, bytes]]) -> KeyTree:
        """Return the tree that was stored as (level, page number, page), in any order.

        Raises:
            StoreError: a page cannot be one of this tree.
        """
        tree = cls(degree)
        if not 1 <= height <= MAX_LEVEL:
            message = f"stored height {height} is not 1 to {MAX_LEVEL}"
            raise StoreError(message)
        tree.extend(height, 1)
        tree.height = height
        for level, number, page in pages:
            count, rest = divmod(len(page), RECORD_SIZE)
            first, room = PAGE_NODES * number, min(degree ** max(height - level, 0), MAX_SLOTS)
            fits = 0 <= level <= height and number >= 0 and 0 < count <= PAGE_NODES and first + count <= room
            if rest or not fits:
                message = f"stored page {number} of level {level} does not fit a tree of height {height}"
                raise StoreError(message)
            tree.levels[level].put(first, count, page, leaves=level == 0)
        births = tree.levels[0].births
        occupied = [slot for slot, birth in enumerate(births) if birth]
        tree.used = occupied[-1] + 1 if occupied else 0
        tree.free = [slot for slot in range(tree.used) if not births[slot]]
        tree.extend(height, max(tree.used, 1))
        tree._count_all(occupied)
        return tree

    def _count_all(self, occupied: Sequence[int]) -> None:
        """Count the members of every node anew."""
        for level in range(1, self.height + 1):
            members, below = self.levels[level].members, self.levels[level - 1].members
            if level == 1:
                for slot in occupied:
                    members[slot // self.degree] += 1
            else:
                for index, count in enumerate(below[: len(members) * self.degree]):  # what is beyond is empty
                    members[index // self.degree] += count
