"""Keeps one broker's guard in step with the store: tells it of each change, again and again until the broker has it.

What changed is looked up when its turn comes, so a member that changes twice is told of once, and what a guard hears is
never older than the store. Whatever goes wrong ends in a full comparison (`BrokerGuard.sync`), as every start does:
the warden remembers nothing that the next one would need.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import TYPE_CHECKING, Final

from brokerkm.errors import StoreError, TransportError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from brokerkm.guard.fleet import Fleet
    from brokerkm.guard.rules import Grant
    from brokerkm.guard.seam import BrokerGuard

_log = logging.getLogger(__name__)

MAX_NOTED: Final = 100_000  # members that wait one by one; with more, comparing everything is not dearer
FIRST_PAUSE: Final = 0.2  # seconds
LONGEST_PAUSE: Final = 30.0  # seconds
COMPARE_EVERY: Final = 300.0  # seconds; somebody else may have changed the broker, or another server told it of old
_LOOK: Final = 0.02  # seconds
HOLD: Final = 0.25  # seconds that what is published waits for the guard


class Warden:
    """Drives a guard as long as `run` runs.

    Attributes:
        failure: why the guard is not in step, in words for a person; None if the last attempt succeeded.
        differences: how many differences the last full comparison has mended.
    """

    def __init__(self, guard: BrokerGuard, fleet: Fleet) -> None:
        self.guard: Final = guard
        self._fleet: Final = fleet
        self._noted: dict[tuple[str, str], None] = {}  # in the order in which they changed
        self._leaving: set[tuple[str, str]] = set()
        self._gone: set[str] = set()
        self._everything = True
        self._wake: Final = asyncio.Event()
        self._calm: Final = asyncio.Event()
        self._late = False
        self.failure: str | None = "it has not been compared with the store yet"
        self.differences = 0

    @property
    def pending(self) -> int:
        """How many members the guard has not been told of."""
        return len(self._noted)

    def note(self, group: str, member: str) -> None:
        """Tell the guard how a member stands now."""
        self._calm.clear()
        self._leaving.discard((group, member))
        if len(self._noted) >= MAX_NOTED:
            self._noted.clear()
            self._everything = True
        if not self._everything:
            self._noted[group, member] = None
        self._wake.set()

    def note_leaving(self, group: str, member: str) -> None:
        """Remember that `note` will follow in a moment for a member that is out: until then it can hear of it."""
        self._leaving.add((group, member))

    def note_gone(self, group: str) -> None:
        """Tell the guard that a group is no more."""
        self._calm.clear()
        self._gone.add(group)
        self._wake.set()

    def note_everything(self) -> None:
        """Compare everything: the broker may have lost what it was told."""
        self._calm.clear()
        self._everything = True
        self._noted.clear()
        self._wake.set()

    async def hold(self) -> None:
        """Wait until the guard knows all that has been noted, for a moment: a slow broker delays one time, not each."""
        if self.failure is None and not self._late:
            self._late = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HOLD):
                    await self._calm.wait()
                    self._late = False

    async def settled(self, patience: float) -> bool:
        """Return whether the guard knows within `patience` seconds of all that is noted, those that leave included."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._calm.wait()
                while self._leaving:
                    await asyncio.sleep(_LOOK)
                    await self._calm.wait()
                return True
        return False

    async def run(self) -> None:
        """Keep the guard in step; a broker or store that fails is tried again after a growing pause."""
        pause = FIRST_PAUSE
        opened = False
        while True:
            try:
                if not opened:
                    await self.guard.open()
                    opened = True
                await self._catch_up()
            except (TransportError, StoreError) as error:
                self._everything = True
                if str(error) != self.failure:
                    _log.warning("the broker's guard is not in step: %s", error)
                self.failure = str(error)
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads load
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            if self.failure is not None:
                _log.info("the broker's guard is in step")
            self.failure, pause = None, FIRST_PAUSE
            if not self._waits:
                self._calm.set()
                self._late = False
                self._wake.clear()
                await self._next_change()

    async def _next_change(self) -> None:
        """Return when something has been noted, or when everything is to be compared again."""
        try:
            async with asyncio.timeout(COMPARE_EVERY):
                await self._wake.wait()
        except TimeoutError:
            self._everything = True

    @property
    def _waits(self) -> bool:
        return bool(self._everything or self._noted or self._gone)

    async def _catch_up(self) -> None:
        while self._gone:
            group = next(iter(self._gone))
            await self.guard.forget(group)
            self._gone.discard(group)
        if self._everything:
            self._everything = False
            self._noted.clear()  # what is noted from now on may be missed by the comparison
            self.differences = await self.guard.sync(_ignore)
        groups = await self._fleet.groups() if self._noted else {}
        prefixes = tuple(sorted({group.prefix for group in groups.values()}))
        for name, member in self._next():
            record = await self._fleet.member(name, member)
            grant: Grant | None = None
            if record is not None and name in groups:
                grant = groups[name].grant(record, prefixes)
            if grant is None:
                await self.guard.evict(name, member)
            else:
                await self.guard.admit(grant)

    def _next(self) -> Iterator[tuple[str, str]]:
        """Yield what is noted, the oldest first, each before it is forgotten: a failure compares everything anyway."""
        while self._noted and not self._everything:
            noted = next(iter(self._noted))
            del self._noted[noted]
            yield noted


def _ignore(_done: int, _total: int) -> None:
    """Take no notice of progress."""
