"""`brokerkm serve` as a process of its own: killed at any moment, started again on the same store, administered."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import TYPE_CHECKING, TypeVar

from brokerkm.api import RemoteAdmin, open_admin
from brokerkm.core.policy import Policy
from brokerkm.errors import TransportError, UsageError
from brokerkm.service.local import CONTROL_SOCKET
from brokerkm.service.terms import policy_fields

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from brokerkm.descriptor import Descriptor
    from brokerkm.service import GroupInfo, MemberInfo

GROUP = "fleet-01"
START = 30.0  # seconds that a server may take until it serves
POLICY = Policy(hold=3, max_silence=60)
BEACONS = 3  # seconds between two of them

_T = TypeVar("_T")


class Server:
    """The key server of one group.

    Args:
        state: its directory.
        url: the broker's, as devices reach it.
        arguments: of ``brokerkm serve``, beyond those that every one has.
    """

    def __init__(self, state: Path, url: str, arguments: Sequence[str]) -> None:
        self._state = state
        self._url = url
        self._arguments = arguments
        self._serving = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self.kills = 0

    @property
    def log(self) -> Path:
        """What the processes have written to standard error."""
        return self._state.with_suffix(".log")

    async def create_group(self) -> None:
        """Create the group in the store, before any server runs."""
        async with open_admin(self._state, create=True) as admin:
            await admin.create_group(GROUP, policy=policy_fields(POLICY), beacon_interval=BEACONS)

    async def start(self) -> None:
        """Start a process and return when it serves."""
        common = ["serve", "--state", str(self._state), "--interval", "0.2", "--json", "--device-broker", self._url]
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "brokerkm",
                *common,
                *self._arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), START)
        assert GROUP.encode() in line, f"the server does not start:\n{self.log.read_text()}"
        self._serving.set()

    async def kill(self) -> None:
        """End the process at once, as a loss of power would."""
        self._serving.clear()
        process, self._process = self._process, None
        if process is not None:
            self.kills += 1
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()

    async def stop(self) -> int:
        """Let the process end in its own way; return its exit code."""
        process, self._process = self._process, None
        assert process is not None
        process.terminate()
        return await asyncio.wait_for(process.wait(), START)

    async def ask(self, call: Callable[[RemoteAdmin], Awaitable[_T]]) -> _T:
        """Return what a call of the administration gives; ask the next process again if this one dies of it."""
        async with asyncio.timeout(2 * START):
            while True:
                await self._serving.wait()
                with contextlib.suppress(TransportError):
                    admin = await RemoteAdmin.connect(self._state / CONTROL_SOCKET)
                    try:
                        return await call(admin)
                    finally:
                        await admin.close()
                await asyncio.sleep(0.02)  # until the process's death is known here too

    async def show(self) -> GroupInfo:
        """Return where the group stands."""
        return await self.ask(lambda admin: admin.show(GROUP))

    async def members(self) -> dict[str, MemberInfo]:
        """Return what the server knows of its members, by id."""
        found = await self.ask(lambda admin: admin.list_members(GROUP))
        return {info.member: info for info in found}

    async def evict(self, member: str) -> None:
        """Cut a member off."""
        with contextlib.suppress(UsageError):  # evicted already, by a server that was killed before it could say so
            await self.ask(lambda admin: admin.evict(GROUP, member))
        assert "evicted" == (await self.members())[member].status

    async def readmit(self, member: str) -> None:
        """Let a member come back."""
        with contextlib.suppress(UsageError):  # as above
            await self.ask(lambda admin: admin.readmit(GROUP, member))
        assert "listed" == (await self.members())[member].status

    async def add(self, member: str, identity: bytes) -> None:
        """List a member's key."""
        await self.ask(lambda admin: admin.add_member(GROUP, member, identity))

    async def rotate(self, *, everything: bool) -> None:
        """Renew the group's key, or all keys of the tree."""
        await self.ask(lambda admin: admin.rotate(GROUP, everything=everything))

    async def invite(self, uses: int) -> Descriptor:
        """Return an invitation."""
        return await self.ask(lambda admin: admin.invite(GROUP, uses=uses))
