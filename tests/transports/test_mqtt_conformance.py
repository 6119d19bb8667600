"""The conformance kit against every MQTT broker that Debian or PyPI offers, through a cable that can be cut."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

import pytest_asyncio

from brokerkm.testing import Cable, ReconnectConformance, Site

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import pytest
    from brokers.mqtt import MqttBroker


class MqttConformance(ReconnectConformance):
    """The kit on the broker that the fixture `broker` names; `version` forbids other versions of MQTT."""

    broker: ClassVar[str]
    version: ClassVar[str] = ""

    @pytest_asyncio.fixture
    async def site(self, request: pytest.FixtureRequest) -> AsyncGenerator[Site]:
        """Lay a cable to the broker for the member."""
        broker: MqttBroker = request.getfixturevalue(self.broker)
        query = f"?version={self.version}" if self.version else ""

        async def restart() -> None:
            await asyncio.to_thread(broker.restart)

        async with Cable("127.0.0.1", broker.port) as cable:
            yield Site(
                server_url=f"{broker.url}{query}",
                member_url=f"mqtt://127.0.0.1:{cable.port}{query}",
                cut=cable.cut,
                mend=cable.mend,
                restart=restart,
            )


class TestMosquitto(MqttConformance):
    """Mosquitto, which speaks MQTT 5."""

    broker = "mosquitto"


class TestMosquittoWith311(MqttConformance):
    """Mosquitto, told to speak MQTT 3.1.1."""

    broker = "mosquitto"
    version = "3.1.1"


class TestRabbitMq(MqttConformance):
    """RabbitMQ, whose store of retained messages knows no wildcards."""

    broker = "rabbitmq"
    retains_for_wildcards = False


class TestNats(MqttConformance):
    """nats-server, which speaks MQTT 3.1.1 only."""

    broker = "nats"


class TestAmqtt(MqttConformance):
    """amqtt, which is asked for 3.1.1 because it falls silent when it is spoken to in MQTT 5."""

    broker = "amqtt"
    version = "3.1.1"
