"""A member's keys on their way to it: the Welcome, what is sealed in it, and the sender certificate.

Formats: `schemas/welcome.cddl`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple, Self

from brokerkm.core.crypto import KEY_SIZE, PUBLIC_KEY_SIZE, SIGNATURE_SIZE, Suite, check_signature, labelled
from brokerkm.core.messages import MAX_DEGREE, MAX_STEP, Kind
from brokerkm.core.names import MAX_LEVEL, MAX_SLOTS
from brokerkm.core.policy import Policy
from brokerkm.core.signing import SIGNATURE_TAIL, sign
from brokerkm.core.wire import (
    NONCE_SIZE,
    VERSION,
    array,
    binary,
    check_canonical,
    open_message,
    pack,
    uint,
    unpack_array,
)
from brokerkm.errors import Reason, RefusedError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


class NodeKey(NamedTuple):
    """The key of one node with its version; its text never shows the key."""

    key: bytes
    birth: int
    step: int

    def __repr__(self) -> str:
        return f"NodeKey(birth={self.birth}, step={self.step})"


MAX_SPARES: Final = 32  # of the root's next keys that a group has drawn; a month of daily rotations
_LENGTHS: Final = (8, 9)  # elements of the sealed part: without and with spares
CERTIFICATE_LIFETIME: Final = 24 * 3600 * 1000  # ms; renewed by every Welcome


@dataclass(frozen=True, slots=True)
class Certificate:
    """The server's word that `identity` is the Ed25519 key of a member until `expiry` (ms since 1970)."""

    LABEL: ClassVar = "brokerkm v1 certificate"

    identity: bytes
    expiry: int
    signature: bytes

    @classmethod
    def issue(cls, key: Ed25519PrivateKey, group: str, member: str, identity: bytes, expiry: int) -> Self:
        """Return a certificate signed by the server's key."""
        return cls(identity, expiry, key.sign(labelled(cls.LABEL, group, member, identity, expiry)))

    @classmethod
    def from_fields(cls, value: object) -> Self:
        """Return the certificate in a decoded array; raises `RefusedError`."""
        identity, expiry, signature = array(value, "certificate", 3)
        return cls(
            binary(identity, "certificate.identity", PUBLIC_KEY_SIZE),
            uint(expiry, "certificate.expiry"),
            binary(signature, "certificate.signature", SIGNATURE_SIZE),
        )

    @property
    def fields(self) -> tuple[bytes, int, bytes]:
        """What goes on the wire."""
        return (self.identity, self.expiry, self.signature)

    def verify(self, key: Ed25519PublicKey, group: str, member: str, now_ms: int) -> None:
        """Check signature and expiry; raises `RefusedError`."""
        if now_ms > self.expiry:
            raise RefusedError(Reason.WRONG_TIME, "certificate.expiry")
        signed = labelled(self.LABEL, group, member, self.identity, self.expiry)
        check_signature(key, self.signature, signed, "certificate.signature")


