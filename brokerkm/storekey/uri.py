"""PKCS#11 URIs (RFC 7512), as far as they name a key in a token.

Attributes that we would not heed are refused: a URI that says more than is done would promise too much. So is a
``pin-value``: configuration and command lines are seen by others.
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from brokerkm.errors import UsageError

_PATH: Final = frozenset({"token", "object", "type"})
_QUERY: Final = frozenset({"module-path", "pin-source"})
_FILE: Final = "file:"
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_EXAMPLE: Final = (
    "pkcs11:token=TOKEN;object=KEY?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/brokerkm/pin"
)


@dataclass(frozen=True, slots=True)
class TokenUri:
    """Which key, in which token, by which module, and where the PIN is.

    Args:
        token, label: of the token, and of the AES key in it.
    """

    module: Path
    token: str
    label: str
    pin: Path

    @classmethod
    def parse(cls, text: str) -> TokenUri:
        """Read a URI without its ``pkcs11:``; raises `UsageError` that names the attribute."""
        path, _, query = text.partition("?")
        found = _attributes(path, ";", _PATH) | _attributes(query, "&", _QUERY)
        for name in ("token", "object", "module-path", "pin-source"):
            if not found.get(name):
                _refuse(f"{name} is missing")
        if found.get("type", "secret-key") != "secret-key":
            _refuse("the key that wraps the store key is an AES key: type=secret-key")
        pin = found["pin-source"]
        if not pin.startswith(_FILE):
            _refuse("pin-source has to be a file, as file:/etc/brokerkm/pin")
        return cls(
            Path(found["module-path"]), found["token"], found["object"], Path(pin[len(_FILE) :].removeprefix("//"))
        )

    def __str__(self) -> str:
        return f"key {self.label!r} in token {self.token!r}"


def _attributes(text: str, separator: str, known: frozenset[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, text.strip().split(separator)):
        name, equals, value = part.partition("=")
        if name == "pin-value":
            _refuse("pin-value would show the PIN to others: put it into a 0600 file and name that by pin-source")
        if name not in known or not equals:
            shown = name if re.fullmatch(r"[a-z-]{1,32}", name) else "what it says"
            _refuse(f"{shown} is not among what can be said here: {', '.join(sorted(known))}")
        if name in found:
            _refuse(f"{name} is there twice")
        if _BAD_ESCAPE.search(value):
            _refuse(f"{name} has a % without two hexadecimal digits")
        try:
            found[name] = urllib.parse.unquote(value, errors="strict")
        except UnicodeDecodeError:
            _refuse(f"{name} is not percent-encoded UTF-8")
    return found


def _refuse(what: str) -> NoReturn:
    message = f"PKCS#11 URI: {what}. An example: {_EXAMPLE}"
    raise UsageError(message)
