"""`brokerkm serve`: the key server, with a broker of its own if no other is named."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import shlex
import signal
import urllib.parse
from typing import TYPE_CHECKING, Final

import click
from click.core import ParameterSource

from brokerkm.cli.options import check_url, login_options, server_state_option
from brokerkm.cli.output import json_option, print_fields, print_json
from brokerkm.transport import Role

if TYPE_CHECKING:
    from pathlib import Path

    from brokerkm.service import AdminApi, GroupInfo, KeyServer
    from brokerkm.transport import Options

_FIRST_GROUP: Final = "fleet"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What to serve and how.

    Args:
        broker: URL, or None for the embedded broker on `port`.
        device_broker: URL for devices, if it is another.
        group: made if the store has no group yet.
        interval: seconds that a change waits for others.
    """

    state: Path
    broker: str | None
    port: int
    device_broker: str | None
    options: Options
    group: str
    interval: float
    as_json: bool


@click.command(
    epilog="""\b
Examples:
  brokerkm serve
  brokerkm serve --broker mqtts://broker.example --username brokerkm --password-file secret
  brokerkm serve --broker zmq+tcp://0.0.0.0:5560 --device-broker zmq+tcp://hub.example:5560
"""
)
@click.option(
    "--broker",
    callback=check_url,
    envvar="BROKERKM_BROKER",
    help="URL of a broker.  [default: one in this process, for this machine]",
)
@click.option("--port", default=1883, show_default=True, type=click.IntRange(0, 65535), help="Of the embedded broker.")
@click.option("--device-broker", callback=check_url, help="URL at which devices reach the broker, if another.")
@click.option("--group", default=_FIRST_GROUP, show_default=True, help="Group to create if there is none yet.")
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
    broker: str | None,
    port: int,
    device_broker: str | None,
    group: str,
    interval: float,
    verbose: bool,
    options: Options,
    state: Path,
    as_json: bool,
) -> None:
    """Run the key server until it is interrupted.

    It needs no configuration: keys are in a SQLite file in the state directory, and without --broker it brings a
    small MQTT broker of its own, which only this machine can reach. With --json it prints one line when it serves.
    """
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    plan = _Plan(
        state=state,
        broker=broker,
        port=port,
        device_broker=device_broker,
        options=options,
        group=group,
        interval=interval,
        as_json=as_json,
    )
    asyncio.run(_serve(plan))


async def _serve(plan: _Plan) -> None:
    from brokerkm import transport  # noqa: PLC0415 - not for --help
    from brokerkm.cli.embedded import EmbeddedBroker  # noqa: PLC0415
    from brokerkm.service import STORE_FILE, ControlServer, KeyServer  # noqa: PLC0415
    from brokerkm.service.local import CONTROL_SOCKET  # noqa: PLC0415
    from brokerkm.store import SqliteStore  # noqa: PLC0415

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        store = stack.enter_context(contextlib.closing(SqliteStore(plan.state / STORE_FILE)))
        url = plan.broker
        if url is None:
            url = (await stack.enter_async_context(EmbeddedBroker(plan.port))).url
        adapter = transport.create(url, plan.options)
        url = _without_login(url)
        server = KeyServer(store, adapter, interval=plan.interval, broker=plan.device_broker or url)
        await stack.enter_async_context(server)
        await stack.enter_async_context(ControlServer(server.admin, plan.state / CONTROL_SOCKET))
        await _announce(plan, server.admin, url)
        await _until_stopped(server, stop)
    if not plan.as_json:
        alone = "and its broker with it" if plan.broker is None else "members go on without it"
        click.echo(f"the key server has stopped, {alone}")


async def _until_stopped(server: KeyServer, stop: asyncio.Event) -> None:
    """Return when it is to stop; raises what keeps the server from going on."""
    waits = [asyncio.ensure_future(server.wait()), asyncio.ensure_future(stop.wait())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        if wait.done():
            wait.result()
        wait.cancel()


async def _announce(plan: _Plan, admin: AdminApi, url: str) -> None:
    groups = await admin.list_groups()
    created = not groups
    if created:
        groups = [await admin.create_group(plan.group)]
    if plan.as_json:
        names = [info.name for info in groups]
        print_json({"broker": url, "state": str(plan.state), "groups": names, "created": created})
        return
    click.echo("the key server is running. Stop it with Ctrl-C.")
    print_fields(
        {
            "broker": url if plan.broker is not None else f"{url} (embedded, for this machine only)",
            "state": str(plan.state),
            "groups": ", ".join(map(_summary, groups)) + (" (new)" if created else ""),
        },
        indent=2,
    )
    source = click.get_current_context().get_parameter_source("state")
    suffix = f" --state {shlex.quote(str(plan.state))}" if source is ParameterSource.COMMANDLINE else ""
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


def _without_login(url: str) -> str:
    """Return a URL to show and to hand to devices: the server's user name and password are its own."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _summary(info: GroupInfo) -> str:
    members = "1 member" if info.members == 1 else f"{info.members} members"
    return f"{info.name} ({members}, epoch {info.epoch})"
