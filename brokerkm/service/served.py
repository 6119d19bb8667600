"""A group that is being served: its schedule, or its ending, the task that runs it, and how that ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from brokerkm.service.ending import Ending
    from brokerkm.service.live import LiveGroup
    from brokerkm.service.schedule import Schedule


class Served(NamedTuple):
    """A group in service."""

    live: LiveGroup
    schedule: Schedule | Ending
    task: asyncio.Task[None]

    async def end(self, *, commit: bool, patience: float | None) -> bool:
        """Let what is under way finish, and commit what waits if that is wanted; return when nothing more is begun.

        Args:
            patience: seconds until the task is cancelled.

        Returns:
            whether it ended by itself; otherwise the store may still be at work.
        """
        self.schedule.stop(commit=commit)
        await asyncio.wait([self.task], timeout=patience)
        if self.task.done():
            return True
        self.task.cancel()
        await asyncio.wait([self.task])
        return False

    def wipe(self) -> None:
        """Overwrite the keys; in the store's thread, where a commit that was cancelled may still read them."""
        for level in self.live.group.tree.levels:
            level.keys[:] = bytes(len(level.keys))
