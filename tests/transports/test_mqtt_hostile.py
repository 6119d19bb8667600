"""A broker that breaks the rules. No real one can be made to, so its bytes are written out here."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from typing import TYPE_CHECKING, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brokerkm.errors import TransportError
from brokerkm.testing import Listener
from brokerkm.transport import Connected, Delivery, Disconnected, Options, Outgoing, create
from brokerkm_mqtt import MqttTransport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from types import TracebackType

    from brokerkm.transport import Transport

CONNACK = b"\x20\x03\x00\x00\x00"
CONNECT, PUBLISH, PUBACK, SUBSCRIBE, PINGREQ = 1, 3, 4, 8, 12


def publish(topic: bytes, payload: bytes, mid: int = 0) -> bytes:
    """Return a PUBLISH of MQTT 5, with QoS 1 if it has a packet identifier."""
    body = len(topic).to_bytes(2) + topic + (mid.to_bytes(2) if mid else b"") + b"\0" + payload
    length = len(body)
    size = b""
    while length > 127:
        size += bytes([length & 127 | 128])
        length >>= 7
    return bytes([0x32 if mid else 0x30]) + size + bytes([length]) + body


class ScriptedBroker:
    """Answers as a broker does, but for what a test changes; use it as a context manager."""

    def __init__(self) -> None:
        self.connack = CONNACK
        self.suback: bytes | None = None  # reason codes; None to grant each filter
        self.puback: bytes | None = b"\x00"  # reason code; None to stay silent
        self.silent = False  # as to SUBSCRIBE
        self.port = 0
        self.received: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self.writer: asyncio.StreamWriter | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def send(self, data: bytes) -> None:
        """Send these bytes on the latest connection."""
        assert self.writer is not None
        self.writer.write(data)

    async def packet(self, kind: int) -> bytes:
        """Return the next packet of this kind that the client has sent."""
        async with asyncio.timeout(10):
            while True:
                received, body = await self.received.get()
                if received == kind:
                    return body

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.writer = writer
        try:
            while True:
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind = (await reader.readexactly(1))[0] >> 4
        length = shift = 0
        while (byte := (await reader.readexactly(1))[0]) & 128:
            length |= (byte & 127) << shift
            shift += 7
        body = await reader.readexactly(length | byte << shift)
        self.received.put_nowait((kind, body))
        if kind == CONNECT:
            writer.write(self.connack)
        elif kind == SUBSCRIBE and not self.silent:
            codes = self.suback or b"\1" * _filters(body)
            writer.write(bytes([0x90, 3 + len(codes)]) + body[:2] + b"\0" + codes)
        elif kind == PUBLISH and self.puback is not None:
            topic = int.from_bytes(body[:2])
            writer.write(b"\x40\x03" + body[2 + topic : 4 + topic] + self.puback)


@contextlib.asynccontextmanager
async def connected(broker: ScriptedBroker, **options: object) -> AsyncGenerator[Transport]:
    """Open a transport on MQTT 5 that has subscribed ``t``."""
    transport = create(f"mqtt://127.0.0.1:{broker.port}?version=5", Options(**{"timeout": 5.0, **options}))  # type: ignore[arg-type]
    await transport.open()
    try:
        await transport.subscribe(["t"])
        yield transport
    finally:
        await transport.close()


@pytest.fixture
async def broker() -> AsyncGenerator[ScriptedBroker]:
    """Run a broker for one test."""
    async with ScriptedBroker() as broker:
        yield broker


@pytest.mark.parametrize(
    ("data", "acknowledged"),
    [
        (publish(b"\xff\xfe", b"x", 7), 7),  # a topic that is not UTF-8
        (publish(b"", b"x", 8), 8),  # no topic, and no alias was agreed
        (publish(b"t", bytes(1001), 9), 9),  # above what CONNECT announced
        (publish(b"t", bytes(300_000), 10), 10),  # so large that it is never held
        (publish(b"t", bytes(300_000)), 0),
        (publish(b"other", b"x", 11), 11),  # never subscribed
    ],
)
async def test_bad_delivery_is_passed_over(broker: ScriptedBroker, data: bytes, acknowledged: int) -> None:
    """It is acknowledged so that it does not come again, and the next one is taken."""
    async with connected(broker, max_payload=1000) as transport:
        broker.send(data + publish(b"t", b"next", 99))
        assert await Listener(transport).delivery() == Delivery("t", b"next")
        if acknowledged:
            assert acknowledged.to_bytes(2) == await broker.packet(PUBACK)


async def test_flood_of_bad_deliveries_does_not_fill_the_log(
    broker: ScriptedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a thousand, ten are logged, each in one short line."""
    async with connected(broker) as transport:
        with caplog.at_level(logging.WARNING):
            broker.send(publish(b"\xff" * 60_000, b"x") * 1000 + publish(b"t", b"next"))
            await Listener(transport).delivery()
    assert len(caplog.messages) == 10
    assert max(len(line) for line in caplog.messages) < 300


