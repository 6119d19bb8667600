"""The cryptography that the protocol uses, by its names there; every primitive is `cryptography`'s.

Nothing here is a primitive of our own: this module fixes parameters, labels and encodings (the specification's
section "Suites") and turns the library's exceptions into `RefusedError`. HPKE draws its ephemeral key inside the
library; all other randomness is an argument.
"""

import enum
import functools
from collections.abc import Callable
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import constant_time, hashes, hmac, hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from brokerkm.core.wire import pack
from brokerkm.errors import Reason, RefusedError

Random: TypeAlias = Callable[[int], bytes]
"""A source of cryptographic randomness: `random(n)` returns n bytes, as `os.urandom` does."""

Aead: TypeAlias = AESGCM | ChaCha20Poly1305
"""A cipher with its key; nonces of 12 bytes, tags of 16."""

KEY_SIZE: Final = 32  # bytes; AES-256 and ChaCha20
WRAPPED_KEY_SIZE: Final = 40  # bytes; a 32-byte key and one block, RFC 3394
SIGNATURE_SIZE: Final = 64  # bytes; Ed25519, RFC 8032
PUBLIC_KEY_SIZE: Final = 32  # bytes; Ed25519
MAC_SIZE: Final = 32  # bytes; HMAC-SHA256
HASH_SIZE: Final = 16  # bytes; a labelled SHA-256 cut to what second-preimage resistance needs

_SHA256: Final = hashes.SHA256()
_RATCHET: Final = b"brokerkm v1 ratchet"
_MLKEM_PUBLIC_SIZE: Final = 1184  # bytes; FIPS 203, ML-KEM-768
_MLKEM_SEED_SIZE: Final = 64  # bytes; FIPS 203, d and z
_P: Final = 2**255 - 19  # of Curve25519
_LOW_ORDER: Final = frozenset(
    {
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,  # of order 8
        39382357235489614581723060781553021112529911719440698176882885853963445705823,  # of order 8
        _P - 1,
        _P,  # 0 and 1 again, as they are not to be written
        _P + 1,
    }
)
"""All X25519 public keys with which every secret comes out as zero (RFC 7748, section 6.1), the unused bit cleared."""

wrap_key: Final = aes_key_wrap
"""`wrap_key(kek, key)`: RFC 3394 key wrap; deterministic, so a restored server repeats no nonce."""


def unwrap_key(kek: bytes, wrapped: bytes, field: str) -> bytes:
    """Return the key in `wrapped`; raises `RefusedError` (bad-seal) if `kek` does not open it."""
    try:
        return aes_key_unwrap(kek, wrapped)
    except (InvalidUnwrap, ValueError):
        raise RefusedError(Reason.BAD_SEAL, field) from None


def ratchet(key: bytes, steps: int = 1) -> bytes:
    """Move `key` on by `steps` of the one-way function."""
    for _ in range(steps):
        key = HKDFExpand(_SHA256, KEY_SIZE, _RATCHET).derive(key)
    return key


def derive(key: bytes, label: str, *context: object) -> bytes:
    """Return HKDF-Expand-SHA256 of `key` for `label` and the msgpack array of `context` (RFC 5869)."""
    return HKDFExpand(_SHA256, KEY_SIZE, labelled(label, *context)).derive(key)


def labelled(label: str, *context: object) -> bytes:
    """Return what is signed or derived under `label`: the label, a zero byte, the array of `context`."""
    return b"%s\x00%s" % (label.encode("ascii"), pack(context))


def labelled_hash(label: bytes) -> Callable[[bytes], bytes]:
    """Return a function that hashes `label` and its argument by SHA-256, cut to 16 bytes."""
    start = hashes.Hash(_SHA256)
    start.update(label)

    def digest(data: bytes) -> bytes:
        state = start.copy()
        state.update(data)
        return state.finalize()[:HASH_SIZE]

    return digest


def mac(key: bytes, data: bytes) -> bytes:
    """Return HMAC-SHA256."""
    state = hmac.HMAC(key, _SHA256)
    state.update(data)
    return state.finalize()


def check_mac(key: bytes, data: bytes, tag: bytes, field: str) -> None:
    """Compare in constant time; raises `RefusedError` (bad-mac)."""
    if not constant_time.bytes_eq(mac(key, data), tag):
        raise RefusedError(Reason.BAD_MAC, field)


def check_signature(key: Ed25519PublicKey, signature: bytes, data: bytes, field: str = "signature") -> None:
    """Verify Ed25519; raises `RefusedError` (bad-signature)."""
    try:
        key.verify(signature, data)
    except InvalidSignature:
        raise RefusedError(Reason.BAD_SIGNATURE, field) from None


