"""Mosquitto's password hashes: PBKDF2 with SHA-512, as `mosquitto_passwd` of version 2 writes them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Final, NamedTuple

ITERATIONS: Final = 101  # what Mosquitto itself takes: these passwords are too long to be guessed anyway
_SALT_SIZE: Final = 12  # bytes
_SCHEME: Final = "7"
_PARTS: Final = 5  # of USER:$7$ITERATIONS$SALT$HASH, between the dollars


class Hashed(NamedTuple):
    """A password as a broker keeps it, in base64."""

    salt: str
    password: str


def hashed(password: str, salt: bytes = b"") -> Hashed:
    """Return the hash of a password, under a new salt if none is given."""
    salt = salt or secrets.token_bytes(_SALT_SIZE)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)
    return Hashed(base64.b64encode(salt).decode(), base64.b64encode(digest).decode())


def line(username: str, password: str) -> str:
    """Return a line of a password file."""
    made = hashed(password)
    return f"{username}:${_SCHEME}${ITERATIONS}${made.salt}${made.password}\n"


def holds(text: str, username: str, password: str) -> bool | None:
    """Return whether a password file has this password for a user; None if it has no such user."""
    for entry in text.splitlines():
        parts = entry.split("$")
        if parts[0] != f"{username}:":
            continue
        if len(parts) != _PARTS or parts[1:3] != [_SCHEME, str(ITERATIONS)]:
            return False
        made = hashed(password, base64.b64decode(parts[3]))
        return hmac.compare_digest(made.password, parts[4])
    return None
