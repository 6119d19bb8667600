"""`brokerkm store restore`: a store of a backup, where the configuration says that the store is."""

from __future__ import annotations

import getpass
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from brokerkm.cli.administration import placed
from brokerkm.cli.checking import Backup, bar, report
from brokerkm.cli.lazy import WrongError
from brokerkm.cli.options import config_option, repeated, server_state_option
from brokerkm.cli.output import json_option, print_json

if TYPE_CHECKING:
    from brokerkm.store import SqliteStore
    from brokerkm.store.protocol import Progress

_FILE: Final = click.Path(path_type=Path, dir_okay=False)


@click.command(
    epilog="""\b
Examples:
  brokerkm store restore /var/backups/brokerkm-2026-11-23
  brokerkm store restore /var/backups/brokerkm-2026-11-23 --config /etc/brokerkm/brokerkm.toml
  brokerkm group recover          (if its groups have gone on since, or may have; `serve` says so)
"""
)
@click.argument("file", type=_FILE)
@click.option("--force", is_flag=True, help="Even if there is a SQLite store: it is kept beside, under another name.")
@click.option("--key", metavar="SPEC", help="Store key that FILE is sealed under.  [default: the server's own]")
@config_option
@server_state_option
@json_option
def restore(*, file: Path, force: bool, key: str | None, config: Path | None, state: Path, as_json: bool) -> None:
    """Make the server's store from the backup FILE, after a check that it is whole.

    The configuration says where that is: a SQLite file, which belongs to whom its directory belongs, or an empty
    PostgreSQL database. The store key does not come with it.
    """
    from brokerkm.config import load  # noqa: PLC0415 - not for --help
    from brokerkm.config.stores import is_shared, sqlite_path  # noqa: PLC0415

    configuration = load(config, os.environ)
    found, aside = Backup(file, key, configuration, placed(state, config)), None
    with bar("checking") as progress:
        if is_shared(configuration):
            name = _to_database(found, progress, as_json=as_json)
        else:
            place = sqlite_path(configuration, found.state)
            aside = _to_file(found, place, progress, force=force, as_json=as_json)
            name = str(place)
    if as_json:
        print_json({"store": name, "aside": str(aside) if aside else None})
        return
    click.echo(f"the store {name} is what it was when {file} was made" + (f"; the old one is {aside}" if aside else ""))
    if key is not None:
        click.echo(f"It is sealed under {key.partition(':')[0]}:…, as the backup was: name that as store.key.")
    click.echo(
        "If its groups have gone on since then, or nothing shows whether they have, the server will refuse to serve "
        f"them: `brokerkm group recover{repeated('config', 'state')}` gives them new keys and welcomes all members "
        "again."
    )


def _to_file(backup: Backup, place: Path, progress: Progress, *, force: bool, as_json: bool) -> Path | None:
    """Make the SQLite store; return where the old one is, if there was one."""
    from brokerkm.store.owner import give_to_owner  # noqa: PLC0415 - not for --help

    if place.exists() and not force:
        message = f"{place}: there is a store already; --force puts it aside and goes on"
        raise WrongError(message)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = place.with_name(f"{place.name}.restored")
    try:
        with backup.copied(fresh.parent, progress, fresh.name) as copy:
            _check(backup, copy, progress, as_json=as_json)
        give_to_owner(fresh)
        aside = _link_aside(place) if place.exists() else None
        fresh.replace(place)
    finally:
        fresh.unlink(missing_ok=True)
    return aside


def _to_database(backup: Backup, progress: Progress, *, as_json: bool) -> str:
    """Fill the empty PostgreSQL database; return its name."""
    from brokerkm.config.stores import database_url  # noqa: PLC0415 - not for --help
    from brokerkm.store.postgres import restore_database  # noqa: PLC0415 - it needs psycopg

    with tempfile.TemporaryDirectory(prefix="brokerkm-restore-") as directory:
        with backup.copied(Path(directory), progress) as copy:
            _check(backup, copy, progress, as_json=as_json)
        return restore_database(Path(directory) / "copy", database_url(backup.configuration), progress)


def _check(backup: Backup, copy: SqliteStore, progress: Progress, *, as_json: bool) -> None:
    """Refuse a copy that is not whole, and mark one that is."""
    from brokerkm.store.restored import mark  # noqa: PLC0415 - not for --help

    findings = copy.verify(progress)
    if findings:
        report(str(backup.file), findings, as_json=as_json)
    mark(copy, int(time.time() * 1000), f"operator:{getpass.getuser()}")


def _link_aside(place: Path) -> Path:
    """Give the old store another name too, so that there is one at any time; raises `StoreError` if it is in use."""
    from brokerkm.store.database import SqliteEngine  # noqa: PLC0415 - not for --help

    SqliteEngine(place, create=False).close()  # it has the lock for a moment, and leaves nothing beside the file
    number = 1
    while (aside := place.with_name(f"{place.name}.old-{number}")).exists():
        number += 1
    aside.hardlink_to(place)
    return aside
