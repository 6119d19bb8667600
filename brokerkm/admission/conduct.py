"""How members behave: clones, which show by their counters, and flapping devices, which come and go without end.

A request repeated by a broker never gets here, because its time is not new; nor does a restart look like a clone,
because a member keeps its counter before it uses it (`brokerkm.core.admission.Conduct`). What two holders of one state
do look like, a device that was restored from a backup does too; an operator decides which it was.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from brokerkm.service.limits import RateLimit

REPORT_EVERY: Final = 3600.0  # s; two clones that go on asking are one case
_MAX_NAMES: Final = 65_536


class Response(enum.StrEnum):
    """What follows when a member seems to have a clone."""

    REPORT = "report"
    QUARANTINE = "quarantine"  # its requests are refused for a while; it keeps its place
    REFRESH = "refresh"  # it gets a new leaf key
    EVICT = "evict"


@dataclass(frozen=True, slots=True)
class ConductPolicy:
    """What is asked of members.

    Args:
        clones: what follows when one seems to have a clone.
        changes: how many granted requests a member may make `within` so many seconds; 0 for any number.
        quarantine: seconds for which the requests of one that makes more are refused.
    """

    clones: Response = Response.REPORT
    changes: int = 30
    within: int = 600
    quarantine: int = 600


class Watch:
    """What was noticed of a group's members since the server started; `now` is of a monotonic clock, in seconds."""

    def __init__(self, policy: ConductPolicy, most: int = _MAX_NAMES) -> None:
        self.policy: Final = policy
        self._changes: Final = RateLimit(policy.changes / policy.within, policy.changes, most)
        self._reported: Final[OrderedDict[str, float]] = OrderedDict()
        self._most: Final = most

    def flaps(self, member: str, now: float) -> bool:
        """Count a granted request; return whether it was one too many."""
        return bool(self.policy.changes) and not self._changes.allow(member, now)

    def is_news(self, member: str, now: float) -> bool:
        """Return whether a suspicion about `member` is to be reported, not only acted upon."""
        last = self._reported.get(member)
        if last is not None and now - last < REPORT_EVERY:
            return False
        self._reported[member] = now
        self._reported.move_to_end(member)
        if len(self._reported) > self._most:
            self._reported.popitem(last=False)
        return True
