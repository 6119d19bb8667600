"""What the vectors are made of: fixed keys and randomness, and the shape of a vector."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from brokerkm.core.crypto import load_signing_key
from brokerkm.errors import Reason, RefusedError

Json: TypeAlias = "bool | int | str | list[Json] | dict[str, Json] | None"
Fields: TypeAlias = dict[str, Json]

GROUP = "fleet-01"
MEMBER = "sensor-7"
TOPIC = "plant/temperature"
NOW = 1_800_000_000  # seconds since 1970
NOW_MS = NOW * 1000


@dataclass(frozen=True)
class Vector:
    """One scenario: what goes in and what must come out."""

    name: str
    description: str
    kind: str
    input: Fields
    expect: Fields

    @property
    def fields(self) -> Fields:
        """What its file holds."""
        return {
            "name": self.name,
            "description": self.description,
            "kind": self.kind,
            "input": self.input,
            "expect": self.expect,
        }


def draw(label: str, size: int) -> bytes:
    """Return the first `size` bytes that belong to `label`: SHAKE256 of it."""
    return hashlib.shake_256(label.encode()).digest(size)


class Stream:
    """Bytes that never end and are the same every time, to be used as a source of randomness."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._at = 0

    def __call__(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        self._at += size
        return draw(self._label, self._at)[self._at - size :]


SERVER_SEED = draw("server", 32)
SERVER_KEY = load_signing_key(SERVER_SEED)
SERVER_PUBLIC = SERVER_KEY.public_key().public_bytes_raw()
IDENTITY_SEED = draw("identity", 32)
IDENTITY = load_signing_key(IDENTITY_SEED)
IDENTITY_PUBLIC = IDENTITY.public_key().public_bytes_raw()


class Papers:
    """A device certificate of an Ed25519 key, and one who believes a single authority."""

    def __init__(self, chain: tuple[bytes, ...], seed: bytes) -> None:
        self.chain = chain
        self._key = load_signing_key(seed)

    @classmethod
    def from_vector(cls, given: dict[str, Any]) -> Self | None:
        """Return what a vector gives, if it gives any."""
        it = given.get("certificate")
        return it and cls(tuple(map(bytes.fromhex, it["chain"])), bytes.fromhex(it["key_seed"]))

    def sign(self, data: bytes) -> bytes:
        """Return the signature by the device's key."""
        return self._key.sign(data)

    def check(self, member: str, chain: tuple[bytes, ...], signed: bytes, signature: bytes, _now: int) -> None:
        """Take the chain that the vector gives, and no other, for `member`."""
        certificate = x509.load_der_x509_certificate(chain[0])
        if chain != self.chain or f"CN={member}" != certificate.subject.rfc4514_string():
            raise RefusedError(Reason.BAD_CERTIFICATE, "credential")
        key = certificate.public_key()
        assert isinstance(key, Ed25519PublicKey)
        try:
            key.verify(signature, signed)
        except InvalidSignature:
            raise RefusedError(Reason.BAD_SIGNATURE, "proof") from None


def issue(member: str, device_seed: bytes) -> tuple[bytes, bytes]:
    """Return the certificate of `member` and that of its authority, in DER; Ed25519 makes them the same every time."""
    authority, device = load_signing_key(draw("authority", 32)), load_signing_key(device_seed)
    issuer = x509.Name.from_rfc4514_string("CN=Device authority")
    start, end = (dt.datetime(year, 1, 1, tzinfo=dt.UTC) for year in (2026, 2046))
    certificates: list[bytes] = []
    for serial, (name, key) in enumerate(
        [(x509.Name.from_rfc4514_string(f"CN={member}"), device), (issuer, authority)]
    ):
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
        builder = builder.serial_number(serial + 1).not_valid_before(start).not_valid_after(end)
        builder = builder.add_extension(x509.BasicConstraints(ca=key is authority, path_length=None), critical=True)
        certificates.append(builder.sign(authority, None).public_bytes(Encoding.DER))
    return certificates[0], certificates[1]


def error(reason: str, field: str) -> Fields:
    """Return what a refusal for `reason` at `field` is in a vector."""
    return {"error": {"reason": reason, "field": field}}


def hexed(value: object) -> Json:
    """Return `value` as JSON has it: bytes as hex, tuples as arrays, enumerations by value."""
    match value:
        case bytes():
            return value.hex()
        case list() | tuple():
            return [hexed(item) for item in value]
        case dict():
            return {str(key): hexed(item) for key, item in value.items()}
        case bool() | None:
            return value
        case str():
            return str(value)
        case int():
            return int(value)
        case _:
            message = f"{value!r} has no place in a vector"
            raise TypeError(message)
