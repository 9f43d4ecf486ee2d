"""What the daemon counts. Labels are bounded: operations, configured clients and our own codes."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)


class Metrics:
    """All metrics of one daemon, on a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.received = Counter(
            "initiator_requests_received", "requests delivered to this replica", ["operation", "client"],
            registry=self.registry)  # fmt: skip
        self.redelivered = Counter(
            "initiator_requests_redelivered", "requests that somebody held before", ["operation"],
            registry=self.registry)  # fmt: skip
        self.events = Counter(
            "initiator_events_recorded", "events recorded by this replica", ["operation", "client", "state", "code"],
            registry=self.registry)  # fmt: skip
        self.retries = Counter(
            "initiator_retries", "steps tried again, by error code", ["operation", "code"], registry=self.registry)  # fmt: skip
        self.results = Counter(
            "initiator_results", "results of the nodes, by what became of them", ["operation", "verdict"],
            registry=self.registry)  # fmt: skip
        self.sign_seconds = Histogram(
            "initiator_sign_seconds", "one signature, retries included", buckets=_SECONDS, registry=self.registry)  # fmt: skip
        self.operation_seconds = Histogram(
            "initiator_operation_seconds", "from the claim to the final event", ["operation"], buckets=_SECONDS,
            registry=self.registry)  # fmt: skip
        self.held = Gauge("initiator_requests_held", "unfinished requests held by this replica", registry=self.registry)
        self.waiting = Gauge(
            "initiator_requests_waiting", "held requests that wait for their turn", ["operation"], registry=self.registry)  # fmt: skip
