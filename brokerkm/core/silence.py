"""Whether the key server is heard: a member that nobody tells of evictions has to know that nobody does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from brokerkm.core.events import Heard, Silent

if TYPE_CHECKING:
    from brokerkm.core.events import Event
    from brokerkm.core.memory import Memory


class Silence:
    """Watches one member's `heard` against the policy's `max_silence`.

    Args:
        memory: the member's.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory: Final = memory
        self.is_silent = False

    def hear(self, at: float) -> list[Event]:
        """Note that the server showed life at `at`, in seconds by the member's clock."""
        self._memory.heard = at
        was_silent, self.is_silent = self.is_silent, False
        return [Heard()] if was_silent else []

    def tick(self, now: float) -> list[Event]:
        """Say once that the server has been silent for too long."""
        memory = self._memory
        if memory.path is None or self.is_silent or now - memory.heard <= memory.policy.max_silence:
            return []
        self.is_silent = True
        return [Silent(memory.heard)]

    @property
    def next_deadline(self) -> float | None:
        """When `tick` has something to do."""
        memory = self._memory
        if memory.path is None or self.is_silent:
            return None
        return memory.heard + memory.policy.max_silence + 0.001  # when it is more than that
