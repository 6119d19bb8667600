"""What a destroyed group has in place of a `Schedule`: members are told, the broker is cleared, all is forgotten.

The Goodbye to everybody lies in the outbox, stored in one transaction with the record that says that the group is
destroyed. Once the broker has it, the topics of the group's nodes and members are cleared there. Goodbye and Handover
stay: whoever was asleep reads them when it wakes. All of this can be done again, so a server that ends on the way, or
loses the group's lease, leaves nothing behind that the next one does not see to.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
from typing import TYPE_CHECKING, Final

from brokerkm.errors import StoreError, TransportError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from brokerkm.service.desk import StoreDesk
    from brokerkm.service.live import LiveGroup
    from brokerkm.service.publisher import Publisher
    from brokerkm.store.protocol import Store

_log = logging.getLogger(__name__)

_PORTION: Final = 1000  # topics that are cleared at a time
_LOOK: Final = 30.0  # seconds until a word that the broker does not take the Goodbye
_FIRST_PAUSE: Final = 0.5  # seconds
_LONGEST_PAUSE: Final = 30.0


class Ending:
    """Ends one group, as long as `run` runs.

    Args:
        publisher: None while no broker is served; then the group waits for a server that serves one.
        forget: forgets the group, here and in the store; raises `StoreError`.
    """

    def __init__(
        self,
        group: LiveGroup,
        store: Store,
        desk: StoreDesk,
        publisher: Publisher | None,
        forget: Callable[[LiveGroup], Awaitable[None]],
    ) -> None:
        self._group: Final = group
        self._store: Final = store
        self._desk: Final = desk
        self._publisher: Final = publisher
        self._forget: Final = forget
        self._finished: Final = asyncio.Event()
        self._wake: Final = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def run(self) -> None:
        """Tell, clear and forget, until `stop`; a broker or store that fails is tried again after a growing pause."""
        self._task = asyncio.current_task()
        pause = _FIRST_PAUSE
        while not (self._stopping or self._finished.is_set()):
            self._wake.clear()
            try:
                await self._end()
            except (TransportError, StoreError) as error:
                _log.warning("group %s is destroyed, but cannot be forgotten yet: %s", self._group.name, error)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause * random.uniform(0.5, 1)):  # noqa: S311 - spreads load
                        await self._wake.wait()
                pause = min(2 * pause, _LONGEST_PAUSE)

    def stop(self, *, commit: bool = False) -> None:
        """Let `run` end; there is nothing to `commit`."""
        del commit
        self._stopping = True
        if self._task is not None:
            self._task.cancel()

    def hurry(self) -> None:
        """Try at once what has failed."""
        self._wake.set()

    async def finished(self, patience: float) -> bool:
        """Return whether the group is forgotten within `patience` seconds."""
        if self._publisher is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._finished.wait()
        return self._finished.is_set()

    async def _end(self) -> None:
        if self._publisher is None:
            await self._wake.wait()
            return
        if not await self._publisher.drained(self._group.name, _LOOK):
            message = "the broker has not taken the Goodbye to its members"
            raise TransportError(message)
        nodes = self._nodes()
        while topics := list(itertools.islice(nodes, _PORTION)):
            await self._publisher.clear(topics)
        after = ""
        while members := await self._desk.call(self._names, after):
            await self._publisher.clear([self._group.topics.member(member) for member in members])
            after = members[-1]
        await self._forget(self._group)
        self._finished.set()

    def _nodes(self) -> Iterator[str]:
        """Yield the topics that Rekeys have been published on."""
        tree = self._group.group.tree
        for level in range(tree.height + 1):
            width = tree.degree ** max(level, 1)  # leaves below a node; a bucket is named as its parent is
            for index in range(-(-tree.used // width)):
                yield self._group.topics.node(level, index)

    def _names(self, after: str) -> list[str]:
        """Return ids of whoever was told something; in the store's thread."""
        return [record.member for record in self._store.members(self._group.name, after=after, limit=_PORTION)]
