"""`brokerkm invite`: a descriptor with an enrollment token."""

from __future__ import annotations

import datetime as dt
import io
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, overload

import click

from brokerkm.cli.administration import administer, resolve_group, server_options
from brokerkm.cli.lazy import FailedError
from brokerkm.cli.options import check_url
from brokerkm.cli.output import json_option, print_json
from brokerkm.errors import UsageError

if TYPE_CHECKING:
    from types import ModuleType

    from brokerkm.descriptor import Descriptor
    from brokerkm.service import AdminApi

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhd])")


@overload
def parse_duration(_context: click.Context, _parameter: click.Parameter, text: str) -> int: ...
@overload
def parse_duration(_context: click.Context, _parameter: click.Parameter, text: None) -> None: ...
def parse_duration(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """Return the seconds in a number with a unit, such as 30m."""
    if text is None:
        return None
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
  brokerkm invite --uses 20 --pattern 'pump-*' --note 'hall 7, spring' --qr
  brokerkm invite -o - | ssh pump-7 'umask 077; cat > fleet.join'
"""
)
@click.option("-g", "--group", help="The group.  [default: the only one]")
@click.option("--uses", default=1, show_default=True, help="How many devices may join with it.")
@click.option("--expires", default="24h", show_default=True, callback=parse_duration, help="How long it is valid.")
@click.option("--pattern", default="*", help="Shell pattern that the devices' ids must match.  [default: any]")
@click.option("--note", default="", help="Your words, for `brokerkm token list`.")
@click.option("--broker", callback=check_url, help="URL at which devices reach the broker.  [default: the server's]")
@click.option("-o", "--output", help="File to write, mode 0600; - for standard output.  [default: GROUP.join]")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option("--qr/--no-qr", default=None, help="Show it as QR code and as text to paste.  [default: on a terminal]")
@server_options
@json_option
def invite(
    *,
    group: str | None,
    uses: int,
    expires: int,
    pattern: str,
    note: str,
    broker: str | None,
    output: str | None,
    force: bool,
    qr: bool | None,
    state: Path,
    as_json: bool,
) -> None:
    """Invite devices: write a descriptor with a token, which lets its holder join.

    Hand the file to the device by a way that you trust. The token itself is never sent over the network.
    """

    async def work(admin: AdminApi) -> Descriptor:
        found = await resolve_group(admin, group)
        _check_target(output or f"{found}.join", force=force)
        return await admin.invite(found, uses=uses, lifetime=expires, broker=broker, pattern=pattern, note=note)

    if qr:
        load_segno()  # before a token is made
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
    if qr if qr is not None else sys.stdout.isatty():
        _show(descriptor.to_line(), wanted=bool(qr))


def load_segno() -> ModuleType:
    """Return the library that draws QR codes; raises `UsageError` that says how to get it."""
    try:
        import segno  # noqa: PLC0415 - for codes only
    except ImportError as error:
        message = "QR codes need segno: pip install 'brokerkm[server]', or leave --qr out"
        raise UsageError(message) from error
    return segno


def _show(line: str, *, wanted: bool) -> None:
    """Show an invitation as text to paste and as QR code; without the library only if the code was not asked for."""
    click.echo("or, without the file, paste this there (it is no argument, which others could read):")
    click.echo(f"  brokerkm join - --member NAME <<'END'\n{line}\nEND")
    try:
        code = load_segno().make(line, error="l", micro=False)
    except UsageError:
        if wanted:
            raise
        return
    drawn = io.StringIO()
    code.terminal(drawn, compact=True)
    click.echo(drawn.getvalue(), nl=False)


def _check_target(target: str, *, force: bool) -> None:
    """See, before a token is made, that it can be written down."""
    if target != "-" and not force and Path(target).exists():
        message = f"{target} is there already, perhaps an invitation not used yet: name another with -o, or use --force"
        raise FailedError(message)
