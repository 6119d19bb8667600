"""Which groups this server leads: the Protocol between a `KeyServer` and what decides that, and the simple case.

`SoleLeadership` leads all groups of a store that is this server's own; `brokerkm.service.leased` shares them by leases.
"""

from __future__ import annotations

import logging
import secrets
import socket
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, Protocol

from brokerkm.errors import StoreError, UsageError
from brokerkm.service.fencing import Tenure
from brokerkm.store.lease import ServerRecord

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

    from brokerkm.store.protocol import Store

_log = logging.getLogger(__name__)


class Host(Protocol):
    """The key server, as its leadership uses it."""

    async def stored(self) -> list[str]:
        """Return the names of all groups that the store has."""
        ...

    async def lead(self, tenures: Mapping[str, Tenure]) -> None:
        """Load these groups and serve them; raises `StoreError` for the first that cannot be, and serves none."""

    async def yield_(self, group: str, *, gracefully: bool, why: StoreError | None = None) -> bool:
        """Stop serving a group and forget its keys; gracefully, commit and publish first what waits.

        Args:
            why: what those are told whose changes wait; by default that another server leads the group.

        Returns:
            whether nothing of the group can be under way any more.
        """
        ...

    async def reload(self, group: str, tenure: Tenure) -> None:
        """Load a group again that the store may be ahead of, with the changes that wait."""

    async def know(self, groups: Collection[str]) -> None:
        """Take requests for these groups, whoever leads them, as far as the broker shares them out."""

    async def take(self, group: str, member: str, payload: bytes) -> None:
        """Handle a request that another server has read; raises `StoreError`."""

    def seen(self, live: Collection[str], duration: float) -> None:
        """Learn which servers are alive, and for how long a lease lasts, in seconds."""

    def hurry(self, groups: Iterable[str]) -> None:
        """Try at once what had to wait because a lease had run out."""


class Leadership(Protocol):
    """Decides which groups a `KeyServer` leads."""

    def guard(self, store: Store) -> Store:
        """Return the store as this server may use it."""
        ...

    async def start(self, host: Host) -> None:
        """Lead what is to be led, from now until `stop`; raises `StoreError`."""

    async def stop(self, *, drained: bool) -> None:
        """Give up what is led; the host has stopped serving it.

        Args:
            drained: whether nothing can be under way any more.
        """

    def retire(self) -> None:
        """Take on nothing more."""

    async def claim(self, group: str) -> Tenure | None:
        """Return the tenure of a new group, or None if another server has been faster."""
        ...

    async def give_up(self, group: str) -> None:
        """Forget a group that has been destroyed."""

    def forward(self, group: str, member: str, payload: bytes) -> None:
        """Hand a member's request on to whoever leads the group."""

    async def call(self, group: str, name: str, arguments: object) -> object:
        """Have the server that leads a group perform a call; arguments and result as JSON has them."""
        ...

    def answer_calls(self, answer: Callable[[str, str, object], Awaitable[object]]) -> None:
        """Have `answer` perform what other servers call: group, name, arguments and result as JSON has them."""

    def lapse(self) -> str | None:
        """Return why this server may change nothing now, "" if it may, None if it needs nobody's leave."""
        ...

    @property
    def unled(self) -> Mapping[str, str]:
        """Groups that this server was to lead and cannot, and why."""
        ...

    async def withdraw(self, group: str, error: StoreError) -> None:
        """Have the host stop serving a group that it must not serve; raises `error` if a server alone has no other."""

    async def servers(self) -> list[ServerRecord]:
        """Return all servers and what they lead."""
        ...

    async def move(self, group: str, to: str) -> None:
        """Hand a group over to another server; raises `UsageError` if there is no such server or group."""


class SoleLeadership:
    """Leads all groups of a store that no other server uses."""

    def __init__(self) -> None:
        self._host: Host | None = None
        self._me: Final = describe_server()
        self._unled: Final[dict[str, str]] = {}

    @property
    def unled(self) -> Mapping[str, str]:
        """Groups that could not be led at the start, and why."""
        return self._unled

    def guard(self, store: Store) -> Store:
        """Return the store itself."""
        return store

    async def start(self, host: Host) -> None:
        """Lead all groups, or those that can be led; raises `StoreError` if none can."""
        self._host = host
        names = await host.stored()
        try:
            await host.lead({name: Tenure() for name in names})
        except StoreError as error:
            if len(names) == 1:
                raise
            first = error
        else:
            return
        for name in names:
            try:
                await host.lead({name: Tenure()})
            except StoreError as error:
                _log.critical("group %s is not served, the others are: %s", name, error)
                self._unled[name] = str(error)
        if len(self._unled) == len(names):
            raise first

    async def stop(self, *, drained: bool) -> None:
        """Do nothing: nobody else waits."""

    def retire(self) -> None:
        """Do nothing: nothing comes by itself."""

    async def claim(self, group: str) -> Tenure | None:  # noqa: ARG002 - there is nobody else
        """Return a tenure without end."""
        return Tenure()

    async def give_up(self, group: str) -> None:
        """Do nothing."""

    def forward(self, group: str, member: str, payload: bytes) -> None:
        """Drop the request: nobody leads its group."""

    async def call(self, group: str, name: str, arguments: object) -> object:  # noqa: ARG002 - there is nobody else
        """Refuse."""
        message = f"there is no group {group[:80]!r}"
        raise UsageError(message)

    def answer_calls(self, answer: Callable[[str, str, object], Awaitable[object]]) -> None:
        """Do nothing: nobody calls."""

    def lapse(self) -> str | None:
        """Return None: there are no leases."""
        return None

    async def withdraw(self, group: str, error: StoreError) -> None:
        """Have the host stop serving a group; raises `error` if it serves no other."""
        if self._host is None:
            return
        _log.critical("group %s is not served any longer: %s", group, error)
        await self._host.yield_(group, gracefully=False, why=error)
        self._unled[group] = str(error)
        if all(name in self._unled for name in await self._host.stored()):
            raise error

    async def servers(self) -> list[ServerRecord]:
        """Return this one."""
        groups = await self._host.stored() if self._host else []
        groups = [name for name in groups if name not in self._unled]
        return [replace(self._me, groups=tuple(groups))]

    async def move(self, group: str, to: str) -> None:  # noqa: ARG002 - there is nobody else
        """Refuse."""
        message = "this server is alone: groups move between servers that share a PostgreSQL database"
        raise UsageError(message)


def describe_server(url: str = "") -> ServerRecord:
    """Return this process as a server; its id is another one after each start, so that old leases are not its own."""
    host = socket.gethostname()
    return ServerRecord(f"{host}-{secrets.token_hex(3)}", host, version("brokerkm"), url)
