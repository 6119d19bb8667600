"""Strict msgpack: what is accepted, and the reason for each refusal. All bytes are written out."""

from __future__ import annotations

import pytest
from core.refusal import refused

from brokerkm.core.wire import (
    MAX_UINT,
    array,
    binary,
    binary_size,
    identifier,
    message_type,
    open_message,
    pack,
    text,
    uint,
    unpack_array,
)
from brokerkm.errors import Reason

GOOD = bytes.fromhex("94 01 05 c4 02 aabb cd 0100")  # [1, 5, h'aabb', 256]


def test_message_is_opened() -> None:
    """The fields after version and type come back."""
    assert [b"\xaa\xbb", 256] == open_message(GOOD, 5, 4)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "cc80"),
        (65535, "cdffff"),
        (65536, "ce00010000"),
        (MAX_UINT, "cf7fffffffffffffff"),
        (None, "c0"),
        (b"", "c400"),
        (b"\0" * 256, "c50100" + "00" * 256),
        ("é", "a2c3a9"),
        ((1, ()), "920190"),
    ],
)
def test_value_is_packed_in_its_shortest_form(value: object, encoded: str) -> None:
    """The encoding is the shortest that msgpack has."""
    assert bytes.fromhex(encoded) == pack(value)


@pytest.mark.parametrize("end", range(len(GOOD)))
def test_every_truncation_is_refused(end: int) -> None:
    """A message that stops early is refused as truncated."""
    with refused(Reason.TRUNCATED, "message"):
        open_message(GOOD[:end], 5, 4)


@pytest.mark.parametrize(
    ("encoded", "reason", "field"),
    [
        ("940105c402aabbcd010000", Reason.TRAILING, "message"),
        ("dc00040105c402aabbcd0100", Reason.NOT_CANONICAL, "message"),  # array16
        ("94cc0105c402aabbcd0100", Reason.NOT_CANONICAL, "message"),  # uint8 of 1
        ("940105c50002aabbcd0100", Reason.NOT_CANONICAL, "message"),  # bin16
        ("940105c402aabbce00000100", Reason.NOT_CANONICAL, "message"),  # uint32
        ("940205c402aabbcd0100", Reason.WRONG_VERSION, "version"),
        ("94c305c402aabbcd0100", Reason.WRONG_VERSION, "version"),  # true equals 1 in Python
        ("94cb3ff000000000000005c402aabbcd0100", Reason.WRONG_VERSION, "version"),  # 1.0
        ("90", Reason.WRONG_LENGTH, "message"),
        ("9101", Reason.WRONG_MESSAGE, "type"),
        ("940106c402aabbcd0100", Reason.WRONG_MESSAGE, "type"),
        ("9401c0c402aabbcd0100", Reason.WRONG_MESSAGE, "type"),
        ("930105c402aabb", Reason.WRONG_LENGTH, "message"),
        ("950105c402aabbcd0100c0", Reason.WRONG_LENGTH, "message"),
        ("810105", Reason.WRONG_TYPE, "message"),  # a map with an integer key
        ("81a10105", Reason.WRONG_TYPE, "message"),  # a map
        ("a3010203", Reason.WRONG_TYPE, "message"),
        ("05", Reason.WRONG_TYPE, "message"),
        ("c1", Reason.WRONG_TYPE, "message"),  # never used in msgpack
        ("940105a2c328cd0100", Reason.WRONG_TYPE, "message"),  # text that is not UTF-8
        ("ddffffffff", Reason.TRUNCATED, "message"),  # claims 4 billion elements
    ],
)
def test_message_is_refused(encoded: str, reason: Reason, field: str) -> None:
    """Each deviation has its reason, and names its field."""
    with refused(reason, field):
        open_message(bytes.fromhex(encoded), 5, 4)


def test_oversized_message_is_refused_unread() -> None:
    """What exceeds the limit by one byte is refused, whatever it holds."""
    assert [b"\xaa\xbb", 256] == open_message(GOOD, 5, 4, limit=len(GOOD))
    with refused(Reason.OVERSIZED, "message"):
        open_message(GOOD, 5, 4, limit=len(GOOD) - 1)


def test_default_limit_is_16_kib() -> None:
    """A protocol message has at most 16,384 bytes."""
    largest = b"\x91\xc5" + (16384 - 4).to_bytes(2, "big") + bytes(16384 - 4)
    assert [bytes(16384 - 4)] == unpack_array(largest)
    with refused(Reason.OVERSIZED, "message"):
        unpack_array(largest + b"\0")


@pytest.mark.parametrize(
    ("depth", "field"),
    [(1, "nonce"), (511, "nonce"), (512, "nonce"), (1022, "nonce"), (1025, "message"), (16000, "message")],
)
def test_nesting_is_refused_at_any_depth(depth: int, field: str) -> None:
    """Arrays within arrays end in a refusal, never in another error."""
    nested = b"\x93\x01\x05" + b"\x91" * depth + b"\xc0"
    with refused(Reason.WRONG_TYPE, field):
        binary(open_message(nested, 5, 3)[0], "nonce")


