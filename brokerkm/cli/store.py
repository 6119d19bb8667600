"""`brokerkm store`: show, backup, verify, restore, rewrap, and new keys."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from brokerkm.cli.lazy import FailedError, WrongError
from brokerkm.cli.options import server_state_option
from brokerkm.cli.output import json_option, print_fields, print_json, printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from typing import TypeVar

    from brokerkm.service.storekeeping import StoreApi
    from brokerkm.store.protocol import Progress
    from brokerkm.store.records import Finding

    _T = TypeVar("_T")

_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_key_option = click.option(
    "--key", metavar="SPEC", help="Store key that FILE is sealed under.  [default: the server's own]"
)


@click.group()
def store() -> None:
    """Take care of the store: copies of it, whether it is whole, the key that it is sealed under."""


@store.command(epilog="\b\nExamples:\n  brokerkm store show --json\n")
@server_state_option
@json_option
def show(*, state: Path, as_json: bool) -> None:
    """Show what kind of store it is and how much is in it."""
    info = dataclasses.asdict(_care(state, lambda keeping: keeping.show()))
    if info["kind"] == "sqlite":
        from brokerkm.service.local import STORE_FILE  # noqa: PLC0415 - not for --help

        files = [state / f"{STORE_FILE}{suffix}" for suffix in ("", "-wal")]
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
@server_state_option
@json_option
def backup(*, file: Path, state: Path, as_json: bool) -> None:
    """Write a copy of the store to FILE while the server goes on. The store key is not in it: keep that elsewhere."""
    path = file.absolute()
    with _bar("copying") as progress:
        _care(state, lambda keeping: keeping.backup(path, progress))
    size = path.stat().st_size
    if as_json:
        print_json({"file": str(path), "size": size})
    else:
        click.echo(f"the store is copied to {path} ({size} bytes), sealed under its store key, which is not in it")


@store.command(
    epilog="\b\nExamples:\n  brokerkm store verify\n  brokerkm store verify backup --key file:/mnt/usb/key\n"
)
@click.argument("file", type=_FILE, required=False)
@_key_option
@server_state_option
@json_option
def verify(*, file: Path | None, key: str | None, state: Path, as_json: bool) -> None:
    """Check that the store, or the backup FILE, is whole: seals, versions, seats, audit logs. Exits 1 if it is not."""
    if file is None and key is not None:
        message = "--key is for a FILE: the store's own key is known"
        raise click.UsageError(message)
    with _bar("checking") as progress:
        if file is None:
            findings = _care(state, lambda keeping: keeping.verify(progress))
        else:
            with tempfile.TemporaryDirectory(prefix="brokerkm-verify-") as place:
                findings = _check_copy(file, Path(place) / "copy", key, state, progress)
    _report(str(file or "the store"), findings, as_json=as_json)


@store.command(
    epilog="""\b
Examples:
  brokerkm store restore /var/backups/brokerkm-2026-11-23
  brokerkm group recover          (if the broker knows newer epochs; `serve` says so)
