"""`brokerkm pub`: publish to the group, in the manner of mosquitto_pub."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, BinaryIO

import click

from brokerkm.cli.home import find
from brokerkm.cli.options import check_url, login_options, member_state_option
from brokerkm.transport import Role

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from brokerkm.transport import Options


@click.command(
    epilog="""\b
Examples:
  brokerkm pub -t plant/pump/temperature -m 21.4
  brokerkm pub -t plant/pump/curve -f curve.bin --retain
  tail -f log | brokerkm pub -i pump-7 -t plant/pump/log -l
"""
)
@click.option("-t", "--topic", required=True, help="Topic to publish on.")
@click.option("-m", "--message", help="The message.")
@click.option("-l", "--lines", is_flag=True, help="Publish each line of standard input.")
@click.option("-s", "--stdin", "whole", is_flag=True, help="Publish standard input as one message.")
@click.option("-f", "--file", type=click.File("rb"), help="Publish a file as one message.")
@click.option("-n", "--null", is_flag=True, help="Publish a message of no bytes.")
@click.option("-r", "--retain", is_flag=True, help="Let the broker keep it for whoever subscribes later.")
@click.option("-i", "--member", help="As which member.  [default: the only one here]")
@click.option("-g", "--group", help="To which group.  [default: the only one here]")
@click.option("--broker", callback=check_url, help="URL of the broker.  [default: as when it joined]")
@click.option(
    "--timeout",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds that connecting or sending may take.",
)
@login_options(Role.MEMBER)
@member_state_option
def pub(
    *,
    topic: str,
    message: str | None,
    lines: bool,
    whole: bool,
    file: BinaryIO | None,
    null: bool,
    retain: bool,
    member: str | None,
    group: str | None,
    broker: str | None,
    timeout: float,
    options: Options,
    state: Path,
) -> None:
    """Publish a message that only the group's current members can read.

    It returns when the broker has accepted everything.
    """
    from brokerkm.sdk.sync import connect_sync  # noqa: PLC0415 - not for --help

    if sum((message is not None, lines, whole, file is not None, null)) != 1:
        text = "give one of -m, -l, -s, -f and -n"
        raise click.UsageError(text)
    home = find(state, group, member)
    with connect_sync(
        broker, home.descriptor, member=home.member, state_dir=home.directory, timeout=timeout, options=options
    ) as fleet:
        for payload in _payloads(message, file, lines=lines, whole=whole):
            fleet.publish(topic, payload, retain=retain)


def _payloads(message: str | None, file: BinaryIO | None, *, lines: bool, whole: bool) -> Iterator[bytes]:
    if lines:
        for line in sys.stdin.buffer:
            yield line.rstrip(b"\r\n")
    elif whole:
        yield sys.stdin.buffer.read()
    elif file is not None:
        yield file.read()
    else:
        yield (message or "").encode()
