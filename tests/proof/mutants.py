"""What can be made of a genuine message without the key that proves it: bits flipped, fields changed or left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack

if TYPE_CHECKING:
    from collections.abc import Iterator


def flips(payload: bytes) -> Iterator[bytes]:
    """Yield `payload` with each of its bits flipped."""
    for place in range(8 * len(payload)):
        changed = bytearray(payload)
        changed[place // 8] ^= 1 << place % 8
        yield bytes(changed)


def cuts(payload: bytes) -> Iterator[bytes]:
    """Yield every beginning of `payload`, and `payload` with something after it."""
    for end in range(1, len(payload)):
        yield payload[:end]
    yield payload + b"\0"
    yield payload + payload


def rebuilt(payload: bytes) -> Iterator[bytes]:
    """Yield well-formed msgpack that differs from `payload` in one element, at any depth, or in its array's shape."""
    value = msgpack.unpackb(payload)
    for other in _changed(value):
        encoded = msgpack.packb(other)
        if encoded != payload:
            yield encoded
    for place, element in enumerate(value):
        yield msgpack.packb([*value[:place], *value[place + 1 :]])
        yield msgpack.packb([*value[: place + 1], element, *value[place + 1 :]])
        for second in range(place + 1, len(value)):
            swapped = list(value)
            swapped[place], swapped[second] = swapped[second], swapped[place]
            if swapped != value:
                yield msgpack.packb(swapped)


def _changed(value: Any) -> Iterator[Any]:  # noqa: ANN401 - any msgpack
    if isinstance(value, list):
        for place, element in enumerate(value):
            for other in _changed(element):
                yield [*value[:place], other, *value[place + 1 :]]
        yield [*value, value]
        yield []
    strange: list[Any] = [None, True, False, 0, 1, -1, 1.0, 2**63, 2**64 - 1, "", b"", "x", [], [[]], {}, {"a": 1}]
    yield from strange
    yield msgpack.ExtType(1, b"x")
    if isinstance(value, int):
        yield from (value + 1, value - 1, value ^ 1 << 31, -value, float(value), str(value), [value])
    if isinstance(value, bytes):
        yield from (value + b"\0", value[:-1], value[::-1] + b"\1", bytes(len(value)), value.hex(), [value])
