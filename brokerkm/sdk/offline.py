"""The device's side of an offline enrollment: a request goes out as a file, a bundle comes back as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from brokerkm.core.names import Topics
from brokerkm.core.state import State
from brokerkm.errors import RefusedError, UsageError
from brokerkm.offline import OfflineBundle, OfflineRequest
from brokerkm.sdk.clock import Clock
from brokerkm.sdk.home import Home, read_descriptor

if TYPE_CHECKING:
    import os

    from brokerkm.descriptor import Descriptor


def request_offline(
    descriptor: str | os.PathLike[str] | Descriptor, *, member: str, state_dir: str | os.PathLike[str] | None = None
) -> OfflineRequest:
    """Return a request to carry to the server; keys are made and saved, and answers to earlier requests fit, too.

    Arguments and errors are those of `brokerkm.connect`, and `UsageError` if the device has a place already.
    """
    group, clock = read_descriptor(descriptor), Clock()
    home = Home(group, member, state_dir)
    found, _ = home.load(clock)
    try:
        if found.state not in {State.NEW, State.JOINING, State.EVICTED}:
            message = f"{member} is a member of group {group.group} already"
            raise UsageError(message)
        join = found.join(clock())
        home.directory.write(found.dump())
    finally:
        home.directory.close()
    return OfflineRequest(group.group, member, join)


class Accepted(NamedTuple):
    """What was in a bundle.

    Args:
        epoch: of the keys.
        spares: how many of the group's next keys: it reads on by them while no Rekey reaches it.
    """

    epoch: int
    spares: int


def accept_offline(bundle: OfflineBundle, *, state_dir: str | os.PathLike[str] | None = None) -> Accepted:
    """Take the keys from a bundle; from then on the device connects as any member.

    Raises:
        UsageError: the bundle does not answer a request of this device, or is not of this group's server.
        StoreError: the state directory cannot be used.
    """
    descriptor, clock = bundle.descriptor, Clock()
    home = Home(descriptor, bundle.member, state_dir)
    found, _ = home.load(clock)
    try:
        topic = Topics(descriptor.group, descriptor.prefix).member(bundle.member)
        try:
            found.receive(topic, bundle.welcome, clock())
        except RefusedError as error:
            message = f"the bundle does not answer the last request of {bundle.member} on this device: {error}"
            raise UsageError(message) from error
        home.directory.write(found.dump())
    finally:
        home.directory.close()
    return Accepted(found.epoch, found.spares)
