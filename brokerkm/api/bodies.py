"""What requests carry: bodies, path and query parameters, each bounded, nothing unknown accepted."""

from dataclasses import dataclass
from typing import Annotated, Final, Generic, Literal, TypeAlias, TypeVar

from litestar.di import NamedDependency
from litestar.params import FromQuery, PathParameter, QueryParameter, SkipValidation
from msgspec import UNSET, Meta, Struct, UnsetType

from brokerkm.core.welcome import MAX_SPARES
from brokerkm.core.wire import MAX_MESSAGE
from brokerkm.service.admin import Admin
from brokerkm.service.api import DEFAULT_LIFETIME, PAGE
from brokerkm.service.credentials import DEFAULT_LIFETIME as CREDENTIAL_LIFETIME
from brokerkm.service.credentials import MAX_LIFETIME as CREDENTIAL_MAX_LIFETIME
from brokerkm.service.tickets import MAX_LIFETIME, MAX_NOTE, MAX_PATTERN, MAX_USES

_ITEM = TypeVar("_ITEM")

_ID: Final = r"^[A-Za-z0-9._-]+$"
_HEX_KEY: Final = r"^[0-9a-fA-F]{64}$"
_MAX_SECONDS: Final = 0xFFFFFFFF
_MAX_TIME: Final = 1 << 53  # what JSON can say exactly
MAX_NAMES: Final = 10_000  # members named in one request

Acting: TypeAlias = NamedDependency[SkipValidation[Admin]]
"""The administration in the name of whoever asks."""

GroupPath: TypeAlias = Annotated[str, PathParameter(pattern=_ID, max_length=64, description="A group.")]
MemberPath: TypeAlias = Annotated[str, PathParameter(pattern=_ID, max_length=64, description="A member id.")]
TokenPath: TypeAlias = Annotated[str, PathParameter(pattern="^[0-9a-f]{16}$", description="An enrollment token's id.")]
CredentialPath: TypeAlias = Annotated[
    str, PathParameter(pattern="^[A-Za-z0-9_-]+$", max_length=64, description="A credential's name.")
]
Limit: TypeAlias = Annotated[int, QueryParameter(ge=1, le=PAGE, description="How many to return at most.")]
AfterName: TypeAlias = Annotated[str, QueryParameter(max_length=64, description="Return what comes after this name.")]
AfterNumber: TypeAlias = Annotated[
    int, QueryParameter(ge=0, le=_MAX_TIME, description="Return what comes after this number.")
]
Pattern: TypeAlias = Annotated[
    str, QueryParameter(min_length=1, max_length=MAX_PATTERN, description="Shell pattern that ids must match.")
]
Time: TypeAlias = Annotated[int | None, QueryParameter(ge=0, le=_MAX_TIME, description="Milliseconds since 1970.")]
Epoch: TypeAlias = Annotated[int | None, QueryParameter(ge=0, le=_MAX_TIME, description="An epoch.")]
Now: TypeAlias = Annotated[bool, QueryParameter(description="Forget it at once, whatever the broker still retains.")]
StatusName: TypeAlias = FromQuery[Literal["listed", "seated", "evicted", "pending"] | None]

_Seconds: TypeAlias = Annotated[int, Meta(ge=0, le=_MAX_SECONDS)]
_Interval: TypeAlias = Annotated[int, Meta(ge=1, le=_MAX_SECONDS)]
_Identifier: TypeAlias = Annotated[str, Meta(pattern=_ID, max_length=64)]


@dataclass(frozen=True, slots=True)
class Listing(Generic[_ITEM]):
    """Some of a list; if `next` is something, there may be more, and ``after=next`` asks for it."""

    items: list[_ITEM]
    next: str | None


class PolicyBody(Struct, forbid_unknown_fields=True, frozen=True):
    """What members keep to; what is left out stays as it is, or has its default in a new group."""

    grace: _Seconds | UnsetType = UNSET
    hold: _Seconds | UnsetType = UNSET
    max_silence: _Interval | UnsetType = UNSET
    stop_when_silent: bool | UnsetType = UNSET
    source_authentication: bool | UnsetType = UNSET
    algorithm: Literal["aes-256-gcm", "chacha20-poly1305"] | UnsetType = UNSET
    acknowledge: _Seconds | UnsetType = UNSET


class SettingsBody(Struct, forbid_unknown_fields=True, frozen=True):
    """What the server does by itself; what is left out stays as it is. `interval` and `max_pending`: null: its own."""

    interval: Annotated[float, Meta(ge=0, le=3600)] | UnsetType | None = UNSET
    max_pending: Annotated[int, Meta(ge=1, le=1_000_000)] | UnsetType | None = UNSET
    root_period: _Seconds | UnsetType = UNSET
    leaf_period: _Seconds | UnsetType = UNSET
    retained: bool | UnsetType = UNSET


class SetGroup(Struct, forbid_unknown_fields=True, frozen=True):
    """What is to change in a group."""

    policy: PolicyBody = PolicyBody()
    settings: SettingsBody = SettingsBody()


