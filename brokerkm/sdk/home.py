"""The member that lives in a state directory: loaded, or made if nobody lives there yet."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from brokerkm.core.member import Member
from brokerkm.core.memory import Profile
from brokerkm.core.names import check_identifier
from brokerkm.descriptor import Descriptor
from brokerkm.errors import RefusedError, StoreError, UsageError
from brokerkm.sdk.clock import Clock
from brokerkm.sdk.state import StateDirectory, default_directory

if TYPE_CHECKING:
    from collections.abc import Callable


class Home:
    """One member's place on this machine; `open`, `load` and `close` are for one thread that may block.

    Args:
        descriptor: the group's.
        member: member id.
        path: the state directory, None for the usual place.
    """

    def __init__(self, descriptor: Descriptor, member: str, path: str | os.PathLike[str] | None) -> None:
        check_identifier(member, "member")
        for name, what in ((descriptor.group, "group"), (member, "member")):
            if name in {".", ".."}:  # allowed on the wire, but a descriptor must not choose a directory
                message = f"{what} {name!r} cannot name a directory: choose another id"
                raise UsageError(message)
        self.profile: Final = Profile(
            descriptor.group, member, descriptor.server_key, descriptor.suite, descriptor.prefix
        )
        self.directory: Final = StateDirectory(
            default_directory(descriptor.group, member) if path is None else Path(path).absolute()
        )

    def load(self, clock: Callable[[], float]) -> tuple[Member, bool]:
        """Take hold of the directory; return the member, and whether it is new and saved nowhere.

        Raises:
            StoreError: the directory cannot be used, is in use, or what it holds is damaged.
            UsageError: another member lives there.
        """
        self.directory.open()
        try:
            data = self.directory.read()
            if data is None:
                return Member.create(self.profile, os.urandom), True
            member = Member.load(data, os.urandom, clock())
            self._check(member)
        except RefusedError as error:
            self.directory.close()
            message = (
                f"the state in {self.directory.path} is damaged or of another version ({error}): restore it, or remove "
                "the directory and join again with a new invitation"
            )
            raise StoreError(message) from error
        except BaseException:
            self.directory.close()
            raise
        return member, False

    def _check(self, member: Member) -> None:
        mine, saved = self.profile, member.profile
        if mine.server_key in member.server_keys and replace(mine, server_key=saved.server_key) == saved:
            return  # an old descriptor, or a newer one than the first, of a server that has changed its key
        if (saved.group, saved.member) != (mine.group, mine.member):
            what = f"member {saved.member} of group {saved.group}"
        else:
            what = f"group {saved.group} with another server key, suite or prefix than the descriptor's"
        message = f"{self.directory.path} holds the state of {what}: name another directory or the right descriptor"
        raise UsageError(message)


def identity(
    descriptor: str | os.PathLike[str] | Descriptor, *, member: str, state_dir: str | os.PathLike[str] | None = None
) -> bytes:
    """Return the Ed25519 public key of a device, 32 bytes, making and saving it if it has none.

    A server that lists it lets this member join without a token. Arguments and errors are those of `connect`.
    """
    home = Home(read_descriptor(descriptor), member, state_dir)
    found, is_new = home.load(Clock())
    try:
        if is_new:
            home.directory.write(found.dump())
    finally:
        home.directory.close()
    return found.identity


def read_descriptor(descriptor: str | os.PathLike[str] | Descriptor) -> Descriptor:
    """Return the descriptor, read from its file if it is given by that; raises `UsageError`."""
    return descriptor if isinstance(descriptor, Descriptor) else Descriptor.read(descriptor)
