"""When rules are due: time, memory and facts in, the decision out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerkm.automation import due
from brokerkm.automation.memory import Memory
from brokerkm.automation.rule import OnCount, OnSilence, OnTime

HOUR = 3_600_000
DAY = 24 * HOUR
START = 1_767_225_600_000  # 2026-01-01 00:00 UTC
HOURLY = OnTime("0 * * * *")


def test_time_is_due_once() -> None:
    """A due time is acted on when it has come, and not again."""
    memory = Memory(ran=START)
    assert due.on_time(HOURLY, START, memory, START + HOUR - 1) is None
    found = due.on_time(HOURLY, START, memory, START + HOUR + 5000)
    assert due.Due(START + HOUR) == found
    assert due.on_time(HOURLY, START, replace(memory, ran=START + HOUR), START + HOUR + 5000) is None


def test_what_was_due_before_the_rule_is_not_made_up_for() -> None:
    """A rule that was made a minute after its time waits for the next one."""
    assert due.on_time(HOURLY, START + 60_000, Memory(), START + 120_000) is None


def test_missed_times_are_made_up_for_by_one_run() -> None:
    """The newest due time counts; how many went by is said."""
    assert due.Due(START + 5 * HOUR, 4) == due.on_time(HOURLY, START, Memory(), START + 5 * HOUR + 1)


def test_clock_set_back_makes_nothing_due_again() -> None:
    """The hours of a day that comes twice have had their runs."""
    memory = Memory(ran=START + DAY)
    for hour in range(25):
        assert due.on_time(HOURLY, START, memory, START + hour * HOUR) is None
    assert due.Due(START + DAY + HOUR) == due.on_time(HOURLY, START, memory, START + DAY + HOUR)


def test_clock_that_was_years_ahead_keeps_nothing_quiet_for_long() -> None:
    """A run in a future that was not one is not believed."""
    memory = Memory(ran=START + 1000 * DAY)
    assert due.Due(START + HOUR) != due.on_time(HOURLY, START, memory, START + HOUR)
    assert due.on_period(3600, memory, START) is None


def test_time_zone_counts() -> None:
    """Six in the morning in Berlin is five in UTC in winter and four in summer."""
    rule = OnTime("0 6 * * *", "Europe/Berlin")
    assert due.Due(START + 5 * HOUR) == due.on_time(rule, START, Memory(), START + 6 * HOUR)
    summer = START + 181 * DAY  # 1 July
    assert due.Due(summer + 4 * HOUR) == due.on_time(rule, summer, Memory(), summer + 5 * HOUR)


@pytest.mark.parametrize("cron", ["30 2 * * *", "0 * * * *", "*/15 * * * *"])
@pytest.mark.parametrize("day", [START + 87 * DAY, START + 297 * DAY])  # 29 March and 25 October
def test_change_of_summer_time_runs_nothing_twice(cron: str, day: int) -> None:
    """Minute by minute through the night, each due time comes once and the time never goes back."""
    rule, memory, runs = OnTime(cron, "Europe/Berlin"), Memory(), list[int]()
    for minute in range(0, 6 * 60, 5):
        found = due.on_time(rule, day, memory, day - 2 * HOUR + minute * 60_000)
        if found is not None:
            runs.append(found.time)
            memory = replace(memory, ran=found.time)
    assert sorted(set(runs)) == runs
    assert len(runs) <= 1 if cron.startswith("30 2") else runs


@given(st.lists(st.integers(-DAY, DAY), max_size=40))
def test_wandering_clock_runs_no_due_time_twice(moves: list[int]) -> None:
    """However the clock jumps about within a day of the newest run, a due time is acted on once."""
    memory, runs, now = Memory(), list[int](), START
    for move in moves:
        now = max(now + move, memory.ran - DAY + 1, START)
        found = due.on_time(HOURLY, START, memory, now)
        if found is not None:
            runs.append(found.time)
            memory = replace(memory, ran=found.time)
    assert sorted(set(runs)) == runs


def test_period_follows_its_last_run() -> None:
    """Every ninety seconds from when it began, without drift, and once for what was missed."""
    memory = Memory(ran=START)
    assert due.on_period(90, memory, START + 89_999) is None
    assert due.Due(START + 90_000) == due.on_period(90, memory, START + 100_000)
    assert due.Due(START + 270_000, 2) == due.on_period(90, memory, START + 271_000)


def test_count_fires_at_the_edge_with_hysteresis() -> None:
    """Above ten it fires once, and again only after eight or less were reached."""
    trigger, memory, fired = OnCount(above=10, margin=2), Memory(), list[int]()
    for number in (9, 10, 11, 12, 11, 9, 11, 8, 10, 11):
        fires, memory = due.on_count(trigger, number, memory)
        fired.append(fires)
    assert [False, False, True, False, False, False, False, False, False, True] == fired


def test_count_below_is_the_mirror_image() -> None:
    """Below three it fires once, and again only after five were reached."""
    trigger, memory, fired = OnCount(below=3, margin=2), Memory(), list[int]()
    for number in (3, 2, 1, 3, 4, 2, 5, 2):
        fires, memory = due.on_count(trigger, number, memory)
        fired.append(fires)
    assert [False, True, False, False, False, False, False, True] == fired


def test_silence_is_told_only_after_listening_as_long() -> None:
    """A server that starts, or was off for long, begins to count anew for everybody."""
    trigger, memory, now = OnSilence(unseen=30 * 86400, every=3600), Memory(), START
    told: list[int | None] = []
    for _ in range(31 * 24):
        cutoff, memory = due.on_silence(trigger, memory, now)
        told.append(cutoff)
        now += HOUR
    assert 30 * 24 == told.index(START)
    assert {None} == set(told[: 30 * 24])
    assert None not in told[30 * 24 :]
    short, _ = due.on_silence(trigger, memory, now + DAY)
    assert short == now + DAY - 30 * DAY
    long, memory = due.on_silence(trigger, memory, now + 40 * DAY)
    assert (None, now + 40 * DAY) == (long, memory.listening)


def test_clock_set_back_by_a_day_makes_nobody_silent() -> None:
    """The count goes on, and nothing is found silent that would not have been."""
    trigger = OnSilence(unseen=30 * 86400, every=3600)
    memory = Memory(listening=START, checked=START + 20 * DAY)
    cutoff, after = due.on_silence(trigger, memory, START + 19 * DAY)
    assert (None, START) == (cutoff, after.listening)
    assert not due.silence_checked(trigger, memory, START + 19 * DAY)
    assert due.silence_checked(trigger, memory, START + 20 * DAY + HOUR - 1)


def test_allowance_counts_what_the_day_has_had() -> None:
    """Five percent of two hundred are ten in a day, in how many runs ever; one is always allowed."""
    memory = Memory()
    assert 10 == due.allowance(5, 200, memory, START)
    memory = due.evicted(memory, 7, START)
    assert 3 == due.allowance(5, 193, memory, START + HOUR)
    memory = due.evicted(memory, 3, START + HOUR)
    assert 0 == due.allowance(5, 190, memory, START + 2 * HOUR)
    assert 9 == due.allowance(5, 190, memory, START + DAY)
    assert (1, 1) == (due.allowance(5, 3, Memory(), START), due.allowance(1, 0, Memory(), START))


@given(st.integers(0, 5000), st.integers(60, 10**6), st.integers(1, 400))
def test_leaves_come_round_in_their_period(members: int, period: int, steps: int) -> None:
    """However often it is looked at, a period renews as many leaves as there are members, as far as commits go."""
    memory, renewed, now = Memory(ran=START), 0, START
    for step in range(1, steps + 1):
        now = START + period * 1000 * step // steps - 1
        number, ran = due.share_of_leaves(period, members, memory, now)
        assert (True, True) == (0 <= number <= due.MAX_LEAVES, memory.ran <= ran <= now)
        renewed += number
        memory = replace(memory, ran=ran)
    assert renewed <= members
    if members <= due.MAX_LEAVES and steps > 1:
        assert members - renewed <= members * 0.02 + 2 or steps < 100


def test_leaves_that_were_missed_are_not_renewed_twice() -> None:
    """After a year without a server one round makes up for all of it."""
    number, ran = due.share_of_leaves(86400, 100, Memory(ran=START), START + 365 * DAY)
    assert (100, START + 365 * DAY) == (number, ran)
    assert (0, ran) == due.share_of_leaves(86400, 100, Memory(ran=ran), ran + 60_000)
    assert (0, START) == due.share_of_leaves(86400, 0, Memory(ran=START), START + HOUR)
