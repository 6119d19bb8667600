"""One server in a state directory: a second one would take the first one's control socket and answer in its place."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Final

from brokerkm.errors import StoreError
from brokerkm.service.local import LOCK_FILE
from brokerkm.store.owner import check_owner

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

_PID_SIZE: Final = 32  # bytes


@contextlib.contextmanager
def occupied(state: Path) -> Generator[None]:
    """Have a state directory, which is made if there is none, for this process alone.

    Raises:
        UsageError: it belongs to another user.
        StoreError: another server is running in it, or it cannot be written.
    """
    check_owner(state)
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(state / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        message = f"state directory {state}: {error.strerror}"
        raise StoreError(message) from error
    try:
        _lock(file, state)
        yield
    finally:
        os.close(file)  # and so the lock ends, as it does with the process, however that ends


def _lock(file: int, state: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(file, _PID_SIZE, 0).decode("ascii", "replace").strip() or "unknown"
        message = (
            f"state directory {state} is in use by a key server, process {holder}: "
            "stop that one, or give this one a state directory of its own"
        )
        raise StoreError(message) from None
    except OSError as error:
        message = f"state directory {state} cannot be locked: {error.strerror}"
        raise StoreError(message) from error
    with contextlib.suppress(OSError):  # a full disk must not keep a server from running
        os.ftruncate(file, 0)
        os.pwrite(file, b"%d\n" % os.getpid(), 0)
