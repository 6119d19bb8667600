"""A broker's process: started until it says that it is ready, stopped by its own id."""

from __future__ import annotations

import collections
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_START: Final = 60  # seconds; RabbitMQ needs ten on an idle machine
_STOP: Final = 20  # seconds


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def require(program: str, package: str) -> str:
    """Return the path of a broker's program; where it is missing, fail in CI and skip elsewhere."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/lib/rabbitmq/bin")
    if path is None:
        missing = f"{program} is not installed: apt-get install {package}"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return path


class Process:
    """A program that serves.

    Args:
        command: program and arguments.
        ready: regular expression of the line that it prints when it serves.
        directory: where it runs.
        environment: in addition to ours.
    """

    def __init__(
        self, command: Sequence[str], ready: str, directory: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._command = command
        self._ready = re.compile(ready)
        self._directory = directory
        self._environment = {**os.environ, **(environment or {})}
        self._output: collections.deque[str] = collections.deque(maxlen=50)
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Start it and return when it serves."""
        process = self._process = subprocess.Popen(
            self._command,
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        settled = threading.Event()
        serving = threading.Event()

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                self._output.append(line)
                if self._ready.search(line):
                    serving.set()
                    settled.set()
            settled.set()

        self._reader = threading.Thread(target=read, name=f"output of {self._command[0]}", daemon=True)
        self._reader.start()
        settled.wait(_START)
        if not serving.is_set():
            self.stop()
            pytest.fail(f"{self._command[0]} does not serve:\n{''.join(self._output)}")

    def stop(self) -> None:
        """Let it end in its own way, with all that it started."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a loss of power would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop it and start it again, with the same ports and directory."""
        self.stop()
        self.start()

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        os.killpg(process.pid, how)
        try:
            process.wait(_STOP)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert self._reader is not None
        assert process.stdout is not None
        self._reader.join(_STOP)
        process.stdout.close()
