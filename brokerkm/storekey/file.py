"""The store key in a file that its owner alone may read."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from brokerkm.errors import StoreError, UsageError
from brokerkm.storekey.source import KEY_SIZE, MAX_TEXT, parse_key, wipe

OTHERS: Final = 0o077  # the mode's bits for group and world
WORLD: Final = 0o007
_PRIVATE: Final = 0o600
_ROOT: Final = 0


class FileKey:
    """The key in the file at `path`: mode 0600 or 0400, owned by this process's user or by root."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path: Final = Path(path)

    def __repr__(self) -> str:
        return f"FileKey({os.fspath(self._path)!r})"

    def read(self) -> bytes:
        """Return the key."""
        return parse_key(read_private(self._path, MAX_TEXT), f"store key file {self._path}")

    def create(self) -> None:
        """Make the file with a new key; one that is there stays what it is."""
        key = bytearray(secrets.token_bytes(KEY_SIZE).hex().encode("ascii") + b"\n")
        try:
            write_private(self._path, key)
        except FileExistsError as error:
            message = f"store key file {self._path}: there is one already, and a store may need it: choose another name"
            raise UsageError(message) from error
        except OSError as error:
            message = f"store key file {self._path}: {error.strerror}: check that its directory exists and is writable"
            raise StoreError(message) from error
        finally:
            wipe(key)


def read_private(path: Path, limit: int, others: int = OTHERS) -> bytearray:
    """Return up to `limit` + 1 bytes of a file that others may not read.

    Args:
        others: the bits of the mode that must not be set.

    Raises:
        StoreError: it cannot be read, is no regular file, belongs to somebody else or is open to others.
    """
    try:
        # Without waiting: opening a pipe that nobody writes to would hang.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        message = f"store key file {path}: {error.strerror}"
        if isinstance(error, FileNotFoundError):
            message += f": `brokerkm store key new file:{path}` makes one; a store that was sealed needs its old one"
        raise StoreError(message) from error
    try:
        _check_private(path, os.fstat(descriptor), others)
        buffer = bytearray(limit + 1)
        size = os.readv(descriptor, [buffer])
    except OSError as error:
        message = f"store key file {path}: {error.strerror}"
        raise StoreError(message) from error
    finally:
        os.close(descriptor)
    found = buffer[:size]
    wipe(buffer)
    return found


def _check_private(path: Path, status: os.stat_result, others: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        message = f"store key file {path}: it is no regular file"
        raise StoreError(message)
    if status.st_uid not in (os.geteuid(), _ROOT):
        message = (
            f"store key file {path}: it belongs to user {status.st_uid}, who may change it; "
            f"it has to be this user's or root's: chown {os.geteuid()} {path}"
        )
        raise StoreError(message)
    if status.st_mode & others:
        message = (
            f"store key file {path}: others may read it (mode {stat.S_IMODE(status.st_mode):04o}): chmod 600 {path}, "
            "and if strangers have had access, change the key: brokerkm store rewrap"
        )
        raise StoreError(message)


def write_private(path: Path, content: bytes | bytearray) -> None:
    """Make the file `path`, durably and for its owner alone; raises `FileExistsError` if there is one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except BaseException:
        path.unlink(missing_ok=True)  # half a key is none
        raise
