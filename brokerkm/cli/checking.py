"""Checks of a store or a backup: copied aside, opened under its key, and what is said of it."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from brokerkm.cli.lazy import FailedError
from brokerkm.cli.output import print_json, printable

if TYPE_CHECKING:
    from collections.abc import Generator

    from brokerkm.config import Configuration
    from brokerkm.store import SqliteStore
    from brokerkm.store.protocol import Progress
    from brokerkm.store.records import Finding


class Backup(NamedTuple):
    """A backup, and where what is known of it comes from.

    Args:
        spec: of its store key; None for the server's own.
        state: the server's directory.
    """

    file: Path
    spec: str | None
    configuration: Configuration
    state: Path

    def check(self, progress: Progress) -> list[Finding]:
        """Return what is wrong with it."""
        with (
            tempfile.TemporaryDirectory(prefix="brokerkm-verify-") as place,
            self.copied(Path(place), progress) as copy,
        ):
            return copy.verify(progress)

    @contextlib.contextmanager
    def copied(self, directory: Path, progress: Progress, name: str = "copy") -> Generator[SqliteStore]:
        """Copy it, untouched, to a file in `directory`, and yield that as a store; raises `StoreError`."""
        from brokerkm.config.stores import key_spec, naming, sqlite_path  # noqa: PLC0415 - not for --help
        from brokerkm.store.backup import restore  # noqa: PLC0415
        from brokerkm.store.sqlite import SqliteStore  # noqa: PLC0415
        from brokerkm.storekey import open_source  # noqa: PLC0415

        beside = self.spec is None and self.configuration.store.key is None
        keys = sqlite_path(self.configuration, self.state).parent if beside else self.state
        spec = self.spec or key_spec(self.configuration)
        source = open_source(spec, keys.absolute())
        restore(self.file, directory / name, progress)
        with naming(spec, keys):
            copy = SqliteStore(directory / name, source.read)
        with contextlib.closing(copy):
            yield copy


def report(what: str, findings: list[Finding], *, as_json: bool) -> None:
    """Print what was found; raises `FailedError` if that is anything."""
    if as_json:
        print_json({"whole": not findings, "findings": [dataclasses.asdict(finding) for finding in findings]})
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
def bar(title: str) -> Generator[Progress]:
    """Show how far something is, on a terminal; yields what is to be told so."""
    from rich.console import Console  # noqa: PLC0415 - not for --help
    from rich.progress import Progress as Bars  # noqa: PLC0415

    console = Console(stderr=True)
    with Bars(console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task(title, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
