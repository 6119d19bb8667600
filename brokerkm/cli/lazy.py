"""Commands that are imported when they are called, so that the command line starts at once.

Help and completion of the group know each command by the line of its table, not by its code. Other packages add
commands by entry points of the group ``brokerkm.commands``; they cannot replace one of ours.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from brokerkm.errors import BrokerkmError, EvictedError, StateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

ENTRY_POINTS: Final = "brokerkm.commands"


class Lazy(NamedTuple):
    """Where a command is and what the list of commands says about it."""

    target: str  # module:attribute
    summary: str


class FailedError(click.ClickException):
    """An expected failure, said in full: what happened, what it means, what to do; exits 1."""

    def show(self, file: object = None) -> None:  # noqa: ARG002 - click's signature
        """Print to standard error."""
        click.echo(f"brokerkm: {self.format_message()}", err=True)


class WrongError(FailedError):
    """What was asked for cannot be done as it was asked; exits 2."""

    exit_code = 2


class LazyGroup(click.Group):
    """A group whose commands are named by a table.

    Args:
        commands: the table; entry points are asked only if `plugins`.
    """

    def __init__(
        self, name: str | None = None, *, table: Mapping[str, Lazy], plugins: bool = False, **options: object
    ) -> None:
        super().__init__(name, **options)  # type: ignore[arg-type]
        self._table: Final = table
        self._plugins: Final = plugins

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of all commands, ours first and as the table has them."""
        return [*self._table, *self._plugin_names()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import a command; None if there is none of that name."""
        if cmd_name in self._table:
            return load(cmd_name, self._table[cmd_name].target)
        for point in importlib.metadata.entry_points(group=ENTRY_POINTS, name=cmd_name) if self._plugins else ():
            return load(cmd_name, point.value)
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List our commands by the table, those of other packages by where they come from."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.summary) for name, lazy in self._table.items()])
        others = self._plugin_names()
        if others:
            with formatter.section("Commands of adapters and plugins"):
                formatter.write_dl([(name, f"See brokerkm {name} --help.") for name in others])

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; turn the errors that brokerkm raises on purpose into a sentence and an exit status."""
        try:
            return super().invoke(ctx)
        except EvictedError as error:
            message = f"{error}; if it is admitted again: brokerkm join --rejoin"
            raise FailedError(message) from error
        except BrokerkmError as error:
            wrong = isinstance(error, UsageError) and not isinstance(error, StateError)
            raise (WrongError if wrong else FailedError)(str(error)) from error

    def _plugin_names(self) -> list[str]:
        if not self._plugins:
            return []
        points = importlib.metadata.entry_points(group=ENTRY_POINTS)
        return sorted({point.name for point in points} - self._table.keys())


def load(name: str, target: str) -> click.Command:
    """Import a command; raises `FailedError`."""
    module, _, attribute = target.partition(":")
    try:
        command = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        message = f"command {name} ({target}) cannot be loaded: {error}"
        raise FailedError(message) from error
    if not isinstance(command, click.Command):
        message = f"command {name} ({target}) is no click command"
        raise FailedError(message)
    return command
