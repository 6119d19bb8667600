"""What waits for the next commit of one group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from brokerkm.core.notice import GoodbyeReason

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from brokerkm.core.commit import Enrollment
    from brokerkm.core.notice import RefusalReason
    from brokerkm.store.records import AuditEntry, Document


@dataclass(frozen=True, slots=True)
class PendingJoin:
    """A Join whose proof holds.

    Args:
        time: of the request, ms since 1970.
        token: id of the enrollment token that it was proved with, None for a known identity key.
        actor: by whose will, for the audit log; "" for the member's own.
        counter: of the request, from which those after it go on.
        credential: what let it in, to be recognised by; "" for a known identity key.
        replaces: whether its identity key takes the place of another one.
        voucher: hears in the device's place that there is no seat; whoever gives one stands in for any credential, for
            an id at which nobody sits.
    """

    enrollment: Enrollment
    time: int
    token: bytes | None
    actor: str = ""
    counter: int = 0
    credential: str = ""
    replaces: bool = False
    voucher: Callable[[Rejection], None] | None = None


@dataclass(frozen=True, slots=True)
class PendingEviction:
    """A member that has to go.

    Args:
        identity: its public key, for one that nothing is stored of yet.
        time: of its Leave, ms since 1970; 0 if it is evicted.
        actor: by whose will, for the audit log; "" for the member's own.
    """

    reason: GoodbyeReason
    identity: bytes = b""
    time: int = 0
    actor: str = ""


class Rejection(NamedTuple):
    """A join that was found impossible when it was to be committed; `why` is for people."""

    join: PendingJoin
    reason: RefusalReason
    why: str


@dataclass(slots=True)
class Changes:
    """Changes by member id, and those who wait to hear that they are stored.

    Args:
        documents: stored with them, in the same transaction.
        audit: said of them beyond what they say by themselves.
        since: when the first of them was asked for, in seconds of the event loop's clock; None while there is none.
    """

    joins: dict[str, PendingJoin] = field(default_factory=dict[str, PendingJoin])
    evictions: dict[str, PendingEviction] = field(default_factory=dict[str, PendingEviction])
    rotate: bool = False
    rotate_all: bool = False
    rotated_by: str = ""  # who asked for new keys, for the audit log
    waiters: list[asyncio.Future[tuple[int, int]]] = field(default_factory=list["asyncio.Future[tuple[int, int]]"])
    documents: dict[tuple[str, str], Document] = field(default_factory=dict[tuple[str, str], "Document"])
    audit: list[AuditEntry] = field(default_factory=list["AuditEntry"])
    since: float | None = None

    def __len__(self) -> int:
        return len(self.joins) + len(self.evictions) + (self.rotate or self.rotate_all)

    def join(self, join: PendingJoin) -> None:
        """Add a join, in place of an earlier one of the same member."""
        self.joins[join.enrollment.member] = join

    def evict(self, member: str, eviction: PendingEviction) -> None:
        """Add an eviction; a join that waits is void. An eviction is not made milder by a Leave."""
        self.joins.pop(member, None)
        waiting = self.evictions.get(member)
        if waiting is None or waiting.reason is GoodbyeReason.LEFT:
            self.evictions[member] = eviction

    def attach(self, document: Document, entry: AuditEntry) -> None:
        """Store `document` in the transaction of these changes, and have the audit log say `entry`."""
        self.documents[document.kind, document.name] = document
        self.audit.append(entry)

    def put_back(self, earlier: Changes) -> None:
        """Take in `earlier` changes that could not be stored; what was asked for since then counts more."""
        self.joins = {
            member: join for member, join in (earlier.joins | self.joins).items() if member not in self.evictions
        }
        self.evictions = earlier.evictions | self.evictions
        self.rotate |= earlier.rotate
        self.rotate_all |= earlier.rotate_all
        self.rotated_by = self.rotated_by or earlier.rotated_by
        self.documents = earlier.documents | self.documents
        self.audit = earlier.audit + self.audit
        self.since = earlier.since

    def refuse(self, error: Exception) -> None:
        """Tell those who wait that it will not be stored here."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_exception(error)
