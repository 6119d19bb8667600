"""The rows of an import, read as they arrive: CSV or JSON lines, each line bounded, each error its row's own."""

import csv
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, cast

from brokerkm.api.bodies import IMPORT_FORMATS
from brokerkm.api.problems import ProblemError

MAX_IMPORT: Final = 32 << 20  # bytes of one import
MAX_ROWS: Final = 100_000  # of one import
MAX_LINE: Final = 1024  # bytes; a row has about 140
_KEY_SIZE: Final = 32  # bytes; Ed25519
_HEADER: Final = ["member", "identity"]


@dataclass(frozen=True, slots=True)
class Row:
    """One row; `wrong` says why it cannot be read, if so."""

    line: int
    member: str
    identity: bytes
    wrong: str = ""


async def read_rows(chunks: AsyncIterator[bytes], media_type: str, size: int) -> AsyncIterator[list[Row]]:
    """Yield up to `size` rows at a time; raises `ProblemError` for what cannot be read as rows at all."""
    if media_type not in IMPORT_FORMATS:
        message = f"an import is {' or '.join(IMPORT_FORMATS)}, not {media_type[:80] or 'without a Content-Type'}"
        raise ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "wrong-media-type", message)
    parse = _from_csv if media_type == "text/csv" else _from_json
    batch: list[Row] = []
    count = 0
    async for number, line in _lines(chunks):
        if not line.strip() or (number == 1 and parse is _from_csv and _fields(line) == _HEADER):
            continue
        count += 1
        if count > MAX_ROWS:
            message = f"an import has up to {MAX_ROWS} rows: those from line {number} on were not looked at; split it"
            raise ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", message)
        try:
            batch.append(_row(number, *parse(line)))
        except ValueError as error:
            batch.append(Row(number, "", b"", str(error)))
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, str]]:
    number, rest = 0, b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            number += 1
            yield number, _text(number, line)
        if len(rest) > MAX_LINE:
            _text(number + 1, rest)
    if rest:
        yield number + 1, _text(number + 1, rest)


def _text(number: int, line: bytes) -> str:
    if len(line) > MAX_LINE:
        message = f"line {number} has more than {MAX_LINE} bytes; the rows before it may have been listed"
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", message)
    return line.decode("utf-8-sig" if number == 1 else "utf-8", "replace").rstrip("\r")


def _row(number: int, member: str, identity: str) -> Row:
    try:
        key = bytes.fromhex(identity)
    except ValueError:
        key = b""
    wrong = "" if len(key) == _KEY_SIZE else f"an identity is {2 * _KEY_SIZE} hex digits"
    return Row(number, member, key, wrong)


def _fields(line: str) -> list[str]:
    try:
        return [field.strip() for field in next(csv.reader([line], strict=True))]
    except csv.Error as error:
        raise ValueError(str(error)) from None


def _from_csv(line: str) -> tuple[str, str]:
    fields = _fields(line)
    if len(fields) != len(_HEADER):
        message = f"{len(fields)} columns, not member and identity"
        raise ValueError(message)
    return fields[0], fields[1]


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
