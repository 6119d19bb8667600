"""Routes of the server itself: its status, its audit log, what happens."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from http import HTTPStatus
from typing import Annotated, Any, Final

from litestar import Request, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import ResponseSpec
from litestar.params import QueryParameter
from litestar.response import Stream

from brokerkm.api.bodies import Acting, AfterNumber, Limit, Listing, listing
from brokerkm.api.problems import ProblemError
from brokerkm.service.api import PAGE, AuditInfo, AuditVerdict, ServerStatus
from brokerkm.service.credentials import Role

KEEP_ALIVE: Final = 15.0  # seconds until a comment shows that the stream is alive
MAX_FOLLOWERS: Final = 64
MAX_OF_ONE: Final = 16

Chain = Annotated[
    str,
    QueryParameter(pattern="^[A-Za-z0-9._-]*$", max_length=64, description="A group; empty for the server's own log."),
]


@get("/status", operation_id="showStatus", role=Role.VIEWER)
async def show_status(admin: Acting) -> ServerStatus:
    """Show how the server is."""
    return await admin.status()


@get("/audit", operation_id="listAudit", role=Role.VIEWER)
async def list_audit(
    admin: Acting, group: Chain = "", after: AfterNumber = 0, limit: Limit = PAGE
) -> Listing[AuditInfo]:
    """List what was done in a group, or to the server, and by whom; oldest first."""
    return listing(await admin.audit(group, after=after, limit=limit), limit, "number")


@get("/audit/verify", operation_id="verifyAudit", role=Role.VIEWER)
async def verify_audit(admin: Acting, group: Chain = "") -> AuditVerdict:
    """Check that nobody has changed a group's audit log, or the server's own."""
    return await admin.verify_audit(group)


@get(
    "/events",
    operation_id="followEvents",
    role=Role.VIEWER,
    responses={
        200: ResponseSpec(
            str, description="Server-sent events, until either side ends.", media_type="text/event-stream"
        )
    },
)
async def follow_events(admin: Acting, request: Request[Any, Any, Any]) -> Stream:
    """Follow what happens: each event has a kind as its name and a JSON object as its data."""
    state = request.app.state
    if len(state.followers) >= MAX_FOLLOWERS or state.followers.count(admin.actor) >= MAX_OF_ONE:
        message = f"{MAX_OF_ONE} followers of one caller and {MAX_FOLLOWERS} of all are the most: end another one"
        raise ProblemError(HTTPStatus.TOO_MANY_REQUESTS, "too-many-requests", message, {"retry-after": "10"})
    return Stream(_events(admin, state.stopping, state.followers), media_type="text/event-stream")


async def _events(admin: Acting, stopping: asyncio.Event, followers: list[str]) -> AsyncIterator[bytes]:
    followers.append(admin.actor)
    try:
        async for text in _followed(admin, stopping):
            yield text
    finally:
        followers.remove(admin.actor)


async def _followed(admin: Acting, stopping: asyncio.Event) -> AsyncIterator[bytes]:
    async with aclosing(admin.events()) as events:
        ended = asyncio.ensure_future(stopping.wait())
        following: asyncio.Future[Any] = asyncio.ensure_future(anext(events))
        try:
            await asyncio.sleep(0)  # lets the listening begin
            yield b": following\n\n"
            while not ended.done():
                await asyncio.wait({ended, following}, timeout=KEEP_ALIVE, return_when=asyncio.FIRST_COMPLETED)
                if following.done():
                    event = following.result()
                    text = json.dumps(dataclasses.asdict(event))
                    yield f"event: {event.kind}\ndata: {text}\n\n".encode()
                    following = asyncio.ensure_future(anext(events))
                elif not ended.done():
                    yield b": alive\n\n"
        finally:
            for task in (ended, following):
                task.cancel()
            await asyncio.gather(ended, following, return_exceptions=True)


ROUTES: Final[list[HTTPRouteHandler]] = [show_status, list_audit, verify_audit, follow_events]
