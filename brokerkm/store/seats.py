"""Which member sits at which slot, looked up in the store: what a `Group` of a million members keeps no list of."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from brokerkm.store.protocol import Store


class StoredSeats:
    """`brokerkm.core.directory.Seats` over a store, to be asked in the store's thread.

    A commit is stored before the group in memory moves on, so `add` and `remove` have nothing to write; they count.

    Args:
        count: how many members are seated.
    """

    def __init__(self, store: Store, group: str, count: int) -> None:
        self._store: Final = store
        self._group: Final = group
        self._count = count
        self._known: Mapping[str, int | None] = {}

    def __len__(self) -> int:
        return self._count

    def __contains__(self, member: str) -> bool:
        return self.slot(member) is not None

    def __iter__(self) -> Iterator[tuple[int, str]]:
        for member, slot in self._store.seats(self._group):
            yield slot, member

    def slot(self, member: str) -> int | None:
        """Return the slot of `member`, if it has one."""
        if member in self._known:
            return self._known[member]
        found = self._store.member(self._group, member)
        return None if found is None else found.slot

    @contextlib.contextmanager
    def knowing(self, slots: Mapping[str, int | None]) -> Generator[None]:
        """Take the slots of some members from here, within this context, in which nothing is stored that moves them."""
        self._known = slots
        try:
            yield
        finally:
            self._known = {}

    def add(self, member: str, slot: int) -> None:  # noqa: ARG002 - the Protocol's
        """Count one more."""
        self._count += 1

    def remove(self, member: str) -> None:  # noqa: ARG002 - the Protocol's
        """Count one less."""
        self._count -= 1
