"""Enrollment of devices that have never been online: the server's side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from brokerkm.core.commit import Enrollment
from brokerkm.core.request import Join
from brokerkm.core.welcome import MAX_SPARES
from brokerkm.descriptor import Descriptor
from brokerkm.errors import RefusedError, UsageError
from brokerkm.offline import OfflineBundle
from brokerkm.service.changes import PendingJoin
from brokerkm.service.membership import Membership
from brokerkm.store.records import Status

if TYPE_CHECKING:
    from brokerkm.offline import OfflineRequest

_TRIES: Final = 5  # an eviction that comes in between makes the spares void


class OfflineEnrollment(Membership):
    """The part of `AdminApi` that is about devices whose requests come as files."""

    async def enroll_offline(
        self, request: OfflineRequest, *, broker: str | None = None, spares: int = 0
    ) -> OfflineBundle:
        """Seat the device whose request somebody has carried here, and return what is to be carried back."""
        server, live, member = self._server, self._thawed(request.group), request.member
        if not 0 <= spares <= MAX_SPARES:
            message = f"spares: 0 to {MAX_SPARES}, not {spares}"
            raise UsageError(message)
        url = broker or server.broker
        if url is None:
            message = "no broker is known here: name the URL at which the device will reach it"
            raise UsageError(message)
        try:
            join = Join.decode(request.join, live.record.suite)
            join.verify_signature(live.name, member)
        except RefusedError as error:
            suite = live.record.suite.name.lower().replace("_", "-")
            message = f"the request is none of {member} for group {live.name} with its suite {suite}: {error}"
            raise UsageError(message) from error
        bundled = Descriptor(
            broker=url,
            group=live.name,
            prefix=live.record.prefix,
            suite=live.record.suite,
            server_key=live.group.server_key,
        )
        await self.add_member(live.name, member, join.identity)
        who = Enrollment(member, join.identity, join.kem_public, join.nonce, spares)
        for _ in range(_TRIES):
            await live.seat(PendingJoin(who, join.time, None, self._actor, counter=join.counter))
            known = await self._known(live, member)
            if known is None or known.status is not Status.SEATED or known.nonce != join.nonce:
                message = (
                    f"{member} has got no place in group {live.name}: it is full, or the request's key cannot be "
                    "sealed to"
                )
                raise UsageError(message)
            welcome, given = await live.welcome(who)
            if given == spares:
                return OfflineBundle(bundled, member, welcome)
        message = (
            f"{member} has its place, but the group's keys change so fast that its spare keys are void before they are "
            "in the bundle: try again"
        )
        raise UsageError(message)
