"""`brokerkm member`: list, show, add, import, evict, readmit, refresh."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import click

from brokerkm.cli.administration import administer, describe, resolve_group, server_options
from brokerkm.cli.invitation import parse_duration
from brokerkm.cli.lazy import FailedError
from brokerkm.cli.options import check_url
from brokerkm.cli.output import json_option, print_fields, print_json, print_table, say_time

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from pathlib import Path

    from brokerkm.offline import OfflineBundle
    from brokerkm.service import AdminApi, MemberFilter, MemberInfo
    from brokerkm.service.api import Evicted

_F = TypeVar("_F", bound="Callable[..., object]")

_group_option = click.option("-g", "--group", help="The group.  [default: the only one]")


def _filter_options(command: _F) -> _F:
    """Give a command the options that mean some of the members."""
    for decorate in (
        click.option("--behind", type=click.IntRange(0), help="Who has confirmed epochs, but none from this one on."),
        click.option("--unseen", callback=parse_duration, help="Who has not been seen for so long, such as 30d."),
        click.option("--match", default="*", help="Whose id matches this pattern, such as 'pump-*'."),
    ):
        command = decorate(command)
    return command


@click.group()
def member() -> None:
    """List members, admit devices, evict them."""


@member.command(
    "list",
    epilog="\b\nExamples:\n  brokerkm member list\n  brokerkm member list -g plant --unseen 30d --json\n",
)
@_group_option
@click.option("--status", type=click.Choice(("listed", "seated", "evicted", "pending")), help="Only those.")
@_filter_options
@server_options
@json_option
def list_(
    *,
    group: str | None,
    status: str | None,
    match: str,
    unseen: int | None,
    behind: int | None,
    state: Path,
    as_json: bool,
) -> None:
    """List members, and whoever is listed, waits or was evicted; with --json one object a line."""

    async def work(admin: AdminApi) -> list[MemberInfo]:
        name = await resolve_group(admin, group)
        members: list[MemberInfo] = []
        which = await _filter(admin, status, match, unseen, behind)
        while page := await admin.list_members(name, after=members[-1].member if members else "", which=which):
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
    elif (status, match, unseen, behind) == (None, "*", None, None):
        click.echo("no member yet: `brokerkm invite` makes an invitation for a device")
    else:
        click.echo("no such member")


@member.command(epilog="\b\nExamples:\n  brokerkm member show pump-7\n")
@click.argument("name", metavar="MEMBER")
@_group_option
@server_options
@json_option
def show(*, name: str, group: str | None, state: Path, as_json: bool) -> None:
    """Show what is known of a member."""

    async def work(admin: AdminApi) -> MemberInfo:
        return await admin.show_member(await resolve_group(admin, group), name)

    info = administer(state, work)
    values = dataclasses.asdict(info)
    if as_json:
        print_json(values)
        return
    for key in ("since", "seen", "blocked_until"):
        values[key] = say_time(values[key])
    values["slot"] = "-" if info.slot is None else info.slot
    values["acked"] = info.acked or "never"
    print_fields({key.replace("_", " "): value for key, value in values.items()})


@member.command(
    epilog="""\b
Examples:
  brokerkm identity fleet.join -i pump-7      (on the device)
  brokerkm member add pump-7 0f3b...          (on the server)
  brokerkm member add --offline pump-7.request -o pump-7.bundle --spares 12