"""
)
@click.argument("file", type=_FILE)
@click.option("--force", is_flag=True, help="Even if there is a store: it is kept beside, under another name.")
@_key_option
@server_state_option
@json_option
def restore(*, file: Path, force: bool, key: str | None, state: Path, as_json: bool) -> None:
    """Make the store of the state directory from the backup FILE, after a check that it is whole."""
    from brokerkm.service.local import STORE_FILE  # noqa: PLC0415 - not for --help

    place = state / STORE_FILE
    if place.exists() and not force:
        message = f"{place}: there is a store already; --force puts it aside and goes on"
        raise WrongError(message)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = state / f"{STORE_FILE}.restored"
    with _bar("checking") as progress:
        try:
            findings = _check_copy(file, fresh, key, state, progress)
            if findings:
                _report(str(file), findings, as_json=as_json)
            aside = _put_aside(place) if place.exists() else None
            fresh.rename(place)
        finally:
            fresh.unlink(missing_ok=True)
    if as_json:
        print_json({"store": str(place), "aside": str(aside) if aside else None})
        return
    click.echo(
        f"the store {place} is what it was when {file} was made" + (f"; the old one is {aside}" if aside else "")
    )
    click.echo(
        "If its groups have gone on since then, the server will refuse to serve them, because the broker knows newer "
        "epochs: `brokerkm group recover` gives them new keys and welcomes all members again."
    )


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
@server_state_option
@json_option
def rewrap(*, spec: str, deep: bool, state: Path, as_json: bool) -> None:
    """Put the store under another store key; a server that runs goes on."""
    from brokerkm.storekey import open_source  # noqa: PLC0415 - not for --help

    directory = state.absolute()
    open_source(spec, directory)  # says at once what is wrong with it
    with _bar("sealing") as progress:
        _care(state, lambda keeping: keeping.rewrap(spec, directory, deep=deep, progress=progress))
    if as_json:
        print_json({"key": spec.partition(":")[0], "deep": deep})
    else:
        click.echo(
            "the store is sealed under the new key: name it as `store.key` in the configuration before the next start. "
            "Backups that were made before need the old one."
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
    from brokerkm.storekey import open_source  # noqa: PLC0415 - not for --help

    if not spec.startswith("file:/"):  # then it lies in the state directory
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    open_source(spec, state.absolute()).create()
    kind = spec.partition(":")[0]
    if as_json:
        print_json({"key": kind})
    else:
        click.echo("there is a new store key. Keep a copy where the store's backups are not: without it they are lost")


def _care(state: Path, work: Callable[[StoreApi], Awaitable[_T]]) -> _T:
    """Return what `work` makes of the store in a state directory, through its server if one runs."""
    from brokerkm.api.storekeeping import open_keeping  # noqa: PLC0415 - not for --help

    async def run() -> _T:
        async with open_keeping(state) as keeping:
            return await work(keeping)

    return asyncio.run(run())


def _check_copy(file: Path, place: Path, spec: str | None, state: Path, progress: Progress) -> list[Finding]:
    """Copy a backup to `place` and return what is wrong with it; the backup itself is not touched."""
    from brokerkm.store.backup import restore as copy_backup  # noqa: PLC0415 - not for --help
    from brokerkm.store.sqlite import KEY_FILE, SqliteStore  # noqa: PLC0415
    from brokerkm.storekey import open_source  # noqa: PLC0415

    copy_backup(file, place, progress)
    source = open_source(spec or _configured_key() or f"file:{KEY_FILE}", state.absolute())
    with contextlib.closing(SqliteStore(place, source.read)) as copied:
        return copied.verify(progress)


def _configured_key() -> str | None:
    """Return the spec of the store key that the server is configured to take."""
    from brokerkm.config import load  # noqa: PLC0415 - not for --help

    reference = load(os.environ.get("BROKERKM_CONFIG") or None, os.environ).store.key
    return None if reference is None else reference.spec


def _put_aside(place: Path) -> Path:
    """Give the old store another name; raises `StoreError` if it is in use."""
    from brokerkm.store.database import SqliteEngine  # noqa: PLC0415 - not for --help

    SqliteEngine(place).close()  # it has the lock for a moment, and leaves nothing beside the file
    number = 1
    while (aside := place.with_name(f"{place.name}.old-{number}")).exists():
        number += 1
    place.rename(aside)
    return aside


def _report(what: str, findings: list[Finding], *, as_json: bool) -> None:
    """Print what was found; raises `FailedError` if that is anything."""
    if as_json:
        for finding in findings:
            print_json(dataclasses.asdict(finding))
    else:
        for finding in findings:
            where = f"group {finding.group}: " if finding.group else ""
            click.echo(printable(f"{where}{finding.what}"))
    if findings:
        message = f"{what} is not whole: {len(findings)} findings; restore a backup that is"
        raise FailedError(message)
    if not as_json:
        click.echo(f"{what} is whole")


@contextlib.contextmanager
def _bar(title: str) -> Generator[Progress]:
    """Show how far something is, on a terminal; yields what is to be told so."""
    from rich.console import Console  # noqa: PLC0415 - not for --help
    from rich.progress import Progress as Bars  # noqa: PLC0415

    console = Console(stderr=True)
    with Bars(console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task(title, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
