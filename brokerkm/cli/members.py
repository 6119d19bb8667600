"""`brokerkm member`: list, add, evict, readmit."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from brokerkm.cli.administration import administer, describe, resolve_group
from brokerkm.cli.options import server_state_option
from brokerkm.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from pathlib import Path

    from brokerkm.service import AdminApi, MemberInfo, Outcome

_group_option = click.option("-g", "--group", help="The group.  [default: the only one]")


@click.group()
def member() -> None:
    """List members, admit devices, evict them."""


@member.command("list", epilog="\b\nExamples:\n  brokerkm member list\n  brokerkm member list -g plant --json\n")
@_group_option
@server_state_option
@json_option
def list_(*, group: str | None, state: Path, as_json: bool) -> None:
    """List all members, and whoever is listed or was evicted; with --json one object a line."""

    async def work(admin: AdminApi) -> list[MemberInfo]:
        name = await resolve_group(admin, group)
        members: list[MemberInfo] = []
        while page := await admin.list_members(name, after=members[-1].member if members else ""):
            members += page
        return members

    members = administer(state, work)
    if as_json:
        for info in members:
            print_json(dataclasses.asdict(info))
    elif members:
        rows = [
            (info.member, info.status, "-" if info.slot is None else info.slot, info.epoch, info.identity)
            for info in members
        ]
        print_table(("MEMBER", "STATUS", "SLOT", "EPOCH", "IDENTITY"), rows)
    else:
        click.echo("no member yet: `brokerkm invite` makes an invitation for a device")


@member.command(
    epilog="""\b
Examples:
  brokerkm identity fleet.join -i pump-7      (on the device)
  brokerkm member add pump-7 0f3b...          (on the server)
"""
)
@click.argument("name", metavar="MEMBER")
@click.argument("identity")
@_group_option
@server_state_option
@json_option
def add(*, name: str, identity: str, group: str | None, state: Path, as_json: bool) -> None:
    """List the public key IDENTITY, 64 hex digits: the device that holds it may join as MEMBER, without a token."""
    try:
        key = bytes.fromhex(identity)
    except ValueError:
        message = "IDENTITY is 64 hex digits: what `brokerkm identity` prints on the device"
        raise click.UsageError(message) from None

    async def work(admin: AdminApi) -> MemberInfo:
        return await admin.add_member(await resolve_group(admin, group), name, key)

    _print_member(administer(state, work), as_json=as_json)


@member.command(
    epilog="\b\nExamples:\n  brokerkm member evict pump-7\n  brokerkm member evict -g plant pump-7 pump-8\n"
)
@click.argument("names", metavar="MEMBER...", nargs=-1, required=True)
@_group_option
@click.option("--batch", is_flag=True, help="Wait for the server's next commit instead of making one at once.")
@server_state_option
@json_option
def evict(*, names: tuple[str, ...], group: str | None, batch: bool, state: Path, as_json: bool) -> None:
    """Cut members off: they cannot read what is sent from now on, nor come back by themselves."""

    async def work(admin: AdminApi) -> list[Outcome]:
        found = await resolve_group(admin, group)
        return [await admin.evict(found, name, urgent=not batch) for name in names]

    for name, outcome in zip(names, administer(state, work), strict=True):
        if as_json:
            print_json({"member": name, **dataclasses.asdict(outcome)})
        else:
            click.echo(f"{name} is out: {describe(outcome)}")


@member.command(epilog="\b\nExamples:\n  brokerkm member readmit pump-7\n")
@click.argument("name", metavar="MEMBER")
@_group_option
@server_state_option
@json_option
def readmit(*, name: str, group: str | None, state: Path, as_json: bool) -> None:
    """Let an evicted member join again with the identity key that it had."""

    async def work(admin: AdminApi) -> MemberInfo:
        return await admin.readmit(await resolve_group(admin, group), name)

    _print_member(administer(state, work), as_json=as_json)


def _print_member(info: MemberInfo, *, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(info))
    else:
        click.echo(f"{info.member} may join with the identity key {info.identity}")
