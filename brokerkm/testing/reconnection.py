"""What every transport with a network must do when that breaks: the member's line, or the broker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from brokerkm.errors import TransportError
from brokerkm.testing.conformance import TransportConformance
from brokerkm.testing.site import PATIENCE, Ends, Listener
from brokerkm.transport import Connected, Delivery, Disconnected, Outgoing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class ReconnectConformance(TransportConformance):
    """As `TransportConformance`, of which it has all tests; the site's `cut`, `mend` and `restart` must work."""

    async def test_subscriptions_outlive_the_connection(self, ends: Ends) -> None:
        """A cut is reported, and so is the connection after it, with every subscription in force."""
        server, member = await ends.server(), await ends.member()
        topics = [ends.topic(str(index)) for index in range(20)]
        await member.subscribe(topics)
        await member.unsubscribe(topics[:1])
        listener = Listener(member)
        for _ in range(2):
            await self._interrupt(ends, listener)
            await server.publish_batch([Outgoing(topic, topic.encode()) for topic in topics])
            heard = await listener.deliveries(19)
            assert sorted(topics[1:]) == sorted(one.topic for one in heard)

    async def test_last_value_after_a_cut(self, ends: Ends) -> None:
        """What was retained while the member was away is there when it comes back."""
        server, member = await ends.server(), await ends.member()
        await member.subscribe([ends.topic("1")])
        listener = Listener(member)
        await ends.site.cut()
        await listener.event(Disconnected)
        await server.publish(Outgoing(ends.topic("1"), b"missed", retain=True))
        await ends.site.mend()
        heard = await listener.delivery()  # perhaps before `Connected`
        assert (ends.topic("1"), b"missed") == (heard.topic, heard.payload)

    async def test_request_waits_for_the_network(self, ends: Ends) -> None:
        """What is sent during a cut is accepted after it."""
        server, member = await ends.server(), await ends.member(timeout=PATIENCE)
        await server.subscribe([f"{ends.base}/r/+"])
        request: asyncio.Task[None] | None = None

        async def meanwhile() -> None:
            nonlocal request
            request = asyncio.create_task(member.request(f"{ends.base}/r/member", b"hello"))

        await self._interrupt(ends, Listener(member), meanwhile)
        assert request is not None
        await request
        assert Delivery(f"{ends.base}/r/member", b"hello") == await Listener(server).delivery()

    async def test_request_fails_when_the_network_is_gone_for_long(self, ends: Ends) -> None:
        """Past the timeout the caller is told, and can still close in peace."""
        member = await ends.member(timeout=0.5)
        listener = Listener(member)
        await ends.site.cut()
        try:
            await listener.event(Disconnected)
            with pytest.raises(TransportError):
                await member.request(f"{ends.base}/r/member", b"hello")
            async with asyncio.timeout(PATIENCE):
                await member.close()
        finally:
            await ends.site.mend()

    async def test_open_fails_where_nobody_listens(self, ends: Ends) -> None:
        """The first attempt to connect fails with a clear error instead of going on for ever."""
        await ends.site.cut()
        try:
            with pytest.raises(TransportError):
                await ends.member(timeout=1.0)
        finally:
            await ends.site.mend()

    async def test_nothing_accepted_is_lost_in_a_cut(self, ends: Ends) -> None:
        """Of the requests that were accepted around a cut, each arrives, in order and maybe again."""
        server, member = await ends.server(), await ends.member(timeout=PATIENCE)
        await server.subscribe([f"{ends.base}/r/+"])
        begun = asyncio.Event()

        async def ask() -> None:
            for index in range(300):
                await member.request(f"{ends.base}/r/member", index.to_bytes(4))
                if index == 100:
                    begun.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(ask())
            await begun.wait()
            await self._interrupt(ends, Listener(member))
        heard: dict[int, None] = {}
        listener = Listener(server)
        while len(heard) < 300:
            heard.setdefault(int.from_bytes((await listener.delivery()).payload))
        assert list(range(300)) == list(heard)

    async def test_broker_restarts(self, ends: Ends) -> None:
        """Both ends come back by themselves and hear each other again."""
        server, member = await ends.server(timeout=PATIENCE), await ends.member(timeout=PATIENCE)
        await member.subscribe([ends.topic("1")])
        await server.subscribe([f"{ends.base}/r/+"])
        listeners = Listener(server), Listener(member)
        for listener in listeners:
            await listener.event(Connected)
        await ends.site.restart()
        for listener in listeners:
            await listener.event(Connected)
        await server.publish(Outgoing(ends.topic("1"), b"to member"))
        await member.request(f"{ends.base}/r/member", b"to server")
        heard = [(await listener.delivery()).payload for listener in listeners]
        assert heard == [b"to server", b"to member"]

    @staticmethod
    async def _interrupt(
        ends: Ends, listener: Listener, meanwhile: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Cut the member's line, do what is to be done meanwhile, and mend it."""
        await ends.site.cut()
        await listener.event(Disconnected)
        if meanwhile is not None:
            await meanwhile()
        await ends.site.mend()
        await listener.event(Connected)
