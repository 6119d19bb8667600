"""The rows of an import: CSV with the columns member and identity, or one JSON object a line. No I/O."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from brokerkm.core.crypto import PUBLIC_KEY_SIZE
from brokerkm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MAX_LINE: Final = 1024  # bytes; a row has about 140
FORMATS: Final = ("application/jsonl", "text/csv")
_HEADER: Final = ("member", "identity")


@dataclass(frozen=True, slots=True)
class Row:
    """One row; `wrong` says why it cannot be read, if so. `size` is that of its line, in bytes."""

    line: int
    member: str
    identity: bytes
    wrong: str = ""
    size: int = 0


def parser(media_type: str) -> Callable[[str], tuple[str, str] | None]:
    """Return what reads a line of one of `FORMATS`: member and identity, or None for the header."""
    return _from_csv if media_type == "text/csv" else _from_json


def rows(lines: Iterable[bytes], parse: Callable[[str], tuple[str, str] | None], first: int = 1) -> Iterator[Row]:
    """Yield the row of each line, the first of which has the number `first`.

    Raises:
        UsageError: a line is too long to be a row; those before it have been yielded.
    """
    for number, raw in enumerate(lines, first):
        if len(raw) > MAX_LINE:
            message = f"line {number} has more than {MAX_LINE} bytes; the rows before it may have been listed"
            raise UsageError(message)
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8", "replace").strip()
        if not text:
            continue
        try:
            found = parse(text)
        except ValueError as error:
            yield Row(number, "", b"", str(error), len(raw))
            continue
        if found is None and number == 1:
            continue
        yield _row(number, *(found or _HEADER), size=len(raw))


def _row(number: int, member: str, identity: str, size: int) -> Row:
    try:
        key = bytes.fromhex(identity)
    except ValueError:
        key = b""
    wrong = "" if len(key) == PUBLIC_KEY_SIZE else f"an identity is {2 * PUBLIC_KEY_SIZE} hex digits"
    return Row(number, member, key, wrong, size)


def _from_csv(line: str) -> tuple[str, str] | None:
    try:
        fields = [field.strip() for field in next(csv.reader([line], strict=True))]
    except csv.Error as error:
        raise ValueError(str(error)) from None
    if len(fields) != len(_HEADER):
        message = f"{len(fields)} columns, not member and identity"
        raise ValueError(message)
    return None if tuple(fields) == _HEADER else (fields[0], fields[1])


def _from_json(line: str) -> tuple[str, str]:
    try:
        value = cast("object", json.loads(line))
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        found = cast("dict[str, object]", value)
        member, identity = found.get("member"), found.get("identity")
        if len(found) == len(_HEADER) and isinstance(member, str) and isinstance(identity, str):
            return member, identity
    message = 'not an object with "member" and "identity", both text'
    raise ValueError(message)
