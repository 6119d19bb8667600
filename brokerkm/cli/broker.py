"""`brokerkm broker`: set up message brokers; how, their adapters know."""

from __future__ import annotations

import importlib.metadata
import os
from typing import TYPE_CHECKING, Final

import click

from brokerkm.cli.administration import administer, resolve_group, server_options
from brokerkm.cli.lazy import load
from brokerkm.cli.options import config_option
from brokerkm.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from brokerkm.service import AdminApi

INSTALLERS: Final = "brokerkm.installers"  # entry points: a click command for each broker


class _Installers(click.Group):
    """The commands of the adapters that can set up their broker; only the one that is called is imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the brokers' names."""
        return sorted({point.name for point in importlib.metadata.entry_points(group=INSTALLERS)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import the command of one broker; None if there is none."""
        for point in importlib.metadata.entry_points(group=INSTALLERS, name=cmd_name):
            return load(cmd_name, point.value)
        return None


@click.group()
def broker() -> None:
    """Set up the message broker to guard the members' topics."""


@broker.group(
    cls=_Installers,
    epilog="""\b
Examples:
  brokerkm broker install mosquitto --level plugin --dry-run
""",
)
def install() -> None:
    """Write a broker's configuration, on the broker's machine."""


@broker.command(
    epilog="""\b
Examples:
  brokerkm broker passwords -g plant > plant.csv
  brokerkm broker passwords pump-7
"""
)
@click.argument("members", nargs=-1, metavar="[MEMBER]...")
@click.option("-g", "--group", help="The group.  [default: the only one]")
@config_option
@server_options
def passwords(*, members: tuple[str, ...], group: str | None, config: Path | None, state: Path) -> None:
    """Print user names and passwords of members, as CSV, for a broker that has to be told them (mosquitto-dynsec).

    They are derived from the key server's password at the broker, and change with it.
    """
    from brokerkm.config import load as read  # noqa: PLC0415 - not for --help
    from brokerkm.core.login import Principal  # noqa: PLC0415
    from brokerkm.guard.passwords import Passwords  # noqa: PLC0415

    configuration = read(config, os.environ)
    secret = configuration.guard.password or configuration.broker.password
    if secret is None:
        message = "passwords are derived from the key server's at the broker: name its configuration with --config"
        raise UsageError(message)
    derived = Passwords(secret.read())

    async def work(admin: AdminApi) -> tuple[str, list[str]]:
        name = await resolve_group(admin, group)
        if members:
            return name, [(await admin.show_member(name, member)).member for member in members]
        known: list[str] = []
        after = ""
        while page := await admin.list_members(name, after=after):
            known += [info.member for info in page if info.status != "evicted"]
            after = page[-1].member
        return name, known

    name, known = administer(state, work)
    click.echo("username,password")
    for member in known:
        principal = Principal(name, member)
        click.echo(f"{principal.username},{derived.of(principal)}")
