"""The year to date and the moment one year before: leap days, years' ends and changes of the clocks."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.vocabulary import Position
from services.statistics.periods import (
    Period,
    day_year_before,
    moment_year_before,
    period_of,
    position_at,
    received,
    year_to_date,
)

LJUBLJANA, ZAGREB, LONDON = ZoneInfo("Europe/Ljubljana"), ZoneInfo("Europe/Zagreb"), ZoneInfo("Europe/London")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("day", "before"),
    [
        ("2024-02-29", "2023-02-28"),
        ("2024-02-28", "2023-02-28"),
        ("2025-02-28", "2024-02-28"),
        ("2024-03-01", "2023-03-01"),
        ("2024-12-31", "2023-12-31"),
        ("2024-01-01", "2023-01-01"),
        ("2000-02-29", "1999-02-28"),
    ],
)
def test_the_day_a_year_before_is_that_of_the_screen(day: str, before: str) -> None:
    assert date.fromisoformat(before) == day_year_before(date.fromisoformat(day))


def test_the_period_of_a_leap_day_ends_on_the_28th() -> None:
    period = year_to_date(at("2024-02-29T12:00:00+01:00"), [LJUBLJANA], None, None)
    assert ("2024-01-01/2024-02-29", 60) == (str(period), period.days)
    assert ("2023-01-01/2023-02-28", 59) == (str(period.year_before()), period.year_before().days)
    # A year after a leap day, its own period ends on the 28th too: the 29th is in neither.
    assert "2024-01-01/2024-02-28" == str(Period(date(2025, 1, 1), date(2025, 2, 28)).year_before())


@pytest.mark.parametrize(
    ("moment", "period"),
    [
        ("2024-12-31T22:59:59.999+00:00", "2024-01-01/2024-12-31"),
        ("2024-12-31T23:00:00+00:00", "2025-01-01/2025-01-01"),
        ("2024-06-30T21:59:59+00:00", "2024-01-01/2024-06-30"),
        ("2024-06-30T22:00:00+00:00", "2024-01-01/2024-07-01"),
        # Days of 23 and of 25 hours.
        ("2024-03-30T22:59:59+00:00", "2024-01-01/2024-03-30"),
        ("2024-03-30T23:00:00+00:00", "2024-01-01/2024-03-31"),
        ("2024-03-31T21:59:59+00:00", "2024-01-01/2024-03-31"),
        ("2024-03-31T22:00:00+00:00", "2024-01-01/2024-04-01"),
        ("2024-10-27T22:59:59+00:00", "2024-01-01/2024-10-27"),
        ("2024-10-27T23:00:00+00:00", "2024-01-01/2024-10-28"),
    ],
)
def test_the_year_to_date_ends_on_the_local_day(moment: str, period: str) -> None:
    assert period == str(year_to_date(at(moment), [LJUBLJANA, ZAGREB], None, None))


def test_of_several_zones_the_latest_day_counts() -> None:
    assert "2025-01-01/2025-01-01" == str(year_to_date(at("2024-12-31T23:30:00Z"), [LONDON, ZAGREB], None, None))


def test_other_days_may_be_chosen() -> None:
    moment = at("2024-06-30T12:00:00Z")
    assert "2024-03-01/2024-06-30" == str(year_to_date(moment, [ZAGREB], date(2024, 3, 1), None))
    assert "2023-01-01/2023-02-28" == str(year_to_date(moment, [ZAGREB], None, date(2023, 2, 28)))


def test_no_day_is_of_the_future() -> None:
    """Of it nothing is known, while all of last year's is."""
    moment = at("2024-06-29T22:30:00Z")
    assert "2024-01-01/2024-06-30" == str(year_to_date(moment, [ZAGREB], None, date(2024, 12, 31)))
    assert "2024-03-01/2024-06-30" == str(year_to_date(moment, [ZAGREB], date(2024, 3, 1), date(2025, 1, 1)))


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2026, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001  # bounds
    st.none() | st.dates(date(2019, 1, 1), date(2027, 1, 1)),
    st.none() | st.dates(date(2019, 1, 1), date(2027, 1, 1)),
)
def test_no_day_is_in_both_years_and_both_have_ended(moment: datetime, first: date | None, last: date | None) -> None:
    try:
        this = year_to_date(moment, [ZAGREB], first, last)
    except ValueError:
        return
    before = this.year_before()
    assert before.last < this.first
    assert this.last <= moment.astimezone(ZAGREB).date()
    assert 0 <= (this.days - before.days) <= 1 or (before.days - this.days) == 1
    assert (this.first.month, this.last.month) == (before.first.month, before.last.month)


