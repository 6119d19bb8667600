"""What a member tells its application."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brokerkm.core.notice import GoodbyeReason, RefusalReason
    from brokerkm.core.policy import Policy
    from brokerkm.errors import Reason


class Cause(enum.StrEnum):
    """What showed that a member has missed a rekey."""

    REKEY = "rekey"  # a Rekey needs a key that is missing, or leaves this member out
    BEACON = "beacon"  # the group's root is another than the member's


@dataclass(frozen=True, slots=True)
class Joined:
    """The member has its keys for the first time, or again after it was out."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """The group's key has changed, and the member has it."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Synced:
    """The server has sent the current keys anew."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Stale:
    """The member has missed something and cannot send; it may still catch up by itself."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Data under a newer key than the member's was given up: a rekey was missed, or somebody forged a header.

    Anybody can write a header, so this moves nothing; the retained Beacon, which is signed, tells which it is. Said
    once in `max_silence` at most.
    """


@dataclass(frozen=True, slots=True)
class Recovered:
    """The member is no longer stale."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Evicted:
    """The server's signature says that this member is out; its keys are gone."""

    reason: GoodbyeReason


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """The server did not grant a request; `time` is the server's, seconds since 1970."""

    reason: RefusalReason
    time: float


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """The group asks something else of its members from now on."""

    policy: Policy


@dataclass(frozen=True, slots=True)
class AckDue:
    """The group asks its members to confirm what they have: it is time to send `Member.ack`."""

    epoch: int


@dataclass(frozen=True, slots=True)
class ServerKeyChanged:
    """The server has handed over to another signing key, which alone is believed from now on.

    What was refused before may be the new key's: the retained messages are to be asked for again.
    """

    server_key: bytes


@dataclass(frozen=True, slots=True)
class Silent:
    """No new Beacon for longer than the policy allows; the last was heard at `since`, seconds since 1970."""

    since: float


@dataclass(frozen=True, slots=True)
class Heard:
    """Beacons have come back."""


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """An application message, opened and not a replay; `birth` is the epoch in which its key was drawn."""

    topic: str
    sender: str
    payload: bytes = field(repr=False)
    birth: int


@dataclass(frozen=True, slots=True)
class SubgroupReceived:
    """A message from the server to some members, this one among them."""

    topic: str
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Dropped:
    """An application message that could not be opened in time, or at all."""

    topic: str
    reason: Reason


Event = (
    Joined
    | Rekeyed
    | Synced
    | Stale
    | Unreadable
    | Recovered
    | Evicted
    | RequestRefused
    | PolicyChanged
    | ServerKeyChanged
    | AckDue
    | Silent
    | Heard
    | MessageReceived
    | SubgroupReceived
    | Dropped
)
