"""The command ``brokerkm zmq-forwarder``."""

from __future__ import annotations

import asyncio
import signal
from typing import Final

import click

from brokerkm.errors import BrokerkmError
from brokerkm.transport import Options, Role
from brokerkm_zmq import keys
from brokerkm_zmq.forwarder import Forwarder, forward

_EXAMPLES: Final = """
\b
Examples:
  brokerkm zmq-forwarder zmq+tcp://hub.example:5560 zmq+tcp://0.0.0.0:5560
  brokerkm zmq-forwarder --hub-key hub.pub --key own.key --listen-key listen.key \\
      --members members.txt zmq+tcp://hub.example:5560 zmq+tcp://0.0.0.0:5560
  brokerkm zmq-forwarder --filter 'bkm/1/plant/#' --filter 'plant/#' \\
      zmq+tcp://hub.example:5560 zmq+ipc:///run/brokerkm/plant
"""


@click.command("zmq-forwarder", epilog=_EXAMPLES)
@click.argument("upstream")
@click.argument("listen")
@click.option("--filter", "filters", multiple=True, help="Mirror only what matches (repeatable).  [default: #]")
@click.option("--hub-key", type=click.Path(dir_okay=False), help="File with the upstream hub's public CURVE key.")
@click.option("--key", type=click.Path(dir_okay=False), help="Own secret CURVE key upstream (a file of mode 0600).")
@click.option(
    "--listen-key", type=click.Path(dir_okay=False), help="Secret CURVE key downstream; made if it does not exist."
)
@click.option(
    "--members",
    type=click.Path(dir_okay=False),
    help="Who may connect downstream: lines of public key and member id. Read again at SIGHUP.",
)
def zmq_forwarder(
    *,
    upstream: str,
    listen: str,
    filters: tuple[str, ...],
    hub_key: str | None,
    key: str | None,
    listen_key: str | None,
    members: str | None,
) -> None:
    """Mirror the hub at UPSTREAM for members that connect to LISTEN.

    Last values are kept here for late joiners; requests are handed on to the hub. A forwarder
    needs no group key. Where the hub lists keys, list this one's under the id "*".
    """
    upstream_options = Options(role=Role.MEMBER, ca_file=hub_key, key_file=key)
    parameters = {"members": members} if members is not None else {}
    listen_options = Options(role=Role.SERVER, key_file=listen_key, parameters=parameters)
    try:
        forwarder = Forwarder(upstream, upstream_options, listen, listen_options, filters or ("#",))
        asyncio.run(_run(forwarder, members, f"forwarding {upstream} to {listen}"))
    except BrokerkmError as error:
        raise click.ClickException(str(error)) from error


async def _run(forwarder: Forwarder, members: str | None, ready: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    def reload() -> None:
        try:
            if members is not None:
                forwarder.set_members(keys.read_members(members))
                click.echo(f"reloaded {members}", err=True)
        except BrokerkmError as error:
            click.echo(f"not reloaded: {error}", err=True)

    loop.add_signal_handler(signal.SIGHUP, reload)
    await forward(forwarder, stop, lambda: click.echo(ready, err=True))
