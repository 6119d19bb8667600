"""`brokerkm audit`: what was done, and by whom; whether anybody has changed that."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from brokerkm.cli.administration import administer, server_options
from brokerkm.cli.lazy import FailedError
from brokerkm.cli.output import json_option, print_json, print_table, printable, say_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from brokerkm.service import AdminApi
    from brokerkm.service.api import AuditInfo, AuditVerdict

_group_option = click.option("-g", "--group", default="", help="The group's log.  [default: the server's own]")
_after_option = click.option("--after", default=0, type=click.IntRange(0), help="Begin after the entry of this number.")


@click.group()
def audit() -> None:
    """Look at the audit log, export it, check that nobody has changed it."""


@audit.command(
    "list", epilog="\b\nExamples:\n  brokerkm audit list -g plant\n  brokerkm audit list -g plant --after 500\n"
)
@_group_option
@_after_option
@server_options
@json_option
def list_(*, group: str, after: int, state: Path, as_json: bool) -> None:
    """List the entries of a log, oldest first; with --json one object a line."""
    if as_json:
        _each(state, group, after, _print_entry)
        return
    rows: list[tuple[object, ...]] = []

    def keep(entry: AuditInfo) -> None:
        details = ", ".join(f"{name} {value}" for name, value in entry.details.items())
        rows.append((entry.number, say_time(entry.time), entry.actor, entry.action, entry.subject, printable(details)))

    _each(state, group, after, keep)
    if rows:
        print_table(("NUMBER", "TIME", "ACTOR", "ACTION", "SUBJECT", "DETAILS"), rows)
    else:
        click.echo("no entry" + ("" if group else " in the server's own log; --group shows that of a group"))


@audit.command(epilog="\b\nExamples:\n  brokerkm audit export -g plant > plant-audit.jsonl\n")
@_group_option
@_after_option
@server_options
def export(*, group: str, after: int, state: Path) -> None:
    """Print a log as JSON lines, each with the hash that covers it and all before it."""
    _each(state, group, after, _print_entry)


@audit.command(epilog="\b\nExamples:\n  brokerkm audit verify\n  brokerkm audit verify -g plant\n")
@click.option("-g", "--group", help="The group's log.  [default: the server's own, and that of every group]")
@server_options
@json_option
def verify(*, group: str | None, state: Path, as_json: bool) -> None:
    """Check that no entry of the logs was changed, dropped, added or moved.

    Whoever can write the store can replace a whole log: compare the last hash with one that you have exported.
    """

    async def work(admin: AdminApi) -> list[tuple[str, AuditVerdict]]:
        names = [group] if group is not None else ["", *(info.name for info in await admin.list_groups())]
        return [(name, await admin.verify_audit(name)) for name in names]

    broken: list[str] = []
    for name, verdict in administer(state, work):
        log = f"group {name}" if name else "the server"
        if as_json:
            print_json({"group": name, **dataclasses.asdict(verdict)})
        elif verdict.whole:
            click.echo(f"{log}: {verdict.entries} entries fit together; the last hash is {verdict.hash}")
        if not verdict.whole:
            broken.append(f"the audit log of {log} is broken after entry {verdict.entries}: {verdict.finding}")
    if broken:
        raise FailedError("; ".join(broken))


def _each(state: Path, group: str, after: int, use: Callable[[AuditInfo], None]) -> None:
    """Use the entries one by one, a page at a time."""

    async def work(admin: AdminApi) -> None:
        last = after
        while page := await admin.audit(group, after=last):
            for entry in page:
                use(entry)
            last = page[-1].number

    administer(state, work)


def _print_entry(entry: AuditInfo) -> None:
    print_json(dataclasses.asdict(entry))
