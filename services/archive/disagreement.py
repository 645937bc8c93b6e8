"""Where the fold and SQL part: the first position at which SQL counts something else than it should."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

from schemas.vocabulary import Position, Side
from services.archive.engine import Engine, second_opinion
from services.tally.cells import Cell

STOPS: Final = 8
"""So many stops over the whole log are looked at first, in its order: two that parted may have agreed again since."""


class Partings:
    """Looks for where SQL gives other counts than expected, of cells that differ at the end; each look counts once."""

    def __init__(self, engine: Engine, side: Side, expected: Callable[[Position], Mapping[Cell, int]]) -> None:
        self._engine = engine
        self._side: Side = side
        self._expected = expected
        self._last = engine.count(side) - 1
        self._parted: dict[int, dict[Cell, tuple[int, int]]] = {}

    def first(self, cells: Collection[Cell]) -> tuple[Position, dict[Cell, tuple[int, int]]]:
        """Return the first position at which any of the cells parts; with it, what was expected there and SQL's count.

        Between the stops, the position is found by halving: SQL agrees at the one before it.
        """
        cells = frozenset(cells)
        agreed, differs = -1, self._last
        for stop in range(1, STOPS):
            place = self._last * stop // STOPS
            if agreed < place < self._last:
                if self._at(place, cells):
                    differs = place
                    break
                agreed = place
        while differs - agreed > 1:
            middle = (agreed + differs) // 2
            if self._at(middle, cells):
                differs = middle
            else:
                agreed = middle
        return self._engine.position_at(self._side, differs), self._at(differs, cells)

    def _at(self, place: int, cells: Collection[Cell]) -> dict[Cell, tuple[int, int]]:
        if place not in self._parted:
            position = self._engine.position_at(self._side, place)
            counted = second_opinion(self._engine, self._side, position)
            self._parted[place] = {
                cell: (count, counted.get(cell, 0))
                for cell, count in self._expected(position).items()
                if counted.get(cell, 0) != count
            }
        return {cell: counts for cell, counts in self._parted[place].items() if cell in cells}
