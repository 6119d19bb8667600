"""A bounded queue with an end: between the member at work and one iterator of the application."""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, TypeVar

from brokerkm.sdk.signal import Signal

Item = TypeVar("Item")


class Mailbox(Generic[Item]):
    """Items in order, then perhaps an end.

    Args:
        size: items held; `put` waits for room, `force` makes it.
    """

    def __init__(self, size: int) -> None:
        self._size: Final = size
        self._items: deque[Item] = deque()
        self._changed = Signal()
        self._end: BaseException | None = None
        self._closed = False

    async def put(self, item: Item) -> None:
        """Queue an item once there is room; one that has ended takes and forgets it."""
        while len(self._items) >= self._size and not self._closed:
            await self._changed.wait()
        if not self._closed:
            self._items.append(item)
            self._changed.fire()

    def force(self, item: Item) -> bool:
        """Queue an item at once; return False if the oldest had to go for it."""
        has_room = len(self._items) < self._size
        if not self._closed:
            if not has_room:
                self._items.popleft()
            self._items.append(item)
            self._changed.fire()
        return has_room

    async def get(self) -> Item:
        """Return the next item.

        Raises:
            StopAsyncIteration: nothing more will come; or the error that `end` was given.
        """
        while not self._items:
            if self._closed:
                raise self._end or StopAsyncIteration
            await self._changed.wait()
        item = self._items.popleft()
        self._changed.fire()
        return item

    def end(self, error: BaseException | None = None) -> None:
        """Take nothing more; what is there can still be had, and then `error` or the end. The first end counts."""
        if not self._closed:
            self._closed, self._end = True, error
            self._changed.fire()

    def discard(self) -> None:
        """End, and forget what is there."""
        self._items.clear()
        self.end()
        self._changed.fire()
