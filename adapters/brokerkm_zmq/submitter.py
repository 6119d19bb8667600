"""The member's way up: submissions to the hub's ROUTER, each answered, a window of them under way."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import zmq

from brokerkm.errors import TransportError
from brokerkm_zmq import rules, sockets, wire
from brokerkm_zmq.monitor import Monitor
from brokerkm_zmq.port import Port

if TYPE_CHECKING:
    from collections.abc import Callable

    from brokerkm_zmq.settings import Settings

_log = logging.getLogger(__name__)
WINDOW: Final = 256  # submissions without answer


class Submitter:
    """A DEALER connected to one hub.

    Args:
        context: makes the socket; the caller ends it.
        settings: of the member's role.
        on_change: called with True when the hub is there, False when it is gone.
    """

    def __init__(self, context: sockets.Context, settings: Settings, on_change: Callable[[bool], None]) -> None:
        socket = sockets.make(context, zmq.DEALER, settings, largest=wire.ENVELOPE)
        sockets.secure_member(socket, settings)
        self._settings = settings
        self._on_change = on_change
        self.monitor = Monitor(socket, self._changed)
        self._port = Port(socket)
        socket.connect(settings.up)
        self._next = 0
        self._pending: dict[bytes, asyncio.Future[bytes]] = {}
        self._window = asyncio.Semaphore(WINDOW)
        self._warner = rules.Warner(_log)
        self._task = asyncio.get_running_loop().create_task(self._read(), name="zmq answers")

    def _changed(self, up: bool) -> None:  # noqa: FBT001 - the callback's one meaning
        if not up:
            self._fail("the connection to the hub was lost; whether it took the message is not known")
        self._on_change(up)

    def _fail(self, message: str) -> None:
        for future in self._pending.values():
            if not future.done():
                future.set_exception(TransportError(message))

    async def _read(self) -> None:
        while True:
            while (frames := self._port.try_read()) is not None:
                self._on_answer(frames)
            await self._port.readable()

    def _on_answer(self, frames: list[bytes]) -> None:
        if len(frames) != 3 or len(frames[1]) > wire.MAX_TEXT:  # noqa: PLR2004 - id, error, detail
            self._warner.warn("dropped a bad answer of the hub", len(frames))
            return
        future = self._pending.get(frames[0])
        if future is None or future.done():
            return  # its sender has given up
        if frames[1]:
            future.set_exception(TransportError(f"the hub refused it: {frames[1].decode(errors='replace')}"))
        else:
            future.set_result(frames[2])

    async def submit(self, op: wire.Submit, topic: str, payload: bytes, audience: str | None = None) -> bytes:
        """Send and return the detail of the hub's answer.

        Raises:
            TransportError: the hub refused it, or did not answer in time.
        """
        try:
            async with asyncio.timeout(self._settings.timeout):
                return await (await self.start(op, topic, payload, audience))
        except TimeoutError:
            reason = self.monitor.refusal or "the hub did not answer"
            message = f"{op.name.lower()} {topic}: {reason} within {self._settings.timeout:g} s"
            raise TransportError(message) from None

    async def start(
        self, op: wire.Submit, topic: str, payload: bytes, audience: str | None = None
    ) -> asyncio.Future[bytes]:
        """Send, after waiting for the hub and for room in the window; returns what its answer will be."""
        await self._window.acquire()
        try:
            await self.monitor.up.wait()
            self._next += 1
            identity = wire.number(self._next)
            frames = [identity, op.value, topic.encode(), (audience or "").encode(), payload]
            future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            self._pending[identity] = future
        except BaseException:
            self._window.release()
            raise
        future.add_done_callback(lambda _: self._finished(identity))
        try:
            await self._port.send(frames)
        except BaseException:
            future.cancel()
            raise
        return future

    def _finished(self, identity: bytes) -> None:
        self._pending.pop(identity, None)
        self._window.release()

    async def close(self, linger: float) -> None:
        """Send what was accepted for at most `linger` seconds and close."""
        self._task.cancel()
        await asyncio.wait([self._task])
        await self.monitor.close()
        self._fail("the transport was closed")
        self._port.close(linger)
