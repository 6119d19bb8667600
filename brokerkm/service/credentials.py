"""Bearer tokens of the HTTP API, and the roles that they and others who ask have.

A token is ``bka1_`` and a name, a dot, and 43 characters of base64url: 256 random bits. The store keeps their SHA-256
alone, which is enough for a secret of that length: nobody guesses it, so nothing has to slow a guess down.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from brokerkm.errors import StoreError, UnknownNameError, UsageError
from brokerkm.store.records import Document

if TYPE_CHECKING:
    from brokerkm.core.crypto import Random
    from brokerkm.store.protocol import Store

KIND: Final = "credential"
NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
MAX_LIFETIME: Final = 10 * 365 * 24 * 3600.0  # s
DEFAULT_LIFETIME: Final = 90 * 24 * 3600.0  # s
_PREFIX: Final = "bka1_"
_TOKEN: Final = re.compile(r"bka1_([A-Za-z0-9_-]{1,64})\.([A-Za-z0-9_-]{43})", re.ASCII)
_SECRET_SIZE: Final = 32  # bytes


class Role(enum.StrEnum):
    """What somebody may do: look; change members, tokens and keys; everything."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, other: Role) -> bool:
        """Return whether this role may do what `other` may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class Credential:
    """One bearer token as it is stored; times in milliseconds since 1970.

    Args:
        digest: SHA-256 of the secret.
    """

    name: str
    role: Role
    digest: bytes
    created: int
    expires: int

    def to_document(self) -> Document:
        """Return what the store keeps."""
        body = {"role": self.role, "digest": self.digest.hex(), "created": self.created, "expires": self.expires}
        return Document(KIND, self.name, json.dumps(body).encode(), self.created)

    @classmethod
    def from_document(cls, document: Document) -> Self:
        """Return the credential in a document; raises `StoreError`."""
        try:
            body = json.loads(document.body)
            digest = bytes.fromhex(body["digest"])
            return cls(document.name, Role(body["role"]), digest, int(body["created"]), int(body["expires"]))
        except (ValueError, KeyError, TypeError) as error:
            message = f"credential {document.name} in the store cannot be read: revoke it and make another"
            raise StoreError(message) from error


def issue(name: str, role: Role, lifetime: float, now: int, random: Random) -> tuple[Credential, str]:
    """Return a new credential and its token, which nothing keeps; raises `UsageError`."""
    if not NAME.fullmatch(name):
        message = f"credential {name[:80]!r}: a name is 1 to 64 characters of A-Z a-z 0-9 _ -"
        raise UsageError(message)
    if not 0 < lifetime <= MAX_LIFETIME:
        message = f"a credential lasts up to {MAX_LIFETIME:.0f} s"
        raise UsageError(message)
    secret = random(_SECRET_SIZE)
    token = f"{_PREFIX}{name}.{base64.urlsafe_b64encode(secret).rstrip(b'=').decode()}"
    return Credential(name, role, hashlib.sha256(secret).digest(), now, now + int(lifetime * 1000)), token


def find(store: Store, token: str, now: int) -> Credential | None:
    """Return the credential of which `token` is; None if there is none, or it has expired."""
    found = _TOKEN.fullmatch(token)
    if found is None:
        return None
    document = store.document("", KIND, found[1])
    if document is None:
        return None
    credential = Credential.from_document(document)
    secret = base64.urlsafe_b64decode(found[2] + "=")
    if not hmac.compare_digest(hashlib.sha256(secret).digest(), credential.digest) or credential.expires <= now:
        return None
    return credential


def check_stored(store: Store, name: str) -> None:
    """Raise `UnknownNameError` if there is no credential of that name, readable or not."""
    if store.document("", KIND, name) is None:
        message = f"there is no credential {name[:80]!r}"
        raise UnknownNameError(message)
