"""What `Fleet.events` yields, and to whom.

Events are the member's own (`brokerkm.core.events`) but for messages, those of the transport, and those of saving.
They hold up nothing: keys move on whether or not somebody reads about it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, TypeAlias
from weakref import WeakSet

from brokerkm.core.events import Event
from brokerkm.sdk.mailbox import Mailbox
from brokerkm.transport import Connected, Disconnected

if TYPE_CHECKING:
    from brokerkm.errors import StoreError

MAX_EVENTS: Final = 1024  # that wait for one iterator

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SaveFailed:
    """The member's state cannot be saved: nothing is sent or delivered until it can be."""

    error: StoreError


@dataclass(frozen=True, slots=True)
class Saved:
    """The member's state is saved again; what waited goes on."""


FleetEvent: TypeAlias = Event | Connected | Disconnected | SaveFailed | Saved


class Events:
    """An iterator over what happens from its making on, until the member is out or the fleet is closed."""

    def __init__(self, box: Mailbox[FleetEvent]) -> None:
        self._box: Final = box

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FleetEvent:
        """Return the next event."""
        return await self._box.get()

    async def aclose(self) -> None:
        """End it; may be called twice."""
        self._box.discard()


class Broadcast:
    """Gives every event to every iterator. One that lags behind by more than `MAX_EVENTS` loses the oldest."""

    def __init__(self) -> None:
        self._boxes: Final[WeakSet[Mailbox[FleetEvent]]] = (
            WeakSet()
        )  # an iterator that is dropped takes its queue along
        self._ended = False
        self._end: BaseException | None = None

    def listen(self) -> Events:
        """Return a new iterator."""
        box = Mailbox["FleetEvent"](MAX_EVENTS)
        if self._ended:
            box.end(self._end)
        else:
            self._boxes.add(box)
        return Events(box)

    def put(self, event: FleetEvent) -> None:
        """Queue an event for everyone."""
        for box in tuple(self._boxes):
            if not box.force(event):
                _log.debug("events come faster than they are taken: the oldest was dropped")

    def end(self, error: BaseException | None = None) -> None:
        """End all iterators, present and future, when they have had what is queued."""
        if not self._ended:
            self._ended, self._end = True, error
            for box in tuple(self._boxes):
                box.end(error)
