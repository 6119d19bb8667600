"""The keys that one member holds: its leaf's and those of every node on the way to the root."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from brokerkm.core.crypto import WRAPPED_KEY_SIZE, ratchet, unwrap_key
from brokerkm.core.welcome import NodeKey
from brokerkm.errors import Reason, RefusedError

if TYPE_CHECKING:
    from brokerkm.core.rekey import Rekey


class Outcome(enum.Enum):
    """What became of a Rekey."""

    OLD = "old"  # sets nothing newer than what is held
    APPLIED = "applied"
    AHEAD = "ahead"  # needs a key from a Rekey that has not come yet


class KeyPath:
    """A member's keys, by level; moved on by Rekeys whose signature the caller has checked.

    Args:
        slot: index of the member's leaf.
        degree: of the tree.
        leaf: the leaf's key; it never ratchets.
        keys: of levels 1 to the height, in this order.
    """

    __slots__ = ("degree", "keys", "leaf", "slot")

    def __init__(self, slot: int, degree: int, leaf: NodeKey, keys: list[NodeKey]) -> None:
        self.slot: Final = slot
        self.degree: Final = degree
        self.leaf: Final = leaf
        self.keys = keys

    @property
    def height(self) -> int:
        """Level of the root."""
        return len(self.keys)

    @property
    def root(self) -> NodeKey:
        """The group's key."""
        return self.keys[-1]

    @property
    def nodes(self) -> list[tuple[int, int]]:
        """The (level, index) whose topics concern this member: its bucket and every node of its path."""
        bucket = (0, self.slot // self.degree)
        return [bucket, *((level, self.slot // self.degree**level) for level in range(1, self.height + 1))]

    def owns(self, level: int, index: int) -> bool:
        """Return whether the topic of `(level, index)` concerns this member."""
        return level <= self.height and index == self.slot // self.degree ** (level or 1)

    def is_old(self, level: int, epoch: int) -> bool:
        """Return whether a Rekey of `epoch` on a topic of `level` sets nothing newer than what is held."""
        return level < self.height and self.keys[level].birth >= epoch

    def apply(self, rekey: Rekey, level: int) -> Outcome:
        """Take all keys of `rekey` from a topic of `level`, or none.

        Raises:
            RefusedError: no-entry, if this member is left out; wrong-birth, out-of-range or bad-seal, if the
                message contradicts what is held. Nothing has changed then.
        """
        if self.is_old(level, rekey.epoch):
            return Outcome.OLD
        if rekey.height < self.height:
            raise RefusedError(Reason.OUT_OF_RANGE, "height")
        entry = rekey.entries[0]
        if level == 0:
            mine = [entry for entry in rekey.entries if entry.slot == self.slot]
            if not mine:
                raise RefusedError(Reason.NO_ENTRY, "entries")
            entry = mine[0]
        if entry.birth > (self.keys[level - 1] if level else self.leaf).birth:
            return Outcome.AHEAD
        kek = self.key_at(level, entry.birth, entry.step)
        keys = self.keys[:level]
        if level:
            keys[-1] = NodeKey(kek, entry.birth, entry.step)
        key = unwrap_key(kek, entry.wrapped, "entries.wrapped")
        keys.append(NodeKey(key, rekey.epoch, 0))
        for start in range(0, len(rekey.chain), WRAPPED_KEY_SIZE):
            key = unwrap_key(key, rekey.chain[start : start + WRAPPED_KEY_SIZE], "chain")
            keys.append(NodeKey(key, rekey.epoch, 0))
        self.keys = keys
        return Outcome.APPLIED

    def key_at(self, level: int, birth: int, step: int) -> bytes:
        """Return the key of the node at `level` (0: the leaf) at a step not before the one it is at.

        Raises:
            RefusedError: wrong-birth; that version is not the one held, or one before it.
        """
        held = self.keys[level - 1] if level else self.leaf
        if birth != held.birth or step < held.step:
            raise RefusedError(Reason.WRONG_BIRTH, "birth")
        return ratchet(held.key, step - held.step)

    def ratchet_root(self, step: int) -> None:
        """Move the root on to `step`, which is not before the one it is at."""
        key, birth, at = self.root
        self.keys[-1] = NodeKey(ratchet(key, step - at), birth, step)
