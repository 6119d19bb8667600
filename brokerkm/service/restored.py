"""Whether the groups of a restored store may go on: only if the broker shows that they have not, meanwhile.

`brokerkm.store.restored` says what the mark is. While it is there the group is not led. It goes when the broker has a
Beacon of the very epoch at which the store was restored, and with `group recover`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from brokerkm.errors import BehindError
from brokerkm.store.records import Change
from brokerkm.store.restored import DROP, marked

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from brokerkm.service.desk import StoreDesk
    from brokerkm.store.protocol import Store


class Restored:
    """Judges the marked groups of `store`."""

    def __init__(self, store: Store, desk: StoreDesk) -> None:
        self._store: Final = store
        self._desk: Final = desk

    async def marks(self, groups: Collection[str]) -> dict[str, int]:
        """Return at which epoch the marked ones of `groups` were restored; raises `StoreError`."""
        found = await self._desk.call(lambda: {name: marked(self._store, name) for name in groups})
        return {name: epoch for name, epoch in found.items() if epoch is not None}

    async def judge(self, marks: Mapping[str, int], shown: Mapping[str, int] | None) -> None:
        """Let marked groups go on whose Beacon shows that they may.

        Args:
            shown: the epochs of the retained Beacons that the broker has; None if it cannot be asked.

        Raises:
            BehindError: there is one of which that is not known.
            StoreError: the store cannot be written.
        """
        for name, epoch in marks.items():
            if shown is None:
                what = "the broker, which would show whether the group has gone on since, is not reached"
            elif name not in shown:
                what = "the broker has no Beacon of the group, which would show whether it has gone on since"
            elif shown[name] != epoch:
                what = f"the broker's Beacon is of epoch {shown[name]}"
            else:
                await self._desk.call(self._store.write, name, Change(dropped=DROP))
                continue
            text = (
                f"group {name}: the store was restored from a backup of epoch {epoch}, and {what}. Going on could use "
                "epochs twice. New keys for everybody, at an epoch that was not used, are what helps"
            )
            raise BehindError(name, text)
