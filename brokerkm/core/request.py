"""What a member asks of the server: Join, Sync, Leave and Ack. Format: `schemas/requests.cddl`.

Each carries a nonce, the member's time, a counter that grows with every request of the member, and a proof over its
label, its context (group and member, which the topic names) and all that stands before the proof. Checking a proof is
the business of `brokerkm.core.admission`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple, Protocol, Self, cast

from brokerkm.core.crypto import (
    MAC_SIZE,
    PUBLIC_KEY_SIZE,
    SIGNATURE_SIZE,
    Suite,
    check_mac,
    check_signature,
    derive,
    labelled,
    labelled_hash,
    load_verify_key,
    mac,
)
from brokerkm.core.messages import Kind
from brokerkm.core.signing import SIGNATURE_TAIL, encode_proved
from brokerkm.core.wire import (
    MAX_MESSAGE,
    NONCE_SIZE,
    VERSION,
    binary,
    binary_size,
    open_message,
    pack,
    uint,
)
from brokerkm.errors import Reason, RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

TOKEN_ID_SIZE = 8  # bytes
MAX_CHAIN: Final = 4  # certificates: a device's, two between, a root that need not be sent
MAX_POSSESSION: Final = 512  # bytes; a signature by an RSA key of 4096 bits. Longer keys cost the server too much
_MAC_TAIL = binary_size(MAC_SIZE)
_POSSESSION: Final = "brokerkm v1 possession"


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


class DeviceCertificate(Protocol):
    """An X.509 certificate and the use of its private key, which may lie in hardware."""

    @property
    def chain(self) -> Sequence[bytes]:
        """The certificates in DER, the device's first, each issued by the next; four at most."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Return the signature of `data` as the specification's section "Requests and admission" has it."""
        ...


Credential = TokenKey | DeviceCertificate


class Asked(NamedTuple):
    """What every request says first: the nonce for its answer, the member's time (ms since 1970), and its counter."""

    nonce: bytes
    time: int
    counter: int

    @classmethod
    def from_fields(cls, nonce: object, time: object, counter: object) -> Self:
        """Return them from a decoded array; raises `RefusedError`."""
        return cls(binary(nonce, "nonce", NONCE_SIZE), uint(time, "time"), uint(counter, "counter"))


first_nonce: Final = labelled_hash(b"brokerkm v1 first nonce\x00")
"""`first_nonce(kem_public)`: the nonce of the first Join that asks with a KEM key, 16 bytes.

So the public key alone, wherever the server has it from, is enough for a Welcome; that Join need not be sent.
"""


def request_key(leaf_key: bytes) -> bytes:
    """Return the MAC key of a member's Sync, Leave and Ack."""
    return derive(leaf_key, "brokerkm v1 request")


@dataclass(frozen=True, slots=True)
class Join:
    """Asks for a place in the group, or for a new leaf key by one who has a place already.

    The signature by the device's identity key is always there. If the identity is not listed with the server, a
    `credential` lets it in: the id of an enrollment token, with a MAC as `proof`; or a chain of certificates, with a
    signature by the first one's key.
    """

    LABEL: ClassVar = "brokerkm v1 join"

    nonce: bytes
    time: int
    counter: int
    kem_public: bytes
    identity: bytes
    credential: bytes | tuple[bytes, ...] | None
    proof: bytes
    signature: bytes
    proved_part: bytes = field(repr=False)
    signed_part: bytes = field(repr=False)

    @property
    def token(self) -> bytes | None:
        """Id of the enrollment token, if that is what it shows."""
        return self.credential if isinstance(self.credential, bytes) else None

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The certificates that it shows, in DER, the device's first; none of them is checked yet."""
        return self.credential if isinstance(self.credential, tuple) else ()

    @classmethod
    def seal(
        cls,
        identity: Ed25519PrivateKey,
        group: str,
        member: str,
        kem_public: bytes,
        *,
        credential: Credential | None,
        asked: Asked,
    ) -> bytes:
        """Return the encoded Join; raises `UsageError` if the credential's certificates are too many or too long."""
        context = labelled(cls.LABEL, group, member)
        public = identity.public_key().public_bytes_raw()
        fields = (VERSION, Kind.JOIN, *asked, kem_public, public)
        if credential is None:
            body = encode_proved((*fields, None), 2) + pack(None)
        elif isinstance(credential, TokenKey):
            body = encode_proved((*fields, credential.id), 2)
            body += pack(mac(credential.key, context + body))
        else:
            body = encode_proved((*fields, tuple(credential.chain)), 2)
            body += pack(credential.sign(labelled(_POSSESSION, group, member) + body))
            if not 1 <= len(credential.chain) <= MAX_CHAIN or len(body) + SIGNATURE_TAIL > MAX_MESSAGE:
                message = f"a Join shows 1 to {MAX_CHAIN} certificates and is at most {MAX_MESSAGE} bytes long"
                raise UsageError(message)
        return body + pack(identity.sign(context + body))

    @classmethod
    def decode(cls, payload: bytes, suite: Suite) -> Self:
        """Return the Join in `payload`; raises `RefusedError`."""
        *asked, kem_public, identity, credential, proof, signature = open_message(payload, Kind.JOIN, 10)
        if (credential is None) != (proof is None):
            raise RefusedError(Reason.WRONG_TYPE, "proof")
        shown: bytes | tuple[bytes, ...] | None = None
        if type(credential) is list:
            shown = _chain(cast("list[object]", credential))
            proof = binary(proof, "proof", maximum=MAX_POSSESSION)
        elif credential is not None:
            shown = binary(credential, "credential", TOKEN_ID_SIZE)
            proof = binary(proof, "proof", MAC_SIZE)
        proof_tail = binary_size(len(proof)) if isinstance(proof, bytes) else 1
        return cls(
            *Asked.from_fields(*asked),
            binary(kem_public, "kem_public", suite.public_size),
            binary(identity, "identity", PUBLIC_KEY_SIZE),
            shown,
            proof if isinstance(proof, bytes) else b"",
            binary(signature, "signature", SIGNATURE_SIZE),
            payload[: -SIGNATURE_TAIL - proof_tail],
            payload[:-SIGNATURE_TAIL],
        )

    def verify_signature(self, group: str, member: str) -> None:
        """Check that the sender holds the identity key; raises `RefusedError`."""
        key = load_verify_key(self.identity, "identity")
        check_signature(key, self.signature, labelled(self.LABEL, group, member) + self.signed_part)

    def verify_token(self, token: TokenKey, group: str, member: str) -> None:
        """Check that the sender holds the token; raises `RefusedError`."""
        if self.token is None:
            raise RefusedError(Reason.UNKNOWN_TOKEN, "credential")
        check_mac(token.key, labelled(self.LABEL, group, member) + self.proved_part, self.proof, "proof")

    def possession(self, group: str, member: str) -> bytes:
        """Return the bytes that the key of the first certificate has signed, if `proof` is good."""
        return labelled(_POSSESSION, group, member) + self.proved_part


