"""`brokerkm.guard.seam.BrokerGuard` for RabbitMQ, whose rules are answered by `brokerkm guard serve`.

There is nothing to tell the broker of those who may be there: it asks. Who must not be there any more is disconnected
through the management API; nothing lets it in again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from brokerkm.core.login import Principal
from brokerkm.guard.authority import Authority, DeniedError
from brokerkm.guard.seam import Difference
from brokerkm_rabbitmq.management import Management

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from brokerkm.guard.fleet import Fleet
    from brokerkm.guard.rules import Grant


class RabbitmqGuard:
    """See the module, and the seam for the options; ``url`` is that of the management API."""

    by_identity: ClassVar = True

    def __init__(self, fleet: Fleet, options: Mapping[str, str]) -> None:
        self._fleet: Final = fleet
        self._authority: Final = Authority(fleet, applicants=options.get("applicants", "true") == "true")
        self._management: Final = Management(options.get("url", ""), options)
        self._server: Final = options.get("server", "")

    async def open(self) -> None:
        """Reach the management API; raises `TransportError`."""
        await self._management.check()

    async def close(self) -> None:
        """Hang up."""
        await self._management.close()

    async def admit(self, grant: Grant) -> None:
        """Do nothing: the broker asks."""

    async def evict(self, group: str, member: str) -> None:
        """Disconnect a member, under each name that it may have logged in by; raises `TransportError`."""
        for username in await self._names(group, member):
            if not await self._may_stay(username):
                await self._management.disconnect(username)

    async def forget(self, group: str) -> None:
        """Disconnect all members of a group; raises `TransportError`."""
        only = None if await self._fleet.groups() else group
        for username in await self._management.users():
            principal = Principal.parse(username, only)
            if principal is not None and principal.group == group and username != self._server:
                await self._management.disconnect(username)

    async def diff(self) -> AsyncIterator[Difference]:
        """Yield who is connected and should not be; raises `TransportError`."""
        async for principal, _ in self._intruders():
            yield Difference(principal.group, principal.member, "is connected and should not be")

    async def sync(self, progress: Callable[[int, int], None]) -> int:
        """Disconnect who should not be connected; raises `TransportError`."""
        found = [username async for _, username in self._intruders()]
        for number, username in enumerate(found, 1):
            await self._management.disconnect(username)
            progress(number, len(found))
        return len(found)

    async def _names(self, group: str, member: str) -> list[str]:
        alone = len(await self._fleet.groups()) <= 1
        return [Principal(group, member).username, *([member] if alone else [])]

    async def _intruders(self) -> AsyncIterator[tuple[Principal, str]]:
        """Yield who is connected by a device's name and is let in no more; users of others are none of ours."""
        groups = await self._fleet.groups()
        only = next(iter(groups)) if len(groups) == 1 else None
        for username in sorted(await self._management.users()):
            principal = Principal.parse(username, only)
            if username == self._server or principal is None or principal.group not in groups:
                continue
            if not await self._may_stay(username):
                yield principal, username

    async def _may_stay(self, username: str) -> bool:
        try:
            await self._authority.grant(username)
        except DeniedError:
            return False
        return True
