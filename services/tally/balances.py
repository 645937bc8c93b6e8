"""Opening balances, and figures that include more of them than their days say. Pure.

A balance counts whole on the last day of its period (DESIGN section 2): a figure of some of the period's days, among
them the last, includes what was counted on the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import Final, NamedTuple

from msgspec import field

from schemas.events import OpeningBalance
from schemas.vocabulary import Side
from services.tally.cells import Tallies
from services.tally.contributions import contributions
from services.tally.fold import Key, State
from services.tally.rollup import Dimension, Selection, Terms, roll_up

SHOWN_MAX: Final = 3

PARTS: Final[Mapping[Dimension, int]] = {"day": 10, "month": 7, "year": 4}
"""How much of a day's text is the part of time that is summed."""


class Replayed(State):
    """A state with the opening balances that are in force; only who folds the whole log knows them."""

    balances: dict[Key, OpeningBalance] = field(default_factory=dict)


class Balance(NamedTuple):
    """An opening balance: its period, the first and the last day included, and the cells that it adds to."""

    side: Side
    first: date
    last: date
    cells: Tallies


def balances_of(states: Iterable[Replayed]) -> list[Balance]:
    """Return the opening balances in force of all sides."""
    return [
        Balance(state.side, event.data.period_from, event.data.period_to, dict(contributions(event, state.zone)))
        for state in states
        for event in state.balances.values()
    ]


def cut_balances(balances: Iterable[Balance], selection: Selection, terms: Terms) -> list[str]:
    """Return a text for each period of balances that a selection includes and of which it has not every day.

    Where the selection sums by a part of time, the period must lie within one.
    """
    length = max((PARTS[name] for name in selection.by if name in PARTS), default=0)
    found = {
        (one.side, one.first, one.last)
        for one in balances
        if not _lies_within(one, selection, length) and roll_up(one.cells, _of_cells(selection), terms)
    }
    texts = [
        f"includes an opening balance of {side} for {first} to {last}, which counts whole on its last day"
        for side, first, last in sorted(found)
    ]
    more = len(texts) - SHOWN_MAX
    return texts if more <= 0 else [*texts[:SHOWN_MAX], f"and {more:,} more opening balances like that"]


def _lies_within(one: Balance, selection: Selection, length: int) -> bool:
    first, last = selection.first_day or date.min, selection.last_day or date.max
    if one.first < first or last < one.last or one.first.isoformat()[:length] != one.last.isoformat()[:length]:
        return False
    chosen = [selection.where[name] for name in PARTS if name in selection.where]
    if not chosen:
        return True
    days = ((one.first + timedelta(days=number)).isoformat() for number in range((one.last - one.first).days + 1))
    return all(day.startswith(values) for day in days for values in chosen)


def _of_cells(selection: Selection) -> Selection:
    """Return what selects the same cells, and mixes no units."""
    return Selection(("measure",), selection.where, selection.first_day, selection.last_day)
