"""Who asks: the credential behind a request, and the role that it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from brokerkm.service.credentials import Role

STATE: Final = "brokerkm_principal"  # key in the state of an ASGI scope


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who has shown who they are.

    Args:
        name: as the audit log has it after ``operator:``; ``token:NAME``, ``certificate:NAME``, or a local user.
        secret_digest: what tells credentials of one name apart, so that a new one never gets the answers of the old.
    """

    name: str
    role: Role
    secret_digest: str = ""

    @property
    def actor(self) -> str:
        """The name in the audit log."""
        return f"operator:{self.name}"
