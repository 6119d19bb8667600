"""Stores and transports that fail when a test says so, as a crash or a broken disk or broker looks from inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brokerkm.errors import StoreError, TransportError
from brokerkm.store import SqliteStore
from brokerkm_memory import MemoryTransport

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from brokerkm.store import Change
    from brokerkm.transport import Outgoing


class FaultyStore(SqliteStore):
    """A store whose calls named in `broken` raise, before they have done anything."""

    broken: frozenset[str] = frozenset()

    def _check(self, call: str) -> None:
        if call in self.broken:
            message = f"{call}: the disk is full"
            raise StoreError(message)

    def write(self, group: str, change: Change) -> int:
        """Store a change, or raise if it is a commit that is to fail."""
        if change.keys is not None:
            self._check("commit")
        return super().write(group, change)

    def mark_published(self, group: str, sequence: int) -> None:
        """Mark, or raise."""
        self._check("mark_published")
        super().mark_published(group, sequence)


class FaultyTransport(MemoryTransport):
    """A transport that records what it is given; it holds publishers up until `stall`, and refuses if `broken`."""

    broken: bool = False
    stall: asyncio.Event | None = None

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.sent: list[Outgoing] = []

    async def publish_batch(self, messages: Sequence[Outgoing]) -> None:
        """Publish, or raise."""
        if self.stall is not None:
            await self.stall.wait()
        if self.broken:
            message = "the broker is away"
            raise TransportError(message)
        await super().publish_batch(messages)
        self.sent += messages
