"""The broker inside `brokerkm serve`: amqtt on loopback, so that a first try needs nothing else.

It is for trying things out and for small sites: MQTT 3.1.1, retained messages in memory only, whoever is on this
machine may connect. What it loses at a restart the key server publishes again.

amqtt 0.12 has three faults that a fleet would meet, mended here. It goes through its table of subscriptions while other
clients change it, which kills the connection that it was about to serve. It greets every new client with the retained
messages that others have subscribed. And it lets an exception escape when it turns away a client that has hung up.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any, Final, Self

from brokerkm.errors import TransportError, UsageError

if TYPE_CHECKING:
    from _collections_abc import dict_items
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Iterator
    from types import TracebackType

HOST: Final = "127.0.0.1"

_log = logging.getLogger(__name__)


class _Subscriptions(dict[str, list[tuple[Any, int]]]):
    """A table that may change while somebody goes through it."""

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(super().keys()))

    def items(self) -> dict_items[str, list[tuple[Any, int]]]:
        return dict(super().items()).items()


class EmbeddedBroker:
    """amqtt, from ``async with`` to its end.

    Args:
        port: of loopback; 0 for one that is free.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        try:
            self._amqtt: Final = importlib.import_module("amqtt.broker")
        except ImportError as error:
            message = "the embedded broker is amqtt: pip install 'brokerkm[server]', or name a broker with --broker"
            raise UsageError(message) from error
        self._broker: Any = None

    @property
    def url(self) -> str:
        """Where clients on this machine connect; amqtt says nothing to MQTT 5, so they need not try it."""
        return f"mqtt://{HOST}:{self._port}?version=3.1.1"

    async def __aenter__(self) -> Self:
        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # it reports every client that goes as an error
        anonymous = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
        listener = {"type": "tcp", "bind": f"{HOST}:{self._port}"}
        broker = self._amqtt.Broker({"listeners": {"default": listener}, "plugins": anonymous})
        table = broker._subscriptions = _Subscriptions()  # noqa: SLF001 - see the module
        send_retained = broker._publish_retained_messages_for_subscription  # noqa: SLF001

        async def send_subscribed(subscription: tuple[str, int], session: Any) -> None:  # noqa: ANN401 - amqtt's
            if any(other is session for other, _ in table.get(subscription[0], ())):
                await send_retained(subscription, session)

        broker._publish_retained_messages_for_subscription = send_subscribed  # noqa: SLF001
        connected = broker.stream_connected

        async def connected_or_gone(reader: StreamReader, writer: StreamWriter, **names: object) -> None:
            try:
                await connected(reader, writer, **names)
            except Exception as error:  # noqa: BLE001 - whatever amqtt trips over, the client shall not wait for it
                _log.debug("the embedded broker drops a client: %s", error)
                writer.close()

        broker.stream_connected = connected_or_gone
        try:
            await broker.start()
        except self._amqtt.BrokerError as error:
            message = (
                f"the embedded broker cannot listen on {HOST}:{self._port}; perhaps a broker runs there already: use "
                f"it with --broker mqtt://{HOST}:{self._port}, or take another port with --port"
            )
            raise TransportError(message) from error
        if self._port == 0:
            self._port = broker._servers["default"].instance.sockets[0].getsockname()[1]  # noqa: SLF001
        self._broker = broker
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._broker.shutdown()
