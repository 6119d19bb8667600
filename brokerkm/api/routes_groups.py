"""Routes of groups."""

from typing import Any, Final

from litestar import delete, get, patch, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody
from msgspec import UNSET

from brokerkm.api.bodies import (
    Acting,
    AfterName,
    CreateGroup,
    GroupPath,
    Limit,
    Listing,
    Now,
    PolicyBody,
    Rotate,
    SetGroup,
    SettingsBody,
    listing,
)
from brokerkm.service.api import PAGE, GroupInfo, Outcome
from brokerkm.service.credentials import Role
from brokerkm.service.terms import SUITES


def _named(body: PolicyBody | SettingsBody) -> dict[str, Any]:
    return {name: value for name in body.__struct_fields__ if (value := getattr(body, name)) is not UNSET}


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
        degree=data.degree or None,
        suite=SUITES[data.suite] if data.suite else None,
        prefix=data.prefix or None,
        beacon_interval=data.beacon_interval or None,
        policy=_named(data.policy),
        settings=_named(data.settings),
    )


@get("/groups/{group:str}", operation_id="showGroup", role=Role.VIEWER)
async def show_group(admin: Acting, group: GroupPath) -> GroupInfo:
    """Show a group."""
    return await admin.show(group)


@post("/groups/{group:str}/rotate", operation_id="rotateGroup", role=Role.OPERATOR, status_code=200)
async def rotate_group(admin: Acting, group: GroupPath, data: JSONBody[Rotate]) -> Outcome:
    """Give a group new keys."""
    return await admin.rotate(group, everything=data.everything)


@patch("/groups/{group:str}", operation_id="setGroup", role=Role.ADMIN)
async def set_group(admin: Acting, group: GroupPath, data: JSONBody[SetGroup]) -> GroupInfo:
    """Change what a group's members keep to, which is signed to them, and what the server does for it by itself."""
    return await admin.change(group, _named(data.policy), _named(data.settings))


@post("/groups/{group:str}/hand-over", operation_id="handOverGroup", role=Role.ADMIN, status_code=200)
async def hand_over_group(admin: Acting, group: GroupPath) -> Outcome:
    """Draw another signing key for a group; members follow, and invitations made from now on name it."""
    return await admin.hand_over(group)


@post("/groups/{group:str}/freeze", operation_id="freezeGroup", role=Role.ADMIN, status_code=200)
async def freeze_group(admin: Acting, group: GroupPath) -> GroupInfo:
    """Commit nothing in a group until it is thawed; what devices ask for waits."""
    return await admin.freeze(group)


@post("/groups/{group:str}/thaw", operation_id="thawGroup", role=Role.ADMIN, status_code=200)
async def thaw_group(admin: Acting, group: GroupPath) -> GroupInfo:
    """Go on with a group that was frozen."""
    return await admin.thaw(group)


@delete("/groups/{group:str}", operation_id="destroyGroup", role=Role.ADMIN, status_code=200)
async def destroy_group(admin: Acting, group: GroupPath, now: Now = False) -> Outcome:  # noqa: FBT002 - a query
    """Tell the members of a group, clear the broker of it and forget it; its audit log stays.

    `published` says whether all that is done; otherwise it is as soon as the broker can be reached.
    """
    return await admin.destroy(group, now=now)


ROUTES: Final[list[HTTPRouteHandler]] = [
    list_groups,
    create_group,
    show_group,
    rotate_group,
    set_group,
    hand_over_group,
    freeze_group,
    thaw_group,
    destroy_group,
]
