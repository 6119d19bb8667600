"""OpenTelemetry traces of commits: one trace for each epoch, from the first request to the broker's yes.

Spans are made afterwards, from what the feed says, with the times at which things were: the server's parts know nothing
of it, and without an endpoint nothing is imported. They carry the group, the epoch and counts; no member and no key.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final, Self

from brokerkm.errors import UsageError
from brokerkm.telemetry.journey import Journey, Journeys

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from brokerkm.service.feed import Feed

_SERVICE: Final = "brokerkm"


class Tracing:
    """Sends the traces of a feed's commits to an OTLP endpoint, from ``with`` to its end.

    Args:
        endpoint: OTLP/HTTP URL; whatever else OpenTelemetry's own environment variables say holds too.
        exporter: where finished spans go, in place of the endpoint.

    Raises:
        UsageError: OpenTelemetry is not installed.
    """

    def __init__(self, feed: Feed, endpoint: str, exporter: Any = None) -> None:  # noqa: ANN401 - SpanExporter
        try:
            api = importlib.import_module("opentelemetry.trace")
            sdk = importlib.import_module("opentelemetry.sdk.trace")
            export = importlib.import_module("opentelemetry.sdk.trace.export")
            resources = importlib.import_module("opentelemetry.sdk.resources")
            if exporter is None:
                otlp = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
                exporter = otlp.OTLPSpanExporter(endpoint=endpoint)
        except ImportError as error:
            message = "traces need OpenTelemetry: pip install 'brokerkm[otel]', or leave out telemetry.otel_endpoint"
            raise UsageError(message) from error
        self._in_span: Final = api.set_span_in_context
        self._provider: Final = sdk.TracerProvider(resource=resources.Resource.create({"service.name": _SERVICE}))
        self._provider.add_span_processor(export.BatchSpanProcessor(exporter))
        self._tracer: Final = self._provider.get_tracer(_SERVICE)
        self._feed: Final = feed
        self._journeys: Final = Journeys(self._arrived)
        self._end: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        self._end = self._feed.listen(self._journeys.hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._end is not None:
            self._end()
        self._provider.shutdown()  # sends what is left

    def _arrived(self, journey: Journey) -> None:
        attributes = {"brokerkm.group": journey.group, "brokerkm.epoch": journey.epoch}
        root = self._tracer.start_span("rekey", start_time=_nanoseconds(journey.requested), attributes=attributes)
        inside = self._in_span(root)
        for name, began, ended in (
            ("request", journey.requested, journey.taken_up),
            ("commit", journey.taken_up, journey.prepared),
            ("store", journey.prepared, journey.stored),
            ("publish", journey.stored, journey.published),
        ):
            span = self._tracer.start_span(name, context=inside, start_time=_nanoseconds(began))
            span.end(_nanoseconds(ended))
        root.end(_nanoseconds(journey.published))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1_000_000_000)
