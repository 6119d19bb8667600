"""The plugin's control messages (`plugin/README.md`), written and read; nothing here is sent."""

from __future__ import annotations

import enum
import hashlib
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from brokerkm.core.names import is_identifier
from brokerkm.errors import TransportError
from brokerkm.guard.rules import Rank

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from brokerkm.guard.fleet import GuardedGroup
    from brokerkm.guard.rules import Grant

TOPIC: Final = "$CONTROL/brokerkm/v1"
VERSION: Final = 1
BUCKETS: Final = 256
NO_SLOT: Final = 0xFFFFFFFF
LAST: Final = 0xFFFFFFFF  # in a list's answer: there is no more
IDENTITY_SIZE: Final = 32  # bytes
_HEADER: Final = struct.Struct(">BBI")
_MEMBER: Final = struct.Struct(">BI32s")
_NO_IDENTITY: Final = bytes(IDENTITY_SIZE)
_CODES: Final = {1: "malformed", 2: "refused", 3: "memory is short"}


class Kind(enum.IntEnum):
    """What a message asks for."""

    HELLO = 1
    BEGIN = 2
    PORTION = 3
    END = 4
    CHANGE = 5
    SETTINGS = 6
    FORGET = 7
    STATE = 8
    LIST = 9


class Standing(enum.IntEnum):
    """How somebody stands in the plugin's table."""

    UNKNOWN = 0
    LISTED = 1
    SEATED = 2
    EVICTED = 3


class State(NamedTuple):
    """What the plugin has of one group."""

    members: int
    settings: bytes  # their digest
    buckets: tuple[int, ...]


class Hello(NamedTuple):
    """What the plugin says of itself."""

    boot: bytes
    largest: int  # message, in bytes
    groups: tuple[str, ...]


def name(text: str) -> bytes:
    """Return a name with its length in front."""
    encoded = text.encode()
    return bytes([len(encoded)]) + encoded


def entry(member: str, grant: Grant | None) -> bytes:
    """Return a member's entry in the table, by what it may do; None: it may not even connect.

    Whoever may ask for a place with any identity key has the rights of somebody unknown, and no place in the table.
    """
    if grant is None:
        return name(member) + _MEMBER.pack(Standing.EVICTED, NO_SLOT, _NO_IDENTITY)
    if grant.rank is Rank.MEMBER:
        slot = NO_SLOT if grant.slot is None else grant.slot
        return name(member) + _MEMBER.pack(Standing.SEATED, slot, grant.identity or _NO_IDENTITY)
    if grant.identity:
        return name(member) + _MEMBER.pack(Standing.LISTED, NO_SLOT, grant.identity)
    return absence(member)


def absence(member: str) -> bytes:
    """Return the entry that takes a member out of the table."""
    return name(member) + _MEMBER.pack(Standing.UNKNOWN, NO_SLOT, _NO_IDENTITY)


def is_absence(record: bytes) -> bool:
    """Return whether an entry is `absence`."""
    return record[1 + record[0]] == Standing.UNKNOWN


def settings(group: GuardedGroup, *, applicants: bool) -> bytes:
    """Return the settings of a group."""
    ways = (group.data.publish, group.data.subscribe)
    return bytes([group.degree, applicants]) + name(group.prefix) + b"".join(_filters(way) for way in ways)


def _filters(filters: Sequence[str]) -> bytes:
    encoded = [pattern.encode() for pattern in filters]
    return bytes([len(encoded)]) + b"".join(struct.pack(">H", len(one)) + one for one in encoded)


def bucket(member: str) -> int:
    """Return the bucket that a member id is in."""
    return hashlib.sha256(member.encode()).digest()[0]


def digest(encoded: bytes) -> int:
    """Return the digest of an entry or of settings."""
    return int.from_bytes(hashlib.sha256(encoded).digest()[:8])


def question(kind: Kind, serial: int, body: bytes) -> bytes:
    """Return a message to the plugin."""
    return _HEADER.pack(VERSION, kind, serial) + body


def serial_of(answer: bytes) -> int | None:
    """Return which question an answer is for, None if it cannot be told."""
    if len(answer) <= _HEADER.size or answer[0] != VERSION:
        return None
    serial: int = _HEADER.unpack_from(answer)[2]
    return serial


def read_answer(kind: Kind, answer: bytes) -> Reader:
    """Return what is behind the header of an answer to a question of this kind; raises `TransportError`."""
    reader = Reader(answer)
    if reader.number(1) != VERSION or reader.number(1) != kind:
        raise reader.malformed()
    reader.number(4)
    code = reader.number(1)
    if code:
        text = reader.rest().decode(errors="replace")[:200]
        message = f"Mosquitto's plugin did not do {kind.name.lower()}: {_CODES.get(code, code)}: {text}"
        raise TransportError(message)
    return reader


class Reader:
    """Reads an answer, which a broker that went wrong may have cut short."""

    def __init__(self, data: bytes) -> None:
        self._data: Final = data
        self._at = 0

    def malformed(self) -> TransportError:
        """Return the error for an answer that cannot be right."""
        return TransportError("Mosquitto's plugin gave an answer that cannot be read; is it of another version?")

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        if self._at + size > len(self._data):
            raise self.malformed()
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        """Return the next number of so many bytes."""
        return int.from_bytes(self.take(size))

    def identifier(self) -> str:
        """Return the next name."""
        text = self.take(self.number(1)).decode(errors="replace")
        if not is_identifier(text):
            raise self.malformed()
        return text

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(len(self._data) - self._at)

    def end(self) -> None:
        """See that nothing is left."""
        if self._at != len(self._data):
            raise self.malformed()

    def hello(self) -> Hello:
        """Return the body of an answer to a hello."""
        found = Hello(self.take(8), self.number(4), tuple(self.identifier() for _ in range(self.number(2))))
        self.end()
        return found

    def state(self) -> State:
        """Return the body of an answer about one group."""
        found = State(self.number(4), self.take(8), tuple(self.number(8) for _ in range(BUCKETS)))
        self.end()
        return found

    def entries(self) -> Iterator[tuple[str, bytes]]:
        """Yield members with their entries up to the end."""
        while self._at < len(self._data):
            begin = self._at
            member = self.identifier()
            self.take(_MEMBER.size)
            yield member, self._data[begin : self._at]
