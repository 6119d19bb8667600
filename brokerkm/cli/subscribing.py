"""`brokerkm sub`: print what members send, in the manner of mosquitto_sub."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import signal
import sys
from typing import TYPE_CHECKING

import click

from brokerkm.cli.home import find
from brokerkm.cli.lazy import FailedError
from brokerkm.cli.options import check_url, login_options, member_state_option
from brokerkm.cli.output import json_option, print_json, printable
from brokerkm.transport import Role

if TYPE_CHECKING:
    from pathlib import Path

    from brokerkm.core.events import MessageReceived
    from brokerkm.sdk.fleet import Fleet
    from brokerkm.transport import Options


@dataclasses.dataclass(slots=True)
class _Printer:
    """Prints messages and counts them down to `left`, if that is a number."""

    verbose: bool
    as_json: bool
    left: int | None

    def show(self, message: MessageReceived) -> bool:
        """Print a message; return whether it was the last one wanted."""
        if self.as_json:
            print_json({"topic": message.topic, "sender": message.sender, **_payload(message.payload)})
        else:
            line = message.topic.encode() + b" " + message.payload if self.verbose else message.payload
            if sys.stdout.isatty():  # a member must not give orders to another's terminal; a file gets what was sent
                click.echo(printable(line.decode(errors="backslashreplace")))
            else:
                click.echo(line)
        if self.left is not None:
            self.left -= 1
        return self.left == 0


@click.command(
    epilog="""\b
Examples:
  brokerkm sub -t 'plant/#' -v
  brokerkm sub -t plant/pump/temperature -C 1 -W 10
  brokerkm sub -t 'plant/#' --json | jq -r .sender
"""
)
@click.option("-t", "--topic", "topics", multiple=True, required=True, help="Topic or filter; repeatable.")
@click.option("-v", "--verbose", is_flag=True, help="Print the topic before each message.")
@click.option("-C", "--count", type=click.IntRange(1), help="End after so many messages.")
@click.option("-W", "--wait", type=click.FloatRange(0), help="End after so many seconds.")
@click.option("-d", "--debug", is_flag=True, help="Print to standard error what happens to connection and keys.")
@click.option("-i", "--member", help="As which member.  [default: the only one here]")
@click.option("-g", "--group", help="Of which group.  [default: the only one here]")
@click.option("--broker", callback=check_url, help="URL of the broker.  [default: as when it joined]")
@click.option(
    "--timeout", default=30.0, show_default=True, type=click.FloatRange(0), help="Seconds that connecting may take."
)
@login_options(Role.MEMBER)
@member_state_option
@json_option
def sub(
    *,
    topics: tuple[str, ...],
    verbose: bool,
    count: int | None,
    wait: float | None,
    debug: bool,
    member: str | None,
    group: str | None,
    broker: str | None,
    timeout: float,
    options: Options,
    state: Path,
    as_json: bool,
) -> None:
    """Print the messages of the group's members, as they come, until interrupted.

    Exits 1 if --wait ended it before --count messages came, or if this member is evicted. With --json each line
    has the topic, the sender, and the payload as text, or in base64 if it is none.
    """
    from brokerkm.sdk.fleet import connect  # noqa: PLC0415 - not for --help

    home = find(state, group, member)
    printer = _Printer(verbose, as_json, count)

    async def run() -> None:
        async with connect(
            broker, home.descriptor, member=home.member, state_dir=home.directory, timeout=timeout, options=options
        ) as fleet:
            await _print_all(fleet, topics, printer, wait, debug=debug)

    asyncio.run(run())
    if printer.left:
        missing = f"{home.member} waited {wait:g} s: {printer.left} of {count} messages did not come"
        raise FailedError(missing)


async def _print_all(
    fleet: Fleet, topics: tuple[str, ...], printer: _Printer, wait: float | None, *, debug: bool
) -> None:
    """Print until there were enough messages, the time is over, or a signal says so."""
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, done.set)

    async def follow(topic: str) -> None:
        async with fleet.messages(topic) as messages:
            async for message in messages:
                if not done.is_set() and printer.show(message):
                    done.set()

    async def report() -> None:
        async for event in fleet.events():
            click.echo(f"{fleet.member}: {event}", err=True)

    ends: list[asyncio.Task[object]] = [asyncio.create_task(done.wait())]
    ends += [asyncio.create_task(follow(topic)) for topic in topics]
    tasks = [*ends, asyncio.create_task(report())] if debug else ends
    try:
        ended, _ = await asyncio.wait(ends, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        for end in ended:
            end.result()  # raises if the member is out
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _payload(payload: bytes) -> dict[str, str]:
    try:
        return {"payload": payload.decode()}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(payload).decode()}
