"""A rule: when something is due in a group, and what is done then. Plain values and their JSON; nothing happens here.

A rule says what is to happen by itself, so every field is checked when it is made, unknown fields are refused, and a
combination that makes no sense, such as an eviction by the clock, cannot be written down.
"""

from __future__ import annotations

import json
import re
import urllib.parse
import zoneinfo
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, TypeAlias, cast

from brokerkm.automation.cron import Cron
from brokerkm.core.names import check_identifier
from brokerkm.errors import StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RULE: Final = "rule"
"""The kind of a rule's document."""

RESERVED: Final = ("root-period", "leaf-period")
"""Names of the rules that a group's settings stand for."""

DAY: Final = 24 * 3600
_LONGEST: Final = 10 * 365 * DAY  # s
_MAX_COUNT: Final = 1 << 32
_MAX_BODY: Final = 8192  # bytes of JSON
_SHORTEST_SILENCE: Final = 60  # s
_SECRET: Final = re.compile(r"(file|credential):\S.{0,500}")
_WHAT: Final = ("root", "all", "leaves")
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class OnTime:
    """By the clock.

    Args:
        cron: five fields, as in crontab(5).
        zone: IANA name of the time zone in which they count.
    """

    on: ClassVar[str] = "time"
    cron: str
    zone: str = "UTC"


@dataclass(frozen=True, slots=True)
class OnCount:
    """When the number of members rises above `above`, or falls below `below`.

    Args:
        margin: how far it has to come back before the rule can fire again.
    """

    on: ClassVar[str] = "count"
    above: int | None = None
    below: int | None = None
    margin: int = 1


@dataclass(frozen=True, slots=True)
class OnSilence:
    """When members have not been heard for `unseen` seconds; looked at every `every` seconds."""

    on: ClassVar[str] = "silence"
    unseen: int
    every: int = 3600


@dataclass(frozen=True, slots=True)
class OnWebhook:
    """When a signed request comes in; `secret` names where the 32 bytes are that it is signed with."""

    on: ClassVar[str] = "webhook"
    secret: str


@dataclass(frozen=True, slots=True)
class Rotate:
    """New keys: of the root, of all inner nodes, or of all members' leaves."""

    do: ClassVar[str] = "rotate"
    what: str = "root"


@dataclass(frozen=True, slots=True)
class Evict:
    """Cut off whoever is silent, or whom the webhook names, but never more than `share` percent in a day."""

    do: ClassVar[str] = "evict"
    share: int = 5


@dataclass(frozen=True, slots=True)
class Notify:
    """Tell a URL, by a request signed like the ones that come in."""

    do: ClassVar[str] = "notify"
    url: str
    secret: str


Trigger: TypeAlias = OnTime | OnCount | OnSilence | OnWebhook
Action: TypeAlias = Rotate | Evict | Notify

