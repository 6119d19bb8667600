"""The bounded queue between the network and the caller of a transport."""

from __future__ import annotations

import asyncio
import collections
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Inbox(Generic[Item]):
    """A queue for one consumer whose producers wait while it is full.

    Args:
        size: items held before producers wait; what is put with `force` does not wait.
    """

    def __init__(self, size: int) -> None:
        self._items: collections.deque[Item] = collections.deque()
        self._size = max(1, size)
        self._changed = asyncio.Event()
        self._space = asyncio.Event()
        self._space.set()
        self._closed = False

    def force(self, item: Item) -> None:
        """Put an item that must not wait: one of a kind of which there are few."""
        if not self._closed:
            self._items.append(item)
            self._changed.set()

    def try_put(self, item: Item) -> bool:
        """Put an item if there is room; a closed inbox takes and forgets it."""
        if self._closed:
            return True
        if len(self._items) >= self._size:
            self._space.clear()
            return False
        self._items.append(item)
        self._changed.set()
        return True

    async def put(self, item: Item) -> None:
        """Put an item, after waiting for room."""
        while not self.try_put(item):
            await self._space.wait()

    async def get(self) -> Item | None:
        """Return the next item, or None once closed and empty."""
        while not self._items:
            if self._closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        item = self._items.popleft()
        if len(self._items) < self._size:
            self._space.set()
        return item

    def close(self) -> None:
        """Take no more; the consumer still gets what is there."""
        self._closed = True
        self._changed.set()
        self._space.set()
