"""Routes of a group's rules: what the key server does there by itself."""

from typing import Annotated, Any, Final, TypeAlias

from litestar import delete, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody, PathParameter, SkipValidation
from msgspec import Meta, Struct

from brokerkm.api.bodies import GroupPath, Listing
from brokerkm.automation import RuleBook, RuleInfo, Run
from brokerkm.service.credentials import Role

ActingBook: TypeAlias = NamedDependency[SkipValidation[RuleBook]]
"""The rules in the hands of whoever asks."""

RulePath: TypeAlias = Annotated[
    str, PathParameter(pattern=r"^[A-Za-z0-9._-]+$", max_length=64, description="A rule's name.")
]
_Part: TypeAlias = dict[str, Annotated[str, Meta(max_length=2048)] | int | None]


class NewRule(Struct, forbid_unknown_fields=True, frozen=True):
    """A rule; `trigger.on` is time, count, silence or webhook, `action.do` is rotate, evict or notify."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]+$", max_length=64)]
    trigger: _Part
    action: _Part


class RunRule(Struct, forbid_unknown_fields=True, frozen=True):
    """How to run a rule: `dry` does nothing, `unbraked` evicts more members than the rule's share."""

    dry: bool = False
    unbraked: bool = False


@get("/groups/{group:str}/rules", operation_id="listRules", role=Role.VIEWER)
async def list_rules(book: ActingBook, group: GroupPath) -> Listing[RuleInfo]:
    """List the rules of a group by name."""
    return Listing(await book.rules(group), None)


@post("/groups/{group:str}/rules", operation_id="addRule", role=Role.ADMIN)
async def add_rule(book: ActingBook, group: GroupPath, data: JSONBody[NewRule]) -> RuleInfo:
    """Add a rule to a group."""
    fields: dict[str, Any] = {"name": data.name, "trigger": data.trigger, "action": data.action}
    return await book.add_rule(group, fields)


@get("/groups/{group:str}/rules/{rule:str}", operation_id="showRule", role=Role.VIEWER)
async def show_rule(book: ActingBook, group: GroupPath, rule: RulePath) -> RuleInfo:
    """Show a rule and what became of its last run."""
    return await book.rule(group, rule)


@delete("/groups/{group:str}/rules/{rule:str}", operation_id="removeRule", role=Role.ADMIN)
async def remove_rule(book: ActingBook, group: GroupPath, rule: RulePath) -> None:
    """Remove a rule."""
    await book.remove_rule(group, rule)


@post("/groups/{group:str}/rules/{rule:str}/run", operation_id="runRule", role=Role.OPERATOR, status_code=200)
async def run_rule(book: ActingBook, group: GroupPath, rule: RulePath, data: JSONBody[RunRule]) -> Run:
    """Run a rule now, whether it is due or not."""
    return await book.run_rule(group, rule, dry=data.dry, unbraked=data.unbraked)


ROUTES: Final[list[HTTPRouteHandler]] = [list_rules, add_rule, show_rule, remove_rule, run_rule]