_TRIGGERS: Final[Mapping[str, Callable[..., Trigger]]] = {
    one.on: one for one in (OnTime, OnCount, OnSilence, OnWebhook)
}
_ACTIONS: Final[Mapping[str, Callable[..., Action]]] = {one.do: one for one in (Rotate, Evict, Notify)}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of one group.

    Args:
        name: of this group's rules it names one.
        created: milliseconds since 1970; what was due before then is not the rule's business.

    Raises:
        UsageError: it makes no sense; names the field.
    """

    name: str
    trigger: Trigger
    action: Action
    created: int = 0

    def __post_init__(self) -> None:
        check_identifier(self.name, "rule")
        _check_trigger(self.trigger)
        _check_action(self.action)
        match self.trigger, self.action:
            case (OnTime() | OnCount(), Evict()):
                _refuse("action", "an eviction needs to know whom: on silence or by a webhook")
            case (OnSilence(), Rotate()):
                _refuse("action", "who is silent is evicted or told of; keys are rotated by the clock")
            case _:
                pass

    @property
    def fields(self) -> dict[str, Any]:
        """The rule as JSON has it."""
        return {
            "name": self.name,
            "trigger": {"on": self.trigger.on, **asdict(self.trigger)},
            "action": {"do": self.action.do, **asdict(self.action)},
            "created": self.created,
        }

    def to_json(self) -> bytes:
        """Return what is stored."""
        return json.dumps(self.fields, sort_keys=True).encode()

    @classmethod
    def from_fields(cls, value: object, created: int) -> Rule:
        """Return the rule that an operator wrote down; raises `UsageError` that names the field."""
        fields = _object(value, "rule", {"name", "trigger", "action"}, {"created"})
        name = fields["name"]
        if type(name) is not str:
            _refuse("name", "it has to be text")
        trigger: Trigger = _variant(fields["trigger"], "trigger", "on", _TRIGGERS)
        action: Action = _variant(fields["action"], "action", "do", _ACTIONS)
        return cls(name, trigger, action, created)

    @classmethod
    def from_json(cls, body: bytes) -> Rule:
        """Return the rule that is stored; raises `StoreError` if it is damaged."""
        try:
            value = json.loads(body)
            return cls.from_fields(value, int(value["created"]))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            message = f"a stored rule is damaged: {error}: remove it and add it again"
            raise StoreError(message) from None


def _check_trigger(trigger: Trigger) -> None:
    match trigger:
        case OnTime(cron, zone):
            try:
                found = zoneinfo.ZoneInfo(zone)
            except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
                _refuse("zone", f"there is no time zone {zone[:40]!r} here: UTC, or a name such as Europe/Berlin")
            Cron(cron, found)
        case OnCount(above, below, margin):
            if (above is None) == (below is None):
                _refuse("trigger", "give one of above and below")
            _within("above" if below is None else "below", above if below is None else below, 0, _MAX_COUNT)
            _within("margin", margin, 1, _MAX_COUNT)
        case OnSilence(unseen, every):
            _within("unseen", unseen, _SHORTEST_SILENCE, _LONGEST)
            _within("every", every, 1, unseen)
        case OnWebhook(secret):
            _check_secret(secret)


def _check_action(action: Action) -> None:
    match action:
        case Rotate(what):
            if what not in _WHAT:
                _refuse("what", f"it is one of {', '.join(_WHAT)}")
        case Evict(share):
            _within("share", share, 1, 100)
        case Notify(url, secret):
            _check_url(url)
            _check_secret(secret)


def _check_url(url: str) -> None:
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError:
        _refuse("url", "it is none")
    if not parts.hostname or parts.username is not None or parts.fragment or not url.isascii() or not url.isprintable():
        _refuse("url", "it has to be https://HOST/PATH, without a password")
    if parts.scheme != "https" and (parts.scheme != "http" or parts.hostname not in _LOOPBACK):
        _refuse("url", "it has to be https; http is for this machine alone")


def _check_secret(secret: str) -> None:
    if not _SECRET.fullmatch(secret):
        _refuse("secret", "it names where the key is: file:PATH or credential:NAME (brokerkm store key new file:PATH)")


def _within(field: str, value: object, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        _refuse(field, f"it has to be a whole number from {least} to {most}")


def _variant(value: object, field: str, tag: str, variants: Mapping[str, Callable[..., Any]]) -> Any:  # noqa: ANN401
    known = ", ".join(variants)
    kind = cast("dict[str, object]", value).get(tag) if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(kind, str) or kind not in variants:
        _refuse(f"{field}.{tag}", f"it has to be one of {known}")
    rest = {name: one for name, one in cast("dict[str, object]", value).items() if name != tag}
    for name, one in rest.items():
        if one is not None and type(one) not in (str, int):
            _refuse(f"{field}.{name}", "it has to be text or a whole number")
    try:
        return variants[kind](**rest)
    except TypeError:
        names = ", ".join(getattr(variants[kind], "__slots__", ()))
        _refuse(field, f"{kind} takes {names}")


def _object(value: object, field: str, needed: set[str], allowed: set[str]) -> dict[str, object]:
    if not isinstance(value, dict):
        _refuse(field, "it has to be an object")
    fields = cast("dict[str, object]", value)
    if not needed <= fields.keys() <= needed | allowed or len(json.dumps(fields, default=str)) > _MAX_BODY:
        _refuse(field, f"it has {', '.join(sorted(needed))}, and nothing else")
    return fields


def _refuse(field: str, what: str) -> NoReturn:
    message = f"rule: {field}: {what}"
    raise UsageError(message)
