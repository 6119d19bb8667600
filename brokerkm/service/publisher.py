"""From the outbox to the broker: in order, in chunks, again and again until the broker has accepted it.

One task publishes everything, so that what goes to one topic keeps its order: answers to single requests first, then
each group's outbox in the order of its sequence. A message is marked only after the broker has accepted it, so after
a crash the same bytes go out again, which has the same effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from brokerkm.clock import boot_time
from brokerkm.errors import StoreError, TransportError, UsageError
from brokerkm.service.feed import Feed, Kind
from brokerkm.transport import Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from brokerkm.guard.warden import Warden
    from brokerkm.service.desk import StoreDesk
    from brokerkm.store.protocol import Store
    from brokerkm.transport import Transport

_log = logging.getLogger(__name__)

CHUNK: Final = 1024  # messages that are read, published and marked at a time
MAX_ANSWERS: Final = 10_000  # answers that wait; beyond it members have to ask again
_ALL: Final = 1 << 63  # more than any sequence
_FIRST_PAUSE: Final = 0.2  # seconds
_LONGEST_PAUSE: Final = 30.0  # seconds


class Publisher:
    """Publishes what the store holds for the groups that it is woken for, and answers, as long as `run` runs.

    Args:
        remaining: for how many seconds this server may publish on a topic; not positive if it may not.
        retains: whether the broker may keep the newest message of a topic.

    Attributes:
        warden: keeps the broker's guard in step, if there is one (`brokerkm.service.guarded`); it is told first.
    """

    def __init__(
        self,
        transport: Transport,
        store: Store,
        desk: StoreDesk,
        feed: Feed | None = None,
        remaining: Callable[[str], float] = lambda _: math.inf,
        *,
        retains: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._transport: Final = transport
        self._store: Final = store
        self._desk: Final = desk
        self._feed: Final = feed or Feed()
        self._remaining: Final = remaining
        self._retains: Final = retains
        self._answers: dict[tuple[str, bool], Outgoing] = {}
        self._under_way: dict[tuple[str, bool], Outgoing] = {}  # answers that the broker is about to get
        self._lost: set[str] = set()
        self._dirty: set[str] = set()  # groups whose outbox may hold something
        self._waiters: dict[str, list[tuple[int, asyncio.Future[bool]]]] = {}
        self._wake: Final = asyncio.Event()
        self._stopping = False
        self._soiled = True
        self.warden: Warden | None = None
        self.dropped = 0
        self.drained_at_last = False  # whether `run` has ended with nothing left

    def wake(self, group: str | None = None) -> None:
        """Try again now, and look into the outbox of `group`, where something new may be."""
        if group is not None:
            self._dirty.add(group)
        self._wake.set()

    def answer(self, message: Outgoing) -> None:
        """Publish one answer to one member, in place of an earlier one that waits."""
        key = (message.topic, message.retain)  # a Refusal does not take a Welcome's place
        if len(self._answers) >= MAX_ANSWERS and key not in self._answers:
            self.dropped += 1
            return
        self._answers[key] = message
        self._wake.set()

    def forget_answer(self, topic: str) -> None:
        """Drop the Welcome that waits for `topic`, because a commit is going to say more."""
        for answers in (self._answers, self._under_way):
            answers.pop((topic, True), None)

    async def clear(self, topics: Sequence[str]) -> None:
        """Have the broker drop what it retains on these topics of one group; raises `TransportError`."""
        messages = [Outgoing(topic, b"", retain=True) for topic in topics]
        await self._publish(messages, self._until(topics[0]))

    def publish_again(self, group: str) -> None:
        """Publish all that is kept for a group: the broker has lost it."""
        self._lost.add(group)
        self.wake(group)

    async def published(self, group: str, sequence: int, patience: float) -> bool:
        """Return whether all messages up to `sequence` are published within `patience` seconds."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(group, []).append((sequence, future))
        self.wake(group)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                return await future
        return False

    async def drained(self, group: str, patience: float) -> bool:
        """Return whether nothing is left to publish for a group within `patience` seconds."""
        return await self.published(group, _ALL, patience)

    def forget(self, group: str, root: str) -> None:
        """Publish nothing more for a group, whose topics are below `root`."""
        self._dirty.discard(group)
        self._lost.discard(group)
        for answers in (self._answers, self._under_way):
            for key in [key for key in answers if key[0].startswith(f"{root}/")]:
                del answers[key]
        for _, future in self._waiters.pop(group, []):
            if not future.done():
                future.set_result(False)

    async def run(self) -> None:
        """Publish until `stop`; a broker or store that fails is tried again after a growing pause."""
        pause = _FIRST_PAUSE
        while True:
            self._wake.clear()
            try:
                busy = await self._round()
            except (TransportError, StoreError) as error:
                _log.warning("publishing: %s; next try in %.1f s at most", error, pause)
                if self._stopping:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause * random.uniform(0.5, 1)):  # noqa: S311 - spreads load
                        await self._wake.wait()
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            pause = _FIRST_PAUSE
            if busy:
                continue
            if self._stopping:
                self.drained_at_last = True
                return
            await self._wake.wait()

    def stop(self) -> None:
        """Let `run` end once nothing is left, or once the broker does not take it."""
        self._stopping = True
        self._wake.set()

    async def _round(self) -> bool:
        """Publish the answers and one chunk of each group; return whether there was anything."""
        busy = await self._publish_answers()
        for name in list(self._dirty):
            self._dirty.discard(name)  # before looking: what is stored meanwhile adds it again
            more = True
            try:
                more = await self._publish_chunk(name)
            finally:
                if more:
                    self._dirty.add(name)
            busy |= more
        if not busy and self._soiled:
            await self._desk.call(self._store.scrub)
            self._soiled = False
        return busy

    async def _publish_answers(self) -> bool:
        self._under_way = {key: self._answers.pop(key) for key in list(self._answers)[:CHUNK]}
        answers = [one for one in self._under_way.values() if self._remaining(one.topic) > 0]
        try:
            await self._publish(answers, min((self._until(one.topic) for one in answers), default=math.inf))
        except BaseException:
            self._answers = self._under_way | self._answers
            raise
        return bool(answers)

    async def _publish_chunk(self, group: str) -> bool:
        if group in self._lost:
            count = await self._desk.call(self._store.publish_again, group)
            self._lost.discard(group)
            _log.info("group %s: the broker has lost what it retained: publishing %d messages again", group, count)
            self._feed.emit(Kind.RETAINED_LOST, group, messages=count)
        chunk = await self._desk.call(self._store.unpublished, group, CHUNK)
        self._tell(group, chunk[0].sequence if chunk else None)
        if not chunk or (until := self._until(chunk[0].topic)) <= boot_time():
            return False
        if self.warden is not None:
            await self.warden.hold()  # or a Welcome comes before its reader may subscribe what it names
        began = asyncio.get_running_loop().time()
        messages = [Outgoing(one.topic, one.payload, retain=True, audience=one.audience) for one in chunk]
        await self._publish(messages, until)
        seconds = asyncio.get_running_loop().time() - began
        self._feed.emit(Kind.PUBLISHED, group, sequence=chunk[-1].sequence, messages=len(chunk), seconds=seconds)
        await self._desk.call(self._store.mark_published, group, chunk[-1].sequence)
        self._soiled = True
        return True

    def _tell(self, group: str, first: int | None) -> None:
        """Tell those who wait for messages before `first`, the first that is not published."""
        waiters = self._waiters.pop(group, [])
        for sequence, future in waiters:
            if future.done():
                continue
            if first is None or sequence < first:
                future.set_result(True)
            else:
                self._waiters.setdefault(group, []).append((sequence, future))

    def _until(self, topic: str) -> float:
        """Return how long this server may publish on a topic, on `boot_time`; a pause in here makes it no later."""
        now = boot_time()
        return now + self._remaining(topic)

    async def _publish(self, messages: Sequence[Outgoing], until: float) -> None:
        """Publish until then, after which another server may publish on these topics."""
        seconds = until - boot_time()
        messages = [
            replace(one, retain=one.retain and (not one.payload or self._retains(one.topic)), until=until)
            for one in messages
        ]
        try:
            async with asyncio.timeout(seconds if seconds < math.inf else None):
                try:
                    if messages:
                        await self._transport.publish_batch(messages)
                except UsageError:
                    for message in messages:
                        await self._publish_if_possible(message)
        except TimeoutError:
            text = "the lease ended before the broker had accepted all"
            raise TransportError(text) from None

    async def _publish_if_possible(self, message: Outgoing) -> None:
        try:
            await self._transport.publish(message)
        except UsageError as error:  # it would be refused for ever, and block all that comes after it
            self.dropped += 1
            _log.error("%s cannot be published: %s", message.topic, error)
