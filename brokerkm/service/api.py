"""What an operator can do, whether in the server's process or from another: the `AdminApi` Protocol and its values.

Values are what JSON can say: keys and hashes in hexadecimal; times in milliseconds since 1970, if nothing else is said.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from brokerkm.core.crypto import Suite
    from brokerkm.core.policy import Policy
    from brokerkm.descriptor import Descriptor
    from brokerkm.offline import OfflineBundle, OfflineRequest
    from brokerkm.service.credentials import Role
    from brokerkm.service.terms import Named
    from brokerkm.store.lease import ServerRecord
    from brokerkm.store.records import Settings

DEFAULT_LIFETIME: Final = 24 * 3600.0  # s that a new token is valid
PAGE: Final = 1000  # members, groups or audit entries returned at a time, at most
IMPORT_ROWS: Final = 10_000  # members that one call takes in, at most: one commit, half a second of two cores


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A group as an operator sees it.

    Args:
        members: how many are seated; `listed`, `evicted` and `pending`: of each other status.
        waiting: changes for the next commit; `unpublished`: messages for the broker.
        beacon_interval: seconds.
        destroyed: whether it is only waiting for the broker to be cleared of it.
        problem: why it is not served; empty if it is, here or by another server.
    """

    name: str
    prefix: str
    suite: str
    degree: int
    height: int
    epoch: int
    members: int
    listed: int
    evicted: int
    pending: int
    waiting: int
    unpublished: int
    beacon_interval: int
    frozen: bool
    destroyed: bool
    policy: dict[str, int | bool | str]
    settings: dict[str, int | float | bool | None]
    server_key: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class MemberInfo:
    """A member id as an operator sees it.

    Args:
        status: listed, seated, evicted or pending; since `since`.
        seen: its newest sign of life; `acked`: the newest epoch that it confirmed; 0: never.
    """

    member: str
    status: str
    slot: int | None
    epoch: int
    identity: str
    since: int
    seen: int
    acked: int
    blocked_until: int


@dataclass(frozen=True, slots=True)
class MemberFilter:
    """Which members are meant: those to which all that is named applies.

    Args:
        status: listed, seated, evicted or pending.
        pattern: shell pattern of ids.
        unseen_since: neither seen then or later, nor of their status since; ms since 1970.
        behind: seated, have confirmed an epoch once, but none from this one on.
    """

    status: str | None = None
    pattern: str = "*"
    unseen_since: int | None = None
    behind: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A change that is stored: the group's epoch with it, and whether the broker has accepted its messages yet."""

    epoch: int
    published: bool


@dataclass(frozen=True, slots=True)
class Evicted:
    """Who was evicted, or would be; `epoch` and `published` as in `Outcome`, the present epoch if nobody was."""

    members: list[str]
    epoch: int
    published: bool
    dry_run: bool


class ImportRow(NamedTuple):
    """A member to be taken in: an identity key that may join later, or somebody to be seated at once.

    Args:
        identity: the device's Ed25519 public key, 32 bytes; empty if `join` has it.
        kem_public: what its Welcome is to be sealed to, of the group's suite; empty if it is only listed.
        join: instead of both, the Join that the device made for being carried here.
    """

    member: str
    identity: bytes
    kem_public: bytes = b""
    join: bytes = b""


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one row.

    Args:
        result: ``added`` (listed), ``seated``, ``unchanged`` or ``refused``.
        reason, field: why it was refused, and which part of the row is wrong, if one is.
    """

    member: str
    result: str
    reason: str = ""
    field: str = ""


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """An enrollment token as an operator sees it."""

    id: str
    uses_left: int
    created: int
    expires: int
    pattern: str
    note: str


@dataclass(frozen=True, slots=True)
class CredentialInfo:
    """A bearer token of the API, without its secret."""

    name: str
    role: str
    created: int
    expires: int


@dataclass(frozen=True, slots=True)
class IssuedCredential:
    """A new bearer token of the API; nobody can show `token` again."""

    name: str
    role: str
    created: int
    expires: int
    token: str

    def __repr__(self) -> str:
        return f"IssuedCredential(name={self.name!r}, role={self.role!r})"


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """How the server is.

    Args:
        broker: connected, gone, or none where no broker is served.
        time: the server's clock, ms since 1970.
        groups, members: of all servers that share the store.
        waiting: changes for the next commit, of the groups that this server leads.
        unpublished: messages that wait for the broker, of all groups.
        unserved: groups that this server was to lead and cannot, and why.
    """

    version: str
    time: int
    broker: str
    groups: int
    members: int
    waiting: int
    unpublished: int
    unserved: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class AuditInfo:
    """One entry of the audit log; `hash` covers it and all earlier ones of its chain."""

    number: int
    time: int
    actor: str
    action: str
    subject: str
    details: dict[str, str | int | bool]
    hash: str


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    """Whether a chain of the audit log is whole: how many entries fit, and what is wrong after them, if anything is."""

    entries: int
    hash: str
    whole: bool
    finding: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; `time` in seconds since 1970."""

    time: float
    kind: str
    group: str
    member: str
    details: dict[str, str | float]


