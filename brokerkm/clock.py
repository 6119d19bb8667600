"""The clock by which leases end: not the time of day, which somebody may set."""

from __future__ import annotations

import time


def boot_time() -> float:
    """Return seconds of a clock that never jumps, and goes on while the machine sleeps if it has such a one."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
