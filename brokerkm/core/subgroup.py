"""A message from the server to some members only, under one node key. Format: `schemas/subgroup.cddl`.

It goes to the topic of the node (for a leaf: to its bucket), is never retained and never exceeds a protocol message.
Each has a key of its own, derived from the node key and a salt, so that its nonce may be fixed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from brokerkm.core.crypto import SIGNATURE_SIZE, check_signature, derive, labelled
from brokerkm.core.messages import MAX_STEP, Kind
from brokerkm.core.names import MAX_SLOTS
from brokerkm.core.signing import SIGNATURE_TAIL, encode_proved, sign
from brokerkm.core.wire import VERSION, binary, binary_size, open_message, uint
from brokerkm.errors import Reason, RefusedError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from brokerkm.core.welcome import NodeKey

SALT_SIZE: Final = 16  # bytes
MAX_SUBGROUP_PAYLOAD: Final = 16_000  # bytes; leaves room for the rest of the message in 16 KiB
_NONCE: Final = bytes(12)  # each message has its own key


@dataclass(frozen=True, slots=True)
class Subgroup:
    """Opens with the key of `slot`'s leaf, or of the topic's node if that is None; `time` grows, ms since 1970."""

    LABEL: ClassVar = "brokerkm v1 subgroup"

    time: int
    slot: int | None
    birth: int
    step: int
    salt: bytes
    ciphertext: bytes
    signature: bytes
    header: bytes = field(repr=False)
    signed_part: bytes = field(repr=False)

    @classmethod
    def seal(
        cls,
        key: Ed25519PrivateKey,
        context: tuple[str, int, int],
        node: NodeKey,
        plaintext: bytes,
        *,
        slot: int | None,
        time: int,
        salt: bytes,
    ) -> bytes:
        """Return the encoded message for the topic that `context` (group, level, index) names."""
        bound = labelled(cls.LABEL, *context)
        fields = (VERSION, Kind.SUBGROUP, time, slot, node.birth, node.step, salt)
        header = encode_proved(fields, 2)
        ciphertext = AESGCM(derive(node.key, cls.LABEL, salt)).encrypt(_NONCE, plaintext, bound + header)
        return sign(key, bound, (*fields, ciphertext))

    @classmethod
    def decode(cls, payload: bytes, level: int) -> Self:
        """Return the message in `payload` from a topic of `level`; raises `RefusedError`."""
        time, slot, birth, step, salt, ciphertext, signature = open_message(payload, Kind.SUBGROUP, 9)
        if (slot is None) != (level > 0):
            raise RefusedError(Reason.WRONG_TYPE, "slot")
        ciphertext = binary(ciphertext, "ciphertext")
        signed_part = payload[:-SIGNATURE_TAIL]
        return cls(
            uint(time, "time"),
            None if slot is None else uint(slot, "slot", MAX_SLOTS - 1),
            uint(birth, "birth", minimum=1),
            uint(step, "step", MAX_STEP),
            binary(salt, "salt", SALT_SIZE),
            ciphertext,
            binary(signature, "signature", SIGNATURE_SIZE),
            signed_part[: -binary_size(len(ciphertext))],
            signed_part,
        )

    def verify(self, key: Ed25519PublicKey, context: tuple[str, int, int]) -> None:
        """Check the signature; raises `RefusedError`."""
        check_signature(key, self.signature, labelled(self.LABEL, *context) + self.signed_part)

    def open(self, node_key: bytes, context: tuple[str, int, int]) -> bytes:
        """Return the plaintext; raises `RefusedError` (bad-seal)."""
        bound = labelled(self.LABEL, *context) + self.header
        try:
            return AESGCM(derive(node_key, self.LABEL, self.salt)).decrypt(_NONCE, self.ciphertext, bound)
        except InvalidTag:
            raise RefusedError(Reason.BAD_SEAL, "ciphertext") from None