@dataclass(frozen=True, slots=True)
class GuardInfo:
    """How the broker's guard is.

    Args:
        problem: why it is not in step; empty if it is.
        pending: members whose change it has not been told of.
        mended: differences that the last comparison of everything has found, and mended.
    """

    in_step: bool
    problem: str
    pending: int
    mended: int


@dataclass(frozen=True, slots=True)
class GuardDifference:
    """Something at the broker that is not as the store says; the member is empty where it concerns all of them."""

    group: str
    member: str
    what: str


@dataclass(frozen=True, slots=True)
class DataTopics:
    """Filters of the application's topics that members have at a guarded broker; `%m`: member id, `%g`: group."""

    publish: list[str]
    subscribe: list[str]


class AdminApi(Protocol):
    """The administration of all groups of one server.

    Every call raises `UsageError` for what cannot be done (`UnknownNameError` if what it names does not exist) and
    `StoreError` if it cannot be stored; `RemoteAdmin` also raises `TransportError` if the server does not answer.
    """

    async def create_group(
        self,
        group: str,
        *,
        degree: int | None = None,
        suite: Suite | None = None,
        prefix: str | None = None,
        beacon_interval: int | None = None,
        policy: Named | None = None,
        settings: Named | None = None,
    ) -> GroupInfo:
        """Create a group; what is not named is as the server's configuration says."""
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

    async def set_policy(self, group: str, policy: Policy) -> Outcome:
        """Ask something else of the members; the next Beacon says so to all of them."""
        ...

    async def hand_over(self, group: str) -> Outcome:
        """Draw another signing key for the group; members follow."""
        ...

    async def configure(self, group: str, settings: Settings) -> GroupInfo:
        """Have the server do something else for the group by itself."""
        ...

    async def change(self, group: str, policy: Named, settings: Named) -> GroupInfo:
        """Change what is named of both, as `GroupInfo` names it, in one transaction; all else stays as it is."""
        ...

    async def freeze(self, group: str) -> GroupInfo:
        """Commit nothing in the group until it is thawed."""
        ...

    async def thaw(self, group: str) -> GroupInfo:
        """Go on with a group that was frozen."""
        ...

    async def destroy(self, group: str, *, now: bool = False) -> Outcome:
        """Tell the members, clear the broker, forget the group with all its keys and members; its audit log stays.

        The outcome's `published` says whether all that is done; otherwise it is as soon as the broker can be reached.

        Args:
            now: forget it at once, whatever the broker still retains.
        """
        ...

    async def list_members(
        self,
        group: str,
        *,
        after: str = "",
        limit: int = PAGE,
        which: MemberFilter = MemberFilter(),
    ) -> list[MemberInfo]:
        """Return up to `limit` members with ids above `after`."""
        ...

    async def show_member(self, group: str, member: str) -> MemberInfo:
        """Return what is known of one member id."""
        ...

    async def add_member(self, group: str, member: str, identity: bytes) -> MemberInfo:
        """List the Ed25519 public key that may join as `member`; one that was evicted may come back with it."""
        ...

    async def enroll_offline(
        self, request: OfflineRequest, *, broker: str | None = None, spares: int = 0
    ) -> OfflineBundle:
        """Seat the device whose request somebody has carried here, and return what is to be carried back.

        Whoever does this vouches for the device: a file proves that it has its keys, not when it was made or for whom.

        Args:
            broker: URL at which the device reaches the broker later, if it is not the one that the server itself uses.
            spares: how many of the group's next keys it gets, 0 to 32: it reads on by them while no Rekey reaches it.
        """
        ...

    async def import_members(self, group: str, rows: Sequence[ImportRow]) -> list[Imported]:
        """List up to `IMPORT_ROWS` keys, or seat their holders; return what became of each row, in order.

        What is there already stays as it is, so that an import which broke off can be made again as a whole.
        """
        ...

    async def evict(self, group: str, member: str, *, urgent: bool = True) -> Outcome:
        """Cut a member off; returns once that is stored. It cannot come back before `add_member` or `readmit`."""
        ...

    async def evict_many(
        self,
        group: str,
        members: Sequence[str] | MemberFilter,
        *,
        urgent: bool = True,
        dry_run: bool = False,
    ) -> Evicted:
        """Cut off all that are named, or all seated ones that a filter means; none, if one of the named is unknown."""
        ...

    async def readmit(self, group: str, member: str) -> MemberInfo:
        """Let an evicted member join again with the identity key that it had."""
        ...

    async def refresh(self, group: str, member: str) -> MemberInfo:
        """Give a seated member a new leaf key with the next commit."""
        ...

    async def show_admission(self, group: str) -> dict[str, Any]:
        """Return the group's admission policy, as `brokerkm.admission.policy` has it."""
        ...

    async def set_admission(self, group: str, policy: Mapping[str, object]) -> dict[str, Any]:
        """Replace the group's admission policy, if its files and its secret can be read by the server."""
        ...

    async def approve(self, group: str, member: str) -> MemberInfo:
        """Say yes to one that waits; it is seated with the next commit."""
        ...

    async def reject(self, group: str, member: str) -> MemberInfo:
        """Say no to one that waits; it cannot ask again before it is readmitted."""
        ...

    async def lift(self, group: str, member: str) -> MemberInfo:
        """Let a member out of quarantine."""
        ...

    async def release(self, group: str, member: str) -> MemberInfo:
        """Free a member id from its device, which is evicted: another may take it by a token or a certificate."""
        ...

    async def invite(
        self,
        group: str,
        *,
        uses: int = 1,
        lifetime: float = DEFAULT_LIFETIME,
        broker: str | None = None,
        pattern: str = "*",
        note: str = "",
    ) -> Descriptor:
        """Return a descriptor with a new enrollment token.

        Args:
            uses: how many devices may join with it.
            lifetime: seconds for which it is valid.
            broker: URL for the devices, if it is not the one that the server itself uses.
            pattern: shell pattern that the ids of the devices must match.
            note: the operator's words, for the list.
        """
        ...

    async def list_tokens(self, group: str) -> list[TokenInfo]:
        """Return the enrollment tokens that still have uses, oldest first."""
        ...

    async def revoke_token(self, group: str, token_id: str) -> None:
        """Make an enrollment token void."""
        ...

    async def status(self) -> ServerStatus:
        """Return how the server is."""
        ...

    async def servers(self) -> list[ServerRecord]:
        """Return the servers that share the store, and what they lead."""
        ...

    async def move(self, group: str, to: str) -> None:
        """Have another server lead a group, and keep it there while that server runs."""
        ...

    async def show_guard(self) -> GuardInfo:
        """Return how the broker's guard is; raises `UnknownNameError` if there is none, as the next two do."""
        ...

    async def compare_guard(self) -> list[GuardDifference]:
        """Return where the broker and the store differ, the first thousand."""
        ...

    async def sync_guard(self) -> GuardInfo:
        """Make the broker as the store says; raises `TransportError`."""
        ...

    async def show_data(self, group: str) -> DataTopics:
        """Return which topics of the application members have at a guarded broker."""
        ...

    async def set_data(
        self, group: str, *, publish: Sequence[str] | None = None, subscribe: Sequence[str] | None = None
    ) -> DataTopics:
        """Say which topics of the application members have at a guarded broker; what is None stays as it is."""
        ...

    async def audit(self, group: str = "", *, after: int = 0, limit: int = PAGE) -> list[AuditInfo]:
        """Return up to `limit` entries of a group's audit log, or of the server's own, with numbers above `after`."""
        ...

    async def verify_audit(self, group: str = "") -> AuditVerdict:
        """Check a chain of the audit log from its first entry."""
        ...

    def events(self) -> AsyncGenerator[Event]:
        """Yield what happens from now on."""
        ...

    async def create_credential(self, name: str, role: Role, *, lifetime: float) -> IssuedCredential:
        """Make a bearer token for the API, valid for `lifetime` seconds."""
        ...

    async def list_credentials(self) -> list[CredentialInfo]:
        """Return all bearer tokens without their secrets."""
        ...

    async def revoke_credential(self, name: str) -> None:
        """Make a bearer token void."""
        ...
