"""`brokerkm invite`: a descriptor with an enrollment token."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from brokerkm.cli.administration import administer, resolve_group
from brokerkm.cli.lazy import FailedError
from brokerkm.cli.options import check_url, server_state_option
from brokerkm.cli.output import json_option, print_json

if TYPE_CHECKING:
    from brokerkm.descriptor import Descriptor
    from brokerkm.service import AdminApi

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhd])")


def parse_duration(_context: click.Context, _parameter: click.Parameter, text: str) -> int:
    """Return the seconds in a number with a unit, such as 30m."""
    found = _DURATION.fullmatch(text)
    if found is None:
        message = f"{text!r} is not a number with s, m, h or d: 90s, 30m, 24h, 7d"
        raise click.BadParameter(message)
    return int(found[1]) * _UNITS[found[2]]


@click.command(
    epilog="""\b
Examples:
  brokerkm invite
  brokerkm invite --uses 50 --expires 2h --broker mqtts://broker.example -o batch-7.join
  brokerkm invite -o - | ssh pump-7 'umask 077; cat > fleet.join'
"""
)
@click.option("-g", "--group", help="The group.  [default: the only one]")
@click.option("--uses", default=1, show_default=True, help="How many devices may join with it.")
@click.option("--expires", default="24h", show_default=True, callback=parse_duration, help="How long it is valid.")
@click.option("--broker", callback=check_url, help="URL at which devices reach the broker.  [default: the server's]")
@click.option("-o", "--output", help="File to write, mode 0600; - for standard output.  [default: GROUP.join]")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@server_state_option
@json_option
def invite(
    *,
    group: str | None,
    uses: int,
    expires: int,
    broker: str | None,
    output: str | None,
    force: bool,
    state: Path,
    as_json: bool,
) -> None:
    """Invite devices: write a descriptor with a token, which lets its holder join.

    Hand the file to the device by a way that you trust. The token itself is never sent over the network.
    """

    async def work(admin: AdminApi) -> Descriptor:
        found = await resolve_group(admin, group)
        _check_target(output or f"{found}.join", force=force)
        return await admin.invite(found, uses=uses, lifetime=expires, broker=broker)

    descriptor = administer(state, work)
    target = output or f"{descriptor.group}.join"
    if target == "-":
        click.echo(descriptor.to_json(), nl=False)
        return
    descriptor.write(target)
    until = dt.datetime.fromtimestamp(descriptor.token_expires or 0, dt.UTC)
    if as_json:
        print_json({"group": descriptor.group, "file": target, "uses": uses, "expires": descriptor.token_expires})
        return
    devices = "one device" if uses == 1 else f"{uses} devices"
    click.echo(f"wrote {target}: {devices} may join group {descriptor.group} with it until {until:%Y-%m-%d %H:%M} UTC.")
    click.echo("It is a secret: hand it over by a way that you trust. On the device:")
    click.echo(f"  brokerkm join {target} --member NAME")


def _check_target(target: str, *, force: bool) -> None:
    """See, before a token is made, that it can be written down."""
    if target != "-" and not force and Path(target).exists():
        message = f"{target} is there already, perhaps an invitation not used yet: name another with -o, or use --force"
        raise FailedError(message)
