"""The work of `brokerkm member import`: rows from a file, sent some thousand at a time, with a bar on a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from brokerkm.cli.output import print_json, printable
from brokerkm.service.api import Imported
from brokerkm.service.rows import Row, parser, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from brokerkm.service import AdminApi

BATCH: Final = 4096  # rows of one commit; a quarter of a second, in which the server does nothing else in the group


async def import_file(admin: AdminApi, group: str, file: BinaryIO, *, as_json: bool) -> Counter[str]:
    """Take in what is in `file`; return how many rows were added, seated, unchanged and refused."""
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
            if len(batch) == BATCH:
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
    done = iter(await admin.import_members(group, [row.said for row in batch if not row.wrong]))
    for row in batch:
        one = Imported(row.said.member, "refused", row.wrong, row.field) if row.wrong else next(done)
        count[one.result] += 1
        said = {"member": row.said.member, "result": one.result, "field": one.field, "reason": one.reason}
        if as_json:
            print_json({"line": row.line, **said})
        elif one.result == "refused":
            where = f"{printable(row.said.member)[:80]}: {one.field}" if one.field else printable(row.said.member)[:80]
            click.echo(f"line {row.line}: {where}: {printable(one.reason)}", err=True)


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
