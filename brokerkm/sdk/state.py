"""Where a member's state is kept between its starts: one file, replaced as a whole, in a directory of its own.

A write is complete or has not happened: new file, fsync, rename, fsync of the directory. One process at a time holds
the directory. The file holds keys: it is the owner's alone, and a directory that others can write to is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from brokerkm.core.memory import MAX_SIZE
from brokerkm.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

_FILE: Final = "member.state"
_NEW: Final = "member.state.new"
_LOCK: Final = "lock"
_PID_SIZE: Final = 20  # characters of a process id
_T = TypeVar("_T")


def default_directory(group: str, member: str) -> Path:
    """Return where the state of `member` is kept if nothing else is said (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_STATE_HOME", "")
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state"
    return root / "brokerkm" / group / member


class StateDirectory:
    """The directory of one member, held by this process from `open` to `close`.

    Args:
        path: made if it is not there, readable by its owner alone.
    """

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self._lock = -1

    def open(self) -> None:
        """Take hold of the directory; raises `StoreError` if that cannot be, or another process has it."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_mode()
            self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            self._take()
        except OSError as error:
            self.close()
            message = f"state directory {self.path}: {error.strerror}"
            raise StoreError(message) from error
        except BaseException:
            self.close()
            raise

    def _check_mode(self) -> None:
        if self.path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            message = f"state directory {self.path} can be written by others: chmod go-w it, or name another"
            raise StoreError(message)

    def _take(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, _PID_SIZE, 0).decode("ascii", "replace").strip() or "unknown"
            message = (
                f"state directory {self.path} is in use by process {holder}: "
                "stop that one, or give this one a member id and a directory of its own"
            )
            raise StoreError(message) from None
        with contextlib.suppress(OSError):  # a full disk must not keep a member from running
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, b"%d\n" % os.getpid(), 0)

    def close(self) -> None:
        """Let go of the directory; may be called twice."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def read(self) -> bytes | None:
        """Return what was written last, None if nothing was; raises `StoreError`."""
        try:
            with (self.path / _FILE).open("rb") as file:
                return file.read(MAX_SIZE + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            message = f"{self.path / _FILE} cannot be read: {error.strerror}"
            raise StoreError(message) from error

    def write(self, data: bytes) -> None:
        """Replace what is there, durably; raises `StoreError`, and then the old is still there."""
        new = self.path / _NEW
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 - it is open already
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(descriptor)
            new.replace(self.path / _FILE)
            self._sync_directory()
        except OSError as error:
            with contextlib.suppress(OSError):
                new.unlink()  # half a file would keep a full disk full
            message = f"{self.path / _FILE} cannot be written: {error.strerror}"
            raise StoreError(message) from error

    def _sync_directory(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class StateDesk:
    """The one thread that touches the directory: in the order of the calls, whoever is cancelled meanwhile."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="brokerkm-state")

    async def call(self, work: Callable[[], _T]) -> _T:
        """Return what `work` returns; it is done even if the caller is cancelled."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._executor, work))

    def close(self) -> None:
        """End the thread when it has done what it was given."""
        self._executor.shutdown(wait=False)