@pytest.mark.parametrize(
    ("encoded", "reason", "field"),
    [
        ("cb7ff8000000000000", Reason.WRONG_TYPE, "time"),  # not a number
        ("d40100", Reason.WRONG_TYPE, "time"),  # an extension
        ("d6ff00000000", Reason.WRONG_TYPE, "time"),  # a timestamp
        ("d7ff0000000000000000", Reason.NOT_CANONICAL, "message"),  # the same, longer
        ("d4ff00", Reason.WRONG_TYPE, "message"),  # a timestamp of one byte
        ("ff", Reason.OUT_OF_RANGE, "time"),  # -1
        ("cfffffffffffffffff", Reason.OUT_OF_RANGE, "time"),
    ],
)
def test_types_outside_the_format_are_refused(encoded: str, reason: Reason, field: str) -> None:
    """Whatever else msgpack has passes for no time."""
    with refused(reason, field):
        uint(open_message(b"\x93\x01\x05" + bytes.fromhex(encoded), 5, 3)[0], "time")


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [("9101", None), ("920101", 1), ("920108", 8), ("9201ccff", 255), ("9601070000000000", None)],
)
def test_type_is_read_from_the_head(encoded: str, expected: int | None) -> None:
    """The type is known without looking further."""
    payload = bytes.fromhex(encoded)
    if expected is None:
        with refused(Reason.WRONG_LENGTH if len(payload) == 2 else Reason.TRAILING, "message"):
            message_type(payload)
    else:
        assert expected == message_type(payload)


@pytest.mark.parametrize(
    ("encoded", "reason", "field"),
    [
        ("90", Reason.WRONG_LENGTH, "message"),
        ("920201", Reason.WRONG_VERSION, "version"),
        ("92c301", Reason.WRONG_VERSION, "version"),
        ("9201a131", Reason.WRONG_TYPE, "type"),
        ("9201cd0100", Reason.OUT_OF_RANGE, "type"),
        ("9201ff", Reason.OUT_OF_RANGE, "type"),  # -1
    ],
)
def test_type_is_refused(encoded: str, reason: Reason, field: str) -> None:
    """A head that is no message's is refused."""
    with refused(reason, field):
        message_type(bytes.fromhex(encoded))


@pytest.mark.parametrize("value", [True, 1.0, "1", b"1", None, []])
def test_uint_must_be_an_integer(value: object) -> None:
    """Nothing but an integer is one; true is not."""
    with refused(Reason.WRONG_TYPE, "epoch"):
        uint(value, "epoch")


@pytest.mark.parametrize("value", [-1, 2**63, 2**64 - 1])
def test_uint_must_be_below_2_to_the_63(value: int) -> None:
    """Integers fit a signed 64-bit column."""
    with refused(Reason.OUT_OF_RANGE, "epoch"):
        uint(value, "epoch")


@pytest.mark.parametrize(("value", "good"), [(2, False), (3, True), (5, True), (6, False)])
def test_uint_keeps_its_bounds(value: int, *, good: bool) -> None:
    """Both bounds belong to the range."""
    if good:
        assert value == uint(value, "step", 5, 3)
    else:
        with refused(Reason.OUT_OF_RANGE, "step"):
            uint(value, "step", 5, 3)


def test_binary_keeps_type_and_length() -> None:
    """Bytes of the right length pass, others do not."""
    assert b"ab" == binary(b"ab", "key", 2)
    assert b"ab" == binary(b"ab", "key", maximum=2)
    with refused(Reason.WRONG_TYPE, "key"):
        binary("ab", "key", 2)
    with refused(Reason.WRONG_LENGTH, "key"):
        binary(b"ab", "key", 3)
    with refused(Reason.WRONG_LENGTH, "key"):
        binary(b"ab", "key", maximum=1)


def test_array_keeps_type_and_length() -> None:
    """Arrays of the right length pass, others do not."""
    assert [1, 2] == array([1, 2], "entries", 2)
    assert [] == array([], "entries")
    with refused(Reason.WRONG_TYPE, "entries"):
        array(b"", "entries")
    with refused(Reason.WRONG_LENGTH, "entries"):
        array([1], "entries", 2)


def test_text_and_identifier_are_checked() -> None:
    """Text is text, and an identifier is one that may name a member."""
    assert "a b" == text("a b", "sender")
    assert "a-b" == identifier("a-b", "sender")
    with refused(Reason.WRONG_TYPE, "sender"):
        text(b"a", "sender")
    with refused(Reason.OUT_OF_RANGE, "sender"):
        identifier("a b", "sender")


@pytest.mark.parametrize("length", [0, 1, 255, 256, 65535, 65536])
def test_binary_size_is_that_of_the_encoding(length: int) -> None:
    """The size of an encoded byte string is known without encoding it."""
    head = {0: 2, 1: 2, 255: 2, 256: 3, 65535: 3, 65536: 5}[length]
    assert head + length == binary_size(length)
