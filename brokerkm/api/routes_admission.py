"""Routes of admission: a group's policy, those who wait for a yes, those in quarantine, replaced hardware."""

from typing import Any, Final

from litestar import get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody

from brokerkm.api.bodies import Acting, GroupPath, MemberPath
from brokerkm.service.api import MemberInfo
from brokerkm.service.credentials import Role

_MEMBER: Final = "/groups/{group:str}/members/{member:str}"


@get("/groups/{group:str}/admission", operation_id="showAdmission", role=Role.OPERATOR)
async def show_admission(admin: Acting, group: GroupPath) -> dict[str, Any]:
    """Show a group's admission policy."""
    return await admin.show_admission(group)


@put("/groups/{group:str}/admission", operation_id="setAdmission", role=Role.ADMIN)
async def set_admission(admin: Acting, group: GroupPath, data: JSONBody[dict[str, Any]]) -> dict[str, Any]:
    """Replace a group's admission policy; it names files and URLs, which the server reads and asks."""
    return await admin.set_admission(group, data)


@post(
    f"{_MEMBER}/approve",
    operation_id="approveMember",
    role=Role.OPERATOR,
    status_code=200,
)
async def approve(admin: Acting, group: GroupPath, member: MemberPath) -> MemberInfo:
    """Say yes to one that waits."""
    return await admin.approve(group, member)


@post(f"{_MEMBER}/reject", operation_id="rejectMember", role=Role.OPERATOR, status_code=200)
async def reject(admin: Acting, group: GroupPath, member: MemberPath) -> MemberInfo:
    """Say no to one that waits."""
    return await admin.reject(group, member)


@post(f"{_MEMBER}/lift", operation_id="liftMember", role=Role.OPERATOR, status_code=200)
async def lift(admin: Acting, group: GroupPath, member: MemberPath) -> MemberInfo:
    """Let a member out of quarantine."""
    return await admin.lift(group, member)


@post(
    f"{_MEMBER}/release",
    operation_id="releaseMember",
    role=Role.OPERATOR,
    status_code=200,
)
async def release(admin: Acting, group: GroupPath, member: MemberPath) -> MemberInfo:
    """Free a member id from its device, which is evicted, for another one."""
    return await admin.release(group, member)


ROUTES: Final[list[HTTPRouteHandler]] = [show_admission, set_admission, approve, reject, lift, release]
