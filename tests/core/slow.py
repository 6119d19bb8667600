"""The rules of a commit in sets and dicts, slow and plain, after the specification's section "A rekey".

Nothing of brokerkm is used here: the real tree is compared with this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Node = tuple[int, int]
Version = tuple[int, int]  # birth, step


class SlowTree:
    """Versions of all keys of a group, and what a commit would send."""

    def __init__(self, degree: int) -> None:
        self.degree = degree
        self.height = 1
        self.epoch = 0
        self.slots: dict[str, int] = {}
        self.leaves: dict[int, int] = {}  # slot to birth of the leaf key
        self.versions: dict[Node, Version] = {}
        self.messages: dict[Node, list[tuple[int | None, int, int]]] = {}

    def path(self, slot: int) -> set[Node]:
        """Return the inner nodes above a slot."""
        return {(level, slot // self.degree**level) for level in range(1, self.height + 1)}

    def below(self, node: Node) -> set[int]:
        """Return the occupied slots below a node."""
        return {slot for slot in self.leaves if slot // self.degree ** node[0] == node[1]}

    def commit(
        self,
        joining: Iterable[str] = (),
        leaving: Iterable[str] = (),
        refreshing: Iterable[str] = (),
        rotations: Iterable[tuple[int, int, bool]] = (),
    ) -> None:
        """Move on by one epoch; `messages` are then (slot or nil, birth, step) of each entry, by topic."""
        self.epoch += 1
        old_height, there = self.height, set(self.leaves)
        cut_off = {self.slots[name] for name in (*leaving, *refreshing)}
        self._seat(joining, leaving, refreshing)
        fresh = {(level, 0) for level in range(old_height + 1, self.height + 1)}
        fresh = fresh.union(*(self.path(slot) for slot in cut_off), *(self._named(*at) for at in rotations))
        new = {slot for slot, birth in self.leaves.items() if birth == self.epoch}
        for node in set[Node]().union(*(self.path(slot) for slot in new)) - fresh:
            birth, step = self.versions.get(node, (self.epoch, -1))
            self.versions[node] = (birth, step + 1)
        self.versions |= dict.fromkeys(fresh, (self.epoch, 0))
        self.messages = self._cover(fresh, there - new)

    def _seat(self, joining: Iterable[str], leaving: Iterable[str], refreshing: Iterable[str]) -> None:
        """Free and give slots, lowest free first, and give the tree the height that they need."""
        for name in leaving:
            del self.leaves[self.slots.pop(name)]
        for name in joining:
            slot = 0
            while slot in self.leaves:
                slot += 1
            self.slots[name] = slot
            self.leaves[slot] = self.epoch
        for name in refreshing:
            self.leaves[self.slots[name]] = self.epoch
        while max(self.leaves, default=0) >= self.degree**self.height:
            self.height += 1

    def _named(self, level: int, index: int, deep: bool) -> set[Node]:  # noqa: FBT001 - a rotation as it is queued
        """Return what a rotation makes fresh: its node, if it has a key, and what is above, and below if deep."""
        found = set[Node]()
        for low, place in self.versions:
            inside = low <= level and place // self.degree ** (level - low) == index
            if inside and (deep or low == level):
                found |= {node for node in self.path(place * self.degree**low) if node[0] >= low}
        return found

    def _cover(self, fresh: set[Node], stayed: set[int]) -> dict[Node, list[tuple[int | None, int, int]]]:
        """Return the entries for those who `stayed`, by topic."""
        messages: dict[Node, list[tuple[int | None, int, int]]] = {}
        for level, index in fresh:
            for child in range(index * self.degree, (index + 1) * self.degree):
                if not self.below((level - 1, child)) & stayed or (level - 1, child) in fresh:
                    continue
                if level == 1:
                    messages.setdefault((0, index), []).append((child, self.leaves[child], 0))
                else:
                    messages[level - 1, child] = [(None, *self.versions[level - 1, child])]
        return messages
