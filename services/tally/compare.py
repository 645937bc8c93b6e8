"""Holds tallies against something else: against other tallies cell by cell, and against published figures."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Final, Literal, NamedTuple, cast

from msgspec import Struct
from msgspec.structs import replace

from schemas.claims import Claim, Relation
from services.tally.cells import Cell, Tallies
from services.tally.rollup import DIMENSIONS, Dimension, Selection, Terms, roll_up, total

Verdict = Literal["confirmed", "different", "inconsistent"]


class Difference(NamedTuple):
    """One cell in which two tallies part."""

    cell: Cell
    live: int
    rebuilt: int


class Finding(Struct, frozen=True):
    """What became of one published figure; `key` is empty for the total, else the breakdown's member."""

    text: str
    measure: str
    key: str
    published: int
    rebuilt: int
    verdict: Verdict


def differences(live: Tallies, rebuilt: Tallies) -> list[Difference]:
    """Return the cells in which two tallies differ, sorted."""
    return [
        Difference(cell, live.get(cell, 0), rebuilt.get(cell, 0))
        for cell in sorted(live.keys() | rebuilt.keys())
        if live.get(cell, 0) != rebuilt.get(cell, 0)
    ]


def judge(claims: Iterable[Claim], rebuilt: Tallies, terms: Terms) -> list[Finding]:
    """Hold published figures against rebuilt tallies: a finding for each total and each member of a breakdown."""
    return [finding for claim in claims for finding in _judge(claim, rebuilt, terms)]


def unknown_dimension(claim: Claim) -> str | None:
    """Return a name in `where` or `breakdown` that is no dimension, if there is one."""
    return next((name for name in (*claim.where, *claim.breakdown) if name not in DIMENSIONS), None)


_HOLDS: Final[dict[Relation, Callable[[int, int], bool]]] = {
    "equals": operator.eq,
    "more_than": operator.gt,
    "at_least": operator.ge,
    "less_than": operator.lt,
    "at_most": operator.le,
}


def _judge(claim: Claim, rebuilt: Tallies, terms: Terms) -> Iterable[Finding]:
    where = {
        cast("Dimension", name): (values,) if isinstance(values, str) else values
        for name, values in claim.where.items()
    }
    selection = Selection((), where | {"measure": (claim.measure,)}, claim.first_day, claim.last_day)
    holds = _HOLDS[claim.relation]

    def finding(key: str, published: int, counted: int, verdict: Verdict) -> Finding:
        return Finding(claim.text, claim.measure, key, published, counted, verdict)

    counted = total(rebuilt, selection, terms)
    confirmed = holds(counted, claim.published)
    adds_up = all(holds(sum(members.values()), claim.published) for members in claim.breakdown.values())
    if not confirmed:
        yield finding("", claim.published, counted, "different")
    if not adds_up:
        yield finding("", claim.published, counted, "inconsistent")
    if confirmed and adds_up:
        yield finding("", claim.published, counted, "confirmed")
    for name, members in claim.breakdown.items():
        rows = roll_up(rebuilt, replace(selection, by=(cast("Dimension", name),)), terms)
        parts = {row.values[0]: row.count for row in rows}
        for member, published in members.items():
            part = parts.get(member, 0)
            yield finding(member, published, part, "confirmed" if part == published else "different")
