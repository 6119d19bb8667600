"""Traces: one for each epoch, with its parts in their order; and nothing imported where nobody wants them."""

from __future__ import annotations

import subprocess
import sys

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from brokerkm.service.feed import Feed, Kind
from brokerkm.telemetry.tracing import Tracing


def test_an_epoch_is_a_trace_from_request_to_publication() -> None:
    """The parts follow each other without a gap, below the whole."""
    times = iter((1000.0, 1002.0))
    feed, exporter = Feed(lambda: next(times)), InMemorySpanExporter()
    with Tracing(feed, "", exporter):
        feed.emit(
            Kind.COMMIT,
            "plant",
            epoch=4,
            seated=1,
            removed=0,
            rekeys=2,
            sequence=3,
            prepare_seconds=0.25,
            store_seconds=0.5,
            waited_seconds=2.0,
        )
        feed.emit(Kind.PUBLISHED, "plant", sequence=3, messages=3, seconds=0.1)
    *parts, root = exporter.get_finished_spans()
    second = 1_000_000_000
    assert [
        ("request", 998 * second, 999_250_000_000),
        ("commit", 999_250_000_000, 999_500_000_000),
        ("store", 999_500_000_000, 1000 * second),
        ("publish", 1000 * second, 1002 * second),
    ] == [(span.name, span.start_time, span.end_time) for span in parts]
    assert ("rekey", {"brokerkm.group": "plant", "brokerkm.epoch": 4}) == (root.name, dict(root.attributes or {}))
    assert {root.context.span_id} == {span.parent.span_id for span in parts if span.parent}


def test_nothing_of_it_is_imported_by_the_service() -> None:
    """Whoever does without pays nothing."""
    code = (
        "import sys, brokerkm.service, brokerkm.telemetry.health, brokerkm.telemetry.logs\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'prometheus_client'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "[]\n" == done.stdout
