"""A second implementation, written from `schemas/README.md` alone: plain msgpack, hashlib and bare primitives.

It shares no line with the first, so that a mistake in an encoding, a label or a derivation shows as a difference.
It trusts its input: refusing is what the first one is tested for.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import msgpack
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305


def expand(key: bytes, info: bytes, size: int = 32) -> bytes:
    """HKDF-Expand of RFC 5869 with SHA-256."""
    output, block = b"", b""
    while len(output) < size:
        block = hmac.digest(key, block + info + bytes((len(output) // 32 + 1,)), "sha256")
        output += block
    return output[:size]


def labelled(label: str, *context: object) -> bytes:
    """Label, zero byte, array."""
    return label.encode() + b"\0" + msgpack.packb(context)


def ratchet(key: bytes, steps: int = 1) -> bytes:
    """Move a node key on."""
    for _ in range(steps):
        key = expand(key, b"brokerkm v1 ratchet")
    return key


def _aes(key: bytes) -> Cipher[modes.ECB]:
    return Cipher(algorithms.AES256(key), modes.ECB())  # noqa: S305 - the building block of RFC 3394


def wrap(kek: bytes, key: bytes) -> bytes:
    """Wrap by RFC 3394, section 2.2.1."""
    a, r, encrypt = b"\xa6" * 8, [key[at : at + 8] for at in range(0, len(key), 8)], _aes(kek).encryptor()
    for t in range(6 * len(r)):
        block = encrypt.update(a + r[t % len(r)])
        a, r[t % len(r)] = (int.from_bytes(block[:8], "big") ^ (t + 1)).to_bytes(8, "big"), block[8:]
    return a + b"".join(r)


def unwrap(kek: bytes, wrapped: bytes) -> bytes:
    """Unwrap by RFC 3394, section 2.2.2."""
    a, *r = [wrapped[at : at + 8] for at in range(0, len(wrapped), 8)]
    decrypt = _aes(kek).decryptor()
    for t in reversed(range(6 * len(r))):
        a = (int.from_bytes(a, "big") ^ (t + 1)).to_bytes(8, "big")
        block = decrypt.update(a + r[t % len(r)])
        a, r[t % len(r)] = block[:8], block[8:]
    assert a == b"\xa6" * 8
    return b"".join(r)


def leaf_hash(signed: bytes) -> bytes:
    """Hash the leaf of a block."""
    return hashlib.sha256(b"\0" + signed).digest()[:16]


def node_hash(one: bytes, other: bytes) -> bytes:
    """Hash two siblings, in either order."""
    return hashlib.sha256(b"\1" + min(one, other) + max(one, other)).digest()[:16]


def block_root(layer: list[bytes]) -> bytes:
    """Return the root of a block; an odd node moves up."""
    while len(layer) > 1:
        odd = layer[len(layer) // 2 * 2 :]
        layer = [node_hash(one, other) for one, other in zip(layer[::2], layer[1::2], strict=False)] + odd
    return layer[0]


def split(payload: bytes, unsigned: int) -> tuple[list[Any], bytes]:
    """Return the elements of a message, and its bytes in front of the last `unsigned` of them."""
    elements = msgpack.unpackb(payload)
    tail = b"".join(map(msgpack.packb, elements[len(elements) - unsigned :]))
    assert payload.endswith(tail)
    return elements, payload[: len(payload) - len(tail)]


def check_signed(server_key: bytes, payload: bytes, label: str, *context: object, proved: bool = False) -> list[Any]:
    """Return the elements of a message that the server has signed, alone or in a block."""
    elements, body = split(payload, 2 if proved else 1)
    signed = labelled(label, *context) + body
    if proved and elements[-2] is not None:
        at = leaf_hash(signed)
        for start in range(0, len(elements[-2]), 16):
            at = node_hash(at, elements[-2][start : start + 16])
        signed = b"brokerkm v1 block\0" + at
    Ed25519PublicKey.from_public_bytes(server_key).verify(elements[-1], signed)
    return elements


def apply_rekey(elements: list[Any], slot: int, key: bytes) -> list[bytes]:
    """Return the keys of a Rekey, from the parent of the topic's node up, to the holder of `key` and `slot`."""
    _, _, _, _, entries, chain, *_ = elements
    (wrapped,) = [wrapped for at, _, _, wrapped in entries if at in {None, slot}]
    keys = [unwrap(key, wrapped)]
    for start in range(0, len(chain), 40):
        keys.append(unwrap(keys[-1], chain[start : start + 40]))
    return keys


