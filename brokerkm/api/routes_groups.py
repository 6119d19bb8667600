"""Routes of groups."""

import dataclasses
from typing import Any, Final

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody
from msgspec import UNSET

from brokerkm.api.bodies import Acting, AfterName, CreateGroup, GroupPath, Limit, Listing, PolicyBody, Rotate, listing
from brokerkm.core.crypto import Algorithm, Suite
from brokerkm.core.policy import Policy
from brokerkm.service.api import PAGE, GroupInfo, Outcome
from brokerkm.service.credentials import Role


def adopt(policy: Policy, body: PolicyBody) -> Policy:
    """Return a policy with what a body names."""
    named: dict[str, Any] = {
        name: value for name in body.__struct_fields__ if (value := getattr(body, name)) is not UNSET
    }
    if "algorithm" in named:
        named["algorithm"] = Algorithm[named["algorithm"].upper().replace("-", "_")]
    return dataclasses.replace(policy, **named)


@get("/groups", operation_id="listGroups", role=Role.VIEWER)
async def list_groups(admin: Acting, after: AfterName = "", limit: Limit = PAGE) -> Listing[GroupInfo]:
    """List the groups by name."""
    groups = [info for info in await admin.list_groups() if info.name > after]
    return listing(groups[:limit], limit, "name")


@post("/groups", operation_id="createGroup", role=Role.ADMIN)
async def create_group(admin: Acting, data: JSONBody[CreateGroup]) -> GroupInfo:
    """Create a group with a signing key of its own."""
    return await admin.create_group(
        data.name,
        degree=data.degree,
        suite=Suite[data.suite.upper().replace("-", "_")],
        policy=adopt(Policy(), data.policy),
        prefix=data.prefix,
        beacon_interval=data.beacon_interval,
    )


@get("/groups/{group:str}", operation_id="showGroup", role=Role.VIEWER)
async def show_group(admin: Acting, group: GroupPath) -> GroupInfo:
    """Show a group."""
    return await admin.show(group)


@post("/groups/{group:str}/rotate", operation_id="rotateGroup", role=Role.OPERATOR, status_code=200)
async def rotate_group(admin: Acting, group: GroupPath, data: JSONBody[Rotate]) -> Outcome:
    """Give a group new keys."""
    return await admin.rotate(group, everything=data.everything)


ROUTES: Final[list[HTTPRouteHandler]] = [list_groups, create_group, show_group, rotate_group]
