"""`brokerkm bench server`: what the key server around the core costs, each figure beside its floor."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from brokerkm.bench.figure import Figure

CASES: Final = ("open", "evict", "import", "storm", "flood", "guard", "takeover")
_MEMBERS: Final = {"open": 1_000_000, "evict": 1_000_000, "import": 100_000, "storm": 50_000, "guard": 2_000}
_LINE: Final = "{:9}{:52}{:>11}{:>11}{:>9}  {}"
HEADER: Final = _LINE.format("case", "figure", "value", "floor", "ratio", "limit")


@click.command(epilog="Example: brokerkm bench server --case open --members 100000")
@click.option("--case", "cases", type=click.Choice(CASES), multiple=True, help="Only this case; may be repeated.")
@click.option("--members", type=click.IntRange(16, 1 << 24), help="Members, instead of each case's own number.")
@click.option("--broker", help="URL of a broker of its own for the storm.  [default: one in this process]")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects instead of a table.")
def server(cases: tuple[str, ...], members: int | None, broker: str | None, *, as_json: bool) -> None:
    """Measure the key server: storage, requests, several servers.

    \b
    open      opening a group of 1,000,000 members with SQLite: time and memory
    evict     one durable eviction from it
    import    100,000 devices enrolled at once, their Welcomes sealed on all cores
    storm     50,000 members that ask to sync at once
    flood     one request without a valid proof
    guard     one question of a broker that asks over HTTP, about one of 2,000 members
    takeover  a server is killed and another goes on (needs Debian's postgresql)

    A floor is what the disk or the bare library does in the same run. Exits with 1 if a figure breaks its limit.
    """  # noqa: D301 - click's mark for lines that are not to be joined
    figures: list[Figure] = []
    if not as_json:
        click.echo(HEADER)
    for figure in _figures(cases or CASES, members, broker):
        figures.append(figure)
        if not as_json:
            click.echo(line(figure))
    if as_json:
        click.echo(json.dumps([figure.as_dict() for figure in figures], indent=2))
    if not all(figure.holds for figure in figures):
        sys.exit(1)


def line(figure: Figure) -> str:
    """Return one line of the table."""
    limits = [f"≤ {_text(figure.at_most, figure.unit)}"] if figure.at_most is not None else []
    limits += [f"≥ {_text(figure.at_least, figure.unit)}"] if figure.at_least is not None else []
    verdict = f"{' '.join(limits)} {'kept' if figure.holds else 'BROKEN'}" if limits else ""
    floor = "" if figure.floor is None else _text(figure.floor, figure.unit)
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f} x"
    text = _LINE.format(figure.case, figure.what, _text(figure.value, figure.unit), floor, ratio, verdict).rstrip()
    return f"{text}\n{'':9}floor: {figure.floor_what}" if figure.floor_what else text


def _figures(cases: tuple[str, ...], members: int | None, broker: str | None) -> Iterator[Figure]:
    """Measure, yielding each figure as it is there; `open` and `evict` share one store."""
    sizes = {case: members or size for case, size in _MEMBERS.items()}
    if "open" in cases or "evict" in cases:
        yield from _stored(cases, sizes["open"])
    if "import" in cases:
        yield from _load("server_import:import_devices")(sizes["import"])
    if "storm" in cases:
        yield from _load("server_requests:sync_storm")(sizes["storm"], *([broker] if broker else []))
    if "flood" in cases:
        yield from _load("server_flood:refusal_cost")()
    if "guard" in cases:
        yield from _load("server_guard:authorize")(sizes["guard"])
    if "takeover" in cases:
        yield from _load("server_takeover:take_over")()


def _stored(cases: tuple[str, ...], members: int) -> Iterator[Figure]:
    hidden = not sys.stderr.isatty()
    with tempfile.TemporaryDirectory() as directory:
        with click.progressbar(length=members, label=f"enrolling {members:,}", file=sys.stderr, hidden=hidden) as bar:
            path = _load("server_store:plant")(Path(directory), members, bar.update)
        if "open" in cases:
            yield from _load("server_store:open_group")(path, members)
        if "evict" in cases:
            yield from _load("server_store:durable_eviction")(path)


def _load(name: str) -> Callable[..., list[Figure]]:
    """Import what measures a case: `--help` needs none of it."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(f"brokerkm.bench.{module}"), function)  # type: ignore[no-any-return]


def _text(value: float, unit: str) -> str:
    match unit:
        case "s":
            for name, scale in (("s", 1), ("ms", 1e3)):
                if value * scale >= 1:
                    return f"{value * scale:.3g} {name}"
            return f"{value * 1e6:.3g} µs"
        case "bytes":
            return f"{value / 1e6:,.1f} MB"
        case "/s":
            return f"{value:,.0f} /s"
        case _:
            return f"{value:.3g} {unit}"
