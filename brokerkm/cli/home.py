"""The members of this machine: who has joined, and with which descriptor.

Each has a directory ``STATE/GROUP/MEMBER``, which is the SDK's default too, so that an application goes on where
`brokerkm join` ended. Beside the keys, the descriptor is kept there, without its token.
"""

from __future__ import annotations

import dataclasses
import glob
from typing import TYPE_CHECKING, Final

from brokerkm.cli.lazy import FailedError, WrongError
from brokerkm.descriptor import Descriptor

if TYPE_CHECKING:
    from pathlib import Path

_DESCRIPTOR: Final = "fleet.join"


@dataclasses.dataclass(frozen=True, slots=True)
class Home:
    """Where a member's state is, and its group's descriptor."""

    directory: Path
    descriptor: Descriptor

    @property
    def member(self) -> str:
        """The member's id."""
        return self.directory.name

    def remember(self) -> None:
        """Keep the descriptor for the next start, without the token: it has served."""
        dataclasses.replace(self.descriptor, token=None, token_expires=None).write(self.directory / _DESCRIPTOR)


def find(state: Path, group: str | None, member: str | None) -> Home:
    """Return the member that was named as far as it was, and of which there is one.

    Raises:
        FailedError: none of that name has joined.
        WrongError: several fit.
    """
    names = ("*" if name is None else glob.escape(name) for name in (group, member))
    found = sorted(state.glob("/".join((*names, _DESCRIPTOR))))
    if not found:
        who = f"member {member!r} has not joined" if member else "nobody has joined"
        what = f"group {group!r}" if group else "a group"
        message = f"{who} {what} here (in {state}): `brokerkm join DESCRIPTOR --member NAME` does that"
        raise FailedError(message)
    if len(found) > 1:
        several = ", ".join(f"{path.parent.name} in {path.parent.parent.name}" for path in found)
        message = f"several members are here, so choose by --member and --group: {several}"
        raise WrongError(message)
    return Home(found[0].parent, Descriptor.read(found[0]))
