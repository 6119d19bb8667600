"""Routes of the servers that share a database: which there are, and which leads what."""

from typing import Annotated, Final

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody
from msgspec import Meta, Struct

from brokerkm.api.bodies import Acting, GroupPath, Listing
from brokerkm.service.credentials import Role
from brokerkm.store.lease import ServerRecord


class Move(Struct, forbid_unknown_fields=True, frozen=True):
    """Where a group is to be led: the id of a server."""

    to: Annotated[str, Meta(min_length=1, max_length=300)]


@get("/servers", operation_id="listServers", role=Role.VIEWER)
async def list_servers(admin: Acting) -> Listing[ServerRecord]:
    """List the servers that share the database, and the groups that each leads."""
    return Listing(await admin.servers(), None)


@post("/groups/{group:str}/move", operation_id="moveGroup", role=Role.ADMIN, status_code=202)
async def move_group(admin: Acting, group: GroupPath, data: JSONBody[Move]) -> None:
    """Have another server lead a group, and keep it there while that server runs; it takes over within seconds."""
    await admin.move(group, data.to)


ROUTES: Final[list[HTTPRouteHandler]] = [list_servers, move_group]
