"""`brokerkm server`: the key servers that share a database; and `brokerkm group move` between them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from brokerkm.cli.administration import administer, server_options
from brokerkm.cli.output import json_option, print_json, print_table, say_time

if TYPE_CHECKING:
    from pathlib import Path

    from brokerkm.service import AdminApi
    from brokerkm.store.lease import ServerRecord


@click.group()
def server() -> None:
    """Look at the key servers that share a database."""


@server.command("list", epilog="\b\nExamples:\n  brokerkm server list\n  brokerkm server list --json | jq -r .id\n")
@server_options
@json_option
def list_(*, state: Path, as_json: bool) -> None:
    """List all servers and the groups that they lead; with --json one object a line."""

    async def work(admin: AdminApi) -> list[ServerRecord]:
        return await admin.servers()

    servers = administer(state, work)
    if as_json:
        for one in servers:
            print_json(dataclasses.asdict(one))
        return
    rows = [
        (
            one.id,
            "yes" if one.live else "no",
            say_time(one.seen) if one.seen else "-",
            one.url or "-",
            _said(one.groups),
        )
        for one in servers
    ]
    if not rows:
        click.echo(f"no server runs on {state}")
        return
    print_table(("SERVER", "RUNS", "SEEN", "URL", "LEADS"), rows)


@click.command(epilog="\b\nExamples:\n  brokerkm server list\n  brokerkm group move plant --to north-3f9a1c\n")
@click.argument("name")
@click.option("--to", required=True, metavar="SERVER", help="Its id, as `brokerkm server list` shows it.")
@server_options
@json_option
def move(*, name: str, to: str, state: Path, as_json: bool) -> None:
    """Have another server lead the group NAME, and keep it there while that server runs."""

    async def work(admin: AdminApi) -> None:
        await admin.move(name, to)

    administer(state, work)
    if as_json:
        print_json({"group": name, "to": to})
    else:
        click.echo(f"group {name} goes to {to}; `brokerkm server list` shows when it is there")


def _said(groups: tuple[str, ...]) -> str:
    shown = ", ".join(groups[:5])
    return f"{shown} and {len(groups) - 5} more" if len(groups) > 5 else shown or "-"  # noqa: PLR2004 - fit a line
