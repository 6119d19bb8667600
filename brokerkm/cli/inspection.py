"""`brokerkm inspect`: what is in a captured message."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from brokerkm.cli.anatomy import Anatomy, Place, Value, check_signature, dissect, outline, place
from brokerkm.cli.output import json_option, print_fields, print_json, printable
from brokerkm.core.data import MAX_DATA
from brokerkm.core.names import DEFAULT_PREFIX
from brokerkm.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHOWN: Final = 16  # bytes of a longer byte string that a person gets to see
_ARRAY: Final = range(0x90, 0xA0)  # first byte of a msgpack array of up to 15 elements, which every message is
_HEXADECIMAL: Final = re.compile(rb"(?:[0-9A-Fa-f]{2}\s*)+")

_BAD: Final = "bad"
_VERDICTS: Final = {True: "good", False: _BAD, None: "not signed by the key server"}

_EXAMPLES: Final = """\b
Examples:
  brokerkm inspect captured.bin
  brokerkm inspect --topic bkm/1/plant/b --base64 mAECBQMFAM8...
  mosquitto_sub -t 'bkm/1/#' -F '%t %x' | brokerkm inspect --lines
  brokerkm inspect --json --hex 980801... | jq .fields.sender
"""


@click.command(epilog=_EXAMPLES)
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--hex", "hexadecimal", metavar="TEXT", help="The message itself, in hexadecimal.")
@click.option("--base64", "base_64", metavar="TEXT", help="The message itself, in base64.")
@click.option("-l", "--lines", is_flag=True, help="Read many messages: lines of TOPIC and hexadecimal.")
@click.option("-t", "--topic", help="Where it was captured; checks that it belongs there.")
@click.option("--prefix", default=DEFAULT_PREFIX, show_default=True, help="What the group's topics begin with.")
@click.option("--server-key", metavar="HEX", help="Check signatures with this key server's public key.")
@json_option
def inspect(
    *,
    file: BinaryIO,
    hexadecimal: str | None,
    base_64: str | None,
    lines: bool,
    topic: str | None,
    prefix: str,
    server_key: str | None,
    as_json: bool,
) -> None:
    """Show what is in a captured message, field by field.

    FILE holds the message as it was sent, or in hexadecimal or base64; standard input by default. No key is needed
    and none is shown: what is wrapped, sealed or encrypted stays so. Exits 1 if a message is malformed, and says
    which field is.
    """
    if sum((hexadecimal is not None, base_64 is not None, lines)) > 1:
        message = "give one of --hex, --base64 and --lines"
        raise click.UsageError(message)
    if server_key is not None and topic is None and not lines:
        message = "--server-key needs --topic: what the topic says is signed too"
        raise click.UsageError(message)
    key = None if server_key is None else _from_hexadecimal(server_key, "--server-key")
    captured: Iterator[tuple[str | None, bytes]]
    if lines:
        captured = _lines(file)
    elif hexadecimal is not None:
        captured = iter([(topic, _from_hexadecimal(hexadecimal, "--hex"))])
    elif base_64 is not None:
        captured = iter([(topic, _from_base64(base_64))])
    else:
        captured = iter([(topic, _recognize(file.read(2 * MAX_DATA)))])
    good = True
    for where, payload in captured:
        report = examine(payload, where, prefix, key)
        good = good and report.error is None and report.verdict != _BAD
        if as_json:
            print_json(report.as_json())
        else:
            _print(report)
    if not good:
        raise SystemExit(1)


@dataclass(slots=True)
class Report:
    """What there is to say about one captured message.

    Args:
        payload: as captured; empty if it clears what the broker retained.
        topic: where, if known.
        place: what the topic says.
        anatomy: what the message says, unless it is malformed.
        verdict: whether the key server's signature is good, if that was asked for.
        error: what is wrong with the message.
    """

    payload: bytes
    topic: str | None
    place: Place | None = None
    anatomy: Anatomy | None = None
    verdict: str | None = None
    error: RefusedError | None = None

    @property
    def kind(self) -> str:
        """The message's type for a reader."""
        if self.error is not None:
            return "malformed"
        return "cleared" if self.anatomy is None else self.anatomy.kind.name.lower()

    def as_json(self) -> dict[str, object]:
        """Return what a script gets."""
        value: dict[str, object] = {"type": self.kind, "bytes": len(self.payload)}
        if self.topic is not None:
            value["topic"] = self.topic
        if self.place is not None:
            value["place"] = self.place.fields
        if self.anatomy is not None:
            value["fields"] = self.anatomy.fields
        if self.verdict is not None:
            value["signature_check"] = self.verdict
        if self.error is not None:
            error = self.error
            value["error"] = {"field": error.field, "reason": error.reason, "detail": error.detail}
            value["elements"] = outline(self.payload)
        return value


