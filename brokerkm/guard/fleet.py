"""What guards may know of groups and members; no keys are among it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from brokerkm.core.names import Topics
from brokerkm.guard.rules import DataFilters, Grant, Rank
from brokerkm.store.records import Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from brokerkm.store.records import MemberRecord


@dataclass(frozen=True, slots=True)
class GuardedGroup:
    """One group, as a guard sees it.

    Args:
        degree: of its tree.
        data: the filters of its data, with ``%m`` and ``%g`` not yet filled in.
    """

    name: str
    prefix: str
    degree: int
    data: DataFilters = field(default_factory=DataFilters)

    def grant(self, record: MemberRecord, prefixes: tuple[str, ...] = ()) -> Grant | None:
        """Return what a known member may do, None if it may not even connect."""
        if record.status is Status.EVICTED:
            return None
        identity = b"" if record.status is Status.PENDING else record.identity
        if record.status is Status.SEATED:
            return self._grant(record.member, Rank.MEMBER, record.slot, prefixes, identity)
        return self._grant(record.member, Rank.APPLICANT, None, prefixes, identity)

    def applicant(self, member: str, prefixes: tuple[str, ...] = ()) -> Grant:
        """Return what somebody may do of whom nothing is known yet."""
        return self._grant(member, Rank.APPLICANT, None, prefixes)

    def _grant(
        self, member: str, rank: Rank, slot: int | None, prefixes: tuple[str, ...], identity: bytes = b""
    ) -> Grant:
        data = self.data.of(self.name, member)
        topics = Topics(self.name, self.prefix)
        return Grant(topics, self.degree, member, rank, slot, data, prefixes or (self.prefix,), identity)


class Fleet(Protocol):
    """The groups and members that are guarded, as the store knows them now; every call may raise `StoreError`."""

    async def groups(self) -> dict[str, GuardedGroup]:
        """Return all guarded groups by name."""
        ...

    async def member(self, group: str, member: str) -> MemberRecord | None:
        """Return what is known of a member id; None also for an unknown group."""
        ...

    def members(self, group: str) -> AsyncIterator[MemberRecord]:
        """Yield all that is known of a group's members, by id, never all in memory."""
        ...
