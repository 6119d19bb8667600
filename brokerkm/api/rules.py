"""The rules of a key server in another process, and the way to them that is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from brokerkm.api.client import RemoteAdmin
from brokerkm.api.exchange import segment
from brokerkm.automation import RuleBook, RuleInfo, Run
from brokerkm.errors import UsageError
from brokerkm.service.admin import Admin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from brokerkm.automation import RulesApi
    from brokerkm.service.api import AdminApi


class RemoteRules:
    """`RulesApi` over the connection of a `RemoteAdmin`."""

    def __init__(self, admin: RemoteAdmin) -> None:
        self._admin: Final = admin

    async def rules(self, group: str) -> list[RuleInfo]:
        """Return all rules of a group."""
        found = await self._admin.ask("GET", _rules(group))
        return [RuleInfo(**item) for item in found["items"]]

    async def rule(self, group: str, name: str) -> RuleInfo:
        """Return one rule."""
        return RuleInfo(**await self._admin.ask("GET", f"{_rules(group)}/{segment(name)}"))

    async def add_rule(self, group: str, fields: Mapping[str, object]) -> RuleInfo:
        """Keep a new rule."""
        return RuleInfo(**await self._admin.ask("POST", _rules(group), dict(fields)))

    async def remove_rule(self, group: str, name: str) -> None:
        """Strike out a rule."""
        await self._admin.ask("DELETE", f"{_rules(group)}/{segment(name)}")

    async def run_rule(self, group: str, name: str, *, dry: bool = False, unbraked: bool = False) -> Run:
        """Run a rule now, or say what it would do."""
        body = {"dry": dry, "unbraked": unbraked}
        found = await self._admin.ask("POST", f"{_rules(group)}/{segment(name)}/run", body)
        return Run(found["done"], tuple(found["members"]), found["dry"])


def rules_of(admin: AdminApi) -> RulesApi:
    """Return the rules of whatever server `admin` administers."""
    match admin:
        case RemoteAdmin():
            return RemoteRules(admin)
        case Admin():
            return RuleBook(admin.server, actor=admin.actor)
        case _:
            message = "there are no rules behind this administration"
            raise UsageError(message)


def _rules(group: str) -> str:
    return f"/v1/groups/{segment(group)}/rules"
