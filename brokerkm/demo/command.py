"""`brokerkm demo`."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from brokerkm.cli.options import check_url
from brokerkm.cli.output import json_option
from brokerkm.errors import BrokerkmError

if TYPE_CHECKING:
    from brokerkm.demo.story import Story

_FEWEST: Final = 6  # three are evicted, one sleeps, and two are left to talk
_MOST: Final = 200


@click.command(
    epilog="""\b
Examples:
  brokerkm demo
  brokerkm demo --members 50 --broker mqtt://localhost
  brokerkm demo --transport zmq --json | jq -r .text
"""
)
@click.option("--members", default=20, show_default=True, type=click.IntRange(_FEWEST, _MOST), help="How many devices.")
@click.option("--broker", callback=check_url, help="URL of an MQTT broker.  [default: amqtt, started for this]")
@click.option(
    "--transport", type=click.Choice(["mqtt", "zmq"]), default="mqtt", show_default=True, help="What carries it."
)
@json_option
def demo(*, members: int, broker: str | None, transport: str, as_json: bool) -> None:
    """Watch a fleet form, talk, evict a device and go on.

    Every member is a process of its own, and so are key server and broker. They publish this machine's readings. One
    member is evicted and reads no more, one comes late and reads nothing of before, one sleeps through three rekeys
    and catches up while the key server is stopped. Each claim is checked; it exits 0 only if all hold. What it keeps
    meanwhile is in a private directory, and gone at the end.
    """
    if transport == "zmq" and broker is not None:
        message = "--broker is for MQTT: over ZeroMQ the key server is the hub"
        raise click.UsageError(message)
    with tempfile.TemporaryDirectory(prefix="bkm-") as directory:
        good = asyncio.run(_run(Path(directory), members, broker, transport, as_json=as_json))
    if not good:
        raise SystemExit(1)


async def _run(directory: Path, members: int, broker: str | None, transport: str, *, as_json: bool) -> bool:
    from brokerkm.demo.stage import Stage  # noqa: PLC0415 - not for --help
    from brokerkm.demo.story import Story  # noqa: PLC0415
    from brokerkm.demo.timeline import Timeline  # noqa: PLC0415

    timeline = Timeline(as_json=as_json)
    stage = Stage(directory, transport, broker)
    story = Story(stage, timeline, members)
    error = None
    try:
        await _interruptible(story)
    except BrokerkmError as failure:
        error = str(failure)
    except asyncio.CancelledError:
        error = "it was interrupted"
    try:
        await stage.close()
    except BrokerkmError as failure:
        error = error or str(failure)
    return timeline.finish(story.claims, error)


async def _interruptible(story: Story) -> None:
    """Tell the story; SIGINT and SIGTERM cancel it, and leave time to end its processes."""
    telling = asyncio.ensure_future(story.tell())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, telling.cancel)
    await telling
