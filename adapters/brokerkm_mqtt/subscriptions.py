"""The filters that this client has subscribed, and whether a topic belongs to one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from brokerkm.topics import is_exact, matches

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHARE: Final = "$share/"  # shared subscriptions, MQTT 5, section 4.8.2: $share/NAME/FILTER


class Subscriptions:
    """Filters, in the order in which they were added."""

    def __init__(self) -> None:
        self._filters: dict[str, None] = {}
        self._wildcards: list[str] = []

    def all(self) -> list[str]:
        """Return the filters."""
        return list(self._filters)

    def add(self, filters: Iterable[str]) -> list[str]:
        """Add checked filters; return those that are new."""
        new = [pattern for pattern in dict.fromkeys(filters) if pattern not in self._filters]
        self._filters.update(dict.fromkeys(new))
        self._wildcards += [pattern for pattern in new if _is_pattern(pattern)]
        return new

    def remove(self, filters: Iterable[str]) -> None:
        """Remove filters, also such that are not there."""
        for pattern in filters:
            self._filters.pop(pattern, None)
        self._wildcards = [pattern for pattern in self._filters if _is_pattern(pattern)]

    def take_in(self, topic: str) -> bool:
        """Tell whether a filter takes in `topic`."""
        return topic in self._filters or any(matches(_inner(pattern), topic) for pattern in self._wildcards)


def _is_pattern(pattern: str) -> bool:
    return not is_exact(pattern) or pattern.startswith(_SHARE)


def _inner(pattern: str) -> str:
    return pattern.split("/", 2)[-1] if pattern.startswith(_SHARE) else pattern
