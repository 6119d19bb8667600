"""What an operator can do, whether in the server's process or from another: the `AdminApi` Protocol and its values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from brokerkm.core.crypto import Suite
from brokerkm.core.group import DEFAULT_DEGREE
from brokerkm.core.names import DEFAULT_PREFIX
from brokerkm.core.policy import Policy

if TYPE_CHECKING:
    from brokerkm.descriptor import Descriptor

DEFAULT_BEACON_INTERVAL: Final = 30  # s; a tenth of the policy's max_silence
DEFAULT_LIFETIME: Final = 24 * 3600.0  # s that a new token is valid
PAGE: Final = 1000  # members returned at a time


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A group as an operator sees it; `server_key` in hex."""

    name: str
    prefix: str
    suite: str
    degree: int
    height: int
    epoch: int
    members: int
    waiting: int
    unpublished: int
    beacon_interval: int
    policy: dict[str, int | bool]
    server_key: str


@dataclass(frozen=True, slots=True)
class MemberInfo:
    """A member id as an operator sees it; `identity` in hex, `status` is listed, seated or evicted."""

    member: str
    status: str
    slot: int | None
    epoch: int
    identity: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """A change that is stored: the group's epoch with it, and whether the broker has accepted its messages yet."""

    epoch: int
    published: bool


class AdminApi(Protocol):
    """The administration of all groups of one server.

    Every call raises `UsageError` for what cannot be done and `StoreError` if it cannot be stored; `RemoteAdmin`
    also raises `TransportError` if the server does not answer.
    """

    async def create_group(
        self,
        group: str,
        *,
        degree: int = DEFAULT_DEGREE,
        suite: Suite = Suite.X25519,
        policy: Policy = Policy(),  # noqa: B008 - frozen
        prefix: str = DEFAULT_PREFIX,
        beacon_interval: int = DEFAULT_BEACON_INTERVAL,
    ) -> GroupInfo:
        """Create a group."""
        ...

    async def list_groups(self) -> list[GroupInfo]:
        """Return all groups."""
        ...

    async def show(self, group: str) -> GroupInfo:
        """Return one group."""
        ...

    async def rotate(self, group: str, *, everything: bool = False) -> Outcome:
        """Give the group a new root key, or new keys for all inner nodes."""
        ...

    async def list_members(self, group: str, *, after: str = "") -> list[MemberInfo]:
        """Return up to 1000 members with ids above `after`."""
        ...

    async def add_member(self, group: str, member: str, identity: bytes) -> MemberInfo:
        """List the Ed25519 public key that may join as `member`; one that was evicted may come back with it."""
        ...

    async def evict(self, group: str, member: str, *, urgent: bool = True) -> Outcome:
        """Cut a member off; returns once that is stored. It cannot come back before `add_member` or `readmit`."""
        ...

    async def readmit(self, group: str, member: str) -> MemberInfo:
        """Let an evicted member join again with the identity key that it had."""
        ...

    async def invite(
        self, group: str, *, uses: int = 1, lifetime: float = DEFAULT_LIFETIME, broker: str | None = None
    ) -> Descriptor:
        """Return a descriptor with a new enrollment token.

        Args:
            uses: how many devices may join with it.
            lifetime: seconds for which it is valid.
            broker: URL for the devices, if it is not the one that the server itself uses.
        """
        ...
