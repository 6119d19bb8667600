"""What the key server shows of itself: metrics, health, logs, traces. Nothing here decides anything.

All of it hears of events by the feed (`brokerkm.service.feed`). prometheus-client and OpenTelemetry are imported by the
modules that need them, `metrics` and `tracing`, and by nothing else.
"""
