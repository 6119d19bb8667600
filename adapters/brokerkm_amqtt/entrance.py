"""How clients of amqtt get in, and out again.

amqtt touches a session before it knows whether the client may have it: whoever names another's client id drops that
session, or puts another user name on it. It publishes a client's last will without asking whether it may, and keeps
retained messages likewise. So here a client logs in first, and a session is its owner's alone.
"""

# pyright: reportMissingTypeStubs=false, reportPrivateUsage=false
# ruff: noqa: SLF001 - amqtt has no other way

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

from amqtt.errors import AMQTTError, MQTTError, NoDataError
from amqtt.mqtt.connack import IDENTIFIER_REJECTED, NOT_AUTHORIZED, ConnackPacket
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.utils import gen_client_id

from brokerkm_amqtt.gatehouse import Gatehouse, Guest

if TYPE_CHECKING:
    from amqtt.adapters import ReaderAdapter, WriterAdapter
    from amqtt.broker import Broker
    from amqtt.session import Session

_log = logging.getLogger(__name__)

PATIENCE: Final = 10.0  # seconds in which a client has to say who it is
_GUEST: Final = "brokerkm.guest"  # attribute of a session


def guest_of(session: Session | None) -> Guest | None:
    """Return who has a session, None for what the broker does by itself."""
    found = None if session is None else session.attributes.get(_GUEST)
    return found if isinstance(found, Guest) else None


class Entrance:
    """Stands before one broker, from `build` on."""

    def __init__(self, broker: Broker, house: Gatehouse) -> None:
        self._broker: Final = broker
        self._house: Final = house
        self._retain: Final = broker.retain_message
        self._send_retained: Final = broker._publish_retained_messages_for_subscription

    def build(self) -> None:
        """Take the place of what amqtt does; before it is started."""
        broker: Any = self._broker
        broker._initialize_client_session = self._initialize
        broker.retain_message = self._retain_if_allowed
        broker._publish_retained_messages_for_subscription = self._send_retained_if_allowed

    async def _initialize(
        self, reader: ReaderAdapter, writer: WriterAdapter, address: str, port: int
    ) -> tuple[BrokerProtocolHandler, Session]:
        """Return the connection and the session of a client that has logged in.

        Raises:
            AMQTTError: it has not, and is disconnected.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                manager = self._broker.plugins_manager
                handler, session = await BrokerProtocolHandler.init_from_connect(reader, writer, manager)
        except (TimeoutError, NoDataError, AMQTTError, MQTTError) as error:
            await _close(writer)
            message = f"{address}:{port} has not said who it is: {error}"
            raise AMQTTError(message) from error
        guest = Guest(lambda: self._disconnect(session, writer))
        if not await self._house.enter(guest, session.username or "", session.password or ""):
            await self._refuse(writer, NOT_AUTHORIZED, f"{address}:{port} is not let in")
        if session.will_flag and not guest.may_publish(session.will_topic or "", retain=bool(session.will_retain)):
            self._house.leave(guest)
            await self._refuse(writer, NOT_AUTHORIZED, f"{guest.owner} may not have its will published")
        if not session.client_id:
            session.client_id = gen_client_id()
        known, _ = self._broker._sessions.get(session.client_id, (None, None))
        before = guest_of(known)
        if known is not None and (before is None or before.owner != guest.owner):
            if known.transitions.state == "connected":
                self._house.leave(guest)
                await self._refuse(writer, IDENTIFIER_REJECTED, f"{guest.owner} names a client id that is another's")
            await self._drop(known)
        elif known is not None and (session.clean_session or known.transitions.state == "connected"):
            await self._drop(known)
        elif known is not None:
            session.attributes = known.attributes
            session.retained_messages = known.retained_messages
            session.parent = 1
            self._inherit(known, session)
        session.attributes[_GUEST] = guest
        return handler, session

    def _inherit(self, known: Session, session: Session) -> None:
        """Put a new session in the place of the one that was kept for the same principal."""
        table = self._broker._subscriptions
        for pattern, kept in table.items():
            table[pattern] = [(session if one is known else one, qos) for one, qos in kept]
        before = guest_of(known)
        if before is not None:
            self._house.leave(before)

    async def _drop(self, session: Session) -> None:
        """Forget a session, with its connection."""
        guest = guest_of(session)
        if guest is not None:
            self._house.leave(guest)
            guest.end()
        if session.client_id is not None:
            await self._broker._delete_session(session.client_id)

    async def _refuse(self, writer: WriterAdapter, code: int, reason: str) -> None:
        """Turn a client away; raises `AMQTTError`."""
        with contextlib.suppress(OSError):
            await ConnackPacket.build(0, code).to_stream(writer)
        await _close(writer)
        raise AMQTTError(reason)

    def _disconnect(self, session: Session, writer: WriterAdapter) -> None:
        """End a connection at once, with its session and without its last will."""
        session.will_flag = False
        client_id = session.client_id
        if client_id is not None and self._broker._sessions.get(client_id, (None, None))[0] is session:
            del self._broker._sessions[client_id]
        table = self._broker._subscriptions
        for pattern, kept in list(table.items()):
            if any(one is session for one, _ in kept):
                table[pattern] = [(one, qos) for one, qos in kept if one is not session]
        session.clear_queues()
        stream = getattr(writer, "_writer", None)
        if stream is not None:
            stream.transport.abort()  # does not wait until it has read what was written to it
        else:
            _ENDINGS.add(task := asyncio.ensure_future(_close(writer)))
            task.add_done_callback(_ENDINGS.discard)

    async def _retain_if_allowed(
        self,
        source_session: Session | None,
        topic_name: str | None,
        data: bytes | bytearray | None,
        qos: int | None = None,
    ) -> None:
        guest = guest_of(source_session)
        if guest is not None and not guest.may_publish(topic_name or "", retain=True):
            _log.info("%s may not have anything retained on %s", guest.owner, topic_name)
            return
        await self._retain(source_session, topic_name, data, qos)

    async def _send_retained_if_allowed(self, subscription: tuple[str, int], session: Session) -> None:
        guest = guest_of(session)
        if guest is not None and guest.may_subscribe(subscription[0]):
            await self._send_retained(subscription, session)


_ENDINGS: Final[set[asyncio.Future[None]]] = set()


async def _close(writer: WriterAdapter) -> None:
    with contextlib.suppress(OSError):
        await writer.close()
