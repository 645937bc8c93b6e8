"""Names of operations and sections that nothing in the log has: most likely they are misspelt. Pure.

Likewise sides of which nothing was recorded. Other dimensions have closed vocabularies or a form, and a zero of theirs
is an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

from services.tally.cells import Tallies
from services.tally.rollup import Terms

NAMES: Final[Mapping[str, int]] = {"operation": 1, "section": 2}
"""The dimensions whose values are names, with their place in a cell."""

KNOWN_MAX: Final = 5


def absent_side(sides: Sequence[str]) -> str:
    """Say of which sides there is no entry, while there are some of others."""
    return (
        f"no entry of side {', '.join(sides)} is here: its figures, and sums of all sides, may lack what was reported"
    )


def unknown_names(where: Mapping[Any, str | Sequence[str]], tallies: Tallies, terms: Terms) -> list[str]:
    """Return a text for each name in `where` that no count and no plan of an operation has, with similar ones."""
    found = []
    for dimension in NAMES.keys() & where.keys():
        place = NAMES[dimension]
        given = where[dimension]
        known = {cell[place] for cell in tallies} | {planned[place] for planned in terms.coverage}
        for value in (given,) if isinstance(given, str) else given:
            if value and value not in known:
                found.append(f"unknown {dimension} {value}; {_known(value, sorted(known - {''}))}")
    return sorted(found)


def _known(value: str, known: Sequence[str]) -> str:
    if not known:
        return "the log knows none"
    shown = get_close_matches(value, known, KNOWN_MAX) or known[:KNOWN_MAX]
    more = f" and {len(known) - len(shown):,} more" if len(known) > len(shown) else ""
    return f"the log knows {', '.join(shown)}{more}"
