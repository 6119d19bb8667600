"""Requests that have come and wait for their turn: few, in order, and handed on all that are there at a time.

What finds no room is dropped, and its member asks again. Were the broker asked to wait instead, its answers to what
the server publishes would wait too, behind a flood.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from brokerkm.service.live import LiveGroup

MAX_WAITING: Final = 2048  # requests; 32 MB if each is as long as a message may be
BATCH: Final = 1024  # requests that are looked up together; what is found grows old while they are answered


class Request(NamedTuple):
    """What came on the request topic of a member of a group."""

    group: LiveGroup
    member: str
    payload: bytes


class Intake:
    """A bounded queue of requests.

    Args:
        handle: what is done with those that wait; it raises nothing that is not the end of the server.
    """

    def __init__(self, handle: Callable[[Sequence[Request]], Awaitable[None]]) -> None:
        self._handle: Final = handle
        self._waiting: Final[asyncio.Queue[Request]] = asyncio.Queue(MAX_WAITING)

    def put(self, request: Request) -> bool:
        """Queue a request; return whether there was room."""
        if self._waiting.full():
            return False
        self._waiting.put_nowait(request)
        return True

    async def drained(self) -> None:
        """Return when all that was put is handled."""
        await self._waiting.join()

    async def run(self) -> None:
        """Hand on what comes until cancelled."""
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            try:
                await self._handle(batch)
            finally:
                for _ in batch:
                    self._waiting.task_done()
