"""Application messages under the group's key: how one is sealed and opened. Format: `schemas/data.cddl`.

The traffic key (TEK) of a root key is never used itself: each sender derives its own key from it, its member id and a
salt drawn at each start, so that counters of different senders and of restarts never share a nonce. The algorithm is
the policy's; no header names it, but the sender's key depends on it. The associated data is the topic and the header,
in the very bytes that are sent. A header is not to be trusted before the tag is checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography.exceptions import InvalidTag

from brokerkm.core.crypto import SIGNATURE_SIZE, Aead, Algorithm, derive, labelled
from brokerkm.core.messages import MAX_STEP, Kind
from brokerkm.core.welcome import Certificate
from brokerkm.core.wire import VERSION, binary, binary_size, identifier, pack, uint, unpack_array
from brokerkm.errors import Reason, RefusedError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from brokerkm.core.welcome import NodeKey

LABEL: Final = "brokerkm v1 data"
SALT_SIZE: Final = 8  # bytes
TAG_SIZE: Final = 16  # bytes; of either algorithm
MAX_DATA: Final = 256 * 1024 * 1024  # bytes; MQTT's largest packet. The broker's own limit is lower

_PLAIN, _SIGNED = 8, 10  # elements of the message without and with the sender's signature
MAX_TOPICS: Final = 1024  # encoded contexts kept by one side


def traffic_key(group: str, root: NodeKey) -> bytes:
    """Return the TEK of a root key."""
    return derive(root.key, "brokerkm v1 tek", group, root.birth, root.step)


def sender_key(tek: bytes, sender: str, salt: bytes, algorithm: Algorithm) -> Aead:
    """Return the cipher of one sender between two of its starts."""
    return algorithm.cipher(derive(tek, "brokerkm v1 sender", sender, salt, algorithm))


class Header(NamedTuple):
    """What a Data message says of itself, in front of its ciphertext."""

    birth: int
    step: int
    sender: str
    salt: bytes
    counter: int


@dataclass(frozen=True, slots=True)
class Data:
    """A decoded Data message: nothing of it is authentic yet."""

    header: Header
    ciphertext: bytes
    certificate: Certificate | None
    signature: bytes | None
    encoded_header: bytes
    signed_part: bytes

    @classmethod
    def decode(cls, payload: bytes, limit: int = MAX_DATA) -> Data:
        """Return the message in `payload`; raises `RefusedError`."""
        fields = unpack_array(payload, limit, few=True)
        if not fields or type(fields[0]) is not int or fields[0] != VERSION:
            raise RefusedError(Reason.WRONG_VERSION, "version")
        if len(fields) < 2 or type(fields[1]) is not int or fields[1] != Kind.DATA:  # noqa: PLR2004 - version and type
            raise RefusedError(Reason.WRONG_MESSAGE, "type")
        if len(fields) not in (_PLAIN, _SIGNED):
            raise RefusedError(Reason.WRONG_LENGTH, "message")
        _, _, birth, step, sender, salt, counter, ciphertext, *source = fields
        header = Header(
            uint(birth, "birth", minimum=1),
            uint(step, "step", MAX_STEP),
            identifier(sender, "sender"),
            binary(salt, "salt", SALT_SIZE),
            uint(counter, "counter"),
        )
        ciphertext = binary(ciphertext, "ciphertext", maximum=limit)
        if len(ciphertext) < TAG_SIZE:
            raise RefusedError(Reason.WRONG_LENGTH, "ciphertext")
        certificate = signature = None
        encoded = encode_header(header, signed=bool(source))
        size = len(encoded) + binary_size(len(ciphertext))
        if source:
            certificate = Certificate.from_fields(source[0])
            signature = binary(source[1], "signature", SIGNATURE_SIZE)
            tail = pack(certificate.fields)
            if payload[size:] != tail + pack(signature):
                raise RefusedError(Reason.NOT_CANONICAL, "message")
            size += len(tail)
        elif size != len(payload):
            raise RefusedError(Reason.NOT_CANONICAL, "message")
        if not payload.startswith(encoded):
            raise RefusedError(Reason.NOT_CANONICAL, "message")
        return cls(header, ciphertext, certificate, signature, encoded, payload[:size])

    def open(self, key: Aead, context: bytes) -> bytes:
        """Return the plaintext; raises `RefusedError` (bad-seal)."""
        try:
            return key.decrypt(self.header.counter.to_bytes(12, "big"), self.ciphertext, context + self.encoded_header)
        except InvalidTag:
            raise RefusedError(Reason.BAD_SEAL, "ciphertext") from None


def encode_header(header: Header, *, signed: bool) -> bytes:
    """Return the message's bytes in front of its ciphertext."""
    length = _SIGNED if signed else _PLAIN
    return bytes((0x90 | length,)) + pack((VERSION, Kind.DATA, *header))[1:]  # fixarray


