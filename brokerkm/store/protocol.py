"""The `Store` Protocol: what every storage for the key server does, and keeps to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from brokerkm.store.records import (
        AuditEntry,
        AuditRecord,
        Change,
        Document,
        Finding,
        GroupRecord,
        MemberRecord,
        OutboxMessage,
        Page,
        Sighting,
        Status,
        TokenRecord,
    )


Progress: TypeAlias = "Callable[[int, int], None]"
"""Called with how much is done, and of how much."""


def ignore(_done: int, _total: int) -> None:
    """Take no notice of progress."""


class Store(Protocol):
    """Groups, their keys, members, tokens, documents, audit log and outgoing messages.

    Each call is one transaction: it has happened durably when it returns, and not at all if it raises
    `StoreError`. Calls block and come from one thread at a time, `backup` and `verify` excepted; `KeyServer` gives its
    store a thread of its own, because a transaction must not be interleaved with another and a disk must not stall the
    event loop. An unknown group is a `UsageError`.
    """

    def create_group(self, record: GroupRecord, change: Change) -> int:
        """Add a group with its first messages; raises `UsageError` if there is one of that name."""
        ...

    def destroy_group(self, name: str, audit: Iterable[AuditEntry], fence: int | None = None) -> None:
        """Forget a group and all that it had, save its audit log, which ends with `audit`.

        Raises:
            LeaseLostError: another server leads the group by now.
        """

    def groups(self) -> list[GroupRecord]:
        """Return all groups, by name."""
        ...

    def group(self, name: str) -> GroupRecord | None:
        """Return one group, if there is one of that name."""
        ...

    def pages(self, group: str) -> Iterator[Page]:
        """Yield the stored (level, page number, page) of the group's key tree; raises `StoreError`."""
        ...

    def spares(self, group: str) -> tuple[bytes, ...]:
        """Return the next keys of the group's root that are drawn, oldest first, 32 bytes each; raises `StoreError`."""
        ...

    def seats(self, group: str) -> Iterator[tuple[str, int]]:
        """Yield (member id, slot) of the seated members, by slot."""
        ...

    def member(self, group: str, member: str) -> MemberRecord | None:
        """Return what is known of a member id."""
        ...

    def known(self, group: str, members: Sequence[str]) -> dict[str, MemberRecord]:
        """Return what is known of each of these member ids, for those of which anything is."""
        ...

    def member_at(self, group: str, slot: int) -> MemberRecord | None:
        """Return who sits at a slot."""
        ...

    def members(
        self,
        group: str,
        *,
        after: str = "",
        limit: int = 1000,
        status: Status | None = None,
        pattern: str = "*",
        unseen_since: int | None = None,
        behind: int | None = None,
    ) -> list[MemberRecord]:
        """Return up to `limit` records of members with ids above `after`, in order of ids.

        Args:
            status: only those with it.
            pattern: only ids that match it (fnmatch, case counts).
            unseen_since: only those that were neither seen at that time or later, nor got their status since.
            behind: only seated ones that have confirmed an epoch once, but none from this one on.
        """
        ...

    def count(self, group: str) -> Mapping[Status, int]:
        """Return how many members there are of each status."""
        ...

    def token(self, group: str, token_id: bytes) -> TokenRecord | None:
        """Return an enrollment token; one without uses left is not kept."""
        ...

    def tokens(self, group: str) -> list[TokenRecord]:
        """Return all enrollment tokens, oldest first."""
        ...

    def documents(self, group: str, kind: str) -> list[Document]:
        """Return all documents of a kind, by name; those of the server for group ""."""
        ...

    def document(self, group: str, kind: str, name: str) -> Document | None:
        """Return one document."""
        ...

    def write(self, group: str, change: Change) -> int:
        """Store a change; return the sequence of the last message that the group has.

        For group "", the server, a change has only `documents`, `dropped` and `audit`.

        Raises:
            StoreError: also if the epoch does not follow, a token has too few uses left, or a member would get or
                lose a seat without a commit.
            LeaseLostError: another server leads the group by now.
        """
        ...

    def touch(self, group: str, sightings: Iterable[Sighting]) -> None:
        """Note signs of life of members; those of unknown ids are ignored."""

    def unpublished(self, group: str, limit: int) -> list[OutboxMessage]:
        """Return up to `limit` messages that are to be published, in order."""
        ...

    def mark_published(self, group: str, sequence: int) -> None:
        """Note that all messages up to `sequence` are published; drop those for one member."""

    def publish_again(self, group: str) -> int:
        """Queue all that is kept for publication again; return how many messages wait now."""
        ...

    def waiting(self, group: str) -> int:
        """Return how many messages are to be published."""
        ...

    def audit(self, chain: str, after: int = 0, limit: int = 1000) -> list[AuditRecord]:
        """Return up to `limit` entries with numbers above `after`; of a group, destroyed or not, or of the server."""
        ...

    def scrub(self) -> None:
        """See to it that no key which was replaced or dropped can be read from the storage any more."""

    def backup(self, path: str | os.PathLike[str], progress: Progress = ignore) -> None:
        """Write all that the store holds into a new SQLite store at `path`; from any thread, while others go on."""

    def verify(self, progress: Progress = ignore, *, aside: bool = False) -> list[Finding]:
        """Return what is wrong with what the store holds; nothing, if all fits together.

        Args:
            aside: look at one state of it, from any thread, while others go on; not during `rewrap`.
        """
        ...

    def rewrap(self, store_key: bytes, *, deep: bool = False, progress: Progress = ignore) -> None:
        """Put everything under another store key; `deep` also replaces the key that it wraps, and seals all anew."""

    def close(self) -> None:
        """Release what is held; may be called twice."""
