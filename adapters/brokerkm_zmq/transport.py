"""`ZmqTransport`: the `Transport` of `brokerkm.transport` over ZeroMQ, without a broker.

The server is the hub: it binds, members connect. What members publish goes to the hub, which sends it to all who
subscribed; requests, and all that is below the key-management prefix, go no further than the
server. The hub acknowledges each message that it took over. URLs and keys: `settings`; loss and how it is
noticed: `hub`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from brokerkm import topics
from brokerkm.errors import TransportError, UsageError
from brokerkm.transport import Delivery, Role
from brokerkm_zmq import settings, wire
from brokerkm_zmq.inbox import Inbox
from brokerkm_zmq.member import Member
from brokerkm_zmq.server import Server
from brokerkm_zmq.submitter import Message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

    from brokerkm.transport import Incoming, Options, Outgoing
    from brokerkm_zmq.subscriber import Received


class ZmqTransport:
    """A hub or a connection to one, by role.

    Args:
        url: ``zmq+tcp://HOST:PORT`` or ``zmq+ipc:///PATH``, parameters as in `settings`.
        options: of any adapter; passwords, sessions and wills are refused.
        authorize: for a server: whether a member id (None if the hub has no list of keys) may subscribe a filter,
            asked after the adapter's own rules have allowed it.
    """

    def __init__(self, url: str, options: Options, authorize: Callable[[str | None, str], bool] | None = None) -> None:
        self._settings = settings.read(url, options)
        if authorize is not None and options.role is not Role.SERVER:
            message = "authorize is for the server, which is the hub"
            raise UsageError(message)
        self._authorize = authorize
        self._inbox: Inbox[Incoming] | None = None
        self._end: Server | Member | None = None
        self._closed = False

    @property
    def max_payload(self) -> int:
        """Bytes of the largest payload that `publish` takes."""
        return self._settings.max_payload if self._end is None else self._end.max_payload

    @property
    def public_key(self) -> str | None:
        """Own CURVE public key in Z85, which the other end pins or lists; None without CURVE."""
        return self._settings.pair.public if self._settings.pair is not None else None

    def set_members(self, members: Mapping[str, str]) -> None:
        """Replace the hub's list of keys: public key in Z85 to member id; see `hub` for those who are connected."""
        if not isinstance(self._end, Server):
            message = "only an open server has a list of members"
            raise UsageError(message)
        self._end.hub.set_members(members)

    @property
    def supports_shared(self) -> bool:
        """No: every subscriber gets everything."""
        return False

    async def open(self) -> None:
        """Bind or connect; raises `TransportError` if that fails."""
        if self._end is not None or self._closed:
            message = "a transport is opened once"
            raise UsageError(message)
        self._inbox = Inbox(self._settings.queue_size)
        if self._settings.role is Role.SERVER:
            end: Server | Member = Server(self._settings, self._inbox, self._authorize)
        else:
            end = Member(self._settings, self._deliver, self._inbox.force)
        await end.open()
        self._end = end

    async def close(self) -> None:
        """Send what was accepted for at most a second, close, end `incoming`."""
        if self._closed:
            return
        self._closed = True
        if self._inbox is not None:
            self._inbox.close()
        if self._end is not None:
            await self._end.close()

    async def _deliver(self, received: Received) -> None:
        if self._inbox is not None:
            delivery = Delivery(received.head.topic, received.payload, received.replayed)
            if received.bounded:
                self._inbox.force(delivery)
            elif not self._inbox.try_put(delivery):
                await self._inbox.put(delivery)

    def _open_end(self) -> Server | Member:
        if self._end is None or self._closed:
            message = "the transport is not open"
            raise TransportError(message)
        return self._end

    def _message(self, op: wire.Submit, topic: str, payload: bytes, audience: str | None = None) -> Message:
        wire.check_size(topics.check_topic(topic))
        if len(payload) > self.max_payload:
            message = f"{topic}: payload of {len(payload)} bytes, the hub takes {self.max_payload}"
            raise UsageError(message)
        if audience is not None and not wire.MEMBER_ID.fullmatch(audience):
            message = f"audience {audience!r} is no member id (letters, digits, . _ -, at most 64)"
            raise UsageError(message)
        return Message(op, topic, payload, audience)

    def _outgoing(self, message: Outgoing) -> Message:
        op = wire.Submit.RETAIN if message.retain else wire.Submit.PUBLISH
        return self._message(op, message.topic, message.payload, message.audience)

    async def publish(self, message: Outgoing) -> None:
        """Return when the hub has accepted it."""
        await self._open_end().submit(self._outgoing(message))

    async def publish_batch(self, messages: Sequence[Outgoing]) -> None:
        """Return when the hub has accepted all."""
        await self._open_end().submit_all([self._outgoing(message) for message in messages])

    async def request(self, topic: str, payload: bytes) -> None:
        """Send a request to the server."""
        await self._open_end().submit(self._message(wire.Submit.REQUEST, topic, payload))

    async def subscribe(self, filters: Collection[str]) -> None:
        """Receive what matches from now on, and the last values."""
        end = self._open_end()
        for pattern in filters:
            wire.check_size(topics.check_filter(pattern))
        await end.subscribe(filters)

    async def unsubscribe(self, filters: Collection[str]) -> None:
        """Receive it no longer."""
        await self._open_end().unsubscribe(filters)

    async def incoming(self) -> AsyncIterator[Incoming]:
        """Yield deliveries and connection events until `close`."""
        if self._inbox is None:
            message = "the transport is not open"
            raise TransportError(message)
        while (item := await self._inbox.get()) is not None:
            yield item
