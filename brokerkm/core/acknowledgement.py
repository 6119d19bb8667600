"""When a member is to confirm its epoch: at a random moment, or a thousand members would do it at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from brokerkm.core.events import AckDue

if TYPE_CHECKING:
    from brokerkm.core.crypto import Random
    from brokerkm.core.events import Event
    from brokerkm.core.memory import Memory


class Acknowledgement:
    """When the next Ack of one member is due.

    Args:
        memory: the member's.
        random: source of the moment.
    """

    def __init__(self, memory: Memory, random: Random) -> None:
        self._memory: Final = memory
        self._random: Final = random
        self._at: float | None = None

    def expect(self, now: float) -> None:
        """Have a newer epoch than the last that was confirmed confirmed at a random moment, if the policy asks for it.

        One moment for all epochs until then: a member that follows many commits says so once.
        """
        memory = self._memory
        within = memory.policy.acknowledge
        if not within or memory.path is None:
            self._at = None
        elif self._at is None and memory.epoch > memory.acked:
            self._at = now + within * int.from_bytes(self._random(4), "big") / (1 << 32)

    def confirm(self) -> None:
        """Note that the newest epoch is confirmed."""
        self._memory.acked = self._memory.epoch
        self._at = None

    def tick(self, now: float) -> list[Event]:
        """Say that an Ack is due; if the caller makes none now, then not again until something comes."""
        if self._at is None or self._at > now:
            return []
        self._at = None
        return [AckDue(self._memory.epoch)]

    @property
    def next_deadline(self) -> float | None:
        """When `tick` has something to do."""
        return self._at

    def forget(self) -> None:
        """Confirm nothing."""
        self._at = None
