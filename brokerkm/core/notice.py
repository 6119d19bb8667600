"""A signed word from the server to one member: Goodbye and Refusal.

Formats: `schemas/goodbye.cddl`, `schemas/refusal.cddl`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final, Self

from brokerkm.core.crypto import SIGNATURE_SIZE, check_signature, labelled
from brokerkm.core.messages import Kind
from brokerkm.core.signing import SIGNATURE_TAIL, check_proved, decode_proof, encode_proved, sign, sign_all
from brokerkm.core.wire import NONCE_SIZE, VERSION, binary, open_message, uint
from brokerkm.errors import Reason, RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from brokerkm.core.crypto import Random


SALT_SIZE: Final = 16  # bytes; beyond guessing
EVERYBODY: Final = ""  # whom a Goodbye on the group's beacon topic is for; no member has this id


class GoodbyeReason(enum.IntEnum):
    """Why a member is out."""

    EVICTED = 1
    LEFT = 2
    DESTROYED = 3  # the group is no more; on its beacon topic, to everybody


class RefusalReason(enum.IntEnum):
    """Why the server did not do what a request asked for; says no more than an outsider may know."""

    NOT_ADMITTED = 1  # no listed key, no valid token, or a proof that does not hold
    NOT_A_MEMBER = 2
    WRONG_TIME = 3  # the request's time is too far from the server's, which the refusal gives
    TRY_LATER = 4


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The member is out as of `epoch`; retained in place of its Welcome, or for everybody in place of the Beacon.

    `salt` is random: what a block signs must not be foreseeable to somebody who could choose member ids for a
    collision of its hashes.
    """

    LABEL: ClassVar = "brokerkm v1 goodbye"

    epoch: int
    reason: GoodbyeReason
    salt: bytes
    proof: bytes | None
    signature: bytes
    signed_part: bytes = field(repr=False)

    @classmethod
    def seal_all(
        cls,
        key: Ed25519PrivateKey,
        group: str,
        epoch: int,
        evicted: Sequence[tuple[str, GoodbyeReason]],
        random: Random,
    ) -> list[bytes]:
        """Return the encoded Goodbye of each of the `evicted` (member id and reason)."""
        kind = (VERSION, Kind.GOODBYE, epoch)
        salts = random(SALT_SIZE * len(evicted))
        bodies = [
            encode_proved((*kind, reason, salts[SALT_SIZE * at : SALT_SIZE * (at + 1)]), 2)
            for at, (_, reason) in enumerate(evicted)
        ]
        return sign_all(key, bodies, [labelled(cls.LABEL, group, member) for member, _ in evicted])

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the Goodbye in `payload`; raises `RefusedError`."""
        epoch, reason, salt, proof, signature = open_message(payload, Kind.GOODBYE, 7)
        proof, signed_part = decode_proof(proof, payload)
        return cls(
            uint(epoch, "epoch", minimum=1),
            GoodbyeReason(uint(reason, "reason", len(GoodbyeReason), 1)),
            binary(salt, "salt", SALT_SIZE),
            proof,
            binary(signature, "signature", SIGNATURE_SIZE),
            signed_part,
        )

    def verify(self, key: Ed25519PublicKey, group: str, member: str) -> None:
        """Check that it is for this member, or `EVERYBODY`, and the signature; raises `RefusedError`."""
        if (member == EVERYBODY) != (self.reason is GoodbyeReason.DESTROYED):
            raise RefusedError(Reason.OUT_OF_RANGE, "reason")
        check_proved(key, self.signature, self.proof, labelled(self.LABEL, group, member) + self.signed_part)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The request with this nonce was not granted; never retained. `time` is the server's, ms since 1970."""

    LABEL: ClassVar = "brokerkm v1 refusal"

    nonce: bytes
    reason: RefusalReason
    time: int
    signature: bytes
    signed_part: bytes = field(repr=False)

    @classmethod
    def seal(
        cls, key: Ed25519PrivateKey, group: str, member: str, *, nonce: bytes, reason: RefusalReason, time: int
    ) -> bytes:
        """Return the encoded Refusal."""
        return sign(key, labelled(cls.LABEL, group, member), (VERSION, Kind.REFUSAL, nonce, reason, time))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the Refusal in `payload`; raises `RefusedError`."""
        nonce, reason, time, signature = open_message(payload, Kind.REFUSAL, 6)
        return cls(
            binary(nonce, "nonce", NONCE_SIZE),
            RefusalReason(uint(reason, "reason", len(RefusalReason), 1)),
            uint(time, "time"),
            binary(signature, "signature", SIGNATURE_SIZE),
            payload[:-SIGNATURE_TAIL],
        )

    def verify(self, key: Ed25519PublicKey, group: str, member: str) -> None:
        """Check the signature; raises `RefusedError`."""
        check_signature(key, self.signature, labelled(self.LABEL, group, member) + self.signed_part)
