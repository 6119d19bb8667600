"""Which group a topic belongs to, and which topics the broker is asked for.

A server alone subscribes the requests of its groups. Servers that share their groups subscribe the requests of all of
them through shared subscriptions (MQTT 5, section 4.8.2), where the broker has those: each request goes to one of them.
Elsewhere only the leader of a group subscribes.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from brokerkm.errors import TransportError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from brokerkm.core.names import Topics
    from brokerkm.transport import Transport

_log = logging.getLogger(__name__)

SHARE: Final = "brokerkm"  # the name of the servers' shared subscriptions


class Route(NamedTuple):
    """A group and its topics."""

    group: str
    topics: Topics


class Routes:
    """The groups that are known, and those of them that are led here.

    Args:
        sharing: whether other servers may lead groups of the same store.
    """

    def __init__(self, transport: Transport | None, *, sharing: bool) -> None:
        self._transport: Final = transport
        self._sharing: Final = sharing
        self._by_root: Final[dict[str, Route]] = {}
        self._led: Final[set[str]] = set()
        self._subscribed: Final[dict[str, set[str]]] = {}  # filters of a group that are in force

    def find(self, topic: str) -> Route | None:
        """Return the route of ROOT/b, ROOT/r/MEMBER or ROOT/n/LEVEL/INDEX."""
        for parts in (1, 2, 3):
            route = self._by_root.get(topic.rsplit("/", parts)[0])
            if route is not None:
                return route
        return None

    def known(self) -> dict[str, Topics]:
        """Return the topics of all groups by name."""
        return {route.group: route.topics for route in self._by_root.values()}

    def add(self, group: str, topics: Topics, *, led: bool) -> None:
        """Know a group; `settle` then subscribes what it needs."""
        self._by_root[topics.root] = Route(group, topics)
        (self._led.add if led else self._led.discard)(group)

    def remove(self, group: str) -> None:
        """Know a group no longer."""
        self._led.discard(group)
        for root in [root for root, route in self._by_root.items() if route.group == group]:
            del self._by_root[root]

    def check_apart(self, group: str, topics: Topics) -> None:
        """Raise `UsageError` if `topics` would lie among those of another group."""
        mine = f"{topics.root}/"
        for other in self._by_root.values():
            theirs = f"{other.topics.root}/"
            if other.group != group and (mine.startswith(theirs) or theirs.startswith(mine)):
                message = (
                    f"the topics below {mine} would get mixed up with those of group {other.group}: take another prefix"
                )
                raise UsageError(message)

    async def settle(self, groups: Iterable[str] | None = None) -> None:
        """Subscribe and unsubscribe what has changed, for all groups or these; raises `TransportError`."""
        if self._transport is None:
            return
        wanted = {name: self._filters(name, topics) for name, topics in self.known().items()}
        names = set(self._subscribed) | set(wanted) if groups is None else set(groups)
        missing = {name: wanted.get(name, set()) - self._subscribed.get(name, set()) for name in names}
        extra = {name: self._subscribed.get(name, set()) - wanted.get(name, set()) for name in names}
        new = [one for filters in missing.values() for one in sorted(filters)]
        if new:
            await self._transport.subscribe(new)
        for name, filters in missing.items():
            self._subscribed.setdefault(name, set()).update(filters)
        await self._unsubscribe(extra)

    def note(self, group: str, topics: Collection[str]) -> None:
        """Take into account that these topics of a group have been subscribed."""
        self._subscribed.setdefault(group, set()).update(topics)

    async def _unsubscribe(self, extra: dict[str, set[str]]) -> None:
        assert self._transport is not None  # noqa: S101 - checked by the caller
        old = [one for filters in extra.values() for one in sorted(filters)]
        if old:
            with contextlib.suppress(TransportError):  # what still comes is passed over
                await self._transport.unsubscribe(old)
        for name, filters in extra.items():
            self._subscribed.get(name, set()).difference_update(filters)

    def _filters(self, group: str, topics: Topics) -> set[str]:
        filters = {topics.beacon} if group in self._led else set[str]()
        if self._sharing and self._transport is not None and self._transport.supports_shared:
            filters.add(f"$share/{SHARE}/{topics.requests}")
        elif group in self._led:
            filters.add(topics.requests)
        return filters
