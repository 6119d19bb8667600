"""How a device logs in at a guarded broker: with its identity key, as a user name and a password.

The user name is ``GROUP:ID``, or the member id alone where a broker's rules need that. The password is a signature by
the device's identity key over both names, and that key. It is the same each time, so that every client and every
clock will do; whoever checks it needs nothing secret; and nothing has to be handed out, because identity keys are
listed, or bound at the join, anyway.

A broker that sees it could show it to another broker that guards the same group. All that this wins is what brokers
have already: to withhold messages. Members do not trust brokers with more (`schemas/README.md`).
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final, NamedTuple

from brokerkm.core.crypto import PUBLIC_KEY_SIZE, check_signature, load_verify_key
from brokerkm.core.names import is_identifier
from brokerkm.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

PASSWORD_PREFIX: Final = "bkm1:"  # noqa: S105 - what every such password begins with
PASSWORD_SIZE: Final = 133  # characters: the prefix, and 96 bytes in base64url without padding
MAX_USERNAME: Final = 129  # characters: two names of 64 and a colon

_LABEL: Final = b"brokerkm v1 broker login"


class Principal(NamedTuple):
    """Who is connected: a member id of a group."""

    group: str
    member: str

    @property
    def username(self) -> str:
        """The user name that says so at any guarded broker."""
        return f"{self.group}:{self.member}"

    @classmethod
    def parse(cls, username: str, group: str | None = None) -> Principal | None:
        """Return who `username` names, None if nobody.

        Args:
            group: what a member id alone stands for, where only one group is guarded.
        """
        first, colon, second = username.partition(":")
        names = (first, second) if colon else (group, first)
        if names[0] is None or not all(is_identifier(name) for name in names if name is not None):
            return None
        return cls(names[0], names[1])


def signed(principal: Principal) -> bytes:
    """Return the bytes under the signature: the label, the group and the member id, a zero byte between them."""
    return b"\0".join((_LABEL, principal.group.encode(), principal.member.encode()))


def password(principal: Principal, identity: bytes, sign: Callable[[bytes], bytes]) -> str:
    """Return the password of a device.

    Args:
        identity: its public identity key, 32 bytes.
        sign: signs by the private one (Ed25519).
    """
    encoded = base64.urlsafe_b64encode(identity + sign(signed(principal)))
    return PASSWORD_PREFIX + encoded.decode()


def identity_of(principal: Principal, password: str) -> bytes:
    """Return the public identity key whose owner made `password` for this principal.

    Raises:
        UsageError: it is no such password, or another key or name made it; the message does not repeat it.
    """
    try:
        if len(password) != PASSWORD_SIZE or not password.startswith(PASSWORD_PREFIX):
            raise binascii.Error  # noqa: TRY301 - one message for all that can be wrong
        data = base64.b64decode(password[len(PASSWORD_PREFIX) :], altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        message = f"the password is not {PASSWORD_PREFIX} and 128 characters of base64url: it was not made by brokerkm"
        raise UsageError(message) from None
    identity, signature = data[:PUBLIC_KEY_SIZE], data[PUBLIC_KEY_SIZE:]
    try:
        check_signature(load_verify_key(identity, "identity"), signature, signed(principal))
    except RefusedError:
        message = f"the password was not made for {principal.username}, or not by the key that it names"
        raise UsageError(message) from None
    return identity
