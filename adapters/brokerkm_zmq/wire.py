"""What the ZeroMQ adapter puts on the wire: frames, commands and replies.

Two sockets at each end. Downwards, XPUB to XSUB, every message begins with a frame whose first
byte is its kind; libzmq matches subscriptions against that frame as byte prefixes:

    T topic NUL flag               | payload        for all subscribers of the topic
    A member NUL topic NUL flag    | payload        for one member; another's prefix cannot match
    B number                                        a beat: shows that messages were lost (see `hub`)
    D kind id …                                     for one subscriber: answer to its command

The NUL ends the topic, so that ``n/1`` is no prefix of ``n/10``; topics never contain one. The
flag says whether the hub keeps the payload as last value. A command travels upwards as a
subscription, which is all that XPUB hands to its user together with the pipe it came from:
msgpack ``[version, id, op, filters, generation, index, limit, before]``. Beside that, DEALER to ROUTER, a submission is
``id | op | topic | audience | payload`` and its answer ``id | error | detail``, no error when accepted.

Everything here refuses what it does not know by raising `MalformedError`; nothing is repaired.
"""

from __future__ import annotations

import dataclasses
import enum
import re
import struct
from typing import Final, cast

import msgpack

from brokerkm import topics
from brokerkm.errors import UsageError

VERSION: Final = 1
MAX_TOPIC: Final = 1024  # bytes of UTF-8; the protocol's own are below 200
MAX_COMMAND: Final = 16 * 1024  # bytes of one command; libzmq enforces it at the hub's XPUB
MAX_FILTERS: Final = 128  # filters in one command
MAX_TEXT: Final = 300  # bytes of an error text
MAX_FRAMES: Final = 8  # frames of any message; more is hostile
ENVELOPE: Final = 2048  # bytes that a frame may have beside a payload

ALL: Final = b"T"
ONE: Final = b"A"
BEAT: Final = b"B"
DIRECT: Final = b"D"

KEPT: Final = b"\x00r"
LIVE: Final = b"\x00l"

MEMBER_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NUMBER: Final = struct.Struct(">Q")
_DIRECT: Final = struct.Struct(">cQ")


class MalformedError(ValueError):
    """Frames from the network are not what this protocol writes; to be dropped."""


class Direct(enum.Enum):
    """What an answer to one subscriber is."""

    ACK = b"a"
    VALUE = b"v"
    END = b"e"


class Op(enum.Enum):
    """What a command asks of the hub."""

    SUBSCRIBE = "s"
    UNSUBSCRIBE = "u"
    PAGE = "p"


class Submit(enum.Enum):
    """What a submission asks of the hub."""

    HELLO = b"h"
    PUBLISH = b"p"
    RETAIN = b"r"
    REQUEST = b"q"


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """What a data message says of itself before its payload."""

    topic: str
    audience: str | None
    retain: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """A subscriber's command.

    Args:
        filters: exact topics, or one wildcard; or prefixes to unsubscribe.
        cursor, limit: of a page: where to go on, how many values at most.
        before: of a page: serial number after which values were sent live already.
    """

    id: int
    op: Op
    filters: tuple[str, ...]
    cursor: tuple[int, int] = (0, 0)
    limit: int = 0
    before: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Submission:
    """A member's publish or request, as the hub reads it."""

    id: bytes
    op: Submit
    topic: str
    audience: str | None
    payload: bytes


def check_size(name: str) -> None:
    """Raise `UsageError` if a topic or filter is longer than this adapter carries."""
    size = len(name.encode())
    if size > MAX_TOPIC:
        message = f"a topic over ZeroMQ has at most {MAX_TOPIC} bytes, this one {size}"
        raise UsageError(message)


def prefixes(topic_filter: str) -> list[str]:
    """Return the prefixes of topic and NUL that cover everything the filter matches."""
    if topics.is_exact(topic_filter):
        return [topic_filter + "\x00"]
    literal = re.split(r"[+#]", topic_filter, maxsplit=1)[0]
    if topic_filter == literal + "#" and literal:  # a/# matches a as well
        return [literal[:-1] + "\x00", literal]
    return [literal]


def head(topic: str, audience: str | None, *, retain: bool) -> bytes:
    """Return the first frame of a data message."""
    flag = KEPT if retain else LIVE
    if audience is None:
        return ALL + topic.encode() + flag
    return ONE + audience.encode() + b"\x00" + topic.encode() + flag


