"""Prometheus metrics of a key server, in a registry of their own.

Counters and histograms follow the feed; gauges are looked up when somebody asks, at most every few seconds. The number
of time series is bounded: labels are groups (up to a limit, the others share one), or words of closed lists. No member
id and no topic is ever a label.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from brokerkm.service.feed import Kind
from brokerkm.telemetry.journey import Journey, Journeys

if TYPE_CHECKING:
    from collections.abc import Callable

    from brokerkm.service.feed import Feed, Happening

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
OTHER: Final = "(other)"  # no group's name: it has parentheses
MAX_CALLS: Final = 64  # kinds of calls on the store with series of their own
_FAST: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)  # seconds
_SLOW: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)  # seconds
_REQUESTS: Final = {
    Kind.JOIN_REQUESTED: "join",
    Kind.SYNC: "sync",
    Kind.LEFT: "leave",
    Kind.ACK: "ack",
}


class Metrics:
    """All series; `listen` connects them with a feed.

    Args:
        max_groups: groups with series of their own.
    """

    def __init__(self, max_groups: int = 100) -> None:
        self.registry: Final = CollectorRegistry()
        self._max_groups: Final = max_groups
        self._labels: Final[dict[str, str]] = {}
        self._calls: Final[set[str]] = set()
        self._committed: Final[dict[str, tuple[int, float]]] = {}  # group to its newest epoch and when it began
        self._journeys: Final = Journeys(self._arrived)
        registry = self.registry
        ProcessCollector(registry=registry)
        build = Info("brokerkm_build", "What is running.", registry=registry)
        build.info({"version": importlib.metadata.version("brokerkm"), "python": platform.python_version()})

        self.members = Gauge("brokerkm_members", "Member ids by status.", ["group", "status"], registry=registry)
        self.epoch = Gauge("brokerkm_epoch", "Epoch of a group.", ["group"], registry=registry)
        self.waiting = Gauge("brokerkm_changes_waiting", "Changes before a commit.", ["group"], registry=registry)
        self.outbox = Gauge("brokerkm_outbox_messages", "Messages not published yet.", ["group"], registry=registry)
        self.lagging = Gauge(
            "brokerkm_members_lagging",
            "Members that have confirmed an epoch, but not this one; up to 1000.",
            ["group"],
            registry=registry,
        )
        self.leading = Gauge(
            "brokerkm_group_leading", "1 if this server leads the group.", ["group"], registry=registry
        )
        self.unserved = Gauge(
            "brokerkm_group_unserved", "1 if this server cannot lead the group.", ["group"], registry=registry
        )
        self.connected = Gauge("brokerkm_broker_connected", "1 if the broker is reached.", registry=registry)
        self.store_failing = Gauge(
            "brokerkm_store_failing", "1 if the last call on the store failed.", registry=registry
        )
        self.lag = Gauge("brokerkm_event_loop_lag_seconds", "Longest stall of the last seconds.", registry=registry)
        self.dropped = Gauge(
            "brokerkm_answers_dropped", "Answers to members dropped since the start.", registry=registry
        )

        self._guard: tuple[Gauge, Gauge, Gauge] | None = None

        self._commits = Counter("brokerkm_commits", "Epochs.", ["group"], registry=registry)
        self._rekeys = Counter("brokerkm_rekeys", "Rekey messages.", ["group"], registry=registry)
        self._seated = Counter("brokerkm_members_seated", "Members seated.", ["group"], registry=registry)
        self._removed = Counter("brokerkm_members_removed", "Members evicted or gone.", ["group"], registry=registry)
        self._published = Counter("brokerkm_published_messages", "Messages published.", ["group"], registry=registry)
        self._requests = Counter(
            "brokerkm_requests", "Requests with a good proof.", ["group", "kind"], registry=registry
        )
        self._refused = Counter("brokerkm_requests_refused", "Requests refused.", ["reason"], registry=registry)
        self._events = Counter("brokerkm_events", "All that happened.", ["kind"], registry=registry)
        self._store_errors = Counter(
            "brokerkm_store_errors", "Calls on the store that failed.", ["call"], registry=registry
        )

        self._latency = Histogram(
            "brokerkm_rekey_latency_seconds",
            "From a request to the broker's yes to its commit.",
            buckets=_SLOW,
            registry=registry,
        )
        self._prepare = Histogram(
            "brokerkm_commit_prepare_seconds", "Computing a commit.", buckets=_FAST, registry=registry
        )
        self._publish = Histogram(
            "brokerkm_publish_seconds", "The broker's time for a chunk of messages.", buckets=_FAST, registry=registry
        )
        self._store = Histogram(
            "brokerkm_store_seconds", "One call on the store.", ["call"], buckets=_FAST, registry=registry
        )
        self._acks = Histogram(
            "brokerkm_ack_seconds", "From a commit to a member's confirmation.", buckets=_SLOW, registry=registry
        )

    def text(self) -> bytes:
        """Return all series in Prometheus' text format."""
        return generate_latest(self.registry)

    def label(self, group: str) -> str:
        """Return the label of a group: its name, or the one that all groups beyond the limit share."""
        if group not in self._labels and len(self._labels) < self._max_groups:
            self._labels[group] = group
        return self._labels.get(group, OTHER)

    def listen(self, feed: Feed) -> Callable[[], None]:
        """Count what happens from now on; the returned function ends that."""
        return feed.listen(self._hear)

    def timed(self, call: str, seconds: float, failed: bool) -> None:  # noqa: FBT001 - `StoreDesk.timed`
        """Take in one call on the store; from any thread."""
        if call not in self._calls:
            if len(self._calls) >= MAX_CALLS:
                call = OTHER
            self._calls.add(call)
        self._store.labels(call).observe(seconds)
        if failed:
            self._store_errors.labels(call).inc()

    def set_by_group(self, gauge: Gauge, values: dict[tuple[str, ...], float]) -> None:
        """Set a gauge anew from (group, further labels) to value; groups that share a label are summed up."""
        sums: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for (group, *rest), value in values.items():
            sums[self.label(group), *rest] += value
        gauge.clear()
        for labels, value in sums.items():
            gauge.labels(*labels).set(value)

    def set_guard(self, *, in_step: bool, pending: int, differences: int) -> None:
        """Set what is known of the broker's guard; without one there are no such series."""
        if self._guard is None:
            self._guard = (
                Gauge(
                    "brokerkm_guard_in_step", "1 if the broker's guard is as the store says.", registry=self.registry
                ),
                Gauge("brokerkm_guard_pending", "Members it has not been told of.", registry=self.registry),
                Gauge("brokerkm_guard_differences", "Mended by the last full comparison.", registry=self.registry),
            )
        for gauge, value in zip(self._guard, (in_step, pending, differences), strict=True):
            gauge.set(value)

    def _hear(self, happening: Happening) -> None:
        self._events.labels(happening.kind.value).inc()
        self._journeys.hear(happening)
        group, details = happening.group, happening.details
        kind = happening.kind
        if kind in _REQUESTS:
            self._requests.labels(self.label(group), _REQUESTS[kind]).inc()
        if kind is Kind.COMMIT:
            self._count_commit(happening)
        elif kind is Kind.PUBLISHED:
            self._published.labels(self.label(group)).inc(float(details["messages"]))
            self._publish.observe(float(details["seconds"]))
        elif kind in {Kind.REQUEST_REFUSED, Kind.JOIN_REFUSED}:
            self._refused.labels(str(details["reason"])).inc()
        elif kind is Kind.ACK:
            epoch, began = self._committed.get(group, (0, 0.0))
            if epoch and details.get("epoch") == epoch:
                self._acks.observe(max(0.0, happening.time - began))

    def _count_commit(self, happening: Happening) -> None:
        label, details = self.label(happening.group), happening.details
        self._committed[happening.group] = int(details["epoch"]), happening.time
        self._commits.labels(label).inc()
        self._rekeys.labels(label).inc(float(details["rekeys"]))
        self._seated.labels(label).inc(float(details["seated"]))
        self._removed.labels(label).inc(float(details["removed"]))
        self._prepare.observe(float(details["prepare_seconds"]))

    def _arrived(self, journey: Journey) -> None:
        self._latency.observe(journey.latency)
