"""The broker behind ``memory://NAME``: subscribers, retained payloads, and who gets what."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import deque
from typing import TYPE_CHECKING

from brokerkm.topics import is_exact, matches
from brokerkm.transport import Connected, Delivery, Incoming, Outgoing

if TYPE_CHECKING:
    from collections.abc import Iterable

_log = logging.getLogger(__name__)


class Subscriber:
    """One connection's filters and the queue of what it has not taken yet.

    Args:
        queue_size: deliveries in the queue at which publishers begin to wait.
        max_payload: bytes of the largest payload that it takes.
    """

    def __init__(self, queue_size: int, max_payload: int) -> None:
        self.filters: set[str] = set()
        self._queue: deque[Incoming] = deque([Connected()])
        self._queue_size = queue_size
        self._max_payload = max_payload
        self._changed = asyncio.Condition()
        self._turn = asyncio.Lock()
        self._closed = False

    def wants(self, topic: str) -> bool:
        """Tell whether a filter takes in `topic`."""
        return topic in self.filters or any(matches(pattern, topic) for pattern in self.filters)

    async def put(self, delivery: Delivery) -> None:
        """Queue `delivery` in the order of the calls, once there is room."""
        if len(delivery.payload) > self._max_payload:
            _log.warning("dropped %d bytes on %.100r: above this client's limit", len(delivery.payload), delivery.topic)
            return
        async with self._turn, self._changed:
            await self._changed.wait_for(lambda: self._closed or len(self._queue) < self._queue_size)
            self._queue.append(delivery)
            self._changed.notify_all()

    async def put_retained(self, deliveries: Iterable[Delivery]) -> None:
        """Queue at once: the subscriber itself waits for this call, and the broker holds the payloads anyway."""
        async with self._changed:
            self._queue.extend(one for one in deliveries if len(one.payload) <= self._max_payload)
            self._changed.notify_all()

    async def get(self) -> Incoming | None:
        """Return the next in the queue; None when it is empty and will stay so."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or self._queue)
            if not self._queue:
                return None
            item = self._queue.popleft()
            self._changed.notify_all()
            return item

    async def close(self) -> None:
        """Take nothing more; publishers that wait go on."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()


class Broker:
    """All subscribers and retained payloads of one NAME in one event loop."""

    def __init__(self) -> None:
        self.subscribers: list[Subscriber] = []
        self._retained: dict[str, bytes] = {}

    async def publish(self, message: Outgoing) -> None:
        """Hand `message` to every subscriber that wants it; waits for those whose queue is full."""
        if message.retain and message.payload:
            self._retained[message.topic] = message.payload
        elif message.retain:
            self._retained.pop(message.topic, None)
        delivery = Delivery(message.topic, message.payload)
        for subscriber in tuple(self.subscribers):
            if subscriber.wants(message.topic):
                await subscriber.put(delivery)

    def retained(self, pattern: str) -> list[Delivery]:
        """Return the last values that the filter takes in, oldest topic first."""
        if is_exact(pattern):
            topics = [pattern] if pattern in self._retained else []
        else:
            topics = [topic for topic in self._retained if matches(pattern, topic)]
        return [Delivery(topic, self._retained[topic], retained=True) for topic in topics]


_brokers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Broker]] = weakref.WeakKeyDictionary()


def broker(name: str) -> Broker:
    """Return the running event loop's broker of that name."""
    return _brokers.setdefault(asyncio.get_running_loop(), {}).setdefault(name, Broker())
