"""The tasks of a server: what nobody expected in one of them ends the server rather than a part of it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from brokerkm.errors import BrokerkmError, UsageError

if TYPE_CHECKING:
    from collections.abc import Coroutine

_log = logging.getLogger(__name__)


class Tasks:
    """Tasks by name, and the first failure among them."""

    def __init__(self) -> None:
        self._tasks: Final[dict[str, asyncio.Task[None]]] = {}
        self._failure: asyncio.Future[None] | None = None

    def begin(self) -> None:
        """Let `wait` wait from now on."""
        self._failure = asyncio.get_running_loop().create_future()

    def spawn(self, name: str, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Do `work` beside all else."""
        task = asyncio.get_running_loop().create_task(self._watched(work), name=f"key server {name}")
        self._tasks[name] = task
        return task

    def forget(self, name: str) -> None:
        """Leave a task that has ended to itself."""
        self._tasks.pop(name, None)

    async def ended(self, name: str, patience: float) -> None:
        """Return once a task, if there is one of this name, has ended, or after `patience` seconds."""
        if name in self._tasks:
            await asyncio.wait([self._tasks[name]], timeout=patience)

    async def cancel(self) -> None:
        """End all tasks."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    def finish(self) -> None:
        """Let `wait` return."""
        if self._failure is not None and not self._failure.done():
            self._failure.set_result(None)

    async def wait(self) -> None:
        """Return after `finish`, or raise what ended a task."""
        if self._failure is None:
            message = "start the server first"
            raise UsageError(message)
        await asyncio.shield(self._failure)

    async def _watched(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - the failure is handed to `wait`
            if self._failure is not None and not self._failure.done():
                self._failure.set_exception(error)
                self._failure.exception()  # whoever calls `wait` is told; nobody has to
            _log.critical("the key server cannot go on: %s", error, exc_info=not isinstance(error, BrokerkmError))
