"""Faults of amqtt 0.12 that a fleet would meet, mended in one broker before it starts.

It goes through its table of subscriptions while other clients change it, which kills the connection that it was about
to serve. It greets every new client with the retained messages that others have subscribed. And it lets an exception
escape when it turns away a client that has hung up.
"""

# pyright: reportMissingTypeStubs=false, reportPrivateUsage=false

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _collections_abc import dict_items
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Iterator

    from amqtt.broker import Broker
    from amqtt.session import Session

_log = logging.getLogger(__name__)


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

    broker._publish_retained_messages_for_subscription = send_subscribed  # type: ignore[method-assign]  # noqa: SLF001
    broker.stream_connected = connected_or_gone  # type: ignore[method-assign]
