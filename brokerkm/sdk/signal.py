"""Waiting until something is so, for tasks of one event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Signal:
    """Wakes all who wait, each time that it is fired."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def fire(self) -> None:
        """Wake all who wait now."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self) -> None:
        """Return at the next `fire`."""
        await self._event.wait()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` is true; it is asked at once and after every `fire`."""
        while not condition():
            await self.wait()
