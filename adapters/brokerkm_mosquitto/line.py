"""Questions to a plugin of Mosquitto's, and its answers: both under ``$CONTROL/…``, over a connection of their own.

The connection is a transport of the broker's URL (`brokerkm.transport`), so what it speaks and how it reconnects is
decided there.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from brokerkm import transport
from brokerkm.errors import TransportError, UsageError
from brokerkm.transport import Connected, Delivery, Disconnected, Options, Outgoing, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from brokerkm.transport import Transport

TIMEOUT: Final = 10.0  # seconds for one answer, unless the options say otherwise


class ControlLine:
    """A connection to the plugin that listens on one control topic.

    Args:
        topic: of the questions; the answers come to this one with ``/response`` behind it.
        options: those of `brokerkm.guard.seam.BrokerGuard`.
        key_of: returns which question an answer is for, None if for none.

    Attributes:
        connections: how many times it has been connected; whoever remembers what the broker knows looks at it.

    Raises:
        UsageError: the options name no broker, or one that cannot be reached like that.
    """

    def __init__(self, topic: str, options: Mapping[str, str], key_of: Callable[[bytes], Hashable | None]) -> None:
        self._topic: Final = topic
        self._key_of: Final = key_of
        self._url: Final = options.get("url", "")
        if not self._url:
            message = "Mosquitto's guard needs the broker's URL: set [broker] url, or [guard] url"
            raise UsageError(message)
        try:
            self._timeout: Final = float(options.get("timeout", TIMEOUT))
        except ValueError as error:
            message = f"timeout: {error}"
            raise UsageError(message) from error
        self._options: Final = Options(
            role=Role.SERVER,
            username=options.get("username"),
            password=options.get("password"),
            ca_file=options.get("ca_file"),
            cert_file=options.get("cert_file"),
            key_file=options.get("key_file"),
            timeout=self._timeout,
            max_payload=16 << 20,  # bytes; dynamic security lists all clients in one answer
        )
        transport.create(self._url, self._options)  # says now what is wrong with them
        self._transport: Transport | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: Final[dict[Hashable, asyncio.Future[bytes]]] = {}
        self.connections = 0

    async def open(self) -> None:
        """Connect; raises `TransportError`, after which it can be tried again."""
        await self.close()
        opening = transport.create(self._url, self._options)
        try:
            await opening.open()
            await opening.subscribe([f"{self._topic}/response"])
        except BaseException:
            await opening.close()
            raise
        self._transport = opening
        self._reader = asyncio.get_running_loop().create_task(self._read(opening), name=f"answers to {self._topic}")
        self.connections += 1

    async def close(self) -> None:
        """Disconnect; may be called twice."""
        closing, self._transport = self._transport, None
        if closing is not None:
            await closing.close()
        if self._reader is not None:
            await self._reader
            self._reader = None

    async def ask(self, key: Hashable, question: bytes) -> bytes:
        """Return the answer; raises `TransportError` if none comes."""
        if self._transport is None:
            message = "the connection to Mosquitto's plugin is not open"
            raise TransportError(message)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[key] = answer
        try:
            async with asyncio.timeout(self._timeout):
                await self._transport.publish(Outgoing(self._topic, question))
                return await answer
        except TimeoutError:
            message = (
                f"Mosquitto did not answer on {self._topic} within {self._timeout:g} s; see that its plugin is loaded "
                "and lets this user administer it (deploy/mosquitto)"
            )
            raise TransportError(message) from None
        finally:
            self._waiting.pop(key, None)

    async def _read(self, reading: Transport) -> None:
        first = True
        async for item in reading.incoming():
            match item:
                case Delivery(topic, payload) if topic == f"{self._topic}/response":
                    self._answered(payload)
                case Connected() if not first:
                    self.connections += 1
                case Connected():
                    first = False
                case Disconnected(reason):
                    self._lost(reason)
                case _:
                    pass
        self._lost("this side closed it")

    def _answered(self, payload: bytes) -> None:
        waiting = self._waiting.get(self._key_of(payload))
        if waiting is not None and not waiting.done():
            waiting.set_result(payload)

    def _lost(self, reason: str) -> None:
        for waiting in self._waiting.values():
            with contextlib.suppress(asyncio.InvalidStateError):
                waiting.set_exception(TransportError(f"the connection to Mosquitto was lost: {reason}"))
