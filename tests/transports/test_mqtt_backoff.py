"""The waits between attempts to connect, with chosen randomness."""

from __future__ import annotations

from brokerkm_mqtt.backoff import FIRST_CEILING, LAST_CEILING, Backoff


def _longest(low: float, high: float) -> float:
    assert low == 0.0
    return high


def test_ceiling_doubles_up_to_the_last() -> None:
    """Each wait may be twice as long as the one before, up to a limit."""
    backoff = Backoff(_longest)
    waits = [backoff.next() for _ in range(9)]
    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, LAST_CEILING, LAST_CEILING]


def test_jitter_is_full() -> None:
    """A wait may be anything from nothing to its ceiling."""
    asked: list[tuple[float, float]] = []

    def lowest(low: float, high: float) -> float:
        asked.append((low, high))
        return low

    backoff = Backoff(lowest)
    assert [backoff.next(), backoff.next()] == [0.0, 0.0]
    assert asked == [(0.0, FIRST_CEILING), (0.0, 2 * FIRST_CEILING)]


def test_lasting_connection_starts_anew() -> None:
    """After a connection that lasted, the next loss is a new one."""
    backoff = Backoff(_longest)
    for _ in range(4):
        backoff.next()
    backoff.lasted(4.0)
    assert backoff.next() == FIRST_CEILING


def test_flapping_connection_does_not() -> None:
    """A broker that takes connections and drops them is not asked faster and faster."""
    backoff = Backoff(_longest)
    for _ in range(4):
        backoff.next()
        backoff.lasted(0.1)
    assert backoff.next() == 4.0
