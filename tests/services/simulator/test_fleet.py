"""A simulated fleet is useful only if it is the same again, exactly as large as asked, and as untidy as planned."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas import codec
from services.simulator.fleet import OFFLINE_MAX, FleetPlan, Submission, fleet

SEEDS = (1, 2, 20240313)
FIRST_IDS = [
    "018e34e4-e580-7f3d-8fda-b82777d7a43e",
    "018e34e4-e580-79cf-8db9-2e50b8dc7f93",
    "018e3d44-cdde-7f7c-b2f4-bb2fa233fc96",
    "018e41ce-1af4-7b84-ae24-291cd0000ff0",
]


def read(submissions: list[Submission]) -> list[dict[str, Any]]:
    return [json.loads(submission.event) for submission in submissions]


def written(event: dict[str, Any]) -> datetime:
    """When the report was written, from the first 48 bits of its UUIDv7."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(event["id"].replace("-", "")[:12], 16))


def test_equal_plans_give_equal_submissions() -> None:
    assert list(fleet(FleetPlan(seed=7))) == list(fleet(FleetPlan(seed=7)))


def test_a_plan_gives_the_same_submissions_on_every_version_of_python() -> None:
    # After a change of what the fleet draws the new ids are right: put them above.
    events = [submission.event for submission in fleet(FleetPlan(seed=1, reports=4))]

    assert [json.loads(event)["id"] for event in events] == FIRST_IDS


@pytest.mark.parametrize(("one", "other"), [(1, 2), (0, 1), (1, -1)])
def test_different_seeds_give_different_submissions(one: int, other: int) -> None:
    first, second = (list(fleet(FleetPlan(seed=seed, reports=100))) for seed in (one, other))

    assert {submission.event for submission in first}.isdisjoint({submission.event for submission in second})


@pytest.mark.parametrize("reports", [0, 1, 2, 3, 50, 1_000])
@pytest.mark.parametrize("units", [1, 2, 40])
def test_a_fleet_makes_exactly_as_many_submissions_as_planned(reports: int, units: int) -> None:
    plan = FleetPlan(seed=3, units=units, reports=reports, duplicates=0.5, amendments=0.5)

    assert sum(1 for _ in fleet(plan)) == reports


@pytest.mark.parametrize("seed", SEEDS)
def test_every_event_can_be_decoded_and_is_canonical(seed: int) -> None:
    submissions = list(fleet(FleetPlan(seed=seed, reports=3_000, amendments=0.1)))
    changed = [
        submission for submission in submissions if codec.encode(codec.decode(submission.event)) != submission.event
    ]

    assert changed == []


@pytest.mark.parametrize("seed", SEEDS)
def test_submissions_come_in_the_order_of_arrival_and_after_they_were_written(seed: int) -> None:
    submissions = list(fleet(FleetPlan(seed=seed)))
    arrivals = [submission.arrives for submission in submissions]

    assert arrivals == sorted(arrivals)
    assert all(written(json.loads(submission.event)) <= submission.arrives for submission in submissions)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_id_comes_again_only_with_the_same_bytes(seed: int) -> None:
    submissions = list(fleet(FleetPlan(seed=seed, reports=10_000)))
    different = {submission.event for submission in submissions}

    assert len({json.loads(event)["id"] for event in different}) == len(different) < len(submissions)


@pytest.mark.parametrize("seed", SEEDS)
def test_each_key_has_each_revision_once(seed: int) -> None:
    events = read(
        list({submission.event: submission for submission in fleet(FleetPlan(seed=seed, amendments=0.3))}.values())
    )
    revisions = Counter((event.get("amends", event["id"]), event.get("revision", 0)) for event in events)

    assert set(revisions.values()) == {1}
    assert all((key, revision - 1) in revisions for key, revision in revisions if revision)


@pytest.mark.parametrize("seed", SEEDS)
def test_when_every_device_is_back_no_number_is_missing(seed: int) -> None:
    numbers: dict[str, set[int]] = {}
    for event in read(list(fleet(FleetPlan(seed=seed, offline=0.3)))):
        numbers.setdefault(event["source"], set()).add(event["reportno"])

    assert all(seen == set(range(1, len(seen) + 1)) for seen in numbers.values())


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_device_wrote_arrives_in_the_order_of_its_numbers(seed: int) -> None:
    arrived: dict[str, list[int]] = {}
    for event in read(list(fleet(FleetPlan(seed=seed, offline=0.3, duplicates=0)))):
        arrived.setdefault(event["source"], []).append(event["reportno"])

    assert all(numbers == sorted(numbers) for numbers in arrived.values())


