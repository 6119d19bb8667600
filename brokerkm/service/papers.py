"""Joins with certificates wait apart from all other requests, for they cost up to milliseconds each, false or not.

One is looked at after the other, so a flood of them takes no more than one core, and a quarter of it as long as they
turn out to be false. Few wait; when too many come, one of those that wait makes room, and which one is left to chance:
whoever floods cannot keep a device out that asks again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from brokerkm.core.request import Join
    from brokerkm.service.live import LiveGroup

_log = logging.getLogger(__name__)

MAX_WAITING: Final = 64
_RESTRAINT: Final = 3.0  # seconds of rest for each second that went into a false one


class Papers(NamedTuple):
    """A Join that shows certificates."""

    group: LiveGroup
    member: str
    join: Join


class PaperDesk:
    """Looks at Joins with certificates, as long as there are any.

    Args:
        examine: grants or refuses one; returns whether its proof held.
        dismiss: tells one that has to make room to try later.
    """

    def __init__(self, examine: Callable[[Papers], Awaitable[bool]], dismiss: Callable[[Papers], None]) -> None:
        self._examine: Final = examine
        self._dismiss: Final = dismiss
        self._waiting: Final[list[Papers]] = []
        self._task: asyncio.Task[None] | None = None

    def offer(self, papers: Papers) -> None:
        """Let a Join wait for its turn; one of the same member that waits already is an earlier one of it."""
        whom = (papers.group, papers.member)
        self._waiting[:] = [one for one in self._waiting if (one.group, one.member) != whom]
        self._waiting.append(papers)
        if len(self._waiting) > MAX_WAITING:
            self._dismiss(self._waiting.pop(random.randrange(len(self._waiting))))  # noqa: S311 - spreads bad luck
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work(), name="joins with certificates")

    async def stop(self) -> None:
        """Give up what waits; the devices ask again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _work(self) -> None:
        while self._waiting:
            papers = self._waiting.pop(0)
            began = time.perf_counter()
            try:
                held = await self._examine(papers)
            except Exception:  # noqa: BLE001 - one Join is no reason to look at no other
                _log.exception("group %s: the Join of %s failed", papers.group.name, papers.member)
                held = False
            if not held:
                await asyncio.sleep(_RESTRAINT * (time.perf_counter() - began))
