"""Requests that have come and wait for their turn: few, in order, and handed on all that are there at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from brokerkm.service.live import LiveGroup

MAX_WAITING: Final = 1024  # requests, of 16 KB at most; then the broker is asked to wait
BATCH: Final = 256  # requests that are looked up together; what is found grows old while they are answered


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

    async def put(self, request: Request) -> None:
        """Queue a request, once there is room."""
        await self._waiting.put(request)

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