def _chain(certificates: list[object]) -> tuple[bytes, ...]:
    if not 1 <= len(certificates) <= MAX_CHAIN:
        raise RefusedError(Reason.WRONG_LENGTH, "credential")
    return tuple(binary(certificate, "credential") for certificate in certificates)


@dataclass(frozen=True, slots=True)
class Sync:
    """Asks for a Welcome of the current keys; `epoch` is the newest that the member knows of."""

    LABEL: ClassVar = "brokerkm v1 sync"

    nonce: bytes
    time: int
    counter: int
    epoch: int
    mac: bytes
    maced_part: bytes = field(repr=False)

    @classmethod
    def seal(cls, leaf_key: bytes, group: str, member: str, *, asked: Asked, epoch: int) -> bytes:
        """Return the encoded Sync."""
        return _seal(leaf_key, labelled(cls.LABEL, group, member), (VERSION, Kind.SYNC, *asked, epoch))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the Sync in `payload`; raises `RefusedError`."""
        *asked, epoch, tag = open_message(payload, Kind.SYNC, 7)
        return cls(*Asked.from_fields(*asked), uint(epoch, "epoch"), *_tag(tag, payload))

    def verify(self, leaf_key: bytes, group: str, member: str) -> None:
        """Check that the sender holds the leaf key; raises `RefusedError`."""
        check_mac(request_key(leaf_key), labelled(self.LABEL, group, member) + self.maced_part, self.mac, "mac")


@dataclass(frozen=True, slots=True)
class Leave:
    """Asks to be taken out of the group."""

    LABEL: ClassVar = "brokerkm v1 leave"

    nonce: bytes
    time: int
    counter: int
    mac: bytes
    maced_part: bytes = field(repr=False)

    @classmethod
    def seal(cls, leaf_key: bytes, group: str, member: str, *, asked: Asked) -> bytes:
        """Return the encoded Leave."""
        return _seal(leaf_key, labelled(cls.LABEL, group, member), (VERSION, Kind.LEAVE, *asked))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the Leave in `payload`; raises `RefusedError`."""
        *asked, tag = open_message(payload, Kind.LEAVE, 6)
        return cls(*Asked.from_fields(*asked), *_tag(tag, payload))

    def verify(self, leaf_key: bytes, group: str, member: str) -> None:
        """Check that the sender holds the leaf key; raises `RefusedError`."""
        check_mac(request_key(leaf_key), labelled(self.LABEL, group, member) + self.maced_part, self.mac, "mac")


@dataclass(frozen=True, slots=True)
class Ack:
    """Confirms that the member has the keys of `epoch`; nothing answers it."""

    LABEL: ClassVar = "brokerkm v1 ack"

    nonce: bytes
    time: int
    counter: int
    epoch: int
    mac: bytes
    maced_part: bytes = field(repr=False)

    @classmethod
    def seal(cls, leaf_key: bytes, group: str, member: str, *, asked: Asked, epoch: int) -> bytes:
        """Return the encoded Ack."""
        return _seal(leaf_key, labelled(cls.LABEL, group, member), (VERSION, Kind.ACK, *asked, epoch))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the Ack in `payload`; raises `RefusedError`."""
        *asked, epoch, tag = open_message(payload, Kind.ACK, 7)
        return cls(*Asked.from_fields(*asked), uint(epoch, "epoch", minimum=1), *_tag(tag, payload))

    def verify(self, leaf_key: bytes, group: str, member: str) -> None:
        """Check that the sender holds the leaf key; raises `RefusedError`."""
        check_mac(request_key(leaf_key), labelled(self.LABEL, group, member) + self.maced_part, self.mac, "mac")


def _seal(leaf_key: bytes, context: bytes, fields: tuple[object, ...]) -> bytes:
    """Return the request of `fields` with its MAC."""
    body = encode_proved(fields)
    return body + pack(mac(request_key(leaf_key), context + body))


def _tag(tag: object, payload: bytes) -> tuple[bytes, bytes]:
    """Return the MAC of a request and what it is over."""
    return binary(tag, "mac", MAC_SIZE), payload[:-_MAC_TAIL]
