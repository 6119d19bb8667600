"""The key tree in flat arrays: a million members cost tens of megabytes, not a Python object a node.

Node `(level, index)`: leaves are level 0, the parent of `(l, i)` is `(l + 1, i // degree)`, the root is
`(height, 0)` (RFC 2627, section 5.4; the naming is the specification's section "Tree"). A node without a key
has birth 0. Keys that are
replaced or dropped are overwritten in place. The tree knows nothing of members' names, epochs' meaning or messages.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from brokerkm.core.crypto import KEY_SIZE
from brokerkm.core.messages import MAX_DEGREE
from brokerkm.core.names import MAX_LEVEL, MAX_SLOTS
from brokerkm.core.welcome import NodeKey
from brokerkm.errors import StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PAGE_NODES: Final = 64  # nodes a page: 64 x 42 bytes, about 2.7 KB, and a whole number of siblings for degree 2 to 64
RECORD_SIZE: Final = KEY_SIZE + 8 + 2  # bytes a node in a page: key, birth, step


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

    def page(self, level: int, number: int, changes: Mapping[int, NodeKey] | None = None) -> bytes:
        """Return the stored form of nodes `64 * number` and on, with `changes` (by index) on top.

        A page is 64 records (fewer at a level's end) of key, birth (8 bytes, big-endian) and step (2 bytes).
        """
        changes = changes or {}
        records: list[bytes] = []
        for index in range(PAGE_NODES * number, min(PAGE_NODES * (number + 1), len(self.levels[level]))):
            key, birth, step = changes.get(index) or self.get(level, index)
            records.append(key + birth.to_bytes(8, "big") + step.to_bytes(2, "big"))
        return b"".join(records)

    @classmethod
    def load(cls, degree: int, height: int, pages: Iterator[tuple[int, int, bytes]]) -> KeyTree:
        """Return the tree that was stored as (level, page number, page), in any order.

        Raises:
            StoreError: a page cannot be one of this tree.
        """
        tree = cls(degree)
        if not 1 <= height <= MAX_LEVEL:
            message = f"a tree of height {height} cannot be: 1 to {MAX_LEVEL}"
            raise StoreError(message)
        tree.height = height
        tree.extend(height, 1)
        for level, number, page in pages:
            size = PAGE_NODES * number + len(page) // RECORD_SIZE
            fits = 0 <= level <= height and number >= 0 and size <= min(degree ** (height - level), MAX_SLOTS)
            if not fits or len(page) % RECORD_SIZE:
                message = f"stored page {number} of level {level} does not fit a tree of height {height}"
                raise StoreError(message)
            nodes = tree.levels[level]
            nodes.extend(size, leaves=level == 0)
            for index in range(PAGE_NODES * number, size):
                at = (index - PAGE_NODES * number) * RECORD_SIZE
                nodes.keys[index * KEY_SIZE : (index + 1) * KEY_SIZE] = page[at : at + KEY_SIZE]
                nodes.births[index] = int.from_bytes(page[at + KEY_SIZE : at + KEY_SIZE + 8], "big")
                if level:
                    nodes.steps[index] = int.from_bytes(page[at + KEY_SIZE + 8 : at + RECORD_SIZE], "big")
        births = tree.levels[0].births
        occupied = [slot for slot, birth in enumerate(births) if birth]
        tree.used = occupied[-1] + 1 if occupied else 0
        tree.free = [slot for slot in range(tree.used) if not births[slot]]
        tree.extend(height, max(tree.used, 1))
        tree.count_members(occupied, 1)
        return tree
