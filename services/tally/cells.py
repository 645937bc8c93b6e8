"""The cell: the one kind of counter there is, and its text form in keys, digests and the change feed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final, TypeAlias, cast

from schemas.vocabulary import Measure, Side

SEPARATOR: Final = "|"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR: Final = timedelta(hours=1)


Cell: TypeAlias = tuple[Side, str, str, str, Measure, str]
"""What one count is about: side, operation, section, day, measure, citizenship.

An absent operation, section or citizenship is the empty string; `day` is ISO 8601. A plain tuple, because a report
makes several and a named one takes five times as long.
"""

Tallies: TypeAlias = dict[Cell, int]

CELL_PARTS: Final = ("side", "operation", "section", "day", "measure", "citizenship")


def cell_text(cell: Cell) -> str:
    """Write a cell as text; no part can contain the separator (see `schemas.vocabulary`)."""
    return SEPARATOR.join(cell)


def parse_cell(text: str) -> Cell:
    """Read what `cell_text` wrote; ValueError on anything else."""
    parts = tuple(text.split(SEPARATOR))
    if len(parts) != len(CELL_PARTS):
        raise ValueError(f"a cell has {len(CELL_PARTS)} parts, this has {len(parts)}")
    return cast("Cell", parts)


def local_day(time: datetime, zone: tzinfo) -> str:
    """Return the local calendar day of a time in the side's zone; days of 23 and 25 hours included."""
    return _day_of_hour((time - _EPOCH) // _HOUR, zone) or time.astimezone(zone).date().isoformat()


@lru_cache(maxsize=65_536)
def _day_of_hour(hour: int, zone: tzinfo) -> str:
    """Return the local day of an hour since 1970, "" if it lies in two: a log has many reports in each."""
    first = (_EPOCH + timedelta(hours=hour)).astimezone(zone)
    last = (_EPOCH + timedelta(hours=hour + 1, microseconds=-1)).astimezone(zone)
    whole = first.utcoffset() == last.utcoffset() and first.date() == last.date()  # the clock was not set meanwhile
    return first.date().isoformat() if whole else ""
