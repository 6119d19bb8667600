"""`brokerkm store`: show, backup, verify, restore, rewrap, and new keys."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from brokerkm.cli.administration import placed
from brokerkm.cli.checking import Backup, bar, report
from brokerkm.cli.options import config_option, server_state_option
from brokerkm.cli.output import json_option, print_fields, print_json
from brokerkm.cli.restoring import restore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar

    from brokerkm.service.storekeeping import StoreApi

    _T = TypeVar("_T")

_FILE: Final = click.Path(path_type=Path, dir_okay=False)


@click.group()
def store() -> None:
    """Take care of the store: copies of it, whether it is whole, the key that it is sealed under."""


store.add_command(restore)


@store.command(epilog="\b\nExamples:\n  brokerkm store show --json\n")
@config_option
@server_state_option
@json_option
def show(*, config: Path | None, state: Path, as_json: bool) -> None:
    """Show what kind of store it is and how much is in it."""
    info = dataclasses.asdict(_care(state, config, lambda keeping: keeping.show()))
    if info["kind"] == "sqlite":
        from brokerkm.config import load  # noqa: PLC0415 - not for --help
        from brokerkm.config.stores import sqlite_path  # noqa: PLC0415

        place = sqlite_path(load(config, os.environ), placed(state, config))
        files = [place.with_name(f"{place.name}{suffix}") for suffix in ("", "-wal")]
        info["size"] = sum(path.stat().st_size for path in files if path.exists())
    if as_json:
        print_json(info)
    else:
        print_fields(info)


@store.command(
    epilog="""\b
Examples:
  brokerkm store backup /var/backups/brokerkm-$(date +%F)
  brokerkm store verify /var/backups/brokerkm-2026-11-23
"""
)
@click.argument("file", type=_FILE)
@config_option
@server_state_option
@json_option
def backup(*, file: Path, config: Path | None, state: Path, as_json: bool) -> None:
    """Write a copy of the store to FILE while the server goes on. The store key is not in it: keep that elsewhere."""
    path = file.absolute()
    with bar("copying") as progress:
        _care(state, config, lambda keeping: keeping.backup(path, progress))
    size = path.stat().st_size
    if as_json:
        print_json({"file": str(path), "size": size})
    else:
        click.echo(f"the store is copied to {path} ({size} bytes), sealed under its store key, which is not in it")


@store.command(
    epilog="\b\nExamples:\n  brokerkm store verify\n  brokerkm store verify backup --key file:/mnt/usb/key\n"
)
@click.argument("file", type=_FILE, required=False)
@click.option("--key", metavar="SPEC", help="Store key that FILE is sealed under.  [default: the server's own]")
@config_option
@server_state_option
@json_option
def verify(*, file: Path | None, key: str | None, config: Path | None, state: Path, as_json: bool) -> None:
    """Check that the store, or the backup FILE, is whole: seals, versions, seats, audit logs. Exits 1 if it is not.

    With --json it prints one object, {"whole": …, "findings": […]}.
    """
    if file is None and key is not None:
        message = "--key is for a FILE: the store's own key is known"
        raise click.UsageError(message)
    with bar("checking") as progress:
        if file is None:
            findings = _care(state, config, lambda keeping: keeping.verify(progress))
        else:
            from brokerkm.config import load  # noqa: PLC0415 - not for --help

            findings = Backup(file, key, load(config, os.environ), placed(state, config)).check(progress)
    report(str(file or "the store"), findings, as_json=as_json)


@store.command(
    epilog="""\b
Examples:
  brokerkm store key new file:/etc/brokerkm/store-2.key
  brokerkm store rewrap --key file:/etc/brokerkm/store-2.key
  brokerkm store rewrap --key file:/etc/brokerkm/store-2.key --deep    (the old key has been seen by others)
"""
)
@click.option("--key", "spec", metavar="SPEC", required=True, help="The new store key.")
@click.option("--deep", is_flag=True, help="Seal everything anew, under a new data key too.")
@config_option
@server_state_option
@json_option
def rewrap(*, spec: str, deep: bool, config: Path | None, state: Path, as_json: bool) -> None:
    """Put the store under another store key; a server that runs goes on."""
    from brokerkm.storekey import open_source  # noqa: PLC0415 - not for --help

    directory = placed(state, config).absolute()
    open_source(spec, directory)  # says at once what is wrong with it
    with bar("sealing") as progress:
        _care(state, config, lambda keeping: keeping.rewrap(spec, directory, deep=deep, progress=progress))
    if as_json:
        print_json({"key": spec.partition(":")[0], "deep": deep})
    else:
        click.echo(
            "the store is sealed under the new key: name it as `store.key` in the configuration, or by "
            "$BROKERKM_STORE_KEY, before the next start and for commands without a server. Backups that were made "
            "before need the old one."
        )


@store.group()
def key() -> None:
    """Make store keys."""


@key.command(
    "new",
    epilog="""\b
Examples:
  brokerkm store key new file:/etc/brokerkm/store.key
  brokerkm store key new 'pkcs11:token=hsm;object=brokerkm?module-path=/usr/lib/p11.so&pin-source=file:/etc/pin'
""",
)
@click.argument("spec")
@server_state_option
@json_option
def new(*, spec: str, state: Path, as_json: bool) -> None:
    """Make a new store key at SPEC: a file, or an AES key in a PKCS#11 token that wraps one kept beside the store."""
    from brokerkm.store.owner import check_owner  # noqa: PLC0415 - not for --help
    from brokerkm.storekey import open_source  # noqa: PLC0415

    if not spec.startswith("file:/"):  # then it lies in the state directory
        check_owner(state)
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    open_source(spec, state.absolute()).create()
    kind = spec.partition(":")[0]
    if as_json:
        print_json({"key": kind})
    else:
        click.echo("there is a new store key. Keep a copy where the store's backups are not: without it they are lost")


def _care(state: Path, config: Path | None, work: Callable[[StoreApi], Awaitable[_T]]) -> _T:
    """Return what `work` makes of the store in a state directory, through its server if one runs."""
    from brokerkm.api.storekeeping import open_keeping  # noqa: PLC0415 - not for --help

    async def run() -> _T:
        async with open_keeping(placed(state, config), config) as keeping:
            return await work(keeping)

    return asyncio.run(run())
