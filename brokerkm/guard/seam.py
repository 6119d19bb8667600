"""The `BrokerGuard` Protocol, and where adapters that implement it are found.

A guard makes one broker keep members to their own topics. It is told what changes as it changes: what a member gains,
once that is stored and before it is published (`admit`); what it loses, once it had the chance to hear why (`evict`).
It can also bring a broker in order that was away, restored or made anew (`diff`, `sync`). All calls are idempotent, and
a guard holds nothing of its own that the store does not say.

An adapter is a class named by an entry point of the group ``brokerkm.guards``; only the one that the
configuration names is imported.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Protocol, cast

from brokerkm.errors import TransportError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from brokerkm.guard.fleet import Fleet
    from brokerkm.guard.rules import Grant

ENTRY_POINTS: Final = "brokerkm.guards"


@dataclass(frozen=True, slots=True)
class Difference:
    """Something at the broker that is not as the store says.

    Args:
        group, member: whom it concerns; the member is empty where it concerns all.
        what: one line for a person, such as ``is missing at the broker``.
    """

    group: str
    member: str
    what: str


class BrokerGuard(Protocol):
    """What keeps one broker's clients to their own topics.

    Args:
        options: by name, with values as text, of which a guard takes what it needs and leaves what is not for it:
            ``applicants`` (``true`` or ``false``); ``url``, ``username``, ``password`` of the configuration's section
            ``[guard]``, or where that says nothing of ``[broker]``; ``ca_file``, ``cert_file``, ``key_file``,
            ``timeout`` of ``[broker]``; ``server``, the name under which the key server logs in at the broker.
            What was not given is absent.

    Attributes:
        by_identity: whether devices log in at the broker with their identity keys (`brokerkm.core.login`).
    """

    by_identity: ClassVar[bool]

    def __init__(self, fleet: Fleet, options: Mapping[str, str]) -> None:
        """Remember what to guard; raises `UsageError` for an option that this guard does not have."""

    async def open(self) -> None:
        """Reach the broker; raises `TransportError` if it does not answer, or is not set up for this guard."""

    async def close(self) -> None:
        """Let go of the broker, which goes on guarding; may be called twice."""

    async def admit(self, grant: Grant) -> None:
        """Give a member what it may do, in place of what it could before; raises `TransportError`."""

    async def evict(self, group: str, member: str) -> None:
        """Take from a member all that it could do, and disconnect it; raises `TransportError`."""

    async def forget(self, group: str) -> None:
        """Take from all members of a group that is no more what they could do; raises `TransportError`."""

    def diff(self) -> AsyncIterator[Difference]:
        """Yield where the broker and the store differ, nothing if they do not; raises `TransportError`."""
        ...

    async def sync(self, progress: Callable[[int, int], None]) -> int:
        """Make the broker as the store says; return how many differences there were; raises `TransportError`."""
        ...


def names() -> list[str]:
    """Return the names of the guards that are installed, sorted; imports none of them."""
    return sorted(point.name for point in importlib.metadata.entry_points(group=ENTRY_POINTS))


def find(name: str) -> type[BrokerGuard]:
    """Return what makes guards of a kind.

    Raises:
        UsageError: there is none of that name.
        TransportError: it is installed but cannot be imported.
    """
    found = importlib.metadata.entry_points(group=ENTRY_POINTS, name=name)
    if not found:
        message = f"no guard {name!r}; there are: {', '.join(names())}"
        raise UsageError(message)
    (point, *others) = found
    if others:
        message = f"guard {name!r} is claimed by more than one package: uninstall one"
        raise UsageError(message)
    try:
        return cast("type[BrokerGuard]", point.load())
    except ImportError as error:
        message = f"guard {name!r} ({point.value}) cannot be imported: {error}"
        raise TransportError(message) from error
