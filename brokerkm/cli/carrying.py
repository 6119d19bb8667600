"""Files that are carried between a device that is offline and its server: requests one way, bundles the other."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from brokerkm.cli.home import Home
from brokerkm.cli.output import print_json
from brokerkm.errors import StoreError, UsageError
from brokerkm.offline import MAX_SIZE, OfflineBundle, OfflineRequest

if TYPE_CHECKING:
    from brokerkm.descriptor import Descriptor


def read_file(path: str) -> bytes | None:
    """Return up to a byte more of a file than one of ours may have; None if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return file.read(MAX_SIZE + 1)
    except OSError:
        return None


def is_bundle(text: bytes | None) -> bool:
    """Return whether this wants to be a bundle, and not a descriptor."""
    return text is not None and b'"brokerkm_bundle"' in text


def accept(text: bytes | None, member: str | None, state: Path, *, as_json: bool) -> None:
    """Take the keys from a bundle; without a network."""
    from brokerkm.sdk.offline import accept_offline  # noqa: PLC0415 - not for --help

    bundle = OfflineBundle.from_json(text or b"")
    if member not in (None, bundle.member):
        message = f"the bundle is for {bundle.member}, not for {member}"
        raise UsageError(message)
    directory = state / bundle.descriptor.group / bundle.member
    accepted = accept_offline(bundle, state_dir=directory)
    Home(directory, bundle.descriptor).remember()
    values = {"member": bundle.member, "group": bundle.descriptor.group, **accepted._asdict()}
    if as_json:
        print_json({**values, "state": str(directory)})
        return
    click.echo("{member} is a member of group {group}: epoch {epoch}".format(**values))
    if accepted.spares:
        click.echo(f"it reads on through the next {accepted.spares} changes of the group's key, whatever it misses,")
        click.echo("unless somebody is cut off before")
    click.echo(f"its keys are in {directory}")


def write_request(descriptor: Descriptor, member: str, state: Path, output: str, *, as_json: bool) -> None:
    """Make a device's request, and write it down."""
    from brokerkm.sdk.offline import request_offline  # noqa: PLC0415 - not for --help

    request = request_offline(descriptor, member=member, state_dir=state / descriptor.group / member)
    write_file(output, request.to_json())
    if output == "-":
        return
    if as_json:
        print_json({"member": member, "group": request.group, "file": output})
        return
    click.echo(f"wrote {output}: carry it to the server, where its answer is made by")
    click.echo(f"  brokerkm member add --offline {output} -o {member}.bundle")


def print_row(descriptor: Descriptor, member: str, directory: Path) -> None:
    """Print what an import seats a device by: id, identity key and KEM key."""
    from brokerkm.core.request import Join  # noqa: PLC0415 - not for --help
    from brokerkm.sdk.offline import request_offline  # noqa: PLC0415

    join = Join.decode(request_offline(descriptor, member=member, state_dir=directory).join, descriptor.suite)
    Home(directory, descriptor).remember()
    click.echo(f"{member},{join.identity.hex()},{join.kem_public.hex()}")


def read_request(path: str) -> OfflineRequest:
    """Return the request in a file; raises `UsageError` that names it."""
    text = sys.stdin.buffer.read(MAX_SIZE + 1) if path == "-" else read_file(path)
    if text is None:
        message = f"request {path}: it cannot be read"
        raise UsageError(message)
    try:
        return OfflineRequest.from_json(text)
    except UsageError as error:
        message = f"request {path}: {error}"
        raise UsageError(message) from None


def write_bundle(bundle: OfflineBundle, output: str, *, as_json: bool) -> None:
    """Write a bundle down, and say what to do with it."""
    write_file(output, bundle.to_json())
    if output == "-":
        return
    if as_json:
        print_json({"member": bundle.member, "group": bundle.descriptor.group, "file": output})
        return
    click.echo(f"{bundle.member} is a member of group {bundle.descriptor.group}. Carry {output} to it, and there:")
    click.echo(f"  brokerkm join {output}")


def write_file(path: str, text: str) -> None:
    """Write a file, or to standard output; raises `StoreError`."""
    if path == "-":
        click.echo(text, nl=False)
        return
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        message = f"{path}: {error.strerror}: run the command again with another -o, it does no harm twice"
        raise StoreError(message) from error
