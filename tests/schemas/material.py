"""What the vectors are made of: fixed keys and randomness, and the shape of a vector."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypeAlias

from brokerkm.core.crypto import load_signing_key

Json: TypeAlias = "bool | int | str | list[Json] | dict[str, Json] | None"
Fields: TypeAlias = dict[str, Json]

GROUP = "fleet-01"
MEMBER = "sensor-7"
TOPIC = "plant/temperature"
NOW = 1_800_000_000  # seconds since 1970
NOW_MS = NOW * 1000


@dataclass(frozen=True)
class Vector:
    """One scenario: what goes in and what must come out."""

    name: str
    description: str
    kind: str
    input: Fields
    expect: Fields

    @property
    def fields(self) -> Fields:
        """What its file holds."""
        return {
            "name": self.name,
            "description": self.description,
            "kind": self.kind,
            "input": self.input,
            "expect": self.expect,
        }


def draw(label: str, size: int) -> bytes:
    """Return the first `size` bytes that belong to `label`: SHAKE256 of it."""
    return hashlib.shake_256(label.encode()).digest(size)


class Stream:
    """Bytes that never end and are the same every time, to be used as a source of randomness."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._at = 0

    def __call__(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        self._at += size
        return draw(self._label, self._at)[self._at - size :]


SERVER_SEED = draw("server", 32)
SERVER_KEY = load_signing_key(SERVER_SEED)
SERVER_PUBLIC = SERVER_KEY.public_key().public_bytes_raw()
IDENTITY_SEED = draw("identity", 32)
IDENTITY = load_signing_key(IDENTITY_SEED)
IDENTITY_PUBLIC = IDENTITY.public_key().public_bytes_raw()


def error(reason: str, field: str) -> Fields:
    """Return what a refusal for `reason` at `field` is in a vector."""
    return {"error": {"reason": reason, "field": field}}


def hexed(value: object) -> Json:
    """Return `value` as JSON has it: bytes as hex, tuples as arrays, enumerations by value."""
    match value:
        case bytes():
            return value.hex()
        case list() | tuple():
            return [hexed(item) for item in value]
        case dict():
            return {str(key): hexed(item) for key, item in value.items()}
        case bool() | None:
            return value
        case str():
            return str(value)
        case int():
            return int(value)
        case _:
            message = f"{value!r} has no place in a vector"
            raise TypeError(message)
