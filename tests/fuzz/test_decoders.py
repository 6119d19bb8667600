"""Whatever bytes come, the only thing that comes out is a refusal, soon and in little memory."""

from __future__ import annotations

import time
import tracemalloc

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proof.profiles import DEEP

from fuzz.strategies import hostile
from fuzz.targets import TARGETS, run, seeds

EXAMPLES = 5_000 if DEEP else 250

BOMBS = {
    "nested": b"\x91",
    "empty arrays": b"\x90",
    "empty maps": b"\x80",
    "nested maps": b"\x81\xa0",
    "small integers": b"\x00",
    "nil": b"\xc0",
    "texts": b"\xa1x",
    "extensions": b"\xd4\x01x",
    "timestamps": b"\xd6\xff\x00\x00\x00\x01",
}


@pytest.mark.parametrize("name", TARGETS)
def test_only_refusals_come_out(name: str) -> None:
    """Noise, nonsense and tampered messages."""

    @settings(max_examples=EXAMPLES)
    @given(hostile(seeds(name)))
    def feed(data: bytes) -> None:
        run(name, data)

    feed()


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in ("rekey-top", "receive")])
def test_genuine_bytes_are_taken(name: str) -> None:
    """What the fuzzer begins with is accepted: it does not only scratch at the first check."""
    assert [run(name, data) for data in seeds(name)] == [True] * len(seeds(name))
    assert seeds(name)


def bomb(start: bytes, unit: bytes, size: int) -> bytes:
    """Return a message that is one big array of `unit`, after a genuine beginning."""
    count = size // len(unit)
    return start + b"\xdd" + count.to_bytes(4, "big") + unit * count


@pytest.mark.parametrize("unit", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("name", ["rekey", "beacon", "welcome", "join", "subgroup", "data", "receive", "type"])
def test_bombs_of_a_protocol_message_stay_small(name: str, unit: bytes) -> None:
    """The largest message of the protocol, all small parts, costs little time and memory."""
    for start in (b"", b"\x98\x01\x08", b"\x00\x98\x01\x08"):
        assert_cheap(name, bomb(start, unit, 16 * 1024 - len(start) - 5), 4 << 20)


@pytest.mark.parametrize("unit", BOMBS.values(), ids=BOMBS)
def test_long_data_does_not_become_much_longer_in_memory(unit: bytes) -> None:
    """Application messages may be long; one of nothing but small parts is refused while it is read."""
    size = 4 << 20
    run("receive", b"\x00")
    for name, start in (("data", b""), ("data", b"\x98\x01\x08"), ("receive", b"\x06\x98\x01\x08")):
        assert_cheap(name, bomb(start, unit, size), 6 * size)
        parts = b"\x9f" + unit * 15  # arrays short enough to be let through, but too many
        assert_cheap(name, start + b"\x9f" + parts * (size // len(parts)), 6 * size)


def assert_cheap(name: str, data: bytes, most: int) -> None:
    """Feed `data` and assert that it is refused or ignored in less than a second and `most` bytes."""
    tracemalloc.start()
    began = time.process_time()
    try:
        run(name, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 1
    assert peak < most


@settings(max_examples=EXAMPLES)
@given(st.binary(max_size=64).map(lambda data: msgpack.packb([1, 8, 1, 0, "a", bytes(8), 0, data])))
def test_junk_data_is_refused(data: bytes) -> None:
    """Data that is well-formed but of nobody reaches the cipher, and no further."""
    run("receive", b"\x06" + data)
