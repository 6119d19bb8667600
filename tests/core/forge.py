"""The server's and members' messages built anew from the specification, with plain msgpack and `cryptography`."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

import msgpack
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

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


def replaced(fields: list[object], place: int, value: object) -> list[object]:
    """Return `fields` with another value at `place`."""
    return [*fields[:place], value, *fields[place + 1 :]]
