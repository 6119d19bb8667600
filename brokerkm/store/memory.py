"""A store that forgets everything at the end of the process: for tests, examples and demonstrations."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from brokerkm.errors import StoreError, UsageError
from brokerkm.store.records import Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from brokerkm.store.records import CommitRecord, GroupRecord, MemberRecord, OutboxMessage, TokenRecord


@dataclass(slots=True)
class _Group:
    record: GroupRecord
    pages: dict[tuple[int, int], bytes] = field(default_factory=dict[tuple[int, int], bytes], repr=False)
    members: dict[str, MemberRecord] = field(default_factory=dict[str, "MemberRecord"])
    tokens: dict[bytes, TokenRecord] = field(default_factory=dict[bytes, "TokenRecord"])
    outbox: dict[str, OutboxMessage] = field(default_factory=dict[str, "OutboxMessage"])  # in order of sequence
    waiting: dict[str, OutboxMessage] = field(
        default_factory=dict[str, "OutboxMessage"]
    )  # those of them that are not published


class MemoryStore:
    """`Store` in dictionaries."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}
        self._sequence = itertools.count(1)

    def create_group(self, record: GroupRecord, messages: Sequence[OutboxMessage]) -> None:
        """Add a group."""
        if record.name in self._groups:
            message = f"there is a group {record.name} already"
            raise UsageError(message)
        self._groups[record.name] = _Group(record)
        self._queue(self._groups[record.name], messages)

    def groups(self) -> list[GroupRecord]:
        """Return all groups, by name."""
        return [self._groups[name].record for name in sorted(self._groups)]

    def pages(self, group: str) -> Iterator[tuple[int, int, bytes]]:
        """Yield the pages of the group's key tree."""
        for (level, number), page in self._group(group).pages.items():
            yield level, number, page

    def seats(self, group: str) -> Iterator[tuple[str, int]]:
        """Yield (member id, slot) of the seated members."""
        for record in self._group(group).members.values():
            if record.slot is not None:
                yield record.member, record.slot

    def member(self, group: str, member: str) -> MemberRecord | None:
        """Return what is known of a member id."""
        return self._group(group).members.get(member)

    def members(self, group: str, after: str = "", limit: int = 1000) -> list[MemberRecord]:
        """Return records of members with ids above `after`."""
        members = self._group(group).members
        names = sorted(members)
        start = bisect_right(names, after)
        return [members[name] for name in names[start : start + limit]]

    def put_member(self, group: str, record: MemberRecord) -> None:
        """Keep what is known of a member that has no seat."""
        found = self._group(group).members
        before = found.get(record.member)
        if Status.SEATED in (record.status, before and before.status):
            message = f"{record.member} has a seat: only a commit changes that"
            raise StoreError(message)
        found[record.member] = record

    def token(self, group: str, token_id: bytes) -> TokenRecord | None:
        """Return an enrollment token."""
        return self._group(group).tokens.get(token_id)

    def add_token(self, group: str, token: TokenRecord, now: int) -> None:
        """Keep a new token, and forget those that had expired."""
        found = self._group(group)
        found.tokens = {key: one for key, one in found.tokens.items() if one.expiry > now}
        found.tokens[token.id] = token

    def record_commit(self, group: str, commit: CommitRecord) -> int:
        """Store a commit with its messages."""
        found = self._group(group)
        if commit.epoch != found.record.epoch + 1:
            message = f"epoch {commit.epoch} does not follow epoch {found.record.epoch} of group {group}"
            raise StoreError(message)
        tokens = dict(found.tokens)
        for token_id, uses in commit.spent.items():
            token = tokens.pop(token_id, None)
            if token is None or token.uses_left < uses:
                message = f"token {token_id.hex()} of group {group} has not {uses} uses left"
                raise StoreError(message)
            if token.uses_left > uses:
                tokens[token_id] = replace(token, uses_left=token.uses_left - uses)
        pages = {(level, number): page for level, number, page in commit.pages}
        found.tokens = tokens
        found.pages.update(pages)
        found.members.update((record.member, record) for record in commit.members)
        found.record = replace(found.record, epoch=commit.epoch, height=commit.height, time=commit.time)
        return self._queue(found, commit.messages)

    def record_beacon(self, group: str, time: int, message: OutboxMessage) -> int:
        """Move the group's clock and queue its Beacon."""
        found = self._group(group)
        found.record = replace(found.record, time=time)
        return self._queue(found, [message])

    def unpublished(self, group: str, limit: int) -> list[OutboxMessage]:
        """Return messages that are to be published, in order."""
        return list(itertools.islice(self._group(group).waiting.values(), limit))

    def mark_published(self, group: str, sequence: int) -> None:
        """Note that all messages up to `sequence` are published."""
        found = self._group(group)
        done = itertools.takewhile(lambda message: message.sequence <= sequence, found.waiting.values())
        for message in list(done):
            del found.waiting[message.topic]
            if message.audience is not None:
                del found.outbox[message.topic]

    def publish_again(self, group: str) -> int:
        """Queue all that is kept for publication again."""
        found = self._group(group)
        found.waiting = dict(found.outbox)
        return len(found.waiting)

    def scrub(self) -> None:
        """Do nothing: what was replaced is gone with its dictionary entry."""

    def close(self) -> None:
        """Do nothing."""

    def _group(self, name: str) -> _Group:
        found = self._groups.get(name)
        if found is None:
            message = f"there is no group {name}"
            raise UsageError(message)
        return found

    def _queue(self, found: _Group, messages: Sequence[OutboxMessage]) -> int:
        sequence = 0
        for message in messages:
            sequence = next(self._sequence)
            numbered = replace(message, sequence=sequence)
            for place in (found.outbox, found.waiting):
                place.pop(message.topic, None)  # so that it goes to the end
                place[message.topic] = numbered
        return sequence
