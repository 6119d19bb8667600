"""`brokerkm group recover`: after a store was restored from a backup, while no server leads the group."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import getpass
import os
import time
from typing import TYPE_CHECKING

import click

from brokerkm.cli.options import (
    LOGIN,
    check_url,
    chosen_state,
    config_option,
    login_options,
    repeated,
    server_state_option,
)
from brokerkm.cli.output import json_option, print_json
from brokerkm.errors import UsageError
from brokerkm.transport import Role, create

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from brokerkm.config import Configuration
    from brokerkm.service.recovery import Recovery
    from brokerkm.store.protocol import Store
    from brokerkm.store.sql import SqlStore
    from brokerkm.transport import Options, Transport


@click.command(
    epilog="""\b
Examples:
  brokerkm group recover --broker mqtts://broker.example
  brokerkm group recover plant --config brokerkm.toml --evict pump-7 --evict pump-9
"""
)
@click.argument("name", required=False)
@click.option("--evict", "evicted", multiple=True, metavar="MEMBER", help="Who is not to come back; may be repeated.")
@click.option("--force", is_flag=True, help="Also if the broker shows nothing newer than the store, or there is none.")
@config_option
@click.option("--broker", callback=check_url, envvar="BROKERKM_BROKER", help="URL of the broker.")
@login_options(Role.SERVER)
@server_state_option
@json_option
def recover(
    *,
    name: str | None,
    evicted: tuple[str, ...],
    force: bool,
    config: Path | None,
    broker: str | None,
    options: Options,
    state: Path,
    as_json: bool,
) -> None:
    """Put the group NAME, or the only one, right after its store was restored; stop the server that leads it first.

    The epoch jumps above what the broker has seen, every key is drawn anew, and everybody whom the backup knows gets
    new keys as soon as the server runs. The backup does not know who was evicted after it was made: name them by
    --evict, or they come back. Who joined after it joins again.
    """
    from brokerkm.config import load  # noqa: PLC0415 - not for --help
    from brokerkm.config.stores import open_store  # noqa: PLC0415
    from brokerkm.service.recovery import recover as run  # noqa: PLC0415

    configuration = load(config, os.environ)
    if broker is not None:
        configuration = dataclasses.replace(configuration, broker=dataclasses.replace(configuration.broker, url=broker))
    transport = _transport(configuration, options, force=force)

    async def work(store: SqlStore) -> tuple[str, Recovery]:
        group = await asyncio.to_thread(_only, store) if name is None else name
        async with _held(store, group, configuration.cluster.lease) as mine:
            return group, await run(
                mine,
                transport,
                group,
                evicted=evicted,
                actor=f"operator:{getpass.getuser()}",
                clock=time.time,
                random=os.urandom,
                force=force,
            )

    state = chosen_state(state, configuration.server.state)
    with contextlib.closing(open_store(configuration, state, create=False)) as store:
        group, done = asyncio.run(work(store))
    if as_json:
        print_json({"group": group, **done._asdict()})
        return
    at = f"the store was at {done.before}" + (f", the broker at {done.broker}" if done.broker else "")
    click.echo(f"group {group} goes on at epoch {done.epoch}: {at}")
    get, are = "gets" if done.welcomed == 1 else "get", "is" if done.evicted == 1 else "are"
    members = "1 member" if done.welcomed == 1 else f"{done.welcomed} members"
    click.echo(
        f"{members} {get} new keys and {done.evicted} {are} out, as soon as the server runs: "
        f"brokerkm serve{repeated(*LOGIN, 'config', 'state')}"
    )


def _transport(configuration: Configuration, options: Options, *, force: bool) -> Transport | None:
    """Return the way to the broker, if there is one."""
    from brokerkm.cli.hosting import broker_options  # noqa: PLC0415 - not for --help

    if configuration.broker.url:
        return create(configuration.broker.url, broker_options(configuration, options))
    if not force:
        message = (
            "name the broker by --broker or --config: it has seen what the backup has not. If it is the one that "
            "`brokerkm serve` brings, which forgets all when it stops: --force"
        )
        raise UsageError(message)
    return None


def _only(store: SqlStore) -> str:
    """Return the only group's name."""
    names = [record.name for record in store.groups()]
    if len(names) != 1:
        what = f"there are several groups, so name one: {', '.join(names)}" if names else "there is no group"
        raise UsageError(what)
    return names[0]


@contextlib.asynccontextmanager
async def _held(store: SqlStore, group: str, lease: float) -> AsyncGenerator[Store]:
    """Keep servers from leading a group: a SQLite file nobody else can have open, in PostgreSQL there are leases."""
    from brokerkm.store.postgres import PostgresStore  # noqa: PLC0415 - not for --help

    if not isinstance(store, PostgresStore):
        yield store
        return
    from brokerkm.service.seizing import seized  # noqa: PLC0415 - it needs psycopg

    async with seized(store, group, lease) as mine:
        yield mine
