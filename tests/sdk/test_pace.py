"""When the server is asked for what, without any I/O."""

from __future__ import annotations

import pytest

from brokerkm.core.notice import RefusalReason
from brokerkm.core.state import State
from brokerkm.sdk.recovery import Ask, Pace, Recovery

PACE = Pace(retained=10, repeat=4, ceiling=60, syncs=3)


def latest(low: float, high: float) -> float:
    """Draw the end of the range."""
    assert low <= high
    return high


def attempts(recovery: Recovery, state: State, count: int) -> list[tuple[Ask, float]]:
    """Return what is asked for when nothing is ever answered, and the wait before it."""
    now, found = 0.0, list[tuple[Ask, float]]()
    for _ in range(count):
        at = recovery.plan(state, None, now)
        assert at is not None
        found.append((recovery.request, at - now))
        now = at
        recovery.asked(now)
    return found


def test_a_stale_member_waits_then_syncs_then_joins() -> None:
    """Waits double up to the ceiling; after some Syncs every second request is a Join."""
    waits = [10, 4, 8, 16, 32, 60, 60]
    kinds = [Ask.SYNC] * 3 + [Ask.JOIN, Ask.SYNC] * 2
    assert attempts(Recovery(PACE, latest), State.STALE, 7) == list(zip(kinds, waits, strict=True))


def test_a_joining_member_asks_soon() -> None:
    """A Welcome that is retained already comes before the Join is repeated for the first time."""
    assert attempts(Recovery(PACE, latest), State.JOINING, 3) == [(Ask.JOIN, 1), (Ask.JOIN, 4), (Ask.JOIN, 8)]


def test_the_ceiling_holds_for_ever() -> None:
    """After thousands of attempts the wait is what it was, and nothing overflows."""
    assert attempts(Recovery(PACE, latest), State.STALE, 3000)[-1][1] == 60


@pytest.mark.parametrize("state", [State.NEW, State.ACTIVE, State.EVICTED])
def test_nothing_is_asked_for_without_need(state: State) -> None:
    """Who has the keys, or is out, asks for nothing."""
    recovery = Recovery(PACE, latest)
    assert recovery.plan(state, None, 0) is None
    recovery.refused(RefusalReason.WRONG_TIME, 0)
    assert recovery.plan(state, None, 0) is None


def test_who_has_recovered_begins_anew() -> None:
    """The waits of one gap are not those of the next."""
    recovery = Recovery(PACE, latest)
    attempts(recovery, State.STALE, 5)
    assert recovery.plan(State.ACTIVE, None, 0) is None
    assert attempts(recovery, State.STALE, 1) == [(Ask.SYNC, 10)]


def test_a_refused_sync_leads_to_a_join() -> None:
    """A leaf key that the server does not know is not tried again."""
    recovery = Recovery(PACE, latest)
    recovery.plan(State.STALE, None, 0)
    recovery.asked(100)
    recovery.asked(100)
    recovery.refused(RefusalReason.NOT_ADMITTED, 101)
    assert (recovery.request, recovery.plan(State.STALE, None, 101)) == (Ask.JOIN, 105)


def test_a_wrong_clock_does_not_cost_the_wait() -> None:
    """The refusal has put the clock right: the next attempt is soon; TRY_LATER keeps the wait."""
    recovery = Recovery(PACE, latest)
    recovery.plan(State.JOINING, None, 0)
    recovery.asked(0)
    recovery.asked(0)
    recovery.refused(RefusalReason.TRY_LATER, 1)
    assert recovery.plan(State.JOINING, None, 1) == 8
    recovery.refused(RefusalReason.WRONG_TIME, 1)
    assert recovery.plan(State.JOINING, None, 1) == 5
    for _ in range(5):
        recovery.asked(10)
    recovery.refused(RefusalReason.WRONG_TIME, 11)  # a server that never agrees is not asked ever faster
    assert recovery.plan(State.JOINING, None, 11) == 70


def test_certificates_are_renewed_before_they_end() -> None:
    """A third to a tenth of what is left before the end; then as often as a Sync may be."""
    recovery = Recovery(PACE, latest)
    assert recovery.plan(State.ACTIVE, 1000, 0) == pytest.approx(700)
    assert recovery.plan(State.ACTIVE, 1000, 500) == pytest.approx(700)
    recovery.asked(700)
    assert (recovery.request, recovery.plan(State.ACTIVE, 1000, 700)) == (Ask.SYNC, 704)
    assert recovery.plan(State.ACTIVE, 2000, 710) == pytest.approx(2000 - 1290 * 0.3)
    assert Recovery(PACE, latest).plan(State.ACTIVE, 1000, 2000) == 2000  # it ended while the member was away


def test_missing_certificate_is_asked_for_within_the_spread() -> None:
    """A fleet that is to sign from now on asks over a while; without that policy it asks for nothing."""
    recovery = Recovery(PACE, latest)
    assert recovery.plan(State.ACTIVE, None, 0, 15) is None
    assert recovery.plan(State.ACTIVE, 0.0, 10, 15) == 25
    assert recovery.plan(State.ACTIVE, 0.0, 20, 15) == 25
    assert recovery.plan(State.ACTIVE, 1020, 20, 15) == pytest.approx(1020 - 300)
    assert recovery.plan(State.ACTIVE, None, 30, 15) is None
