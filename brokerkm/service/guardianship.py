"""Administration of the broker's guard: whether it is in step, and which of an application's topics members have."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final, cast

from brokerkm.errors import TransportError, UnknownNameError
from brokerkm.guard.rules import DataFilters
from brokerkm.service.api import DataTopics, GuardDifference, GuardInfo
from brokerkm.service.feed import Kind
from brokerkm.service.guarded import DATA, GUARD, read_filters, write_filters
from brokerkm.service.office import Office
from brokerkm.store.records import Change, Document

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from brokerkm.guard.seam import Difference
    from brokerkm.guard.warden import Warden
    from brokerkm.store.protocol import Store

MOST: Final = 1000  # differences that one call returns
SYNC_WAIT: Final = 45.0  # seconds; a million members at Mosquitto's plugin take 14


class Guardianship(Office):
    """The part of `AdminApi` that is about the broker's guard."""

    async def show_guard(self) -> GuardInfo:
        """Return whether the guard is in step."""
        warden = self._warden()
        return GuardInfo(warden.failure is None, warden.failure or "", warden.pending, warden.differences)

    async def compare_guard(self) -> list[GuardDifference]:
        """Return where the broker and the store differ, the first `MOST`."""
        found: list[GuardDifference] = []
        differences = cast("AsyncGenerator[Difference]", self._warden().guard.diff())
        async with aclosing(differences):
            async for one in differences:
                found.append(GuardDifference(one.group, one.member, one.what))
                if len(found) == MOST:
                    break
        return found

    async def sync_guard(self) -> GuardInfo:
        """Make the broker as the store says."""
        warden = self._warden()
        warden.note_everything()
        if not await warden.settled(SYNC_WAIT):
            message = (
                f"the guard is not in step after {SYNC_WAIT:.0f} s, and goes on: {warden.failure or 'it is at work'}"
            )
            raise TransportError(message)
        return await self.show_guard()

    async def show_data(self, group: str) -> DataTopics:
        """Return which topics of the application members have."""
        filters = await self._call(_filters, self._group(group).name)
        return DataTopics(list(filters.publish), list(filters.subscribe))

    async def set_data(
        self, group: str, *, publish: Sequence[str] | None = None, subscribe: Sequence[str] | None = None
    ) -> DataTopics:
        """Say which topics of the application members have; what is None stays."""
        name = self._group(group).name
        before = await self._call(_filters, name)
        filters = DataFilters(
            before.publish if publish is None else tuple(publish),
            before.subscribe if subscribe is None else tuple(subscribe),
        )
        document = Document(GUARD, DATA, write_filters(filters), self._now())
        entry = self._entry("set-data", name, publish=" ".join(filters.publish), subscribe=" ".join(filters.subscribe))
        await self._write(name, Change(documents=[document], audit=[entry]))
        self._server.feed.emit(Kind.DATA_TOPICS, name)
        return await self.show_data(name)

    def _warden(self) -> Warden:
        publisher = self._server.publisher
        if publisher is None or publisher.warden is None:
            message = "this key server keeps no guard: its configuration names none ([guard] kind), or it does not run"
            raise UnknownNameError(message)
        return publisher.warden


def _filters(store: Store, group: str) -> DataFilters:
    return read_filters(store.document(group, GUARD, DATA))
