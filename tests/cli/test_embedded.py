"""The embedded broker: amqtt with its faults mended."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest

from brokerkm.cli.embedded import EmbeddedBroker
from brokerkm.errors import TransportError, UsageError
from brokerkm.transport import Delivery, Options, Outgoing, create

if TYPE_CHECKING:
    from brokerkm.transport import Transport

CLIENTS, EACH = 20, 13
PATIENCE = 30.0  # seconds


async def opened(url: str, name: str) -> Transport:
    """Return a client that is connected."""
    transport = create(url, Options(client_id=name))
    await transport.open()
    return transport


async def test_clients_that_connect_together_get_their_retained_messages() -> None:
    """Many at once, each has what it subscribed once, and nothing that others did."""
    async with EmbeddedBroker(0) as broker, asyncio.timeout(PATIENCE):
        server = await opened(broker.url, "server")
        await server.publish_batch([Outgoing(f"n/{i}", b"%d" % i, retain=True) for i in range(CLIENTS * EACH)])

        async def client(number: int) -> list[tuple[str, bytes]]:
            transport = await opened(broker.url, f"client{number}")
            wanted = [f"n/{i}" for i in range(number * EACH, (number + 1) * EACH)]
            await transport.subscribe(wanted)
            found: list[tuple[str, bytes]] = []
            async for item in transport.incoming():
                if isinstance(item, Delivery):
                    found.append((item.topic, item.payload))
                if len(found) == EACH:
                    break
            await transport.close()
            return found

        found = await asyncio.gather(*map(client, range(CLIENTS)))
        await server.close()
    assert [(f"n/{i}", b"%d" % i) for i in range(CLIENTS * EACH)] == [
        item for one in found for item in sorted(one, key=_n)
    ]


def _n(item: tuple[str, bytes]) -> int:
    return int(item[1])


async def test_client_that_hangs_up_disturbs_nobody() -> None:
    """A connection that ends before it has begun leaves the broker serving."""
    troubles: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: troubles.append(context))
    async with EmbeddedBroker(0) as broker, asyncio.timeout(PATIENCE):
        port = int(broker.url.removesuffix("?version=3.1.1").rpartition(":")[2])
        for garbage in (b"", b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00"):  # CONNECT of MQTT 5
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(garbage)
            writer.transport.abort()
        client = await opened(broker.url, "client")
        await client.publish(Outgoing("a", b"b"))
        await client.close()
    assert [] == troubles


async def test_port_in_use_is_named() -> None:
    """A second broker on the same port says what to do."""
    async with EmbeddedBroker(0) as broker:
        port = int(broker.url.removesuffix("?version=3.1.1").rpartition(":")[2])
        with pytest.raises(TransportError, match=f"cannot listen on 127.0.0.1:{port}"):
            await EmbeddedBroker(port).__aenter__()


def test_missing_amqtt_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package, one is told which to install."""
    monkeypatch.setitem(sys.modules, "amqtt.broker", None)
    with pytest.raises(UsageError, match=r"pip install 'brokerkm\[broker\]'"):
        EmbeddedBroker(0)
