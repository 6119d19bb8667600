"""`brokerkm credential`: bearer tokens for the HTTP API, to administer from other machines."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from brokerkm.cli.administration import administer, server_options
from brokerkm.cli.invitation import parse_duration
from brokerkm.cli.lazy import FailedError
from brokerkm.cli.output import json_option, print_json, print_table, say_time

if TYPE_CHECKING:
    from brokerkm.service import AdminApi
    from brokerkm.service.api import CredentialInfo, IssuedCredential


@click.group()
def credential() -> None:
    """Let people and programs administer from other machines: make credentials, list them, revoke them."""


@credential.command(
    epilog="""\b
Examples:
  brokerkm credential create alice --role operator -o alice.token
  brokerkm member list --server https://keys.example:8443 --token-file alice.token
"""
)
@click.argument("name")
@click.option("--role", required=True, type=click.Choice(("viewer", "operator", "admin")), help="What it may do.")
@click.option("--expires", default="90d", show_default=True, callback=parse_duration, help="How long it is valid.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="New file for the token, mode 0600, not the screen."
)
@server_options
@json_option
def create(*, name: str, role: str, expires: int, output: Path | None, state: Path, as_json: bool) -> None:
    """Make a credential called NAME; its token is shown this once."""
    from brokerkm.service.credentials import Role  # noqa: PLC0415 - not for --help

    async def work(admin: AdminApi) -> IssuedCredential:
        return await admin.create_credential(name, Role(role), lifetime=expires)

    if output is None:
        made = administer(state, work)
        _say(made, as_json=as_json)
        return
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # before there is a token
    except OSError as error:
        message = f"{output}: {error.strerror}: name a new file in a directory that you can write to"
        raise FailedError(message) from error
    try:
        made = administer(state, work)
    except BaseException:
        os.close(descriptor)
        output.unlink()
        raise
    with os.fdopen(descriptor, "w") as file:
        file.write(made.token + "\n")
    if as_json:
        print_json({**dataclasses.asdict(made), "token": str(output)})
    else:
        click.echo(f"wrote {output}: {made.role} until {say_time(made.expires)}. It is a secret.")


def _say(made: IssuedCredential, *, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(made))
        return
    click.echo(made.token)
    click.echo(f"{made.role} until {say_time(made.expires)}; it is a secret, and is not shown again", err=True)


@credential.command("list", epilog="\b\nExamples:\n  brokerkm credential list\n")
@server_options
@json_option
def list_(*, state: Path, as_json: bool) -> None:
    """List the credentials, without their secrets; with --json one object a line."""

    async def work(admin: AdminApi) -> list[CredentialInfo]:
        return await admin.list_credentials()

    found = administer(state, work)
    if as_json:
        for info in found:
            print_json(dataclasses.asdict(info))
    elif found:
        rows = [(one.name, one.role, say_time(one.created), say_time(one.expires)) for one in found]
        print_table(("NAME", "ROLE", "CREATED", "EXPIRES"), rows)
    else:
        click.echo("no credential: the server's own user and root need none on its machine")


@credential.command(epilog="\b\nExamples:\n  brokerkm credential revoke alice\n")
@click.argument("name")
@server_options
@json_option
def revoke(*, name: str, state: Path, as_json: bool) -> None:
    """Make the credential NAME void at once."""

    async def work(admin: AdminApi) -> None:
        await admin.revoke_credential(name)

    administer(state, work)
    if as_json:
        print_json({"credential": name, "revoked": True})
    else:
        click.echo(f"credential {name} is void")
