"""`brokerkm status`: how the server is."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from brokerkm.cli.administration import administer, runs, server_options
from brokerkm.cli.output import json_option, print_fields, print_json, print_table, say_time

if TYPE_CHECKING:
    from pathlib import Path

    from brokerkm.service import AdminApi, GroupInfo
    from brokerkm.service.api import ServerStatus


@click.command(epilog="\b\nExamples:\n  brokerkm status\n  brokerkm status --json | jq .unpublished\n")
@server_options
@json_option
def status(*, state: Path, as_json: bool) -> None:
    """Show how the server is, and its groups; if none runs, what its store holds."""

    async def work(admin: AdminApi) -> tuple[bool, ServerStatus, list[GroupInfo]]:
        return runs(admin), await admin.status(), await admin.list_groups()

    running, info, groups = administer(state, work)
    values = dataclasses.asdict(info)
    if as_json:
        print_json({"running": running, **values})
        return
    if not running:
        click.echo(f"no server runs on {state}. Its store holds:\n")
    values["time"] = say_time(info.time)
    values["unserved"] = "\n".join(info.unserved.values()) or "none"
    print_fields(values)
    if groups:
        click.echo()
        rows = [(one.name, one.members, one.epoch, one.waiting, one.unpublished, _state(one)) for one in groups]
        print_table(("GROUP", "MEMBERS", "EPOCH", "WAITING", "UNPUBLISHED", "STATE"), rows)


def _state(group: GroupInfo) -> str:
    if group.problem:
        return "not served"
    return "destroyed" if group.destroyed else "frozen" if group.frozen else "in service"
