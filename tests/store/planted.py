"""A store with a real group in it: a key tree over several pages, members, a token, an audit log."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from brokerkm.core.commit import Enrollment
from brokerkm.core.group import Group
from brokerkm.store.records import (
    AuditEntry,
    Change,
    GroupRecord,
    KeyChange,
    MemberRecord,
    OutboxMessage,
    Status,
    TokenRecord,
)

if TYPE_CHECKING:
    from brokerkm.core.commit import Commit
    from brokerkm.store import Store

SEED = bytes(range(32))
TOKEN_KEY = b"a token's MAC key, 32 bytes long"
NOW = 1_700_000_000.0
SPARES = 5  # that the first member's bundle has


class Planted:
    """A group in memory that moves together with the one in a store."""

    def __init__(self, store: Store, name: str = "plant", members: int = 600) -> None:
        self.store = store
        self.group = Group(name, SEED)
        self.random = random.Random(members).randbytes
        token = TokenRecord(b"token-id", TOKEN_KEY, 5, 1 << 62)
        audit = [AuditEntry(1, "operator", "create", name)]
        store.create_group(GroupRecord(name, SEED, 4), Change(tokens=[token], audit=audit))
        for number in range(members):
            self.group.enroll(Enrollment(f"m{number}", spares=SPARES if number == 0 else 0))
        self.commit()

    def evict(self, member: str) -> Commit:
        """Evict a member."""
        self.group.evict(member)
        return self.commit()

    def commit(self) -> Commit:
        """Store what waits, and apply it."""
        commit = self.group.prepare(NOW, self.random)
        change = commit.change
        seated = [
            MemberRecord(seat.enrollment.member, Status.SEATED, b"", seat.slot, epoch=change.epoch)
            for seat in change.seated
        ]
        gone = [MemberRecord(member, Status.EVICTED, b"", epoch=change.epoch) for member, _ in change.removed]
        self.store.write(
            self.group.name,
            Change(
                keys=KeyChange(change.epoch, change.height, change.pages(self.group.tree), spares=change.spares),
                time=change.time,
                members=gone + seated,
                messages=[OutboxMessage("beacon", commit.beacon)],
                audit=[AuditEntry(change.time, "operator", "commit", self.group.name, {"epoch": change.epoch})],
            ),
        )
        self.group.apply(commit)
        return commit
