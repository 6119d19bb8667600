"""A fleet for the service's tests: real members of the core on real transports, and a server whose parts can fail."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING, TypeVar

from brokerkm.core.member import Member, Profile
from brokerkm.errors import RefusedError, TransportError
from brokerkm.transport import Delivery, Options, create

if TYPE_CHECKING:
    from collections.abc import Callable

    from brokerkm.core.events import Event
    from brokerkm.core.request import TokenKey
    from brokerkm.descriptor import Descriptor
    from brokerkm.transport import Transport

PATIENCE = 10  # seconds that a test waits for what has to come

E = TypeVar("E")


async def eventually(condition: Callable[[], bool]) -> None:
    """Return as soon as `condition` holds: for what tells nobody that it has changed."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - it is told by nobody
            await asyncio.sleep(0.005)


class Device:
    """A member at its broker, as far as these tests need one."""

    def __init__(self, member: Member, transport: Transport) -> None:
        self.member = member
        self.transport = transport
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._subscribed: set[str] = set()
        self._grown = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(cls, descriptor: Descriptor, name: str, member: Member | None = None) -> Device:
        """Return a device that is connected and has asked for nothing yet."""
        d = descriptor
        member = member or Member.create(Profile(d.group, name, d.server_key, d.suite, d.prefix), os.urandom)
        transport = create(d.broker, Options())
        await transport.open()
        device = cls(member, transport)
        await device._subscribe()
        device._tasks = [asyncio.create_task(device._pump()), asyncio.create_task(device._follow())]
        return device

    async def close(self) -> None:
        """Disconnect."""
        await self.transport.close()
        self._tasks[1].cancel()
        await asyncio.wait(self._tasks)
        self._tasks[0].result()

    async def send(self, request: bytes) -> None:
        """Send a request."""
        await self.transport.request(self.member.request_topic, request)

    async def join(self, token: TokenKey | None = None) -> None:
        """Ask for a place."""
        await self.send(self.member.join(time.time(), token))

    async def expect(self, kind: type[E]) -> E:
        """Return the next event of `kind`; what comes before it is passed over."""
        async with asyncio.timeout(PATIENCE):
            while True:
                event = await self._events.get()
                if isinstance(event, kind):
                    return event

    async def reaches(self, epoch: int) -> None:
        """Return when the member has the keys of `epoch`."""
        await eventually(lambda: self.member.epoch >= epoch)

    async def _subscribe(self) -> None:
        new = set(self.member.filters) - self._subscribed
        if new:
            self._subscribed |= new
            await self.transport.subscribe(new)

    async def _follow(self) -> None:
        """Subscribe what the member wants; apart from `_pump`, because some brokers wait for it meanwhile."""
        while True:
            await self._grown.wait()
            self._grown.clear()
            with contextlib.suppress(TransportError):
                await self._subscribe()

    async def _pump(self) -> None:
        async for item in self.transport.incoming():
            if isinstance(item, Delivery):
                try:
                    events = self.member.receive(item.topic, item.payload, time.time())
                except RefusedError:
                    self._grown.set()  # there may be a hand-over to look for
                    continue
                for event in events:
                    self._events.put_nowait(event)
                self._grown.set()
