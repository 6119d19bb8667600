"""`brokerkm broker`: set up message brokers; how, their adapters know."""

from __future__ import annotations

import importlib.metadata
from typing import Final

import click

from brokerkm.cli.lazy import load

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
