"""The broker that an adapter brings along, for who names none: `brokerkm serve` runs it in its own process.

An adapter is a class named by the one entry point of the group ``brokerkm.embedded``.
"""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Final, Protocol, Self, cast

from brokerkm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from brokerkm.guard.fleet import Fleet
    from brokerkm.guard.seam import BrokerGuard

ENTRY_POINTS: Final = "brokerkm.embedded"


class EmbeddedBroker(Protocol):
    """A broker in this process, from ``async with`` to its end; entering raises `TransportError`.

    Args:
        port: of loopback; 0 for one that is free.
        guarded: let in the key server and members alone; otherwise, whoever is on this machine may do everything.
    """

    def __init__(self, port: int, *, guarded: bool = True) -> None:
        """Remember where to listen."""

    @property
    def url(self) -> str:
        """Where clients on this machine connect."""
        ...

    @property
    def login(self) -> tuple[str, str]:
        """The key server's user name and password, if it is guarded."""
        ...

    def guard(self, fleet: Fleet, options: Mapping[str, str]) -> BrokerGuard:
        """Return the guard of a guarded broker, not yet open; devices log in with their identity keys."""
        ...

    async def __aenter__(self) -> Self:
        """Begin to serve."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect everybody."""


def embedded_broker(port: int, *, guarded: bool = True) -> EmbeddedBroker:
    """Return the broker that is installed, not yet entered; raises `UsageError` if there is none."""
    message = "the embedded broker is amqtt: pip install 'brokerkm[server]', or name a broker with --broker"
    found = list(importlib.metadata.entry_points(group=ENTRY_POINTS))
    if len(found) > 1:
        message = (
            f"{len(found)} packages bring an embedded broker: uninstall all but one, or name a broker with --broker"
        )
    if len(found) != 1:
        raise UsageError(message)
    try:
        adapter = cast("type[EmbeddedBroker]", found[0].load())
    except ImportError as error:
        raise UsageError(message) from error
    return adapter(port, guarded=guarded)
