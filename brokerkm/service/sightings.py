"""Signs of life of members, written to the store in batches: an Ack or a Sync is not worth an fsync of its own.

What is lost in a crash is at most the last batch, times and counters together: a request of it that the broker repeats
then is taken for a new one, and raises no suspicion.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from brokerkm.errors import StoreError
from brokerkm.store.records import Sighting

if TYPE_CHECKING:
    from brokerkm.service.desk import StoreDesk
    from brokerkm.store.protocol import Store
    from brokerkm.store.records import MemberRecord

_log = logging.getLogger(__name__)

INTERVAL: Final = 2.0  # seconds between batches
MAX_WAITING: Final = 65_536  # members; what is seen beyond that until the next batch is forgotten


class Sightings:
    """What members have shown by requests whose proof held.

    `seen` is the time of a member's newest request as the request says it: within five minutes of the server's clock,
    and later than those before.
    """

    def __init__(self, store: Store, desk: StoreDesk) -> None:
        self._store: Final = store
        self._desk: Final = desk
        self._waiting: dict[str, dict[str, Sighting]] = {}
        self._arrived: Final = asyncio.Event()

    def last(self, group: str, member: str, known: MemberRecord | None) -> Sighting:
        """Return the newest that is known of a member, which the store has as `known`."""
        stored = Sighting(member)
        if known is not None:
            stored = Sighting(member, max(known.seen, known.last_time), known.acked, known.counter)
        return _newest(stored, self._waiting.get(group, {}).get(member, stored))

    def note(self, group: str, sighting: Sighting) -> None:
        """Have a sign of life written with the next batch."""
        waiting = self._waiting.setdefault(group, {})
        earlier = waiting.get(sighting.member)
        if earlier is not None or len(waiting) < MAX_WAITING:
            waiting[sighting.member] = _newest(earlier or sighting, sighting)
            self._arrived.set()

    def forget(self, group: str, member: str) -> None:
        """Drop what waits for a member: another leaf key counts from now on."""
        self._waiting.get(group, {}).pop(member, None)

    async def run(self) -> None:
        """Write batches until cancelled."""
        while True:
            await self._arrived.wait()
            await asyncio.sleep(INTERVAL)
            self._arrived.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write what waits; what cannot be written waits on."""
        for group, waiting in list(self._waiting.items()):
            self._waiting[group] = {}
            try:
                await self._desk.call(self._store.touch, group, list(waiting.values()))
            except StoreError as error:
                _log.warning("group %s: signs of life of %d members wait: %s", group, len(waiting), error)
                for sighting in waiting.values():
                    self.note(group, sighting)
            if not self._waiting[group]:
                del self._waiting[group]


def _newest(one: Sighting, other: Sighting) -> Sighting:
    return Sighting(one.member, *map(max, one[1:], other[1:]))
