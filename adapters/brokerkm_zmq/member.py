"""The member's end: a subscriber and a submitter connected to one hub, kept so."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from brokerkm.errors import TransportError
from brokerkm.transport import Connected, Disconnected
from brokerkm_zmq import sockets, wire
from brokerkm_zmq.submitter import Message, Submitter
from brokerkm_zmq.subscriber import Subscriber

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from brokerkm_zmq.settings import Settings
    from brokerkm_zmq.subscriber import Received

_log = logging.getLogger(__name__)
MAX_LARGEST: Final = 64 * 1024 * 1024  # bytes; what a hub may say that its largest payload is


class Member:
    """Both connections of a member.

    When one of them breaks, or the subscriber has missed something, everything is subscribed again,
    last values included; `Disconnected` and `Connected` are noted around that.

    Args:
        settings: of the member's role.
        deliver: takes each data message; while it waits, the network waits.
        note: takes connection events.
    """

    def __init__(
        self,
        settings: Settings,
        deliver: Callable[[Received], Awaitable[None]],
        note: Callable[[Connected | Disconnected], None],
    ) -> None:
        self._settings = settings
        self._deliver = deliver
        self._note = note
        self._broken = asyncio.Event()
        self._reason = ""
        self._keeper: asyncio.Task[None] | None = None
        self._subscriber: Subscriber | None = None
        self.max_payload = settings.max_payload

    async def open(self) -> None:
        """Connect; raises `TransportError` if the hub is not there or refuses."""
        self._context = sockets.context()
        self._submitter = Submitter(self._context, self._settings, self._changed)
        try:
            answer = await self._submitter.submit(Message(wire.Submit.HELLO, "", b""))
            self.max_payload = min(wire.read_number(answer[:8]), MAX_LARGEST)
            self._subscriber = Subscriber(
                self._context,
                self._settings,
                self._deliver,
                self._on_break,
                largest=max(self.max_payload, self._settings.max_payload),
                burst=wire.read_number(answer[8:]),
            )
            await self._subscriber.subscribe([])
        except wire.MalformedError as error:
            await self.close()
            message = f"{self._settings.up}: not a hub of this version"
            raise TransportError(message) from error
        except BaseException:
            await self.close()
            raise
        self._broken.clear()
        self._note(Connected())
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="zmq keeper")

    async def close(self) -> None:
        """Send what was accepted for at most a second and close."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if self._subscriber is not None:
            await self._subscriber.close()
        await self._submitter.close(sockets.LINGER)
        await sockets.end(self._context)

    def _changed(self, up: bool) -> None:  # noqa: FBT001 - the callback's one meaning
        if not up:
            self._on_break("the connection to the hub was lost")

    def _on_break(self, reason: str) -> None:
        self._reason = reason
        self._broken.set()

    async def _keep(self) -> None:
        subscriber = self.subscriber
        while True:
            await self._broken.wait()
            self._note(Disconnected(self._reason))
            while self._broken.is_set():
                await subscriber.monitor.up.wait()
                await self._submitter.monitor.up.wait()
                self._broken.clear()
                try:
                    await subscriber.renew()
                except TransportError as error:
                    _log.warning("could not subscribe again: %s", error)
                    self._broken.set()
            self._note(Connected())

    @property
    def subscriber(self) -> Subscriber:
        """The way down of an open member."""
        if self._subscriber is None:
            message = "the transport is not open"
            raise TransportError(message)
        return self._subscriber

    async def submit(self, message: Message) -> None:
        """Have the hub take one message; raises `TransportError` if it does not."""
        await self._submitter.submit(message)

    async def submit_all(self, messages: Sequence[Message]) -> None:
        """Have the hub take all; raises `TransportError` if it does not take one of them."""
        await self._submitter.submit_all(messages)

    async def subscribe(self, filters: Collection[str]) -> None:
        """Subscribe; raises `TransportError` if the hub refuses."""
        await self.subscriber.subscribe(filters)

    async def unsubscribe(self, filters: Collection[str]) -> None:
        """Receive it no longer."""
        await self.subscriber.unsubscribe(filters)
