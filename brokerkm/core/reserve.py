"""A member's spares: root keys that it was given beforehand, for when no Rekey comes (the specification, "Spares").

They open Data and nothing else. Which of them is the group's key now nobody has signed: whoever was cut off may hold
the same ones, so that what one of them opens moves no state, and nothing is sent under it. A Rekey or a Welcome with a
newer root ends those up to that root, or all of them if it is none of them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from brokerkm.core.crypto import ratchet
from brokerkm.core.data import traffic_key
from brokerkm.core.welcome import NodeKey
from brokerkm.errors import Reason, RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brokerkm.core.data import Data
    from brokerkm.core.events import MessageReceived
    from brokerkm.core.memory import Memory
    from brokerkm.core.opener import Opener

MAX_AHEAD: Final = 1024  # steps that a receiver ratchets a copy of a root key; it keeps what it derives
MAX_TRIALS: Final = 16  # messages a second that all spares are tried on: a header costs an outsider nothing
MAX_BIRTHS: Final = 64  # births whose spare is remembered; an insider can invent as many as it likes


class Reserve:
    """The spares of one member.

    Args:
        memory: has them, by number; they are numbered in the order in which they are to be used.
        opener: opens Data, and remembers what was seen under each spare.
    """

    def __init__(self, memory: Memory, opener: Opener) -> None:
        self._memory: Final = memory
        self._opener: Final = opener
        self._ladders: Final[dict[int, list[bytes]]] = {}  # of each spare, its key and those of later steps
        self._births: Final[OrderedDict[int, int]] = OrderedDict()  # which spare opened Data of this birth
        self._second = 0  # that trials are counted in
        self._trials = 0

    def __contains__(self, birth: int) -> bool:
        return birth in self._births

    def replace(self, spares: Sequence[bytes]) -> None:
        """Have these instead of those that there were."""
        self._drop(max(self._memory.spares, default=-1))
        self._births.clear()
        self._memory.spares = dict(enumerate(spares))

    def follow(self, root: NodeKey) -> None:
        """Drop the spares up to the group's new `root`, which is born after they were given; all if it is none of them.

        What was seen under the spare that it is has been seen under the root.
        """
        spares = self._memory.spares
        used = next((one for one in spares if root.step <= MAX_AHEAD and self._at(one, root.step) == root.key), None)
        if used is not None:
            self._opener.rename(_origin(used), root.birth)
        self._drop(max(spares, default=-1) if used is None else used)

    def open(self, data: Data, topic: str, now: float, *, signed: bool) -> MessageReceived | None:
        """Return the message in Data of a root that the member does not have, if one of the spares opens it.

        Raises:
            RefusedError: one does, but it is a replay, or its signature is not as it has to be.
        """
        header = data.header
        if not self._memory.spares or header.step > MAX_AHEAD:
            return None
        likely = self._births.get(header.birth)
        message = None if likely is None else self._try(likely, data, topic, now, signed=signed)
        if message is None and self._may_try(now):
            others = (number for number in self._memory.spares if number != likely)
            message = next((it for one in others if (it := self._try(one, data, topic, now, signed=signed))), None)
        return message

    def _try(self, number: int, data: Data, topic: str, now: float, *, signed: bool) -> MessageReceived | None:
        birth, step = data.header[:2]
        tek = traffic_key(self._memory.profile.group, NodeKey(self._at(number, step), birth, step))
        try:
            message = self._opener.open(data, topic, now, signed=signed, tek=tek, origin=_origin(number))
        except RefusedError as error:
            if error.reason is not Reason.BAD_SEAL:
                raise
            return None
        if message is not None:
            self._births[birth] = number
            self._births.move_to_end(birth)
            if len(self._births) > MAX_BIRTHS:
                self._births.popitem(last=False)
        return message

    def _may_try(self, now: float) -> bool:
        """Count a message that all spares are tried on; return False if there were enough in this second."""
        if self._second != int(now):
            self._second, self._trials = int(now), 0
        self._trials += 1
        return self._trials <= MAX_TRIALS

    def _at(self, number: int, step: int) -> bytes:
        """Return a spare moved on to `step`."""
        ladder = self._ladders.setdefault(number, [self._memory.spares[number]])
        while len(ladder) <= step:
            ladder.append(ratchet(ladder[-1]))
        return ladder[step]

    def _drop(self, last: int) -> None:
        """Forget the spares up to the one numbered `last`, and what was seen under them."""
        for number in [number for number in self._memory.spares if number <= last]:
            del self._memory.spares[number]
            self._ladders.pop(number, None)
            self._opener.rename(_origin(number), None)
        for birth in [birth for birth, number in self._births.items() if number <= last]:
            del self._births[birth]


def _origin(number: int) -> int:
    """Return what stands for a birth where the counters seen under a spare are remembered: no epoch is negative."""
    return -1 - number