@dataclass(frozen=True, slots=True)
class WelcomeSecrets:
    """The sealed part of a Welcome: all that a member needs to take part.

    `time` is the server's, ms since 1970; `path` has one key for each level from 1 to the height; `spares`
    are the root's next keys, oldest first, for a device that may be out of reach when they come.
    """

    epoch: int
    time: int
    slot: int
    degree: int
    leaf: NodeKey
    path: tuple[NodeKey, ...]
    policy: Policy
    certificate: Certificate | None
    spares: tuple[bytes, ...] = field(default=(), repr=False)

    def encode(self) -> bytes:
        """Return the bytes to seal."""
        path = [(node.birth, node.step, node.key) for node in self.path]
        certificate = self.certificate and self.certificate.fields
        leaf = (self.leaf.birth, self.leaf.key)
        fields = (self.epoch, self.time, self.slot, self.degree, leaf, path, self.policy.fields, certificate)
        return pack((*fields, self.spares) if self.spares else fields)

    @classmethod
    def decode(cls, plaintext: bytes) -> Self:
        """Return what was sealed; raises `RefusedError`."""
        fields = unpack_array(plaintext)
        check_canonical(fields, plaintext)
        if len(fields) not in _LENGTHS:
            raise RefusedError(Reason.WRONG_LENGTH, "sealed")
        epoch, time, slot, degree, leaf, path, policy, certificate, *spares = fields
        degree = uint(degree, "degree", MAX_DEGREE, 2)
        nodes = array(path, "path")
        if not 1 <= len(nodes) <= MAX_LEVEL:
            raise RefusedError(Reason.WRONG_LENGTH, "path")
        slot = uint(slot, "slot", MAX_SLOTS - 1)
        if slot >= degree ** len(nodes):
            raise RefusedError(Reason.OUT_OF_RANGE, "slot")
        epoch = uint(epoch, "epoch", minimum=1)
        leaf_birth, leaf_key = array(leaf, "leaf", 2)
        return cls(
            epoch,
            uint(time, "time"),
            slot,
            degree,
            NodeKey(binary(leaf_key, "leaf.key", KEY_SIZE), uint(leaf_birth, "leaf.birth", epoch, 1), 0),
            tuple(_path_key(node, epoch) for node in nodes),
            Policy.from_fields(policy),
            None if certificate is None else Certificate.from_fields(certificate),
            _spares(spares[0]) if spares else (),
        )


def _path_key(value: object, epoch: int) -> NodeKey:
    birth, step, key = array(value, "path", 3)
    return NodeKey(
        binary(key, "path.key", KEY_SIZE), uint(birth, "path.birth", epoch, 1), uint(step, "path.step", MAX_STEP)
    )


def _spares(value: object) -> tuple[bytes, ...]:
    spares = array(value, "spares")
    if not 1 <= len(spares) <= MAX_SPARES:
        raise RefusedError(Reason.WRONG_LENGTH, "spares")
    return tuple(binary(spare, "spares", KEY_SIZE) for spare in spares)


class Recipient(NamedTuple):
    """Whom a Welcome is for: the member, the public key it made for its last Join, and the request's nonce."""

    member: str
    kem_public: bytes
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Welcome:
    """A member's keys, sealed to it; `nonce` is that of the request which it answers."""

    LABEL: ClassVar = "brokerkm v1 welcome"

    nonce: bytes
    sealed: bytes
    signature: bytes
    signed_part: bytes = field(repr=False)

    @classmethod
    def seal(cls, key: Ed25519PrivateKey, suite: Suite, group: str, to: Recipient, secrets: WelcomeSecrets) -> bytes:
        """Return the encoded Welcome that gives `secrets` to one member, in answer to one request.

        Raises:
            RefusedError: the recipient's KEM public key cannot be used.
        """
        sealed = suite.seal(to.kem_public, secrets.encode(), labelled(cls.LABEL, group, to.member, to.nonce))
        return sign(key, labelled(cls.LABEL, group, to.member), (VERSION, Kind.WELCOME, to.nonce, sealed))

    def open(self, suite: Suite, kem_seed: bytes, group: str, member: str) -> WelcomeSecrets:
        """Return what is sealed in it; raises `RefusedError`."""
        return WelcomeSecrets.decode(suite.open(kem_seed, self.sealed, labelled(self.LABEL, group, member, self.nonce)))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the Welcome in `payload`; raises `RefusedError`."""
        nonce, sealed, signature = open_message(payload, Kind.WELCOME, 5)
        return cls(
            binary(nonce, "nonce", NONCE_SIZE),
            binary(sealed, "sealed"),
            binary(signature, "signature", SIGNATURE_SIZE),
            payload[:-SIGNATURE_TAIL],
        )

    def verify(self, key: Ed25519PublicKey, group: str, member: str) -> None:
        """Check the signature; raises `RefusedError`."""
        check_signature(key, self.signature, labelled(self.LABEL, group, member) + self.signed_part)
