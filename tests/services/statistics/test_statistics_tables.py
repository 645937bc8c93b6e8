"""Every figure of every table is the sum that it says it is, and none that is hidden can be worked out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from random import Random
from typing import Any, Final

import pytest
from msgspec.structs import replace

from schemas.vocabulary import Side
from services.statistics.periods import Period
from services.statistics.tables import SMUGGLING, TABLES, TOTAL, Asked, Counted, Figure, Key, Table, build
from services.tally.cells import Tallies
from services.tally.rollup import Terms
from tests import attacker

SI, HR = Side("SI"), Side("HR")
SIDES: Final = (SI, HR)
TERMS: Final = Terms({SI: "SVN", HR: "HRV"}, {})
THIS_YEAR: Final = Period(date(2024, 1, 1), date(2024, 3, 15))
ASKED: Final = Asked(TABLES, SIDES, this_year=THIS_YEAR)
DAYS: Final = ("2023-01-10", "2023-03-15", "2023-03-16", "2023-12-31", "2024-01-01", "2024-02-29", "2024-03-20")
OPERATIONS: Final = ("", "SI-HR-2024-03")
PEOPLE: Final = ("", "SVN", "HRV", "SYR", "AFG")
MEASURES: Final = ("persons", "smugglers", "remanded")


def counted(tallies: Mapping[tuple[str, ...], int], *begun: Side) -> Counted:
    made: Any = dict(tallies)
    return Counted(made, TERMS, frozenset(begun or SIDES))


def random_tallies(random: Random) -> dict[tuple[str, ...], int]:
    density, heavy = random.choice((0.2, 0.4)), random.choice((0.6, 1.0))
    made = {}
    for side in SIDES:
        for day in random.sample(DAYS, 4):
            for operation in OPERATIONS if day == "2024-02-29" else ("",):
                for measure in ("apprehensions", "smuggling_cases", "nil_reports"):
                    if random.random() < density:
                        made[side, operation, "koper", day, measure, ""] = random.randrange(1, 9)
                for measure in MEASURES:
                    for citizenship in PEOPLE:
                        if random.random() < density:
                            made[side, operation, "koper", day, measure, citizenship] = int(random.paretovariate(heavy))
    return made


def changed(random: Random, tallies: Mapping[tuple[str, ...], int]) -> dict[tuple[str, ...], int]:
    """The same as it was known before: some of it not yet, some of it otherwise."""
    return {
        cell: max(1, count + random.choice((-1, 0, 0, 0, 1)))
        for cell, count in tallies.items()
        if random.random() < 0.9
    }


def belongs(key: Key, cell: Sequence[str]) -> bool:
    """Whether a figure sums a cell, by what its key says."""
    side, operation, _, day, measure, citizenship = cell
    first, stroke, last = key.period.partition("/")
    origin = "" if not citizenship else "domestic" if TERMS.domestic[Side(side)] == citizenship else "foreign"
    return (
        key.measure == measure
        and key.side in (side, TOTAL)
        and key.operation in (operation, TOTAL)
        and key.citizenship in (citizenship, TOTAL)
        and key.origin in (origin, TOTAL)
        and (first <= day <= last if stroke else day.startswith(key.period))
    )


def figures(tables: Iterable[Table]) -> list[Figure]:
    return [figure for table in tables for figure in table.figures]


def summed(key: Key, tallies: Mapping[tuple[str, ...], int]) -> int:
    return sum(count for cell, count in tallies.items() if belongs(key, cell))


@pytest.mark.parametrize("seed", range(8))
def test_every_figure_is_the_sum_that_it_says(seed: int) -> None:
    random = Random(seed)
    now = random_tallies(random)
    then = changed(random, now)
    found = figures(build(ASKED, counted(now), counted(then)))
    assert len(found) == len({figure.key for figure in found}) > 100
    for key, count, _ in ((figure.key, figure.count, figure.hidden) for figure in found):
        assert summed(key, then if key.known == "then" else now) == count, key


def test_nothing_is_left_out() -> None:
    now = random_tallies(Random(1))
    by_name = {table.name: table for table in build(ASKED, counted(now), counted(now))}
    for name, parts in (
        ("months", {(cell[3][:7], cell[5]) for cell in now if cell[4] == "persons"}),
        ("smuggling", {(cell[3][:4], cell[4]) for cell in now if cell[4] in SMUGGLING}),
        ("operations", {(cell[1], cell[4]) for cell in now if cell[4] != "nil_reports"}),
    ):  # fmt: skip
        keys = {figure.key for figure in by_name[name].figures}  # type: ignore[index]  # a name of a table
        shown = {
            "months": {(key.period, key.citizenship) for key in keys},
            "smuggling": {(key.period, key.measure) for key in keys},
            "operations": {(key.operation, key.measure) for key in keys},
        }[name]
        assert parts <= shown


def test_figures_of_a_thousand_million_are_exact() -> None:
    now = {(SI, "", "", "2024-01-01", "persons", "SYR"): 10**9, (HR, "", "", "2024-02-01", "persons", "SYR"): 10**9 + 1}
    total = Key("months", "persons", "2024", "now", TOTAL)
    (found,) = (figure for figure in figures(build(ASKED, counted(now), counted({}))) if figure.key == total)
    assert 2 * 10**9 + 1 == found.count


@pytest.mark.parametrize("seed", range(24))
def test_no_hidden_figure_can_be_worked_out_from_all_tables_together(seed: int) -> None:
    random = Random(seed)
    min_cell = random.choice((3, 5))
    now = random_tallies(random)
    then = changed(random, now)
    tables = build(replace(ASKED, min_cell=min_cell), counted(now), counted(then))
    assert [] == worked_out(tables, now, then, min_cell)
    for figure in figures(tables):
        true = summed(figure.key, then if figure.key.known == "then" else now)
        assert figure.hidden or not 0 < true < min_cell
        assert (None if figure.hidden else true) == figure.count
        assert true or not figure.hidden


@pytest.mark.parametrize("first", range(100, 160, 15))
def test_nor_one_that_is_hidden_only_beside_a_small_one(first: int) -> None:
    """A figure that is not small, but was or became so: it would tell the small one that it is nearly equal to."""
    for seed in range(first, first + 15):
        random = Random(seed)
        min_cell = random.choice((3, 5, 10))
        now = random_tallies(random)
        then = changed(random, now)
        tables = build(replace(ASKED, min_cell=min_cell), counted(now), counted(then))
        hidden = {figure.key for figure in figures(tables) if figure.hidden}
        for _, system, _, _ in systems(tables, now, then, min_cell):
            assert [] == attacker.singled_out(system, [key for key in system if key in hidden]), f"seed {seed}"


def test_some_could_be_if_each_table_were_hidden_by_itself() -> None:
    """So it is one system: this test fails if the attacker does not see that."""
    found = 0
    for seed in range(6):
        now = random_tallies(Random(seed))
        asked = replace(ASKED, min_cell=5)
        apart = [t for name in TABLES for t in build(replace(asked, tables=(name,)), counted(now), counted(now))]
        for _, system, small, _ in systems(apart, now, now, 5):
            found += len(attacker.singled_out(system, small))
        for _, system, small, _ in systems(build(asked, counted(now), counted(now)), now, now, 5):
            assert [] == attacker.singled_out(system, small)
    assert found


Cells = Mapping[tuple[str, ...], int]


def worked_out(tables: Sequence[Table], now: Cells, then: Cells, min_cell: int) -> list[Key]:
    """Return the small figures that a reader can tell."""
    told = []
    for counts, system, small, true in systems(tables, now, then, min_cell):
        for key in small:
            near = sorted(range(1, 4 * min_cell), key=lambda value: (abs(value - true[key]), value))
            if 2 > len(attacker.values(system, key, near, counts)):
                told.append(key)
    return told


def systems(
    tables: Sequence[Table], now: Cells, then: Cells, min_cell: int
) -> Iterator[tuple[list[int], dict[Key, attacker.Sum], list[Key], dict[Key, int]]]:
    """Yield counts, what a reader knows, small hidden figures, and true ones; of each measure and time by itself."""
    for known, tallies in (("now", now), ("then", then)):
        for measure in sorted({cell[4] for cell in tallies}):
            cells = sorted(cell for cell in tallies if cell[4] == measure)
            counts = [tallies[cell] for cell in cells]
            published = [f for f in figures(tables) if f.key.known == known and f.key.measure == measure]
            sums = {f.key: [at for at, cell in enumerate(cells) if belongs(f.key, cell)] for f in published}
            true = {key: sum(counts[at] for at in parts) for key, parts in sums.items()}
            shown = {f.key: f.count for f in published if f.count}
            system = attacker.sums({key: parts for key, parts in sums.items() if parts}, shown, {})
            yield counts, system, [f.key for f in published if f.hidden and true[f.key] < min_cell], true


@pytest.mark.parametrize("seed", range(10))
def test_what_is_hidden_of_last_year_is_hidden_as_known_now_and_then(seed: int) -> None:
    """The two are nearly equal, so what one shows is as good as the other."""
    random = Random(seed)
    now = random_tallies(random)
    found = {f.key: f for f in figures(build(replace(ASKED, min_cell=5), counted(now), counted(changed(random, now))))}
    pairs = [(f, found[f.key._replace(known="now")]) for f in found.values() if f.key.known == "then"]
    assert pairs
    assert [] == [a.key for a, b in pairs if a.hidden != b.hidden and (a.count or b.count)]


@pytest.mark.parametrize("begun", [SIDES, (SI,)])
def test_it_is_said_how_many_are_hidden(begun: tuple[Side, ...]) -> None:
    now = random_tallies(Random(3))
    then = {cell: count for cell, count in now.items() if cell[0] in begun}
    for table in build(replace(ASKED, min_cell=5), counted(now), counted(then, *begun)):
        hidden = [figure for figure in table.figures if figure.hidden]
        small = [figure for figure in hidden if summed(figure.key, now) < 5]
        assert (len(small), len(hidden) - len(small)) == (table.small, table.others)
        assert hidden


# --- what is in a table ---


def test_before_a_log_began_nothing_is_known_which_is_not_zero() -> None:
    now = {(SI, "", "", "2023-02-01", "persons", "SYR"): 7, (HR, "", "", "2023-02-01", "persons", "SYR"): 8}
    then = {(SI, "", "", "2023-02-01", "persons", "SYR"): 6}
    (table,) = build(replace(ASKED, tables=("year-to-date",)), counted(now), counted(then, SI))
    rows = {row.labels: [figure.count for figure in row.figures] for row in table.rows}
    assert {
        ("persons", "SYR", "SI"): [0, 7, 6],
        ("persons", "SYR", "HR"): [0, 8, None],
        ("persons", "SYR", "all sides"): [0, 15, None],
        ("persons", "total", "SI"): [0, 7, 6],
        ("persons", "total", "HR"): [0, 8, None],
        ("persons", "total", "all sides"): [0, 15, None],
    } == rows
    assert not any(figure.hidden for figure in table.figures)


def test_rows_are_sorted_by_what_they_are_about() -> None:
    now = {
        (side, operation, "", day, measure, citizenship): 7
        for side in SIDES
        for operation in OPERATIONS
        for day in ("2023-12-31", "2024-01-01")
        for measure in ("persons", "smugglers")
        for citizenship in ("SYR", "AFG", "SVN", "")
    }
    months, year_to_date, operations, smuggling = build(ASKED, counted(now), counted(now))
    citizenships = ["AFG", "SVN", "SYR", "not stated", "total"]
    assert [("persons", period, one) for period in ("2023-12", "2023", "2024-01", "2024") for one in citizenships] == [
        row.labels for row in months.rows
    ]
    assert ("SI", "HR", "all sides") == months.columns
    assert [("persons", "AFG", side) for side in ("SI", "HR", "all sides")] == [r.labels for r in year_to_date.rows[:3]]
    assert [
        ("SI-HR-2024-03", "persons"), ("SI-HR-2024-03", "smugglers"),
        ("outside any", "persons"), ("outside any", "smugglers"),
    ] == [row.labels for row in operations.rows]  # fmt: skip
    origins = ("foreign", "domestic", "not stated", "total")
    years = [(year, "smugglers", origin) for year in ("2023", "2024") for origin in origins]
    assert years == [row.labels for row in smuggling.rows]


def test_the_order_of_rows_does_not_tell_their_size() -> None:
    now = random_tallies(Random(5))
    other: Tallies = {cell: 10_000 - count for cell, count in now.items()}  # type: ignore[misc]  # cells
    asked = replace(ASKED, min_cell=5)
    for one, another in zip(build(asked, counted(now), counted(now)), build(asked, counted(other), counted(other)), strict=True):  # type: ignore[arg-type]  # noqa: E501  # fmt: skip
        assert [row.labels for row in one.rows] == [row.labels for row in another.rows]


def test_one_side_has_no_total_of_sides() -> None:
    now = random_tallies(Random(5))
    of_si = {cell: count for cell, count in now.items() if cell[0] == SI}
    for asked, tallies in ((replace(ASKED, sides=(SI,)), of_si), (replace(ASKED, where={"side": ("SI",)}), now)):
        for table in build(asked, counted(tallies), counted(tallies)):
            assert {"SI"} == {figure.key.side for figure in table.figures}
            assert table.columns in (("SI",), ("this year", "last year", "as known then"))


def test_conditions_and_days_choose_cells() -> None:
    now = random_tallies(Random(1))
    asked = replace(
        ASKED, tables=("months", "smuggling"), where={"measure": ("smugglers",), "citizenship": ("SYR", "SVN")},
        first_day=date(2023, 3, 15), last_day=date(2024, 1, 1),
    )  # fmt: skip
    chosen = {
        cell: n for cell, n in now.items() if cell[5] in ("SYR", "SVN") and "2023-03-15" <= cell[3] <= "2024-01-01"
    }
    found = figures(build(asked, counted(now)))
    assert {"smugglers"} == {figure.key.measure for figure in found}
    assert {"months", "smuggling"} == {figure.key.table for figure in found}
    for figure in found:
        assert summed(figure.key, chosen) == figure.count


@pytest.mark.parametrize("where", [{"day": ("2024-02-29",)}, {"month": ("2023-03",)}, {"year": ("2023", "2024")}])
def test_conditions_on_days_choose_these(where: Mapping[Any, tuple[str, ...]]) -> None:
    now = random_tallies(Random(2))
    asked = replace(ASKED, tables=("months", "operations"), where=where)
    chosen = {cell: n for cell, n in now.items() if cell[3].startswith(next(iter(where.values())))}
    found = figures(build(asked, counted(now)))
    assert found
    for figure in found:
        assert summed(figure.key, chosen) == figure.count


def test_a_side_that_is_not_asked_for_makes_nothing_unknown() -> None:
    now = {(side, "", "", "2023-02-01", "persons", "SYR"): 7 for side in (*SIDES, Side("AT"))}
    asked = replace(ASKED, tables=("year-to-date",), sides=(*SIDES, Side("AT")), where={"side": SIDES})
    (table,) = build(asked, counted(now), counted(now, *SIDES))
    assert [[0, 7, 7], [0, 7, 7], [0, 14, 14]] == [[f.count for f in row.figures] for row in table.rows[:3]]


def test_titles_say_what_was_chosen() -> None:
    asked = replace(ASKED, where={"operation": ("", "X"), "side": ("SI",)}, first_day=date(2024, 1, 1))
    months, year_to_date, *_ = build(asked, counted({}), counted({}))
    assert "By month and citizenship, from 2024-01-01 on, only operation=none or X, side=SI" == months.title
    assert year_to_date.title.startswith(
        "Year to date, 2024-01-01 to 2024-03-15 against 2023-01-01 to 2023-03-15, only"
    )


def test_tables_without_rows_are_there() -> None:
    tables = build(replace(ASKED, min_cell=5), counted({}), counted({}))
    assert list(TABLES) == [table.name for table in tables]
    assert [] == figures(tables)


def test_nil_reports_are_in_a_table_only_if_they_are_asked_for() -> None:
    now = {(SI, "", "koper", "2024-01-01", "nil_reports", ""): 7}
    assert [] == figures(build(ASKED, counted(now), counted(now)))
    asked = replace(ASKED, tables=("operations",), where={"measure": ("nil_reports",)})
    assert [7, 0, 7] == [figure.count for figure in figures(build(asked, counted(now)))]
