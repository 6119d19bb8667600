"""Hostile bytes: noise, well-formed nonsense, and genuine messages that were tampered with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import msgpack
from hypothesis import strategies as st

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

_SIZES: Final = [8, 16, 32, 40, 64, 80, 120]
_NUMBERS: Final = st.one_of(
    st.integers(0, 300), st.sampled_from([2**16 - 1, 2**16, 2**24, 2**63 - 1, 2**63, 2**64 - 1, -1, -(2**63)])
)
_BYTES: Final = st.one_of(st.binary(max_size=20), st.sampled_from(_SIZES).map(bytes), st.sampled_from([b"\xff" * 64]))
_SCALARS: Final = st.one_of(
    st.none(), st.booleans(), _NUMBERS, _BYTES, st.text(max_size=8), st.floats(), st.just(msgpack.ExtType(1, b"x"))
)
VALUES: Final[SearchStrategy[Any]] = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=9), st.dictionaries(st.text(max_size=2), inner, max_size=2)),
    max_leaves=12,
)
_MESSAGES: Final = st.tuples(st.integers(0, 12), st.lists(VALUES, max_size=9)).map(
    lambda parts: msgpack.packb([1, parts[0], *parts[1]])
)
_HEADS: Final = st.sampled_from(
    [bytes.fromhex(head) for head in ("dcffff", "ddffffffff", "c6ffffffff", "dfffffffff", "c9ffffffff01", "dbffffffff")]
)
_DEEP: Final = st.builds(
    lambda head, byte, depth: head + byte * depth,
    st.sampled_from([b"", b"\x98\x01\x01", b"\x98\x01\x08", b"\x99\x01\x02", b"\x95\x01\x03"]),
    st.sampled_from([b"\x90", b"\x91", b"\x80", b"\x81\xa0", b"\x92", b"\xc0"]),
    st.sampled_from([10, 1000, 5000, 16 * 1024]),
)


@st.composite
def tampered(draw: DrawFn, seeds: list[bytes]) -> bytes:
    """Draw one of `seeds` with some bytes changed, cut out, doubled, or put in from another."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 8)))
        match draw(st.integers(0, 4)):
            case 0 if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                del data[at:end]
            case 2:
                data[at:at] = data[at:end]
            case 3:
                data[at:end] = draw(st.one_of(_HEADS, VALUES.map(msgpack.packb)))
            case _:
                data[at:] = draw(st.sampled_from(seeds))[at:]
    return bytes(data)


@st.composite
def reshaped(draw: DrawFn, seeds: list[bytes]) -> bytes:
    """Draw one of `seeds` with another value at some place of its structure."""
    seed = draw(st.sampled_from(seeds))
    try:
        value = msgpack.unpackb(seed)
    except (ValueError, msgpack.UnpackException):
        return seed
    place = value
    while isinstance(place, list) and place:
        at = draw(st.integers(0, len(place) - 1))
        if not isinstance(place[at], list) or draw(st.booleans()):
            place[at] = draw(VALUES)
            break
        place = place[at]
    return bytes(msgpack.packb(value))


def hostile(seeds: list[bytes]) -> SearchStrategy[bytes]:
    """Return a strategy of bytes around `seeds`."""
    noise = st.one_of(st.binary(max_size=300), VALUES.map(msgpack.packb), _MESSAGES, _DEEP, _HEADS)
    text = st.one_of(
        st.text(max_size=60).map(str.encode), VALUES.map(lambda value: json.dumps(value, default=str).encode())
    )
    if not seeds:
        return st.one_of(noise, text)
    return st.one_of(tampered(seeds), tampered(seeds), reshaped(seeds), noise, text)
