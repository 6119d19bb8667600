"""What was noticed of a group's members since the server started."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from brokerkm.service.limits import RateLimit

if TYPE_CHECKING:
    from brokerkm.admission.conduct import ConductPolicy

REPORT_EVERY: Final = 3600.0  # s; two clones that go on asking are one case
_MAX_NAMES: Final = 65_536


class Watch:
    """Counts requests and remembers cases; `now` is of a monotonic clock, in seconds."""

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
