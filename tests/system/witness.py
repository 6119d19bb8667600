"""An eavesdropper who records everything, and sees that no epoch is used for two different things."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgpack
from system.server import GROUP

from brokerkm.core.events import MessageReceived
from brokerkm.core.member import Member
from brokerkm.core.names import Topics
from brokerkm.core.rekey import Beacon
from brokerkm.errors import RefusedError
from brokerkm.transport import Delivery, create

if TYPE_CHECKING:
    from collections.abc import Collection

    from brokerkm.transport import Options, Transport

REKEY = 1


class Witness:
    """Listens to the whole broker until closed.

    Attributes:
        captured: the sealed messages by number.
        keys: Rekeys and Beacons with their topics, in the order of arrival.
    """

    def __init__(self, url: str, options: Options) -> None:
        self._transport: Transport = create(url, options)
        self._topics = Topics(GROUP)
        self._said: dict[tuple[str, int], object] = {}
        self._task: asyncio.Task[None] | None = None
        self.captured: dict[int, bytes] = {}
        self.keys: dict[tuple[str, bytes], None] = {}
        self.epochs: set[int] = set()

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
        kind = topic.removeprefix(self._topics.root + "/").split("/")[0]
        if topic.startswith("app/"):
            self.captured.setdefault(int(topic.removeprefix("app/")), payload)
        elif kind == "n" and msgpack.unpackb(payload)[1] == REKEY:
            self.keys[topic, payload] = None
            self._agree(topic, msgpack.unpackb(payload)[2], payload)
        elif kind == "b":
            self.keys[topic, payload] = None
            beacon = Beacon.decode(payload)
            self._agree(topic, beacon.epoch, (beacon.height, beacon.birth, beacon.step))

    def _agree(self, topic: str, epoch: int, what: object) -> None:
        self.epochs.add(epoch)
        assert what == self._said.setdefault((topic, epoch), what), f"epoch {epoch} was used twice on {topic}"

    def opened_by(self, state: bytes, numbers: Collection[int], now: float) -> set[int]:
        """Return which messages somebody opens who has a saved state and heeds every Rekey, but no Goodbye.

        Args:
            state: a member's state file.
            numbers: the messages to be tried.
            now: when the state was saved, so that no key in it has expired.
        """
        member = Member.load(state, lambda size: b"\7" * size, now)
        opened: set[int] = set()
        for _ in range(2):  # in another order than theirs, too
            opened |= self._try(member, numbers, now)
            for topic, payload in self.keys:
                if topic in member.filters:
                    opened |= _numbers(_receive(member, topic, payload, now))
        return (opened | self._try(member, numbers, now)) & set(numbers)

    def _try(self, member: Member, numbers: Collection[int], now: float) -> set[int]:
        found = [_receive(member, f"app/{number}", self.captured[number], now) for number in numbers]
        return {number for events in found for number in _numbers(events)}


def _receive(member: Member, topic: str, payload: bytes, now: float) -> list[object]:
    try:
        return list(member.receive(topic, payload, now))
    except RefusedError:
        return []


def _numbers(events: list[object]) -> set[int]:
    return {int(event.topic.removeprefix("app/")) for event in events if isinstance(event, MessageReceived)}
