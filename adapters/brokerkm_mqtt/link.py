"""One connection to a broker, from CONNECT until it breaks; never used again after that.

asyncio owns the network, `Framer` cuts it into packets, paho interprets them. paho's own loop,
timers, threads and reconnection are not used, and its `Client` lives as long as the connection.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from brokerkm.clock import boot_time
from brokerkm.errors import TransportError
from brokerkm.transport import Delivery, Options
from brokerkm_mqtt.engine import ENVELOPE, Limits, engine, refusal
from brokerkm_mqtt.frames import FrameError, Framer, Kind
from brokerkm_mqtt.pipe import Pipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

    from brokerkm_mqtt.address import Address
    from brokerkm_mqtt.parcel import Parcel

_log = logging.getLogger(__name__)

FILTERS_A_SUBSCRIBE: Final = 8  # AWS IoT Core takes no more
IN_FLIGHT_SIZE: Final = 4 * 1024 * 1024  # bytes of payload in flight, so that large messages do not pile up
_NO_QOS_1: Final = "the broker has no QoS 1, without which it may lose messages silently; use another"
_LARGEST_HEADER: Final = 5 + 2 + 2 + 1  # bytes of a PUBLISH without topic and payload
_PINGREQ: Final = b"\xc0\x00"
_TOPIC_ALLOWANCE: Final = 256  # bytes of topic that `max_payload` leaves room for; ours have at most 150


class HungUpError(TransportError):
    """The broker closed the connection instead of answering CONNECT."""


class LinkLostError(TransportError):
    """The connection broke before the broker answered."""


class Owner(Protocol):
    """Who is told what happens on a link."""

    def has_room(self, *, urgent: bool) -> bool:
        """Tell whether one more delivery can be taken; `urgent` if an answer waits behind it."""
        ...

    def received(self, delivery: Delivery) -> bool:
        """Take a delivery; return whether the broker may send another in its place."""
        ...

    def writable(self) -> None:
        """Learn that there may be room to publish more."""
        ...

    def lost(self, link: Link, reason: str) -> None:
        """Learn that the connection is over."""
        ...


class Link(asyncio.Protocol):
    """A connection; made by `dial`.

    Args:
        clean: drop the session that the broker kept for this client.
        owner: is told of everything that arrives; not before `dial` has returned, except deliveries.
    """

    def __init__(self, options: Options, version: MQTTProtocolVersion, *, clean: bool, owner: Owner) -> None:
        self.limits = Limits.of_any_broker(options)
        self.in_flight: dict[int, Parcel] = {}
        self.established: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._options = options
        self.version = version
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._closed = self._loop.create_future()
        self._answers: dict[int, asyncio.Future[list[ReasonCode]]] = {}
        self._framer = Framer(options.max_payload + ENVELOPE)
        self._in_flight_size = 0
        self._reading = True
        self._write_planned = False
        self._reason = ""
        self._unacknowledged: deque[int] = deque()
        self._dropped = 0
        self._timer: asyncio.TimerHandle | None = None
        self._last_heard = self._loop.time()
        self._client = engine(options, version, clean=clean)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._client.on_subscribe = self._client.on_unsubscribe = self._on_answer
        self._client.on_socket_register_write = self._plan_write

    @property
    def is_open(self) -> bool:
        """Tell whether the connection is up as far as is known."""
        return not self._closed.done() and not self._network.is_closing()

    @property
    def max_payload(self) -> int:
        """Bytes of payload that fit the broker's largest packet under a topic of usual length."""
        return max(0, self.limits.max_packet - _LARGEST_HEADER - _TOPIC_ALLOWANCE)

    # What the transport does.

    def can_publish(self) -> bool:
        """Tell whether one more message may be put in flight."""
        return self.is_open and len(self.in_flight) < self.limits.window and self._in_flight_size < IN_FLIGHT_SIZE

    def publish(self, parcel: Parcel) -> None:
        """Put `parcel` in flight; it is settled when the broker has answered."""
        message = parcel.message
        size = _LARGEST_HEADER + len(message.topic.encode()) + len(message.payload)
        if boot_time() >= message.until:
            parcel.settle("the time in which it might be sent is over")
        elif size > self.limits.max_packet:
            parcel.settle(f"{size} bytes, and its largest packet has {self.limits.max_packet}")
        elif message.retain and not self.limits.retains:
            parcel.settle("it keeps no retained messages; use another broker")
        else:
            info = self._client.publish(message.topic, message.payload, qos=1, retain=message.retain)
            if info.rc is not MQTTErrorCode.MQTT_ERR_SUCCESS:
                parcel.settle(f"it is no longer there ({info.rc.name})")
                return
            self.in_flight[info.mid] = parcel
            self._in_flight_size += len(message.payload)
            self._resume()

    def taken(self) -> None:
        """Learn that the caller has taken a delivery: let the broker send another."""
        if self._unacknowledged and self.is_open:
            self._ack(self._unacknowledged.popleft())
        self._resume()

    async def subscribe(self, filters: Sequence[str]) -> list[tuple[str, str]]:
        """Subscribe, and return the filters that the broker refused, each with its reason."""
        answers: list[asyncio.Future[list[ReasonCode]]] = []
        batches = [filters[i : i + FILTERS_A_SUBSCRIBE] for i in range(0, len(filters), FILTERS_A_SUBSCRIBE)]
        for batch in batches:
            if self.version is MQTTProtocolVersion.MQTTv5:
                sent = self._client.subscribe([(pattern, SubscribeOptions(qos=1)) for pattern in batch])
            else:
                sent = self._client.subscribe([(pattern, 1) for pattern in batch])
            answers.append(self._answer(sent))
        refused: list[tuple[str, str]] = []
        for batch, codes in zip(batches, await asyncio.gather(*answers), strict=True):
            if len(codes) != len(batch):
                message = "a SUBACK for another number of filters"
                raise self._broken(message)
            refused += [(pattern, str(code)) for pattern, code in zip(batch, codes, strict=True) if code.is_failure]
        return refused

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Unsubscribe; filters that were not subscribed do not matter."""
        batches = [filters[i : i + FILTERS_A_SUBSCRIBE] for i in range(0, len(filters), FILTERS_A_SUBSCRIBE)]
        await asyncio.gather(*[self._answer(self._client.unsubscribe(list(batch))) for batch in batches])

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109 - bounds the farewell, after which it is cut short
        """Say goodbye and wait until the network is closed."""
        if self.is_open:
            self._reason = "this client closed the connection"
            self._client.disconnect()
        await asyncio.wait([self._closed], timeout=timeout)
        if not self._closed.done():
            self.abort("")
            await self._closed

    def abort(self, reason: str) -> None:
        """Close the network without a farewell."""
        self._reason = self._reason or reason
        self._network.abort()

    # What asyncio says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send CONNECT on the new connection."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - create_connection makes no other
        self._network = transport
        self._pipe = self._client.pipe = Pipe(transport)
        self._client.reconnect()

    def data_received(self, data: bytes) -> None:
        """Interpret what the broker sent."""
        self._last_heard = self._loop.time()
        self._framer.feed(data)
        self._read()

    def pause_writing(self) -> None:
        """Keep packets while the network is slow."""
        self._pipe.blocked = True

    def resume_writing(self) -> None:
        """Send what was kept."""
        self._pipe.blocked = False
        self._write()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits."""
        reason = self._reason or (str(exc) if exc else "the broker closed the connection")
        self._reason = reason
        if self._timer is not None:
            self._timer.cancel()
        _fail(self.established, HungUpError(reason))
        for answer in self._answers.values():
            _fail(answer, LinkLostError(reason))
        self._closed.set_result(None)
        self._owner.lost(self, reason)

    # Reading and writing.

    def _read(self) -> None:
        try:
            while self.is_open and (frame := self._framer.peek()) is not None:
                if frame.kind is Kind.PUBLISH and not self._owner.has_room(urgent=self._awaits_answer()):
                    self._network.pause_reading()
                    self._reading = False
                    return
                if frame.oversized:
                    skipped = self._framer.skip()
                    self._drop(skipped.mid, skipped.topic, f"{skipped.size} bytes are above the limit")
                else:
                    self._pipe.feed(self._framer.take())
                    self._client.loop_read()
        except FrameError as error:
            self._broken(str(error))
        except Exception as error:  # noqa: BLE001 - whatever a broker sends ends this connection and nothing else
            self._broken(f"what it sent cannot be read ({error!r:.200})")
        if not self._reading and self.is_open:
            self._reading = True
            self._last_heard = self._loop.time()
            self._network.resume_reading()
        self._owner.writable()

    def _resume(self) -> None:
        """Go on reading, if that was stopped and can go on."""
        if not self._reading:
            self._read()

    def _acknowledge(self) -> None:
        while self._unacknowledged and self.is_open:
            self._ack(self._unacknowledged.popleft())

    def _ack(self, mid: int) -> None:
        if mid:  # a QoS 0 delivery has none
            self._client.ack(mid, 1)

    def _awaits_answer(self) -> bool:
        return bool(self._answers or self.in_flight)

    def _plan_write(self, _client: Client, _userdata: object, _socket: object) -> None:
        if not self._write_planned:
            self._write_planned = True
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        self._write_planned = False
        if self.is_open and not self._pipe.blocked:
            self._client.loop_write()
            self._pipe.flush()

    def _broken(self, reason: str) -> LinkLostError:
        if self.is_open:
            _log.warning("the broker broke the protocol: %s", reason)
            self.abort(f"the broker broke the protocol: {reason}")
        return LinkLostError(reason)

    def _drop(self, mid: int, topic: bytes, reason: str) -> None:
        self._ack(mid)
        self._dropped += 1
        if self._dropped.bit_count() == 1:  # the 1st, 2nd, 4th, 8th, …: a flood does not fill the log
            _log.warning("dropped message %d of this connection, on %.100r: %s", self._dropped, topic, reason)

    def _keep_alive(self) -> None:
        """Send a sign of life each half of the keep-alive time, and expect one (MQTT 5, section 3.1.2.10)."""
        silent = self._loop.time() - self._last_heard
        if self._reading and silent > 1.5 * self.limits.keepalive:
            self.abort(f"the broker gave no sign of life for {silent:.0f} s")
            return
        if not self._pipe.blocked:
            self._pipe.send(_PINGREQ)
            self._pipe.flush()
        self._timer = self._loop.call_later(self.limits.keepalive / 2, self._keep_alive)

    # What paho says.

    def _on_connect(self, _c: Client, _u: object, _f: ConnectFlags, code: ReasonCode, given: Properties | None) -> None:
        if self.established.done():
            return
        if code.is_failure:
            self._reason = f"the broker refused the connection: {code}"
            self.established.set_exception(refusal(code, self._options))
            return
        self.limits = Limits.granted(given, self._options)
        if not self.limits.has_qos1:
            self.established.set_exception(TransportError(_NO_QOS_1))
            return
        if self.limits.keepalive:
            self._timer = self._loop.call_later(self.limits.keepalive / 2, self._keep_alive)
        self.established.set_result(None)

    def _on_disconnect(self, _c: Client, _u: object, flags: DisconnectFlags, code: ReasonCode, _p: object) -> None:
        who = "the broker ended the connection" if flags.is_disconnect_packet_from_server else "the connection broke"
        if not self._reason:
            self.abort(f"{who}: {code}")

    def _on_message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError as error:
            self._drop(message.mid, error.object, "the topic is not UTF-8")
            return
        if not topic or len(message.payload) > self._options.max_payload:
            self._drop(message.mid, topic.encode(), f"{len(message.payload)} bytes are above the limit, or no topic")
            return
        more = self._owner.received(Delivery(topic, bytes(message.payload), message.retain))
        self._unacknowledged.append(message.mid)
        if more or self._answers:  # amqtt answers a SUBSCRIBE only when its retained messages are acknowledged
            self._acknowledge()

    def _on_publish(self, _client: Client, _userdata: object, mid: int, code: ReasonCode, _p: object) -> None:
        parcel = self.in_flight.pop(mid, None)
        if parcel is not None:
            self._in_flight_size -= len(parcel.message.payload)
            parcel.settle(_explained(code) if code.is_failure else None)

    def _on_answer(self, _client: Client, _userdata: object, mid: int, codes: list[ReasonCode], _p: object) -> None:
        answer = self._answers.get(mid)
        if answer is not None and not answer.done():
            answer.set_result(codes)

    def _answer(self, sent: tuple[MQTTErrorCode, int | None]) -> asyncio.Future[list[ReasonCode]]:
        code, mid = sent
        if mid is None or code is not MQTTErrorCode.MQTT_ERR_SUCCESS or not self.is_open:
            raise LinkLostError(self._reason or code.name)
        self._answers[mid] = answer = self._loop.create_future()
        answer.add_done_callback(lambda _: self._answers.pop(mid, None))
        self._acknowledge()
        self._resume()
        return answer


