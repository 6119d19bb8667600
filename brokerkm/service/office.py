"""What all administration shares: the server that is administered, by whose will, and how changes reach its store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar

from brokerkm.errors import StoreError, UnknownNameError, UsageError
from brokerkm.service.api import Outcome
from brokerkm.service.feed import Kind
from brokerkm.store.records import AuditEntry, Change, Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from brokerkm.service.live import LiveGroup
    from brokerkm.service.server import KeyServer
    from brokerkm.store.protocol import Store
    from brokerkm.store.records import MemberRecord

_P = ParamSpec("_P")
_T = TypeVar("_T")

PUBLISHED_WAIT: Final = 5.0  # seconds that an outcome waits for the broker


class Office:
    """A started server and who administers it.

    Args:
        actor: the name that the audit log gets, such as ``operator:alice``.
    """

    def __init__(self, server: KeyServer, actor: str) -> None:
        self._server: Final = server
        self._actor: Final = actor

    @property
    def server(self) -> KeyServer:
        """The server that is administered."""
        return self._server

    @property
    def actor(self) -> str:
        """By whose will."""
        return self._actor

    async def _call(self, function: Callable[Concatenate[Store, _P], _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Return what `function` makes of the store, in the store's thread and apart from all transactions."""
        return await self._server.desk.call(function, self._server.store, *args, **kwargs)

    async def _write(self, group: str, change: Change) -> None:
        await self._server.desk.call(self._server.store.write, group, change)

    def _tell(self, live: LiveGroup, member: str, status: Status) -> None:
        """Say how a member stands after a change that was no commit."""
        self._server.feed.emit(Kind.STANDING, live.name, member, status=status.name.lower())

    def _entry(self, action: str, subject: str, **details: str | int | bool) -> AuditEntry:
        return AuditEntry(self._now(), self._actor, action, subject, details)

    def _now(self) -> int:
        return int(self._server.clock() * 1000)

    def _group(self, name: str, *, destroyed: bool = False) -> LiveGroup:
        """Return a group that is led here; raises `UnknownNameError`, for one that is destroyed unless that will do."""
        found = self._server.groups.get(name)
        if found is None and name in self._server.leadership.unled:
            message = f"group {name} is not served: {self._server.leadership.unled[name]}"
            raise StoreError(message)
        if found is None:
            known = ", ".join(sorted(self._server.groups)[:20]) or "none yet: create one"
            message = f"there is no group {name[:80]!r}; there are: {known}"
            raise UnknownNameError(message)
        if found.record.destroyed and not destroyed:
            message = f"group {name} is destroyed; it is forgotten as soon as the broker is cleared of it"
            raise UnknownNameError(message)
        return found

    def _thawed(self, name: str) -> LiveGroup:
        """Return a group in which changes are made; raises `UsageError` for a frozen one."""
        found = self._group(name)
        if found.record.frozen:
            message = f"group {name} is frozen: thaw it first"
            raise UsageError(message)
        return found

    async def _known(self, live: LiveGroup, member: str) -> MemberRecord | None:
        return await self._server.desk.call(self._server.store.member, live.name, member)

    async def _outcome(self, live: LiveGroup, stored: Awaitable[tuple[int, int]]) -> Outcome:
        epoch, sequence = await stored
        publisher = self._server.publisher
        return Outcome(epoch, publisher is not None and await publisher.published(live.name, sequence, PUBLISHED_WAIT))
