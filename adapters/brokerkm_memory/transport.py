"""The client side of the in-process broker: `brokerkm.transport.Transport` without a network."""

from __future__ import annotations

import asyncio
import urllib.parse
from typing import TYPE_CHECKING, Final

from brokerkm.errors import TransportError, UsageError
from brokerkm.topics import check_filter, check_topic
from brokerkm.transport import Incoming, Options, Outgoing
from brokerkm_memory.broker import Broker, Subscriber, broker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

_UNKNOWN: Final = ("username", "password", "ca_file", "cert_file", "key_file", "session_expiry", "parameters")


class MemoryTransport:
    """A client of the broker NAME of ``memory://NAME`` in the running event loop.

    Raises:
        UsageError: the URL has no name, or an option has no meaning inside one process.
    """

    def __init__(self, url: str, options: Options) -> None:
        self._name = urllib.parse.urlsplit(url).netloc
        if not self._name:
            message = f"{url!r} names no broker: write memory://NAME"
            raise UsageError(message)
        for name in _UNKNOWN:
            if getattr(options, name):
                message = f"memory:// knows no {name}: leave it out"
                raise UsageError(message)
        self._options = options
        self._broker: Broker | None = None
        self._subscriber: Subscriber | None = None

    @property
    def max_payload(self) -> int:
        """Bytes of the largest payload that `publish` takes."""
        return self._options.max_payload

    @property
    def supports_shared(self) -> bool:
        """No: every subscriber gets everything."""
        return False

    async def open(self) -> None:
        """Join the broker; can be done once."""
        if self._subscriber is not None:
            message = "a transport is opened once: create another"
            raise UsageError(message)
        self._broker = broker(self._name)
        self._subscriber = Subscriber(self._options.queue_size, self._options.max_payload)
        self._broker.subscribers.append(self._subscriber)

    async def close(self) -> None:
        """Leave the broker and end `incoming`; may be called twice."""
        if self._broker is not None and self._subscriber is not None:
            self._broker.subscribers.remove(self._subscriber)
            self._broker = None
            await self._subscriber.close()

    async def publish(self, message: Outgoing) -> None:
        """Return when every subscriber has the message in its queue.

        Raises:
            UsageError: the topic is not exact or the payload too large.
            TransportError: not open, or a subscriber's queue stayed full until the timeout.
        """
        await self.publish_batch([message])

    async def publish_batch(self, messages: Sequence[Outgoing]) -> None:
        """Publish all in order; raises as `publish` does."""
        for message in messages:
            self._check(message)
        target = self._connected()[0]
        for message in messages:
            try:
                async with asyncio.timeout(self._options.timeout):
                    await target.publish(message)
            except TimeoutError:
                text = f"{message.topic!r} has a subscriber that took nothing for {self._options.timeout:g} s"
                raise TransportError(text) from None

    async def request(self, topic: str, payload: bytes) -> None:
        """Publish to whoever subscribes `topic`: the server."""
        await self.publish(Outgoing(topic, payload))

    async def subscribe(self, filters: Collection[str]) -> None:
        """Receive what matches from now on, and at once what is retained."""
        checked = [check_filter(pattern) for pattern in filters]
        source, subscriber = self._connected()
        subscriber.filters.update(checked)
        for pattern in checked:
            await subscriber.put_retained(source.retained(pattern))

    async def unsubscribe(self, filters: Collection[str]) -> None:
        """Receive it no longer; a filter that was not subscribed is not an error."""
        self._connected()[1].filters.difference_update(filters)

    async def incoming(self) -> AsyncIterator[Incoming]:
        """Yield deliveries until `close`, and what was queued by then."""
        if self._subscriber is None:
            message = "open the transport first"
            raise UsageError(message)
        while (item := await self._subscriber.get()) is not None:
            yield item

    def _check(self, message: Outgoing) -> None:
        check_topic(message.topic)
        if len(message.payload) > self.max_payload:
            text = f"{len(message.payload)} bytes for {message.topic!r}: at most {self.max_payload} can be published"
            raise UsageError(text)

    def _connected(self) -> tuple[Broker, Subscriber]:
        if self._broker is None or self._subscriber is None:
            message = "not connected: the transport is not open, or closed"
            raise TransportError(message)
        return self._broker, self._subscriber