def _fail(answer: asyncio.Future[Any], error: TransportError) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # seen: asyncio need not complain if nobody waits any more


def _explained(code: ReasonCode) -> str:
    name = str(code)
    if name == "Not authorized":
        return f"{name}; see whether the broker's access list lets this user write there"
    return name


async def dial(address: Address, options: Options, version: MQTTProtocolVersion, *, clean: bool, owner: Owner) -> Link:
    """Connect and wait for the broker's welcome.

    Raises:
        VersionRefusedError: the broker does not know `version`.
        HungUpError: the broker closed the connection without a word.
        TransportError: it cannot be reached, or refused this client.
    """
    link = Link(options, version, clean=clean, owner=owner)
    loop = asyncio.get_running_loop()
    try:
        await loop.create_connection(lambda: link, address.host, address.port, ssl=address.tls)
    except ssl.SSLCertVerificationError as error:
        message = f"the broker at {address} has a certificate that is not trusted: {error}; its authority is ca_file's?"
        raise TransportError(message) from error
    except OSError as error:
        message = f"cannot reach the broker at {address}: {error}"
        raise TransportError(message) from error
    try:
        await link.established
    except HungUpError as error:
        message = f"the broker at {address} closed the connection without a word ({error})"
        if address.tls is not None and not options.cert_file:
            message += "; perhaps it wants a client certificate: give cert_file and key_file"
        raise HungUpError(message) from error
    except BaseException:
        link.abort("not established")
        raise
    return link
