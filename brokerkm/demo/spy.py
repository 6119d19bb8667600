"""Somebody with a copy of a member's keys who reads all that passes the broker, and obeys nobody.

The core's `Member` is fed every message; what tells it that it is out is kept from it. So it is what a thief would
build: all keys that the member ever had, all rekeys, all ciphertexts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING, Final

from brokerkm.core.events import Dropped, MessageReceived
from brokerkm.core.member import Member
from brokerkm.core.messages import Kind
from brokerkm.core.wire import message_type
from brokerkm.errors import RefusedError
from brokerkm.transport import Delivery, Options, create

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brokerkm.core.events import Event
    from brokerkm.core.names import Topics
    from brokerkm.transport import Transport


class Spy:
    """Reads a broker's traffic with the keys in `state`, if it has any.

    Args:
        transport: of its own, open.
        topics: the group's.
        member: whose keys it has.
    """

    def __init__(self, transport: Transport, topics: Topics, member: str) -> None:
        self._transport: Final = transport
        self._own: Final = topics.member(member)
        self._topics: Final = topics
        self._member: Member | None = None
        self._changed: Final = asyncio.Event()
        self.captured: list[tuple[str, bytes]] = []
        self.opened = 0
        self.refused = 0
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, url: str, topics: Topics, member: str, pattern: str) -> Spy:
        """Connect and subscribe the application's messages."""
        transport = create(url, Options(client_id=f"{topics.group}-{member}-spy"))
        await transport.open()
        spy = cls(transport, topics, member)
        await transport.subscribe([pattern])
        return spy

    async def use(self, state: bytes) -> None:
        """Use the keys of a member's saved state, and follow its group's rekeys with them."""
        self._member = Member.load(state, os.urandom, time.time())
        await self._transport.subscribe([topic for topic in self._member.filters if topic != self._own])

    def forget(self) -> None:
        """Count anew."""
        self.captured.clear()
        self.opened = self.refused = 0

    def try_all(self, captured: Sequence[tuple[str, bytes]]) -> None:
        """Try to open messages that were captured before."""
        for topic, payload in captured:
            self._feed(topic, payload)

    async def capture(self, count: int, patience: float) -> None:
        """Return when so many messages have been captured; raises `TimeoutError`."""
        async with asyncio.timeout(patience):
            while len(self.captured) < count:
                await self._stirred(None)

    async def decide(self, count: int, patience: float) -> None:
        """Return when so many messages have been opened or not; raises `TimeoutError`."""
        async with asyncio.timeout(patience):
            while self.opened + self.refused < count and self._member is not None:
                await self._stirred(self._member.next_deadline)
                self._count(self._member.tick(time.time()))

    async def _stirred(self, deadline: float | None) -> None:
        """Return when something has come, or the member's time has."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - time.time())):
                await self._changed.wait()

    async def close(self) -> None:
        """Disconnect."""
        await self._transport.close()
        await self._reader

    async def _read(self) -> None:
        async for item in self._transport.incoming():
            if isinstance(item, Delivery):
                if not self._topics.owns(item.topic):
                    self.captured.append((item.topic, item.payload))
                self._feed(item.topic, item.payload)
                self._changed.set()

    def _feed(self, topic: str, payload: bytes) -> None:
        if self._member is None:
            return
        try:
            self._count(self._member.receive(topic, payload, time.time()))
        except RefusedError:
            if not self._topics.owns(topic) and message_type(payload) == Kind.DATA:
                self.refused += 1

    def _count(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, MessageReceived):
                self.opened += 1
            elif isinstance(event, Dropped):
                self.refused += 1
