"""One member of the fleet on the SDK: what it has read, what it must never read, and copies of its state."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

import brokerkm
from brokerkm.core.state import State
from brokerkm.errors import EvictedError, TransportError

if TYPE_CHECKING:
    from pathlib import Path

    from brokerkm.core.welcome import NodeKey
    from brokerkm.descriptor import Descriptor
    from brokerkm.sdk.fleet import Fleet
    from brokerkm.sdk.subscriptions import Messages
    from brokerkm.transport import Options

PATIENCE = 60.0  # seconds for whatever a device waits for
RETRY = 0.2  # seconds until it calls a broker again that was not there
PACE = brokerkm.Pace(retained=1.0, repeat=2.0, ceiling=8.0, syncs=3, settle=0.5, windows=3600.0, save=1.0)
ALL = "app/#"


class Device:
    """A device; its topics are ``app/NUMBER``, one for each message.

    Attributes:
        out_since: the epoch from which on it is out of the group, None while it is in: 0 before it joined first.
        barred: numbers of messages that were sent while it was out.
        read: numbers of the messages that it has read.
        snapshots: its state file as it was before each eviction, what a thief of the device would have.
    """

    def __init__(self, name: str, state: Path, options: Options) -> None:
        self.name = name
        self.out_since: int | None = 0
        self.barred: set[int] = set()
        self.read: set[int] = set()
        self.snapshots: list[bytes] = []
        self._state = state
        self._options = options
        self._fleet: Fleet | None = None
        self._reader: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        fleet = self._fleet
        if fleet is None:
            return f"{self.name} (offline)"
        error, connected = fleet._entered_session().error, "connected" if fleet.connected else "not connected"
        where = f"{fleet.state}, epoch {fleet.epoch}, {connected}, slot {fleet.slot}, refused {dict(fleet.refused)}"
        return f"{self.name} ({where}{'' if error is None else f', failed: {error!r}'})"

    @property
    def fleet(self) -> Fleet:
        """The SDK's fleet of a device that is online."""
        assert self._fleet is not None
        return self._fleet

    @property
    def is_online(self) -> bool:
        """Whether it has a connection, as a member or not."""
        return self._fleet is not None

    @property
    def root(self) -> NodeKey | None:
        """The group's key, as far as this device knows."""
        path = self.fleet._entered_session().member._memory.path
        return None if path is None else path.root

    @property
    def is_out(self) -> bool:
        """Whether the device has understood that it is out."""
        return self._fleet is not None and self._fleet.state is State.EVICTED

    def identity(self, descriptor: Descriptor) -> bytes:
        """Return the public key to list."""
        return brokerkm.identity(descriptor, member=self.name, state_dir=self._state)

    def saved(self) -> bytes:
        """Return what is on the device's disk."""
        return (self._state / "member.state").read_bytes()

    async def enter(self, descriptor: Descriptor, *, rejoin: bool = False) -> None:
        """Join or go on, and listen; a broker that is away is called again. Raises `EvictedError`."""
        await self.exit()
        async with asyncio.timeout(PATIENCE):
            while True:
                fleet = brokerkm.connect(
                    None,
                    descriptor,
                    member=self.name,
                    state_dir=self._state,
                    timeout=PATIENCE,
                    rejoin=rejoin,
                    options=self._options,
                    pace=PACE,
                )
                try:
                    await fleet.__aenter__()
                except TransportError:
                    await asyncio.sleep(RETRY)
                    continue
                break
        self._fleet = fleet
        messages = await fleet.messages(ALL).__aenter__()
        self._reader = asyncio.create_task(self._read(messages), name=f"{self.name} listens")

    async def _read(self, messages: Messages) -> None:
        with contextlib.suppress(EvictedError):
            async for message in messages:
                number = int(message.topic.removeprefix("app/"))
                assert message.payload == f"{number} {message.sender}".encode()
                assert number not in self.read, f"{self.name} has read message {number} twice"
                self.read.add(number)

    async def exit(self) -> None:
        """Disconnect, if connected; the device stays a member."""
        fleet, self._fleet = self._fleet, None
        if fleet is not None:
            assert self._reader is not None
            try:
                async with asyncio.timeout(PATIENCE):
                    await fleet.__aexit__(None, None, None)
                    await self._reader
            except TimeoutError:
                left = sorted(task.get_name() for task in asyncio.all_tasks() if self.name in task.get_name())
                pytest.fail(f"{self.name} does not come to an end: {left}")

    async def say(self, number: int) -> None:
        """Publish message `number`."""
        await self.fleet.publish(f"app/{number}", f"{number} {self.name}".encode(), timeout=PATIENCE)
