"""Enrollment of devices that have never been online: the server's side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brokerkm.core.commit import Enrollment
from brokerkm.core.request import Join
from brokerkm.descriptor import Descriptor
from brokerkm.errors import RefusedError, UsageError
from brokerkm.offline import OfflineBundle
from brokerkm.service.changes import PendingJoin
from brokerkm.store.records import Status

if TYPE_CHECKING:
    from brokerkm.offline import OfflineRequest
    from brokerkm.service.admin import Admin


async def enroll_offline(admin: Admin, request: OfflineRequest, broker: str | None = None) -> OfflineBundle:
    """Seat the device whose request somebody has carried here, and return what is to be carried back.

    Whoever does this vouches for the device: a file proves that it has its keys, not when it was made or for whom.

    Args:
        broker: URL at which the device reaches the broker later; by default the server's.

    Raises:
        UsageError: the request is not well-formed, another key is bound to the member id, or no broker is known.
        StoreError: it could not be stored.
    """
    server, group, member = admin.server, request.group, request.member
    url = broker or server.broker
    if url is None:
        message = "no broker is known here: name the URL at which the device will reach it"
        raise UsageError(message)
    suite = (await admin.show(group)).suite
    live = server.groups[group]
    try:
        join = Join.decode(request.join, live.record.suite)
        join.verify_signature(group, member)
    except RefusedError as error:
        message = f"the request is none of {member} for group {group} with its suite {suite}: {error}"
        raise UsageError(message) from error
    await admin.add_member(group, member, join.identity)
    who = Enrollment(member, join.identity, join.kem_public, join.nonce)
    await live.seat(PendingJoin(who, join.time, None, admin.actor, counter=join.counter))
    known = await server.desk.call(server.store.member, group, member)
    if known is None or known.status is not Status.SEATED or known.nonce != join.nonce:
        message = f"{member} has got no place in group {group}: it is full, or the request's key cannot be sealed to"
        raise UsageError(message)
    descriptor = Descriptor(
        broker=url,
        group=group,
        prefix=live.record.prefix,
        suite=live.record.suite,
        server_key=live.group.server_key,
    )
    return OfflineBundle(descriptor, member, live.group.welcome(who, server.clock()))