@pytest.mark.parametrize(
    "data",
    [
        b"\x34\x06\x00\x01t\x00\x01\x00",  # QoS 2
        b"\xc0\x00",  # PINGREQ
        b"\x50\x02\x00\x01",  # PUBREC
        b"\x30\xff\xff\xff\xff\x7f",  # a length of five bytes
        b"\x30\x02\x00\x09",  # a PUBLISH shorter than its topic
        b"\x30\x05\x00\x01t\x01\x7f",  # an unknown property
        b"\x40\x01\x00",  # half a packet identifier
        b"\x90\x04\x00\x01\x00\xee",  # an unknown reason code
        b"\xe0\x02\x87\x00",  # a proper DISCONNECT: Not authorized
    ],
)
async def test_broken_protocol_ends_one_connection(broker: ScriptedBroker, data: bytes) -> None:
    """The connection is given up and made again; the transport lives."""
    async with connected(broker) as transport:
        listener = Listener(transport)
        await listener.event(Connected)
        broker.send(data)
        await listener.event(Disconnected)
        await listener.event(Connected)
        broker.send(publish(b"t", b"again"))
        assert await listener.delivery() == Delivery("t", b"again")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=60), st.sampled_from([b"", b"\x30", b"\x32\x09\x00\x01t", b"\x90\x04", b"\x40\x04", b"\xe0\x02"])
)
async def test_any_bytes_leave_the_transport_alive(data: bytes, start: bytes) -> None:
    """Whatever a broker sends, after it hangs up the transport connects again and works."""
    async with ScriptedBroker() as broker, connected(broker, timeout=20.0) as transport:
        assert broker.writer is not None
        broker.send(start + data)
        broker.writer.close()
        listener = Listener(transport)
        await listener.event(Disconnected)
        await transport.publish(Outgoing("x", b"still here"))


async def test_suback_for_other_filters(broker: ScriptedBroker) -> None:
    """A SUBACK with too many answers is none."""
    broker.suback = b"\1\1"
    with pytest.raises(TransportError, match="did not answer"):
        async with connected(broker, timeout=0.5):
            pass


async def test_refused_filter(broker: ScriptedBroker) -> None:
    """The error names the filter, the reason and where to look; what was granted besides is in force."""
    async with connected(broker) as transport:
        broker.suback = b"\x01\x87"
        with pytest.raises(TransportError, match=r"1 of 2 filters, 'v' first: Not authorized.*access list"):
            await transport.subscribe(["u", "v"])
        broker.send(publish(b"v", b"refused") + publish(b"u", b"granted"))
        assert await Listener(transport).delivery() == Delivery("u", b"granted")


async def test_refusal_after_a_reconnection(broker: ScriptedBroker) -> None:
    """Without all its subscriptions a transport is not connected; it goes on trying."""
    async with connected(broker) as transport:
        listener = Listener(transport)
        broker.suback = b"\x87"
        assert broker.writer is not None
        broker.writer.close()
        await listener.event(Disconnected)
        await broker.packet(SUBSCRIBE)
        await broker.packet(SUBSCRIBE)
        await broker.packet(SUBSCRIBE)
        broker.suback = None
        await listener.event(Connected)


