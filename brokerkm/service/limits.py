"""Rate limits: token buckets, one for each of a bounded number of names."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

MAX_NAMES: Final = 65_536  # buckets; about 10 MB. Beyond it, the one that was not used for longest starts anew


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What members may ask for; each is events a second, and at once.

    Args:
        member: requests of one; it asks again after seconds, with jitter.
        total: requests of all; a false one costs 25 microseconds: at most a fifth of one core goes into those.
        spare: requests beyond a member's own, for all: flooding the topic of one does not silence it.
        refusals: answers to requests that are refused; each costs a signature.
    """

    member: tuple[float, float] = (1.0, 10.0)
    total: tuple[float, float] = (8000.0, 8000.0)
    spare: tuple[float, float] = (2000.0, 2000.0)
    refusals: tuple[float, float] = (200.0, 400.0)


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
