"""The member's way down: subscriptions at the hub's XPUB, last values, and the healing of gaps.

XSUB instead of SUB, because SUB keeps libzmq's own books of prefixes and a command must reach
the hub each time. A command is withdrawn from those books when it has been answered; libzmq repeats after a
reconnection the ones that were not.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from typing import TYPE_CHECKING, Final, TypeVar

import zmq

from brokerkm import topics
from brokerkm.errors import TransportError
from brokerkm_zmq import rules, sockets, wire
from brokerkm_zmq.monitor import Monitor
from brokerkm_zmq.port import Port

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from brokerkm_zmq.settings import Settings

_log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

REPEAT: Final = 1.0  # seconds after which an unanswered command is sent again
_TURN: Final = 200  # messages handled before other coroutines have their turn


@dataclasses.dataclass(frozen=True, slots=True)
class Received:
    """One data message.

    Args:
        replayed: it was a last value, not a live one.
        bounded: there is one such at most for each filter, or a page; so it need not wait for room, and
            does not keep the answers behind it from a caller who subscribes before taking anything.
    """

    head: wire.Head
    payload: bytes
    replayed: bool = False
    bounded: bool = False


@dataclasses.dataclass(slots=True)
class _Asked:
    """A command under way."""

    op: wire.Op
    body: bytes
    acknowledged: asyncio.Future[tuple[int, bytes]]
    ended: asyncio.Future[bytes]
    gone: asyncio.Event
    wanted: frozenset[str]


class Subscriber:
    """An XSUB connected to one hub.

    Args:
        context: makes the socket; the caller ends it.
        settings: of the member's role.
        deliver: takes each data message; while it waits, the network waits.
        on_break: called with a reason when messages may have been lost.
        largest: bytes of the largest payload that the hub sends; longer than `max_payload` is dropped, much
            longer breaks the connection.
        burst: last values that the hub sends at a time.
    """

    def __init__(
        self,
        context: sockets.Context,
        settings: Settings,
        deliver: Callable[[Received], Awaitable[None]],
        on_break: Callable[[str], None],
        *,
        largest: int,
        burst: int,
    ) -> None:
        socket = sockets.make(context, zmq.XSUB, settings, largest=sockets.largest_frame(largest))
        socket.set(zmq.SNDHWM, 0)  # commands; a lost one would be a lost subscription
        sockets.secure_member(socket, settings)
        self._settings = settings
        self._deliver = deliver
        self._on_break = on_break
        self.monitor = Monitor(socket, self._changed)
        self._port = Port(socket)
        socket.connect(settings.down)
        self._exact: set[str] = set()
        self._wild: set[str] = set()
        self._asked: dict[int, _Asked] = {}
        self._burst = max(1, min(burst, wire.MAX_FILTERS))
        self._next = 0
        self._beat: int | None = None
        self._pages: set[asyncio.Task[None]] = set()
        self._warner = rules.Warner(_log)
        self._task = asyncio.get_running_loop().create_task(self._read(), name="zmq deliveries")

    @property
    def filters(self) -> list[str]:
        """What is subscribed."""
        return [*self._exact, *self._wild]

    def _changed(self, up: bool) -> None:  # noqa: FBT001 - the callback's one meaning
        if not up:
            self._broken("the connection to the hub was lost")

    def _broken(self, reason: str) -> None:
        self._beat = None
        self._on_break(reason)

    # What comes down

    async def _read(self) -> None:
        while True:
            for _ in range(_TURN):
                frames = self._port.try_read()
                if frames is None:
                    break
                await self._handle(frames)
            else:
                await asyncio.sleep(0)
                continue
            await self._port.readable()

    async def _handle(self, frames: list[bytes]) -> None:
        try:
            kind = frames[0][:1]
            if kind in (wire.ALL, wire.ONE):
                received = self._read_data(frames)
                if self._wants(received.head.topic):
                    await self._deliver(received)
            elif kind == wire.BEAT:
                self._on_beat(wire.read_number(frames[0][1:]))
            elif kind == wire.DIRECT:
                await self._on_direct(frames)
            else:
                self._warner.warn("dropped a message of unknown kind", kind)
        except wire.MalformedError as error:
            self._warner.warn("dropped a malformed message of the hub", str(error))

    def _read_data(self, frames: list[bytes], asked: _Asked | None = None) -> Received:
        if len(frames) != 2:  # noqa: PLR2004 - head and payload
            message = f"{len(frames)} frames instead of two"
            raise wire.MalformedError(message)
        if len(frames[1]) > self._settings.max_payload:
            message = f"payload is longer than {self._settings.max_payload} bytes"
            raise wire.MalformedError(message)
        bounded = asked is not None and asked.op is wire.Op.SUBSCRIBE
        return Received(wire.read_head(frames[0]), frames[1], asked is not None, bounded)

    def _wants(self, topic: str) -> bool:
        return topic in self._exact or any(topics.matches(pattern, topic) for pattern in self._wild)

    def _on_beat(self, number: int) -> None:
        if self._beat is not None and number != self._beat + 1:
            self._broken("a gap: this subscriber was too slow, or the hub was")
        elif self._beat is not None:
            self._beat = number

    async def _on_direct(self, frames: list[bytes]) -> None:
        kind, identity = wire.read_direct(frames[0])
        asked = self._asked.get(identity)
        if asked is None:
            return  # answered before, or given up
        if kind is wire.Direct.VALUE:
            received = self._read_data(frames[1:], asked)
            if any(topics.matches(pattern, received.head.topic) for pattern in asked.wanted):
                await self._deliver(received)
        elif kind is wire.Direct.ACK and len(frames) == 4:  # noqa: PLR2004 - direct, beat, serial, error
            self._on_acknowledged(wire.read_number(frames[1]))
            if not asked.acknowledged.done():
                asked.acknowledged.set_result((wire.read_number(frames[2]), frames[3][: wire.MAX_TEXT]))
        elif kind is wire.Direct.END and len(frames) == 2 and len(frames[1]) in (0, 16):  # noqa: PLR2004 - cursor
            self._forget(identity)
            if not asked.ended.done():
                asked.ended.set_result(frames[1])
        else:
            message = "answer of unknown form"
            raise wire.MalformedError(message)

    def _on_acknowledged(self, beat: int) -> None:
        if self._beat is None:
            self._beat = beat
        elif beat != self._beat:
            self._broken("a gap: this subscriber was too slow")

    # What goes up

    def _send(self, op: wire.Op, filters: Iterable[str], cursor: tuple[int, int] = (0, 0), before: int = 0) -> _Asked:
        self._next += 1
        command = wire.Command(self._next, op, tuple(filters), cursor, self._burst, before)
        loop = asyncio.get_running_loop()
        wanted = frozenset(command.filters)
        asked = _Asked(op, wire.command(command), loop.create_future(), loop.create_future(), asyncio.Event(), wanted)
        self._asked[self._next] = asked
        self._port.try_send([b"\x01" + asked.body])
        return asked

    def _forget(self, identity: int) -> None:
        asked = self._asked.pop(identity, None)
        if asked is not None:
            asked.gone.set()
            self._port.try_send([b"\x00" + asked.body])

    async def _command(self, op: wire.Op, filters: Iterable[str]) -> tuple[_Asked, int]:
        """Send a command; return it and the hub's serial when it obeyed; raises `TransportError`."""
        asked = self._send(op, filters)
        identity = self._next
        try:
            async with asyncio.timeout(self._settings.timeout):
                serial, error = await self._repeated(asked, asked.acknowledged)
        except TimeoutError:
            self._forget(identity)
            reason = self.monitor.refusal or "the hub did not answer"
            message = f"{op.name.lower()}: {reason} within {self._settings.timeout:g} s"
            raise TransportError(message) from None
        except asyncio.CancelledError:
            self._forget(identity)
            raise
        if error:
            message = f"the hub refused a subscription: {error.decode(errors='replace')}"
            raise TransportError(message)
        return asked, serial

    async def _repeated(self, asked: _Asked, answer: asyncio.Future[Answer]) -> Answer:
        while True:
            with contextlib.suppress(TimeoutError):  # not `wait_for`, which forgets a cancellation that comes with it
                async with asyncio.timeout(REPEAT):
                    return await asyncio.shield(answer)
            self._port.try_send([b"\x01" + asked.body])

    async def subscribe(self, filters: Iterable[str]) -> None:
        """Subscribe and ask for the last values; raises `TransportError` if the hub refuses one."""
        new = list(dict.fromkeys(filters))
        before = set(self.filters)
        for pattern in new:
            (self._exact if topics.is_exact(pattern) else self._wild).add(pattern)
        try:
            await self._ask(new)
        except BaseException:
            for pattern in set(new) - before:
                self._drop(pattern)
            raise

    async def _ask(self, filters: list[str]) -> None:
        """Subscribe; what does not fit in the answer is fetched without keeping the caller, who may be its taker."""
        exact = [pattern for pattern in filters if topics.is_exact(pattern)]
        for part in _parts(exact, self._burst):
            await self._command(wire.Op.SUBSCRIBE, part)
        for pattern in filters:
            if not topics.is_exact(pattern):
                asked, serial = await self._command(wire.Op.SUBSCRIBE, [pattern])
                task = asyncio.get_running_loop().create_task(self._fetch(pattern, asked, serial), name="zmq values")
                self._pages.add(task)
                task.add_done_callback(self._pages.discard)

    async def _fetch(self, pattern: str, asked: _Asked, serial: int) -> None:
        """Read the further last values for a wildcard, the next page when the one before has been delivered."""
        while pattern in self._wild:
            end = await self._repeated(asked, asked.ended)
            if not end:
                return
            cursor = (wire.read_number(end[:8]), wire.read_number(end[8:]))
            asked = self._send(wire.Op.PAGE, [pattern], cursor, serial)

    async def renew(self) -> None:
        """Subscribe everything again, last values included; raises `TransportError` if that failed."""
        self._stop_pages()
        for identity in list(self._asked):
            if self._asked[identity].acknowledged.done():
                self._forget(identity)
        await self._ask(self.filters)

    async def settled(self) -> None:
        """Return when all last values that were asked for have been delivered."""
        while self._asked or self._pages:
            await asyncio.gather(*(asked.gone.wait() for asked in self._asked.values()))
            await asyncio.gather(*self._pages, return_exceptions=True)

    async def unsubscribe(self, filters: Iterable[str]) -> None:
        """Receive it no longer."""
        gone = [pattern for pattern in dict.fromkeys(filters) if self._drop(pattern)]
        kept = {start for pattern in self.filters for start in wire.prefixes(pattern)}
        starts = [start for pattern in gone for start in wire.prefixes(pattern) if start not in kept]
        for part in _parts(list(dict.fromkeys(starts)), wire.MAX_FILTERS) if starts else []:
            await self._command(wire.Op.UNSUBSCRIBE, part)

    def _drop(self, pattern: str) -> bool:
        for held in (self._exact, self._wild):
            if pattern in held:
                held.discard(pattern)
                return True
        return False

    def _stop_pages(self) -> None:
        for task in self._pages:
            task.cancel()

    async def close(self) -> None:
        """Stop and close; what the hub has not sent yet is not waited for."""
        tasks = [self._task, *self._pages]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await self.monitor.close()
        self._port.close(0)


def _parts(filters: list[str], count: int) -> list[list[str]]:
    """Split filters into commands of a bounded size; at least one, which asks for nothing."""
    parts: list[list[str]] = [[]]
    size = 0
    for pattern in filters:
        cost = len(pattern.encode()) + 5
        size += cost
        if len(parts[-1]) == count or size > wire.MAX_COMMAND // 2:
            parts.append([])
            size = cost
        parts[-1].append(pattern)
    return parts
