"""`brokerkm admission`: who may join a group, and those who wait for a yes."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from brokerkm.cli.administration import administer, resolve_group, server_options
from brokerkm.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from brokerkm.service import AdminApi, MemberInfo

_group_option = click.option("-g", "--group", help="The group.  [default: the only one]")
_members_argument = click.argument("names", metavar="MEMBER...", nargs=-1, required=True)


@click.group()
def admission() -> None:
    """Say who may join; answer those who wait; let members out of quarantine; free ids for new hardware."""


@admission.command(epilog="\b\nExamples:\n  brokerkm admission show > policy.json\n")
@_group_option
@server_options
def show(*, group: str | None, state: Path) -> None:
    """Print the group's admission policy, as `set` takes it."""

    async def work(admin: AdminApi) -> dict[str, Any]:
        return await admin.show_admission(await resolve_group(admin, group))

    click.echo(json.dumps(administer(state, work), indent=2))


@admission.command(
    "set",
    epilog="""\b
Examples:
  brokerkm admission set policy.json
  echo '{"default": "approve"}' | brokerkm admission set -
\b
A policy, every member of which may be left out:
  {"rules": [{"action": "allow", "member": "pump-*", "proofs": ["certificate"], "issuer": "CN=plant *"},
             {"action": "allow", "returning": "same", "note": "a device that lost its state"},
             {"action": "deny", "token": "0123456789abcdef"}],
   "default": "approve",
   "certificates": {"authorities": "/etc/brokerkm/ca.pem", "lists": ["/etc/brokerkm/ca.crl"], "member": "cn"},
   "hook": {"url": "https://inventory.example/admit", "secret": "file:/etc/brokerkm/hook.key"},
   "conduct": {"clones": "quarantine", "changes": 30, "within": 600, "quarantine": 600},
   "pending": {"most": 1000, "expires": 604800}}
""",
)
@click.argument("policy", type=click.Path(allow_dash=True, dir_okay=False))
@_group_option
@server_options
def set_(*, policy: str, group: str | None, state: Path) -> None:
    """Replace the group's admission policy by the file POLICY (- for standard input); nothing of the old one stays.

    Rules are read in order, the first that matches a device decides, else the default: allow, deny, or approve, which
    makes it wait for `brokerkm admission approve`.
    """
    from brokerkm.admission.policy import MAX_SIZE, AdmissionPolicy  # noqa: PLC0415 - not for --help
    from brokerkm.errors import UsageError  # noqa: PLC0415

    try:
        if policy == "-":
            text = sys.stdin.read(MAX_SIZE + 1)
        else:
            with Path(policy).open(encoding="utf-8") as file:
                text = file.read(MAX_SIZE + 1)
    except (OSError, UnicodeDecodeError) as error:
        message = f"{policy}: {error.strerror if isinstance(error, OSError) else 'it is not UTF-8'}"
        raise UsageError(message) from error
    values: dict[str, Any] = json.loads(AdmissionPolicy.from_json(text).to_json())

    async def work(admin: AdminApi) -> str:
        found = await resolve_group(admin, group)
        await admin.set_admission(found, values)
        return found

    name = administer(state, work)
    click.echo(f"group {name}: {len(values['rules'])} rules, then {values['default']}; it counts from the next Join on")


@admission.command(epilog="\b\nExamples:\n  brokerkm admission pending\n")
@_group_option
@server_options
@json_option
def pending(*, group: str | None, state: Path, as_json: bool) -> None:
    """List those who wait for a yes; with --json one object a line."""
    from brokerkm.service.api import MemberFilter  # noqa: PLC0415 - not for --help

    async def work(admin: AdminApi) -> list[MemberInfo]:
        name = await resolve_group(admin, group)
        members: list[MemberInfo] = []
        which = MemberFilter(status="pending")
        while page := await admin.list_members(name, after=members[-1].member if members else "", which=which):
            members += page
        return members

    members = administer(state, work)
    if as_json:
        for info in members:
            print_json(dataclasses.asdict(info))
    elif members:
        print_table(("MEMBER", "IDENTITY"), [(info.member, info.identity) for info in members])
    else:
        click.echo("nobody waits")


@admission.command(epilog="\b\nExamples:\n  brokerkm admission approve pump-7 pump-8\n")
@_members_argument
@_group_option
@server_options
def approve(*, names: tuple[str, ...], group: str | None, state: Path) -> None:
    """Let those in who wait; compare their IDENTITY with what `brokerkm identity` prints on the device."""
    _each("approve", "is let in with the next commit", names, group, state)


@admission.command(epilog="\b\nExamples:\n  brokerkm admission reject pump-7\n")
@_members_argument
@_group_option
@server_options
def reject(*, names: tuple[str, ...], group: str | None, state: Path) -> None:
    """Turn those away who wait; they cannot ask again before `brokerkm member readmit`."""
    _each("reject", "is turned away", names, group, state)


@admission.command(epilog="\b\nExamples:\n  brokerkm admission lift pump-7\n")
@_members_argument
@_group_option
@server_options
def lift(*, names: tuple[str, ...], group: str | None, state: Path) -> None:
    """Let members out of quarantine."""
    _each("lift", "is out of quarantine", names, group, state)


@admission.command(epilog="\b\nExamples:\n  brokerkm admission release pump-7\n")
@_members_argument
@_group_option
@server_options
def release(*, names: tuple[str, ...], group: str | None, state: Path) -> None:
    """Free ids from their devices, which are evicted: a replacement may take them by a token or a certificate."""
    _each("release", "is free for another device", names, group, state)


def _each(call: str, told: str, names: tuple[str, ...], group: str | None, state: Path) -> None:
    """Do something to each member that is named, and say so."""

    async def work(admin: AdminApi) -> None:
        found = await resolve_group(admin, group)
        for name in names:
            await getattr(admin, call)(found, name)
            click.echo(f"{name} {told}")

    administer(state, work)
