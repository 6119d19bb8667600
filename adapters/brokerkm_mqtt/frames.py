"""Cuts the bytes of a broker into MQTT packets, before paho sees them.

paho would buffer whatever length a header announces (up to 256 MB) and keep any QoS 2 message
that it is sent. Here a packet above the limit is skipped without being held, and packets that a
broker has no business to send end the connection. Packet format: MQTT 5, section 2.1.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Final

_MAX_LENGTH_BYTES: Final = 4  # MQTT 5, section 1.5.5
_CONTINUE: Final = 0x80
_QOS_SHIFT: Final = 1
_QOS_MASK: Final = 0x06
_AT_LEAST_ONCE: Final = 1


class Kind(enum.IntEnum):
    """The packets that a broker may send us: MQTT 5, section 2.1.2."""

    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    SUBACK = 9
    UNSUBACK = 11
    PINGRESP = 13
    DISCONNECT = 14


class FrameError(Exception):
    """The broker does not speak MQTT as a broker; the connection is of no more use."""


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """The next packet: its kind and sizes in bytes; `oversized` if it will be skipped."""

    kind: Kind
    qos: int
    header: int
    total: int
    oversized: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Skipped:
    """What is known of an oversized message: to be acknowledged as `mid` unless that is 0."""

    topic: bytes
    mid: int
    size: int


class Framer:
    """Buffers at most one packet of `limit` bytes, and what came with it from the network."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._skip = 0
        self._next: Frame | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes from the network."""
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        self._buffer += data[skipped:] if skipped else data

    def peek(self) -> Frame | None:
        """Return the next packet if it is there, or as much of it as `take` needs; it stays.

        Raises:
            FrameError: a packet that no broker sends to us.
        """
        frame = self._next = self._next or self._header()
        if frame is None:
            return None
        need = self._head_size(frame) if frame.oversized else frame.total
        return frame if need is not None and len(self._buffer) >= need else None

    def take(self) -> bytes:
        """Return the whole packet that `peek` returned, which was not oversized."""
        frame = self._take_frame()
        data = bytes(self._buffer[: frame.total])
        del self._buffer[: frame.total]
        return data

    def skip(self) -> Skipped:
        """Drop the oversized message that `peek` returned, and what follows of it."""
        frame = self._take_frame()
        start = frame.header + 2
        end = start + int.from_bytes(self._buffer[frame.header : start])
        mid = int.from_bytes(self._buffer[end : end + 2]) if frame.qos else 0
        skipped = Skipped(bytes(self._buffer[start:end]), mid, frame.total)
        here = min(frame.total, len(self._buffer))
        del self._buffer[:here]
        self._skip = frame.total - here
        return skipped

    def _take_frame(self) -> Frame:
        frame = self._next
        if frame is None:
            message = "peek comes before take and skip"
            raise AssertionError(message)
        self._next = None
        return frame

    def _header(self) -> Frame | None:
        length = 0
        for index, byte in enumerate(self._buffer[1 : 1 + _MAX_LENGTH_BYTES]):
            length |= (byte & ~_CONTINUE) << (7 * index)
            if not byte & _CONTINUE:
                return self._checked(2 + index, length)
        if len(self._buffer) > _MAX_LENGTH_BYTES:
            message = "a packet's length has more than four bytes"
            raise FrameError(message)
        return None

    def _checked(self, header: int, length: int) -> Frame:
        first = self._buffer[0]
        try:
            kind = Kind(first >> 4)
        except ValueError:
            message = f"packet type {first >> 4} is none that a broker sends"
            raise FrameError(message) from None
        qos = (first & _QOS_MASK) >> _QOS_SHIFT if kind is Kind.PUBLISH else 0
        if qos > _AT_LEAST_ONCE:
            message = f"a message with QoS {qos}, and nothing was subscribed above QoS 1"
            raise FrameError(message)
        oversized = length > self._limit
        if oversized and kind is not Kind.PUBLISH:
            message = f"a {kind.name} of {length} bytes"
            raise FrameError(message)
        return Frame(kind, qos, header, header + length, oversized)

    def _head_size(self, frame: Frame) -> int | None:
        start = frame.header + 2
        if len(self._buffer) < start:
            return None
        topic = int.from_bytes(self._buffer[frame.header : start])
        size = start + topic + (2 if frame.qos else 0)
        if size > frame.total:
            message = "a message shorter than its topic"
            raise FrameError(message)
        return size
