"""Who receives which application message: iterators over filters, on one connection to the broker.

A filter is subscribed while at least one iterator has it. Every iterator has a queue of its own; while one is full,
nothing more is taken from the transport, which slows the network down: nothing is dropped, and a slow reader slows
all down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from brokerkm.errors import TransportError, UsageError
from brokerkm.sdk.mailbox import Mailbox
from brokerkm.topics import check_filter, matches

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from brokerkm.core.events import MessageReceived
    from brokerkm.transport import Transport

MAX_VALUES: Final = 1024  # topics whose newest message is kept for later iterators
MAX_VALUES_SIZE: Final = 4 * 1024 * 1024  # bytes that these have together

_log = logging.getLogger(__name__)


class _Box(Mailbox["MessageReceived"]):
    """One iterator's queue, its filter, and the newest message that it has had or that came before it."""

    def __init__(self, size: int, pattern: str, since: int) -> None:
        super().__init__(size)
        self.pattern: Final = pattern
        self.since: Final = since
        self.repeated: dict[str, int] = {}


class _Value(NamedTuple):
    number: int
    sealed: bytes
    message: MessageReceived

    @property
    def size(self) -> int:
        return len(self.sealed) + len(self.message.payload)


class LastValues:
    """The newest message of each topic, as far as there is room.

    A broker sends a retained message again for every subscription; the protocol opens it once, because the second time
    it is a replay. What was opened is kept here, so that an iterator which begins later receives it too, once.
    """

    def __init__(self) -> None:
        self._values: OrderedDict[str, _Value] = OrderedDict()
        self._size = 0
        self.count = 0

    def put(self, sealed: bytes, message: MessageReceived) -> None:
        """Keep a message that was just opened; the topics that were silent longest make room."""
        self.count += 1
        self._drop(self._values.pop(message.topic, None))
        value = self._values[message.topic] = _Value(self.count, sealed, message)
        self._size += value.size
        while len(self._values) > MAX_VALUES or self._size > MAX_VALUES_SIZE:
            self._drop(self._values.popitem(last=False)[1])

    def get(self, topic: str, sealed: bytes) -> tuple[int, MessageReceived] | None:
        """Return number and message if `sealed` is the newest of its topic."""
        value = self._values.get(topic)
        return (value.number, value.message) if value is not None and value.sealed == sealed else None

    def _drop(self, value: _Value | None) -> None:
        if value is not None:
            self._size -= value.size


class Subscriptions:
    """The iterators of one connection.

    Args:
        transport: open when the first iterator begins.
        size: messages that wait for one iterator before the transport has to wait.
        abandoned: called when there is something to `tidy`.
    """

    def __init__(self, transport: Transport, size: int, abandoned: Callable[[], None]) -> None:
        self._transport: Final = transport
        self._size: Final = size
        self._abandoned: Final = abandoned
        self._boxes: list[_Box] = []
        self._values: Final = LastValues()
        self._turn: Final = asyncio.Lock()  # one subscription at a time, or an end would overtake a beginning
        self._unwanted: set[str] = set()
        self._end: BaseException | None = None
        self._ended = False

    async def open(self, pattern: str) -> _Box:
        """Begin an iterator, subscribed; what is retained reaches it. Raises `TransportError`."""
        box = _Box(self._size, pattern, self._values.count)
        self._boxes.append(box)
        if self._ended:
            box.end(self._end)
            return box
        try:
            async with self._turn:
                await self._transport.subscribe([pattern])
        except BaseException:
            self.abandon(box)
            raise
        return box

    def abandon(self, box: _Box) -> None:
        """End an iterator; `tidy` unsubscribes its filter if it was the last."""
        box.discard()
        with contextlib.suppress(ValueError):
            self._boxes.remove(box)
        self._unwanted.add(box.pattern)
        self._abandoned()

    @property
    def untidy(self) -> bool:
        """Whether filters wait for `tidy`."""
        return bool(self._unwanted)

    async def tidy(self) -> None:
        """Unsubscribe the filters that no iterator has any longer."""
        async with self._turn:
            wanted = {box.pattern for box in self._boxes}
            unwanted, self._unwanted = self._unwanted - wanted, set()
            if unwanted and not self._ended:
                try:
                    await self._transport.unsubscribe(unwanted)
                except TransportError as error:  # then more arrives than is wanted, and is passed over
                    _log.info("could not unsubscribe: %s", error)

    async def deliver(self, sealed: bytes, message: MessageReceived) -> None:
        """Queue a message for all whose filter takes it in; waits while one of them has no room."""
        self._values.put(sealed, message)
        for box in tuple(self._boxes):
            if matches(box.pattern, message.topic):
                await box.put(message)

    async def repeat(self, topic: str, sealed: bytes) -> bool:
        """Queue a retained message that was opened before for those who began later; return whether it is known."""
        found = self._values.get(topic, sealed)
        if found is None:
            return False
        number, message = found
        for box in tuple(self._boxes):
            if number <= box.since and number > box.repeated.get(topic, 0) and matches(box.pattern, topic):
                box.repeated[topic] = number
                await box.put(message)
        return True

    def end(self, error: BaseException | None = None) -> None:
        """End all iterators, present and future, when they have had what is queued."""
        if not self._ended:
            self._ended, self._end = True, error
            for box in self._boxes:
                box.end(error)


class Messages:
    """An iterator over the messages of one filter.

    It is subscribed when it is first asked for a message, or by ``async with``, which also ends it. One that is no
    longer referred to is ended by that.
    """

    def __init__(self, subscriptions: Subscriptions, pattern: str) -> None:
        self._subscriptions: Final = subscriptions
        self._pattern: Final = check_filter(pattern)
        self._box: _Box | None = None
        self._loop = asyncio.get_running_loop()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> MessageReceived:
        """Return the next message; raises `EvictedError` when the member is out, after what came before."""
        if self._box is None:
            await self.__aenter__()
        return await self._opened().get()

    def _opened(self) -> _Box:
        if self._box is None:
            raise StopAsyncIteration
        return self._box

    async def __aenter__(self) -> Self:
        if self._box is not None:
            message = "an iterator over messages begins once: ask the fleet for another"
            raise UsageError(message)
        self._box = await self._subscriptions.open(self._pattern)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End it; may be called twice."""
        if self._box is not None:
            self._subscriptions.abandon(self._box)
            await self._subscriptions.tidy()

    def __del__(self) -> None:
        box = getattr(self, "_box", None)
        if box is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and so is the connection
                self._loop.call_soon_threadsafe(self._subscriptions.abandon, box)
