"""`brokerkm group recover`: after a store was restored from a backup, while no server leads the group."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import getpass
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from brokerkm.cli.options import check_url, login_options, server_state_option
from brokerkm.cli.output import json_option, print_json
from brokerkm.errors import UsageError
from brokerkm.transport import Role, create

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from brokerkm.service.recovery import Recovery
    from brokerkm.store.protocol import Store
    from brokerkm.store.sql import SqlStore
    from brokerkm.transport import Options


@click.command(
    epilog="""\b
Examples:
  brokerkm group recover plant --broker mqtts://broker.example
  brokerkm group recover plant --config brokerkm.toml --evict pump-7 --evict pump-9
"""
)
@click.argument("name")
@click.option("--evict", "evicted", multiple=True, metavar="MEMBER", help="Who is not to come back; may be repeated.")
@click.option("--force", is_flag=True, help="Also if the broker shows nothing newer than the store.")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="BROKERKM_CONFIG",
    help="TOML file; see `brokerkm config example`.",
)
@click.option("--broker", callback=check_url, envvar="BROKERKM_BROKER", help="URL of the broker.")
@login_options(Role.SERVER)
@server_state_option
@json_option
def recover(
    *,
    name: str,
    evicted: tuple[str, ...],
    force: bool,
    config: Path | None,
    broker: str | None,
    options: Options,
    state: Path,
    as_json: bool,
) -> None:
    """Put the group NAME right after its store was restored from a backup; stop the server that leads it first.

    The epoch jumps above what the broker has seen, every key is drawn anew, and everybody whom the backup knows gets
    new keys as soon as the server runs. The backup does not know who was evicted after it was made: name them by
    --evict, or they come back. Who joined after it joins again.
    """
    from brokerkm.cli.hosting import broker_options  # noqa: PLC0415 - not for --help
    from brokerkm.config import load  # noqa: PLC0415
    from brokerkm.config.stores import open_store  # noqa: PLC0415
    from brokerkm.service.recovery import recover as run  # noqa: PLC0415

    configuration = load(config, os.environ)
    if broker is not None:
        configuration = dataclasses.replace(configuration, broker=dataclasses.replace(configuration.broker, url=broker))
    if not configuration.broker.url:
        message = "name the broker by --broker or --config: it has seen what the backup has not"
        raise UsageError(message)
    transport = create(configuration.broker.url, broker_options(configuration, options))

    async def work(store: SqlStore) -> Recovery:
        async with _held(store, name, configuration.cluster.lease) as mine:
            return await run(
                mine,
                transport,
                name,
                evicted=evicted,
                actor=f"operator:{getpass.getuser()}",
                clock=time.time,
                random=os.urandom,
                force=force,
            )

    with contextlib.closing(open_store(configuration, state, create=False)) as store:
        done = asyncio.run(work(store))
    if as_json:
        print_json({"group": name, **done._asdict()})
        return
    click.echo(
        f"group {name} goes on at epoch {done.epoch}: the store was at {done.before}, the broker at {done.broker}"
    )
    click.echo(f"{done.welcomed} members get new keys and {done.evicted} are out, as soon as brokerkm serve runs")


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
