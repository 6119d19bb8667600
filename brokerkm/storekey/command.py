"""The store key as a command prints it: any secret manager that has a command line.

The command is split as a shell would, but no shell runs it. It gets no input, and its own messages are shown.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import shlex
import signal
import subprocess
import time
from typing import IO, TYPE_CHECKING, Final

from brokerkm.errors import StoreError, UsageError
from brokerkm.storekey.source import MAX_TEXT, parse_key, wipe

if TYPE_CHECKING:
    from collections.abc import Sequence

_log = logging.getLogger(__name__)

PATIENCE: Final = 30.0  # s; a hardware token that waits for a touch takes ten
_MAX_SAID: Final = 2000  # bytes of its messages that are shown
_PIECE: Final = 4096  # bytes read at a time


class CommandKey:
    """The key that a command prints.

    Args:
        line: program and arguments.
        patience: seconds that it may take.
    """

    def __init__(self, line: str, patience: float = PATIENCE) -> None:
        try:
            self._argv: Final[Sequence[str]] = shlex.split(line)
        except ValueError as error:
            message = f"command: cannot be split into words: {error}"
            raise UsageError(message) from None
        self._patience: Final = patience

    def __repr__(self) -> str:
        return f"CommandKey({self._argv[0]!r})"  # arguments may be secrets

    def read(self) -> bytes:
        """Run the command and return the key that it prints."""
        name = f"store key command {self._argv[0]}"
        try:
            process = subprocess.Popen(  # noqa: S603 - running what the operator configured is the purpose
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # so that what it starts ends with it
            )
        except OSError as error:
            message = f"{name}: {error.strerror}: give its full path"
            raise StoreError(message) from error
        key = bytearray()
        said = bytearray()
        try:
            with process:
                try:
                    trouble = self._listen(process, key, said)
                finally:
                    _end(process)
            text = "".join(one if one.isprintable() else " " for one in said.decode("utf-8", "replace")).strip()
            if trouble is None and process.returncode:
                trouble = f"failed with status {process.returncode}"
            if trouble is not None:
                message = f"{name}: it {trouble}" + (f"; it says: {text}" if text else "")
                raise StoreError(message)
            if text:
                _log.warning("%s says: %s", name, text)
            return parse_key(key, name)
        finally:
            wipe(key)

    def create(self) -> None:
        """Refuse: keys are made by whatever the command asks."""
        message = f"a key that {self._argv[0]} prints is made where it takes it from: 64 hexadecimal digits"
        raise UsageError(message)

    def _listen(self, process: subprocess.Popen[bytes], key: bytearray, said: bytearray) -> str | None:
        """Collect what the process writes until it ends; return what is wrong with it, or None."""
        deadline = time.monotonic() + self._patience
        with selectors.DefaultSelector() as selector:
            for pipe, sink, limit in ((process.stdout, key, MAX_TEXT), (process.stderr, said, _MAX_SAID)):
                selector.register(_open(pipe), selectors.EVENT_READ, (sink, limit))
            while selector.get_map():
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready or time.monotonic() >= deadline:
                    return f"took longer than {self._patience:.0f} s"
                for found, _ in ready:
                    piece = os.read(found.fd, _PIECE)
                    sink, limit = found.data
                    if not piece:
                        selector.unregister(found.fileobj)
                    sink += piece[: limit + 1 - len(sink)]
                if len(key) > MAX_TEXT:
                    return f"prints more than a key of {MAX_TEXT} characters"
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return f"took longer than {self._patience:.0f} s"
        return None


def _open(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        message = "the process was started with pipes"
        raise AssertionError(message)
    return pipe


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command that has not come to its own end, and what it started."""
    if process.returncode is None:  # not waited for: its number is not another's yet
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
