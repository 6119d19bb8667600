"""The queue between the network and the caller of `incoming`."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from brokerkm.transport import Connected, Delivery, Disconnected, Incoming

if TYPE_CHECKING:
    from collections.abc import Callable

OVERFLOW: Final = 4 * 1024 * 1024  # bytes of payload above `size` that may be held while an answer is awaited


class Inbox:
    """Deliveries with what to call when each is taken, and connection events.

    Args:
        size: deliveries that may be queued before reading from the network stops.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[tuple[Incoming, Callable[[], None] | None]] = deque()
        self._payload = 0
        self._changed = asyncio.Event()
        self._closed = False

    def has_room(self, *, urgent: bool) -> bool:
        """Tell whether one more delivery may be queued; `urgent` if an answer waits behind it."""
        return len(self._items) < self._size or (urgent and self._payload < OVERFLOW)

    def put(self, delivery: Delivery, taken: Callable[[], None]) -> None:
        """Queue a delivery."""
        self._payload += len(delivery.payload)
        self._items.append((delivery, taken))
        self._changed.set()

    def note(self, event: Connected | Disconnected) -> None:
        """Queue an event. A consumer that sleeps while a connection flaps finds only its last state."""
        if len(self._items) > 1 and not any(isinstance(self._items[i][0], Delivery) for i in (-1, -2)):
            self._items.pop()
            self._items.pop()
        self._items.append((event, None))
        self._changed.set()

    async def get(self) -> Incoming | None:
        """Return the next; None when the queue is empty and closed."""
        while not self._items:
            if self._closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        item, taken = self._items.popleft()
        if isinstance(item, Delivery):
            self._payload -= len(item.payload)
        if taken is not None:
            taken()
        return item

    def close(self) -> None:
        """Take nothing more; what is queued can still be had."""
        self._closed = True
        self._changed.set()
