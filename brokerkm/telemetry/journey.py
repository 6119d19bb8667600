"""The way of a change from its request to the broker: what its commit and its publication say, put together."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from brokerkm.service.feed import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from brokerkm.service.feed import Happening

MAX_WAITING: Final = 1024  # commits of a group that are not published; of older ones nothing is told


class Journey(NamedTuple):
    """One epoch; times are seconds since 1970, in the order in which they passed."""

    group: str
    epoch: int
    requested: float
    taken_up: float
    prepared: float
    stored: float
    published: float

    @property
    def latency(self) -> float:
        """Seconds from the first request to the broker's yes to all messages."""
        return max(0.0, self.published - self.requested)


class Journeys:
    """Hears the feed and tells of each epoch once all its messages are published."""

    def __init__(self, told: Callable[[Journey], None]) -> None:
        self._told: Final = told
        self._waiting: Final[dict[str, deque[tuple[int, Journey]]]] = {}

    def hear(self, happening: Happening) -> None:
        """Take in one happening; a listener for `Feed.listen`."""
        if happening.kind is Kind.COMMIT:
            self._committed(happening)
        elif happening.kind is Kind.PUBLISHED:
            self._published(happening)

    def _committed(self, happening: Happening) -> None:
        details = happening.details
        stored = happening.time
        prepared = stored - float(details["store_seconds"])
        taken_up = prepared - float(details["prepare_seconds"])
        requested = min(taken_up, stored - float(details["waited_seconds"]))
        journey = Journey(happening.group, int(details["epoch"]), requested, taken_up, prepared, stored, stored)
        waiting = self._waiting.setdefault(happening.group, deque(maxlen=MAX_WAITING))
        waiting.append((int(details["sequence"]), journey))

    def _published(self, happening: Happening) -> None:
        waiting = self._waiting.get(happening.group, deque())
        while waiting and waiting[0][0] <= int(happening.details["sequence"]):
            _, journey = waiting.popleft()
            self._told(journey._replace(published=max(journey.stored, happening.time)))
        if not waiting:
            self._waiting.pop(happening.group, None)
