"""An eavesdropper who records everything, and sees that no epoch is used for two different things."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgpack
from proof.attacker import Tape
from system.server import GROUP

from brokerkm.core.group import DEFAULT_DEGREE
from brokerkm.core.names import Topics
from brokerkm.core.rekey import Beacon
from brokerkm.transport import Delivery, create

if TYPE_CHECKING:
    from brokerkm.transport import Options, Transport

REKEY = 1


class Witness:
    """Listens to the whole broker until closed.

    Attributes:
        captured: the sealed messages by number.
        tape: what was published of keys.
    """

    def __init__(self, url: str, options: Options) -> None:
        self._transport: Transport = create(url, options)
        self._topics = Topics(GROUP)
        self._said: dict[tuple[str, int], object] = {}
        self._task: asyncio.Task[None] | None = None
        self.captured: dict[int, bytes] = {}
        self.tape = Tape(GROUP, DEFAULT_DEGREE)
        self._recorded: set[tuple[str, bytes]] = set()  # brokers repeat

    async def open(self) -> None:
        """Begin."""
        await self._transport.open()
        self._task = asyncio.create_task(self._watch(), name="witness")
        await self._transport.subscribe([f"{self._topics.root}/#", "app/#"])

    async def close(self) -> None:
        """End; raises what was wrong."""
        await self._transport.close()
        assert self._task is not None
        await self._task

    def check(self) -> None:
        """Raise what was wrong so far."""
        if self._task is not None and self._task.done():
            self._task.result()

    async def _watch(self) -> None:
        async for item in self._transport.incoming():
            if isinstance(item, Delivery) and item.payload:
                self._see(item.topic, item.payload)

    def _see(self, topic: str, payload: bytes) -> None:
        if topic.startswith("app/"):
            self.captured.setdefault(int(topic.removeprefix("app/")), payload)
        elif topic == self._topics.beacon:
            beacon = Beacon.decode(payload)
            self._agree(topic, beacon.epoch, (beacon.height, beacon.birth, beacon.step))
        elif (topic, payload) not in self._recorded:
            self._recorded.add((topic, payload))
            message = msgpack.unpackb(payload)
            self.tape.record(topic, payload, 0)
            if message[1] == REKEY:
                self._agree(topic, message[2], payload)

    def _agree(self, topic: str, epoch: int, what: object) -> None:
        assert what == self._said.setdefault((topic, epoch), what), f"epoch {epoch} was used twice on {topic}"
