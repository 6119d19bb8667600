"""`brokerkm events`: what happens in the server, as it happens."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

import click

from brokerkm.cli.administration import administer, server_options
from brokerkm.cli.lazy import FailedError
from brokerkm.cli.output import json_option, print_json, printable, say_time

if TYPE_CHECKING:
    from pathlib import Path

    from brokerkm.service import AdminApi
    from brokerkm.service.api import Event


@click.command(
    epilog="\b\nExamples:\n  brokerkm events --follow\n  brokerkm events --follow -g plant --kind evicted --json\n"
)
@click.option(
    "-f", "--follow", is_flag=True, required=True, help="Go on until interrupted; what is past is in the audit log."
)
@click.option("-g", "--group", help="Only of this group.")
@click.option("--kind", "kinds", multiple=True, help="Only of this kind; may be given several times.")
@click.option("-n", "--count", type=click.IntRange(1), help="Stop after so many.")
@server_options
@json_option
def events(
    *, follow: bool, group: str | None, kinds: tuple[str, ...], count: int | None, state: Path, as_json: bool
) -> None:
    """Follow what happens in a running server; with --json one object a line."""
    del follow  # the only way there is

    async def work(admin: AdminApi) -> None:
        from brokerkm.api import RemoteAdmin  # noqa: PLC0415 - not for --help

        if not isinstance(admin, RemoteAdmin):
            message = "no server runs here, so nothing happens: start one with `brokerkm serve`"
            raise FailedError(message)
        left = count
        async with contextlib.aclosing(admin.events()) as happening:
            async for event in happening:
                if (group is not None and event.group != group) or (kinds and event.kind not in kinds):
                    continue
                _print_event(event, as_json=as_json)
                left = None if left is None else left - 1
                if left == 0:
                    return

    with contextlib.suppress(KeyboardInterrupt):
        administer(state, work)


def _print_event(event: Event, *, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(event))
        return
    details = ", ".join(f"{name} {value}" for name, value in event.details.items())
    parts = (say_time(int(event.time * 1000)), event.group, event.kind, event.member, printable(details))
    click.echo("  ".join(part for part in parts if part))
