"""Cutting a broker's bytes into packets; the bytes are written out from MQTT 5, section 2.1 and 3.3."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerkm_mqtt.frames import FrameError, Framer, Kind, Skipped

PUBACK = b"\x40\x02\x00\x07"
PUBLISH = b"\x32\x0a\x00\x03a/b\x00\x09xyz"  # QoS 1, topic a/b, packet identifier 9
PUBLISH_LARGE = b"\x32\xc8\x01\x00\x03a/b\x00\x09" + bytes(193)  # 200 bytes after the header
PUBLISH_LARGE_QOS_0 = b"\x30\xc8\x01\x00\x03a/b" + bytes(195)


def read(framer: Framer) -> list[bytes | Skipped]:
    """Return all that can be read now."""
    packets: list[bytes | Skipped] = []
    while (frame := framer.peek()) is not None:
        packets.append(framer.skip() if frame.oversized else framer.take())
    return packets


@given(st.lists(st.integers(0, 400), max_size=20))
def test_packets_are_the_same_however_they_arrive(cuts: list[int]) -> None:
    """The network may cut anywhere."""
    stream = PUBACK + PUBLISH + PUBLISH_LARGE + PUBLISH_LARGE_QOS_0 + PUBACK
    framer = Framer(limit=100)
    packets: list[bytes | Skipped] = []
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, end in itertools.pairwise(places):
        framer.feed(stream[start:end])
        packets += read(framer)
    assert packets == [PUBACK, PUBLISH, Skipped(b"a/b", 9, 203), Skipped(b"a/b", 0, 203), PUBACK]


def test_oversized_packet_is_not_held() -> None:
    """Of 256 MB no more than one piece from the network is in memory."""
    framer = Framer(limit=100)
    framer.feed(b"\x30\xff\xff\xff\x7f\x00\x01a")
    assert read(framer) == [Skipped(b"a", 0, 268_435_460)]
    left = 268_435_455 - 3
    piece = bytes(1 << 20)
    while left > len(piece):
        framer.feed(piece)
        left -= len(piece)
        assert framer.peek() is None
        assert len(framer._buffer) == 0
    framer.feed(bytes(left) + PUBACK)
    assert read(framer) == [PUBACK]


def test_publish_can_stay() -> None:
    """A packet is there until it is taken."""
    framer = Framer(limit=100)
    framer.feed(PUBLISH)
    for _ in range(2):
        frame = framer.peek()
        assert frame is not None
        assert (frame.kind, frame.qos, frame.oversized) == (Kind.PUBLISH, 1, False)
    assert framer.take() == PUBLISH


@pytest.mark.parametrize(
    "data",
    [
        b"\x10\x00",  # CONNECT
        b"\x50\x02\x00\x01",  # PUBREC: only for QoS 2, which we do not use
        b"\x82\x00",  # SUBSCRIBE
        b"\xc0\x00",  # PINGREQ
        b"\xf0\x00",  # AUTH
        b"\x00\x00",
        b"\x34\x05\x00\x01a\x00\x01",  # PUBLISH with QoS 2
        b"\x36\x05\x00\x01a\x00\x01",  # PUBLISH with QoS 3
        b"\x30\xff\xff\xff\xff\x01",  # a length of five bytes
        b"\x90\xc8\x01",  # a SUBACK above the limit
        b"\x30\xc8\x01\xff\xff",  # oversized, with a topic longer than the packet
    ],
)
def test_what_no_broker_sends_is_an_error(data: bytes) -> None:
    """Packets that only clients send, or that nobody does, end the connection."""
    framer = Framer(limit=100)
    framer.feed(data)
    with pytest.raises(FrameError):
        framer.peek()
