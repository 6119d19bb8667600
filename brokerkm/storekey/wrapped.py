"""The file in which a store key lies wrapped by a key that does not leave its token.

JSON, so that an operator sees what it is; it is of no use without the token. It lies in the store's directory, named
by the token and the key, so that an old and a new one can be there side by side while `store rewrap` is at work.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from brokerkm.errors import StoreError, UsageError
from brokerkm.storekey.file import read_private, write_private

if TYPE_CHECKING:
    from pathlib import Path

NONCE_SIZE: Final = 12  # bytes; NIST SP 800-38D
SEALED_SIZE: Final = 48  # bytes; the key and a tag of 16
_KIND: Final = "brokerkm store key"
_ALGORITHM: Final = "AES-256-GCM"
_MAX_FILE: Final = 4096  # bytes


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A store key, sealed under the key `label` of `token`."""

    token: str
    label: str
    nonce: bytes
    sealed: bytes

    @staticmethod
    def place(directory: Path, token: str, label: str) -> Path:
        """Return the file in `directory` for the store key that this key of this token wraps."""
        digest = hashlib.sha256(json.dumps([token, label]).encode()).hexdigest()
        return directory / f"store-key-{digest[:16]}.json"

    @staticmethod
    def associated(token: str, label: str) -> bytes:
        """Return what the seal is bound to."""
        return json.dumps([_KIND, token, label]).encode()

    @classmethod
    def read(cls, path: Path) -> WrappedKey:
        """Read the file; raises `StoreError` if it is absent or is none."""
        try:
            fields: Any = json.loads(read_private(path, _MAX_FILE))
            kind, algorithm, token, label = (fields[name] for name in ("kind", "algorithm", "token", "object"))
            nonce, sealed = (bytes.fromhex(fields[name]) for name in ("nonce", "sealed"))
        except (KeyError, TypeError, ValueError, RecursionError):
            nonce, sealed, kind, algorithm, token, label = b"", b"", "", "", "", ""
        sizes = len(nonce), len(sealed)
        if (kind, algorithm, *sizes) != (_KIND, _ALGORITHM, NONCE_SIZE, SEALED_SIZE):
            message = f"wrapped store key {path}: the file is damaged: bring it back from a backup of the directory"
            raise StoreError(message)
        return cls(str(token), str(label), nonce, sealed)

    def write(self, path: Path) -> None:
        """Write the file; raises `UsageError` if there is one."""
        fields = {
            "kind": _KIND,
            "algorithm": _ALGORITHM,
            "token": self.token,
            "object": self.label,
            "nonce": self.nonce.hex(),
            "sealed": self.sealed.hex(),
        }
        try:
            write_private(path, json.dumps(fields, indent=2).encode() + b"\n")
        except FileExistsError as error:
            message = (
                f"wrapped store key {path}: there is one already, and a store may need it: name another "
                "object to have a new store key"
            )
            raise UsageError(message) from error
        except OSError as error:
            message = f"wrapped store key {path}: {error.strerror}: check that its directory exists and is writable"
            raise StoreError(message) from error
