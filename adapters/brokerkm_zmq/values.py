"""The hub's last values: one payload a topic, bounded, read by filter a page at a time."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from brokerkm import topics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCAN: Final = 10_000  # topics looked at for one page, so that no subscriber holds up the others
_OVERHEAD: Final = 300  # bytes that an entry costs beside its topic and payload, about


@dataclasses.dataclass(frozen=True, slots=True)
class Value:
    """A topic's last value, with the first frame under which it goes out; later ones have higher serials."""

    topic: str
    head: bytes
    payload: bytes
    audience: str | None
    place: int
    serial: int


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """Some of the values asked for; `cursor` says where to go on, None at the end."""

    values: list[Value]
    cursor: tuple[int, int] | None


class LastValues:
    """Last values by topic.

    A page is found by the topic's place in a list; places of cleared topics stay empty until
    there are too many. Then the list is made anew under the next generation, and a
    reader with a cursor of the old one begins again.

    Args:
        topics: topics held at most.
        size: bytes held at most, topics and overhead counted.
    """

    def __init__(self, topics: int, size: int) -> None:
        self._topics = topics
        self._size = self._free = size
        self._values: dict[str, Value] = {}
        self._places: list[str | None] = []
        self._generation = 0
        self.serial = 0  # of the value that was put last

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._values))

    def get(self, topic: str) -> Value | None:
        """Return a topic's last value."""
        return self._values.get(topic)

    def fits(self, topic: str, payload: bytes, *, is_members: bool = False) -> bool:
        """Return whether there is room for a topic's last value; a member's leaves the last quarter free."""
        old = self._values.get(topic)
        kept_topics, kept_size = (self._topics // 4, self._size // 4) if is_members else (0, 0)
        if old is None and len(self._values) >= self._topics - kept_topics:
            return not payload
        return self._more(topic, payload, old) <= max(0, self._free - kept_size)

    def put(self, topic: str, head: bytes, payload: bytes, audience: str | None) -> None:
        """Keep a topic's last value; an empty payload clears it. The caller has asked whether it fits."""
        old = self._values.get(topic)
        if not payload:
            if old is not None:
                self._clear(old)
            return
        self._free -= self._more(topic, payload, old)
        if old is None:
            place = len(self._places)
            self._places.append(topic)
        else:
            place = old.place
        self.serial += 1
        self._values[topic] = Value(topic, head, payload, audience, place, self.serial)

    def _more(self, topic: str, payload: bytes, old: Value | None) -> int:
        return self._cost(topic, payload) - (self._cost(topic, old.payload) if old else 0)

    @staticmethod
    def _cost(topic: str, payload: bytes) -> int:
        return 4 * len(topic) + len(payload) + _OVERHEAD  # the topic is held in the head too

    def _clear(self, value: Value) -> None:
        del self._values[value.topic]
        self._free += self._cost(value.topic, value.payload)
        self._places[value.place] = None
        if len(self._places) > SCAN and len(self._places) > 2 * len(self._values):
            self._generation += 1
            self._places = list(self._values)
            for place, topic in enumerate(self._places):
                if topic is not None:
                    self._values[topic] = dataclasses.replace(self._values[topic], place=place)

    def page(self, pattern: str, cursor: tuple[int, int], limit: int, may_read: Callable[[Value], bool]) -> Page:
        """Return at most `limit` values that match a wildcard, from a cursor on ((0, 0) for the beginning)."""
        generation, start = cursor
        if generation != self._generation:
            start = 0
        found: list[Value] = []
        end = min(start + SCAN, len(self._places))
        for place in range(start, end):
            topic = self._places[place]
            if topic is None or not topics.matches(pattern, topic) or not may_read(self._values[topic]):
                continue
            if len(found) == limit:
                return Page(found, (self._generation, place))
            found.append(self._values[topic])
        return Page(found, (self._generation, end) if end < len(self._places) else None)
