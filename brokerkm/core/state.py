"""Where a member stands with its group, and what moves it from one state to another."""

from __future__ import annotations

import enum
from typing import Final

from brokerkm.errors import Reason, RefusedError


class State(enum.StrEnum):
    """Where a member stands with its group."""

    NEW = "new"
    JOINING = "joining"
    ACTIVE = "active"
    STALE = "stale"  # has keys, but not the group's newest
    EVICTED = "evicted"


class Step(enum.Enum):
    """What can happen to a member."""

    ASKED = "asked"  # sent a Join
    WELCOMED = "welcomed"
    MISSED = "missed"  # a gap has lasted longer than `hold`
    CAUGHT_UP = "caught up"
    EXPELLED = "expelled"


TRANSITIONS: Final[dict[tuple[State, Step], State]] = {
    (State.NEW, Step.ASKED): State.JOINING,
    (State.JOINING, Step.ASKED): State.JOINING,
    (State.ACTIVE, Step.ASKED): State.ACTIVE,
    (State.STALE, Step.ASKED): State.STALE,
    (State.EVICTED, Step.ASKED): State.JOINING,
    (State.JOINING, Step.WELCOMED): State.ACTIVE,
    (State.ACTIVE, Step.WELCOMED): State.ACTIVE,
    (State.STALE, Step.WELCOMED): State.ACTIVE,
    (State.ACTIVE, Step.MISSED): State.STALE,
    (State.STALE, Step.CAUGHT_UP): State.ACTIVE,
    (State.ACTIVE, Step.EXPELLED): State.EVICTED,
    (State.STALE, Step.EXPELLED): State.EVICTED,
}


def after(state: State, step: Step) -> State:
    """Return the state that `step` leads to from `state`; raises `RefusedError` (wrong-state) if it cannot happen."""
    try:
        return TRANSITIONS[state, step]
    except KeyError:
        raise RefusedError(Reason.WRONG_STATE, "state", f"{state} when {step.value}") from None
