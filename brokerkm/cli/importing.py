"""The work of `brokerkm member import`: rows from a file, sent a thousand at a time, with a bar on a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, BinaryIO

import click

from brokerkm.cli.output import print_json, printable
from brokerkm.service.api import IMPORT_ROWS
from brokerkm.service.rows import Row, parser, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from brokerkm.service import AdminApi


async def import_file(admin: AdminApi, group: str, file: BinaryIO, *, as_json: bool) -> Counter[str]:
    """List what is in `file`; return how many rows were added, unchanged and refused."""
    count: Counter[str] = Counter()
    await admin.show(group)
    batch: list[Row] = []
    sent = 0
    first = file.readline()
    parse = parser("application/jsonl" if first.lstrip().startswith(b"{") else "text/csv")
    with _progress(file) as advance:
        for row in rows(_lines(first, file), parse):
            batch.append(row)
            sent += row.size
            if len(batch) == IMPORT_ROWS:
                await _send(admin, group, batch, count, as_json=as_json)
                advance(sent)
                batch, sent = [], 0
        if batch:
            await _send(admin, group, batch, count, as_json=as_json)
            advance(sent)
    return count


def _lines(first: bytes, file: BinaryIO) -> Generator[bytes]:
    yield first
    yield from file


async def _send(admin: AdminApi, group: str, batch: list[Row], count: Counter[str], *, as_json: bool) -> None:
    done = iter(await admin.import_members(group, [(row.member, row.identity) for row in batch if not row.wrong]))
    for row in batch:
        result, reason = ("refused", row.wrong) if row.wrong else ((one := next(done)).result, one.reason)
        count[result] += 1
        if as_json:
            print_json({"line": row.line, "member": row.member, "result": result, "reason": reason})
        elif result == "refused":
            click.echo(f"line {row.line}: {printable(row.member)[:80]}: {printable(reason)}", err=True)


@contextlib.contextmanager
def _progress(file: BinaryIO) -> Generator[Callable[[int], object]]:
    """Give what moves the bar by so many bytes; there is none unless a person looks on."""
    if not sys.stderr.isatty():
        yield lambda _size: None
        return
    try:
        from rich.console import Console  # noqa: PLC0415 - for this one only
        from rich.progress import Progress  # noqa: PLC0415
    except ImportError:
        yield lambda _size: None
        return
    try:
        total: int | None = os.fstat(file.fileno()).st_size or None
    except OSError:
        total = None
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("importing", total=total)
        yield lambda size: bar.advance(task, size)
