"""Before a group that another server led and did not give back is published for: that server's connection is ended.

The fence keeps a server that lost a lease from storing anything, but messages that it handed to its socket before it
was paused, or to a network that stood still, would still reach the broker, and an older retained message would take
a newer one's place. A broker has one connection for each client id, and servers connect under the ids that they have
among each other: connecting under the former's id ends its connection, and what the broker has not read of it by then
it never reads. The former connects again by itself, and by then it looks at its leases before it sends anything.

Where the broker does not allow that, what is kept is published again once the former shows itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import TYPE_CHECKING, Final

from brokerkm.errors import TransportError
from brokerkm.transport import Displacing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from brokerkm.transport import Transport

_log = logging.getLogger(__name__)

_FIRST_PAUSE: Final = 0.2  # seconds
_LONGEST_PAUSE: Final = 10.0


class Expulsion:
    """Who still has to be cut off, and for which groups nothing may be published before.

    Args:
        freed: called with a group for which nobody has to be cut off any more.
        restate: called with a group of which somebody who could not be cut off may have published old messages.
    """

    def __init__(self, transport: Transport, freed: Callable[[str], None], restate: Callable[[str], None]) -> None:
        self._transport: Final = transport
        self._freed: Final = freed
        self._restate: Final = restate
        self._owed: Final[set[tuple[str, str]]] = set()  # former and group
        self._spared: Final[dict[str, set[str]]] = {}  # groups of those who could not be cut off
        self._back: Final[dict[str, float]] = {}  # since when such a one has been seen again
        self._wake: Final = asyncio.Event()

    def owe(self, group: str, formers: Iterable[str]) -> None:
        """Cut off `formers`, whose leases have ended, before anything is published for `group`."""
        self._owed.update((former, group) for former in formers)
        self._wake.set()

    def holds(self, group: str) -> bool:
        """Return whether nothing may be published for a group yet."""
        return any(group == one for _, one in self._owed)

    def forget(self, group: str) -> None:
        """Leave a group to whoever leads it now."""
        self._owed.difference_update([pair for pair in self._owed if pair[1] == group])
        for groups in self._spared.values():
            groups.discard(group)

    def seen(self, live: Collection[str], now: float, patience: float) -> None:
        """Learn which servers are alive; one that has been for `patience` seconds has nothing old to send any more."""
        for former in [one for one in self._spared if one in live]:
            if now - self._back.setdefault(former, now) < patience:
                continue
            del self._back[former]
            for group in sorted(self._spared.pop(former)):
                self._restate(group)

    async def run(self) -> None:
        """Cut off whom it is owed, until cancelled."""
        pause = _FIRST_PAUSE
        while True:
            if not self._owed:
                self._wake.clear()
                await self._wake.wait()
            met = [await self._end(former) for former in sorted({former for former, _ in self._owed})]
            if all(met):
                pause = _FIRST_PAUSE
                continue
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause * random.uniform(0.5, 1)):  # noqa: S311 - spreads load
                    await self._wake.wait()
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _end(self, former: str) -> bool:
        """Cut one off, for all groups that are owed by now; return whether that is settled."""
        pairs = [pair for pair in self._owed if pair[0] == former]
        ended = False
        if isinstance(self._transport, Displacing):
            try:
                ended = await self._transport.displace(former)
            except TransportError as error:
                _log.warning("server %s cannot be cut off from the broker yet: %s", former, error)
                return False
        if not ended:
            _log.warning(
                "server %s cannot be cut off from the broker: its groups are published again if it wakes", former
            )
            self._spared.setdefault(former, set()).update(group for _, group in pairs if (former, group) in self._owed)
        self._owed.difference_update(pairs)
        for group in sorted({group for _, group in pairs}):
            if not self.holds(group):
                self._freed(group)
        return True
