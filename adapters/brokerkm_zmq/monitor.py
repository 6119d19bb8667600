"""Tells when a connecting socket's peer is there, gone, or refuses us."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Final

import zmq

from brokerkm_zmq.port import Port

if TYPE_CHECKING:
    from collections.abc import Callable

    from brokerkm_zmq.sockets import Socket

_EVENT: Final = struct.Struct("=HI")  # zmq_socket_monitor(3)
_REFUSALS: Final = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "the hub does not accept this key",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "the other end does not speak this protocol, or one end uses CURVE and the "
    "other does not",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "the handshake failed: is the hub's public key right, is ours listed?",
}


class Monitor:
    """Watches one socket with one peer.

    Args:
        socket: connects after this was made.
        on_change: called with True when the peer is there, False when it is gone.
    """

    def __init__(self, socket: Socket, on_change: Callable[[bool], None]) -> None:
        self.up = asyncio.Event()
        self.refusal: str | None = None
        self._socket = socket
        self._on_change = on_change
        wanted = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        for event in _REFUSALS:
            wanted |= event
        self._port = Port(socket.get_monitor_socket(wanted))
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="zmq monitor")

    async def _watch(self) -> None:
        while True:
            while (frames := self._port.try_read()) is not None:
                event, _value = _EVENT.unpack(frames[0])
                self._note(event)
            await self._port.readable()

    def _note(self, event: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.refusal = None
            self.up.set()
            self._on_change(True)  # noqa: FBT003 - the callback's one meaning
        elif event == zmq.EVENT_DISCONNECTED:
            if self.up.is_set():
                self.up.clear()
                self._on_change(False)  # noqa: FBT003 - as above
        else:
            self.refusal = _REFUSALS.get(zmq.Event(event))

    async def close(self) -> None:
        """Stop watching; the socket stays open."""
        self._task.cancel()
        await asyncio.wait([self._task])
        self._port.close(0)
        self._socket.disable_monitor()
