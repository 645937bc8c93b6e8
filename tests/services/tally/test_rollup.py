"""Every view is a sum over cells: by any dimensions, over any period, and never over different units."""

from __future__ import annotations

from datetime import date
from itertools import combinations

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.vocabulary import UNITS, Measure, Side
from services.tally.cells import Cell, Tallies
from services.tally.rollup import DIMENSIONS, Dimension, Row, Selection, Terms, roll_up, total
from tests import given

SI, HR = Side("SI"), Side("HR")
TERMS = Terms(
    domestic={SI: "SVN", HR: "HRV"},
    coverage={(SI, given.OPERATION, "koper"): "joint", (SI, given.OPERATION, "ljubljana"): "remaining"},
)
TALLIES: Tallies = {
    (SI, given.OPERATION, "koper", "2024-03-13", "persons", "SYR"): 4,
    (SI, given.OPERATION, "koper", "2024-03-14", "persons", "SVN"): 1,
    (SI, given.OPERATION, "ljubljana", "2024-03-15", "persons", "SYR"): 2,
    (SI, given.OPERATION, "elsewhere", "2024-03-15", "persons", "SYR"): 16,
    (SI, "", "koper", "2024-03-31", "persons", "HRV"): 8,
    (SI, "", "koper", "2023-12-31", "persons", ""): 128,
    (SI, given.OPERATION, "koper", "2024-03-13", "apprehensions", ""): 1,
    (HR, given.OPERATION, "koper", "2024-03-13", "persons", "HRV"): 32,
    (HR, "", "", "2023-12-31", "remanded", "SVN"): 64,
}
PERSONS = Selection(("side",), {"measure": ("persons",)})


def rows(*by: Dimension, first: str | None = None, last: str | None = None, **where: str) -> dict[tuple[str, ...], int]:
    """Sum persons by dimensions where others have a value."""
    chosen: dict[Dimension, tuple[str, ...]] = {"measure": ("persons",)}
    chosen |= {name: (value,) for name, value in where.items()}  # type: ignore[misc]  # names of dimensions
    period = [date.fromisoformat(day) if day else None for day in (first, last)]
    return {row.values: row.count for row in roll_up(TALLIES, Selection(by, chosen, *period), TERMS)}


EACH: list[tuple[Dimension, dict[str, int]]] = [
    ("side", {"SI": 159, "HR": 32}),
    ("operation", {"": 136, given.OPERATION: 55}),
    ("section", {"koper": 173, "ljubljana": 2, "elsewhere": 16}),
    ("day", {"2023-12-31": 128, "2024-03-13": 36, "2024-03-14": 1, "2024-03-15": 18, "2024-03-31": 8}),
    ("month", {"2023-12": 128, "2024-03": 63}),
    ("year", {"2023": 128, "2024": 63}),
    ("measure", {"persons": 191}),
    ("citizenship", {"": 128, "SYR": 22, "SVN": 1, "HRV": 40}),
    ("origin", {"": 128, "foreign": 30, "domestic": 33}),
    ("coverage", {"": 184, "joint": 5, "remaining": 2}),
]


@pytest.mark.parametrize(("dimension", "sums"), EACH, ids=[dimension for dimension, _ in EACH])
def test_persons_are_summed_by_each_dimension(dimension: Dimension, sums: dict[str, int]) -> None:
    assert {(value,): count for value, count in sums.items()} == rows(dimension)


def test_there_is_a_sum_for_each_dimension() -> None:
    assert set(DIMENSIONS) == {dimension for dimension, _ in EACH}


@pytest.mark.parametrize(("dimension", "sums"), EACH, ids=[dimension for dimension, _ in EACH])
def test_where_selects_what_by_would_show(dimension: Dimension, sums: dict[str, int]) -> None:
    if dimension == "measure":
        sums = {"persons": 191}
    for value, count in sums.items():
        assert {(): count} == rows(**{dimension: value})


def test_several_values_of_one_dimension_mean_any_of_them() -> None:
    selection = replace(PERSONS, where={**PERSONS.where, "citizenship": ("SYR", "SVN")})

    assert total(TALLIES, selection, TERMS) == 23


def test_several_dimensions_mean_all_of_them() -> None:
    assert rows("side", side="SI", citizenship="HRV") == {("SI",): 8}


def test_domestic_is_the_sides_own_citizenship_only() -> None:
    assert rows("side", "origin") == {
        ("SI", "domestic"): 1,
        ("SI", "foreign"): 30,
        ("SI", ""): 128,
        ("HR", "domestic"): 32,
    }


