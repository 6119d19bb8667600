"""The errors that every layer of brokerkm shares.

One base, `BrokerkmError`, which is never raised itself. What the caller did wrong
(`UsageError`), what a peer sent (`RefusedError`) and what the world did (`TransportError`,
`StoreError`) are different classes, because they are answered differently: fix the call,
count and drop the bytes, try again later. No error carries key material.
"""

import enum
from typing import Final


class Reason(enum.StrEnum):
    """Why bytes from a peer were refused: the closed list that the test vectors use."""

    OVERSIZED = "oversized"
    TRUNCATED = "truncated"
    TRAILING = "trailing"
    NOT_CANONICAL = "not-canonical"
    WRONG_VERSION = "wrong-version"
    WRONG_MESSAGE = "wrong-message"
    WRONG_TYPE = "wrong-type"
    WRONG_LENGTH = "wrong-length"
    OUT_OF_RANGE = "out-of-range"
    WRONG_TOPIC = "wrong-topic"
    BAD_SIGNATURE = "bad-signature"
    BAD_MAC = "bad-mac"
    BAD_SEAL = "bad-seal"
    UNKNOWN_TOKEN = "unknown-token"  # noqa: S105 - a reason, not a secret
    UNKNOWN_MEMBER = "unknown-member"
    BAD_CERTIFICATE = "bad-certificate"
    NO_ENTRY = "no-entry"
    WRONG_BIRTH = "wrong-birth"
    OLD = "old"
    REPLAY = "replay"
    WRONG_NONCE = "wrong-nonce"
    WRONG_TIME = "wrong-time"
    NOT_SIGNED = "not-signed"
    WRONG_STATE = "wrong-state"


class BrokerkmError(Exception):
    """Base of all errors that brokerkm raises on purpose; never raised itself."""


class UsageError(BrokerkmError, ValueError):
    """The caller asked for something that cannot be done; nothing has changed."""


class UnknownNameError(UsageError):
    """What the caller named does not exist."""


class StateError(UsageError):
    """The member is in no state to do what was asked."""


class NotJoinedError(StateError):
    """The member has not been welcomed to the group yet."""


class StaleError(StateError):
    """The member has missed a rekey and is catching up; sending would use a key that others have left."""


class SilentError(StateError):
    """No Beacon has come for longer than the group's policy allows; somebody may be withholding rekeys."""


class EvictedError(StateError):
    """The key server has said, by its signature, that this member is out of the group."""


class RefusedError(BrokerkmError):
    """Bytes from a peer were refused; the receiver's state is what it was before.

    Args:
        reason: why, from the closed list.
        field: the field of the message that is wrong, as the specification names it.
        detail: a few words for a human; never key material.
    """

    def __init__(self, reason: Reason, field: str, detail: str = "") -> None:
        super().__init__(reason, field, detail)
        self.reason: Final = reason
        self.field: Final = field
        self.detail: Final = detail

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


class TransportError(BrokerkmError):
    """The broker could not be reached or did not accept what it was given."""


class LoginRefusedError(TransportError):
    """The broker does not let this client in, by the name and the password that it has."""


class StoreError(BrokerkmError):
    """The store could not be opened, read or written; what it held before is intact."""


class UnfitError(StoreError):
    """A group must not be served as the store has it; other groups of the store may be."""


class BehindError(UnfitError):
    """A group's store is, or may be, behind what its members have seen; `group recover` is what helps.

    Args:
        group: its name.
        text: what was found and what it means.

    Attributes:
        options: of that command, as they were given to the one that failed.
    """

    def __init__(self, group: str, text: str) -> None:
        super().__init__(group, text)
        self.group: Final = group
        self.text: Final = text
        self.options = ""

    def __str__(self) -> str:
        return f"{self.text}: brokerkm group recover {self.group}{self.options}"


class LeaseLostError(StoreError):
    """Another server leads the group by now; this one has changed nothing, and must not go on with the group."""


class OutcomeUnknownError(StoreError):
    """The database did not say whether it has stored a change: the group has to be loaded again to know."""
