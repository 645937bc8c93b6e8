"""What the gateway measures, in Prometheus' text format: what became of reports, how fast, and how far behind it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from schemas.http import CODES, Result

disable_created_metrics()  # type: ignore[no-untyped-call]  # when a counter began is of no use to anybody here

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
_BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """The metrics of one gateway, in a registry of its own."""

    def __init__(self, sides: Iterable[str]) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"fieldtally_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"fieldtally_{name}", text, ("side",), registry=self.registry)

        self.accepted = counter("reports_accepted", "Reports recorded in the log", "side")
        self.duplicate = counter("reports_duplicate", "Reports that the log held already")
        self.conflict = counter("reports_conflict", "Reports that the log held with other content")
        self.rejected = counter("reports_rejected", "Reports that were rejected, by the problem's code", "code")
        self.refused = counter("requests_refused", "Requests refused as a whole, by the problem's code", "code")
        self.clock_off = counter("reports_clock_off", "Reports from devices whose clock is over two minutes off")
        self.acknowledged = Histogram(
            "fieldtally_acknowledge_seconds",
            "Seconds from a request's first byte to its answer",
            registry=self.registry,
            buckets=_BUCKETS_S,
        )
        self.lag_entries = gauge("lag_entries", "Entries of the log that are not counted yet")
        self.lag_seconds = gauge("lag_seconds", "Seconds since the oldest entry that is not counted was received")
        self.parked = gauge("parked_entries", "Entries of the log that are set aside")
        self.devices_missing = gauge("devices_with_missing_numbers", "Devices of which report numbers are missing")
        # So that a rate can be told from nothing; and looked up once.
        self._accepted = {side: self.accepted.labels(side) for side in sides}
        for code in CODES:
            self.rejected.labels(code)
            self.refused.labels(code)

    def count(self, side: str, result: Result) -> None:
        """Count what became of one report."""
        match result.status:
            case "recorded":
                self._accepted[side].inc()
            case "duplicate":
                self.duplicate.inc()
            case "conflict":
                self.conflict.inc()
            case "rejected":
                self.rejected.labels(result.problem.code if result.problem else "fault").inc()

    def text(self) -> bytes:
        """Return all of it."""
        return generate_latest(self.registry)
