"""The outcome of one commit, which a caller stores before it publishes any of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from brokerkm.core.tree import PAGE_NODES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from brokerkm.core.notice import GoodbyeReason
    from brokerkm.core.renewal import Rotation
    from brokerkm.core.tree import KeyTree
    from brokerkm.core.welcome import NodeKey


class NodeRekey(NamedTuple):
    """An encoded Rekey or Subgroup message and the node whose topic it goes to (level 0: a bucket)."""

    level: int
    index: int  # type: ignore[assignment] # hides tuple.index, which nobody calls; 65,000 are made in a large commit
    payload: bytes


@dataclass(frozen=True, slots=True)
class Enrollment:
    """A member to be: who it is and where its Welcome goes.

    Args:
        member: member id.
        identity: the device's Ed25519 public key, 32 bytes; empty if it has none yet.
        kem_public: public key that its Welcomes are sealed to; empty if it will ask by Join later.
        nonce: of its Join, 16 bytes; empty if there was none.
        spares: how many of the root's next keys it is to get with a Welcome that is carried to it as a file.
    """

    member: str
    identity: bytes = b""
    kem_public: bytes = b""
    nonce: bytes = b""
    spares: int = 0


class Eviction(NamedTuple):
    """A member to be cut off, and why."""

    member: str
    reason: GoodbyeReason


class Seat(NamedTuple):
    """An enrollment and the slot it has got; `refreshed` if the member had it before."""

    slot: int
    enrollment: Enrollment
    refreshed: bool = False


@dataclass(frozen=True, slots=True)
class StateChange:
    """How a commit moves the group: what a store writes in one transaction.

    Args:
        epoch: the group's epoch from now on.
        height: the tree's height from now on.
        time: the group's clock, ms since 1970; never goes back.
        nodes: by level, the new key of each node that changed; birth 0 for a leaf that was emptied.
        seated: members that joined or were given a new leaf key.
        removed: (member id, slot) of those that are out.
        spares: the root's next keys that are drawn, oldest first.
    """

    epoch: int
    height: int
    time: int
    nodes: tuple[Mapping[int, NodeKey], ...] = field(repr=False)
    seated: tuple[Seat, ...]
    removed: tuple[tuple[str, int], ...]
    spares: tuple[bytes, ...] = field(default=(), repr=False)

    def pages(self, tree: KeyTree) -> Iterator[tuple[int, int, bytes]]:
        """Yield (level, page number, page) for each page that this change touches; `tree` may or may not have it."""
        for level, nodes in enumerate(self.nodes):
            for number in sorted({index // PAGE_NODES for index in nodes}):
                yield level, number, tree.page(level, number, nodes)


@dataclass(frozen=True, slots=True)
class Commit:
    """One epoch: what to publish, and the state that goes with it.

    Args:
        rekeys: at most one for each member that stays.
        beacon: the encoded Beacon.
        welcomes: (member id, encoded Welcome) for each that joined with a KEM key.
        goodbyes: (member id, encoded Goodbye).
        change: what to store in the same transaction as the messages.
        served: the queued changes that this commit makes.
    """

    rekeys: tuple[NodeRekey, ...] = field(repr=False)
    beacon: bytes = field(repr=False)
    welcomes: tuple[tuple[str, bytes], ...] = field(repr=False)
    goodbyes: tuple[tuple[str, bytes], ...] = field(repr=False)
    change: StateChange
    served: frozenset[Enrollment | Eviction | Rotation] = field(repr=False)

    @property
    def epoch(self) -> int:
        """The epoch that this commit begins."""
        return self.change.epoch
