"""What a member asks of the server: Join, Sync and Leave. Format: `schemas/requests.cddl`.

Each carries a nonce, the member's time and a proof over its label, its context (group and member, which the topic
names) and all that stands before the proof. Checking a proof is the business of `brokerkm.core.admission`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

from brokerkm.core.crypto import (
    MAC_SIZE,
    PUBLIC_KEY_SIZE,
    SIGNATURE_SIZE,
    Suite,
    check_mac,
    check_signature,
    derive,
    labelled,
    load_verify_key,
    mac,
)
from brokerkm.core.messages import Kind
from brokerkm.core.signing import SIGNATURE_TAIL, encode_proved
from brokerkm.core.wire import NONCE_SIZE, VERSION, binary, binary_size, open_message, pack, uint
from brokerkm.errors import Reason, RefusedError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

TOKEN_ID_SIZE = 8  # bytes
_MAC_TAIL = binary_size(MAC_SIZE)


class TokenKey(NamedTuple):
    """An enrollment token as it is used: its id, and the MAC key derived from its secret."""

    id: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"TokenKey(id={self.id.hex()})"

    @classmethod
    def from_secret(cls, token_id: bytes, secret: bytes) -> Self:
        """Return the MAC key of a token's 32-byte secret; the server stores only this."""
        return cls(token_id, derive(secret, "brokerkm v1 token", token_id))


def request_key(leaf_key: bytes) -> bytes:
    """Return the MAC key of a member's Sync and Leave."""
    return derive(leaf_key, "brokerkm v1 request")


@dataclass(frozen=True, slots=True)
class Join:
    """Asks for a place in the group, or for a new leaf key by one who has a place already.

    The signature by the device's identity key is always there; the MAC keyed by an enrollment token is there if the
    identity is not listed with the server.
    """

    LABEL: ClassVar = "brokerkm v1 join"

    nonce: bytes
    time: int
    kem_public: bytes
    identity: bytes
    token: bytes | None
    mac: bytes | None
    signature: bytes
    maced_part: bytes = field(repr=False)
    signed_part: bytes = field(repr=False)

    @classmethod
    def seal(
        cls,
        identity: Ed25519PrivateKey,
        group: str,
        member: str,
        kem_public: bytes,
        *,
        token: TokenKey | None,
        nonce: bytes,
        time: int,
    ) -> bytes:
        """Return the encoded Join."""
        context = labelled(cls.LABEL, group, member)
        public = identity.public_key().public_bytes_raw()
        fields = (VERSION, Kind.JOIN, nonce, time, kem_public, public, token and token.id)
        body = encode_proved(fields, 2)
        body += pack(token and mac(token.key, context + body))
        return body + pack(identity.sign(context + body))

    @classmethod
    def decode(cls, payload: bytes, suite: Suite) -> Self:
        """Return the Join in `payload`; raises `RefusedError`."""
        nonce, time, kem_public, identity, token, tag, signature = open_message(payload, Kind.JOIN, 9)
        if (token is None) != (tag is None):
            raise RefusedError(Reason.WRONG_TYPE, "mac")
        return cls(
            binary(nonce, "nonce", NONCE_SIZE),
            uint(time, "time"),
            binary(kem_public, "kem_public", suite.public_size),
            binary(identity, "identity", PUBLIC_KEY_SIZE),
            None if token is None else binary(token, "token", TOKEN_ID_SIZE),
            None if tag is None else binary(tag, "mac", MAC_SIZE),
            binary(signature, "signature", SIGNATURE_SIZE),
            payload[: -SIGNATURE_TAIL - (1 if tag is None else _MAC_TAIL)],
            payload[:-SIGNATURE_TAIL],
        )

    def verify_signature(self, group: str, member: str) -> None:
        """Check that the sender holds the identity key; raises `RefusedError`."""
        key = load_verify_key(self.identity, "identity")
        check_signature(key, self.signature, labelled(self.LABEL, group, member) + self.signed_part)

    def verify_token(self, token: TokenKey, group: str, member: str) -> None:
        """Check that the sender holds the token; raises `RefusedError`."""
        if self.mac is None:
            raise RefusedError(Reason.UNKNOWN_TOKEN, "token")
        check_mac(token.key, labelled(self.LABEL, group, member) + self.maced_part, self.mac, "mac")


@dataclass(frozen=True, slots=True)
class Sync:
    """Asks for a Welcome of the current keys; `epoch` is the newest that the member knows of."""

    LABEL: ClassVar = "brokerkm v1 sync"

    nonce: bytes
    time: int
    epoch: int
    mac: bytes
    maced_part: bytes = field(repr=False)

    @classmethod
    def seal(cls, leaf_key: bytes, group: str, member: str, *, nonce: bytes, time: int, epoch: int) -> bytes:
        """Return the encoded Sync."""
        body = encode_proved((VERSION, Kind.SYNC, nonce, time, epoch))
        return body + pack(mac(request_key(leaf_key), labelled(cls.LABEL, group, member) + body))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the Sync in `payload`; raises `RefusedError`."""
        nonce, time, epoch, tag = open_message(payload, Kind.SYNC, 6)
        return cls(
            binary(nonce, "nonce", NONCE_SIZE),
            uint(time, "time"),
            uint(epoch, "epoch"),
            binary(tag, "mac", MAC_SIZE),
            payload[:-_MAC_TAIL],
        )

    def verify(self, leaf_key: bytes, group: str, member: str) -> None:
        """Check that the sender holds the leaf key; raises `RefusedError`."""
        check_mac(request_key(leaf_key), labelled(self.LABEL, group, member) + self.maced_part, self.mac, "mac")


@dataclass(frozen=True, slots=True)
class Leave:
    """Asks to be taken out of the group."""

    LABEL: ClassVar = "brokerkm v1 leave"

    nonce: bytes
    time: int
    mac: bytes
    maced_part: bytes = field(repr=False)

    @classmethod
    def seal(cls, leaf_key: bytes, group: str, member: str, *, nonce: bytes, time: int) -> bytes:
        """Return the encoded Leave."""
        body = encode_proved((VERSION, Kind.LEAVE, nonce, time))
        return body + pack(mac(request_key(leaf_key), labelled(cls.LABEL, group, member) + body))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the Leave in `payload`; raises `RefusedError`."""
        nonce, time, tag = open_message(payload, Kind.LEAVE, 5)
        return cls(
            binary(nonce, "nonce", NONCE_SIZE),
            uint(time, "time"),
            binary(tag, "mac", MAC_SIZE),
            payload[:-_MAC_TAIL],
        )

    def verify(self, leaf_key: bytes, group: str, member: str) -> None:
        """Check that the sender holds the leaf key; raises `RefusedError`."""
        check_mac(request_key(leaf_key), labelled(self.LABEL, group, member) + self.maced_part, self.mac, "mac")
