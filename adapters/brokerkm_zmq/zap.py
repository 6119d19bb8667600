"""Decides which CURVE keys may connect: the handler of ZeroMQ's ZAP (RFC 27) for one context."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import zmq
from zmq.utils import z85

from brokerkm_zmq import rules
from brokerkm_zmq.port import Port

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)
_ENDPOINT: Final = "inproc://zeromq.zap.01"
_KEY_SIZE: Final = 32  # bytes; RFC 26
_FIELDS: Final = 7  # version, request id, domain, address, identity, mechanism, key


class Gatekeeper:
    """Answers libzmq's question for every new connection; the member id becomes its User-Id.

    Args:
        context: whose connections are judged; the handler must be there before they come.
        member_of: returns the member id of a public key in Z85, or None for a stranger.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], member_of: Callable[[str], str | None]) -> None:
        socket = context.socket(zmq.ROUTER)  # not REP: it could be thrown out of step
        socket.bind(_ENDPOINT)
        self._port = Port(socket)
        self._member_of = member_of
        self._warner = rules.Warner(_log)
        self._task = asyncio.get_running_loop().create_task(self._serve(), name="zap")

    async def _serve(self) -> None:
        while True:
            while (frames := self._port.try_read()) is not None:
                self._answer(frames)
            await self._port.readable()

    def _answer(self, frames: list[bytes]) -> None:
        envelope, request = frames[:2], frames[2:]
        if len(request) < 2:  # noqa: PLR2004 - no request id, nothing to answer
            return
        member = self._judge(request)
        verdict = [b"200", b"OK", member.encode()] if member else [b"400", b"unknown key", b""]
        self._port.try_send([*envelope, b"1.0", request[1], *verdict, b""])

    def _judge(self, request: list[bytes]) -> str | None:
        if len(request) != _FIELDS or request[0] != b"1.0" or request[5] != b"CURVE" or len(request[6]) != _KEY_SIZE:
            return None
        key = z85.encode(request[6]).decode("ascii")
        member = self._member_of(key)
        if member is None:
            self._warner.warn("refused an unknown key", key)
        return member

    async def close(self) -> None:
        """Stop; later connections of this context are not judged, so close their sockets before."""
        self._task.cancel()
        await asyncio.wait([self._task])
        self._port.close(0)
