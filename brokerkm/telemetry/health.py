"""Health: is the process alive; readiness: can it do its work now, and if not, why.

Health does not look at broker or database: restarting the process mends neither. Readiness does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from brokerkm.service import KeyServer

PERIOD: Final = 0.5  # seconds between two looks at the event loop
REMEMBERED: Final = 20  # looks
MAX_LAG: Final = 5.0  # seconds; beyond it, members' requests pile up


class Check(NamedTuple):
    """One condition of readiness; `detail` says why it does not hold, and what that means."""

    name: str
    holds: bool
    detail: str = ""


class LoopWatch:
    """Measures how long the event loop was busy with something else, as long as `run` runs."""

    def __init__(self) -> None:
        self._lags: Final[deque[float]] = deque([0.0], maxlen=REMEMBERED)

    @property
    def lag(self) -> float:
        """Seconds of the longest stall in the last seconds."""
        return max(self._lags)

    async def run(self) -> None:
        """Look at the clock again and again."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + PERIOD
            await asyncio.sleep(PERIOD)
            self._lags.append(max(0.0, loop.time() - due))


def alive(watch: LoopWatch) -> tuple[bool, dict[str, object]]:
    """Return whether the process is well, and what to say of it."""
    well = watch.lag < MAX_LAG
    return well, {"status": "ok" if well else "stalled", "event_loop_lag_seconds": round(watch.lag, 3)}


def ready(server: KeyServer) -> tuple[bool, dict[str, object]]:
    """Return whether the server can do its work, and why not."""
    checks = _checks(server)
    holds = all(check.holds for check in checks)
    report: dict[str, object] = {
        "status": "ready" if holds else "not ready",
        "checks": [{"name": one.name, "ok": one.holds, "detail": one.detail} for one in checks],
    }
    if server.leadership.unled:  # the other groups need this server: it is no reason to pass it by
        report["unserved"] = dict(server.leadership.unled)
    return holds, report


def _checks(server: KeyServer) -> list[Check]:
    failure, lapse = server.desk.failure, server.leadership.lapse()
    leases = [] if lapse is None else [Check("leases", not lapse, lapse)]
    warden = None if server.publisher is None else server.publisher.warden
    guards = [] if warden is None else [_guard(warden.failure)]
    return [
        Check("store", failure is None, "" if failure is None else f"nothing can be stored: {failure}"),
        Check(
            "broker",
            server.connected,
            "" if server.connected else "the broker is not reached: changes are stored and wait to be published",
        ),
        *leases,
        *guards,
    ]


def _guard(failure: str | None) -> Check:
    text = "" if failure is None else f"the broker may serve whom it should not, or not whom it should: {failure}"
    return Check("guard", failure is None, text)
