"""Metrics: what the feed says is counted, labels are bounded, and no name of a member is among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from brokerkm.errors import Reason
from brokerkm.service.feed import Feed, Kind
from brokerkm.telemetry.journey import MAX_WAITING, Journey, Journeys
from brokerkm.telemetry.metrics import MAX_CALLS, OTHER, Metrics

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    """Seconds that stand still until they are set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Give the feed's clock."""
    return Clock()


@pytest.fixture
def feed(clock: Clock) -> Feed:
    """Give a feed."""
    return Feed(clock)


def commit(feed: Feed, group: str = "plant", *, epoch: int = 1, sequence: int = 9, waited: float = 0.5) -> None:
    """Say that an epoch is stored."""
    feed.emit(
        Kind.COMMIT,
        group,
        epoch=epoch,
        seated=2,
        removed=1,
        rekeys=7,
        sequence=sequence,
        prepare_seconds=0.1,
        store_seconds=0.2,
        waited_seconds=waited,
    )


def reader(metrics: Metrics) -> Callable[..., float | None]:
    """Return a function that reads a sample."""
    return lambda name, **labels: metrics.registry.get_sample_value(name, labels)


def test_a_commit_and_its_publication_are_one_journey(feed: Feed, clock: Clock) -> None:
    """The times of all its parts follow from what the two happenings say."""
    found: list[Journey] = []
    feed.listen(Journeys(found.append).hear)
    commit(feed)
    feed.emit(Kind.PUBLISHED, "other", sequence=99, messages=1, seconds=0.0)
    clock.now += 3
    feed.emit(Kind.PUBLISHED, "plant", sequence=8, messages=8, seconds=0.0)
    assert [] == found
    feed.emit(Kind.PUBLISHED, "plant", sequence=9, messages=1, seconds=0.0)
    assert [Journey("plant", 1, 999.5, pytest.approx(999.7), 999.8, 1000.0, 1003.0)] == found  # type: ignore[arg-type]
    assert 3.5 == found[0].latency


def test_the_journeys_under_way_are_bounded(feed: Feed) -> None:
    """A broker that is down for days fills no memory."""
    found: list[Journey] = []
    feed.listen(Journeys(found.append).hear)
    for epoch in range(MAX_WAITING + 5):
        commit(feed, epoch=epoch, sequence=epoch)
    feed.emit(Kind.PUBLISHED, "plant", sequence=10_000, messages=1, seconds=0.0)
    assert (MAX_WAITING, 5) == (len(found), found[0].epoch)


def test_a_clock_that_was_set_back_makes_no_negative_latency(feed: Feed, clock: Clock) -> None:
    """It makes none at all."""
    found: list[Journey] = []
    feed.listen(Journeys(found.append).hear)
    commit(feed)
    clock.now -= 86400
    feed.emit(Kind.PUBLISHED, "plant", sequence=9, messages=1, seconds=0.0)
    assert 0.5 == found[0].latency


def test_what_happens_is_counted(feed: Feed, clock: Clock) -> None:
    """Each kind in its series."""
    metrics = Metrics()
    metrics.listen(feed)
    commit(feed)
    clock.now += 2
    feed.emit(Kind.PUBLISHED, "plant", sequence=9, messages=9, seconds=0.02)
    feed.emit(Kind.ACK, "plant", "pump", epoch=1)
    feed.emit(Kind.ACK, "plant", "pump", epoch=0)
    feed.emit(Kind.SYNC, "plant", "pump")
    feed.emit(Kind.REQUEST_REFUSED, "plant", "pump", reason="bad-mac")
    value = reader(metrics)
    assert (1, 7, 2, 1, 9, 1, 2, 1, 1, 2.5, 1, 2.0, 1) == (
        value("brokerkm_commits_total", group="plant"),
        value("brokerkm_rekeys_total", group="plant"),
        value("brokerkm_members_seated_total", group="plant"),
        value("brokerkm_members_removed_total", group="plant"),
        value("brokerkm_published_messages_total", group="plant"),
        value("brokerkm_requests_total", group="plant", kind="sync"),
        value("brokerkm_requests_total", group="plant", kind="ack"),
        value("brokerkm_requests_refused_total", reason="bad-mac"),
        value("brokerkm_rekey_latency_seconds_count"),
        value("brokerkm_rekey_latency_seconds_sum"),
        value("brokerkm_publish_seconds_count"),
        value("brokerkm_ack_seconds_sum"),
        value("brokerkm_events_total", kind="commit"),
    )


def test_groups_beyond_the_limit_share_a_label(feed: Feed) -> None:
    """Their values are summed up."""
    metrics = Metrics(max_groups=2)
    metrics.listen(feed)
    for number in range(5):
        commit(feed, f"g{number}")
    metrics.set_by_group(metrics.waiting, {(f"g{number}",): 10.0 for number in range(5)})
    value = reader(metrics)
    assert (1, 1, 3, None, 30) == (
        value("brokerkm_commits_total", group="g0"),
        value("brokerkm_commits_total", group="g1"),
        value("brokerkm_commits_total", group=OTHER),
        value("brokerkm_commits_total", group="g2"),
        value("brokerkm_changes_waiting", group=OTHER),
    )


def test_a_group_that_is_gone_has_no_gauge() -> None:
    """Gauges are set anew each time."""
    metrics = Metrics()
    metrics.set_by_group(metrics.epoch, {("plant",): 4, ("depot",): 5})
    metrics.set_by_group(metrics.epoch, {("depot",): 6})
    value = reader(metrics)
    assert (None, 6) == (value("brokerkm_epoch", group="plant"), value("brokerkm_epoch", group="depot"))


def test_calls_on_the_store_are_timed_and_their_kinds_are_bounded() -> None:
    """Whatever the functions are called."""
    metrics = Metrics()
    for number in range(MAX_CALLS + 20):
        metrics.timed(f"call{number}", 0.01, number % 2 == 0)
    value = reader(metrics)
    assert (1, 1, 20) == (
        value("brokerkm_store_seconds_count", call="call0"),
        value("brokerkm_store_errors_total", call="call0"),
        value("brokerkm_store_seconds_count", call=OTHER),
    )


def test_the_number_of_series_is_bounded_whatever_members_do(feed: Feed) -> None:
    """A flood of members, groups and reasons adds no series without end, and no member's name is exported."""
    metrics = Metrics(max_groups=3)
    metrics.listen(feed)

    def play(names: range) -> int:
        for number in names:
            commit(feed, f"g{number}", epoch=number)
            for kind in (Kind.SYNC, Kind.LEFT, Kind.JOIN_REQUESTED, Kind.SEATED, Kind.EVICTED):
                feed.emit(kind, f"g{number}", f"member-{number}")
            for reason in Reason:
                feed.emit(Kind.REQUEST_REFUSED, f"g{number}", f"member-{number}", reason=reason.value)
        families = text_string_to_metric_families(metrics.text().decode())
        return sum(len(family.samples) for family in families)

    first = play(range(10))
    assert first == play(range(10, 500))
    assert b"member-" not in metrics.text()
