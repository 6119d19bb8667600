"""When a group commits: `interval` after the first change, at once when many wait or one is urgent; and its Beacons."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from brokerkm.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from brokerkm.service.live import LiveGroup

_log = logging.getLogger(__name__)

_FIRST_PAUSE: Final = 0.5  # seconds until a commit that could not be stored is tried again
_LONGEST_PAUSE: Final = 30.0


class Schedule:
    """Commits and Beacons of one group, as long as `run` runs; a frozen group has Beacons alone.

    Args:
        interval: seconds that the first change waits for others, unless the group's settings say otherwise.
        max_pending: how many changes wait at most, unless they do.
        beacons: whether Beacons are due at all; they are not while no broker is served.
        stored: called when something new is in the outbox.
    """

    def __init__(
        self, group: LiveGroup, *, interval: float, max_pending: int, beacons: bool, stored: Callable[[], None]
    ) -> None:
        self._group: Final = group
        self._interval = interval
        self._max_pending = max_pending
        self._beacons: Final = beacons
        self._stored: Final = stored
        self._stopping = False
        self._last_commit = True
        self._commit_due: float | None = None
        self._beacon_due = 0.0
        self._pause = 0.0  # after a failure
        self._blocked_until = 0.0

    async def run(self) -> None:
        """Work until `stop`."""
        loop = asyncio.get_running_loop()
        while True:
            due = self._next()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._group.changed.wait()
            if self._stopping:
                break
            self._group.changed.clear()
            now = loop.time()
            if self._group.changes and self._commit_due is None:
                own = self._group.record.settings.interval
                self._commit_due = now + (self._interval if own is None else own)
            if now >= self._blocked_until and (self._is_commit_due(now) or self._is_beacon_due(now)):
                await self._step()
        if self._group.changes and self._last_commit and not self._group.record.frozen:
            await self._step()

    def pace(self, interval: float, max_pending: int) -> None:
        """Wait for others so long, and for so many, from now on."""
        self._interval, self._max_pending = interval, max_pending

    def stop(self, *, commit: bool = True) -> None:
        """Commit what waits, once, if that is wanted, and let `run` end."""
        self._stopping = True
        self._last_commit = commit
        self._group.changed.set()

    def hurry(self) -> None:
        """Try at once what has failed."""
        self._pause = self._blocked_until = 0.0
        self._group.changed.set()

    def _next(self) -> float | None:
        times = [self._commit_due] if self._commit_due is not None and not self._group.record.frozen else []
        if self._beacons:
            times.append(self._beacon_due)
        return max(min(times), self._blocked_until) if times else None

    def _is_commit_due(self, now: float) -> bool:
        group = self._group
        if group.record.frozen:
            return False
        own = group.record.settings.max_pending
        due = self._commit_due is not None and now >= self._commit_due
        many = len(group.changes) >= (self._max_pending if own is None else own)
        return bool(group.changes) and (due or group.urgent or many)

    def _is_beacon_due(self, now: float) -> bool:
        return self._beacons and now >= self._beacon_due

    async def _step(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            if self._is_beacon_due(loop.time()) and (self._group.record.frozen or not self._group.changes):
                await self._group.beacon()
            else:
                await self._group.commit()
        except StoreError as error:
            self._pause = min(2 * self._pause or _FIRST_PAUSE, _LONGEST_PAUSE)
            self._blocked_until = loop.time() + self._pause
            _log.error("group %s: %s; next try in %.1f s", self._group.name, error, self._pause)
            return
        self._pause = 0.0
        self._commit_due = None
        self._beacon_due = loop.time() + self._group.record.beacon_interval  # a commit has its Beacon
        self._stored()
