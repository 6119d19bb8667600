"""The store: who may read it, is there room, is the file whole, does its key exist; or what the database says."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import time
from typing import TYPE_CHECKING, Final

from brokerkm.doctor.finding import Finding, fail, ok, warn
from brokerkm.errors import StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_OTHERS: Final = 0o077
_SCARCE: Final = 200 << 20  # bytes; a million members take about that
_NONE: Final = 20 << 20  # bytes
_SKEW: Final = 2.0  # seconds between our clock and the database's


def look_at_directory(state: Path) -> Iterator[Finding]:
    """Yield what is found of the state directory."""
    if not state.is_dir():
        yield ok("state", f"{state} is not there yet: the first start makes it")
        return
    about = state.stat()
    if about.st_uid != os.geteuid():
        text = f"{state} belongs to another user (uid {about.st_uid}) than this one"
        yield warn("state", text, "run brokerkm as the user of the server, such as with sudo -u brokerkm")
    if about.st_mode & _OTHERS:
        yield fail("state", f"others than its owner get into {state}, which holds keys", f"chmod 700 {state}")
    else:
        yield ok("state", f"{state} is its owner's alone")
    free = shutil.disk_usage(state).free
    shown = f"{free >> 20} MiB are free below {state}"
    if free < _NONE:
        yield fail(
            "disk", f"{shown}: nothing can be stored soon, and what cannot be stored does not happen", "make room"
        )
    elif free < _SCARCE:
        yield warn("disk", shown, "make room")
    else:
        yield ok("disk", shown)


def look_at_file(path: Path) -> Iterator[Finding]:
    """Yield what is found of a SQLite file and of what lies beside it."""
    if not path.exists():
        yield ok("store", f"{path} is not there yet: the first start makes it")
        return
    yield from private_files([path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))])
    if path.with_name(f"{path.name}-wal").exists():
        text = "in use, or was not closed, which the next start mends; `brokerkm store verify` checks it then"
        yield ok("store", f"{path} is {text}")
        return
    try:  # immutable: no lock and no file beside it, which would be root's if root runs this
        address = f"{path.absolute().as_uri()}?immutable=1"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as file:
            problems = [row[0] for row in file.execute("PRAGMA quick_check(3)")]
    except sqlite3.Error as error:
        yield fail("store", f"{path} cannot be read: {error}", "check the path; restore a backup if it is damaged")
        return
    if problems == ["ok"]:
        yield ok("store", f"{path} is whole (quick check)")
    else:
        yield fail("store", f"{path} is damaged: {problems[0]}", "stop the server and restore a backup")


def private_files(paths: list[Path]) -> Iterator[Finding]:
    """Yield which of these files others may read."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & _OTHERS:
                yield fail("store", f"others than its owner may read {path} (mode {mode:o})", f"chmod 600 {path}")


def look_at_key(spec: str, directory: Path) -> Finding:
    """Return whether the store key can be read."""
    from brokerkm.storekey import open_source  # noqa: PLC0415 - PKCS#11, for who has it

    try:
        open_source(spec, directory).read()
    except (StoreError, UsageError) as error:
        return fail("store key", f"{error}", "without it nothing in the store can be read: bring it back")
    return ok("store key", f"it can be read from {spec.partition(':')[0]}:…")


def look_at_database(url: str) -> Iterator[Finding]:
    """Yield what PostgreSQL says of itself; `url` has the password and is not shown."""
    try:
        import psycopg  # noqa: PLC0415 - an extra
    except ImportError:
        yield fail("store", "the store is PostgreSQL, but psycopg is missing", "pip install 'brokerkm[postgres]'")
        return
    try:
        with psycopg.connect(url, connect_timeout=5, autocommit=True) as database:
            settings = {name: database.execute(f"SHOW {name}").fetchone() for name in ("fsync", "synchronous_commit")}
            row = database.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone()
            version = database.info.server_version
    except psycopg.Error as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        yield fail("store", f"PostgreSQL cannot be used: {reason}", "check store.url, the password and pg_hba.conf")
        return
    skew = time.time() - float(row[0]) if row else 0.0
    yield ok("store", f"PostgreSQL {version // 10000}.{version % 10000} answers")
    off = [name for name, value in settings.items() if value is not None and value[0] == "off"]
    if off:
        text = f"the database has {' and '.join(off)} off: a power failure loses epochs that members have seen"
        yield fail("durability", text, "switch it on in postgresql.conf")
    else:
        yield ok("durability", "the database keeps what it has committed")
    if abs(skew) > _SKEW:
        text = f"this clock and the database's differ by {skew:+.1f} s"
        yield warn("clock", text, "run NTP on both: leases count on clocks that run alike, members on the time")
    else:
        yield ok("clock", f"this clock and the database's differ by {abs(skew):.1f} s")
