"""`brokerkm guard`: what the broker is told of members, and what it lets them do."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from brokerkm.cli.administration import administer, placed, resolve_group, server_options
from brokerkm.cli.lazy import FailedError
from brokerkm.cli.output import json_option, print_fields, print_json, print_table, printable

if TYPE_CHECKING:
    from pathlib import Path

    from brokerkm.service import AdminApi
    from brokerkm.service.api import DataTopics, GuardDifference, GuardInfo


@click.group()
def guard() -> None:
    """Look whether the broker knows what the key server does; say which topics of the application members have."""


@guard.command()
@json_option
@server_options
def show(*, state: Path, as_json: bool) -> None:
    """Show whether the broker's guard is in step."""

    async def work(admin: AdminApi) -> GuardInfo:
        return await admin.show_guard()

    _print_guard(administer(state, work), as_json=as_json)


@guard.command()
@json_option
@server_options
def diff(*, state: Path, as_json: bool) -> None:
    """Compare the broker with the store: list where they differ, the first thousand. Exit status 1 if they do."""

    async def work(admin: AdminApi) -> list[GuardDifference]:
        return await admin.compare_guard()

    found = administer(state, work)
    if as_json:
        for one in found:
            print_json(dataclasses.asdict(one))
    elif found:
        print_table(("GROUP", "MEMBER", "AT THE BROKER"), [(one.group, one.member or "-", one.what) for one in found])
    else:
        click.echo("the broker is as the store says")
    if found:
        message = f"{len(found)} differences: the key server mends them within minutes, `brokerkm guard sync` at once"
        raise FailedError(message)


@guard.command()
@json_option
@server_options
def sync(*, state: Path, as_json: bool) -> None:
    """Make the broker as the store says, now; the key server does so by itself, too."""

    async def work(admin: AdminApi) -> GuardInfo:
        return await admin.sync_guard()

    _print_guard(administer(state, work), as_json=as_json)


@guard.command(
    epilog="""\b
Examples:
  brokerkm guard data                                      show what members have
  brokerkm guard data --publish 'plant/%m/#'               each publishes below its own id only
  brokerkm guard data --subscribe 'plant/#' --subscribe 'alarms/+'
"""
)
@click.option("-g", "--group", help="The group.  [default: the only one]")
@click.option("--publish", metavar="FILTER", multiple=True, help="What members may publish; may be repeated.")
@click.option("--subscribe", metavar="FILTER", multiple=True, help="What members may subscribe; may be repeated.")
@json_option
@server_options
def data(
    *, group: str | None, publish: tuple[str, ...], subscribe: tuple[str, ...], state: Path, as_json: bool
) -> None:
    """Show or set the topics of the application that a group's members have at a guarded broker.

    %m stands for the member id, %g for the group. A filter that is given replaces all former ones of its kind. Topics
    of brokerkm itself, and what begins with $, are never the application's.
    """

    async def work(admin: AdminApi) -> DataTopics:
        name = await resolve_group(admin, group)
        if not publish and not subscribe:
            return await admin.show_data(name)
        return await admin.set_data(name, publish=publish or None, subscribe=subscribe or None)

    found = administer(state, work)
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        print_fields({"publish": "\n".join(found.publish), "subscribe": "\n".join(found.subscribe)})


@guard.command(
    epilog="""\b
Examples:
  brokerkm guard serve                                     for a broker on this machine
  brokerkm guard serve --server https://keys.example:8443 --token-file /etc/brokerkm/viewer.token
\b
Paths, to be named in the broker's configuration (see deploy/):
  /rabbitmq/user /rabbitmq/vhost /rabbitmq/resource /rabbitmq/topic    by POST
  /emqx/authenticate /emqx/authorize
  /vernemq/hook
"""
)
@click.option("--listen", default="127.0.0.1:8091", show_default=True, metavar="HOST:PORT", help="Where brokers ask.")
@click.option("--tls-cert", type=click.Path(dir_okay=False), help="Certificate with its chain (PEM), for HTTPS.")
@click.option("--tls-key", type=click.Path(dir_okay=False), help="Its key.")
@click.option(
    "--applicants/--no-applicants", default=True, show_default=True, help="Whether unknown devices may ask for a place."
)
@click.option("-v", "--verbose", is_flag=True, help="Say who is refused and why, on standard error.")
@server_options
def serve(
    *, listen: str, tls_cert: str | None, tls_key: str | None, applicants: bool, verbose: bool, state: Path
) -> None:
    """Answer brokers that ask over HTTP who may do what: RabbitMQ, EMQX, VerneMQ.

    Whoever cannot be decided about is refused, so is everybody while the key server is away. It needs no more than the
    role viewer.
    """
    from brokerkm.cli.authorizing import authorize  # noqa: PLC0415 - not for --help

    authorize(placed(state, None), listen, (tls_cert, tls_key), applicants=applicants, verbose=verbose)


def _print_guard(info: GuardInfo, *, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(info))
        return
    how = "yes" if info.in_step else f"no: {printable(info.problem)}"
    print_fields({"in step": how, "members to be told": info.pending, "differences mended": info.mended})
