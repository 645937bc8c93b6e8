"""Every view is a sum over cells: the dimensions to sum by, the derived ones included, and the rows that come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import Final, Literal, TypeAlias, get_args

from msgspec import Struct

from schemas.vocabulary import UNITS, Coverage, Measure, Side
from services.tally.cells import Cell, Tallies

Dimension = Literal[
    "side", "operation", "section", "coverage", "day", "month", "year", "measure", "citizenship", "origin"
]
DIMENSIONS: Final[tuple[Dimension, ...]] = get_args(Dimension)

Coverages: TypeAlias = Mapping[tuple[Side, str, str], Coverage]

MIXED_UNITS: Final = (
    "measures have different units and are never summed: add `measure` to the dimensions, or choose one"
)


class Terms(Struct, frozen=True):
    """What the derived dimensions need: each side's own citizenship, and the coverage of (side, operation, section)."""

    domestic: Mapping[Side, str]
    coverage: Coverages


class Selection(Struct, frozen=True):
    """Which cells to sum, and by what. Several values of one dimension mean any of them; both days are included."""

    by: tuple[Dimension, ...] = ("side", "operation", "measure")
    where: Mapping[Dimension, tuple[str, ...]] = {}
    first_day: date | None = None
    last_day: date | None = None

    @property
    def mixes_units(self) -> bool:
        """Whether a row would add counts of different units."""
        return "measure" not in self.by and len(self.where.get("measure", ())) != 1


class Row(Struct, frozen=True):
    """One sum: the values of the chosen dimensions, in their order, and the count."""

    values: tuple[str, ...]
    count: int


def roll_up(tallies: Tallies, selection: Selection, terms: Terms) -> list[Row]:
    """Return the non-zero sums, sorted; ValueError if they would mix units."""
    if selection.mixes_units:
        raise ValueError(MIXED_UNITS)
    value_of = _values(terms)
    wanted = [(value_of[dimension], frozenset(values)) for dimension, values in selection.where.items()]
    columns = [value_of[dimension] for dimension in selection.by]
    first = selection.first_day.isoformat() if selection.first_day else ""
    last = selection.last_day.isoformat() if selection.last_day else "9999-12-31"
    sums: dict[tuple[str, ...], int] = {}
    for cell, count in tallies.items():
        if first <= cell[3] <= last and all(value(cell) in values for value, values in wanted):
            row = tuple([column(cell) for column in columns])
            sums[row] = sums.get(row, 0) + count
    rows = [Row(values, count) for values, count in sums.items() if count]
    return sorted(
        rows, key=lambda row: [_rank(name, value) for name, value in zip(selection.by, row.values, strict=True)]
    )


def total(tallies: Tallies, selection: Selection, terms: Terms) -> int:
    """Return the one sum over everything selected."""
    return sum(row.count for row in roll_up(tallies, selection, terms))


def _values(terms: Terms) -> dict[Dimension, Callable[[Cell], str]]:
    def coverage(cell: Cell) -> str:
        return terms.coverage.get((cell[0], cell[1], cell[2]), "")

    def origin(cell: Cell) -> str:
        if not cell[5]:
            return ""
        return "domestic" if terms.domestic.get(cell[0]) == cell[5] else "foreign"

    return {
        "side": lambda cell: cell[0],
        "operation": lambda cell: cell[1],
        "section": lambda cell: cell[2],
        "coverage": coverage,
        "day": lambda cell: cell[3],
        "month": lambda cell: cell[3][:7],
        "year": lambda cell: cell[3][:4],
        "measure": lambda cell: cell[4],
        "citizenship": lambda cell: cell[5],
        "origin": origin,
    }


_MEASURE_RANK: Final[dict[Measure, int]] = {measure: rank for rank, measure in enumerate(UNITS)}


def _rank(dimension: Dimension, value: str) -> tuple[int, str]:
    """Measures stand in the order of the handbook, everything else in its own."""
    return (_MEASURE_RANK[value], "") if dimension == "measure" else (0, value)  # type: ignore[index]  # a Measure
