"""Whose a directory is: what somebody else makes in it, such as root, its owner could not use."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING, Final

from brokerkm.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

_ROOT: Final = 0


def check_owner(directory: Path) -> None:
    """Refuse to make something in a directory of another user's; root's own, and one that is not there, are nobody's.

    Raises:
        UsageError: says as whom to do it.
    """
    try:
        owner = directory.stat().st_uid
    except OSError:
        return
    if owner in (os.geteuid(), _ROOT):
        return
    message = (
        f"{directory} belongs to {user_name(owner)}, who could not use what {user_name(os.geteuid())} makes there: "
        f"nothing was made. Run this as {user_name(owner)}, such as by runuser -u {user_name(owner)} -- brokerkm …"
    )
    raise UsageError(message)


def give_to_owner(path: Path) -> None:
    """Give a file that root has made to whom its directory belongs."""
    owner = path.parent.stat()
    if os.geteuid() == _ROOT and owner.st_uid != _ROOT:
        os.chown(path, owner.st_uid, owner.st_gid)


def user_name(uid: int) -> str:
    """Return what a user is called."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
