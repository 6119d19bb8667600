"""Passwords of devices for brokers that have to be told them: derived from the key server's own at that broker.

So a broker that has lost everything is given the same ones again, nothing secret is stored for them, and who knows the
key server's password could let anybody in anyway. It has to be a random one: a member knows its own password, and
could try guesses of the key server's by it. Another password of the key server's means other passwords for all.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from brokerkm.errors import UsageError

if TYPE_CHECKING:
    from brokerkm.core.login import Principal

MIN_SIZE: Final = 20  # characters of the key server's password
_LABEL: Final = b"brokerkm v1 broker password"
_COST: Final = 1 << 14  # scrypt's N: 16 MiB and some 50 ms for each guess


class Passwords:
    """Derives the passwords of members.

    Args:
        secret: the key server's password at the broker.

    Raises:
        UsageError: it is too short to be a random one.
    """

    def __init__(self, secret: str) -> None:
        if len(secret) < MIN_SIZE:
            message = (
                "devices' passwords at the broker are derived from the key server's, which has to be random for that "
                f"and have at least {MIN_SIZE} characters: openssl rand -hex 32"
            )
            raise UsageError(message)
        self._root: Final = hashlib.scrypt(secret.encode(), salt=_LABEL, n=_COST, r=8, p=1, dklen=32)

    def of(self, principal: Principal) -> str:
        """Return the password of one member."""
        names = b"\0".join((_LABEL, principal.group.encode(), principal.member.encode()))
        digest = hmac.digest(self._root, names, "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    @property
    def fingerprint(self) -> str:
        """Tells whether two were made from the same secret; can be shown."""
        return hmac.digest(self._root, b"fingerprint", "sha256")[:6].hex()
