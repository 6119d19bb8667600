"""What a store keeps, as plain values. Times are milliseconds since 1970; no text shows a key."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from brokerkm.core.crypto import Suite
from brokerkm.core.names import DEFAULT_PREFIX
from brokerkm.core.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """One group without its keys, members and messages.

    Args:
        signing_seed: the group's Ed25519 private key, 32 bytes.
        beacon_interval: seconds between Beacons.
        epoch, height, time: where the group stands; `KeyTree`'s height.
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


class Status(enum.IntEnum):
    """How a member id stands with its group."""

    LISTED = 1  # its identity key may join; it has no place now
    SEATED = 2  # it has a slot and a leaf key
    EVICTED = 3  # it may not come back before an operator says so


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """What is known of one member id.

    Args:
        identity: the Ed25519 public key listed for it or bound to it.
        slot: its leaf; None unless it is seated.
        kem_public: what its Welcomes are sealed to; empty unless it is seated.
        nonce: of the Join that seated it; empty unless it is seated.
        last_time: of the newest of its requests that had a lasting effect; older ones are replays.
        epoch: of the commit that last seated or removed it; 0 if none did.
    """

    member: str
    status: Status
    identity: bytes
    slot: int | None = None
    kem_public: bytes = field(default=b"", repr=False)
    nonce: bytes = field(default=b"", repr=False)
    last_time: int = 0
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """An enrollment token: the MAC key derived from its secret, and how often and until when it may be used."""

    id: bytes
    key: bytes = field(repr=False)
    uses_left: int
    expiry: int


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """The newest payload of one topic.

    Those for one member are dropped once they are published; the others stay, to be published again if the
    broker loses them.

    Args:
        audience: the member that alone may read it, or None.
        sequence: place in the order of publication; given by the store.
    """

    topic: str
    payload: bytes = field(repr=False)
    audience: str | None = None
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """All that one commit changes, for one transaction.

    Args:
        epoch: the one that begins; must follow the stored one.
        pages: (level, page number, page) of the key tree.
        members: records as they are from now on.
        spent: token id to the number of uses that this commit takes from it.
        messages: in the order of publication.
    """

    epoch: int
    height: int
    time: int
    pages: Iterable[tuple[int, int, bytes]] = field(repr=False)
    members: Sequence[MemberRecord]
    spent: Mapping[bytes, int]
    messages: Sequence[OutboxMessage] = field(repr=False)