def test_coverage_is_that_of_the_operations_section_on_that_side() -> None:
    """Outside an operation, in a section that its plan does not name, or on another side there is none."""
    assert rows("side", "operation", "section", coverage="joint") == {("SI", given.OPERATION, "koper"): 5}


@pytest.mark.parametrize(
    ("first", "last", "count"),
    [
        ("2024-03-13", "2024-03-15", 55),
        ("2024-03-14", "2024-03-14", 1),
        (None, "2024-03-13", 164),
        ("2024-03-15", None, 26),
        ("2023-12-31", "2023-12-31", 128),
        ("2024-01-01", "2024-03-12", 0),
        (None, None, 191),
    ],
)
def test_both_days_of_a_period_are_included(first: str | None, last: str | None, count: int) -> None:
    assert sum(rows(first=first, last=last).values()) == count


def test_rows_without_a_count_are_left_out() -> None:
    tallies: Tallies = {(SI, "", "", "2024-03-14", "persons", "SYR"): 0}

    assert roll_up(tallies, PERSONS, TERMS) == []


def test_measures_come_in_the_order_of_the_handbook_and_the_rest_in_its_own() -> None:
    tallies: Tallies = {
        (side, "", "", "2024-03-14", measure, ""): 1 for side in (SI, HR) for measure in reversed(UNITS)
    }
    made = roll_up(tallies, Selection(("side", "measure")), TERMS)

    assert [Row((side, measure), 1) for side in ("HR", "SI") for measure in UNITS] == made


@pytest.mark.parametrize(
    ("by", "measures"),
    [(("side",), ()), ((), ()), (("side", "citizenship"), ("persons", "smugglers"))],
)
def test_units_are_never_mixed(by: tuple[Dimension, ...], measures: tuple[str, ...]) -> None:
    selection = Selection(by, {"measure": measures} if measures else {})

    assert selection.mixes_units
    with pytest.raises(ValueError, match="measures have different units"):
        roll_up(TALLIES, selection, TERMS)


def test_measures_beside_each_other_are_not_mixed() -> None:
    assert not Selection(("side", "measure")).mixes_units


_CELLS: st.SearchStrategy[Cell] = st.tuples(
    st.sampled_from((SI, HR)),
    st.sampled_from(("", given.OPERATION)),
    st.sampled_from(("", *given.SECTIONS)),
    st.sampled_from(("2023-12-31", "2024-02-29", "2024-03-13", "2024-03-15")),
    st.sampled_from(tuple(UNITS)),
    st.sampled_from(("", *given.CITIZENSHIPS)),
)
_TALLIES: st.SearchStrategy[Tallies] = st.dictionaries(_CELLS, st.integers(1, 10**9), max_size=20)
_BY = st.lists(st.sampled_from(DIMENSIONS), unique=True).map(tuple)


@examples(_TALLIES, _BY, st.sampled_from(tuple(UNITS)))
def test_the_sums_over_any_partition_add_up_to_the_total(
    tallies: Tallies, by: tuple[Dimension, ...], measure: Measure
) -> None:
    selection = Selection(by, {"measure": (measure,)})
    everything = sum(count for cell, count in tallies.items() if cell[4] == measure)

    assert everything == sum(row.count for row in roll_up(tallies, selection, TERMS))
    assert everything == total(tallies, selection, TERMS)


@examples(_TALLIES, _BY)
def test_a_row_by_measure_holds_one_unit(tallies: Tallies, by: tuple[Dimension, ...]) -> None:
    made = roll_up(tallies, Selection(("measure", *(name for name in by if name != "measure"))), TERMS)
    by_measure = {measure: sum(row.count for row in made if row.values[0] == measure) for measure in UNITS}

    assert by_measure == {
        measure: sum(count for cell, count in tallies.items() if cell[4] == measure) for measure in UNITS
    }


@examples(_TALLIES, _BY)
def test_rows_are_distinct(tallies: Tallies, by: tuple[Dimension, ...]) -> None:
    made = [row.values for row in roll_up(tallies, Selection((*by, "measure")), TERMS)]

    assert len(set(made)) == len(made)


@examples(_TALLIES, st.sampled_from([*combinations(("2023-12-31", "2024-03-01", "2024-03-14", "2024-12-31"), 2)]))
def test_a_period_and_what_lies_outside_it_add_up_to_everything(tallies: Tallies, period: tuple[str, str]) -> None:
    first, last = (date.fromisoformat(day) for day in period)
    day = date.resolution
    before, within, after = (
        total(tallies, replace(PERSONS, first_day=start, last_day=end), TERMS)
        for start, end in ((None, first - day), (first, last), (last + day, None))
    )

    assert total(tallies, PERSONS, TERMS) == before + within + after
