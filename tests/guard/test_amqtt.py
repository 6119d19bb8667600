"""amqtt with its guard inside: the kit for guarded brokers, and what only amqtt can get wrong."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from brokerkm.testing.guard import GuardConformance
from brokerkm.testing.guarded import GuardedSite
from brokerkm_amqtt import EmbeddedBroker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from brokerkm.guard.fleet import Fleet
    from brokerkm.guard.seam import BrokerGuard


class AmqttSite(GuardedSite):
    """amqtt in this process, on the same port after each restart."""

    def __init__(self) -> None:
        self._broker = EmbeddedBroker(0)
        self._runs = False
        username, password = self._broker.login
        self.server_options = {"username": username, "password": password}

    async def start_broker(self) -> None:
        """Start it."""
        await self._broker.__aenter__()
        self._runs, self.url = True, self._broker.url

    async def stop_broker(self) -> None:
        """Stop it, if it runs."""
        if self._runs:
            self._runs = False
            await self._broker.__aexit__(None, None, None)

    def guard(self, fleet: Fleet) -> BrokerGuard:
        """Return the broker's own."""
        return self._broker.guard(fleet, {})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # amqtt leaves sockets unclosed
class TestAmqtt(GuardConformance):
    """The kit."""

    @pytest.fixture(autouse=True)
    def swept(self) -> Iterator[None]:
        """Find what amqtt has left here, and not in somebody else's test."""
        yield
        gc.collect()

    @pytest.fixture
    def site(self) -> AmqttSite:
        """Run amqtt here."""
        return AmqttSite()
