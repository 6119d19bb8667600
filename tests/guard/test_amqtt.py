"""amqtt with its guard inside: the kit for guarded brokers, and what only amqtt can get wrong."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import pytest

from brokerkm.testing.guard import GuardConformance
from brokerkm.testing.guarded import GuardedSite
from brokerkm.transport import Delivery, Options, create
from brokerkm_amqtt import EmbeddedBroker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from brokerkm.guard.fleet import Fleet
    from brokerkm.guard.seam import BrokerGuard

MESSAGES = 100
PATIENCE = 30.0  # seconds


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

    async def test_what_was_acknowledged_is_kept_though_its_sender_has_gone(self) -> None:
        """A client that says goodbye as soon as it has said all loses nothing."""
        numbers = range(1, MESSAGES + 1)
        async with asyncio.timeout(PATIENCE), EmbeddedBroker(0) as broker:
            username, password = broker.login
            reader, writer = await asyncio.open_connection("127.0.0.1", int(broker.url.split(":")[2].partition("?")[0]))
            opening = _string("MQTT") + b"\x04\xc2\x00\x3c" + _string("hare") + _string(username) + _string(password)
            said = b"".join(map(_publish, numbers))
            writer.write(bytes((0x10, len(opening))) + opening + said + b"\xe0\x00")
            await reader.readexactly(4 + 4 * MESSAGES)  # CONNACK, and one PUBACK each
            writer.close()
            await writer.wait_closed()
            tortoise = create(broker.url, Options(client_id="tortoise", username=username, password=password))
            await tortoise.open()
            await tortoise.subscribe(["said/+"])
            missing = set(numbers)
            async for item in tortoise.incoming():
                if isinstance(item, Delivery):
                    missing.discard(int(item.payload))
                if not missing:
                    break
            await tortoise.close()


def _string(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode()


def _publish(number: int) -> bytes:
    """Return a PUBLISH of MQTT 3.1.1, retained, with quality of service 1."""
    rest = _string(f"said/{number}") + number.to_bytes(2, "big") + b"%d" % number
    return bytes((0x33, len(rest))) + rest
