"""How results are printed: JSON for scripts, one object a line; aligned text for people."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Final, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_F = TypeVar("_F", bound="Callable[..., object]")

_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What moves a terminal's cursor, or turns text around; but for tab and newline."""


def json_option(command: _F) -> _F:
    """Give a command the flag ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for a script.")(command)


def print_json(value: object) -> None:
    """Print one value on one line; bytes become hexadecimal."""
    text = json.dumps(value, default=bytes.hex, ensure_ascii=False)
    click.echo(_CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def printable(text: str) -> str:
    """Return `text`, which others have chosen, with its control characters spelled out: no orders to a terminal."""
    return _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


def print_fields(fields: Mapping[str, object], indent: int = 0) -> None:
    """Print names and values in two columns; a value may have several lines."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        text = str(value).replace("\n", "\n" + " " * (indent + width + 2))
        click.echo(f"{'':{indent}}{name:{width}}  {text}")


def print_table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under titles, each column as wide as its widest cell."""
    lines = [list(titles), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def say_time(milliseconds: int) -> str:
    """Return a time for people; 0 is never."""
    if milliseconds == 0:
        return "never"
    return dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