def load_verify_key(data: bytes, field: str) -> Ed25519PublicKey:
    """Return the Ed25519 public key in 32 bytes; raises `RefusedError`."""
    try:
        return Ed25519PublicKey.from_public_bytes(data)
    except ValueError:
        raise RefusedError(Reason.WRONG_LENGTH, field) from None


def load_signing_key(seed: bytes) -> Ed25519PrivateKey:
    """Return the Ed25519 private key of a 32-byte seed."""
    return Ed25519PrivateKey.from_private_bytes(seed)


class Algorithm(enum.IntEnum):
    """How Data is sealed; both have keys of 32 bytes, nonces of 12 and tags of 16."""

    AES_256_GCM = 1
    CHACHA20_POLY1305 = 2  # RFC 8439; faster where the processor has no AES

    @property
    def other(self) -> "Algorithm":
        """The one that a group may have left for this one."""
        return Algorithm.CHACHA20_POLY1305 if self is Algorithm.AES_256_GCM else Algorithm.AES_256_GCM

    def cipher(self, key: bytes) -> Aead:
        """Return the cipher with `key`."""
        return AESGCM(key) if self is Algorithm.AES_256_GCM else ChaCha20Poly1305(key)


class Suite(enum.IntEnum):
    """How Welcomes are sealed: HPKE (RFC 9180) in base mode with HKDF-SHA256 and AES-256-GCM."""

    X25519 = 1
    MLKEM768_X25519 = 2

    @property
    def seed_size(self) -> int:
        """Bytes of randomness that make a private key."""
        return KEY_SIZE if self is Suite.X25519 else _MLKEM_SEED_SIZE + KEY_SIZE

    @property
    def public_size(self) -> int:
        """Bytes of a public key."""
        return KEY_SIZE if self is Suite.X25519 else _MLKEM_PUBLIC_SIZE + KEY_SIZE

    def public_key(self, seed: bytes) -> bytes:
        """Return the public key that belongs to the private key made from `seed`."""
        if self is Suite.X25519:
            return X25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        mlkem = MLKEM768PrivateKey.from_seed_bytes(seed[:_MLKEM_SEED_SIZE])
        x25519 = X25519PrivateKey.from_private_bytes(seed[_MLKEM_SEED_SIZE:])
        return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()

    def seal(self, public: bytes, plaintext: bytes, info: bytes) -> bytes:
        """Return the HPKE encapsulated key and ciphertext for the holder of `public`.

        Raises:
            RefusedError: `public` is not a usable public key of this suite.
        """
        try:
            return _hpke(self).encrypt(plaintext, self._load_public(public), info=info)
        except ValueError:  # a low-order point, or an ML-KEM key out of range
            raise RefusedError(Reason.OUT_OF_RANGE, "kem_public") from None

    def open(self, seed: bytes, sealed: bytes, info: bytes) -> bytes:
        """Return what was sealed; raises `RefusedError` (bad-seal)."""
        try:
            return _hpke(self).decrypt(sealed, self._load_private(seed), info=info)
        except (InvalidTag, ValueError):
            raise RefusedError(Reason.BAD_SEAL, "sealed") from None

    def check_public(self, public: bytes) -> None:
        """Raise `RefusedError` unless Welcomes can be sealed to `public`; costs a small part of one sealing."""
        if len(public) != self.public_size:
            raise RefusedError(Reason.WRONG_LENGTH, "kem_public")
        if int.from_bytes(public[-KEY_SIZE:], "little") % 2**255 in _LOW_ORDER:  # it loads, but cannot be used
            raise RefusedError(Reason.OUT_OF_RANGE, "kem_public")
        try:
            self._load_public(public)
        except ValueError:  # an ML-KEM key out of range
            raise RefusedError(Reason.OUT_OF_RANGE, "kem_public") from None

    def _load_public(self, public: bytes) -> X25519PublicKey | hpke.MLKEM768X25519PublicKey:
        if self is Suite.X25519:
            return X25519PublicKey.from_public_bytes(public)
        mlkem = MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC_SIZE])
        return hpke.MLKEM768X25519PublicKey(mlkem, X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC_SIZE:]))

    def _load_private(self, seed: bytes) -> X25519PrivateKey | hpke.MLKEM768X25519PrivateKey:
        x25519 = X25519PrivateKey.from_private_bytes(seed[-KEY_SIZE:])
        if self is Suite.X25519:
            return x25519
        return hpke.MLKEM768X25519PrivateKey(MLKEM768PrivateKey.from_seed_bytes(seed[:_MLKEM_SEED_SIZE]), x25519)


@functools.cache
def _hpke(suite: Suite) -> hpke.Suite:
    kem = hpke.KEM.X25519 if suite is Suite.X25519 else hpke.KEM.MLKEM768_X25519
    return hpke.Suite(kem, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