async def test_broker_that_turns_clients_away_is_spared(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wait for the next attempt is the one drawn, below a ceiling that doubles."""
    ceilings: list[float] = []
    waits: list[float] = []
    sleep = asyncio.sleep

    def draw(_low: float, ceiling: float) -> float:
        ceilings.append(ceiling)
        return 0.001 * len(ceilings)

    async def watched(delay: float) -> None:
        waits.append(delay)
        await sleep(delay)

    monkeypatch.setattr("brokerkm_mqtt.transport.random.uniform", draw)
    monkeypatch.setattr("brokerkm_mqtt.transport.asyncio.sleep", watched)
    async with connected(broker) as transport:
        listener = Listener(transport)
        await listener.event(Connected)
        await broker.packet(CONNECT)
        broker.connack = b"\x20\x03\x00\x88\x00"  # server unavailable
        assert broker.writer is not None
        broker.writer.close()
        for _ in range(3):
            await broker.packet(CONNECT)
        broker.connack = CONNACK
        await listener.event(Connected)
    assert len(ceilings) >= 3
    assert [0.25 * 2**number for number in range(len(ceilings))] == ceilings
    assert {0.001 * number for number in range(1, len(ceilings) + 1)} <= set(waits)


async def test_silent_broker_fails_open_in_time(broker: ScriptedBroker) -> None:
    """A port that takes connections and says nothing is no broker."""
    broker.connack = b""
    transport = create(f"mqtt://127.0.0.1:{broker.port}?version=5", Options(timeout=0.3))
    with pytest.raises(TransportError, match="did not answer"):
        await transport.open()
    await transport.close()


async def test_unacknowledged_publish_fails_in_time(broker: ScriptedBroker) -> None:
    """A broker that takes messages and does not say so has not accepted them."""
    broker.puback = None
    async with connected(broker, timeout=0.3) as transport:
        with pytest.raises(TransportError, match="has not acknowledged"):
            await transport.publish(Outgoing("t", b""))


async def test_given_up_answers_are_forgotten(broker: ScriptedBroker, caplog: pytest.LogCaptureFixture) -> None:
    """What nobody waits for any more leaves neither a trace nor a complaint of asyncio's."""
    async with connected(broker, timeout=0.2) as transport:
        broker.puback = None
        broker.silent = True
        for question in (
            transport.publish_batch([Outgoing("t", b"1"), Outgoing("t", b"2")]),
            transport.subscribe([f"t/{index}" for index in range(20)]),
            transport.unsubscribe(["t"]),
        ):
            with pytest.raises(TransportError):
                await question
        assert isinstance(transport, MqttTransport)
        assert transport._link is not None
        assert not transport._link._answers
        broker.silent = False
    gc.collect()
    assert not [line for line in caplog.messages if "never retrieved" in line]


async def test_failed_publish_is_not_sent_again(broker: ScriptedBroker) -> None:
    """What the caller was told had failed is not sent behind its back after a reconnection."""
    broker.puback = None
    async with connected(broker, timeout=0.5) as transport:
        with pytest.raises(TransportError):
            await transport.publish(Outgoing("t", b"failed"))
        broker.puback = b"\0"
        assert broker.writer is not None
        broker.writer.close()
        await transport.publish(Outgoing("t", b"good"))
        bodies = [await broker.packet(PUBLISH) for _ in range(2)]
    assert [body[-4:] for body in bodies] == [b"iled", b"good"]


async def test_unacknowledged_publish_is_sent_again(broker: ScriptedBroker) -> None:
    """What was in flight when the connection broke goes out on the next, in its order."""
    broker.puback = None
    async with connected(broker) as transport, asyncio.TaskGroup() as group:
        group.create_task(transport.publish_batch([Outgoing("t", b"one"), Outgoing("t", b"two")]))
        for _ in range(2):
            await broker.packet(PUBLISH)
        broker.puback = b"\0"
        assert broker.writer is not None
        broker.writer.close()
        bodies = [await broker.packet(PUBLISH) for _ in range(2)]
        assert [body[-3:] for body in bodies] == [b"one", b"two"]


async def test_receive_maximum_is_obeyed(broker: ScriptedBroker) -> None:
    """Of a batch no more is in flight than the broker takes."""
    broker.connack = b"\x20\x06\x00\x00\x03\x21\x00\x03"
    broker.puback = None
    async with connected(broker) as transport:
        batch = asyncio.create_task(transport.publish_batch([Outgoing("t", b"%d" % index) for index in range(5)]))
        bodies = [await broker.packet(PUBLISH) for _ in range(3)]
        await transport.subscribe(["u"])  # what is sent later has arrived, so nothing else was sent before
        assert [kind for kind, _ in _drain(broker.received)].count(PUBLISH) == 0
        broker.puback = b"\0"
        for body in bodies:
            broker.send(b"\x40\x02" + body[3:5])
        await batch


async def test_maximum_packet_size_is_obeyed(broker: ScriptedBroker) -> None:
    """A payload that does not fit the broker's largest packet is not sent."""
    broker.connack = b"\x20\x08\x00\x00\x05\x27\x00\x00\x04\x00"  # 1,024 bytes
    async with connected(broker) as transport:
        assert transport.max_payload == 1024 - 10 - 256
        await transport.publish(Outgoing("t" * 256, bytes(transport.max_payload)))
        with pytest.raises(TransportError, match="1025 bytes, and its largest packet has 1024"):
            await transport.publish(Outgoing("t" * 257, bytes(transport.max_payload)))
        assert len(await broker.packet(PUBLISH)) == 1024 - 5  # the header is counted at its longest


@pytest.mark.parametrize(
    ("connack", "error"),
    [
        (b"\x20\x05\x00\x00\x02\x24\x00", "no QoS 1"),
        (b"\x20\x03\x00\x88\x00", "Server unavailable"),
        (b"\x20\x03\x00\x8a\x00", "Banned"),
        (b"\x20\x02\x00\x01", "version of MQTT"),
    ],
)
async def test_refusals(broker: ScriptedBroker, connack: bytes, error: str) -> None:
    """What keeps this client out is in the error."""
    broker.connack = connack
    transport = create(f"mqtt://127.0.0.1:{broker.port}?version=5", Options(timeout=5))
    with pytest.raises(TransportError, match=error):
        await transport.open()
    await transport.close()


async def test_broker_without_retained_messages(broker: ScriptedBroker) -> None:
    """It is told in time, instead of being thrown out for each attempt."""
    broker.connack = b"\x20\x05\x00\x00\x02\x25\x00"
    async with connected(broker) as transport:
        with pytest.raises(TransportError, match="no retained"):
            await transport.publish(Outgoing("t", b"", retain=True))


async def test_eight_filters_a_subscribe(broker: ScriptedBroker) -> None:
    """AWS IoT Core takes no more in one packet."""
    async with connected(broker) as transport:
        await broker.packet(SUBSCRIBE)
        await transport.subscribe([f"t/{index}" for index in range(20)])
        assert [_filters(await broker.packet(SUBSCRIBE)) for _ in range(3)] == [8, 8, 4]


async def test_server_keep_alive_is_obeyed(broker: ScriptedBroker) -> None:
    """A sign of life is sent within the time that the broker names."""
    broker.connack = b"\x20\x06\x00\x00\x03\x13\x00\x01"
    async with connected(broker, keepalive=600):
        await broker.packet(PINGREQ)


def _filters(subscribe: bytes) -> int:
    """Count the filters in the body of a SUBSCRIBE without properties."""
    place, count = 3, 0
    while place < len(subscribe):
        place += 2 + int.from_bytes(subscribe[place : place + 2]) + 1
        count += 1
    return count


def _drain(queue: asyncio.Queue[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    drained: list[tuple[int, bytes]] = []
    while not queue.empty():
        drained.append(queue.get_nowait())
    return drained
