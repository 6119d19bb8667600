"""What a store keeps, as plain values. Times are milliseconds since 1970; no text shows a key."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from brokerkm.core.crypto import Suite
from brokerkm.core.names import DEFAULT_PREFIX
from brokerkm.core.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Page: TypeAlias = tuple[int, int, bytes]  # level, page number, the nodes' keys, births and steps


@dataclass(frozen=True, slots=True)
class Settings:
    """What the server does for a group by itself; members are not told.

    Args:
        interval: seconds that a change waits for others; None for the server's own.
        max_pending: how many changes wait at most; None for the server's own.
        root_period: seconds after which the root gets a new key, 0 never.
        leaf_period: seconds after which a member gets a new leaf key, 0 never.
        retained: whether the broker is to keep the newest message of each topic; Beacon and Handover always are.
    """

    interval: float | None = None
    max_pending: int | None = None
    root_period: int = 0
    leaf_period: int = 0
    retained: bool = True


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """One group without its keys, members and messages.

    Args:
        signing_seed: the group's Ed25519 private key, 32 bytes.
        beacon_interval: seconds between Beacons.
        epoch, height, time: where the group stands; `KeyTree`'s height.
        frozen: no change is to be committed before an operator thaws it.
        destroyed: its members are to be told so, and then it is to be forgotten.
        handovers: encoded Handover messages from one signing key to the next, oldest first.
    """

    name: str
    signing_seed: bytes = field(repr=False)
    degree: int
    prefix: str = DEFAULT_PREFIX
    suite: Suite = Suite.X25519
    policy: Policy = field(default_factory=Policy)
    beacon_interval: int = 30
    epoch: int = 0
    height: int = 1
    time: int = 0
    settings: Settings = field(default_factory=Settings)
    frozen: bool = False
    destroyed: bool = False
    handovers: tuple[bytes, ...] = field(default=(), repr=False)


class Status(enum.IntEnum):
    """How a member id stands with its group."""

    LISTED = 1  # its identity key may join; it has no place now
    SEATED = 2  # it has a slot and a leaf key
    EVICTED = 3  # it may not come back before an operator says so
    PENDING = 4  # it asked to join and waits for an operator's yes


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """What is known of one member id.

    Args:
        identity: the Ed25519 public key listed for it or bound to it.
        slot: its leaf; None unless it is seated.
        kem_public: what its Welcomes are sealed to; empty unless it is seated or waits for an operator.
        nonce: of the Join that seated it or waits; empty otherwise.
        last_time: of the newest of its requests that had a lasting effect; older ones are replays.
        epoch: of the commit that last seated or removed it; 0 if none did.
        since: when its status began.
        seen: newest sign of life; 0 if there was none.
        acked: newest epoch that it confirmed; 0 if none.
        blocked_until: until then its requests are refused; 0 if they are not.
        counter: highest request counter seen.
    """

    member: str
    status: Status
    identity: bytes
    slot: int | None = None
    kem_public: bytes = field(default=b"", repr=False)
    nonce: bytes = field(default=b"", repr=False)
    last_time: int = 0
    epoch: int = 0
    since: int = 0
    seen: int = 0
    acked: int = 0
    blocked_until: int = 0
    counter: int = 0


class Sighting(NamedTuple):
    """A sign of life of a member: what is higher than before is kept, 0 changes nothing."""

    member: str
    seen: int = 0
    acked: int = 0
    counter: int = 0


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """An enrollment token.

    Args:
        key: the MAC key derived from its secret.
        uses_left, expiry: how often and until when it may be used.
        pattern: shell pattern (fnmatch) that the member ids must match.
        created: when it was made; tokens that had expired by then are forgotten.
        note: the operator's words.
    """

    id: bytes
    key: bytes = field(repr=False)
    uses_left: int
    expiry: int
    pattern: str = "*"
    created: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """The newest payload of one topic.

    Those for one member are dropped once they are published; the others stay, to be published again if the
    broker loses them.

    Args:
        audience: the member that alone may read it, or None.
        sequence: place in the group's order of publication; given by the store.
    """

    topic: str
    payload: bytes = field(repr=False)
    audience: str | None = None
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Document:
    """A small thing of a group or of the server (group ""), JSON by convention; `kind` says whose it is."""

    kind: str
    name: str
    body: bytes = field(repr=False)
    time: int = 0


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """What happened, and by whose will.

    Args:
        actor: ``operator:NAME``, ``member:NAME``, ``rule:NAME`` or ``server``.
        action: a word of the audit log, such as ``seat`` or ``evict``.
        subject: what it was done to: a member id, a token id, a group.
    """

    time: int
    actor: str
    action: str
    subject: str
    details: Mapping[str, str | int | bool] = field(default_factory=dict[str, "str | int | bool"])


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """An entry at its place in its chain; `hash` covers it and, through the one before, all earlier ones."""

    number: int
    entry: AuditEntry
    hash: bytes


@dataclass(frozen=True, slots=True)
class KeyChange:
    """The key tree's part of a commit.

    Args:
        epoch: the one that begins; it follows the stored one, or is anywhere above it if `jump`.
        pages: those that change; with each, all pages above it.
        spares: the root's next keys that are drawn, oldest first; in place of those from before.
    """

    epoch: int
    height: int
    pages: Iterable[Page] = field(repr=False)
    jump: bool = False
    spares: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """All that one transaction changes in one group; nothing, if nothing is named.

    Args:
        fence: of the lease under which it is made, None where there are no leases.
        keys: a commit of the key tree; only with it may members be seated or lose their seats.
        time: the group's clock from now on.
        record: replaces policy, settings, frozen, signing_seed, beacon_interval and handovers, and nothing else.
        members: records as they are from now on.
        tokens: new ones.
        spent: token id to the number of uses that are taken from it.
        revoked: ids of tokens that are void.
        documents: new ones, and new bodies of old ones.
        dropped: (kind, name) of documents that go.
        messages: in the order of publication.
        audit: in order.
    """

    fence: int | None = None
    keys: KeyChange | None = None
    time: int | None = None
    record: GroupRecord | None = None
    members: Sequence[MemberRecord] = ()
    tokens: Sequence[TokenRecord] = ()
    spent: Mapping[bytes, int] = field(default_factory=dict[bytes, int])
    revoked: Sequence[bytes] = ()
    documents: Sequence[Document] = ()
    dropped: Sequence[tuple[str, str]] = ()
    messages: Sequence[OutboxMessage] = field(default=(), repr=False)
    audit: Sequence[AuditEntry] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that `verify` found wrong; `group` is "" if it concerns the whole store."""

    group: str
    what: str
