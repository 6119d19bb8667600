"""A client's connection is ended by another client, and with it all that the broker has not read of it."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

import pytest

from brokerkm.clock import boot_time
from brokerkm.errors import TransportError
from brokerkm.testing import Cable, Listener
from brokerkm.transport import Connected, Delivery, Disconnected, Displacing, Options, Outgoing, Role, Transport, create

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from brokers.mqtt import MqttBroker

BRIEF = 0.3  # seconds
OPTIONS = Options(role=Role.SERVER)


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> MqttBroker:
    """Give the broker of that name."""
    found: MqttBroker = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def cable(broker: MqttBroker) -> AsyncGenerator[Cable]:
    """Lay the first client's line to the broker."""
    async with Cable("127.0.0.1", broker.port) as cable:
        yield cable


async def opened(url: str, client_id: str = "") -> Transport:
    """Return a connected transport."""
    transport = create(url, Options(role=Role.SERVER, client_id=client_id))
    await transport.open()
    return transport


@pytest.mark.parametrize(
    ("broker", "version"),
    [("mosquitto", "5"), ("mosquitto", "3.1.1"), ("rabbitmq", "3.1.1"), ("nats", "3.1.1")],
    indirect=["broker"],
)
async def test_what_was_under_way_never_arrives(broker: MqttBroker, cable: Cable, version: str) -> None:
    """A message that left before its time ran out, and was held up, does not replace what another has sent since."""
    topic, query = f"displaced/{secrets.token_hex(4)}", f"?version={version}"
    name = f"first-{secrets.token_hex(4)}"
    first = await opened(f"mqtt://127.0.0.1:{cable.port}{query}", name)
    second, third = await opened(broker.url + query), await opened(broker.url + query)
    listener = Listener(first)
    await listener.event(Connected)
    cable.freeze()
    old = asyncio.create_task(first.publish(Outgoing(topic, b"old", retain=True, until=boot_time() + BRIEF)))
    await asyncio.wait([old], timeout=1.5 * BRIEF)
    assert not old.done()
    assert isinstance(second, Displacing)
    assert await second.displace(name)
    await second.publish(Outgoing(topic, b"new", retain=True))
    cable.thaw()
    await listener.event(Disconnected)
    await listener.event(Connected)
    with pytest.raises(TransportError, match="time in which it might be sent is over"):
        await old
    await first.publish(Outgoing(f"{topic}/other", b"", retain=True))  # it is in order again
    await third.subscribe([topic])
    assert Delivery(topic, b"new", retained=True) == await Listener(third).delivery()
    for one in (first, second, third):
        await one.close()


async def test_what_is_too_late_is_not_sent(mosquitto: MqttBroker) -> None:
    """A message whose time is over before it is sent is refused, those beside it are not."""
    transport = await opened(mosquitto.url)
    messages = [Outgoing("late/1", b"a", until=boot_time() - 1), Outgoing("late/2", b"b")]
    await transport.subscribe(["late/#"])
    with pytest.raises(TransportError, match="late/1"):
        await transport.publish_batch(messages)
    assert Delivery("late/2", b"b") == await Listener(transport).delivery()
    await transport.close()


async def test_who_may_not_speak_for_another(guarded_mosquitto: MqttBroker) -> None:
    """A broker that refuses the login displaces nobody; one that is not there gives no answer."""
    url = guarded_mosquitto.url.replace("mqtt://", "mqtt://alice:alice@")
    transport = await opened(url)
    assert isinstance(transport, Displacing)
    transport.renew_password("wrong")  # type: ignore[attr-defined]
    assert not await transport.displace("somebody")
    await transport.close()
