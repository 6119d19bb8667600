"""What the Rekeys of one commit consist of and whom they reach, read from the encoded messages by plain msgpack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgpack

from brokerkm.core.crypto import SIGNATURE_SIZE, WRAPPED_KEY_SIZE

if TYPE_CHECKING:
    from brokerkm.core.commit import Commit
    from brokerkm.core.tree import KeyTree


class Anatomy:
    """The parts of a commit that is not applied yet.

    Attributes:
        wraps: every wrapped key once, with what names it.
        reached: for each Rekey, how many members need it.
    """

    def __init__(self, commit: Commit, tree: KeyTree) -> None:
        self.wraps: list[object] = []
        self.reached: Final[list[int]] = []
        self._epoch: Final = commit.epoch
        self._tree: Final = tree
        received = bytearray(tree.used)
        chained: set[tuple[int, int]] = set()
        for rekey in commit.rekeys:
            _, _, _, height, entries, chain, _, _ = msgpack.unpackb(rekey.payload)
            self.wraps += [(rekey.level, rekey.index, *entry) for entry in entries]
            parent = rekey.index // tree.degree if rekey.level else rekey.index
            for at, level in enumerate(range(rekey.level + 1, height)):
                node = (level, parent // tree.degree**at)
                if node not in chained:
                    chained.add(node)
                    wrapped = chain[WRAPPED_KEY_SIZE * at : WRAPPED_KEY_SIZE * (at + 1)]
                    self.wraps.append((*node, None, commit.epoch, 0, wrapped))
            self.reached.append(self._deliver(rekey.level, rekey.index, [slot for slot, *_ in entries], received))
        self._check(received, {slot for _, slot in commit.change.removed})

    def _deliver(self, level: int, index: int, slots: list[int], received: bytearray) -> int:
        """Count a Rekey for every slot whose member needs it, and return how many members those are."""
        if level == 0:
            for slot in slots:
                received[slot] += 1
            return len(slots)
        span = self._tree.degree**level
        below = slice(index * span, (index + 1) * span)
        received[below] = received[below].translate(_INCREMENT)
        return self._tree.levels[level].members[index]

    def _check(self, received: bytearray, removed: set[int]) -> None:
        births = self._tree.levels[0].births
        for slot, count in enumerate(received):
            if births[slot] and count != (slot not in removed):
                message = f"the member at slot {slot} gets {count} Rekeys"
                raise AssertionError(message)

    @property
    def flat_size(self) -> int:
        """Bytes of one message that carries every wrapped key once under one signature, as GDOI sends it to all."""
        return len(msgpack.packb((1, 1, self._epoch, self.wraps, bytes(SIGNATURE_SIZE))))


_INCREMENT: Final = bytes((*range(1, 256), 255))
