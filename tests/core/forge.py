"""The server's and members' messages built anew from the specification, with plain msgpack and `cryptography`."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

import msgpack
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

SERVER: Final = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
DEVICE: Final = Ed25519PrivateKey.from_private_bytes(b"d" * 32)
SERVER_KEY: Final = SERVER.public_key()
DEVICE_PUBLIC: Final = DEVICE.public_key().public_bytes_raw()


def pack(value: object) -> bytes:
    """Return the msgpack encoding of `value`."""
    encoded: bytes = msgpack.packb(value, use_bin_type=True)
    return encoded


def bound(label: str, *context: object) -> bytes:
    """Return label, zero byte and context: what stands before a message's own bytes when it is proved."""
    return label.encode() + b"\0" + pack(context)


def head(fields: list[object], more: int) -> bytes:
    """Return the encoding of an array that begins with `fields` and has `more` elements after them."""
    return bytes((0x90 + len(fields) + more,)) + b"".join(pack(field) for field in fields)


def signed(label: str, context: tuple[object, ...], fields: list[object], key: Ed25519PrivateKey = SERVER) -> bytes:
    """Return the message of `fields` with a signature at its end."""
    body = head(fields, 1)
    return body + pack(key.sign(bound(label, *context) + body))


def proved(label: str, context: tuple[object, ...], fields: list[object]) -> bytes:
    """Return the message of `fields` with a nil proof and a signature over what stands before it."""
    body = head(fields, 2)
    return body + b"\xc0" + pack(SERVER.sign(bound(label, *context) + body))


def maced(label: str, context: tuple[object, ...], fields: list[object], leaf_key: bytes) -> bytes:
    """Return the request of `fields` with a MAC keyed from a leaf key."""
    key = hmac.new(leaf_key, b"brokerkm v1 request\0\x90\x01", hashlib.sha256).digest()
    body = head(fields, 1)
    return body + pack(hmac.new(key, bound(label, *context) + body, hashlib.sha256).digest())


def expand(key: bytes, info: bytes) -> bytes:
    """Return the first block of HKDF-Expand with SHA-256 (RFC 5869)."""
    return hmac.new(key, info + b"\x01", hashlib.sha256).digest()


def data(
    root: tuple[bytes, int, int],
    topic: str,
    plaintext: bytes,
    *,
    sender: str = "x",
    salt: bytes = b"saltsalt",
    counter: int = 0,
    algorithm: int = 1,
    source: tuple[list[object], Ed25519PrivateKey] | None = None,
) -> bytes:
    """Return a Data message of group "fleet" under a root key (key, birth, step).

    Args:
        root: key, birth and step.
        source: a certificate's fields and the sender's key, for a message with the sender's signature.
    """
    tek = expand(root[0], bound("brokerkm v1 tek", "fleet", *root[1:]))
    key = expand(tek, bound("brokerkm v1 sender", sender, salt, algorithm))
    cipher = {1: AESGCM, 2: ChaCha20Poly1305}[algorithm](key)
    header = head([1, 8, *root[1:], sender, salt, counter], 3 if source else 1)
    context = bound("brokerkm v1 data", "fleet", topic)
    message = header + pack(cipher.encrypt(counter.to_bytes(12, "big"), plaintext, context + header))
    if source:
        message += pack(source[0])
        message += pack(source[1].sign(context + message))
    return message


def replaced(fields: list[object], place: int, value: object) -> list[object]:
    """Return `fields` with another value at `place`."""
    return [*fields[:place], value, *fields[place + 1 :]]
