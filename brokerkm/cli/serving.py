"""`brokerkm serve`: the key server, with a broker of its own if no other is named."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
from click.core import ParameterSource

from brokerkm.cli.notification import notify
from brokerkm.cli.options import LOGIN, check_url, chosen_state, login_options, repeated, server_state_option
from brokerkm.cli.output import json_option, print_fields, print_json
from brokerkm.cli.places import server_state
from brokerkm.errors import BehindError
from brokerkm.telemetry.logs import Logs
from brokerkm.transport import Role

if TYPE_CHECKING:
    from collections.abc import Callable

    from brokerkm.cli.hosting import Hosted
    from brokerkm.config import Configuration
    from brokerkm.service import GroupInfo, KeyServer
    from brokerkm.transport import Options

_FILE: Final = click.Path(dir_okay=False, path_type=Path)


@click.command(
    epilog="""\b
Examples:
  brokerkm serve
  brokerkm serve --broker mqtts://broker.example --username brokerkm --password-file secret
  brokerkm serve --config /etc/brokerkm/brokerkm.toml
  brokerkm serve --broker zmq+tcp://0.0.0.0:5560 --device-broker zmq+tcp://hub.example:5560
"""
)
@click.option("--config", type=_FILE, envvar="BROKERKM_CONFIG", help="TOML file; see `brokerkm config example`.")
@click.option(
    "--broker",
    callback=check_url,
    envvar="BROKERKM_BROKER",
    help="URL of a broker.  [default: one in this process, for this machine]",
)
@click.option("--port", default=1883, show_default=True, type=click.IntRange(0, 65535), help="Of the embedded broker.")
@click.option("--device-broker", callback=check_url, help="URL at which devices reach the broker, if another.")
@click.option("--group", default="fleet", show_default=True, help="Group to create if there is none yet.")
@click.option(
    "--interval",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds that changes wait to be made together.",
)
@click.option("-v", "--verbose", is_flag=True, help="Say what happens, on standard error.")
@login_options(Role.SERVER)
@server_state_option
@json_option
def serve(
    *,
    config: Path | None,
    options: Options,
    state: Path,
    as_json: bool,
    **_chosen: object,
) -> None:
    """Run the key server until it is interrupted.

    It needs no configuration: keys are in a SQLite file in the state directory, and without --broker it brings a
    small MQTT broker of its own, which only this machine can reach. A configuration file says more than these options
    can; they count more than the file. SIGHUP reads it again. With --json it prints one line when it serves.
    """
    from brokerkm.config import load  # noqa: PLC0415 - not for --help

    chosen = _chosen_options(click.get_current_context())

    def configure() -> Configuration:
        return _overridden(load(config, os.environ), chosen)

    configuration = configure()
    state = chosen_state(state, configuration.server.state)
    logs = Logs()
    logs.configure(configuration.telemetry.log_level, configuration.telemetry.log_format)
    try:
        asyncio.run(_serve(_Plan(configuration, configure, state, options, as_json=as_json), logs))
    except BehindError as error:
        error.options = repeated(*LOGIN, "config", "state") + ("" if configuration.broker.url else " --force")
        raise
    finally:
        logs.close()


class _Plan(NamedTuple):
    """What to serve and how; `configure` reads the configuration again."""

    configuration: Configuration
    configure: Callable[[], Configuration]
    state: Path
    options: Options
    as_json: bool


async def _serve(plan: _Plan, logs: Logs) -> None:
    from brokerkm.cli.hosting import broker_options, hosted  # noqa: PLC0415 - not for --help

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    options = broker_options(plan.configuration, plan.options)
    async with hosted(plan.configuration, plan.state, options, logs, plan.configure) as host:
        loop.add_signal_handler(signal.SIGHUP, host.reloading.reload)
        await _announce(plan, host)
        notify("READY=1")
        await _until_stopped(host.server, stop)
        notify("STOPPING=1")
    if not plan.as_json:
        alone = "members go on without it" if plan.configuration.broker.url else "and its broker with it"
        click.echo(f"the key server has stopped, {alone}")


def _chosen_options(context: click.Context) -> dict[str, Any]:
    """Return the options that somebody gave, by themselves or by a variable of the environment."""
    given = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    return {name: value for name, value in context.params.items() if context.get_parameter_source(name) in given}


def _overridden(configuration: Configuration, chosen: dict[str, Any]) -> Configuration:
    """Return the configuration with the options over it."""
    for option, section, name in (
        ("broker", "broker", "url"),
        ("port", "broker", "port"),
        ("device_broker", "broker", "device_url"),
        ("group", "server", "group"),
        ("interval", "defaults", "interval"),
    ):
        if option in chosen:
            changed = dataclasses.replace(getattr(configuration, section), **{name: chosen[option]})
            configuration = dataclasses.replace(configuration, **{section: changed})
    if chosen.get("verbose"):
        telemetry = dataclasses.replace(configuration.telemetry, log_level="info")
        configuration = dataclasses.replace(configuration, telemetry=telemetry)
    return configuration


async def _until_stopped(server: KeyServer, stop: asyncio.Event) -> None:
    """Return when it is to stop; raises what keeps the server from going on."""
    waits = [asyncio.ensure_future(server.wait()), asyncio.ensure_future(stop.wait())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        if wait.done():
            wait.result()
        wait.cancel()


async def _announce(plan: _Plan, host: Hosted) -> None:
    admin = host.server.admin
    groups = await admin.list_groups()
    created = not groups
    if created:
        groups = [await admin.create_group(plan.configuration.server.group)]
    listeners = {name: url for name, url in (("metrics", host.metrics), ("api", host.api)) if url}
    if plan.as_json:
        names = [info.name for info in groups]
        line: dict[str, object] = {"broker": host.url, "state": str(plan.state), "groups": names, "created": created}
        print_json(line | listeners)
        return
    click.echo("the key server is running. Stop it with Ctrl-C.")
    print_fields(
        {
            "broker": host.url + ("" if plan.configuration.broker.url else " (embedded, for this machine only)"),
            "state": str(plan.state),
            "groups": ", ".join(map(_summary, groups)) + (" (new)" if created else ""),
        }
        | listeners,
        indent=2,
    )
    from_variable = click.get_current_context().get_parameter_source("state") is ParameterSource.ENVIRONMENT
    same = from_variable or plan.state == server_state()  # as the next commands find by themselves
    suffix = "" if same else f" --state {shlex.quote(str(plan.state))}"
    group = f" -g {groups[0].name}" if len(groups) > 1 else ""
    name = groups[0].name
    click.echo("\nNext, in another terminal:")
    print_fields(
        {
            f"brokerkm invite{group} --uses 2{suffix}": f"writes {name}.join, an invitation for two devices",
            f"brokerkm join {name}.join -i one": "a device joins; and again with -i two",
            "brokerkm sub -i one -t 'plant/#' -v": "shows what members send",
            "brokerkm pub -i two -t plant/pump -m 21.4": "sends something that only members can read",
            f"brokerkm member evict{group} two{suffix}": "cuts a device off",
        },
        indent=2,
    )


def _summary(info: GroupInfo) -> str:
    members = "1 member" if info.members == 1 else f"{info.members} members"
    return f"{info.name} ({members}, epoch {info.epoch})"
