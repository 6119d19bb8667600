"""Secrets by reference: the configuration says where a secret is, never what it is.

``file:PATH``, ``credential:NAME`` (systemd.exec(5), LoadCredential=), ``env:NAME``, ``command:PROGRAM ARGUMENT…`` (no
shell), ``pkcs11:…`` (RFC 7512, for the store key only). No error and no repr shows what was read.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from brokerkm.errors import UsageError
from brokerkm.unit import CREDENTIALS, has_credentials, run_in_unit

SCHEMES: Final = ("file", "credential", "env", "command", "pkcs11")
MAX_SECRET: Final = 65_535  # bytes; a password of MQTT 5, section 3.1.3.6
_PATIENCE: Final = 30.0  # seconds that a command may take
_OTHERS: Final = 0o077
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,255}")


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a secret is.

    Args:
        spec: scheme and place.
    """

    spec: str

    @property
    def scheme(self) -> str:
        """What the place is."""
        return self.spec.partition(":")[0]

    def read(self) -> str:
        """Return the secret, without the end of its line.

        Raises:
            UsageError: it cannot be read, is empty, is not UTF-8, or others may read its file.
        """
        place = self.spec.partition(":")[2]
        match self.scheme:
            case "file":
                data = _read_file(Path(place), self.spec)
            case "credential":
                data = _read_credential(place, self.spec)
            case "env":
                data = os.environb.get(os.fsencode(place), b"")
            case "command":
                data = _run(place)
            case _:
                message = f"{self.scheme}: holds keys, not passwords: take file:, credential:, env: or command:"
                raise UsageError(message)
        return _text(data, self)

    @property
    def elsewhere(self) -> bool:
        """Whether it is a credential, and this process none of those that systemd gives any."""
        return self.scheme == "credential" and not has_credentials()

    def missing(self) -> str:
        """Return why it could not be read now, or ""; nothing is run and no token is asked for that."""
        if self.scheme not in {"file", "credential", "env"}:
            return ""
        try:
            self.read()
        except UsageError as error:
            return str(error)
        return ""


def parse(text: str) -> Secret:
    """Return the reference that `text` is.

    Raises:
        UsageError: it is none, so perhaps the secret itself, which the message does not repeat.
    """
    scheme, colon, place = text.partition(":")
    if not colon or scheme not in SCHEMES:
        message = (
            "this is no reference to a secret, and a secret does not belong here: put it into a file that only its "
            "owner reads and write file:PATH (or credential:NAME, env:NAME, command:PROGRAM)"
        )
        raise UsageError(message)
    wrong = {
        "file": not place,
        "credential": not _NAME.fullmatch(place),
        "env": not _NAME.fullmatch(place),
        "command": not _words(place),
        "pkcs11": not place,
    }
    if wrong[scheme]:
        message = f"{scheme}: needs {'a name' if scheme in {'credential', 'env'} else 'a place'} after the colon"
        raise UsageError(message)
    return Secret(text)


def _words(place: str) -> list[str]:
    try:
        return shlex.split(place)
    except ValueError:
        return []


def _read_file(path: Path, spec: str) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_SECRET + 1)
    except OSError as error:
        message = f"{spec}: {error.strerror}"
        raise UsageError(message) from error
    if mode & _OTHERS:
        message = f"{spec}: others than its owner may read it: chmod 600 {path}"
        raise UsageError(message)
    return data


def _read_credential(name: str, spec: str) -> bytes:
    if not has_credentials():
        message = f"{spec}: systemd gives it to the unit alone. Run this as the unit would: {run_in_unit(name)} …"
        raise UsageError(message)
    try:
        with (Path(os.environ[CREDENTIALS]) / name).open("rb") as file:  # its mode is systemd's business
            return file.read(MAX_SECRET + 1)
    except OSError as error:
        message = f"{spec}: {error.strerror}: add LoadCredential={name}:PATH to the unit"
        raise UsageError(message) from error


def _run(command: str) -> bytes:
    words = _words(command)
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False)  # noqa: S603 - the operator's own command
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"command:{words[0]}: {error.strerror if isinstance(error, OSError) else 'no answer in time'}"
        raise UsageError(message) from None  # its output may hold the secret
    if done.returncode:
        message = f"command:{words[0]}: it failed with status {done.returncode}: run it by hand to see why"
        raise UsageError(message)
    return done.stdout


def _text(data: bytes, secret: Secret) -> str:
    where = secret.spec if secret.scheme != "command" else f"command:{_words(secret.spec[8:])[0]}"
    if len(data) > MAX_SECRET:
        message = f"{where}: longer than {MAX_SECRET} bytes"
        raise UsageError(message)
    try:
        text = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        message = f"{where}: it is not UTF-8"
        raise UsageError(message) from None
    if not text:
        message = f"{where}: there is nothing in it"
        raise UsageError(message)
    return text
