"""The cell: the one kind of counter there is, and its text form in keys, digests and the change feed."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Final, TypeAlias, cast

from schemas.vocabulary import Measure, Side

SEPARATOR: Final = "|"


Cell: TypeAlias = tuple[Side, str, str, str, Measure, str]
"""What one count is about: side, operation, section, day, measure, citizenship.

An absent operation, section or citizenship is the empty string; `day` is ISO 8601. A plain tuple, because a report
makes several and a named one takes five times as long.
"""

Tallies: TypeAlias = dict[Cell, int]

PARTS: Final = 6


def cell_text(cell: Cell) -> str:
    """Write a cell as text; no part can contain the separator (see `schemas.vocabulary`)."""
    return SEPARATOR.join(cell)


def parse_cell(text: str) -> Cell:
    """Read what `cell_text` wrote; ValueError on anything else."""
    parts = tuple(text.split(SEPARATOR))
    if len(parts) != PARTS:
        raise ValueError(f"a cell has {PARTS} parts, this has {len(parts)}")
    return cast("Cell", parts)


def local_day(time: datetime, zone: tzinfo) -> str:
    """Return the local calendar day of a time in the side's zone; days of 23 and 25 hours included."""
    return time.astimezone(zone).date().isoformat()
