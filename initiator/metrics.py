"""What the daemon counts. Labels are bounded: operations, configured clients and Regions, our own codes and states."""

from __future__ import annotations

import math
import platform

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from initiator import __version__

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)


class Metrics:
    """All metrics of one daemon, on a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.build_info = self._gauge("build_info", "1: what runs here", "version", "python")
        self.build_info.labels(__version__, platform.python_version()).set(1)
        self.part_ok = self._gauge("part_ok", "1: this part of the daemon is well; readiness wants all of them", "part")
        self.received = self._counter("requests_received", "requests delivered here", "operation", "client")
        self.redelivered = self._counter("requests_redelivered", "requests that somebody held before", "operation")
        self.events = self._counter(
            "events_recorded", "events recorded by this replica", "operation", "client", "state", "code"
        )
        self.retries = self._counter("retries", "steps tried again, by error code", "operation", "code")
        self.results = self._counter("results", "results of the nodes, by what became of them", "operation", "verdict")
        self.state_seconds = self._histogram("state_seconds", "from the state before to this one", "operation", "state")
        self.takeovers = self._counter("takeovers", "requests whose holder before had gone", "operation")
        self.dead_letters = self._counter(
            "dead_letters", "requests and results that were kept aside", "operation", "code"
        )
        self.operation_seconds = self._histogram(
            "operation_seconds", "from the request's storage to its final event", "operation"
        )
        self.results_stranded = self._counter("results_stranded", "results that the nodes' queue had given up on")
        self.held = self._gauge("requests_held", "unfinished requests held here")
        self.policy_refusals = self._counter("policy_refusals", "requests refused, by the rule or limit", "rule")
        self.authorizations = self._counter(
            "authorizations", "answers of authorizers, by what they came to", "authorizer", "outcome"
        )
        self._of_lanes()
        self._of_files()
        self._of_the_signer()
        self._of_operators()

    def _of_lanes(self) -> None:
        self.waiting = self._gauge("requests_waiting", "unfinished requests in the queues of all clients", "operation")
        self.in_flight = self._gauge(
            "requests_in_flight", "requests at the nodes, over all replicas; NaN: no cap, not counted", "operation"
        )
        self.oldest_waiting = self._gauge(
            "oldest_waiting_seconds", "age of the oldest request that waits for no person; 0: none", "operation"
        )
        self.stalled = self._gauge("stalled", "1 while requests wait and nothing moves", "operation")
        self.slots_recovered = self._counter("slots_recovered", "slots that an ended operation had kept", "operation")
        self.record_used = self._gauge("record_used_ratio", "how full the record is; 0 without a limit")

    def _of_files(self) -> None:
        self.reloads = self._counter("config_reloads", "configurations read again, by what became of them", "outcome")
        self.policy_info = self._gauge("policy_info", "1: the version of the policy in force here", "version")
        self.policy_reloads = self._counter("policy_reloads", "policies read again, by what became of them", "outcome")
        self.credentials_expiry = self._gauge(
            "credentials_expiry_timestamp_seconds", "when what the daemon logs in with ends", "credential"
        )

    def _of_the_signer(self) -> None:
        self.sign_seconds = self._histogram("sign_seconds", "one signature, retries included")
        self.last_signature = self._gauge("last_signature_timestamp_seconds", "when the signer last signed for us here")
        self.key_info = self._gauge("key_info", "1: the key that signs here", "fingerprint", "algorithm")
        self.limiter_seconds = self._histogram("signer_limiter_seconds", "a call's wait for its place under the limit")
        self.signer_calls = self._counter("signer_calls", "calls to KMS's Sign, by what they came to", "region", "code")
        self.signer_region_changes = self._counter(
            "signer_region_changes", "moves of a Region's breaker and standing", "region", "state", "code"
        )
        self.signer_region_usable = self._gauge("signer_region_usable", "1: signs with the pinned key", "region")

    def _of_operators(self) -> None:
        self.unexported = self._gauge(
            "audit_unexported_seconds", "age of the oldest event that was not exported, or not seen to be"
        )
        self.frozen = self._gauge("frozen", "1 while this is frozen: all, a client, an operation, or both", "scope")
        self.order_changes = self._counter("order_changes", "orders of operators that came into force here", "change")
        self.lease = self._gauge("signing_lease", "1: the orders were read a moment ago; 0: nothing is signed")
        self.held_back = self._gauge("requests_held_back", "requests here that wait for operators' orders")
        self.stop_line_left = self._gauge("stop_line_left", "calls to the signer left to the stop line; NaN: no line")
        self.stop_line_left.set(math.nan)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"initiator_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"initiator_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"initiator_{name}", text, labels, buckets=_SECONDS, registry=self.registry)
