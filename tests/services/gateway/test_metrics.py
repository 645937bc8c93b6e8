"""The metrics: every one is there from the start, and counts what happened."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from schemas.http import CODES
from services.gateway import routes
from services.runtime.settings import Settings
from tests.gateways import Sender, enrolled, recently, reported, running_gateway
from tests.projectors import feed, project
from tests.waiting import wait_for

KINDS = {
    "fieldtally_reports_accepted": "counter",
    "fieldtally_reports_duplicate": "counter",
    "fieldtally_reports_conflict": "counter",
    "fieldtally_reports_rejected": "counter",
    "fieldtally_requests_refused": "counter",
    "fieldtally_reports_clock_off": "counter",
    "fieldtally_acknowledge_seconds": "histogram",
    "fieldtally_lag_entries": "gauge",
    "fieldtally_lag_seconds": "gauge",
    "fieldtally_parked_entries": "gauge",
    "fieldtally_devices_with_missing_numbers": "gauge",
}
Samples = dict[tuple[str, str], float]


def measured(sender: Sender) -> Samples:
    """Return the samples by name and the value of their only label, if they have one."""
    answer = sender.ask("GET", "/metrics")
    assert (200, "text/plain; version=0.0.4; charset=utf-8") == (answer.status_code, answer.headers["content-type"])
    families = list(text_string_to_metric_families(answer.text))
    assert {family.name: family.type for family in families} == KINDS
    assert all(family.documentation for family in families)
    samples: Samples = {}
    for sample in (sample for family in families for sample in family.samples):
        assert len(sample.labels) <= 1
        samples[sample.name.removeprefix("fieldtally_"), "".join(sample.labels.values())] = sample.value
    return samples


def changed(before: Samples, after: Samples) -> Samples:
    """Return by how much each counter went up, those that stood still left out."""
    totals = [key for key in after if key[0].endswith(("_total", "_count"))]
    return {key: after[key] - before[key] for key in totals if after[key] != before[key]}


def test_every_metric_is_there_at_zero_before_anything_happened(client: redis.Redis, settings: Settings) -> None:
    with running_gateway(settings) as address, Sender(address, enrolled(client, settings.prefix)) as unit:
        samples = measured(unit)
    assert {0.0} == set(samples.values())
    for side in ("SI", "HR"):
        for name in ("reports_accepted_total", "lag_entries", "lag_seconds", "parked_entries"):
            assert (name, side) in samples
    for code in CODES:
        assert ("reports_rejected_total", code) in samples
        assert ("requests_refused_total", code) in samples


def test_what_becomes_of_reports_and_requests_is_counted(
    client: redis.Redis, settings_for: Callable[..., Settings], server_url: str
) -> None:
    settings = settings_for(server_url, RATE_LIMIT="1")
    with (
        running_gateway(settings) as address,
        Sender(address, enrolled(client, settings.prefix)) as unit,
        Sender(address, enrolled(client, settings.prefix, side="HR")) as neighbour,
        Sender(address, None) as nobody,
    ):
        before = measured(unit)
        one = reported(1)
        unit.one(one)
        unit.batch(one, reported(1, persons={"AFG": 2}), reported(2), b"1", reported(3, unit="SI-MP-08"), reported(4))
        neighbour.one(reported(1, side="HR", time=recently(minutes=-5)))
        unit.ask("POST", "/v1/events", content=b"")
        nobody.ask("GET", "/v1/operations")
        nobody.ask("GET", "/v1")
        unit.batch(*[b"1"] * 9)
        unit.one(reported(9))
        assert {
            ("reports_accepted_total", "SI"): 3,
            ("reports_accepted_total", "HR"): 1,
            ("reports_duplicate_total", ""): 1,
            ("reports_conflict_total", ""): 1,
            ("reports_rejected_total", "malformed"): 10,
            ("reports_rejected_total", "not-your-unit"): 1,
            ("reports_clock_off_total", ""): 1,
            ("requests_refused_total", "unsupported-media-type"): 1,
            ("requests_refused_total", "not-authenticated"): 1,
            ("requests_refused_total", "not-found"): 1,
            ("requests_refused_total", "rate-limited"): 1,
            ("acknowledge_seconds_count", ""): 4,
        } == changed(before, after := measured(unit))
        assert 0 < after["acknowledge_seconds_sum", ""] < 10
        assert 4 == after["acknowledge_seconds_bucket", "+Inf"]


def test_lag_parked_and_missing_numbers_are_told_for_each_side(
    client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "DEVICES_KEPT_S", 0.0)
    with running_gateway(settings) as address, Sender(address, enrolled(client, settings.prefix)) as unit:
        unit.batch(reported(1, reportno=1), reported(2, reportno=4), reported(3, device="0a11f0", reportno=1))
        feed(client, settings.prefix, "SI", [{b"event": b"nonsense"}])
        lagging = wait_for(
            lambda: (samples := measured(unit))["lag_entries", "SI"] == 4 and samples, what="the lag to be seen"
        )
        assert 0 < lagging["lag_seconds", "SI"] < 10
        assert measured(unit)["lag_seconds", "SI"] > lagging["lag_seconds", "SI"]
        assert (0, 0) == (lagging["lag_entries", "HR"], lagging["lag_seconds", "HR"])
        project(settings)
        counted = wait_for(
            lambda: (samples := measured(unit))["lag_entries", "SI"] == 0 and samples, what="no lag to be seen"
        )
        assert {("lag_seconds", "SI"): 0, ("parked_entries", "SI"): 1, ("devices_with_missing_numbers", "SI"): 1} == {
            key: value for key, value in counted.items() if key[1] == "SI" and value != 3 and key[0] != "lag_entries"
        }
        assert 0 == counted["parked_entries", "HR"]
        # A device that sends what was missing is in order again.
        unit.batch(reported(5, reportno=2), reported(6, reportno=3))
        project(settings)
        wait_for(lambda: measured(unit)["devices_with_missing_numbers", "SI"] == 0, what="no number to be missing")
