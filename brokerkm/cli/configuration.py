"""`brokerkm config`: print an example with every key, check a file."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Final

import click

from brokerkm.cli.output import json_option, print_json, printable

_FILE: Final = click.Path(dir_okay=False, path_type=Path)


@click.group()
def config() -> None:
    """Print an example of the configuration file, check one."""


@config.command(
    epilog="""\b
Examples:
  brokerkm config example > /etc/brokerkm/brokerkm.toml
"""
)
def example() -> None:
    """Print a file with every key, its default and what it does."""
    from brokerkm.config import example as text  # noqa: PLC0415 - not for --help

    click.echo(text(), nl=False)


@config.command(
    epilog="""\b
Examples:
  brokerkm config check /etc/brokerkm/brokerkm.toml
  BROKERKM_LIMITS_MEMBER_RATE=2 brokerkm config check
"""
)
@click.argument("file", type=_FILE, required=False, envvar="BROKERKM_CONFIG")
@json_option
def check(*, file: Path | None, as_json: bool) -> None:
    """Check FILE with the environment over it, as `brokerkm serve` would read it; exits 1 if it cannot be used.

    Whether secrets can be read is looked up too, as far as that runs no command, and as far as this process may have
    them: credentials systemd gives to the unit alone.
    """
    from brokerkm.config import ConfigurationError, elsewhere, in_unit, load, missing  # noqa: PLC0415 - not for --help

    unchecked: list[str] = []
    advice = ""
    try:
        configuration = load(file, os.environ)
        problems = [(one.place, one.key, one.text) for one in missing(configuration)]
        unchecked = list(elsewhere(configuration))
        advice = in_unit(configuration, f"config check{'' if file is None else f' {shlex.quote(str(file))}'}")
    except ConfigurationError as error:
        problems = [(one.place, one.key, one.text) for one in error.problems]
    if as_json:
        found = [{"place": place, "key": key, "text": text} for place, key, text in problems]
        name = None if file is None else str(file)
        print_json({"file": name, "ok": not found, "problems": found, "unchecked": unchecked})
    else:
        for problem in problems:
            click.echo(printable(": ".join(part for part in problem if part)), err=True)
        if not problems:
            click.echo(f"{file or 'the environment'}: ok")
        if unchecked:
            what = f"{', '.join(unchecked)}: not looked at, because systemd gives credentials to the unit alone"
            click.echo(printable(f"{what}. To have them looked at: {advice}"), err=True)
    if problems:
        sys.exit(1)