def examine(payload: bytes, topic: str | None, prefix: str, server_key: bytes | None) -> Report:
    """Take one message apart, malformed or not.

    Args:
        payload: as captured.
        topic: where, if known.
        prefix: what tells the protocol's topics from an application's.
        server_key: public key for checking signatures, 32 bytes.
    """
    report = Report(payload, topic)
    try:
        if topic is not None:
            report.place = place(topic, prefix)
        if payload:
            report.anatomy = dissect(payload, report.place)
            if server_key is not None and report.place is not None:
                report.verdict = _VERDICTS[check_signature(report.anatomy, server_key, report.place)]
    except RefusedError as error:
        report.error = error
    return report


def _print(report: Report) -> None:
    click.echo(
        f"{report.kind.capitalize()}, {len(report.payload)} bytes"
        + (f", {printable(report.topic)}" if report.topic else "")
    )
    rows: dict[str, object] = {}
    for part in (report.place, report.anatomy):
        if part is not None:
            rows.update({name: _show(name, value) for name, value in part.fields.items()})
    if report.error is not None:
        rows["wrong"] = str(report.error)
        rows["elements"] = ", ".join(outline(report.payload)) or "none that can be read"
    elif report.anatomy is None:
        rows["payload"] = "empty: clears what the broker retained on this topic"
    if report.verdict is not None:
        rows["signature check"] = report.verdict
    print_fields(rows, indent=2)


def _show(name: str, value: Value) -> str:
    match value:
        case None:
            return "-"
        case bytes():
            more = f"... ({len(value)} bytes)" if len(value) > _SHOWN else ""
            return value[:_SHOWN].hex() + more
        case list():
            return "\n".join(_show(name, item) for item in value) or "none"
        case dict():
            return ", ".join(f"{key} {_show(key, item)}" for key, item in value.items())
        case int() if name in ("time", "expiry"):
            return f"{value} ({_date(value)})"
        case _:
            return str(value)


def _date(milliseconds: int) -> str:
    try:
        moment = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    except (ValueError, OverflowError, OSError):
        return "beyond the calendar"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _lines(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    for number, line in enumerate(file, 1):
        topic, _, text = line.strip().rpartition(b" ")
        if not topic:  # an empty payload leaves the topic alone
            topic, text = text, b""
        if topic:
            yield topic.decode(errors="replace"), _from_hexadecimal(text.decode(errors="replace"), f"line {number}")


def _recognize(data: bytes) -> bytes:
    """Return the message in `data`, which may be written in hexadecimal or base64."""
    if data and data[0] in _ARRAY:
        return data
    text = data.strip()
    if _HEXADECIMAL.fullmatch(text):
        return bytes.fromhex(text.decode())
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return data


def _from_hexadecimal(text: str, source: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        message = f"{source} is not hexadecimal: an even number of digits 0-9 a-f"
        raise click.UsageError(message) from None


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        message = f"--base64 is not base64: {error}"
        raise click.UsageError(message) from None