"""
)
@click.argument("name", metavar="MEMBER", required=False)
@click.argument("identity", required=False)
@click.option(
    "--offline",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Instead, seat the device that made this request with `brokerkm identity --offline`.",
)
@click.option("-o", "--output", type=click.Path(dir_okay=False, allow_dash=True), help="File for the answer to it.")
@click.option("--broker", callback=check_url, help="URL of the broker in the answer.  [default: the server's]")
@click.option(
    "--spares",
    default=0,
    type=click.IntRange(0, 32),
    help="How many of the group's next keys are in it: it reads on by them while it misses every Rekey.",
)
@_group_option
@server_options
@json_option
def add(
    *,
    name: str | None,
    identity: str | None,
    offline: str | None,
    output: str | None,
    broker: str | None,
    spares: int,
    group: str | None,
    state: Path,
    as_json: bool,
) -> None:
    """List the public key IDENTITY, 64 hex digits: the device that holds it may join as MEMBER, without a token.

    With --offline, the device has its place at once. You vouch for it: the file does not say who has carried it here.
    """
    if offline is not None and output is not None and name is None:
        _add_offline(offline, output, broker, group, state, spares=spares, as_json=as_json)
        return
    if name is None or identity is None or (offline, output, broker, spares) != (None, None, None, 0):
        message = "give either MEMBER and IDENTITY, or --offline REQUEST and -o BUNDLE"
        raise click.UsageError(message)
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
@click.argument("names", metavar="[MEMBER...]", nargs=-1)
@_group_option
@click.option("--filter", "by_filter", is_flag=True, help="Evict all seated members that the options below mean.")
@_filter_options
@click.option("--dry-run", is_flag=True, help="Only say who would be evicted.")
@click.option("--batch", is_flag=True, help="Wait for the server's next commit instead of making one at once.")
@server_options
@json_option
def evict(
    *,
    names: tuple[str, ...],
    group: str | None,
    by_filter: bool,
    match: str,
    unseen: int | None,
    behind: int | None,
    dry_run: bool,
    batch: bool,
    state: Path,
    as_json: bool,
) -> None:
    """Cut members off: they cannot read what is sent from now on, nor come back by themselves."""
    narrowed = (match, unseen, behind) != ("*", None, None)
    if bool(names) == by_filter or narrowed != by_filter:
        message = "name the members, or say --filter with at least one of --match, --unseen, --behind"
        raise click.UsageError(message)

    async def work(admin: AdminApi) -> Evicted:
        found = await resolve_group(admin, group)
        whom = await _filter(admin, None, match, unseen, behind) if by_filter else names
        return await admin.evict_many(found, whom, urgent=not batch, dry_run=dry_run)

    from brokerkm.service import Outcome  # noqa: PLC0415 - not for --help

    done = administer(state, work)
    outcome = Outcome(done.epoch, done.published)
    for name in done.members:
        if as_json:
            print_json({"member": name, "dry_run": dry_run, **dataclasses.asdict(outcome)})
        else:
            click.echo(f"{name} would be evicted" if dry_run else f"{name} is out: {describe(outcome)}")
    if not done.members and not as_json:
        click.echo("no member is meant")


@member.command(epilog="\b\nExamples:\n  brokerkm member readmit pump-7\n")
@click.argument("name", metavar="MEMBER")
@_group_option
@server_options
@json_option
def readmit(*, name: str, group: str | None, state: Path, as_json: bool) -> None:
    """Let an evicted member join again with the identity key that it had."""

    async def work(admin: AdminApi) -> MemberInfo:
        return await admin.readmit(await resolve_group(admin, group), name)

    _print_member(administer(state, work), as_json=as_json)


@member.command(epilog="\b\nExamples:\n  brokerkm member refresh pump-7\n")
@click.argument("name", metavar="MEMBER")
@_group_option
@server_options
@json_option
def refresh(*, name: str, group: str | None, state: Path, as_json: bool) -> None:
    """Give a member a new key of its own with the next commit."""

    async def work(admin: AdminApi) -> MemberInfo:
        return await admin.refresh(await resolve_group(admin, group), name)

    info = administer(state, work)
    if as_json:
        print_json(dataclasses.asdict(info))
    else:
        click.echo(f"{info.member} gets a new leaf key with the next commit")


@member.command(
    "import", epilog="\b\nExamples:\n  brokerkm member import fleet.csv\n  brokerkm member import - < fleet.jsonl\n"
)
@click.argument("file", type=click.File("rb"))
@_group_option
@server_options
@json_option
def import_(*, file: BinaryIO, group: str | None, state: Path, as_json: bool) -> None:
    """Take in the devices in FILE: CSV, or one JSON object a line.

    \b
    member,identity             the device that holds this public key may join
    member,identity,kem_public  the device has its place at once, and its keys wait
                                for it at the broker; so does one whose request
                                (`brokerkm identity --offline`) is a line of FILE

    Keys are in hex digits. You vouch for the devices: FILE does not say where it comes from. A row that is wrong is
    refused with its line, the others go in. What is there already stays as it is, so that an import which broke off
    can be run again.
    """  # noqa: D301 - click's mark for lines that are not to be joined
    from brokerkm.cli.importing import import_file  # noqa: PLC0415 - rich, for this one only

    async def work(admin: AdminApi) -> Counter[str]:
        return await import_file(admin, await resolve_group(admin, group), file, as_json=as_json)

    count = administer(state, work)
    if not as_json:
        new = f"{count['seated']} seated, {count['added']} listed"
        click.echo(f"{new}, {count['unchanged']} were there already, {count['refused']} refused")
    if count["refused"]:
        message = f"{count['refused']} rows were refused: mend them and run the import again"
        raise FailedError(message)


async def _filter(
    admin: AdminApi, status: str | None, match: str, unseen: int | None, behind: int | None
) -> MemberFilter:
    """Return what the options mean, by the server's clock."""
    from brokerkm.service import MemberFilter  # noqa: PLC0415 - not for --help

    since = None if unseen is None else (await admin.status()).time - unseen * 1000
    return MemberFilter(status, match, since, behind)


def _add_offline(
    offline: str, output: str, broker: str | None, group: str | None, state: Path, *, spares: int, as_json: bool
) -> None:
    """Answer a request that was carried here."""
    from brokerkm.cli.carrying import read_request, write_bundle  # noqa: PLC0415 - not for --help

    request = read_request(offline)
    if group not in (None, request.group):
        message = f"the request is for group {request.group}, not {group}"
        raise click.UsageError(message)

    async def work(admin: AdminApi) -> OfflineBundle:
        return await admin.enroll_offline(request, broker=broker, spares=spares)

    write_bundle(administer(state, work), output, as_json=as_json)


def _print_member(info: MemberInfo, *, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(info))
    else:
        click.echo(f"{info.member} may join with the identity key {info.identity}")
