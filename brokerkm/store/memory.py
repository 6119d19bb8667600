"""A store that forgets everything at the end of the process: for tests, examples and demonstrations."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import Counter
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from brokerkm.errors import StoreError, UsageError
from brokerkm.store import audit
from brokerkm.store.matching import matcher
from brokerkm.store.protocol import Progress, ignore
from brokerkm.store.records import AuditRecord, Status

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from brokerkm.store.records import (
        AuditEntry,
        Change,
        Document,
        Finding,
        GroupRecord,
        MemberRecord,
        OutboxMessage,
        Page,
        Sighting,
        TokenRecord,
    )


@dataclass(slots=True)
class _Group:
    """A group; a change is made on a copy, whose dictionaries are copied before they are changed."""

    record: GroupRecord
    pages: dict[tuple[int, int], bytes] = field(default_factory=dict[tuple[int, int], bytes], repr=False)
    spares: tuple[bytes, ...] = field(default=(), repr=False)
    members: dict[str, MemberRecord] = field(default_factory=dict[str, "MemberRecord"])
    seats: dict[int, str] = field(default_factory=dict[int, str])
    tokens: dict[bytes, TokenRecord] = field(default_factory=dict[bytes, "TokenRecord"])
    outbox: dict[str, OutboxMessage] = field(default_factory=dict[str, "OutboxMessage"])  # in order of sequence
    waiting: dict[str, OutboxMessage] = field(
        default_factory=dict[str, "OutboxMessage"]
    )  # those of them that are not published
    sequence: int = 0


class MemoryStore:
    """`Store` in dictionaries."""

    def __init__(self) -> None:
        self._groups: Final[dict[str, _Group]] = {}
        self._documents: Final[dict[tuple[str, str, str], Document]] = {}  # by group, kind and name
        self._logs: Final[dict[str, list[AuditRecord]]] = {}

    def create_group(self, record: GroupRecord, change: Change) -> int:
        """Add a group with its first messages."""
        if record.name in self._groups:
            message = f"there is a group {record.name} already"
            raise UsageError(message)
        self._groups[record.name] = _Group(record)
        try:
            return self.write(record.name, change)
        except BaseException:
            del self._groups[record.name]
            raise

    def destroy_group(self, name: str, audit: Iterable[AuditEntry], fence: int | None = None) -> None:  # noqa: ARG002 - there is nobody else
        """Forget a group and all that it had, save its audit log."""
        self._group(name)
        del self._groups[name]
        for key in [key for key in self._documents if key[0] == name]:
            del self._documents[key]
        self._append(name, audit)

    def groups(self) -> list[GroupRecord]:
        """Return all groups, by name."""
        return [self._groups[name].record for name in sorted(self._groups)]

    def group(self, name: str) -> GroupRecord | None:
        """Return one group, if there is one of that name."""
        found = self._groups.get(name)
        return None if found is None else found.record

    def pages(self, group: str) -> Iterator[Page]:
        """Yield the pages of the group's key tree."""
        for (level, number), page in self._group(group).pages.items():
            yield level, number, page

    def spares(self, group: str) -> tuple[bytes, ...]:
        """Return the next keys of the group's root."""
        return self._group(group).spares

    def seats(self, group: str) -> Iterator[tuple[str, int]]:
        """Yield (member id, slot) of the seated members."""
        for slot, member in sorted(self._group(group).seats.items()):
            yield member, slot

    def member(self, group: str, member: str) -> MemberRecord | None:
        """Return what is known of a member id."""
        return self._group(group).members.get(member)

    def known(self, group: str, members: Sequence[str]) -> dict[str, MemberRecord]:
        """Return what is known of each of these member ids, for those of which anything is."""
        kept = self._group(group).members
        return {member: kept[member] for member in members if member in kept}

    def member_at(self, group: str, slot: int) -> MemberRecord | None:
        """Return who sits at a slot."""
        found = self._group(group)
        member = found.seats.get(slot)
        return None if member is None else found.members[member]

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
        """Return records of members with ids above `after`."""
        members, matches = self._group(group).members, matcher(pattern)

        def fits(one: MemberRecord) -> bool:
            silent = unseen_since is None or max(one.seen, one.since) < unseen_since
            late = behind is None or (one.status is Status.SEATED and 0 < one.acked < behind)
            named = matches is None or matches(one.member) is not None
            return silent and late and named and status in (None, one.status)

        names = sorted(members)
        chosen = (members[name] for name in names[bisect_right(names, after) :])
        return list(itertools.islice(filter(fits, chosen), limit))

    def count(self, group: str) -> Mapping[Status, int]:
        """Return how many members there are of each status."""
        counts = Counter(record.status for record in self._group(group).members.values())
        return {status: counts[status] for status in Status}

    def token(self, group: str, token_id: bytes) -> TokenRecord | None:
        """Return an enrollment token."""
        return self._group(group).tokens.get(token_id)

    def tokens(self, group: str) -> list[TokenRecord]:
        """Return all enrollment tokens, oldest first."""
        return sorted(self._group(group).tokens.values(), key=lambda token: (token.created, token.id))

    def documents(self, group: str, kind: str) -> list[Document]:
        """Return all documents of a kind, by name."""
        self._check(group)
        found = [one for (of, _, _), one in self._documents.items() if of == group and one.kind == kind]
        return sorted(found, key=lambda one: one.name)

    def document(self, group: str, kind: str, name: str) -> Document | None:
        """Return one document."""
        self._check(group)
        return self._documents.get((group, kind, name))

    def write(self, group: str, change: Change) -> int:
        """Store a change."""
        sequence = 0
        if group:
            found = copy(self._group(group))
            _move(found, change)
            _change_members(found, change)
            _change_tokens(found, change)
            _queue(found, change.messages)
            self._groups[group] = found
            sequence = found.sequence
        elif any((change.keys, change.record, change.members, change.tokens, change.spent, change.messages)):
            message = "the server's own part of the store has only documents and an audit log"
            raise UsageError(message)
        self._documents.update(((group, one.kind, one.name), one) for one in change.documents)
        for kind, name in change.dropped:
            self._documents.pop((group, kind, name), None)
        self._append(group, change.audit)
        return sequence

    def touch(self, group: str, sightings: Iterable[Sighting]) -> None:
        """Note signs of life of members."""
        members = self._group(group).members
        for name, seen, acked, counter in sightings:
            one = members.get(name)
            if one is not None:
                members[name] = replace(
                    one, seen=max(one.seen, seen), acked=max(one.acked, acked), counter=max(one.counter, counter)
                )

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

    def waiting(self, group: str) -> int:
        """Return how many messages are to be published."""
        return len(self._group(group).waiting)

    def audit(self, chain: str, after: int = 0, limit: int = 1000) -> list[AuditRecord]:
        """Return audit entries with numbers above `after`."""
        return self._logs.get(chain, [])[after : after + limit]

    def scrub(self) -> None:
        """Do nothing: what was replaced is gone with its dictionary entry."""

    def backup(self, path: str | os.PathLike[str], progress: Progress = ignore) -> None:  # noqa: ARG002 - the Protocol's
        """Refuse: there is nothing that would outlive the process."""
        message = f"a store in memory is not backed up to {path}"
        raise UsageError(message)

    def verify(self, progress: Progress = ignore, *, aside: bool = False) -> list[Finding]:  # noqa: ARG002 - the Protocol's
        """Return nothing: there is no storage that could have changed."""
        return []

    def rewrap(self, store_key: bytes, *, deep: bool = False, progress: Progress = ignore) -> None:  # noqa: ARG002 - the Protocol's
        """Refuse: nothing is sealed."""
        message = "a store in memory has no store key"
        raise UsageError(message)

    def close(self) -> None:
        """Do nothing."""

    def _check(self, group: str) -> None:
        if group:
            self._group(group)

    def _group(self, name: str) -> _Group:
        found = self._groups.get(name)
        if found is None:
            message = f"there is no group {name}"
            raise UsageError(message)
        return found

    def _append(self, chain: str, entries: Iterable[AuditEntry]) -> None:
        waiting = list(entries)
        if waiting:
            log = self._logs.setdefault(chain, [])
            linked = audit.extend(chain, len(log), log[-1].hash if log else audit.FIRST, waiting)
            log += [AuditRecord(number, entry, link) for entry, (number, _, link) in zip(waiting, linked, strict=True)]


