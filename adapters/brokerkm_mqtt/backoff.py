"""How long to wait before the next attempt to connect: exponential, with full jitter.

A fleet that lost its broker must not come back all at once, so each wait is drawn evenly from
zero to a ceiling, and the ceiling doubles with each attempt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_CEILING: Final = 0.25  # seconds; a broker that restarts is back in about this time
LAST_CEILING: Final = 30.0  # seconds; nobody waits longer than this after a long outage


class Backoff:
    """The waits of one connection.

    Args:
        uniform: draws evenly between its two arguments, as `random.uniform` does.
    """

    def __init__(self, uniform: Callable[[float, float], float]) -> None:
        self._uniform = uniform
        self._ceiling = FIRST_CEILING

    def next(self) -> float:
        """Return the seconds to wait now, and double the ceiling of the next wait."""
        wait = self._uniform(0.0, self._ceiling)
        self._ceiling = min(2 * self._ceiling, LAST_CEILING)
        return wait

    def lasted(self, seconds: float) -> None:
        """Start again from the first ceiling, unless the connection broke sooner than the wait for it."""
        if seconds >= self._ceiling:
            self._ceiling = FIRST_CEILING
