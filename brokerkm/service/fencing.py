"""What keeps a server that lost a lease from changing or publishing anything: tenures, and a store that heeds them."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Final, cast

from brokerkm.clock import boot_time
from brokerkm.errors import LeaseLostError, OutcomeUnknownError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from brokerkm.store.protocol import Store
    from brokerkm.store.records import AuditEntry, Change, GroupRecord, Sighting

MARGIN: Final = 0.1  # of a lease: how long before its end its holder stops


@dataclasses.dataclass(slots=True)
class Tenure:
    """The time for which this server leads a group.

    Args:
        fence: that changes are made under; None where there are no leases.
        ends: when to stop, on `boot_time`.
        doubtful: whether the store may be ahead of what is in memory; then the group has to be loaded again.
        formers: servers that may still have messages of the group under way, from the time that they led it.
    """

    fence: int | None = None
    ends: float = math.inf
    doubtful: bool = False
    formers: frozenset[str] = frozenset()

    def remaining(self) -> float:
        """Return for how many seconds more the server may act; not positive if it may not."""
        return -math.inf if self.doubtful else self.ends - boot_time()


class FencedStore:
    """A `Store` that changes a group only within this server's tenure, and under its fence.

    Args:
        tenures: by group; others change it.
        doubted: called, in whatever thread, with a group of which it is not known whether a change was stored.
    """

    def __init__(self, store: Store, tenures: Mapping[str, Tenure], doubted: Callable[[str], None]) -> None:
        self._store: Final = store
        self._tenures: Final = tenures
        self._doubted: Final = doubted

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever else the store has
        return getattr(self._store, name)

    def create_group(self, record: GroupRecord, change: Change) -> int:
        """Add a group, which nobody leads yet."""
        return self._store.create_group(record, change)

    def write(self, group: str, change: Change) -> int:
        """Store a change under the fence.

        Raises:
            LeaseLostError: another server leads the group.
            StoreError: the lease has run out, and has not been renewed yet.
        """
        if not group:
            return self._store.write(group, change)
        tenure = self._tenure(group)
        try:
            return self._store.write(group, dataclasses.replace(change, fence=tenure.fence))
        except OutcomeUnknownError:
            tenure.doubtful = True
            self._doubted(group)
            raise

    def destroy_group(self, name: str, audit: Iterable[AuditEntry]) -> None:
        """Forget a group under the fence; raises `LeaseLostError` or `StoreError`, as `write` does."""
        self._store.destroy_group(name, audit, self._tenure(name).fence)

    def touch(self, group: str, sightings: Iterable[Sighting]) -> None:
        """Note signs of life; in a group that is led elsewhere by now they are not this server's to note."""
        if group in self._tenures:
            self._tenure(group)
            self._store.touch(group, sightings)

    def mark_published(self, group: str, sequence: int) -> None:
        """Note what the broker has; who lost the lease meanwhile leaves that to the next, who publishes it again."""
        self._tenure(group)
        self._store.mark_published(group, sequence)

    def _tenure(self, group: str) -> Tenure:
        tenure = self._tenures.get(group)
        if tenure is None:
            message = f"group {group} is led by another server"
            raise LeaseLostError(message)
        if tenure.remaining() <= 0:
            message = f"group {group}: the lease has run out and could not be renewed yet; what waits is kept"
            raise StoreError(message)
        return tenure


def fenced(store: Store, tenures: Mapping[str, Tenure], doubted: Callable[[str], None]) -> Store:
    """Return `store` behind a `FencedStore`."""
    return cast("Store", FencedStore(store, tenures, doubted))
