"""Files put where they belong: the same ones once, somebody else's never without being told to."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from brokerkm.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Planned:
    """A file that is to be there.

    Args:
        content: what it holds; secret if `mode` keeps others from reading it.
        owner: user that it belongs to.
        kept: whether one that is there already is left as it is, whatever it holds.
    """

    path: Path
    content: str
    mode: int = 0o644
    owner: str = "root"
    kept: bool = False

    @property
    def secret(self) -> bool:
        """Whether not everybody may read it."""
        return self.mode & 0o007 == 0


def check(planned: Planned, *, force: bool) -> bool:
    """Return whether the file is to be written.

    Raises:
        UsageError: there is one of that name that holds something else, and `force` was not given.
    """
    try:
        found = planned.path.read_text()
    except FileNotFoundError:
        return True
    except (OSError, UnicodeDecodeError) as error:
        message = f"{planned.path} cannot be read: {error}"
        raise UsageError(message) from error
    if planned.kept or found == planned.content:
        return False
    if not force:
        message = (
            f"{planned.path} is there already and holds something else; nothing was changed. Compare it with what "
            "--dry-run prints; --force replaces it, and keeps the old one with .old behind its name"
        )
        raise UsageError(message)
    return True


def write(planned: Planned) -> None:
    """Write the file all at once; what was there before is kept beside it.

    Raises:
        UsageError: it cannot be written, or there is no such user.
    """
    path = planned.path
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, planned.mode), "w") as file:
            os.fchmod(file.fileno(), planned.mode)
            file.write(planned.content)
            _give(file.fileno(), planned.owner)
        if path.exists():
            path.replace(path.with_name(f"{path.name}.old"))
        fresh.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        message = f"{path} cannot be written: {error}; run this as root, or look at it with --dry-run"
        raise UsageError(message) from error


def _give(descriptor: int, owner: str) -> None:
    """Give a file to a user, if we are root."""
    if os.geteuid() != 0:
        return
    try:
        user = pwd.getpwnam(owner)
    except KeyError:
        message = f"there is no user {owner}: install Mosquitto first (apt-get install mosquitto)"
        raise UsageError(message) from None
    os.fchown(descriptor, user.pw_uid, user.pw_gid)
