"""Which member ids a device certificate names: in its common name, or in its subject alternative names."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from cryptography import x509
from cryptography.x509.oid import NameOID

from brokerkm.admission.chain import BAD
from brokerkm.core.names import is_identifier
from brokerkm.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_PLACE: Final = "{member}"
_MAX_NAMES: Final = 16  # alternative names that are looked at


class Source(enum.StrEnum):
    """Where in a certificate the member id is."""

    COMMON_NAME = "cn"
    DNS = "dns"
    URI = "uri"


@dataclass(frozen=True, slots=True)
class MemberName:
    """How a certificate names a member, as text: ``cn``, ``dns:{member}.devices.example``, ``uri:urn:dev:{member}``.

    Args:
        before, after: what surrounds the member id there.
    """

    source: Source = Source.COMMON_NAME
    before: str = ""
    after: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what `text` describes; raises `UsageError`."""
        name, _, pattern = text.partition(":")
        before, place, after = (pattern or _PLACE).partition(_PLACE)
        if name not in set(Source) or not place or _PLACE in after:
            message = (
                f"{text[:80]!r} does not say where certificates name members: cn, dns or uri, "
                "then perhaps a colon and a pattern with {member} in it"
            )
            raise UsageError(message)
        return cls(Source(name), before, after)

    def __str__(self) -> str:
        pattern = f"{self.before}{_PLACE}{self.after}"
        return self.source.value if pattern == _PLACE else f"{self.source}:{pattern}"

    def members(self, certificate: x509.Certificate) -> frozenset[str]:
        """Return the member ids that `certificate` names; raises `RefusedError` if there is none."""
        try:
            names = self._names(certificate)
        except ValueError as error:  # the library reads names only now
            raise RefusedError(*BAD, "names that cannot be read") from error
        ids = {found for name in names if (found := self._member(name)) is not None}
        if not ids:
            raise RefusedError(*BAD, "it names no member")
        return frozenset(ids)

    def _names(self, certificate: x509.Certificate) -> Iterable[str]:
        if self.source is Source.COMMON_NAME:
            common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            if len(common) != 1:
                raise RefusedError(*BAD, "it has not exactly one common name")
            return [str(common[0].value)]
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return []
        if len(names) > _MAX_NAMES:
            raise RefusedError(*BAD, "too many names")
        if self.source is Source.DNS:
            return names.get_values_for_type(x509.DNSName)
        return names.get_values_for_type(x509.UniformResourceIdentifier)

    def _member(self, name: str) -> str | None:
        """Return the member id in `name`: never one with a wildcard, a zero byte or a letter beyond ASCII."""
        if not (name.startswith(self.before) and name.endswith(self.after)):
            return None
        member = name[len(self.before) : len(name) - len(self.after)]
        return member if is_identifier(member) else None
