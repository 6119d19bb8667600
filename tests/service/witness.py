"""Somebody who sees all that is published for a group, and that no epoch is used for two different things."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import msgpack

from brokerkm.core.names import Topics
from brokerkm.core.rekey import Beacon
from brokerkm.transport import Delivery, Options, create

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Witness:
    """What was seen."""

    def __init__(self, group: str) -> None:
        self.topics = Topics(group)
        self.messages: dict[tuple[str, int], bytes] = {}
        self.epochs: list[int] = []

    @contextlib.asynccontextmanager
    async def watching(self, url: str) -> AsyncGenerator[asyncio.Task[None]]:
        """Watch as long as the block lasts; raises what `see` says."""
        task = asyncio.create_task(self._watch(url))
        try:
            yield task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _watch(self, url: str) -> None:
        transport = create(url, Options(client_id="witness"))
        await transport.open()
        try:
            await transport.subscribe([self.topics.beacon, f"{self.topics.root}/n/#"])
            async for item in transport.incoming():
                if isinstance(item, Delivery):
                    self.see(item)
        finally:
            await transport.close()

    def see(self, item: Delivery) -> None:
        """Note one message."""
        if item.topic == self.topics.beacon:
            beacon = Beacon.decode(item.payload)
            self.epochs.append(beacon.epoch)
            key, what = (item.topic, beacon.epoch), b"%d %d" % (beacon.birth, beacon.step)
        else:
            key, what = (item.topic, msgpack.unpackb(item.payload)[2]), item.payload
        assert what == self.messages.setdefault(key, what), f"epoch {key[1]} was used twice on {item.topic}"
