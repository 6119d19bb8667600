"""The replay window against a set of all counters seen."""

from __future__ import annotations

from random import Random

import pytest

from brokerkm.core.opener import Window


@pytest.mark.parametrize("seed", range(10))
def test_window_agrees_with_a_set(seed: int) -> None:
    """A counter is taken once, and not at all if it is 1,024 or more behind the newest."""
    rng, window, seen, top = Random(seed), Window(), set[int](), -1
    for _ in range(5000):
        counter = max(
            0, top + rng.choice((1, 1, 1, -1, -5, 3, -1023, -1024, -1025, 1023, 1024, rng.randint(-1500, 40)))
        )
        expected = counter not in seen and counter > top - 1024
        assert expected == window.take(counter)
        seen.add(counter)
        top = max(top, counter)


@pytest.mark.parametrize(("counter", "expected"), [(1, True), (0, False), (1024, False), (1025, True)])
def test_window_is_1024_wide(counter: int, *, expected: bool) -> None:
    """After counter 1024, counters down to 1 may still come, each once."""
    window = Window()
    assert window.take(1024)
    assert expected == window.take(counter)
    assert not window.take(counter)


def test_window_stays_small() -> None:
    """Whatever the counters, the window has 1,024 bits at most."""
    window = Window()
    for counter in (0, 5, 1023, 1024, 2047, 1 << 62):
        window.take(counter)
        assert window.mask.bit_length() <= 1024
