"""How a group gets another server key: a chain of links, each signed by the key before.

Format: `schemas/handover.cddl`.

Whoever believes one of the keys can walk from it to the newest. It is no revocation: who has stolen a key can sign a
link of their own for those who have not followed yet; those who have never go back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple, Self

from brokerkm.core.crypto import (
    PUBLIC_KEY_SIZE,
    SIGNATURE_SIZE,
    check_signature,
    labelled,
    load_signing_key,
    load_verify_key,
)
from brokerkm.core.messages import Kind
from brokerkm.core.wire import VERSION, array, binary, open_message, pack, uint
from brokerkm.errors import Reason, RefusedError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAX_LINKS: Final = 64  # of about 110 bytes, so that a chain fits a message; members with older keys join anew


class Link(NamedTuple):
    """The word of the key before that `key` is the server's from `time` (ms since 1970) on."""

    key: bytes
    time: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Handover:
    """The newest links of a group, oldest first; retained."""

    LABEL: ClassVar = "brokerkm v1 handover"

    links: tuple[Link, ...]

    @classmethod
    def sign(cls, old: Ed25519PrivateKey, group: str, new: bytes, time: int) -> Link:
        """Return the link from the key `old` to the public key `new`."""
        return Link(new, time, old.sign(labelled(cls.LABEL, group, new, time)))

    def encode(self) -> bytes:
        """Return the encoded message."""
        return pack((VERSION, Kind.HANDOVER, self.links))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the Handover in `payload`; raises `RefusedError`."""
        (items,) = open_message(payload, Kind.HANDOVER, 3)
        links = array(items, "links")
        if not 1 <= len(links) <= MAX_LINKS:
            raise RefusedError(Reason.WRONG_LENGTH, "links")
        read = tuple(_link(link) for link in links)
        if any(one.time >= two.time for one, two in pairwise(read)):
            raise RefusedError(Reason.OUT_OF_RANGE, "links.time", "not ascending")
        if len({link.key for link in read}) != len(read):
            raise RefusedError(Reason.OUT_OF_RANGE, "links.key", "there twice")
        return cls(read)

    def after(self, key: bytes, group: str) -> tuple[Link, ...]:
        """Return the links that lead on from `key`, none if it is the newest.

        Raises:
            RefusedError: bad-signature, if one of them is not signed by the key before it.
        """
        keys = [link.key for link in self.links]
        links = self.links[keys.index(key) + 1 if key in keys else 0 :]
        for link in links:
            signed = labelled(self.LABEL, group, link.key, link.time)
            check_signature(load_verify_key(key, "links.key"), link.signature, signed, "links.signature")
            key = link.key
        return links


@dataclass(frozen=True, slots=True)
class Succession:
    """What a group becomes by a hand-over, which a caller stores before it publishes `message`.

    Args:
        seed: of the new signing key, 32 bytes.
        time: the group's clock, ms since 1970.
        handovers: each link of the group as a message of its own, oldest first.
        message: the newest links in one.
    """

    seed: bytes = field(repr=False)
    time: int
    handovers: tuple[bytes, ...]
    message: bytes


def succeed(old: Ed25519PrivateKey, group: str, handovers: tuple[bytes, ...], new_seed: bytes, time: int) -> Succession:
    """Return what a group becomes by the link from the key `old` to that of `new_seed`.

    Raises:
        UsageError: the key is the group's already, or was before.
    """
    new = load_signing_key(new_seed).public_key().public_bytes_raw()
    before = [link.key for handover in handovers for link in Handover.decode(handover).links]
    if new in (old.public_key().public_bytes_raw(), *before):
        message = f"group {group}: the new server key was in use before: draw another"
        raise UsageError(message)
    link = Handover((Handover.sign(old, group, new, time),)).encode()
    kept = (*handovers, link)[-MAX_LINKS:]
    return Succession(new_seed, time, kept, join_links(kept))


def join_links(handovers: tuple[bytes, ...]) -> bytes:
    """Return the newest links of several Handovers, oldest first, in one message."""
    links = [link for handover in handovers for link in Handover.decode(handover).links]
    return Handover(tuple(links[-MAX_LINKS:])).encode()


def _link(value: object) -> Link:
    key, time, signature = array(value, "links", 3)
    return Link(
        binary(key, "links.key", PUBLIC_KEY_SIZE),
        uint(time, "links.time"),
        binary(signature, "links.signature", SIGNATURE_SIZE),
    )
