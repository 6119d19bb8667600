"""Routes of members."""

from collections import Counter
from http import HTTPStatus
from typing import Any, Final

from litestar import Request, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody
from msgspec import UNSET

from brokerkm.api.bodies import (
    Acting,
    AddMember,
    AfterName,
    Bundle,
    EnrollOffline,
    Epoch,
    EvictMany,
    GroupPath,
    ImportedRow,
    ImportReport,
    Limit,
    Listing,
    MemberPath,
    Pattern,
    StatusName,
    Time,
    Urgency,
    listing,
)
from brokerkm.api.importing import MAX_IMPORT, read_rows
from brokerkm.api.problems import ProblemError
from brokerkm.offline import OfflineRequest
from brokerkm.service.api import IMPORT_ROWS, PAGE, Evicted, Imported, MemberFilter, MemberInfo, Outcome
from brokerkm.service.credentials import Role


@get("/groups/{group:str}/members", operation_id="listMembers", role=Role.VIEWER)
async def list_members(  # noqa: PLR0917 - one argument for each query parameter
    admin: Acting,
    group: GroupPath,
    after: AfterName = "",
    limit: Limit = PAGE,
    status: StatusName = None,
    pattern: Pattern = "*",
    unseen_since: Time = None,
    behind: Epoch = None,
) -> Listing[MemberInfo]:
    """List members by id: those to which all that is named applies."""
    which = MemberFilter(status, pattern, unseen_since, behind)
    return listing(await admin.list_members(group, after=after, limit=limit, which=which), limit, "member")


@post("/groups/{group:str}/members", operation_id="addMember", role=Role.OPERATOR)
async def add_member(admin: Acting, group: GroupPath, data: JSONBody[AddMember]) -> MemberInfo:
    """List a public key that may join under an id, without a token."""
    return await admin.add_member(group, data.member, bytes.fromhex(data.identity))


@post("/groups/{group:str}/offline", operation_id="enrollOffline", role=Role.OPERATOR)
async def enroll_offline(admin: Acting, group: GroupPath, data: JSONBody[EnrollOffline]) -> Bundle:
    """Seat a device whose request somebody has carried here, and answer with what is to be carried back to it."""
    request = OfflineRequest(group, data.member, bytes.fromhex(data.join))
    return Bundle((await admin.enroll_offline(request, broker=data.broker, spares=data.spares)).to_json())


@post(
    "/groups/{group:str}/import",
    operation_id="importMembers",
    role=Role.OPERATOR,
    status_code=200,
    request_max_body_size=MAX_IMPORT,
    repeatable=True,
)
async def import_members(admin: Acting, group: GroupPath, request: Request[Any, Any, Any]) -> ImportReport:
    """Take in many members: CSV with the columns member and identity, or one JSON object a line.

    With a third column, kem_public, or by the request that a device has made to be carried here, a device is seated at
    once. What is there already stays as it is, so that an import which broke off can be sent again as a whole.
    """
    await admin.show(group)
    rows: list[ImportedRow] = []
    count: Counter[str] = Counter()
    async for batch in read_rows(request.stream(), request.content_type[0], IMPORT_ROWS):
        done = iter(await admin.import_members(group, [row.said for row in batch if not row.wrong]))
        for row in batch:
            found = Imported(row.said.member, "refused", row.wrong, row.field) if row.wrong else next(done)
            count[found.result] += 1
            rows.append(ImportedRow(row.line, found.member, found.result, found.reason, found.field))  # type: ignore[arg-type]
    return ImportReport(count["added"], count["seated"], count["unchanged"], count["refused"], rows)


@post("/groups/{group:str}/evict", operation_id="evictMembers", role=Role.OPERATOR, status_code=200)
async def evict_members(admin: Acting, group: GroupPath, data: JSONBody[EvictMany]) -> Evicted:
    """Cut many members off in one commit: those that are named, or the seated ones that a filter means."""
    if data.members is not UNSET and data.filter is UNSET:
        return await admin.evict_many(group, data.members, urgent=data.urgent, dry_run=data.dry_run)
    if data.filter is not UNSET and data.members is UNSET:
        which = MemberFilter(None, data.filter.pattern, data.filter.unseen_since, data.filter.behind)
        return await admin.evict_many(group, which, urgent=data.urgent, dry_run=data.dry_run)
    raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", "name either members or a filter")


@get("/groups/{group:str}/members/{member:str}", operation_id="showMember", role=Role.VIEWER)
async def show_member(admin: Acting, group: GroupPath, member: MemberPath) -> MemberInfo:
    """Show what is known of a member id."""
    return await admin.show_member(group, member)


@post("/groups/{group:str}/members/{member:str}/evict", operation_id="evictMember", role=Role.OPERATOR, status_code=200)
async def evict_member(admin: Acting, group: GroupPath, member: MemberPath, data: JSONBody[Urgency]) -> Outcome:
    """Cut a member off: it cannot read what is sent from now on, nor come back by itself."""
    return await admin.evict(group, member, urgent=data.urgent)


@post(
    "/groups/{group:str}/members/{member:str}/readmit",
    operation_id="readmitMember",
    role=Role.OPERATOR,
    status_code=200,
)
async def readmit_member(admin: Acting, group: GroupPath, member: MemberPath) -> MemberInfo:
    """Let an evicted member join again with the identity key that it had."""
    return await admin.readmit(group, member)


@post(
    "/groups/{group:str}/members/{member:str}/refresh",
    operation_id="refreshMember",
    role=Role.OPERATOR,
    status_code=200,
)
async def refresh_member(admin: Acting, group: GroupPath, member: MemberPath) -> MemberInfo:
    """Give a seated member a new leaf key with the next commit."""
    return await admin.refresh(group, member)


ROUTES: Final[list[HTTPRouteHandler]] = [
    list_members,
    add_member,
    enroll_offline,
    import_members,
    evict_members,
    show_member,
    evict_member,
    readmit_member,
    refresh_member,
]
