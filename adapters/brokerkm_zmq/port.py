"""A ZeroMQ socket on an asyncio event loop.

libzmq signals through one file descriptor, edge-triggered: any call on the socket may swallow
the signal, so `Port` looks at the socket's own state after each of its calls, once per turn of the loop. Unlike
`zmq.asyncio.Socket` it makes no future per message: a reader takes all that is there at one
wake-up, which is what makes 50,000 messages a second possible.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import zmq

from brokerkm_zmq import wire

if TYPE_CHECKING:
    from collections.abc import Sequence


class Port:
    """One socket, for one reader and any number of senders.

    Args:
        socket: a plain socket, which this port owns from now on.
    """

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self.socket = socket
        self._loop = asyncio.get_running_loop()
        self._readable = asyncio.Event()
        self._stirred = asyncio.Event()
        self._due = False
        self._descriptor = cast("int", socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._descriptor, self._on_signal)
        self._check_soon()

    def _on_signal(self) -> None:
        self._stirred.set()
        self._look()

    def _check_soon(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._due = False
        if self.socket.closed:
            return
        state = cast("int", self.socket.getsockopt(zmq.EVENTS))
        if state & zmq.POLLIN:
            self._readable.set()

    async def readable(self) -> None:
        """Return when a message may be there; reading may still find none."""
        self._readable.clear()
        self._check_soon()
        await self._readable.wait()

    async def stirred(self, seconds: float) -> None:
        """Return when libzmq has told the socket anything at all, or when the time is over.

        For XPUB, which has no state "writable": a peer that has read shows only so.
        """
        self._stirred.clear()
        self._check_soon()
        try:
            async with asyncio.timeout(seconds):
                await self._stirred.wait()
        except TimeoutError:
            return

    def try_receive(self) -> list[zmq.Frame] | None:
        """Return the next message with its metadata, or None; the frames beyond the limit are thrown away."""
        try:
            frames = [self.socket.recv(zmq.DONTWAIT, copy=False)]
        except zmq.Again:
            return None
        more = frames[0].more
        while more:
            frame = self.socket.recv(zmq.DONTWAIT, copy=False)
            more = frame.more
            if len(frames) <= wire.MAX_FRAMES:
                frames.append(frame)
        return frames

    def try_read(self) -> list[bytes] | None:
        """Return the next message as bytes, or None; the frames beyond the limit are thrown away."""
        receive = self.socket.recv
        try:
            frames = [receive(zmq.DONTWAIT)]
        except zmq.Again:
            return None
        while self.socket.getsockopt(zmq.RCVMORE):
            frame = receive(zmq.DONTWAIT)
            if len(frames) <= wire.MAX_FRAMES:
                frames.append(frame)
        return frames

    def try_send(self, frames: Sequence[bytes]) -> bool:
        """Send a message if the socket takes it at once."""
        send = self.socket.send
        self._check_soon()
        try:
            for frame in frames[:-1]:
                send(frame, zmq.DONTWAIT | zmq.SNDMORE)
            send(frames[-1], zmq.DONTWAIT)
        except zmq.Again:
            return False
        return True

    def close(self, linger: float) -> None:
        """Close; libzmq goes on sending for at most `linger` seconds."""
        if not self.socket.closed:
            self._loop.remove_reader(self._descriptor)
            self.socket.close(linger=round(linger * 1000))
