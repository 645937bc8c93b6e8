"""An audit's judgement: where two tallies part, and which published figures hold."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from schemas.claims import RELATIONS, Claim, Relation
from schemas.vocabulary import Side
from services.tally.cells import Cell, Tallies
from services.tally.compare import Difference, Finding, differences, judge, unknown_dimension
from services.tally.rollup import Terms
from tests import given

SI = Side("SI")
TERMS = Terms(domestic={SI: "SVN"}, coverage={(SI, given.OPERATION, "koper"): "joint"})


def cell(citizenship: str, day: str = "2024-03-14", section: str = "koper") -> Cell:
    return (SI, given.OPERATION, section, day, "smugglers", citizenship)


TALLIES: Tallies = {cell("UKR"): 2, cell("ROU"): 1, cell("SRB"): 1, (*cell("SYR")[:4], "persons", "SYR"): 127}


def claim(**terms: Any) -> Claim:
    """Return a claim as its file would give it."""
    return msgspec.convert({"text": "smugglers", "measure": "smugglers", "where": {"side": "SI"}} | terms, Claim)


def verdicts(**terms: Any) -> list[tuple[str, int, int, str]]:
    found = judge([claim(**terms)], TALLIES, TERMS)
    assert {("smugglers", "smugglers")} == {(finding.text, finding.measure) for finding in found}
    return [(finding.key, finding.published, finding.rebuilt, finding.verdict) for finding in found]


# --- cell by cell ---


def test_equal_tallies_do_not_differ() -> None:
    assert differences(TALLIES, dict(TALLIES)) == []


def test_each_cell_that_differs_is_named_with_both_counts() -> None:
    rebuilt = {cell("UKR"): 2, cell("ROU"): 2, cell("MDA"): 5}
    live = {cell("UKR"): 2, cell("ROU"): 1, cell("SRB"): 1}

    assert differences(live, rebuilt) == [
        Difference(cell("MDA"), 0, 5),
        Difference(cell("ROU"), 1, 2),
        Difference(cell("SRB"), 1, 0),
    ]


def test_a_zero_and_no_cell_do_not_differ() -> None:
    assert differences({cell("UKR"): 0}, {}) == []


_TALLIES = st.dictionaries(
    st.sampled_from([cell(name) for name in ("UKR", "ROU", "SRB", "MDA")]), st.integers(0, 3), max_size=4
)


@examples(_TALLIES, _TALLIES)
def test_the_differences_are_what_has_to_be_added(live: Tallies, rebuilt: Tallies) -> None:
    mended = dict(live)
    for difference in differences(live, rebuilt):
        mended[difference.cell] = difference.rebuilt

    assert {cell: count for cell, count in rebuilt.items() if count} == {
        cell: count for cell, count in mended.items() if count
    }


# --- published figures ---

HOLDS: list[tuple[Relation, int, bool]] = [
    ("equals", 3, False), ("equals", 4, True), ("equals", 5, False),
    ("more_than", 3, True), ("more_than", 4, False), ("more_than", 5, False),
    ("at_least", 3, True), ("at_least", 4, True), ("at_least", 5, False),
    ("less_than", 3, False), ("less_than", 4, False), ("less_than", 5, True),
    ("at_most", 3, False), ("at_most", 4, True), ("at_most", 5, True),
]  # fmt: skip


@pytest.mark.parametrize(("relation", "published", "holds"), HOLDS)
def test_a_figure_is_confirmed_where_its_relation_holds(relation: Relation, published: int, *, holds: bool) -> None:
    verdict = "confirmed" if holds else "different"

    assert [("", published, 4, verdict)] == verdicts(**{relation: published})


def test_every_relation_is_judged() -> None:
    assert {relation for relation, _, _ in HOLDS} == set(RELATIONS)


def test_only_the_claimed_measure_is_summed() -> None:
    assert verdicts(equals=4, where={}) == [("", 4, 4, "confirmed")]


def test_where_narrows_what_is_summed() -> None:
    assert verdicts(equals=3, where={"citizenship": ["UKR", "SRB"]}) == [("", 3, 3, "confirmed")]
    assert verdicts(equals=4, where={"coverage": "joint"}) == [("", 4, 4, "confirmed")]
    assert verdicts(equals=0, where={"coverage": "remaining"}) == [("", 0, 0, "confirmed")]


def test_the_period_narrows_what_is_summed_both_days_included() -> None:
    for first, last, count in [("2024-03-14", "2024-03-14", 4), ("2024-03-15", "2024-03-16", 0)]:
        assert [("", count, count, "confirmed")] == verdicts(equals=count, **{"from": first, "to": last})


def test_a_breakdown_that_holds_is_confirmed_member_by_member() -> None:
    assert verdicts(equals=4, breakdown={"citizenship": {"UKR": 2, "ROU": 1, "SRB": 1}}) == [
        ("", 4, 4, "confirmed"),
        ("UKR", 2, 2, "confirmed"),
        ("ROU", 1, 1, "confirmed"),
        ("SRB", 1, 1, "confirmed"),
    ]


def test_a_breakdown_that_does_not_add_up_to_its_total_is_inconsistent() -> None:
    """The publication contradicts itself, and the member that is wrong differs as well."""
    assert verdicts(equals=4, breakdown={"citizenship": {"UKR": 2, "ROU": 2, "SRB": 1}}) == [
        ("", 4, 4, "inconsistent"),
        ("UKR", 2, 2, "confirmed"),
        ("ROU", 2, 1, "different"),
        ("SRB", 1, 1, "confirmed"),
    ]


def test_a_total_may_be_both_different_and_inconsistent() -> None:
    assert verdicts(equals=5, breakdown={"citizenship": {"UKR": 2}}) == [
        ("", 5, 4, "different"),
        ("", 5, 4, "inconsistent"),
        ("UKR", 2, 2, "confirmed"),
    ]


def test_a_member_that_was_not_counted_is_zero() -> None:
    assert verdicts(equals=4, breakdown={"citizenship": {"MDA": 4}}) == [
        ("", 4, 4, "confirmed"),
        ("MDA", 4, 0, "different"),
    ]


def test_a_breakdown_may_be_by_a_derived_dimension() -> None:
    assert verdicts(equals=4, breakdown={"origin": {"foreign": 4, "domestic": 0}}) == [
        ("", 4, 4, "confirmed"),
        ("foreign", 4, 4, "confirmed"),
        ("domestic", 0, 0, "confirmed"),
    ]


def test_each_claim_is_judged_in_turn() -> None:
    found = judge([claim(equals=4, text="one"), claim(equals=5, text="two")], TALLIES, TERMS)

    assert found == [
        Finding("one", "smugglers", "", 4, 4, "confirmed"),
        Finding("two", "smugglers", "", 5, 4, "different"),
    ]


@pytest.mark.parametrize(
    ("terms", "name"),
    [
        ({"where": {"side": "SI"}, "breakdown": {"origin": {"foreign": 1}}}, None),
        ({"where": {"country": "SI"}}, "country"),
        ({"breakdown": {"nationality": {"UKR": 1}}}, "nationality"),
    ],
)
def test_a_name_that_is_no_dimension_is_found(terms: dict[str, Any], name: str | None) -> None:
    assert name == unknown_dimension(claim(equals=1, **terms))
