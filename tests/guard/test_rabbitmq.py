"""RabbitMQ, which asks the authorisation service: the kit for guarded brokers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from brokers.process import free_port, require
from brokers.rabbitmq import KEYSERVER, GuardedRabbit

from brokerkm.guard.authority import Authority
from brokerkm.guard.authorizer.app import make_app
from brokerkm.guard.authorizer.judge import Judge
from brokerkm.guard.authorizer.listener import Listener
from brokerkm.testing.guard import GuardConformance
from brokerkm.testing.guarded import GuardedSite
from brokerkm_rabbitmq import RabbitmqGuard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from brokerkm.guard.fleet import Fleet
    from brokerkm.guard.seam import BrokerGuard


class WithAuthorizer(RabbitmqGuard):
    """The guard with the authorisation service in the same process, at one port each time."""

    def __init__(self, fleet: Fleet, broker: GuardedRabbit, port: int) -> None:
        super().__init__(fleet, {"url": broker.management, **KEYSERVER, "server": KEYSERVER["username"]})
        self._listener = Listener(make_app(Judge(Authority(fleet))), "127.0.0.1", port)
        self._serves = False

    async def open(self) -> None:
        """Begin to answer."""
        if not self._serves:
            await self._listener.__aenter__()
            self._serves = True
        await super().open()

    async def close(self) -> None:
        """Answer no more."""
        await super().close()
        if self._serves:
            self._serves = False
            await self._listener.__aexit__(None, None, None)


class RabbitSite(GuardedSite):
    """RabbitMQ, on the same port after each restart."""

    def __init__(self, broker: GuardedRabbit, port: int) -> None:
        self._broker, self._port = broker, port
        self.url, self.server_options = broker.url, KEYSERVER

    async def start_broker(self) -> None:
        """Start it."""
        self._broker.start()

    async def stop_broker(self) -> None:
        """Stop it."""
        self._broker.stop()

    def guard(self, fleet: Fleet) -> BrokerGuard:
        """Return a new one."""
        return WithAuthorizer(fleet, self._broker, self._port)


@pytest.mark.timeout(240)
class TestRabbitmq(GuardConformance):
    """The kit."""

    hangs_up = True
    refuses_retained = False  # it does not say to the service whether a message is to be retained

    @pytest.fixture
    def site(self) -> Iterator[RabbitSite]:
        """Run RabbitMQ here."""
        require("rabbitmq-server", "rabbitmq-server")
        port = free_port()
        broker = GuardedRabbit(port)
        broker.open()
        yield RabbitSite(broker, port)
        broker.close()
