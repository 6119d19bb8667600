"""The queue between the network and the caller of `incoming`."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from brokerkm.transport import Delivery

if TYPE_CHECKING:
    from brokerkm.transport import Connected, Disconnected, Incoming

OVERFLOW: Final = 4 * 1024 * 1024  # bytes of payload that may be queued above `size` while an answer is awaited


class Inbox:
    """Deliveries and connection events.

    Args:
        size: deliveries that may be queued before reading from the network stops.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[Incoming] = deque()
        self._payload = 0
        self._changed = asyncio.Event()
        self._closed = False

    def has_room(self, *, urgent: bool) -> bool:
        """Tell whether one more delivery may be queued; `urgent` if an answer waits behind it."""
        return len(self._items) < self._size or (urgent and self._payload < OVERFLOW)

    def is_half_full(self) -> bool:
        """Tell whether the broker had better send no more than it has announced."""
        return len(self._items) >= self._size // 2

    def put(self, delivery: Delivery) -> None:
        """Queue a delivery."""
        self._payload += len(delivery.payload)
        self._items.append(delivery)
        self._changed.set()

    def note(self, event: Connected | Disconnected) -> None:
        """Queue an event. A consumer that sleeps while a connection flaps finds only its last state."""
        if len(self._items) > 1 and not any(isinstance(self._items[i], Delivery) for i in (-1, -2)):
            self._items.pop()
            self._items.pop()
        self._items.append(event)
        self._changed.set()

    async def get(self) -> Incoming | None:
        """Return the next; None when the queue is empty and closed."""
        while not self._items:
            if self._closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        item = self._items.popleft()
        if isinstance(item, Delivery):
            self._payload -= len(item.payload)
        return item

    def close(self) -> None:
        """Take nothing more; what is queued can still be had."""
        self._closed = True
        self._changed.set()
