"""What is sealed in the store, and under which key: AES-256-GCM (NIST SP 800-38D) with a nonce drawn at random.

The data key is random, 32 bytes, and kept in the store wrapped under the store key, which is not in the store: changing
the store key replaces 60 bytes. Nothing is sealed under the data key itself. Each `Box` has a key of its own, derived
by HKDF-Expand with HMAC-SHA256 (RFC 5869) from its scope, so that what was sealed in one scope opens in no
other, and random nonces stay far below the bound of 2^32 for one key. Within a box the associated data says what is
sealed and where it belongs.
"""

from __future__ import annotations

import hmac
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from brokerkm.core.wire import pack
from brokerkm.errors import StoreError

KEY_SIZE: Final = 32  # bytes; of store key and data key
OVERHEAD: Final = 12 + 16  # bytes; nonce and tag
_NONCE_SIZE: Final = 12
_CONTEXT: Final = "brokerkm store v2"


class Box:
    """Seals and opens what belongs to one scope."""

    def __init__(self, key: bytes) -> None:
        self._cipher: Final = AESGCM(key)

    def seal(self, plain: bytes, *where: object) -> bytes:
        """Return nonce, ciphertext and tag."""
        nonce = os.urandom(_NONCE_SIZE)
        return nonce + self._cipher.encrypt(nonce, plain, pack(where))

    def open(self, sealed: bytes, *where: object) -> bytes | None:
        """Return what was sealed in this scope with the same `where`; None if this is not it."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:], pack(where))
        except (InvalidTag, ValueError):  # ValueError: shorter than a nonce
            return None


class WrongKeyError(StoreError):
    """The store key is not the one under which the data key is wrapped."""


class Vault:
    """Holds the data key."""

    def __init__(self, data_key: bytes) -> None:
        self._data_key: Final = data_key

    @classmethod
    def create(cls) -> Vault:
        """Return a vault with a new data key."""
        return cls(os.urandom(KEY_SIZE))

    @classmethod
    def unwrap(cls, wrapped: bytes, store_key: bytes) -> Vault:
        """Return the vault whose data key is `wrapped`; raises `StoreError` if the store key is not the right one."""
        data_key = Box(_derive(store_key, "store key")).open(wrapped)
        if data_key is None:
            message = (
                "this is not the store key that the store is sealed under: name the right one as store.key in the "
                "configuration ($BROKERKM_CONFIG), or by $BROKERKM_STORE_KEY; after `store rewrap` that is the new "
                "one, except for backups that were made before, whose key --key names"
            )
            raise WrongKeyError(message)
        return cls(data_key)

    def wrap(self, store_key: bytes) -> bytes:
        """Return the data key, sealed under the store key."""
        return Box(_derive(store_key, "store key")).seal(self._data_key)

    def box(self, *scope: object) -> Box:
        """Return what seals and opens in a scope."""
        return Box(_derive(self._data_key, *scope))


def _derive(key: bytes, *scope: object) -> bytes:
    if len(key) != KEY_SIZE:
        message = f"a store key has {KEY_SIZE} bytes, not {len(key)}"
        raise StoreError(message)
    return hmac.digest(key, pack((_CONTEXT, *scope)) + b"\1", "sha256")
