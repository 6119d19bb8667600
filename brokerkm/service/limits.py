"""Rate limits: token buckets, one for each of a bounded number of names."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

MAX_NAMES: Final = 65_536  # buckets; about 10 MB. Beyond it, the one that was not used for longest starts anew


class RateLimit:
    """Allows each name `burst` events at once and `rate` a second in the long run.

    Args:
        rate: events a second.
        burst: events at once.
    """

    def __init__(self, rate: float, burst: float, max_names: int = MAX_NAMES) -> None:
        self._rate: Final = rate
        self._burst: Final = burst
        self._max_names: Final = max_names
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allow(self, name: str, now: float) -> bool:
        """Count one event for `name` at `now` (seconds of a monotonic clock) if it is within the limit."""
        filled, at = self._buckets.pop(name, (self._burst, now))
        filled = min(self._burst, filled + (now - at) * self._rate)
        allowed = filled >= 1
        self._buckets[name] = (filled - allowed, now)
        if len(self._buckets) > self._max_names:
            self._buckets.popitem(last=False)
        return allowed