def _move(found: _Group, change: Change) -> None:
    record, keys = found.record, change.keys
    if keys is not None:
        if not (keys.epoch == record.epoch + 1 or (keys.jump and keys.epoch > record.epoch)):
            message = f"epoch {keys.epoch} does not follow epoch {record.epoch} of group {record.name}"
            raise StoreError(message)
        found.pages = found.pages | {(level, number): page for level, number, page in keys.pages}
        found.spares = keys.spares
        record = replace(record, epoch=keys.epoch, height=keys.height)
    if change.record is not None:
        terms = ("policy", "beacon_interval", "settings", "frozen", "destroyed", "handovers", "signing_seed")
        record = replace(record, **{name: getattr(change.record, name) for name in terms})
    found.record = record if change.time is None else replace(record, time=change.time)


def _change_members(found: _Group, change: Change) -> None:
    if not change.members:
        return
    found.members, found.seats = dict(found.members), dict(found.seats)
    earlier = [found.members.get(record.member) for record in change.members]
    for before, record in zip(earlier, change.members, strict=True):
        seat = None if before is None else before.slot
        moved = seat != record.slot or (record.status is Status.SEATED) != (seat is not None)
        if change.keys is None and moved:
            message = f"{record.member} would get or lose a seat: only a commit changes that"
            raise StoreError(message)
        if seat is not None:
            found.seats.pop(seat, None)
    for record in change.members:
        found.members[record.member] = record
        if record.slot is not None:
            found.seats[record.slot] = record.member


def _change_tokens(found: _Group, change: Change) -> None:
    if not (change.spent or change.revoked or change.tokens):
        return
    found.tokens = dict(found.tokens)
    for token_id, uses in change.spent.items():
        token = found.tokens.pop(token_id, None)
        if token is None or token.uses_left < uses:
            message = f"token {token_id.hex()} of group {found.record.name} has not {uses} uses left"
            raise StoreError(message)
        if token.uses_left > uses:
            found.tokens[token_id] = replace(token, uses_left=token.uses_left - uses)
    for token_id in change.revoked:
        found.tokens.pop(token_id, None)
    for new in change.tokens:
        found.tokens = {key: one for key, one in found.tokens.items() if one.expiry > new.created}
        found.tokens[new.id] = new


def _queue(found: _Group, messages: Sequence[OutboxMessage]) -> None:
    if not messages:
        return
    found.outbox, found.waiting = dict(found.outbox), dict(found.waiting)
    for message in messages:
        found.sequence += 1
        numbered = replace(message, sequence=found.sequence)
        for place in (found.outbox, found.waiting):
            place.pop(message.topic, None)  # so that it goes to the end
            place[message.topic] = numbered