def test_without_faults_every_report_arrives_once_within_seconds() -> None:
    submissions = list(fleet(FleetPlan(seed=5, offline=0, duplicates=0, amendments=0)))
    events = read(submissions)

    assert len({submission.event for submission in submissions}) == len(submissions)
    assert not any("amends" in event for event in events)
    delays = [submission.arrives - written(event) for submission, event in zip(submissions, events, strict=True)]
    assert max(delays) < timedelta(seconds=30)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("reports", [1_000, 10_000])
def test_the_planned_share_is_written_offline_and_arrives_within_three_days(seed: int, reports: int) -> None:
    submissions = list(fleet(FleetPlan(seed=seed, reports=reports, offline=0.1, duplicates=0)))
    delays = [submission.arrives - written(json.loads(submission.event)) for submission in submissions]

    assert sum(delay > timedelta(seconds=30) for delay in delays) / reports == pytest.approx(0.1, abs=0.03)
    assert max(delays) <= OFFLINE_MAX + timedelta(minutes=1)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_planned_shares_are_sent_twice_and_amended(seed: int) -> None:
    plan = FleetPlan(seed=seed, reports=10_000)
    submissions = list(fleet(plan))
    events = read(submissions)
    amendments = [event for event in events if "amends" in event]
    withdrawals = [event for event in amendments if event["type"].endswith("withdrawal.v1")]
    sent_twice = len(submissions) - len({submission.event for submission in submissions})

    assert sent_twice / plan.reports == pytest.approx(plan.duplicates, rel=0.2)
    assert len(amendments) / plan.reports == pytest.approx(plan.amendments, rel=0.2)
    assert len(withdrawals) / len(amendments) == pytest.approx(0.2, abs=0.05)
    assert any(event["revision"] == 2 for event in amendments)


@pytest.mark.parametrize("seed", SEEDS)
def test_now_and_then_an_amendment_overtakes_its_original(seed: int) -> None:
    events = read(list(fleet(FleetPlan(seed=seed, reports=10_000))))
    first = {event["id"]: place for place, event in reversed(list(enumerate(events)))}
    overtaking = [event for event in events if "amends" in event and first[event["id"]] < first[event["amends"]]]

    assert 0 < len(overtaking) < len(events) / 500


@pytest.mark.parametrize("seed", SEEDS)
def test_three_quarters_of_the_reports_are_apprehensions_and_every_kind_occurs(seed: int) -> None:
    kinds = Counter(event["type"].removeprefix("org.fieldtally.") for event in read(list(fleet(FleetPlan(seed=seed)))))

    assert kinds["apprehension.v1"] / kinds.total() == pytest.approx(0.75, abs=0.05)
    assert min(kinds[f"{kind}.v1"] for kind in ("smuggler-arrest", "custody", "nil-report", "withdrawal")) > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_case_is_opened_once_and_no_more_are_remanded_than_were_arrested(seed: int) -> None:
    arrested: Counter[tuple[str, str]] = Counter()
    remanded: Counter[tuple[str, str]] = Counter()
    opened: Counter[str] = Counter()
    for event in {event["id"]: event for event in read(list(fleet(FleetPlan(seed=seed, amendments=0))))}.values():
        case = event["data"].get("case")
        opened[case] += event["data"].get("opens_case", False)
        for entry in event["data"].get("smugglers", ()):
            arrested[case, entry["citizenship"]] += entry["count"]
        for entry in event["data"].get("remanded", ()):
            remanded[case, entry["citizenship"]] += entry["count"]

    assert {opened[case] for case, _ in arrested} == {1}
    assert remanded.total() > 0
    assert remanded <= arrested


def test_both_desks_open_the_operation_first() -> None:
    first, second, *_ = read(list(fleet(FleetPlan(seed=1, duplicates=0))))

    assert [event["source"] for event in (first, second)] == ["/SI/SI-DESK/hq1", "/HR/HR-DESK/hq1"]
    assert {event["type"] for event in (first, second)} == {"org.fieldtally.operation-opened.v1"}
    assert {event["subject"] for event in (first, second)} == {"SI-HR-2024-03"}
    assert first["data"]["starts"], first["data"]["ends"] == ("2024-03-13", "2024-03-15")


def test_what_cannot_be_planned_is_refused() -> None:
    for wrong in (
        {"units": 0},
        {"reports": -1},
        {"offline": 1.5},
        {"duplicates": -0.1},
        {"amendments": float("nan")},
        {"period": timedelta(0)},
        {"starts": datetime(2024, 3, 13)},  # noqa: DTZ001  # without an offset on purpose
    ):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
            FleetPlan(seed=1, **wrong)


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("period", [timedelta(seconds=1), timedelta(days=365)])
def test_a_fleet_comes_to_an_end_with_extreme_shares_and_periods(share: float, period: timedelta) -> None:
    plan = FleetPlan(seed=1, reports=2_000, period=period, offline=share, duplicates=share, amendments=share)
    arrivals = [submission.arrives for submission in fleet(plan)]

    assert len(arrivals) == plan.reports
    assert arrivals == sorted(arrivals)