class CreateGroup(Struct, forbid_unknown_fields=True, frozen=True):
    """A new group; what is left out is as the server's configuration has it."""

    name: _Identifier
    degree: Annotated[int, Meta(ge=2, le=64)] | UnsetType = UNSET
    suite: Literal["x25519", "mlkem768-x25519"] | UnsetType = UNSET
    prefix: (
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}(/[A-Za-z0-9._-]{1,64}){0,2}$", max_length=194)] | UnsetType
    ) = UNSET
    beacon_interval: _Interval | UnsetType = UNSET
    policy: PolicyBody = PolicyBody()
    settings: SettingsBody = SettingsBody()


_Filters: TypeAlias = Annotated[list[Annotated[str, Meta(min_length=1, max_length=1024)]], Meta(max_length=64)]


class SetData(Struct, forbid_unknown_fields=True, frozen=True):
    """Filters of the application's topics, `%m` for the member id and `%g` for the group; what is left out stays."""

    publish: _Filters | UnsetType = UNSET
    subscribe: _Filters | UnsetType = UNSET


class Rotate(Struct, forbid_unknown_fields=True, frozen=True):
    """Which keys to renew: the root, or every one of the tree except the members' own."""

    everything: bool = False


class AddMember(Struct, forbid_unknown_fields=True, frozen=True):
    """A key that may join."""

    member: _Identifier
    identity: Annotated[str, Meta(pattern=_HEX_KEY, max_length=64)]


class EnrollOffline(Struct, forbid_unknown_fields=True, frozen=True):
    """A device's request that was carried here: its Join.

    `broker`: the URL for the device, if not the server's own. `spares`: how many of the group's next keys it gets.
    """

    member: _Identifier
    join: Annotated[str, Meta(pattern=r"^([0-9a-fA-F]{2})+$", max_length=2 * MAX_MESSAGE)]
    broker: Annotated[str, Meta(min_length=1, max_length=2048)] | None = None
    spares: Annotated[int, Meta(ge=0, le=MAX_SPARES)] = 0


class Urgency(Struct, forbid_unknown_fields=True, frozen=True):
    """Whether to commit at once, rather than with the server's next commit."""

    urgent: bool = True


class Filter(Struct, forbid_unknown_fields=True, frozen=True):
    """Which seated members are meant: those to which all that is named applies."""

    pattern: Annotated[str, Meta(min_length=1, max_length=MAX_PATTERN)] = "*"
    unseen_since: Annotated[int, Meta(ge=0, le=_MAX_TIME)] | None = None
    behind: Annotated[int, Meta(ge=0, le=_MAX_TIME)] | None = None


class EvictMany(Struct, forbid_unknown_fields=True, frozen=True):
    """Whom to cut off: either `members` or `filter`; with `dry_run` nobody, only who it would be."""

    members: Annotated[list[_Identifier], Meta(min_length=1, max_length=MAX_NAMES)] | UnsetType = UNSET
    filter: Filter | UnsetType = UNSET
    urgent: bool = True
    dry_run: bool = False


class Invite(Struct, forbid_unknown_fields=True, frozen=True):
    """A new enrollment token; `lifetime` in seconds, `broker` the URL for the devices if not the server's own."""

    uses: Annotated[int, Meta(ge=1, le=MAX_USES)] = 1
    lifetime: Annotated[float, Meta(ge=1, le=MAX_LIFETIME)] = DEFAULT_LIFETIME
    broker: Annotated[str, Meta(min_length=1, max_length=2048)] | None = None
    pattern: Annotated[str, Meta(min_length=1, max_length=MAX_PATTERN)] = "*"
    note: Annotated[str, Meta(max_length=MAX_NOTE)] = ""


class CreateCredential(Struct, forbid_unknown_fields=True, frozen=True):
    """A new bearer token; `lifetime` in seconds."""

    name: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]+$", max_length=64)]
    role: Literal["viewer", "operator", "admin"]
    lifetime: Annotated[float, Meta(ge=1, le=CREDENTIAL_MAX_LIFETIME)] = CREDENTIAL_LIFETIME


@dataclass(frozen=True, slots=True)
class Invitation:
    """A group descriptor with its token, as text to write to a file: it is shown this once."""

    descriptor: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """The bundle that makes one device a member, as text to write to a file; nobody else can use it."""

    bundle: str


@dataclass(frozen=True, slots=True)
class ImportedRow:
    """What became of one row: if ``refused``, why, and which of its fields is wrong, if one is."""

    line: int
    member: str
    result: Literal["added", "seated", "unchanged", "refused"]
    reason: str
    field: str


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of an import: how many rows were listed, seated, there already, refused."""

    added: int
    seated: int
    unchanged: int
    refused: int
    rows: list[ImportedRow]


def listing(items: list[_ITEM], limit: int, key: str) -> Listing[_ITEM]:
    """Return a page of a list; `key` is the attribute by which the list is ordered."""
    return Listing(items, str(getattr(items[-1], key)) if len(items) == limit else None)
