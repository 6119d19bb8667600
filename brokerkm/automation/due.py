"""Whether a rule is due. Pure: the rule, what it remembers, the time and the facts come in, the decision comes out.

The clock may be wrong. Set back, it makes nothing due a second time; set forward and then back, it keeps a rule
quiet for a day at most.
"""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from brokerkm.automation.cron import Cron
from brokerkm.automation.rule import DAY

if TYPE_CHECKING:
    from brokerkm.automation.memory import Memory
    from brokerkm.automation.rule import OnCount, OnSilence, OnTime

_DAY_MS: Final = DAY * 1000
_PATIENCE: Final = 2  # checks that may be missed without a doubt about who is silent
_PATIENCE_SHARE: Final = 20  # or this part of the silence
_STEPS: Final = 100  # in which a round of new leaf keys is made, at least
MAX_LEAVES: Final = 500  # renewed by one commit


@dataclass(frozen=True, slots=True)
class Due:
    """A run that is due.

    Args:
        time: when it became due, ms since 1970.
        missed: how many earlier times went by while no server ran; they are made up for by this one run.
    """

    time: int
    missed: int = 0


def on_time(trigger: OnTime, created: int, memory: Memory, now: int) -> Due | None:
    """Return the run of a crontab line that is due at `now`, or None."""
    cron = Cron(trigger.cron, zoneinfo.ZoneInfo(trigger.zone))
    done = _believed(max(memory.ran, created), now)
    last = cron.last(now)
    if last is None or last <= done:
        return None
    return Due(last, cron.count(done, last) - 1)


def on_period(period: int, memory: Memory, now: int) -> Due | None:
    """Return the run that is due every `period` seconds, or None; the first is one period after `ran` was set."""
    done = _believed(memory.ran, now)
    passed = (now - done) // (period * 1000)
    if passed <= 0:
        return None
    return Due(done + passed * period * 1000, passed - 1)


def share_of_leaves(period: int, members: int, memory: Memory, now: int) -> tuple[int, int]:
    """Return how many members are to get new leaf keys now so that all do in `period` seconds, and what `ran` becomes.

    They go by in the order of their ids, in at least a hundred steps, each at most `MAX_LEAVES`.
    """
    done = _believed(memory.ran, now)
    passed, whole = now - done, period * 1000
    number = members * passed // whole if members else 0
    if passed >= whole:  # nobody was there to do it, and one round makes up for all
        return min(members, MAX_LEAVES), now - whole * (members - min(members, MAX_LEAVES)) // max(members, 1)
    if not number or passed < whole // _STEPS:
        return 0, memory.ran
    number = min(number, MAX_LEAVES)
    return number, done - -number * whole // members  # rounded up: never too early


def on_count(trigger: OnCount, members: int, memory: Memory) -> tuple[bool, Memory]:
    """Return whether the rule fires now that there are so many members, and what it remembers from then on."""
    if trigger.above is not None:
        beyond, back = members > trigger.above, members <= trigger.above - trigger.margin
    else:
        limit = trigger.below or 0
        beyond, back = members < limit, members >= limit + trigger.margin
    if beyond and memory.armed:
        return True, replace(memory, armed=False)
    if back and not memory.armed:
        return False, replace(memory, armed=True)
    return False, memory


def on_silence(trigger: OnSilence, memory: Memory, now: int) -> tuple[int | None, Memory]:
    """Return until when members must have been heard, or None if that cannot be told, and what is remembered.

    After a break in listening that was longer than two checks and a twentieth of the silence, the count begins anew
    for everybody: a server that was off for a month has heard nobody.
    """
    patience = max(_PATIENCE * trigger.every, trigger.unseen // _PATIENCE_SHARE) * 1000
    broken = not memory.listening or now - memory.checked > patience or memory.checked > now + patience
    listening = now if broken else memory.listening
    told = replace(memory, listening=listening, checked=now)
    cutoff = now - trigger.unseen * 1000
    return (cutoff if listening <= cutoff else None), told


def silence_checked(trigger: OnSilence, memory: Memory, now: int) -> bool:
    """Return whether it is too early to look for silent members again."""
    return 0 <= now - memory.checked < trigger.every * 1000


def allowance(share: int, members: int, memory: Memory, now: int) -> int:
    """Return how many of `members` may be evicted now: `share` percent in a day, but always one."""
    today = memory.evicted if memory.day == now // _DAY_MS else 0
    return max(0, max(1, (members + today) * share // 100) - today)


def evicted(memory: Memory, number: int, now: int) -> Memory:
    """Return what is remembered once `number` members are evicted."""
    day = now // _DAY_MS
    return replace(memory, day=day, evicted=number + (memory.evicted if memory.day == day else 0))


def _believed(done: int, now: int) -> int:
    """Return when the last run was due; a clock that was days ahead is not believed."""
    return now if done > now + _DAY_MS else done
