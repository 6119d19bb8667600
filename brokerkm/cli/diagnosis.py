"""`brokerkm doctor`: looks for what is wrong, and says what to do."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from brokerkm.cli.options import LOGIN, check_url, chosen_state, login_options, repeated, server_state_option
from brokerkm.cli.output import json_option, print_json, printable
from brokerkm.transport import Role

if TYPE_CHECKING:
    from brokerkm.config import Configuration
    from brokerkm.doctor import Finding
    from brokerkm.transport import Options

_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(
    epilog="""\b
Examples:
  brokerkm doctor --config /etc/brokerkm/brokerkm.toml
  brokerkm doctor --broker mqtts://broker.example --username keyserver --password-file secret
  brokerkm doctor --json | jq 'select(.level == "fail")'
"""
)
@click.option("--config", type=_FILE, envvar="BROKERKM_CONFIG", help="The server's configuration.")
@click.option("--broker", callback=check_url, envvar="BROKERKM_BROKER", help="URL of the broker.")
@login_options(Role.SERVER)
@server_state_option
@json_option
def doctor(*, config: Path | None, broker: str | None, options: Options, state: Path, as_json: bool) -> None:
    """Look at configuration, machine, store, server and broker; exits 1 if something has to be mended.

    It changes nothing. At the broker it uses topics of its own, and clears what it had retained there.
    """
    from brokerkm.config import ConfigurationError, load  # noqa: PLC0415 - not for --help
    from brokerkm.doctor import Finding, Level  # noqa: PLC0415

    try:
        configuration = load(config, os.environ)
    except ConfigurationError as error:
        for problem in error.problems:
            advice = "correct it, or begin anew from `brokerkm config example`"
            _show(Finding("configuration", Level.FAIL, str(problem), advice), as_json=as_json)
        sys.exit(1)
    if broker is not None:
        configuration = dataclasses.replace(configuration, broker=dataclasses.replace(configuration.broker, url=broker))
    state = chosen_state(state, configuration.server.state)
    levels = asyncio.run(_examine(configuration, state, options, as_json=as_json))
    if not as_json:
        bad = levels.count("fail")
        doubtful = levels.count("warn")
        click.echo(f"{len(levels)} checks: {bad or 'nothing'} to mend, {doubtful or 'nothing'} to think about")
    if "fail" in levels:
        sys.exit(1)


async def _examine(configuration: Configuration, state: Path, options: Options, *, as_json: bool) -> list[str]:
    from brokerkm.cli.hosting import broker_options  # noqa: PLC0415 - not for --help
    from brokerkm.doctor import Finding, Level, examine  # noqa: PLC0415
    from brokerkm.errors import UsageError  # noqa: PLC0415

    levels: list[str] = []
    password = configuration.broker.password
    if password is None or not password.elsewhere:
        try:
            options = broker_options(configuration, options)
        except UsageError as error:
            finding = Finding("broker", Level.FAIL, str(error), "see to it that the password can be read")
            _show(finding, as_json=as_json)
            levels.append(finding.level)
    async for finding in examine(configuration, state, options, f"doctor{repeated('config', *LOGIN, 'state')}"):
        _show(finding, as_json=as_json)
        levels.append(finding.level)
    return levels


def _show(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(finding))
        return
    mark = click.style(f"{finding.level:4}", fg=_COLOURS[finding.level])
    click.echo(f"{mark}  {finding.check:13}  {printable(finding.text)}")
    if finding.advice:
        click.echo(f"{'':21}{printable(finding.advice)}")
