"""The admission policy of a group, as an operator writes it down: JSON, checked whole before any of it counts.

    {"rules": [{"action": "approve", "member": "pump-*", "proofs": ["token"]}], "default": "allow",
     "certificates": {"authorities": "/etc/brokerkm/ca.pem", "lists": [], "member": "cn"},
     "hook": {"url": "https://inventory.example/admit", "secret": "file:/etc/brokerkm/hook.key"},
     "conduct": {"clones": "report", "changes": 30, "within": 600, "quarantine": 600},
     "pending": {"most": 1000, "expires": 604800}}

Every member may be left out. The store keeps it as a document of kind `KIND`.
"""

from __future__ import annotations

import difflib
import json
import re
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast

from brokerkm.admission.certificates import CertificateFiles
from brokerkm.admission.conduct import ConductPolicy, Response
from brokerkm.admission.hook import HookSettings
from brokerkm.admission.rules import Action, Proof, Returning, Rule
from brokerkm.admission.subject import MemberName
from brokerkm.errors import UsageError

if TYPE_CHECKING:
    import enum
    from collections.abc import Callable, Mapping

KIND: Final = "admission"
NAME: Final = "policy"
MAX_SIZE: Final = 256 * 1024  # bytes
MAX_RULES: Final = 1000  # each is looked at for each join
_WEEK: Final = 7 * 24 * 3600
_MAX_SECONDS: Final = 10 * 366 * 24 * 3600
_MAX_TEXT: Final = 1024
_HEX: Final = re.compile(r"([0-9a-f]{2})*", re.ASCII)
_SECRETS: Final = ("file", "credential", "env")  # no command: who may change the policy does not run programs

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")

