"""What the key server tells the group: Rekey and Beacon. Formats: `schemas/rekey.cddl`, `schemas/beacon.cddl`."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

from brokerkm.core.crypto import SIGNATURE_SIZE, WRAPPED_KEY_SIZE, check_signature, labelled
from brokerkm.core.messages import MAX_DEGREE, MAX_STEP, Kind
from brokerkm.core.names import MAX_LEVEL, MAX_SLOTS
from brokerkm.core.policy import Policy
from brokerkm.core.signing import SIGNATURE_TAIL, check_proved, decode_proof, sign
from brokerkm.core.wire import VERSION, array, binary, open_message, uint
from brokerkm.errors import Reason, RefusedError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


class Entry(NamedTuple):
    """One way into a Rekey: `wrapped` opens with the key of `slot`'s leaf, or of the topic's node if that is None."""

    slot: int | None
    birth: int
    step: int
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class Rekey:
    """Fresh keys from the parent of the topic's node up to the root, each wrapped in the one below.

    The server builds Rekeys in bulk (`brokerkm.core.commit`); this class is the member's view of one.
    """

    LABEL: ClassVar = "brokerkm v1 rekey"

    epoch: int
    height: int
    entries: tuple[Entry, ...]
    chain: bytes
    proof: bytes | None
    signature: bytes
    signed_part: bytes = field(repr=False)

    @classmethod
    def decode(cls, payload: bytes, level: int) -> Self:
        """Return the Rekey in `payload` from a topic of `level`; raises `RefusedError`."""
        epoch, height, entries, chain, proof, signature = open_message(payload, Kind.REKEY, 8)
        height = uint(height, "height", MAX_LEVEL, level + 1)
        proof, signed_part = decode_proof(proof, payload)
        return cls(
            uint(epoch, "epoch", minimum=1),
            height,
            _entries(entries, level),
            binary(chain, "chain", WRAPPED_KEY_SIZE * (height - level - 1)),
            proof,
            binary(signature, "signature", SIGNATURE_SIZE),
            signed_part,
        )

    def verify(self, key: Ed25519PublicKey, group: str, level: int, index: int) -> None:
        """Check the signature over this message on the topic of `(level, index)`; raises `RefusedError`."""
        signed = labelled(self.LABEL, group, level, index) + self.signed_part
        check_proved(key, self.signature, self.proof, signed)


def _entries(value: object, level: int) -> tuple[Entry, ...]:
    items = array(value, "entries")
    if not 1 <= len(items) <= (MAX_DEGREE if level == 0 else 1):
        raise RefusedError(Reason.WRONG_LENGTH, "entries")
    entries = tuple(_entry(item, in_bucket=level == 0) for item in items)
    if any((one.slot or 0) >= (two.slot or 0) for one, two in pairwise(entries)):
        raise RefusedError(Reason.OUT_OF_RANGE, "entries.slot", "not ascending")
    return entries


def _entry(value: object, *, in_bucket: bool) -> Entry:
    slot, birth, step, wrapped = array(value, "entries", 4)
    if in_bucket:
        slot = uint(slot, "entries.slot", MAX_SLOTS - 1)
    elif slot is not None:
        raise RefusedError(Reason.WRONG_TYPE, "entries.slot")
    return Entry(
        slot,
        uint(birth, "entries.birth", minimum=1),
        uint(step, "entries.step", 0 if in_bucket else MAX_STEP),  # leaf keys never ratchet
        binary(wrapped, "entries.wrapped", WRAPPED_KEY_SIZE),
    )


@dataclass(frozen=True, slots=True)
class Beacon:
    """Where the group stands and what it asks of its members: sent after every commit and at a fixed interval.

    `time` is the server's in milliseconds since 1970; the next Beacon is due `due` seconds later. A group that
    never had a member has no root key: birth 0.
    """

    LABEL: ClassVar = "brokerkm v1 beacon"

    epoch: int
    height: int
    birth: int
    step: int
    time: int
    due: int
    policy: Policy
    signature: bytes
    signed_part: bytes = field(repr=False)

    @classmethod
    def seal(
        cls, key: Ed25519PrivateKey, group: str, at: tuple[int, int, int, int], time: int, *, due: int, policy: Policy
    ) -> bytes:
        """Return the encoded Beacon for (epoch, height, root birth, root step) `at`."""
        return sign(key, labelled(cls.LABEL, group), (VERSION, Kind.BEACON, *at, time, due, policy.fields))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the Beacon in `payload`; raises `RefusedError`."""
        epoch, height, birth, step, time, due, policy, signature = open_message(payload, Kind.BEACON, 10)
        epoch = uint(epoch, "epoch")
        return cls(
            epoch,
            uint(height, "height", MAX_LEVEL, 1),
            uint(birth, "birth", epoch),
            uint(step, "step", MAX_STEP),
            uint(time, "time"),
            uint(due, "due", 0xFFFFFFFF, 1),
            Policy.from_fields(policy),
            binary(signature, "signature", SIGNATURE_SIZE),
            payload[:-SIGNATURE_TAIL],
        )

    def verify(self, key: Ed25519PublicKey, group: str) -> None:
        """Check the signature; raises `RefusedError`."""
        check_signature(key, self.signature, labelled(self.LABEL, group) + self.signed_part)
