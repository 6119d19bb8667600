"""CURVE keys in files: one key in Z85 (ZeroMQ RFC 32, 40 characters) a file.

A secret key's file must be readable by its owner only. A list of members has one line each:
public key, blank, member id; ``#`` begins a comment. The id ``*`` marks a forwarder, which reads what
is for any member and submits for any. Nothing here ever shows a secret key.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from typing import TYPE_CHECKING, Final

import zmq

from brokerkm.errors import UsageError
from brokerkm_zmq import wire

if TYPE_CHECKING:
    from collections.abc import Mapping

FORWARDER: Final = "*"
_Z85: Final = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_PUBLIC_BITS: Final = 0o077


@dataclasses.dataclass(frozen=True, slots=True)
class KeyPair:
    """A CURVE key pair in Z85."""

    public: str
    secret: str = dataclasses.field(repr=False)


def check_public_key(text: str, source: str) -> str:
    """Return a public key, or raise `UsageError` that names where it came from."""
    if not _Z85.fullmatch(text):
        message = f"{source}: not a CURVE public key (40 characters of Z85; in a URL, percent-encoded)"
        raise UsageError(message)
    return text


def new_key_pair() -> KeyPair:
    """Return a key pair that lives in this process only."""
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


def read_key_pair(path: str) -> KeyPair:
    """Read a secret key from its file; the public key follows from it.

    Raises:
        UsageError: the file cannot be read, others than its owner can read it, or it holds no key.
    """
    try:
        with pathlib.Path(path).open(encoding="ascii") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(100).strip()
    except (OSError, UnicodeDecodeError) as error:
        message = f"secret key file {path}: {getattr(error, 'strerror', None) or 'not text'}"
        raise UsageError(message) from None
    if mode & _PUBLIC_BITS:
        message = (
            f"secret key file {path} can be read by others: chmod 600 {path}, and if it is not new, make a new key"
        )
        raise UsageError(message)
    if not _Z85.fullmatch(text):
        message = f"secret key file {path}: not a CURVE secret key (40 characters of Z85)"
        raise UsageError(message)
    return KeyPair(zmq.curve_public(text.encode()).decode(), text)


def make_key_file(path: str) -> KeyPair:
    """Make a key pair and write its secret key to a new file of mode 0600; returns the pair."""
    pair = new_key_pair()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        message = f"secret key file {path} cannot be made: {error.strerror}"
        raise UsageError(message) from error
    with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123 - a descriptor, not a path
        file.write(pair.secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    return pair


def read_public_key(path: str) -> str:
    """Read a public key from its file."""
    try:
        text = pathlib.Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        message = f"public key file {path}: {getattr(error, 'strerror', None) or 'not text'}"
        raise UsageError(message) from error
    return check_public_key(text, f"public key file {path}")


def read_members(path: str) -> dict[str, str]:
    """Read a list of members: public key to member id."""
    try:
        lines = pathlib.Path(path).read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        message = f"list of members {path}: {getattr(error, 'strerror', None) or 'not text'}"
        raise UsageError(message) from error
    found: dict[str, str] = {}
    for count, line in enumerate(lines, 1):
        words = line.split()
        if not words or (words[0] == "#"):  # a key may begin with #, a comment has a blank after it
            continue
        if len(words) != 2:  # noqa: PLR2004 - key and id
            message = f"list of members {path}, line {count}: want a public key and a member id"
            raise UsageError(message)
        found[words[0]] = words[1]
    return check_members(found, f"list of members {path}")


def check_members(members: Mapping[str, str], source: str = "list of members") -> dict[str, str]:
    """Return a copy of a mapping of public keys to member ids, or raise `UsageError`."""
    for key, member in members.items():
        check_public_key(key, source)
        if member != FORWARDER and not wire.MEMBER_ID.fullmatch(member):
            message = f"{source}: {member!r} is no member id (letters, digits, . _ -, at most 64)"
            raise UsageError(message)
    return dict(members)
