"""A process of the demonstration, and what it says: lines of JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from brokerkm.errors import BrokerkmError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

PATIENCE: Final = 60.0  # seconds for one step; the whole demonstration takes less on an idle machine
_STOP: Final = 10.0  # seconds until a process that was asked to end is killed
_SHOWN: Final = 600  # characters of what a dead process wrote

Said = dict[str, Any]


def say(event: str, **values: object) -> None:
    """In a process of the demonstration: tell it what happened."""
    sys.stdout.write(json.dumps({"event": event, **values}) + "\n")
    sys.stdout.flush()


class ProcessFailedError(BrokerkmError):
    """A process of the demonstration ended, failed, or did not do its step in time."""


class Process:
    """A Python module running in a process of its own.

    Args:
        name: for people.
        arguments: of the interpreter.
        log: file for its standard error.
        environment: in addition to ours.
    """

    def __init__(
        self, name: str, arguments: list[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name: Final = name
        self._arguments: Final = arguments
        self._log: Final = log
        self._environment: Final = {**os.environ, **(environment or {})}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._changed: Final = asyncio.Condition()
        self._at_end = False  # of what it says
        self.said: list[Said] = []

    @property
    def pid(self) -> int:
        """Process id, 0 if it does not run."""
        return 0 if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start it; in a session of its own, so that Ctrl-C reaches us alone and we end the others in order."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        self.said.clear()
        self._at_end = False
        self._reader = asyncio.create_task(self._read(self._process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is not None:
            async for line in process.stdout:
                async with self._changed:
                    self.said.append(json.loads(line))
                    self._changed.notify_all()
        self._at_end = True
        async with self._changed:
            self.said.append({"event": "failed", "error": f"its process has ended{self._last_words()}"})
            self._changed.notify_all()

    def _last_words(self) -> str:
        words = self._log.read_text(errors="replace").strip()
        return f": {words[-_SHOWN:]}" if words else ""

    def tell(self, **command: object) -> None:
        """Send it a line."""
        if self._process is None or self._process.stdin is None:
            message = f"{self.name} does not run"
            raise ProcessFailedError(message)
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def hear(self, wanted: Callable[[Said], bool], step: str) -> Said:
        """Return the first thing said that is wanted, and forget it.

        Args:
            wanted: tells what is.
            step: what is being waited for, for people.

        Raises:
            ProcessFailedError: the process failed or ended, or did not say it in time.
        """
        found: list[Said] = []

        def has_come() -> bool:
            found.extend(said for said in self.said if said.get("event") == "failed" or wanted(said))
            return bool(found)

        try:
            async with asyncio.timeout(PATIENCE), self._changed:
                await self._changed.wait_for(has_come)
        except TimeoutError:
            message = f"{self.name}: {step} did not happen within {PATIENCE:g} s{self._last_words()}"
            raise ProcessFailedError(message) from None
        said = found[0]
        if not wanted(said):
            message = f"{self.name}: {step} failed: {said['error']}"
            raise ProcessFailedError(message)
        self.said.remove(said)
        return said

    async def event(self, name: str) -> Said:
        """Return the next event of that name."""
        return await self.hear(lambda said: said.get("event") == name, name)

    async def ask(self, answer: str, **command: object) -> Said:
        """Send a command and return its answer."""
        self.tell(**command)
        return await self.event(answer)

    async def kill(self) -> None:
        """End it at once, as a loss of power would."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        await self._ended()

    async def stop(self) -> int:
        """Ask it to end and return its exit status; kill it if it does not."""
        process = self._process
        if process is None:
            return 0
        if not self._at_end:  # asyncio loses the status of a process that ended just before it is signalled
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        try:
            async with asyncio.timeout(_STOP):
                await process.wait()
        except TimeoutError:
            process.kill()
        await self._ended()
        return process.returncode or 0

    async def _ended(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await process.wait()
            if process.stdin is not None:
                process.stdin.close()
        if self._reader is not None:
            await self._reader