def data_context(group: str, topic: str) -> bytes:
    """Return what binds a message to its group and topic."""
    return labelled(LABEL, group, topic)


def check_data_topic(topic: str, reserved: str) -> None:
    """Raise `UsageError` unless an application may publish on `topic`, which is not one of the protocol's own."""
    if topic.startswith(reserved):
        message = f"{topic[:80]!r} belongs to the key server: applications publish outside {reserved}"
        raise UsageError(message)
    if not topic or len(topic.encode()) > 65535 or any(character in topic for character in "+#\0"):  # noqa: PLR2004 - MQTT 4.7
        message = f"{topic[:80]!r} is not a topic to publish on: 1 to 65535 bytes without + # and NUL"
        raise UsageError(message)


class Sealer:
    """One member's outgoing messages between two of its starts; the counter goes on across rekeys.

    Args:
        group: group id.
        sender: the member's id.
        salt: 8 bytes drawn at this start.
        reserved: what the protocol's own topics begin with.
    """

    __slots__ = (
        "_contexts",
        "_counter",
        "_group",
        "_head",
        "_key",
        "_reserved",
        "_salt",
        "_sender",
        "certificate",
        "identity",
    )

    def __init__(self, group: str, sender: str, salt: bytes, reserved: str) -> None:
        self._reserved: Final = reserved
        self._group: Final = group
        self._sender: Final = sender
        self._salt: Final = salt
        self._counter = 0
        self._contexts: dict[str, bytes] = {}
        self._key: Aead | None = None
        self._head = b""
        self.identity: Ed25519PrivateKey | None = None
        self.certificate: Certificate | None = None

    def use(self, tek: bytes, birth: int, step: int, algorithm: Algorithm = Algorithm.AES_256_GCM) -> None:
        """Seal under `tek` from now on, signed if there is a certificate."""
        self._key = sender_key(tek, self._sender, self._salt, algorithm)
        header = Header(birth, step, self._sender, self._salt, 0)
        self._head = encode_header(header, signed=self.certificate is not None)[:-1]  # all but the counter

    def seal(self, topic: str, plaintext: bytes) -> bytes:
        """Return the Data message for `topic`; `use` must have been called."""
        context = self._contexts.get(topic)
        if context is None:
            check_data_topic(topic, self._reserved)
            if len(self._contexts) >= MAX_TOPICS:
                self._contexts.clear()
            context = self._contexts[topic] = data_context(self._group, topic)
        counter = self._counter
        self._counter = counter + 1  # before it is used: an error must not repeat a nonce
        header = self._head + pack(counter)
        if self._key is None:  # pragma: no cover - a member seals only when it is active
            raise UsageError
        message = header + pack(self._key.encrypt(counter.to_bytes(12, "big"), plaintext, context + header))
        if self.certificate is None or self.identity is None:
            return message
        message += pack(self.certificate.fields)
        return message + pack(self.identity.sign(context + message))
