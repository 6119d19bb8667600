"""One row of a benchmark: what was measured, and what it is to be compared with."""

from __future__ import annotations

import dataclasses
import gc
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The figures of one case; None where one does not apply.

    Args:
        case: `evict`, `batch`, `memory`, `member` or `data`.
        members: in the group before the case.
        degree: of the key tree.
        evicted: members evicted in the one commit that was measured.
        messages: Rekeys published for the commit.
        mean_bytes, max_bytes: payload of the Rekey that a remaining member gets.
        messages_per_member: Rekeys that each remaining member gets; counted for every member, not sampled.
        cpu_s: CPU time of ours, seconds: the best of the repetitions.
        floor_s: CPU time of the same primitives called bare, in the same run.
        ratio: cpu_s / floor_s.
        bytes_total: payload bytes that reach the fleet.
        flat_bytes_total: the same if every member got one message with every wrapped key (GDOI's way).
        flat_times: flat_bytes_total / bytes_total.
        pairwise_messages: messages if each member got the key under its own (E4's way).
        pairwise_times: pairwise_messages / messages.
        pairwise_cpu_s: CPU time of wrapping and signing those, scaled up from a sample.
        bytes_per_member_memory: resident memory above the empty process, for each member.
        limit: what the project holds itself to.
        holds: whether it does.
    """

    case: str
    members: int
    degree: int | None = None
    evicted: int | None = None
    messages: int | None = None
    mean_bytes: float | None = None
    max_bytes: int | None = None
    messages_per_member: float | None = None
    cpu_s: float | None = None
    floor_s: float | None = None
    ratio: float | None = None
    bytes_total: int | None = None
    flat_bytes_total: int | None = None
    flat_times: float | None = None
    pairwise_messages: int | None = None
    pairwise_times: float | None = None
    pairwise_cpu_s: float | None = None
    bytes_per_member_memory: float | None = None
    limit: str = ""
    holds: bool = True

    def as_dict(self) -> dict[str, object]:
        """Return the fields that apply."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


def best_of(repetitions: int, *works: Callable[[], object]) -> list[float]:
    """Return the least CPU time of each of `works` in seconds; they take turns, so that a busy moment hits all."""
    times = [float("inf")] * len(works)
    gc.collect()
    for _ in range(repetitions):
        for at, work in enumerate(works):
            start = time.process_time()
            work()
            times[at] = min(times[at], time.process_time() - start)
    return times
