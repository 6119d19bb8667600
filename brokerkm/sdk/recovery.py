"""When a member asks the key server, and for what: the specification's section "Recovery", without I/O.

Retained messages come first and cost the server nothing; then Sync; then, if that stays without an answer, Join, which
gives a new leaf key. Every wait is drawn at random, and doubles: a fleet that comes back together must not storm the
server.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from brokerkm.core.notice import RefusalReason
from brokerkm.core.state import State

if TYPE_CHECKING:
    from collections.abc import Callable


class Ask(enum.Enum):
    """What the server can be asked for."""

    SYNC = "sync"
    JOIN = "join"


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient a member is; all in seconds but `syncs`. The defaults suit fleets of any size.

    Args:
        retained: at most how long a stale member waits for retained messages before it asks for a Sync. 10 s: a fleet
            of 100,000 that comes back together asks 10,000 times a second at worst.
        repeat: until the first repetition of a request without answer, at most; doubled with each.
        ceiling: the longest wait between two requests.
        syncs: unanswered Syncs after which every second request is a Join.
        settle: how long after a connection the newest retained Beacon is waited for, before the saved keys are taken
            for the current ones; and a retained Welcome, before an earlier Join is repeated.
        windows: how often what was received is noted in the state directory; a broker can show a member that was killed
            the messages of this time again.
        save: between two attempts to save the state, when the disk does not take it.
    """

    retained: float = 10.0
    repeat: float = 5.0
    ceiling: float = 300.0
    syncs: int = 4
    settle: float = 1.0
    windows: float = 60.0
    save: float = 5.0


class Recovery:
    """What is to be asked next, and when.

    Args:
        pace: how patient to be.
        uniform: draws evenly between its two arguments, as `random.uniform` does.
    """

    def __init__(self, pace: Pace, uniform: Callable[[float, float], float]) -> None:
        self._pace: Final = pace
        self._uniform: Final = uniform
        self._state: State | None = None
        self._attempts = 0
        self._at: float | None = None
        self._expiry: float | None = None
        self._renewal = 0.0

    def plan(self, state: State, expiry: float | None, now: float, spread: float = 0.0) -> float | None:
        """Take note of where the member stands; return when to ask, None if there is nothing to ask for.

        Args:
            state: the member's.
            expiry: when its sender certificate ends; 0 if it lacks one, None if it needs none.
            now: seconds since 1970.
            spread: seconds over which those who lack a certificate ask for one.
        """
        if expiry != self._expiry:
            self._expiry = expiry
            self._state = None
            if expiry:
                # Early enough for many attempts, and not with those who were certified at the same time.
                self._renewal = expiry - (expiry - now) * self._uniform(0.1, 0.3)
            elif expiry is not None:
                self._renewal = now + self._uniform(0.0, spread)
        if state is not self._state:
            self._state = state
            self._attempts = 0
            self._at = self._first(state, now)
        return self._at

    def _first(self, state: State, now: float) -> float | None:
        match state:
            case State.JOINING:  # an earlier request was carried, or listed: its answer may be retained by now
                return now + self._pace.settle
            case State.STALE:
                return now + self._uniform(0.0, self._pace.retained)
            case State.ACTIVE if self._expiry is not None:
                return max(now, self._renewal)
            case _:
                return None

    @property
    def request(self) -> Ask:
        """What to ask for when it is time."""
        if self._state is State.JOINING:
            return Ask.JOIN
        lost = self._state is State.STALE and self._attempts >= self._pace.syncs
        return Ask.JOIN if lost and (self._attempts - self._pace.syncs) % 2 == 0 else Ask.SYNC

    @property
    def unanswered(self) -> int:
        """How often it was asked since the member is in its state."""
        return self._attempts

    def asked(self, now: float) -> None:
        """Note that it was asked; the next time will be later."""
        wait = min(self._pace.repeat * 2.0 ** min(self._attempts, 30), self._pace.ceiling)
        self._at = now + self._uniform(wait / 2, wait)
        self._attempts += 1

    def refused(self, reason: RefusalReason, now: float) -> None:
        """Note the server's answer.

        A clock that was wrong is right now, and one whose leaf key the server does not know can only join: both need
        not wait as long as for an answer that has not come, but not for ever so.
        """
        if self._at is None or self._attempts > self._pace.syncs:
            return
        if reason is RefusalReason.NOT_ADMITTED and self._state is State.STALE:
            self._attempts = self._pace.syncs
        elif reason is not RefusalReason.WRONG_TIME:
            return
        self._at = min(self._at, now + self._uniform(0.0, self._pace.repeat))
