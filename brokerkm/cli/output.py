"""How results are printed: JSON for scripts, one object a line; aligned text for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_F = TypeVar("_F", bound="Callable[..., object]")


def json_option(command: _F) -> _F:
    """Give a command the flag ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for a script.")(command)


def print_json(value: object) -> None:
    """Print one value on one line; bytes become hexadecimal."""
    click.echo(json.dumps(value, default=bytes.hex, ensure_ascii=False))


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
