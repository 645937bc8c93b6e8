"""Holds tallies against something else: against other tallies cell by cell, and against published figures."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, NamedTuple, cast

from msgspec import Struct
from msgspec.structs import replace

from schemas.claims import Claim, Relation
from schemas.vocabulary import Side
from services.tally.balances import Balance, cut_balances
from services.tally.cells import Cell, Tallies
from services.tally.names import absent_side, unknown_names
from services.tally.rollup import DIMENSIONS, Dimension, Selection, Terms, roll_up, total

Verdict = Literal["confirmed", "different", "inconsistent"]


class Difference(NamedTuple):
    """One cell in which two tallies part."""

    cell: Cell
    live: int
    rebuilt: int


class Disagreement(NamedTuple):
    """One cell in which the fold and the second engine part."""

    cell: Cell
    fold: int
    sql: int


class Finding(Struct, frozen=True, omit_defaults=True):
    """What became of one published figure; `key` is empty for the total, else the breakdown's member.

    `note` says which names in the claim nothing in the log has, that nothing is here of the sides it is about, and
    which opening balances reach beyond its days, if there are such.
    """

    text: str
    measure: str
    key: str
    published: int
    rebuilt: int
    verdict: Verdict
    note: str = ""


def differences(live: Tallies, rebuilt: Tallies) -> list[Difference]:
    """Return the cells in which two tallies differ, sorted."""
    return [
        Difference(cell, live.get(cell, 0), rebuilt.get(cell, 0))
        for cell in sorted(live.keys() | rebuilt.keys())
        if live.get(cell, 0) != rebuilt.get(cell, 0)
    ]


def judge(
    claims: Iterable[Claim],
    rebuilt: Tallies,
    terms: Terms,
    balances: Sequence[Balance] = (),
    absent: Sequence[Side] = (),
) -> list[Finding]:
    """Hold published figures against rebuilt tallies: a finding for each total and each member of a breakdown.

    `balances` are the opening balances in force; of the sides in `absent` nothing is here.
    """
    return [finding for claim in claims for finding in _judge(claim, rebuilt, terms, balances, absent)]


def of_claim(claim: Claim, key: str, terms: Terms) -> Callable[[Cell], bool]:
    """Return which cells are summed for a claim's total (`key` is empty), or for a member of its breakdown."""
    selection = _selection(claim)
    if key:
        name = next(name for name, members in claim.breakdown.items() if key in members)
        where = dict(selection.where)
        also = where.get(cast("Dimension", name))
        where[cast("Dimension", name)] = (key,) if also is None or key in also else ()
        selection = replace(selection, where=where)
    known: dict[Cell, bool] = {}

    def summed(cell: Cell) -> bool:
        if cell not in known:
            known[cell] = total({cell: 1}, selection, terms) == 1
        return known[cell]

    return summed


def holds(claim: Claim, key: str, counted: int) -> bool:
    """Tell whether a count is what was published: the relation for a total, exactly for a member of a breakdown."""
    if key:
        return counted == next(members[key] for members in claim.breakdown.values() if key in members)
    return _HOLDS[claim.relation](counted, claim.published)


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


def _selection(claim: Claim) -> Selection:
    where = {
        cast("Dimension", name): (values,) if isinstance(values, str) else values
        for name, values in claim.where.items()
    }
    return Selection((), where | {"measure": (claim.measure,)}, claim.first_day, claim.last_day)


def _judge(
    claim: Claim, rebuilt: Tallies, terms: Terms, balances: Sequence[Balance], absent: Sequence[Side]
) -> Iterable[Finding]:
    selection = _selection(claim)
    relation = _HOLDS[claim.relation]

    of_sides = selection.where.get("side", ())
    lacking = of_sides and set(of_sides) <= set(absent)
    beyond = [*([absent_side(of_sides)] if lacking else []), *cut_balances(balances, selection, terms)]

    def finding(key: str, published: int, counted: int, verdict: Verdict) -> Finding:
        names = claim.where | (dict.fromkeys(claim.breakdown, (key,)) if key else {})
        note = "; ".join([*unknown_names(names, rebuilt, terms), *(() if key else beyond)])
        return Finding(claim.text, claim.measure, key, published, counted, verdict, note)

    counted = total(rebuilt, selection, terms)
    confirmed = relation(counted, claim.published)
    adds_up = all(relation(sum(members.values()), claim.published) for members in claim.breakdown.values())
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