def read_head(frame: bytes) -> Head:
    """Read the first frame of a data message."""
    if len(frame) > ENVELOPE or frame[-2:] not in (KEPT, LIVE):
        message = "data message with a bad head"
        raise MalformedError(message)
    topic = frame[1:-2]
    audience: str | None = None
    if frame[:1] == ONE:
        member, separator, topic = topic.partition(b"\x00")
        audience = _read_member(member)
        if not separator or audience is None:
            message = "data message for nobody"
            raise MalformedError(message)
    return Head(read_topic(topic), audience, frame[-1:] == b"r")


def read_topic(data: bytes) -> str:
    """Read an exact topic."""
    try:
        topic = topics.check_topic(data.decode())
        check_size(topic)
    except ValueError as error:
        message = "bad topic"
        raise MalformedError(message) from error
    return topic


def _read_member(data: bytes) -> str | None:
    text = data.decode("ascii", "replace")
    if not text:
        return None
    if not MEMBER_ID.fullmatch(text):
        message = "bad member id"
        raise MalformedError(message)
    return text


def number(value: int) -> bytes:
    """Return an unsigned 64-bit number, big endian."""
    return _NUMBER.pack(value)


def read_number(data: bytes) -> int:
    """Read an unsigned 64-bit number."""
    if len(data) != _NUMBER.size:
        message = "bad number"
        raise MalformedError(message)
    (value,) = _NUMBER.unpack(data)
    return int(value)


def direct(kind: Direct, command: int) -> bytes:
    """Return the first frame of an answer to a command."""
    return DIRECT + _DIRECT.pack(kind.value, command)


def read_direct(frame: bytes) -> tuple[Direct, int]:
    """Read the first frame of an answer: its kind and the command's id."""
    if len(frame) != 1 + _DIRECT.size:
        message = "bad answer"
        raise MalformedError(message)
    kind, command = _DIRECT.unpack_from(frame, 1)
    try:
        return Direct(kind), command
    except ValueError as error:
        message = "unknown answer"
        raise MalformedError(message) from error


def command(request: Command) -> bytes:
    """Return the body of a command, without the byte that makes it a subscription."""
    fields = [VERSION, request.id, request.op.value, list(request.filters), *request.cursor, request.limit]
    fields.append(request.before)
    body: bytes = msgpack.packb(fields)
    return body


def read_command(body: bytes) -> Command:
    """Read the body of a command."""
    if len(body) > MAX_COMMAND:
        message = "command too long"
        raise MalformedError(message)
    try:
        unpacked = msgpack.unpackb(body, max_array_len=MAX_FILTERS, max_map_len=0, max_ext_len=0)
        version, identity, name, filters, generation, index, limit, before = cast("list[object]", unpacked)
        op = Op(name)
    except (ValueError, TypeError, RecursionError) as error:  # msgpack's own errors are ValueErrors
        message = "command of unknown form"
        raise MalformedError(message) from error
    if version != VERSION or not isinstance(filters, list):
        message = "command of another version or form"
        raise MalformedError(message)
    return Command(
        _read_integer(identity),
        op,
        _read_filters(cast("list[object]", filters), op),
        (_read_integer(generation), _read_integer(index)),
        _read_integer(limit),
        _read_integer(before),
    )


def _read_integer(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < 1 << 64:
        message = "not a number in range"
        raise MalformedError(message)
    return value


def _read_filters(filters: list[object], op: Op) -> tuple[str, ...]:
    if len(filters) > MAX_FILTERS:
        message = "too many filters"
        raise MalformedError(message)
    for entry in filters:
        if not isinstance(entry, str):
            message = "filter is not text"
            raise MalformedError(message)
        if op is Op.UNSUBSCRIBE:  # prefixes; a wrong one removes nothing
            continue
        try:
            check_size(topics.check_filter(entry))
        except UsageError as error:
            message = "bad filter"
            raise MalformedError(message) from error
    return tuple(str(entry) for entry in filters)


def read_submission(frames: list[bytes]) -> Submission:
    """Read what came to the hub's ROUTER, without the routing id."""
    if len(frames) != 5 or len(frames[0]) != _NUMBER.size:  # noqa: PLR2004 - id, op, topic, audience, payload
        message = "submission of unknown form"
        raise MalformedError(message)
    identity, op, topic, audience, payload = frames
    try:
        kind = Submit(op)
    except ValueError as error:
        message = "unknown submission"
        raise MalformedError(message) from error
    name = "" if kind is Submit.HELLO else read_topic(topic)
    return Submission(identity, kind, name, _read_member(audience), payload)