@pytest.mark.parametrize(("first", "last"), [("2023-03-01", None), ("2023-03-01", "2024-03-01")])
def test_more_than_a_year_is_refused(first: str, last: str | None) -> None:
    with pytest.raises(ValueError, match=r"from 2023-03-01 to 2024-.*, which is more than one year's days"):
        year_to_date(
            at("2024-06-30T12:00:00Z"), [ZAGREB], date.fromisoformat(first), date.fromisoformat(last) if last else None
        )


@pytest.mark.parametrize(
    ("first", "last", "name"),
    [
        ("2024-01-01", "2024-12-31", "2024"), ("2024-02-01", "2024-02-29", "2024-02"),
        ("2024-02-01", "2024-02-28", "2024-02-01/2024-02-28"), ("2024-01-01", "2024-12-30", "2024-01-01/2024-12-30"),
        ("2023-02-01", "2023-02-28", "2023-02"), ("2023-01-01", "2024-12-31", "2023-01-01/2024-12-31"),
        ("2024-03-14", "2024-03-14", "2024-03-14/2024-03-14"),
    ],
)  # fmt: skip
def test_only_a_whole_month_or_year_has_its_name(first: str, last: str, name: str) -> None:
    period = Period(date.fromisoformat(first), date.fromisoformat(last))
    assert name == period.name
    if "/" not in name:
        assert period == period_of(name)


def test_days_that_are_no_period_are_refused() -> None:
    with pytest.raises(ValueError, match="begin on 2025-01-01, after its last day, 2024-06-30"):
        year_to_date(at("2024-06-30T12:00:00Z"), [ZAGREB], date(2025, 1, 1), None)
    with pytest.raises(ValueError, match="no year comes before the year 1"):
        year_to_date(at("2024-06-30T12:00:00Z"), [ZAGREB], date(1, 1, 1), None)


@pytest.mark.parametrize(
    ("moment", "before"),
    [
        ("2024-06-30T12:00:00+02:00", "2023-06-30T12:00:00+02:00"),
        ("2024-02-29T23:59:59+01:00", "2023-02-28T23:59:59+01:00"),
        # The clocks changed on 26 March 2023 and on 31 March 2024: the same time of the day, an hour apart.
        ("2024-03-28T12:00:00+01:00", "2023-03-28T12:00:00+02:00"),
        # On 26 March 2023 there was no half past two.
        ("2024-03-26T02:30:00+01:00", "2023-03-26T03:30:00+02:00"),
        # On 29 October 2023 there were two; the first is meant.
        ("2024-10-29T02:30:00+01:00", "2023-10-29T02:30:00+02:00"),
        ("2024-12-31T23:30:00+00:00", "2024-01-01T00:30:00+01:00"),
        ("1970-01-01T01:00:00+01:00", "1969-01-01T01:00:00+01:00"),
    ],
)
def test_the_moment_a_year_before_is_by_the_sides_clocks(moment: str, before: str) -> None:
    assert at(before) == moment_year_before(at(moment), LJUBLJANA)


@given(st.datetimes(datetime(1971, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001  # bounds
def test_a_year_before_is_about_a_year_before(moment: datetime) -> None:
    assert timedelta(days=364, hours=22) < moment - moment_year_before(moment, ZAGREB) < timedelta(days=366, hours=2)


def test_a_moment_is_the_last_position_that_it_includes() -> None:
    assert "1710385929000-18446744073709551615" == position_at(at("2024-03-14T03:12:09+00:00"))
    assert "0-18446744073709551615" == position_at(at("1969-12-31T23:59:59+00:00"))
    assert at("2024-03-14T03:12:09Z") == received(Position("1710385929000-7"))
    with pytest.raises(OverflowError):
        received(Position("18446744073709551615-0"))
