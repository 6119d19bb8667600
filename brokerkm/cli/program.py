"""The root of the command line: options of all commands, and where each command is."""

from __future__ import annotations

from typing import Final

import click

from brokerkm.cli.lazy import Lazy, LazyGroup

_COMMANDS: Final = {
    "inspect": Lazy("brokerkm.cli.inspection:inspect", "Show what is in a captured message."),
}

_EXAMPLES: Final = """\b
Exit status: 0 done, 1 failed, 2 wrong usage.
"""


@click.group(
    cls=LazyGroup,
    table=_COMMANDS,
    plugins=True,
    epilog=_EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="brokerkm", message="%(prog)s %(version)s")
def program() -> None:
    """Group key management for message brokers: only a group's current members can read what they send each other."""