def open_data(payload: bytes, group: str, topic: str, root: tuple[int, int, bytes], algorithm: int = 1) -> bytes:
    """Return the plaintext of a Data message; a sender's signature is checked if there is one."""
    birth, step, key = root
    elements = msgpack.unpackb(payload)
    _, _, at, steps, sender, salt, counter, ciphertext, *source = elements
    assert (at, steps) == (birth, step)
    context = labelled("brokerkm v1 data", group, topic)
    if source:
        _, body = split(payload, 1)
        Ed25519PublicKey.from_public_bytes(source[0][0]).verify(source[1], context + body)
    _, header = split(payload, 3 if source else 1)
    tek = expand(key, labelled("brokerkm v1 tek", group, birth, step))
    sender_key = expand(tek, labelled("brokerkm v1 sender", sender, salt, algorithm))
    cipher = AESGCM(sender_key) if algorithm == 1 else ChaCha20Poly1305(sender_key)
    return cipher.decrypt(counter.to_bytes(12, "big"), ciphertext, context + header)


def hpke_open(suite: int, seed: bytes, sealed: bytes, info: bytes) -> bytes:
    """RFC 9180, base mode, HKDF-SHA256 and AES-256-GCM, one message."""
    kem_id = b"\0\x20" if suite == 1 else b"\x64\x7a"
    size = 32 if suite == 1 else 1120
    shared = (_dhkem if suite == 1 else _hybrid)(seed, sealed[:size])
    suite_id = b"HPKE" + kem_id + b"\0\1\0\2"
    psk_hash = _extract(b"", suite_id, b"psk_id_hash", b"")
    context = b"\0" + psk_hash + _extract(b"", suite_id, b"info_hash", info)
    secret = _extract(shared, suite_id, b"secret", b"")
    key = _expand(secret, suite_id, b"key", context, 32)
    nonce = _expand(secret, suite_id, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, sealed[size:], b"")


def _extract(salt: bytes, suite_id: bytes, label: bytes, data: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite_id + label + data, "sha256")


def _expand(key: bytes, suite_id: bytes, label: bytes, info: bytes, size: int) -> bytes:
    return expand(key, size.to_bytes(2, "big") + b"HPKE-v1" + suite_id + label + info, size)


def _dhkem(seed: bytes, encapsulated: bytes) -> bytes:
    private = X25519PrivateKey.from_private_bytes(seed)
    shared = private.exchange(X25519PublicKey.from_public_bytes(encapsulated))
    context = encapsulated + private.public_key().public_bytes_raw()
    secret = _extract(b"", b"KEM\0\x20", b"eae_prk", shared)
    return _expand(secret, b"KEM\0\x20", b"shared_secret", context, 32)


def _hybrid(seed: bytes, encapsulated: bytes) -> bytes:
    one = MLKEM768PrivateKey.from_seed_bytes(seed[:64]).decapsulate(encapsulated[:1088])
    private = X25519PrivateKey.from_private_bytes(seed[64:])
    other = private.exchange(X25519PublicKey.from_public_bytes(encapsulated[1088:]))
    public = private.public_key().public_bytes_raw()
    return hashlib.sha3_256(one + other + encapsulated[1088:] + public + rb"\.//^\\"[:6]).digest()
