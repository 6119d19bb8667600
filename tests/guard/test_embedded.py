"""The embedded broker: amqtt with its faults mended."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from brokerkm.embedded import embedded_broker
from brokerkm.errors import UsageError
from brokerkm.transport import Delivery, Options, Outgoing, create

if TYPE_CHECKING:
    from collections.abc import Iterator

    from brokerkm.transport import Transport

CLIENTS, EACH = 20, 13
PATIENCE = 30.0  # seconds


@pytest.fixture
def broker() -> Iterator[subprocess.Popen[str]]:
    """Run the broker as the demonstration does, in a process of its own: amqtt leaves connections unclosed."""
    with subprocess.Popen(
        [sys.executable, "-m", "brokerkm.demo.broker"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.terminate()


@pytest.fixture
def url(broker: subprocess.Popen[str]) -> str:
    """Return where it serves."""
    assert broker.stdout is not None
    found: str = json.loads(broker.stdout.readline())["url"]
    return found


async def opened(url: str, name: str) -> Transport:
    """Return a client that is connected."""
    transport = create(url, Options(client_id=name))
    await transport.open()
    return transport


async def test_clients_that_connect_together_get_their_retained_messages(url: str) -> None:
    """Many at once, each has what it subscribed once, and nothing that others did."""
    async with asyncio.timeout(PATIENCE):
        server = await opened(url, "server")
        await server.publish_batch([Outgoing(f"n/{i}", b"%d" % i, retain=True) for i in range(CLIENTS * EACH)])

        async def client(number: int) -> list[tuple[str, bytes]]:
            transport = await opened(url, f"client{number}")
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


async def test_client_that_hangs_up_disturbs_nobody(broker: subprocess.Popen[str], url: str) -> None:
    """A connection that ends before it has begun leaves the broker serving, and nothing on its standard error."""
    async with asyncio.timeout(PATIENCE):
        port = int(url.removesuffix("?version=3.1.1").rpartition(":")[2])
        for garbage in (b"", b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00"):  # CONNECT of MQTT 5
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(garbage)
            writer.transport.abort()
        client = await opened(url, "client")
        await client.publish(Outgoing("a", b"b"))
        await client.close()
    broker.terminate()
    assert ("", "") == broker.communicate(timeout=PATIENCE)


def test_missing_amqtt_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package, one is told which to install."""
    monkeypatch.setitem(sys.modules, "brokerkm_amqtt", None)  # what its import comes to without amqtt
    with pytest.raises(UsageError, match=r"pip install 'brokerkm\[server\]'"):
        embedded_broker(0)


def test_demonstration_without_amqtt_says_why() -> None:
    """The broker's process tells the demonstration what is missing."""
    script = (
        "import runpy, sys; sys.modules['amqtt.broker'] = None\n"
        "runpy.run_module('brokerkm.demo.broker', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=PATIENCE)
    said = json.loads(done.stdout)
    assert ("failed", True) == (said["event"], "pip install" in said["error"])
