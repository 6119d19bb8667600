"""The broker inside `brokerkm serve`: amqtt on loopback, so that a first try needs nothing else.

It is for trying things out and for small sites: MQTT 3.1.1, retained messages in memory only. What it loses at a
restart the key server publishes again.
"""

# pyright: reportMissingTypeStubs=false, reportPrivateUsage=false

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, Self

from amqtt.broker import Broker
from amqtt.errors import BrokerError

from brokerkm.errors import TransportError
from brokerkm_amqtt.gatehouse import Gatehouse
from brokerkm_amqtt.mending import mend

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from brokerkm.guard.fleet import Fleet
    from brokerkm.guard.seam import BrokerGuard

HOST: Final = "127.0.0.1"


class EmbeddedBroker:
    """amqtt, from ``async with`` to its end.

    Args:
        port: of loopback; 0 for one that is free.
        guarded: let in members alone; otherwise, whoever is on this machine may connect and do everything.
    """

    def __init__(self, port: int, *, guarded: bool = True) -> None:
        self._port = port
        self._guarded: Final = guarded
        self._house: Final = Gatehouse()
        self._broker: Broker | None = None

    @property
    def url(self) -> str:
        """Where clients on this machine connect; amqtt says nothing to MQTT 5, so they need not try it."""
        return f"mqtt://{HOST}:{self._port}?version=3.1.1"

    @property
    def login(self) -> tuple[str, str]:
        """The key server's user name and password."""
        return self._house.login

    def guard(self, fleet: Fleet, options: Mapping[str, str]) -> BrokerGuard:
        """Return the guard of a guarded broker, not yet open."""
        return self._house.guard(fleet, options)

    async def __aenter__(self) -> Self:
        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # it reports every client that goes as an error
        plugins: dict[str, Any] = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
        if self._guarded:
            plugins = {"brokerkm_amqtt.GuardPlugin": {"house": self._house}}
        listener = {"type": "tcp", "bind": f"{HOST}:{self._port}"}
        broker = Broker({"listeners": {"default": listener}, "plugins": plugins})
        if not self._guarded:
            mend(broker)
        try:
            await broker.start()
        except BrokerError as error:
            message = (
                f"the embedded broker cannot listen on {HOST}:{self._port}; perhaps a broker runs there already: use "
                f"it with --broker mqtt://{HOST}:{self._port}, or take another port with --port"
            )
            raise TransportError(message) from error
        if self._port == 0:
            server: Any = broker._servers["default"].instance  # noqa: SLF001 - amqtt has no other way
            self._port = server.sockets[0].getsockname()[1]
        self._broker = broker
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._broker is not None:
            await self._broker.shutdown()
