"""The values that are looked up when a scraper asks: members, epochs, outboxes, what the broker and the store do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from brokerkm.errors import StoreError
from brokerkm.store.records import Status
from brokerkm.telemetry.metrics import OTHER

if TYPE_CHECKING:
    from brokerkm.service import KeyServer
    from brokerkm.telemetry.health import LoopWatch
    from brokerkm.telemetry.metrics import Metrics

SHORTEST: Final = 5.0  # seconds between two looks into the store; many scrapers cost no more than one

MOST_LAGGING: Final = 1000  # members that are counted; more is as bad


class Gauges:
    """Brings the gauges of `metrics` up to date with a server."""

    def __init__(self, server: KeyServer, metrics: Metrics, watch: LoopWatch) -> None:
        self._server: Final = server
        self._metrics: Final = metrics
        self._watch: Final = watch
        self._turn: Final = asyncio.Lock()
        self._looked = float("-inf")

    async def text(self) -> bytes:
        """Return all metrics; what the store does not tell now keeps its last value."""
        async with self._turn:
            now = asyncio.get_running_loop().time()
            if now - self._looked >= SHORTEST:
                self._looked = now
                await self._look()
            self._of_process()
            return self._metrics.text()

    def _of_process(self) -> None:
        metrics, server = self._metrics, self._server
        metrics.lag.set(self._watch.lag)
        metrics.connected.set(server.connected)
        metrics.store_failing.set(server.desk.failure is not None)
        if server.publisher is not None:
            metrics.dropped.set(server.publisher.dropped)
            if (warden := server.publisher.warden) is not None:
                in_step = warden.failure is None
                metrics.set_guard(in_step=in_step, pending=warden.pending, differences=warden.differences)
        groups = list(server.groups.values())
        metrics.set_by_group(metrics.waiting, {(group.name,): len(group.changes) for group in groups})
        own = [group for group in groups if metrics.label(group.name) != OTHER]  # a sum of epochs says nothing
        metrics.set_by_group(metrics.epoch, {(group.name,): group.group.epoch for group in own})
        metrics.set_by_group(metrics.leading, {(group.name,): 1 for group in groups})
        metrics.set_by_group(metrics.unserved, {(name,): 1 for name in server.leadership.unled})

    async def _look(self) -> None:
        metrics, server = self._metrics, self._server
        members: dict[tuple[str, ...], float] = {}
        outbox: dict[tuple[str, ...], float] = {}
        lagging: dict[tuple[str, ...], float] = {}
        try:
            for name, live in list(server.groups.items()):
                count = await server.desk.call(server.store.count, name)
                members |= {(name, status.name.lower()): count.get(status, 0) for status in Status}
                outbox[name,] = await server.desk.call(server.store.waiting, name)
                if live.group.policy.acknowledge:
                    late = await server.desk.call(
                        server.store.members, name, behind=live.group.epoch, limit=MOST_LAGGING
                    )
                    lagging[name,] = len(late)
        except StoreError:
            return  # counted where it happened
        metrics.set_by_group(metrics.members, members)
        metrics.set_by_group(metrics.outbox, outbox)
        metrics.set_by_group(metrics.lagging, lagging)
