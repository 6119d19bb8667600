"""Somebody with copies of devices' states and everything that was ever published, who is bound by no rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proof.attacker import Known, closure, ratchet
from system.server import GROUP

from brokerkm.core.crypto import Algorithm
from brokerkm.core.data import Data, data_context, sender_key, traffic_key
from brokerkm.core.memory import Memory
from brokerkm.core.welcome import NodeKey
from brokerkm.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from proof.attacker import Tape


class Thief:
    """All keys that follow from saved states of members and the tape of what the broker saw.

    Args:
        states: state files.
    """

    def __init__(self, states: Iterable[bytes], tape: Tape) -> None:
        known = [key for state in states for key in _known(Memory.decode(state), tape)]
        # A tree that grows keeps its root at index 0 of one more level.
        self._roots: Final = [found for (level, index, _), found in closure(known, tape).items() if level and not index]

    def opens(self, messages: Mapping[int, bytes]) -> set[int]:
        """Return which messages, by their number, the thief reads."""
        return {number for number, payload in messages.items() if self._opens(f"app/{number}", payload)}

    def _opens(self, topic: str, payload: bytes) -> bool:
        data = Data.decode(payload)
        header = data.header
        for step, key in self._roots:
            root = NodeKey(ratchet(key, max(header.step - step, 0)), header.birth, header.step)
            for algorithm in Algorithm:
                cipher = sender_key(traffic_key(GROUP, root), header.sender, header.salt, algorithm)
                try:
                    data.open(cipher, data_context(GROUP, topic))
                except RefusedError:
                    continue
                return True
        return False


def _known(memory: Memory, tape: Tape) -> list[Known]:
    """Return the keys in a state, and those in all Welcomes that it can open."""
    known: list[Known] = []
    if memory.path is not None:
        slot, degree = memory.path.slot, memory.path.degree
        keys = [memory.path.leaf, *memory.path.keys]
        known += [Known(level, slot // degree**level, key.birth, key.step, key.key) for level, key in enumerate(keys)]
    for seed in {memory.kem_seed, memory.join_seed} - {b""}:
        known += tape.open_welcomes(memory.profile.member, seed)
    return known
