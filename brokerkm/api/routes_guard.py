"""Routes of the broker's guard: whether it is in step, and which of the application's topics members have."""

from typing import Final

from litestar import get, patch, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody
from msgspec import UNSET

from brokerkm.api.bodies import Acting, GroupPath, SetData
from brokerkm.service.api import DataTopics, GuardDifference, GuardInfo
from brokerkm.service.credentials import Role


@get("/guard", operation_id="showGuard", role=Role.VIEWER)
async def show_guard(admin: Acting) -> GuardInfo:
    """Show whether the broker's guard is in step."""
    return await admin.show_guard()


@get("/guard/differences", operation_id="compareGuard", role=Role.OPERATOR)
async def compare_guard(admin: Acting) -> list[GuardDifference]:
    """Compare the broker with the store, and list where they differ, the first thousand."""
    return await admin.compare_guard()


@post("/guard/sync", operation_id="syncGuard", role=Role.OPERATOR, status_code=200)
async def sync_guard(admin: Acting) -> GuardInfo:
    """Make the broker as the store says."""
    return await admin.sync_guard()


@get("/groups/{group:str}/data", operation_id="showData", role=Role.VIEWER)
async def show_data(admin: Acting, group: GroupPath) -> DataTopics:
    """Show which topics of the application a group's members have at a guarded broker."""
    return await admin.show_data(group)


@patch("/groups/{group:str}/data", operation_id="setData", role=Role.ADMIN)
async def set_data(admin: Acting, group: GroupPath, data: JSONBody[SetData]) -> DataTopics:
    """Say which topics of the application a group's members have at a guarded broker."""
    return await admin.set_data(
        group,
        publish=None if data.publish is UNSET else data.publish,
        subscribe=None if data.subscribe is UNSET else data.subscribe,
    )


ROUTES: Final[list[HTTPRouteHandler]] = [show_guard, compare_guard, sync_guard, show_data, set_data]