E = TypeVar("E", bound="enum.StrEnum")


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """Who may join a group.

    Args:
        most_pending: how many may wait for an operator's yes.
        pending_expiry: seconds for which each of them waits.
    """

    rules: tuple[Rule, ...] = ()
    default: Action = Action.ALLOW
    certificates: CertificateFiles | None = None
    hook: HookSettings | None = None
    conduct: ConductPolicy = field(default_factory=ConductPolicy)
    most_pending: int = 1000
    pending_expiry: int = _WEEK

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return what `text` says; raises `UsageError` that names what is wrong with it."""
        if len(text) > MAX_SIZE:
            message = f"an admission policy has at most {MAX_SIZE} bytes, not {len(text)}"
            raise UsageError(message)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            message = f"the admission policy is not JSON: {error}"
            raise UsageError(message) from None
        whole = _Reader("", found, ("rules", "default", "certificates", "hook", "conduct", "pending"))
        pending = whole.part("pending", ("most", "expires"))
        return cls(
            rules=tuple(_rule(number, one) for number, one in enumerate(whole.items("rules", MAX_RULES), 1)),
            default=whole.choice("default", Action, Action.ALLOW),
            certificates=_certificates(whole),
            hook=_hook(whole),
            conduct=_conduct(whole.part("conduct", ("clones", "changes", "within", "quarantine"))),
            most_pending=pending.whole("most", 1000, 0, 100_000),
            pending_expiry=pending.whole("expires", _WEEK, 60, _MAX_SECONDS),
        )

    def to_json(self) -> str:
        """Return the policy as text that `from_json` reads, with every member that counts."""
        conduct = self.conduct
        values: dict[str, object] = {"rules": [_rule_values(rule) for rule in self.rules], "default": self.default}
        if self.certificates is not None:
            files = self.certificates
            values["certificates"] = {
                "authorities": files.authorities,
                "lists": list(files.lists),
                "member": str(files.member),
            }
        if self.hook is not None:
            hook = self.hook
            places = {"secret": hook.secret, "authorities": hook.authorities}
            values["hook"] = {
                "url": hook.url,
                "timeout": hook.timeout,
                "cache": hook.cache,
                **{name: place for name, place in places.items() if place},
            }
        values["conduct"] = {
            "clones": conduct.clones,
            "changes": conduct.changes,
            "within": conduct.within,
            "quarantine": conduct.quarantine,
        }
        values["pending"] = {"most": self.most_pending, "expires": self.pending_expiry}
        return json.dumps(values, indent=2) + "\n"


class _Reader:
    """Takes the members of one JSON object; `where` is its name in messages."""

    def __init__(self, where: str, value: object, names: tuple[str, ...]) -> None:
        self._where: Final = where
        if not isinstance(value, dict):
            message = f"admission policy: {where or 'the whole'} has to be a JSON object"
            raise UsageError(message)
        self._values: Final = cast("Mapping[str, Any]", value)
        for name in self._values:
            if name not in names:
                near = difflib.get_close_matches(name, names, 1)
                message = f"admission policy: {self._name(name[:40])} is unknown"
                raise UsageError(message + (f": did you mean {near[0]!r}?" if near else f": there are {names}"))

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def _name(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name

    def _refuse(self, name: str, what: str) -> UsageError:
        message = f"admission policy: {self._name(name)} has to be {what}"
        return UsageError(message)

    def part(self, name: str, names: tuple[str, ...]) -> _Reader:
        return _Reader(self._name(name), self._values.get(name, {}), names)

    def items(self, name: str, most: int) -> list[object]:
        value = self._values.get(name, [])
        if not isinstance(value, list) or len(cast("list[object]", value)) > most:
            raise self._refuse(name, f"a list of at most {most}")
        return cast("list[object]", value)

    def text(self, name: str, default: str = "", check: Callable[[str], bool] = bool, what: str = "text") -> str:
        value = self._values.get(name, default)
        if not isinstance(value, str) or len(value) > _MAX_TEXT or not (check(value) or name not in self._values):
            raise self._refuse(name, what)
        return value

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        items = self.items(name, most)
        if not all(isinstance(item, str) and 0 < len(item) <= _MAX_TEXT for item in items):
            raise self._refuse(name, "a list of texts")
        return tuple(cast("list[str]", items))

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        value = self._values.get(name, default)
        if type(value) is not int or not least <= value <= most:
            raise self._refuse(name, f"a whole number from {least} to {most}")
        return value

    def number(self, name: str, default: float, least: float, most: float) -> float:
        value = self._values.get(name, default)
        if type(value) not in (int, float) or not least <= value <= most:
            raise self._refuse(name, f"a number from {least} to {most}")
        return float(value)

    def choice(self, name: str, kind: type[E], default: E | None = None) -> E:
        value = self._values.get(name, default)
        if not isinstance(value, str) or value not in set(kind):
            raise self._refuse(name, f"one of {', '.join(kind)}")
        return kind(value)


def _rule(number: int, value: object) -> Rule:
    names = ("action", "member", "proofs", "issuer", "subject", "certificate", "token", "returning", "note")
    reader = _Reader(f"rule {number}", value, names)
    proofs = reader.texts("proofs", len(Proof))
    degree = reader.text("returning", "no", lambda text: text.upper() in Returning.__members__, "no, same or other")
    if not set(proofs) <= set(Proof):
        message = f"admission policy: rule {number}.proofs has to name some of {', '.join(Proof)}"
        raise UsageError(message)
    return Rule(
        action=reader.choice("action", Action),
        member=reader.text("member", "*"),
        proofs=frozenset(map(Proof, proofs)),
        issuer=reader.text("issuer", "*"),
        subject=reader.text("subject", "*"),
        certificate=reader.text(
            "certificate", "", _is_hex(32), "the SHA-256 of a certificate's public key, 64 hex digits"
        ),
        token=reader.text("token", "", _is_hex(8), "the id of a token, 16 hex digits"),
        returning=Returning[degree.upper()],
        note=reader.text("note", "", lambda _: True),
    )


def _rule_values(rule: Rule) -> dict[str, object]:
    values: dict[str, object] = {"action": rule.action.value, "member": rule.member}
    if rule.proofs:
        values["proofs"] = sorted(rule.proofs)
    names = {"issuer": rule.issuer, "subject": rule.subject}
    values |= {name: value for name, value in names.items() if value != "*"}
    others = {"certificate": rule.certificate, "token": rule.token, "note": rule.note}
    values |= {name: value for name, value in others.items() if value}
    if rule.returning is not Returning.NO:
        values["returning"] = rule.returning.name.lower()
    return values


def _is_hex(size: int) -> Callable[[str], bool]:
    return lambda text: len(text) == 2 * size and _HEX.fullmatch(text) is not None


def _certificates(whole: _Reader) -> CertificateFiles | None:
    if "certificates" not in whole:
        return None
    reader = whole.part("certificates", ("authorities", "lists", "member"))
    authorities = reader.text("authorities", "", lambda text: text.startswith("/"), "the absolute path of a file")
    if not authorities:
        message = "admission policy: certificates.authorities is missing: the file with the CA certificates, in PEM"
        raise UsageError(message)
    return CertificateFiles(authorities, reader.texts("lists", 16), MemberName.parse(reader.text("member", "cn")))


def _hook(whole: _Reader) -> HookSettings | None:
    if "hook" not in whole:
        return None
    reader = whole.part("hook", ("url", "secret", "timeout", "cache", "authorities"))
    if "url" not in reader:
        message = "admission policy: hook.url is missing"
        raise UsageError(message)
    what = f"a reference such as file:/etc/brokerkm/hook.key ({', '.join(_SECRETS)})"
    return HookSettings(
        url=reader.text(
            "url", "", _is_url, "an https URL without user name or password; http is for this machine alone"
        ),
        secret=reader.text("secret", "", lambda text: text.partition(":")[0] in _SECRETS, what),
        timeout=reader.number("timeout", 2.0, 0.1, 30.0),
        cache=reader.number("cache", 30.0, 0.0, 3600.0),
        authorities=reader.text("authorities", ""),
    )


def _is_url(text: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    plain = text.isascii() and text.isprintable() and " " not in text
    safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)  # else anybody says yes
    return plain and safe and bool(parts.hostname) and "@" not in parts.netloc


def _conduct(reader: _Reader) -> ConductPolicy:
    default = ConductPolicy()
    return ConductPolicy(
        clones=reader.choice("clones", Response, default.clones),
        changes=reader.whole("changes", default.changes, 0, 1_000_000),
        within=reader.whole("within", default.within, 1, _MAX_SECONDS),
        quarantine=reader.whole("quarantine", default.quarantine, 1, _MAX_SECONDS),
    )
