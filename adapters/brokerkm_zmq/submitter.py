"""The member's way up: submissions to the hub's ROUTER, each answered, a window of them under way."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import TYPE_CHECKING, Final

import zmq

from brokerkm.errors import TransportError
from brokerkm_zmq import rules, sockets, wire
from brokerkm_zmq.monitor import Monitor
from brokerkm_zmq.port import Port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from brokerkm_zmq.settings import Settings

_log = logging.getLogger(__name__)
WINDOW: Final = 256  # submissions without answer


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """What a member has the hub take."""

    op: wire.Submit
    topic: str
    payload: bytes
    audience: str | None = None


class Submitter:
    """A DEALER connected to one hub.

    What the hub has not answered when a connection breaks goes out again on the next one, in order:
    it may arrive twice.

    Args:
        context: makes the socket; the caller ends it.
        settings: of the member's role.
        on_change: called with True when the hub is there, False when it is gone.
    """

    def __init__(self, context: sockets.Context, settings: Settings, on_change: Callable[[bool], None]) -> None:
        socket = sockets.make(context, zmq.DEALER, settings, largest=wire.ENVELOPE)
        socket.set(zmq.IMMEDIATE, 1)  # what a broken connection had not sent is dropped: it is sent again from here
        sockets.secure_member(socket, settings)
        self._settings = settings
        self._on_change = on_change
        self.monitor = Monitor(socket, self._changed)
        self._port = Port(socket)
        socket.connect(settings.up)
        self._next = 0
        self._pending: dict[bytes, tuple[asyncio.Future[bytes], list[bytes]]] = {}
        self._open_window = asyncio.Event()
        self._open_window.set()
        self._order = asyncio.Lock()  # what is submitted first goes out first, whoever waits
        self._warner = rules.Warner(_log)
        self._task = asyncio.get_running_loop().create_task(self._read(), name="zmq answers")

    def _changed(self, up: bool) -> None:  # noqa: FBT001 - the callback's one meaning
        if up:
            for future, frames in self._pending.values():
                if not future.done():
                    self._port.try_send(frames)  # there is room: a window is less than libzmq holds
        self._on_change(up)

    async def _read(self) -> None:
        while True:
            while (frames := self._port.try_read()) is not None:
                self._on_answer(frames)
            await self._port.readable()

    def _on_answer(self, frames: list[bytes]) -> None:
        if len(frames) != 3 or len(frames[1]) > wire.MAX_TEXT:  # noqa: PLR2004 - id, error, detail
            self._warner.warn("dropped a bad answer of the hub", len(frames))
            return
        future, _ = self._pending.get(frames[0], (None, None))
        if future is None or future.done():
            return  # its sender has given up, or it was answered twice
        if frames[1]:
            future.set_exception(TransportError(f"the hub refused it: {frames[1].decode(errors='replace')}"))
        else:
            future.set_result(frames[2])

    async def submit(self, message: Message) -> bytes:
        """Send and return the detail of the hub's answer.

        Raises:
            TransportError: the hub refused it, or did not answer in time.
        """
        try:
            async with asyncio.timeout(self._settings.timeout):
                async with self._order:
                    await self._room()
                    answer = self._start(message)
                return await answer
        except TimeoutError:
            raise self._late(message) from None

    async def submit_all(self, messages: Iterable[Message]) -> None:
        """Send all in order, a window at a time; raises `TransportError` if one was not accepted."""
        answers: list[asyncio.Future[bytes]] = []
        message: Message | None = None
        try:
            async with self._order:
                for message in messages:
                    if not self._is_clear():
                        async with asyncio.timeout(self._settings.timeout):
                            await self._room()
                    answers.append(self._start(message))
            async with asyncio.timeout(self._settings.timeout):
                outcomes = await asyncio.gather(*answers, return_exceptions=True)
        except TimeoutError:
            raise self._late(message) from None
        finally:
            for answer in answers:
                if answer.done() and not answer.cancelled():
                    answer.exception()  # looked at, or asyncio complains
                answer.cancel()
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    def _late(self, message: Message | None) -> TransportError:
        what = "nothing" if message is None else f"{message.op.name.lower()} {message.topic}".rstrip()
        reason = self.monitor.refusal or "the hub did not answer"
        return TransportError(f"{what}: {reason} within {self._settings.timeout:g} s")

    async def _room(self) -> None:
        while not self._is_clear():
            await self.monitor.up.wait()
            await self._open_window.wait()

    def _is_clear(self) -> bool:
        return self._open_window.is_set() and self.monitor.up.is_set()

    def _start(self, message: Message) -> asyncio.Future[bytes]:
        self._next += 1
        identity = wire.number(self._next)
        audience = (message.audience or "").encode()
        frames = [identity, message.op.value, message.topic.encode(), audience, message.payload]
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._pending[identity] = (future, frames)
        if len(self._pending) >= WINDOW:
            self._open_window.clear()
        future.add_done_callback(lambda _: self._finished(identity))
        self._port.try_send(frames)  # if the connection is just gone, the next one sends it
        return future

    def _finished(self, identity: bytes) -> None:
        del self._pending[identity]
        if len(self._pending) < WINDOW:
            self._open_window.set()

    async def close(self, linger: float) -> None:
        """Send what was accepted for at most `linger` seconds and close."""
        self._task.cancel()
        await asyncio.wait([self._task])
        await self.monitor.close()
        for future, _ in list(self._pending.values()):
            if not future.done():
                future.set_exception(TransportError("the transport was closed before the hub answered"))
        self._port.close(linger)
