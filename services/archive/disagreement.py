"""Where the fold and SQL part: the first position at which SQL counts something else than it should."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from schemas.vocabulary import Position, Side
from services.archive.engine import Engine, second_opinion
from services.tally.cells import Cell

STOPS: Final = 8
"""So many stops over the whole log are looked at first, in its order: two that parted may have agreed again since."""


def first_parting(engine: Engine, side: Side, expected: Callable[[Position], Mapping[Cell, int]]) -> Position:
    """Return the first position at which SQL gives other counts than expected, for cells that differ at the end.

    Between the stops, the position is found by halving: SQL agrees at the one before it.
    """

    def parted(place: int) -> bool:
        position = engine.position_at(side, place)
        counted = second_opinion(engine, side, position)
        return any(counted.get(cell, 0) != count for cell, count in expected(position).items())

    last = engine.count(side) - 1
    agreed, differs = -1, last
    for stop in range(1, STOPS):
        place = last * stop // STOPS
        if agreed < place < last:
            if parted(place):
                differs = place
                break
            agreed = place
    while differs - agreed > 1:
        middle = (agreed + differs) // 2
        if parted(middle):
            differs = middle
        else:
            agreed = middle
    return engine.position_at(side, differs)
