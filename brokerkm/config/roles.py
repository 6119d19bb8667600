"""The roles of client certificates, as the configuration writes them: ``NAME=ROLE, NAME=ROLE``, or a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from brokerkm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

ROLES: Final = ("viewer", "operator", "admin")


@dataclass(frozen=True, slots=True)
class ClientRoles:
    """What holders of client certificates may do, by the common name of the certificate's subject."""

    pairs: tuple[tuple[str, str], ...]

    @classmethod
    def from_toml(cls, raw: object) -> ClientRoles:
        """Return what a text or a table of TOML says; raises `UsageError`."""
        if isinstance(raw, str):
            return cls.from_text(raw)
        if not isinstance(raw, dict):
            message = "it has to be NAME=ROLE, NAME=ROLE, or a table"
            raise UsageError(message)
        return cls._checked(cast("dict[str, object]", raw).items())

    @classmethod
    def from_text(cls, text: str) -> ClientRoles:
        """Return what a text says, which has no name with a comma in it; raises `UsageError`."""
        parts = [part.rpartition("=") for part in text.split(",") if part.strip()]
        return cls._checked((name.strip(), role.strip()) for name, _, role in parts)

    @classmethod
    def _checked(cls, pairs: Iterable[tuple[str, object]]) -> ClientRoles:
        found: dict[str, str] = {}
        for name, role in pairs:
            if not name or name in found:
                message = "each common name of a certificate has one role: NAME = ROLE"
                raise UsageError(message)
            if not isinstance(role, str) or role not in ROLES:
                message = f"the role of a certificate is one of {', '.join(ROLES)}"
                raise UsageError(message)
            found[name] = role
        return cls(tuple(found.items()))
