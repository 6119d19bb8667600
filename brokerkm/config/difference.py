"""What a new configuration changes, and whether a running server can take it over."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from brokerkm.config.key import keys
from brokerkm.config.sections import SECTIONS

if TYPE_CHECKING:
    from brokerkm.config.sections import Configuration


class Difference(NamedTuple):
    """The keys (SECTION.KEY) that differ: those that change live, and those that need a restart."""

    live: tuple[str, ...]
    restart: tuple[str, ...]


def difference(old: Configuration, new: Configuration) -> Difference:
    """Return how `new` differs from `old`."""
    live: list[str] = []
    restart: list[str] = []
    for section, kind in SECTIONS.items():
        before, after = getattr(old, section), getattr(new, section)
        for name, about, _ in keys(kind):
            if getattr(before, name) != getattr(after, name):
                (live if about.live else restart).append(f"{section}.{name}")
    return Difference(tuple(live), tuple(restart))
