"""Faults of amqtt 0.12 that a fleet would meet, mended in one broker before it starts.

It goes through its table of subscriptions while other clients change it, which kills the connection that it was about
to serve. It greets every new client with the retained messages that others have subscribed. And it lets an exception
escape when it turns away a client that has hung up. And it forgets what it has acknowledged when the sender goes before
it has come to deliver that. And it waits for ever for a reader that has not heard that it is to stop:
`asyncio.wait_for` of Python 3.11 loses a cancellation that comes together with what it waits for.
"""

# pyright: reportMissingTypeStubs=false, reportPrivateUsage=false

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from _collections_abc import dict_items
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Iterator

    from amqtt.broker import Broker
    from amqtt.mqtt.disconnect import DisconnectPacket
    from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
    from amqtt.session import ApplicationMessage, Session

_log = logging.getLogger(__name__)

_AGAIN: Final = 0.2  # seconds after which a reader is told once more that it is to stop


class _Subscriptions(dict[str, list[tuple[Any, int]]]):
    """A table that may change while somebody goes through it."""

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(super().keys()))

    def items(self) -> dict_items[str, list[tuple[Any, int]]]:
        return {name: list(kept) for name, kept in super().items()}.items()


def mend(broker: Broker) -> None:
    """Mend a broker that has not been started."""
    table = broker._subscriptions = _Subscriptions()  # noqa: SLF001 - see the module
    send_retained = broker._publish_retained_messages_for_subscription  # noqa: SLF001

    async def send_subscribed(subscription: tuple[str, int], session: Session) -> None:
        if any(other is session for other, _ in table.get(subscription[0], ())):
            await send_retained(subscription, session)

    connected = broker.stream_connected

    async def connected_or_gone(reader: StreamReader, writer: StreamWriter, listener_name: str) -> None:
        try:
            await connected(reader, writer, listener_name)
        except Exception as error:  # noqa: BLE001 - whatever amqtt trips over, the client shall not wait for it
            _log.debug("the broker drops a client: %s", error)
            writer.close()

    serve = broker._client_message_loop  # noqa: SLF001

    async def serve_to_the_last(client_session: Session, handler: BrokerProtocolHandler) -> None:
        _finish_first(client_session, handler)
        await serve(client_session, handler)

    stop = broker._stop_handler  # noqa: SLF001

    async def stop_in_the_end(handler: BrokerProtocolHandler) -> None:
        stopping = asyncio.ensure_future(stop(handler))
        while not (await asyncio.wait([stopping], timeout=_AGAIN))[0]:
            if handler._reader_task is not None:  # noqa: SLF001
                handler._reader_task.cancel()  # noqa: SLF001
        stopping.result()

    broker._client_message_loop = serve_to_the_last  # type: ignore[method-assign]  # noqa: SLF001
    broker._stop_handler = stop_in_the_end  # type: ignore[method-assign]  # noqa: SLF001
    broker._publish_retained_messages_for_subscription = send_subscribed  # type: ignore[method-assign]  # noqa: SLF001
    broker.stream_connected = connected_or_gone  # type: ignore[method-assign]


def _finish_first(session: Session, handler: BrokerProtocolHandler) -> None:
    """Have the loop that serves a client hear that it has gone only when all that it sent has been passed on."""
    idle = asyncio.Event()  # the loop is done with the message that it took
    take, gone = handler.mqtt_deliver_next_message, handler.wait_disconnect

    async def take_next() -> ApplicationMessage | None:
        idle.set()
        try:
            return await take()
        finally:
            idle.clear()

    async def gone_in_the_end() -> DisconnectPacket | None:
        packet = await gone()
        await idle.wait()
        while not session.delivered_message_queue.empty():
            await asyncio.sleep(0)
            await idle.wait()
        return packet

    handler.mqtt_deliver_next_message = take_next  # type: ignore[method-assign]
    handler.wait_disconnect = gone_in_the_end  # type: ignore[method-assign]
