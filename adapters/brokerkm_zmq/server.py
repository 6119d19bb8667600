"""The server's end: a hub, and the server's own subscriptions at it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from brokerkm import topics
from brokerkm.errors import TransportError
from brokerkm.transport import Connected, Delivery
from brokerkm_zmq import rules, wire
from brokerkm_zmq.hub import BURST, Hub

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from brokerkm.transport import Incoming
    from brokerkm_zmq.hub import Authorize, Reply
    from brokerkm_zmq.inbox import Inbox
    from brokerkm_zmq.settings import Settings
    from brokerkm_zmq.submitter import Message


class Server:
    """A hub whose owner subscribes and publishes in the same process.

    Args:
        settings: of the server's role.
        inbox: gets what matches the server's own subscriptions.
        authorize: see `Hub`.
    """

    def __init__(self, settings: Settings, inbox: Inbox[Incoming], authorize: Authorize | None) -> None:
        self._settings = settings
        self._inbox = inbox
        self._filters: set[str] = set()
        self._replays: set[asyncio.Task[None]] = set()
        self._order = asyncio.Lock()  # what is published first goes out first, whoever waits
        self.hub = Hub(settings, self._accept, authorize)
        self.max_payload = settings.max_payload

    async def open(self) -> None:
        """Bind; raises `TransportError` if an address is taken."""
        await self.hub.open()
        self._inbox.force(Connected())

    async def close(self) -> None:
        """Send what was accepted for at most a second and close."""
        for task in self._replays:
            task.cancel()
        if self._replays:
            await asyncio.wait(self._replays)
        await self.hub.close()

    async def _accept(self, submission: wire.Submission, reply: Reply) -> None:
        topic, payload = submission.topic, submission.payload
        if submission.op is not wire.Submit.REQUEST and not rules.is_below(self._settings.prefix, topic):
            try:
                retain = submission.op is wire.Submit.RETAIN
                await self.hub.publish(topic, submission.audience, payload, retain=retain)
            except TransportError as error:
                reply(str(error))
                return
        if self._wants(topic):
            await self._inbox.put(Delivery(topic, payload))
        reply(None)

    def _wants(self, topic: str) -> bool:
        return topic in self._filters or any(topics.matches(pattern, topic) for pattern in self._filters)

    async def submit(self, message: Message) -> None:
        """Publish, or hand the server its own request; raises `TransportError` if nobody takes it."""
        async with self._order:
            await self._take(message)

    async def submit_all(self, messages: Sequence[Message]) -> None:
        """Publish all; raises `TransportError` at the first that is not accepted."""
        async with self._order:
            for count, message in enumerate(messages):
                await self._take(message)
                if count % BURST == 0:
                    await asyncio.sleep(0)  # nothing above need have waited: others have their turn

    async def _take(self, message: Message) -> None:
        if message.op is not wire.Submit.REQUEST:
            retain = message.op is wire.Submit.RETAIN
            await self.hub.publish(message.topic, message.audience, message.payload, retain=retain)
        delivery = Delivery(message.topic, message.payload)
        if not self._wants(message.topic) or self._inbox.try_put(delivery):
            return
        try:
            async with asyncio.timeout(self._settings.timeout):
                await self._inbox.put(delivery)
        except TimeoutError:
            text = f"{message.topic}: nobody takes what arrives here, for {self._settings.timeout:g} s"
            raise TransportError(text) from None

    async def subscribe(self, filters: Collection[str]) -> None:
        """Receive what matches; last values follow as the caller takes them."""
        self._filters.update(filters)
        task = asyncio.get_running_loop().create_task(self._replay(list(filters)), name="zmq own last values")
        self._replays.add(task)
        task.add_done_callback(self._replays.discard)

    async def _replay(self, filters: list[str]) -> None:
        for pattern in filters:
            for topic in [pattern] if topics.is_exact(pattern) else self.hub.values:
                value = self.hub.values.get(topic)
                if value is not None and pattern in self._filters and topics.matches(pattern, topic):
                    await self._inbox.put(Delivery(topic, value.payload, retained=True))

    async def unsubscribe(self, filters: Collection[str]) -> None:
        """Receive it no longer."""
        self._filters.difference_update(filters)
