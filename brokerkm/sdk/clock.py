"""A clock that never jumps: the wall's time when it was made, and the time that has passed since."""

from __future__ import annotations

import time
from typing import Final

# BOOTTIME goes on while the machine sleeps, so that keys which expire have expired when it wakes.
_SOURCE: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """Seconds since 1970, by the wall clock's word at the start: setting it later changes nothing."""

    def __init__(self) -> None:
        self._offset: Final = time.time() - time.clock_gettime(_SOURCE)

    def __call__(self) -> float:
        """Return the time now."""
        return self._offset + time.clock_gettime(_SOURCE)
