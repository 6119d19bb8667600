"""A PostgreSQL cluster of its own in a temporary directory, durable as in earnest, on a free port of loopback."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg
from brokers.process import Process, free_port, require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

USER: Final = "brokerkm"
PASSWORD: Final = "not-a-secret-of-any-weight"  # guards a database that lives for a test
_OWNER: Final = "postgres"  # who runs it if the tests run as root, which PostgreSQL refuses to be


class PostgresProcess(Process):
    """The postmaster; an orderly stop does not wait for its clients."""

    def stop(self) -> None:
        """Disconnect all clients, write what is to be written, and end."""
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """End all of it without a checkpoint: the next start recovers from the log."""
        self._end(signal.SIGQUIT)


class Postgres:
    """A running cluster; each test makes a database of its own in it."""

    def __init__(self, process: PostgresProcess, port: int) -> None:
        self.process = process
        self.port = port
        self._numbers = itertools.count(1)

    def create_database(self) -> str:
        """Return the URL of a new, empty database."""
        name = f"test_{next(self._numbers)}"
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload] # not literal, but ours
        return self.url(name)

    def url(self, database: str) -> str:
        """Return the URL of a database."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str) -> psycopg.Connection:
        """Return a connection that commits each statement."""
        return psycopg.connect(self.url(database), autocommit=True)

    def cut_connections(self) -> int:
        """End every connection but this one, as a failing network does; return how many there were."""
        others = "FROM pg_stat_activity WHERE usename = %s AND pid <> pg_backend_pid()"
        with self.connect("postgres") as connection:
            return len(connection.execute(f"SELECT pg_terminate_backend(pid, 5000) {others}", (USER,)).fetchall())

    def crash_and_restart(self) -> None:
        """Lose power, and come back."""
        self.process.crash()
        self.process.start()


@contextlib.contextmanager
def postgresql() -> Iterator[Postgres]:
    """Run a cluster until the context ends."""
    programs = _programs()
    with tempfile.TemporaryDirectory(prefix="brokerkm-postgresql-") as path:
        directory = Path(path)
        password_file = directory / "password"
        password_file.write_text(PASSWORD)
        if os.geteuid() == 0:
            shutil.chown(directory, _OWNER)
            shutil.chown(password_file, _OWNER)
        data, port = directory / "data", free_port()
        made = ["--pgdata", str(data), "--username", USER, "--pwfile", str(password_file), "--auth", "scram-sha-256"]
        _run([programs / "initdb", *made, "--encoding", "UTF8", "--no-locale"], directory)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": str(directory),
            "max_connections": "60",
            "shared_buffers": "32MB",
            "fsync": "on",
        }
        arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = _as_owner([programs / "postgres", "-D", data, *arguments])
        process = PostgresProcess(command, "database system is ready to accept connections", directory)
        process.start()
        try:
            yield Postgres(process, port)
        finally:
            process.stop()


def _programs() -> Path:
    """Return the directory of PostgreSQL's programs, the newest if there are several; Debian keeps them out of PATH."""
    found = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    newest = max(found, key=lambda path: int(path.parent.name), default=None)
    return newest or Path(require("initdb", "postgresql")).resolve().parent


def _as_owner(command: Sequence[str | Path]) -> list[str]:
    words = [str(word) for word in command]
    if os.geteuid() != 0:
        return words
    return ["setpriv", "--reuid", _OWNER, "--regid", _OWNER, "--init-groups", *words]


def _run(command: Sequence[str | Path], directory: Path) -> None:
    done = subprocess.run(_as_owner(command), cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
