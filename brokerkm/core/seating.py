"""Which slot each newcomer gets, and whether the tree has to grow for them; nothing is changed by asking."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING

from brokerkm.core.commit import Seat

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from brokerkm.core.commit import Enrollment
    from brokerkm.core.directory import Seats
    from brokerkm.core.tree import KeyTree


def seat_all(
    tree: KeyTree, directory: Seats, enrollments: Sequence[Enrollment], removed: Sequence[tuple[str, int]]
) -> tuple[Seat, ...]:
    """Give each enrollment a slot: its own if it has one, else the lowest that is free after the removals."""
    freed = sorted(slot for _, slot in removed)
    free = itertools.chain(heapq.merge(_ascending(tree.free), freed), itertools.count(tree.used))
    return tuple(
        Seat(next(free), enrollment)
        if (slot := directory.slot(enrollment.member)) is None
        else Seat(slot, enrollment, refreshed=True)
        for enrollment in enrollments
    )


def make_room(tree: KeyTree, seats: Sequence[Seat]) -> int:
    """Extend the tree's arrays for `seats`, which changes nothing else, and return the height it then has."""
    slots = max((seat.slot + 1 for seat in seats), default=0)
    height = tree.height
    while slots > tree.degree**height:
        height += 1
    tree.extend(height, max(slots, tree.used))
    return height


def _ascending(heap: list[int]) -> Iterator[int]:
    """Yield the elements of `heap` in order and leave it as it is; the first k cost k log k."""
    candidates = [(heap[0], 0)] if heap else []
    while candidates:
        value, at = heapq.heappop(candidates)
        yield value
        for child in (2 * at + 1, 2 * at + 2):
            if child < len(heap):
                heapq.heappush(candidates, (heap[child], child))
