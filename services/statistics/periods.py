"""The periods of a year-to-date table: this year's, last year's, and when last year's was known. Pure.

The *as-of moment* is a time of receipt: what came in later is not counted. The year to date is the days from 1 January
to the local day of that moment, or other days of one year of one's choice, of which none comes after that day; the
same period of last year is the same days a year earlier, where 29 February becomes the 28th, as on the screen.

Last year's period has two figures. *As known now* counts everything received up to the as-of moment, with all that was
reported late, amended or withdrawn since. *As known then* is what a replay gives as of the moment one year before the
as-of moment: the same day a year earlier, at the same time by the side's clocks. So both years stand with the same
delay after their period's end, and the difference of the two figures is what a year of late reports has changed.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final

from msgspec import Struct

from schemas.vocabulary import LAST_SEQUENCE, Position, order

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


class Period(Struct, frozen=True):
    """Days, the first and the last included."""

    first: date
    last: date

    def __str__(self) -> str:
        """Write it as ISO 8601 has it."""
        return f"{self.first.isoformat()}/{self.last.isoformat()}"

    @property
    def name(self) -> str:
        """Write a whole year or a whole month by its name, other days as ISO 8601 has them."""
        first = self.first.isoformat()
        return next((name for name in (first[:4], first[:7]) if period_of(name) == self), str(self))

    @property
    def days(self) -> int:
        """How many days it has."""
        return (self.last - self.first).days + 1

    def has(self, day: str) -> bool:
        """Tell whether a day, in ISO 8601, is one of its."""
        return self.first.isoformat() <= day <= self.last.isoformat()

    def year_before(self) -> Period:
        """Return the same days a year earlier."""
        return Period(day_year_before(self.first), day_year_before(self.last))


def period_of(name: str) -> Period:
    """Return the days of a year, a month or a day, such as 2024, 2024-03 or 2024-03-14."""
    first = date.fromisoformat((name + "-01-01")[: len("2024-01-01")])
    if len(name) == len("2024-03-14"):
        return Period(first, first)
    last_month = first.month if len(name) == len("2024-03") else 12
    return Period(first, date(first.year, last_month, monthrange(first.year, last_month)[1]))


def day_year_before(day: date) -> date:
    """Return the same day a year earlier; of 29 February, the 28th. ValueError in the year 1."""
    leap = day.month == 2 and day.day == 29
    return day.replace(year=day.year - 1, day=28 if leap else day.day)


def received(position: Position) -> datetime:
    """Return the time of receipt, in UTC; OverflowError if it lies after the year 9998."""
    moment = EPOCH + timedelta(milliseconds=order(position)[0])
    if moment.year > 9998:  # so that it has a local day everywhere
        raise OverflowError
    return moment


def position_at(moment: datetime) -> Position:
    """Return the last position that a time of receipt includes."""
    return Position(f"{max((moment - EPOCH) // _MS, 0)}-{LAST_SEQUENCE}")


def moment_year_before(moment: datetime, zone: tzinfo) -> datetime:
    """Return the same day and time by a side's clocks a year earlier; a time that they left out is an hour later."""
    local = moment.astimezone(zone)
    day = day_year_before(local.date())
    return local.replace(year=day.year, day=day.day).astimezone(UTC)


def year_to_date(moment: datetime, zones: Iterable[tzinfo], first: date | None, last: date | None) -> Period:
    """Return this year's days: those asked for, but none after the latest local day of the moment.

    Of later days nothing is known yet, while all of last year's are. ValueError says what is wrong with the days.
    """
    known = max(moment.astimezone(zone).date() for zone in zones)
    last = min(last or known, known)
    first = first or date(last.year, 1, 1)
    if first.year == 1:
        raise ValueError("no year comes before the year 1")
    if first > last:
        raise ValueError(f"it would begin on {first.isoformat()}, after its last day, {last.isoformat()}")
    if first.year != last.year:
        raise ValueError(
            f"it would be from {first.isoformat()} to {last.isoformat()}, which is more than one year's days, so that "
            "days of the one would be held against days of the other"
        )
    return Period(first, last)
