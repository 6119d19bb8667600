"""The rules of a group as an operator writes them down, reads them, strikes them out and tries them."""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from brokerkm.automation.cron import Cron
from brokerkm.automation.memory import MEMORY, Memory
from brokerkm.automation.rule import RESERVED, RULE, OnSilence, OnTime, Rule
from brokerkm.automation.runner import Automation, Run
from brokerkm.automation.silence import objection
from brokerkm.errors import StoreError, UnknownNameError, UsageError
from brokerkm.store.records import AuditEntry, Change, Document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from brokerkm.service.live import LiveGroup
    from brokerkm.service.server import KeyServer

MAX_RULES: Final = 100  # of one group


@dataclass(frozen=True, slots=True)
class RuleInfo:
    """A rule as an operator sees it.

    Args:
        trigger, action: as JSON has them.
        ran: when its last run was due, ms since 1970, 0 for never; `outcome`: what became of it.
        next: when it is due by the clock, None for what the clock does not tell.
        warning: why it cannot work, "" if it can.
    """

    name: str
    trigger: dict[str, Any]
    action: dict[str, Any]
    created: int
    ran: int = 0
    outcome: str = ""
    next: int | None = None
    warning: str = ""


class RulesApi(Protocol):
    """What an operator can do with rules, in the server's process or from another.

    Every call raises `UsageError` for what cannot be done, and `StoreError` if it cannot be stored.
    """

    async def rules(self, group: str) -> list[RuleInfo]:
        """Return all rules of a group, by name."""
        ...

    async def rule(self, group: str, name: str) -> RuleInfo:
        """Return one rule."""
        ...

    async def add_rule(self, group: str, fields: Mapping[str, object]) -> RuleInfo:
        """Keep a new rule; `fields` are name, trigger and action, as JSON has them."""
        ...

    async def remove_rule(self, group: str, name: str) -> None:
        """Strike out a rule."""
        ...

    async def run_rule(self, group: str, name: str, *, dry: bool = False, unbraked: bool = False) -> Run:
        """Run a rule now, or say what it would do; `unbraked`: evict more than its share."""
        ...


class RuleBook:
    """The rules of a started server's groups; every call raises `UsageError` for what there is not.

    Args:
        automation: runs rules on demand; the server need not be running it.
        actor: the name that the audit log gets.
    """

    def __init__(self, server: KeyServer, automation: Automation | None = None, actor: str = "operator") -> None:
        self._server: Final = server
        self._automation: Final = automation or Automation(server)
        self._actor: Final = actor

    def acting(self, actor: str) -> RuleBook:
        """Return the same book in the hands of another."""
        return RuleBook(self._server, self._automation, actor)

    async def rules(self, group: str) -> list[RuleInfo]:
        """Return all rules of a group, by name; a damaged one is named with its warning."""
        live = self._live(group)
        documents = await self._server.desk.call(self._server.store.documents, group, RULE)
        return [await self._info(live, document) for document in documents]

    async def rule(self, group: str, name: str) -> RuleInfo:
        """Return one rule."""
        live = self._live(group)
        document = await self._server.desk.call(self._server.store.document, group, RULE, name)
        if document is None:
            raise _unknown(group, name)
        return await self._info(live, document)

    async def add_rule(self, group: str, fields: Mapping[str, object]) -> RuleInfo:
        """Keep a new rule, whose `fields` are as JSON has them; one of its name must not be there yet."""
        live = self._live(group)
        now = int(self._server.clock() * 1000)
        rule = Rule.from_fields(fields, now)
        known = await self._server.desk.call(self._server.store.documents, group, RULE)
        if rule.name in RESERVED or any(rule.name == one.name for one in known):
            message = f"group {group} has a rule {rule.name!r} already: remove it first, or take another name"
            raise UsageError(message)
        if len(known) >= MAX_RULES:
            message = f"group {group} has {MAX_RULES} rules, which is as many as there may be: remove some"
            raise UsageError(message)
        document = Document(RULE, rule.name, rule.to_json(), now)
        entry = AuditEntry(now, self._actor, "rule-add", rule.name, {"rule": rule.to_json().decode()})
        await live.note(document, [entry])
        return await self._info(live, document)

    async def remove_rule(self, group: str, name: str) -> None:
        """Strike out a rule and what it remembers."""
        self._live(group)
        if await self._server.desk.call(self._server.store.document, group, RULE, name) is None:
            raise _unknown(group, name)
        entry = AuditEntry(int(self._server.clock() * 1000), self._actor, "rule-remove", name)
        gone = Change(dropped=[(RULE, name), (MEMORY, name)], audit=[entry])
        await self._server.desk.call(self._server.store.write, group, gone)

    async def run_rule(self, group: str, name: str, *, dry: bool = False, unbraked: bool = False) -> Run:
        """Run a rule now, or say what it would do."""
        return await self._automation.run_rule(self._live(group), name, dry=dry, unbraked=unbraked, by=self._actor)

    def _live(self, group: str) -> LiveGroup:
        found = self._server.groups.get(group)
        if found is None:
            message = f"there is no group {group[:80]!r} here: `brokerkm group list` shows those that there are"
            raise UnknownNameError(message)
        return found

    async def _info(self, live: LiveGroup, document: Document) -> RuleInfo:
        found = await self._server.desk.call(self._server.store.document, live.name, MEMORY, document.name)
        try:
            rule, memory = Rule.from_json(document.body), Memory.from_document(found)
        except StoreError as error:
            return RuleInfo(document.name, {}, {}, document.time, warning=str(error))
        fields = rule.fields
        upcoming, warning = None, ""
        if isinstance(rule.trigger, OnTime):
            now = int(self._server.clock() * 1000)
            upcoming = Cron(rule.trigger.cron, zoneinfo.ZoneInfo(rule.trigger.zone)).next(now)
        elif isinstance(rule.trigger, OnSilence):
            warning = objection(rule.trigger, live)
        return RuleInfo(
            rule.name,
            fields["trigger"],
            fields["action"],
            rule.created,
            memory.ran,
            memory.outcome,
            upcoming,
            warning,
        )


def _unknown(group: str, name: str) -> UnknownNameError:
    return UnknownNameError(f"group {group} has no rule {name[:64]!r}: `brokerkm rule list` shows those that there are")
