"""`brokerkm bench`: what is measured, in which order, and how it is printed."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Final

import click

from brokerkm.bench import table
from brokerkm.bench.server import server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from brokerkm.bench.row import Row

CASES: Final = ("evict", "batch", "memory", "member", "data")
_EVICT_MEMBERS: Final = (1_000, 65_536, 1_000_000)
_BATCH_MEMBERS: Final = 1_000_000
_MEMBER_MEMBERS: Final = 65_536
_BATCH_SHARE: Final = 100  # one in so many is evicted at once


@click.group()
def bench() -> None:
    """Measure brokerkm, each figure beside its floor or a rival measured in the same run."""


bench.add_command(server)


@bench.command(epilog="Example: brokerkm bench core --case evict --members 1000000")
@click.option("--case", "cases", type=click.Choice(CASES), multiple=True, help="Only this case; may be repeated.")
@click.option("--members", type=click.IntRange(16, 1 << 24), help="Size of the group, instead of each case's own.")
@click.option("--degree", type=click.IntRange(2, 64), default=4, show_default=True, help="Degree of the key tree.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects instead of a table.")
def core(cases: tuple[str, ...], members: int | None, degree: int, *, as_json: bool) -> None:
    """Measure the core: evictions, memory, what a member pays.

    \b
    evict   one member of 1,000, of 65,536 and of 1,000,000
    batch   one in a hundred of 1,000,000 in one commit
    memory  resident bytes a member in the server
    member  one Rekey: signature, unwraps, new traffic keys
    data    sealing and opening one message of 256 bytes

    CPU is ours, floor the same primitives called bare by cryptography, both the best of several turns. flat / and
    pairwise / say how many times more bytes reach the fleet if all members get all keys in one message (GDOI's way),
    and how many times more messages are published if each member gets its own (E4's way).
    Exits with 1 if a figure breaks the limit printed with it.
    """  # noqa: D301 - click's mark for lines that are not to be joined
    rows: list[Row] = []
    if not as_json:
        click.echo(table.HEADER)
    for row in _rows(cases or CASES, members, degree, quiet=as_json):
        rows.append(row)
        if not as_json:
            click.echo(table.line(row))
    broken = [row for row in rows if not row.holds]
    if as_json:
        click.echo(json.dumps([row.as_dict() for row in rows], indent=2))
    elif broken:
        click.echo("\n".join(f"limit broken: {row.case} of {row.members:,}: {row.limit}" for row in broken), err=True)
    if broken:
        sys.exit(1)


def _rows(cases: tuple[str, ...], members: int | None, degree: int, *, quiet: bool) -> Iterator[Row]:
    """Measure, yielding each row as it is there; one group serves every case of its size."""
    from brokerkm.bench.commits import build_group, measure_eviction  # noqa: PLC0415 - `--help` needs none of it
    from brokerkm.bench.limits import judge  # noqa: PLC0415
    from brokerkm.bench.members import measure_data, measure_rekey  # noqa: PLC0415
    from brokerkm.bench.memory import measure_memory  # noqa: PLC0415

    if "memory" in cases:  # first: the figure is of a process of its own, but the machine's memory is not
        yield judge(measure_memory(members or _BATCH_MEMBERS, degree))
    sizes: dict[str, tuple[int, ...]] = {
        "evict": (members,) if members else _EVICT_MEMBERS,
        "batch": (members or _BATCH_MEMBERS,),
    }
    hidden = quiet or not sys.stderr.isatty()
    for size in sorted({size for case in sizes if case in cases for size in sizes[case]}):
        with click.progressbar(length=size, label=f"enrolling {size:,}", file=sys.stderr, hidden=hidden) as bar:
            group = build_group(size, degree, bar.update)
        if "evict" in cases and size in sizes["evict"]:
            yield judge(measure_eviction(group, "evict", 1, 15))
        if "batch" in cases and size in sizes["batch"]:
            yield judge(measure_eviction(group, "batch", max(1, size // _BATCH_SHARE), 5))
    if "member" in cases:
        yield judge(measure_rekey(min(members or _MEMBER_MEMBERS, _MEMBER_MEMBERS), degree, 5))
    if "data" in cases:
        yield judge(measure_data(9))
