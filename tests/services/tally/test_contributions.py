"""The counting rules: what a report of each type adds, and to which local day."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from schemas import codec
from services.tally.cells import cell_text, local_day, parse_cell
from services.tally.contributions import contributions
from tests import given

DAY = "2024-03-14"


def added(event: bytes, side: str = "SI") -> dict[str, int]:
    """Return what an event adds, by the text of the cell; no cell may come twice."""
    made = contributions(codec.decode(event), given.ZONES[side])
    assert len(made) == len(dict(made))
    return {cell_text(cell): count for cell, count in made}


def si(cells: Mapping[str, int], operation: str = "", section: str = "koper", day: str = DAY) -> dict[str, int]:
    return {f"SI|{operation}|{section}|{day}|{cell}": count for cell, count in cells.items()}


def test_an_apprehension_is_one_incident_and_its_persons_by_citizenship() -> None:
    assert si({"apprehensions|": 1, "persons|SYR": 4, "persons|AFG": 3}) == added(
        given.apprehension(persons={"SYR": 4, "AFG": 3})
    )


def test_an_arrest_that_opens_a_case_is_one_case_its_smugglers_and_those_found_with_them() -> None:
    event = given.smuggler_arrest(smugglers={"UKR": 2}, smuggled_persons={"TUR": 6, "XXA": 1})

    assert added(event) == si(
        {"smuggling_cases|": 1, "smugglers|UKR": 2, "smuggled_persons|TUR": 6, "smuggled_persons|XXA": 1}
    )


def test_a_further_arrest_in_a_case_adds_no_case() -> None:
    assert si({"smugglers|UKR": 1}) == added(given.smuggler_arrest(opens_case=False))


def test_smuggled_persons_are_not_counted_as_persons_apprehended() -> None:
    assert not [cell for cell in added(given.smuggler_arrest(smuggled_persons={"TUR": 6})) if "|persons|" in cell]


def test_custody_adds_those_remanded_in_no_section() -> None:
    assert si({"remanded|UKR": 2, "remanded|ROU": 1}, section="") == added(given.custody(remanded={"UKR": 2, "ROU": 1}))


def test_a_nil_report_is_one_report() -> None:
    assert si({"nil_reports|": 1}) == added(given.nil_report())


def test_a_nil_report_counts_on_the_day_of_its_time_not_of_its_period() -> None:
    event = given.nil_report(period_from="2024-03-11T00:00:00Z", period_to="2024-03-12T00:00:00Z")

    assert si({"nil_reports|": 1}) == added(event)


def test_a_balance_is_booked_on_the_last_day_of_its_period_whenever_it_is_reported() -> None:
    totals = [
        {"measure": "smuggled_persons", "count": 3_280},
        {"measure": "smugglers", "count": 9, "citizenship": "SVN"},
        {"measure": "smugglers", "count": 548, "citizenship": "XXX", "section": "koper"},
    ]

    assert added(given.opening_balance(totals=totals, period_to="2023-12-31")) == (
        si({"smuggled_persons|": 3_280, "smugglers|SVN": 9}, section="", day="2023-12-31")
        | si({"smugglers|XXX": 548}, day="2023-12-31")
    )


@pytest.mark.parametrize("event", [given.operation_opened(), given.operation_closed(), given.withdrawal(amends=1)])
def test_plans_and_withdrawals_add_nothing(event: bytes) -> None:
    assert not added(event)


def test_a_report_within_an_operation_counts_there() -> None:
    assert si({"nil_reports|": 1}, operation=given.OPERATION) == added(given.nil_report(subject=given.OPERATION))


def test_a_report_counts_for_its_own_side() -> None:
    assert {f"HR|||{DAY}|remanded|UKR": 1} == added(given.custody(side="HR"), side="HR")


BOUNDARIES = [
    # An ordinary day in winter: midnight is 23:00 UTC.
    ("2024-03-13T22:59:59.999999Z", "2024-03-13"),
    ("2024-03-13T23:00:00Z", "2024-03-14"),
    # 31 March 2024 has 23 hours: it begins in winter time and ends in summer time.
    ("2024-03-30T22:59:59Z", "2024-03-30"),
    ("2024-03-30T23:00:00Z", "2024-03-31"),
    ("2024-03-31T00:59:59Z", "2024-03-31"),
    ("2024-03-31T01:00:00Z", "2024-03-31"),
    ("2024-03-31T21:59:59Z", "2024-03-31"),
    ("2024-03-31T22:00:00Z", "2024-04-01"),
    # 27 October 2024 has 25 hours: both hours from 2 to 3 belong to it.
    ("2024-10-26T21:59:59Z", "2024-10-26"),
    ("2024-10-26T22:00:00Z", "2024-10-27"),
    ("2024-10-27T00:30:00Z", "2024-10-27"),
    ("2024-10-27T01:30:00Z", "2024-10-27"),
    ("2024-10-27T22:59:59Z", "2024-10-27"),
    ("2024-10-27T23:00:00Z", "2024-10-28"),
    # The leap day.
    ("2024-02-28T23:00:00Z", "2024-02-29"),
    ("2024-02-29T22:59:59Z", "2024-02-29"),
    ("2024-02-29T23:00:00Z", "2024-03-01"),
    # The year's end.
    ("2023-12-31T22:59:59Z", "2023-12-31"),
    ("2023-12-31T23:00:00Z", "2024-01-01"),
    # However the time is written, the side's own midnight decides.
    ("2024-03-14T00:30:00+02:00", "2024-03-13"),
    ("2024-03-13T12:00:00-11:00", "2024-03-14"),
]


@pytest.mark.parametrize(("time", "day"), BOUNDARIES)
@pytest.mark.parametrize("side", given.ZONES)
def test_the_day_is_the_local_day_of_the_side(time: str, day: str, side: str) -> None:
    (cell,) = added(given.nil_report(time=time, side=side), side=side)

    assert day == cell.split("|")[3]


@pytest.mark.parametrize(
    "report",
    [given.apprehension, given.smuggler_arrest, given.custody, given.nil_report],
    ids=lambda report: report.__name__,
)
def test_whatever_is_reported_counts_on_the_local_day(report: Callable[..., bytes]) -> None:
    assert {"2024-03-14"} == {cell.split("|")[3] for cell in added(report(time="2024-03-13T23:00:00Z"))}


@pytest.mark.parametrize(("day", "hours"), [("2024-03-31", 23), ("2024-10-27", 25), ("2024-02-29", 24)])
def test_days_on_which_the_clocks_change_have_23_and_25_hours(day: str, hours: int) -> None:
    start = datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(hours=12)
    half_hours = (start + timedelta(minutes=30 * number) for number in range(96))

    assert hours * 2 == sum(local_day(time, given.ZONES["SI"]) == day for time in half_hours)


ZONES = ("Europe/Ljubljana", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Monrovia", "UTC")


@examples(
    st.datetimes(
        datetime(2, 1, 2),  # noqa: DTZ001  # bounds are without a zone
        datetime(9998, 12, 30),  # noqa: DTZ001
        timezones=st.just(UTC),
    ),
    st.integers(-14 * 60, 14 * 60),
    st.sampled_from(ZONES),
)
def test_the_day_is_the_local_day_of_any_time_in_any_zone(time: datetime, offset: int, zone_name: str) -> None:
    zone = ZoneInfo(zone_name)
    written = time.astimezone(timezone(timedelta(minutes=offset)))

    assert time.astimezone(zone).date().isoformat() == local_day(written, zone)


def test_the_last_microsecond_of_a_day_belongs_to_it_in_every_year() -> None:
    zone = given.ZONES["SI"]
    last_moments = (datetime(year, 7, 1, 21, 59, 59, 999_999, tzinfo=UTC) for year in range(1970, 9_998))

    assert not [time.year for time in last_moments if local_day(time, zone) != f"{time.year}-07-01"]


def test_a_clock_that_goes_back_over_midnight_at_an_odd_minute_goes_back_a_day() -> None:
    """As in St John's until 2011: at 00:01 it was 23:01 of the day before."""
    zone = ZoneInfo("America/St_Johns")
    midnight = datetime(2010, 11, 7, 2, 30, tzinfo=UTC)
    days = ["2010-11-06", "2010-11-07", "2010-11-06", "2010-11-06", "2010-11-07"]

    assert days == [local_day(midnight + timedelta(minutes=minutes), zone) for minutes in (-1, 0, 1, 59, 61)]


@examples(given.documents("SI"))
def test_every_count_is_at_least_one(document: given.Document) -> None:
    assert min(added(given.canonical(document)).values(), default=1) >= 1


@examples(given.documents("SI"))
def test_a_cell_can_be_read_back_from_its_text(document: given.Document) -> None:
    for cell, _ in contributions(codec.decode(given.as_json(document)), given.ZONES["SI"]):
        assert cell == parse_cell(cell_text(cell))


@pytest.mark.parametrize("text", ["", "SI|a|b|2024-03-14|persons", "SI|a|b|2024-03-14|persons|SYR|"])
def test_what_is_no_cell_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a cell has 6 parts"):
        parse_cell(text)
