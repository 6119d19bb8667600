"""`brokerkm token`: create, list, revoke enrollment tokens."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from brokerkm.cli.administration import administer, resolve_group, server_options
from brokerkm.cli.invitation import invite
from brokerkm.cli.output import json_option, print_json, print_table, printable, say_time

if TYPE_CHECKING:
    from pathlib import Path

    from brokerkm.service import AdminApi
    from brokerkm.service.api import TokenInfo

_group_option = click.option("-g", "--group", help="The group.  [default: the only one]")


@click.group()
def token() -> None:
    """Make enrollment tokens, list them, revoke them."""


token.add_command(invite, "create")


@token.command("list", epilog="\b\nExamples:\n  brokerkm token list\n  brokerkm token list --json | jq -r .id\n")
@_group_option
@server_options
@json_option
def list_(*, group: str | None, state: Path, as_json: bool) -> None:
    """List the tokens that still have uses, oldest first; with --json one object a line."""

    async def work(admin: AdminApi) -> list[TokenInfo]:
        return await admin.list_tokens(await resolve_group(admin, group))

    tokens = administer(state, work)
    if as_json:
        for info in tokens:
            print_json(dataclasses.asdict(info))
    elif tokens:
        print_table(
            ("TOKEN", "USES LEFT", "EXPIRES", "IDS", "NOTE"),
            [(one.id, one.uses_left, say_time(one.expires), one.pattern, printable(one.note)) for one in tokens],
        )
    else:
        click.echo("no token: `brokerkm invite` makes one")


@token.command(epilog="\b\nExamples:\n  brokerkm token revoke 90a1f2c3d4e5b607\n")
@click.argument("ids", metavar="TOKEN...", nargs=-1, required=True)
@_group_option
@server_options
@json_option
def revoke(*, ids: tuple[str, ...], group: str | None, state: Path, as_json: bool) -> None:
    """Make tokens void; who has joined with one stays."""

    async def work(admin: AdminApi) -> None:
        found = await resolve_group(admin, group)
        for one in ids:
            await admin.revoke_token(found, one)

    administer(state, work)
    for one in ids:
        if as_json:
            print_json({"token": one, "revoked": True})
        else:
            click.echo(f"token {one} is void")
