"""The table of a member's states: every state with every step."""

from __future__ import annotations

import pytest
from core.refusal import refused

from brokerkm.core.state import State, Step, after
from brokerkm.errors import Reason

# The specification's table, written out once more: rows are states, columns the steps in their order.
TABLE = {
    # asked, welcomed, missed, caught up, expelled
    State.NEW: (State.JOINING, None, None, None, None),
    State.JOINING: (State.JOINING, State.ACTIVE, None, None, None),
    State.ACTIVE: (State.ACTIVE, State.ACTIVE, State.STALE, None, State.EVICTED),
    State.STALE: (State.STALE, State.ACTIVE, None, State.ACTIVE, State.EVICTED),
    State.EVICTED: (State.JOINING, None, None, None, None),
}
STEPS = (Step.ASKED, Step.WELCOMED, Step.MISSED, Step.CAUGHT_UP, Step.EXPELLED)


def test_table_is_complete() -> None:
    """No state and no step is left out of the table."""
    assert (set(State), set(Step)) == (set(TABLE), set(STEPS))


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("step", Step)
def test_step_leads_where_the_table_says(state: State, step: Step) -> None:
    """Each step leads to its state, or is refused without one."""
    expected = TABLE[state][STEPS.index(step)]
    if expected is None:
        with refused(Reason.WRONG_STATE, "state"):
            after(state, step)
    else:
        assert expected is after(state, step)
