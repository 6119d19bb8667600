"""The rows of an import, as CSV or JSON lines. No I/O.

CSV has the columns member and identity: the device may join later, by itself; a third one, kem_public, has it seated at
once. A JSON line is an object with those names, or what `brokerkm identity --offline` makes of a device's request.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from brokerkm.core.crypto import PUBLIC_KEY_SIZE
from brokerkm.errors import UsageError
from brokerkm.offline import OfflineRequest
from brokerkm.service.api import ImportRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MAX_LINE: Final = 8192  # bytes; a row has about 140, one with a hybrid key 2,600, a request of such a device 3,000
FORMATS: Final = ("application/jsonl", "text/csv")
_COLUMNS: Final = ("member", "identity", "kem_public")
_LISTED: Final = 2  # columns of a row that only lists


@dataclass(frozen=True, slots=True)
class Row:
    """One row; `wrong` says why it cannot be read, if so, and `field` what of it. `size` is its line's, in bytes."""

    line: int
    said: ImportRow
    wrong: str = ""
    field: str = ""
    size: int = 0


def parser(media_type: str) -> Callable[[str], ImportRow | None]:
    """Return what reads a line of one of `FORMATS`, None for the header; it raises `UnreadableError`."""
    return _from_csv if media_type == "text/csv" else _from_json


def rows(lines: Iterable[bytes], parse: Callable[[str], ImportRow | None], first: int = 1) -> Iterator[Row]:
    """Yield the row of each line, the first of which has the number `first`.

    Raises:
        UsageError: a line is too long to be a row; those before it have been yielded.
    """
    for number, raw in enumerate(lines, first):
        if len(raw) > MAX_LINE:
            message = f"line {number} has more than {MAX_LINE} bytes; the rows before it may have been taken in"
            raise UsageError(message)
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8", "replace").strip()
        if not text:
            continue
        try:
            found = parse(text)
        except UnreadableError as error:
            yield Row(number, ImportRow(error.member, b""), error.reason, error.field, len(raw))
            continue
        if found is not None:
            yield Row(number, found, size=len(raw))
        elif number != 1:
            yield Row(number, ImportRow(_COLUMNS[0], b""), "a header, but not in the first line", size=len(raw))


def to_json(row: ImportRow, group: str) -> str:
    """Return the JSON line that says a row."""
    if row.join:
        return json.dumps(json.loads(OfflineRequest(group, row.member, row.join).to_json()))
    values = {"member": row.member, "identity": row.identity.hex()}
    return json.dumps({**values, "kem_public": row.kem_public.hex()} if row.kem_public else values)


class UnreadableError(Exception):
    """A row that cannot be read."""

    def __init__(self, reason: str, field: str = "", member: str = "") -> None:
        super().__init__(reason)
        self.member: Final = member
        self.field: Final = field
        self.reason: Final = reason


def _row(member: str, identity: str, kem_public: str | None) -> ImportRow:
    key = _hex(identity)
    if key is None or len(key) != PUBLIC_KEY_SIZE:
        message = f"an identity is {2 * PUBLIC_KEY_SIZE} hex digits"
        raise UnreadableError(message, "identity", member)
    if not kem_public:  # an empty third column is none
        return ImportRow(member, key)
    public = _hex(kem_public)
    if not public:
        message = "a KEM public key is written in hex digits"
        raise UnreadableError(message, "kem_public", member)
    return ImportRow(member, key, public)


def _hex(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


def _from_csv(line: str) -> ImportRow | None:
    try:
        fields = [field.strip() for field in next(csv.reader([line], strict=True))]
    except csv.Error as error:
        raise UnreadableError(str(error)) from None
    if tuple(fields) in (_COLUMNS, _COLUMNS[:_LISTED]):
        return None
    if not _LISTED <= len(fields) <= len(_COLUMNS):
        message = f"{len(fields)} columns, not member and identity, and kem_public if it is to be seated at once"
        raise UnreadableError(message)
    return _row(fields[0], fields[1], fields[2] if len(fields) > _LISTED else None)


def _from_json(line: str) -> ImportRow:
    try:
        value = cast("object", json.loads(line))
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        found = cast("dict[str, object]", value)
        if "brokerkm_request" in found:
            return _from_request(line, found)
        member, identity, kem_public = map(found.get, _COLUMNS)
        is_text = isinstance(member, str) and isinstance(identity, str) and isinstance(kem_public, str | None)
        if is_text and found.keys() <= set(_COLUMNS):
            return _row(cast("str", member), cast("str", identity), cast("str | None", kem_public))
    message = 'not an object with "member" and "identity" and perhaps "kem_public", all text, nor a device\'s request'
    raise UnreadableError(message)


def _from_request(line: str, found: dict[str, object]) -> ImportRow:
    try:
        request = OfflineRequest.from_json(line)
    except UsageError as error:
        member = found.get("member")
        raise UnreadableError(str(error), "join", member if isinstance(member, str) else "") from None
    return ImportRow(request.member, b"", join=request.join)
