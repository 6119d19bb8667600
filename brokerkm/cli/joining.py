"""`brokerkm join`, `brokerkm leave`, `brokerkm identity`: a device and its place in a group."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from brokerkm.cli.carrying import accept, is_bundle, print_row, read_file, write_request
from brokerkm.cli.home import Home, find
from brokerkm.cli.options import check_url, login_options, member_state_option
from brokerkm.cli.output import json_option, print_json
from brokerkm.descriptor import Descriptor
from brokerkm.offline import MAX_SIZE
from brokerkm.transport import Role

if TYPE_CHECKING:
    from pathlib import Path

    from brokerkm.transport import Options


@click.command(
    epilog="""\b
Examples:
  brokerkm join fleet.join --member pump-7
  brokerkm join - --member pump-7 < fleet.join
  brokerkm join - --member pump-7               (asks for what `brokerkm invite --qr` shows)
  brokerkm join pump-7.bundle                   (the answer to `brokerkm identity --offline`)
"""
)
@click.argument("descriptor", type=click.Path(allow_dash=True))
@click.option("-i", "--member", help="This device's id, unique in the group; a bundle names it.")
@click.option("--broker", callback=check_url, help="URL of the broker.  [default: the descriptor's]")
@click.option(
    "--timeout", default=30.0, show_default=True, type=click.FloatRange(0), help="Seconds to wait for the key server."
)
@click.option("--rejoin", is_flag=True, help="Ask for a place again after an eviction.")
@click.option(
    "--certificate", type=click.Path(dir_okay=False), help="PEM file: the device certificate that lets it in, and on."
)
@click.option("--key", type=click.Path(dir_okay=False), help="PEM file with the certificate's private key, mode 0600.")
@login_options(Role.MEMBER)
@member_state_option
@json_option
def join(
    *,
    descriptor: str,
    member: str | None,
    broker: str | None,
    timeout: float,
    rejoin: bool,
    certificate: str | None,
    key: str | None,
    options: Options,
    state: Path,
    as_json: bool,
) -> None:
    """Join the group that the file DESCRIPTOR describes (- for standard input), and keep the keys.

    A member that has joined already is resumed and says where it stands. A bundle, made by `brokerkm member add
    --offline`, has the keys in it: then nothing is sent, and what is said of the broker counts for later.
    """
    text = _text(descriptor)
    if is_bundle(text):
        accept(text, member, state, as_json=as_json)
        return
    if member is None:
        message = "Missing option '-i' / '--member': this device's id, unique in the group"
        raise click.UsageError(message)
    from brokerkm.sdk.sync import connect_sync  # noqa: PLC0415 - not for --help

    read = _parse(descriptor, text)
    directory = state / read.group / member
    with connect_sync(
        broker,
        read,
        member=member,
        state_dir=directory,
        timeout=timeout,
        rejoin=rejoin,
        certificate=certificate,
        key=key,
        options=options,
    ) as fleet:
        Home(directory, read).remember()
        values = {"member": fleet.member, "group": fleet.group, "epoch": fleet.epoch, "slot": fleet.slot}
    if as_json:
        print_json({**values, "state": str(directory)})
    else:
        click.echo("{member} is a member of group {group}: epoch {epoch}, slot {slot}".format(**values))
        click.echo(f"its keys are in {directory}")


@click.command(
    epilog="""\b
Examples:
  brokerkm identity fleet.join --member pump-7
  brokerkm identity fleet.join --member pump-7 --offline -o pump-7.request
  brokerkm identity fleet.join --member pump-7 --csv >> devices.csv
"""
)
@click.argument("descriptor", type=click.Path(allow_dash=True))
@click.option("-i", "--member", required=True, help="This device's id, unique in the group.")
@click.option("--offline", is_flag=True, help="Make a request to carry to the server instead; nothing is sent.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, allow_dash=True), help="File for the request.")
@click.option("--csv", "as_row", is_flag=True, help="Print a row for `brokerkm member import`, with a KEM key.")
@member_state_option
@json_option
def identity(
    *, descriptor: str, member: str, offline: bool, output: str | None, as_row: bool, state: Path, as_json: bool
) -> None:
    """Print this device's public key, made if it is new.

    Whoever runs the server lists it with `brokerkm member add MEMBER KEY`; then the device may join without a token.
    With --offline, it has its place before it has ever been online: the server answers the request, a file, with
    another file. With --csv, it has its place when the row is imported. Neither is a secret; private keys stay here.
    """
    import brokerkm  # noqa: PLC0415 - not for --help

    if as_row and (offline or as_json):
        message = "--csv is neither for --offline nor for --json"
        raise click.UsageError(message)
    if offline != (output is not None):
        message = "--offline and -o go together: -o names the file for the request, - for standard output"
        raise click.UsageError(message)
    read = _parse(descriptor, _text(descriptor))
    if output is not None:
        write_request(read, member, state, output, as_json=as_json)
        return
    directory = state / read.group / member
    if as_row:
        print_row(read, member, directory)
        return
    key = brokerkm.identity(read, member=member, state_dir=directory).hex()
    if as_json:
        print_json({"member": member, "group": read.group, "identity": key})
    else:
        click.echo(key)


@click.command(epilog="\b\nExamples:\n  brokerkm leave --member pump-7\n")
@click.option("-i", "--member", help="Which member.  [default: the only one here]")
@click.option("-g", "--group", help="Of which group.  [default: the only one here]")
@click.option("--broker", callback=check_url, help="URL of the broker.  [default: as when it joined]")
@login_options(Role.MEMBER)
@member_state_option
def leave(
    *,
    member: str | None,
    group: str | None,
    broker: str | None,
    options: Options,
    state: Path,
) -> None:
    """Leave the group for good; the others get a new key."""
    from brokerkm.sdk.sync import connect_sync  # noqa: PLC0415 - not for --help

    home = find(state, group, member)
    with connect_sync(broker, home.descriptor, member=home.member, state_dir=home.directory, options=options) as fleet:
        fleet.leave()
    click.echo(f"{home.member} has left group {home.descriptor.group}")


def _text(source: str) -> bytes | None:
    """Return what a file or standard input says; None for a file that cannot be read, which `_parse` explains."""
    if source != "-":
        return read_file(source)
    if sys.stdin.isatty():  # not echoed, and never an argument: others read those
        return str(click.prompt("Paste the invitation", hide_input=True)).encode()
    return sys.stdin.buffer.read(MAX_SIZE + 1)


def _parse(source: str, text: bytes | None) -> Descriptor:
    return Descriptor.read(source) if source != "-" or text is None else Descriptor.parse(text)
