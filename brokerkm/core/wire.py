"""Strict msgpack: how a message becomes bytes, and what is refused on the way back.

A message is one msgpack array of unsigned integers, byte strings, text and nil, each in its shortest
encoding; nothing else is accepted. Every check names the field that is wrong. This module knows types and
sizes; what the fields mean is the business of `brokerkm.core.messages`.
"""

from collections.abc import Callable, Sequence
from typing import Final, cast

import msgpack

from brokerkm.core.names import is_identifier
from brokerkm.errors import Reason, RefusedError

VERSION: Final = 1
MAX_MESSAGE: Final = 16 * 1024  # bytes; protocol.md section 3. Data may be larger: the broker's limit
MAX_UINT: Final = (1 << 63) - 1  # epochs, births, times, counters; fits a signed column of any database
NONCE_SIZE: Final = 16  # bytes
_FEW: Final = 16  # arrays in a long message, and elements in each of them: Data has 2, of 10 and 3

_packer: Final = msgpack.Packer(use_bin_type=True)
pack: Final = cast("Callable[[object], bytes]", _packer.pack)
"""Encode one value; the packer keeps no state between calls."""


def _unpack(payload: bytes, few: Callable[[list[object]], list[object]] | None = None) -> object:
    most = -1 if few is None else _FEW  # -1 is msgpack's own limit: what the payload has room for
    none = -1 if few is None else 0
    try:
        return msgpack.unpackb(
            payload,
            raw=False,
            use_list=True,
            strict_map_key=True,
            list_hook=few,
            max_array_len=most,
            max_map_len=none,
            max_ext_len=none,
        )
    except msgpack.ExtraData:
        raise RefusedError(Reason.TRAILING, "message") from None
    except msgpack.StackError:
        raise RefusedError(Reason.WRONG_TYPE, "message", "nested too deeply") from None
    except (msgpack.FormatError, UnicodeDecodeError):
        raise RefusedError(Reason.WRONG_TYPE, "message", "not msgpack") from None
    except ValueError as error:  # "incomplete input", or a length that "exceeds" what follows it
        cut = "incomplete" in str(error) or "exceeds" in str(error)
        reason = Reason.TRUNCATED if cut else Reason.WRONG_TYPE
        raise RefusedError(reason, "message") from None


def _at_most_few() -> Callable[[list[object]], list[object]]:
    """Return what msgpack is to call for each array: it refuses a long message of many arrays while it is read."""
    left = iter(range(_FEW))

    def count(items: list[object]) -> list[object]:
        if next(left, None) is None:
            raise RefusedError(Reason.WRONG_TYPE, "message", "too many arrays")
        return items

    return count


def unpack_array(payload: bytes, limit: int = MAX_MESSAGE, *, few: bool = False) -> list[object]:
    """Return the elements of the one canonical array that `payload` is; raises `RefusedError`.

    Args:
        few: refuse more than a few arrays and elements if it is longer than a protocol message: each of its
            bytes could become a hundred in memory.
    """
    if len(payload) > limit:
        raise RefusedError(Reason.OVERSIZED, "message", f"{len(payload)} bytes, at most {limit}")
    value = _unpack(payload, _at_most_few() if few and len(payload) > MAX_MESSAGE else None)
    if not isinstance(value, list):
        raise RefusedError(Reason.WRONG_TYPE, "message", "not an array")
    return cast("list[object]", value)


def check_canonical(fields: Sequence[object], payload: bytes) -> None:
    """Refuse `payload` if it is not the shortest encoding of `fields`."""
    if pack(fields) != payload:
        raise RefusedError(Reason.NOT_CANONICAL, "message")


def message_type(payload: bytes, limit: int = MAX_MESSAGE) -> int:
    """Return the type of the message in `payload` without looking further; raises `RefusedError`."""
    fields = unpack_array(payload, limit)
    if len(fields) < 2:  # noqa: PLR2004 - version and type
        raise RefusedError(Reason.WRONG_LENGTH, "message")
    if fields[0] != VERSION or type(fields[0]) is not int:
        raise RefusedError(Reason.WRONG_VERSION, "version")
    return uint(fields[1], "type", 255)


def open_message(payload: bytes, expected: int, length: int, limit: int = MAX_MESSAGE) -> list[object]:
    """Return the fields after version and type of a canonical message.

    Args:
        payload: the bytes received.
        expected: the message type that alone is accepted.
        length: how many elements the whole array has.
        limit: largest accepted size in bytes.

    Raises:
        RefusedError: oversized, truncated, trailing, not-canonical, wrong-version, wrong-message,
            wrong-type or wrong-length.
    """
    fields = unpack_array(payload, limit)
    if not fields:
        raise RefusedError(Reason.WRONG_LENGTH, "message")
    if type(fields[0]) is not int or fields[0] != VERSION:
        raise RefusedError(Reason.WRONG_VERSION, "version")
    if len(fields) < 2 or type(fields[1]) is not int or fields[1] != expected:  # noqa: PLR2004 - version and type
        raise RefusedError(Reason.WRONG_MESSAGE, "type", f"expected {expected}")
    if len(fields) != length:
        raise RefusedError(Reason.WRONG_LENGTH, "message", f"{len(fields)} elements, not {length}")
    check_canonical(fields, payload)
    return fields[2:]


def uint(value: object, field: str, maximum: int = MAX_UINT, minimum: int = 0) -> int:
    """Return `value` if it is an integer from `minimum` to `maximum`; raises `RefusedError`."""
    if type(value) is not int:  # a bool is an int to isinstance
        raise RefusedError(Reason.WRONG_TYPE, field)
    if not minimum <= value <= maximum:
        raise RefusedError(Reason.OUT_OF_RANGE, field)
    return value


def binary(value: object, field: str, length: int | None = None, maximum: int = MAX_MESSAGE) -> bytes:
    """Return `value` if it is bytes, `length` of them if given; raises `RefusedError`."""
    if type(value) is not bytes:
        raise RefusedError(Reason.WRONG_TYPE, field)
    if len(value) > maximum or (length is not None and len(value) != length):
        raise RefusedError(Reason.WRONG_LENGTH, field)
    return value


def array(value: object, field: str, length: int | None = None) -> list[object]:
    """Return `value` if it is an array, of `length` elements if given; raises `RefusedError`."""
    if type(value) is not list:
        raise RefusedError(Reason.WRONG_TYPE, field)
    items = cast("list[object]", value)
    if length is not None and len(items) != length:
        raise RefusedError(Reason.WRONG_LENGTH, field)
    return items


def text(value: object, field: str) -> str:
    """Return `value` if it is text; raises `RefusedError`."""
    if type(value) is not str:
        raise RefusedError(Reason.WRONG_TYPE, field)
    return value


def identifier(value: object, field: str) -> str:
    """Return `value` if it is text that may name a group or a member; raises `RefusedError`."""
    name = text(value, field)
    if not is_identifier(name):
        raise RefusedError(Reason.OUT_OF_RANGE, field)
    return name


def binary_size(length: int) -> int:
    """Return how many bytes the shortest encoding of a byte string of `length` bytes has."""
    if length < 1 << 8:
        return length + 2
    return length + (3 if length < 1 << 16 else 5)
