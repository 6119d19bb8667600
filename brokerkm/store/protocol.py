"""The `Store` Protocol: what every storage for the key server does, and keeps to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from brokerkm.store.records import CommitRecord, GroupRecord, MemberRecord, OutboxMessage, TokenRecord


class Store(Protocol):
    """Groups, their keys, members, tokens and outgoing messages.

    Each call is one transaction: it has happened durably when it returns, and not at all if it raises
    `StoreError`. Calls block and come from one thread at a time; `KeyServer` gives its store a thread of its own,
    because a transaction must not be interleaved with another and a disk must not stall the event loop.
    An unknown group is a `UsageError`.
    """

    def create_group(self, record: GroupRecord, messages: Sequence[OutboxMessage]) -> None:
        """Add a group with its first messages; raises `UsageError` if there is one of that name."""

    def groups(self) -> list[GroupRecord]:
        """Return all groups, by name."""
        ...

    def pages(self, group: str) -> Iterator[tuple[int, int, bytes]]:
        """Yield the stored (level, page number, page) of the group's key tree."""
        ...

    def seats(self, group: str) -> Iterator[tuple[str, int]]:
        """Yield (member id, slot) of the seated members."""
        ...

    def member(self, group: str, member: str) -> MemberRecord | None:
        """Return what is known of a member id."""
        ...

    def members(self, group: str, after: str = "", limit: int = 1000) -> list[MemberRecord]:
        """Return up to `limit` records of members with ids above `after`, in order of ids."""
        ...

    def put_member(self, group: str, record: MemberRecord) -> None:
        """Keep what is known of a member that has no seat."""

    def token(self, group: str, token_id: bytes) -> TokenRecord | None:
        """Return an enrollment token; one without uses left is not kept."""
        ...

    def add_token(self, group: str, token: TokenRecord, now: int) -> None:
        """Keep a new token, and forget those that had expired by `now`."""

    def record_commit(self, group: str, commit: CommitRecord) -> int:
        """Store a commit with its messages; return the sequence of the last of them.

        Raises:
            StoreError: also if the epoch does not follow the stored one, or a token has too few uses left.
        """
        ...

    def record_beacon(self, group: str, time: int, message: OutboxMessage) -> int:
        """Move the group's clock to `time` and queue its Beacon; return the message's sequence."""
        ...

    def unpublished(self, group: str, limit: int) -> list[OutboxMessage]:
        """Return up to `limit` messages that are to be published, in order."""
        ...

    def mark_published(self, group: str, sequence: int) -> None:
        """Note that all messages up to `sequence` are published; drop those for one member."""

    def publish_again(self, group: str) -> int:
        """Queue all that is kept for publication again; return how many messages wait now."""
        ...

    def scrub(self) -> None:
        """See to it that no key which was replaced or dropped can be read from the storage any more."""

    def close(self) -> None:
        """Release what is held; may be called twice."""
