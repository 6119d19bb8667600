"""What one member has yet to get: Rekeys that need a key which has not come, and a root that only a Beacon knows of."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from brokerkm.core.events import Cause, Recovered, Stale
from brokerkm.core.path import KeyPath, Outcome
from brokerkm.core.state import State, Step
from brokerkm.errors import Reason, RefusedError

if TYPE_CHECKING:
    from collections.abc import Collection

    from brokerkm.core.events import Event
    from brokerkm.core.memory import Memory
    from brokerkm.core.rekey import Beacon, Rekey


class CatchUp:
    """Takes the keys of what was verified, in whatever order it came, and says when one has been missing for long.

    Args:
        memory: the member's; its state is stale while something has been missing for the policy's `hold`.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory: Final = memory
        self._waiting: dict[tuple[int, int], Rekey] = {}  # need something that has not come yet, or have no entry
        self._beacon: Beacon | None = None
        self._missing: dict[Cause, float] = {}  # since when

    @property
    def is_behind(self) -> bool:
        """Whether something is known to be missing."""
        return bool(self._missing)

    def resume(self, now: float) -> None:
        """Go on where the last start ended: what was stale stays so until a Beacon says otherwise."""
        if self._memory.state is State.STALE:
            self._missing[Cause.BEACON] = now

    def hear(self, beacon: Beacon) -> None:
        """Note where the group stands."""
        self._beacon = beacon

    def take(self, rekey: Rekey, level: int, index: int, path: KeyPath) -> None:
        """Take the keys of a verified Rekey, and of what waited for them; raises `RefusedError` if it contradicts."""
        if self._apply(rekey, level, index, path):
            self.retry(path)

    def retry(self, path: KeyPath) -> None:
        """Try again what needed a key that may be there now, from the lowest level up; what contradicts it goes."""
        for node, waiting in sorted(self._waiting.items()):
            with contextlib.suppress(RefusedError):
                self._apply(waiting, *node, path)

    def _apply(self, rekey: Rekey, level: int, index: int, path: KeyPath) -> bool:
        """Take the keys of a verified Rekey, or note that something is missing; return whether they were taken."""
        try:
            outcome = path.apply(rekey, level)
        except RefusedError as error:
            if error.reason is not Reason.NO_ENTRY:
                self._waiting.pop((level, index), None)
                raise
            outcome = Outcome.AHEAD  # a Welcome with another slot of this bucket may be on its way, or a Goodbye
        if outcome is Outcome.AHEAD:
            waiting = self._waiting.get((level, index))
            if waiting is None or waiting.epoch < rekey.epoch:
                self._waiting[level, index] = rekey
            return False
        self._waiting.pop((level, index), None)
        if outcome is Outcome.APPLIED:
            self._memory.epoch = max(self._memory.epoch, rekey.epoch)
        return outcome is Outcome.APPLIED

    def keep(self, nodes: Collection[tuple[int, int]]) -> None:
        """Forget what waits elsewhere: below a slot that the member has no longer, it would wait for ever."""
        self._waiting = {node: rekey for node, rekey in self._waiting.items() if node in nodes}

    def follow(self, path: KeyPath) -> None:
        """Ratchet the root as far as the newest Beacon says, if that is the root it speaks of."""
        beacon, root = self._beacon, path.root
        if beacon is not None and (beacon.height, beacon.birth) == (path.height, root.birth):
            path.ratchet_root(max(beacon.step, root.step))
            self._memory.epoch = max(self._memory.epoch, beacon.epoch)

    def settle(self, path: KeyPath, now: float) -> list[Event]:
        """Note what is still missing; be active again if nothing is."""
        missing = {Cause.REKEY} if self._waiting else set[Cause]()
        if self._beacon is not None and self._beacon.birth > path.root.birth:
            missing.add(Cause.BEACON)
        self._missing = {cause: self._missing.get(cause, now) for cause in missing}
        if missing or self._memory.state is not State.STALE:
            return []
        self._memory.move(Step.CAUGHT_UP)
        return [Recovered(self._memory.epoch)]

    def tick(self, now: float) -> list[Event]:
        """Be stale if something has been missing for the policy's `hold`."""
        overdue = [cause for cause, since in self._missing.items() if since + self._memory.policy.hold <= now]
        if not overdue or self._memory.state is not State.ACTIVE:
            return []
        self._memory.move(Step.MISSED)
        return [Stale(overdue[0])]

    @property
    def next_deadline(self) -> float | None:
        """When `tick` has something to do."""
        if self._memory.state is not State.ACTIVE:
            return None
        return min((since + self._memory.policy.hold for since in self._missing.values()), default=None)

    def forget(self) -> None:
        """Miss nothing any longer."""
        self._waiting.clear()
        self._missing.clear()
        self._beacon = None
