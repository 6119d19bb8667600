"""A key server with one group, members with directories of their own, and what tests do to them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final, TypeVar

import brokerkm
from brokerkm.core.policy import Policy
from brokerkm.sdk.recovery import Pace
from brokerkm.service import KeyServer
from brokerkm.service.terms import policy_fields
from brokerkm.store import MemoryStore
from brokerkm.transport import Options, Outgoing, Role, create

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from brokerkm.core.events import MessageReceived
    from brokerkm.descriptor import Descriptor
    from brokerkm.sdk.events import Events, FleetEvent
    from brokerkm.sdk.subscriptions import Messages
    from brokerkm.transport import Transport

PATIENCE: Final = 20.0  # seconds after which a test gives up waiting
GROUP: Final = "plant"
POLICY: Final = Policy(hold=1, max_silence=60)
PACE: Final = Pace(retained=0.2, repeat=0.4, ceiling=1.0, syncs=2, settle=0.3, windows=0.1, save=0.05)

_Event = TypeVar("_Event")


class Yard:
    """The group's server, which can be stopped and started again, and its members.

    Args:
        url: of the broker.
        path: where state directories go.
        group: the group's id.
    """

    def __init__(self, url: str, path: Path, group: str = GROUP) -> None:
        self.url: Final = url
        self.group: Final = group
        self.path: Final = path
        self.store: Final = MemoryStore()
        self._server: KeyServer | None = None
        self.clock_offset = 0.0  # seconds that the server's clock is ahead
        self._stack = contextlib.AsyncExitStack()
        self._fleets: list[brokerkm.Fleet] = []

    @property
    def server(self) -> KeyServer:
        """The running server."""
        assert self._server is not None
        return self._server

    async def start(self) -> None:
        """Start the server on what its store has."""
        transport = create(self.url, Options(role=Role.SERVER))
        self._server = KeyServer(
            self.store,
            transport,
            clock=lambda: time.time() + self.clock_offset,
            interval=0,
            retained_wait=0.2,
            broker=self.url,
        )
        await self._server.start()

    async def stop(self) -> None:
        """Stop the server."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop()

    async def close(self) -> None:
        """Close all that is open."""
        try:
            await self._stack.aclose()
        finally:
            await self.stop()

    async def invite(self) -> Descriptor:
        """Return a descriptor with a token for one device."""
        return await self.server.admin.invite(self.group)

    def connect(self, descriptor: Descriptor, member: str, *, pace: Pace = PACE, **options: object) -> brokerkm.Fleet:
        """Return a fleet that is not entered yet."""
        arguments = {"state_dir": self.path / member, "timeout": PATIENCE, **options}
        return brokerkm.connect(self.url, descriptor, member=member, pace=pace, **arguments)  # type: ignore[arg-type]

    async def join(self, member: str, **options: object) -> brokerkm.Fleet:
        """Return an entered fleet with a new invitation; it is left when the test ends."""
        return await self.enter(self.connect(await self.invite(), member, **options))  # type: ignore[arg-type]

    async def enter(self, fleet: brokerkm.Fleet) -> brokerkm.Fleet:
        """Enter a fleet; it is left when the test ends."""
        await self._stack.enter_async_context(fleet)
        self._fleets.append(fleet)
        await self.level(fleet)
        return fleet

    async def level(self, newest: brokerkm.Fleet) -> None:
        """Return when the others know of the newest's joining: it cannot read what they send before that."""
        for fleet in self._fleets:
            session = fleet._session
            assert session is not None
            async with asyncio.timeout(PATIENCE):
                while not (fleet._closed or session.is_out or fleet.epoch >= newest.epoch):
                    await session.moved.wait()

    async def transport(self) -> Transport:
        """Return an open transport of somebody else's."""
        transport = create(self.url, Options(role=Role.SERVER))
        await transport.open()
        self._stack.push_async_callback(transport.close)
        return transport

    async def forget(self, *topics: str) -> None:
        """Make the broker lose what it retained."""
        transport = await self.transport()
        await transport.publish_batch([Outgoing(topic, b"", retain=True) for topic in topics])


@contextlib.asynccontextmanager
async def yard_at(url: str, path: Path, policy: Policy = POLICY, group: str = GROUP) -> AsyncGenerator[Yard]:
    """Give a yard whose server runs and has the group."""
    yard = Yard(url, path, group)
    try:
        await yard.start()
        await yard.server.admin.create_group(group, policy=policy_fields(policy), beacon_interval=1)
        yield yard
    finally:
        await yard.close()


async def take(messages: Messages, count: int = 1) -> list[MessageReceived]:
    """Return the next messages."""
    async with asyncio.timeout(PATIENCE):
        return [await anext(messages) for _ in range(count)]


async def event(events: Events, kind: type[_Event]) -> _Event:
    """Return the next event of a kind, passing over all others."""
    async with asyncio.timeout(PATIENCE):
        while not isinstance(found := await anext(events), kind):
            pass
        return found


async def rest(events: Events) -> list[FleetEvent]:
    """Return all that is still to come."""
    async with asyncio.timeout(PATIENCE):
        return [found async for found in events]
