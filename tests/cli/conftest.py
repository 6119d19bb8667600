"""Fixtures of the command line's tests: a machine of its own, and a key server running on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from brokers.process import Process
from click.testing import CliRunner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

PATIENCE = 60.0  # seconds


class Machine:
    """A directory that stands for a machine: where commands run, and where their state is."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._started: list[subprocess.Popen[str]] = []
        self.environment = {**os.environ, "XDG_STATE_HOME": str(home / "s"), "HOME": str(home)}

    def run(self, *arguments: str, text: str | None = None, status: int = 0) -> str:
        """Return what a command printed on standard output, or on the other if it failed."""
        done = subprocess.run(
            [sys.executable, "-m", "brokerkm", *arguments],
            cwd=self.home,
            env=self.environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr
        return done.stderr if status else done.stdout

    def ask(self, *arguments: str) -> dict[str, object]:
        """Return what a command printed as JSON."""
        found: dict[str, object] = json.loads(self.run(*arguments, "--json"))
        return found

    def serve(self, *arguments: str) -> Process:
        """Return a key server, not yet started."""
        command = [sys.executable, "-m", "brokerkm", "serve", *arguments]
        return Process(command, r"brokerkm member evict|\"groups\"", self.home, self.environment)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command and return at once."""
        process = subprocess.Popen(
            [sys.executable, "-m", "brokerkm", *arguments],
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def clean(self) -> None:
        """End what a failed test left running."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.communicate()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Give a machine without anything."""
    machine = Machine(tmp_path)
    yield machine
    machine.clean()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Give a machine with a key server and its embedded broker, and two members: one and two."""
    machine = Machine(tmp_path_factory.mktemp("site"))
    server = machine.serve("--port", "0", "--interval", "0.05")
    server.start()
    try:
        machine.run("invite", "--uses", "2")
        for member in ("one", "two"):
            machine.run("join", "fleet.join", "-i", member)
        yield machine
    finally:
        machine.clean()
        server.stop()


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """Return a function that runs a command in this process, in a fresh directory."""
    from brokerkm.cli.program import program  # noqa: PLC0415 - nothing else needs it

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **options: object) -> Result:
        return CliRunner().invoke(program, arguments, prog_name="brokerkm", **options)  # type: ignore[arg-type]

    return run
