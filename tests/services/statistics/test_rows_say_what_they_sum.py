"""Every published row names the cells that it sums, whatever the tables were restricted to.

A reader who has the row and all cells, and not the command, comes to its count.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any, Final

import msgspec
import openpyxl
import pytest

from schemas.vocabulary import Position, Side
from services.statistics.periods import Period
from services.statistics.render import Publication, Stand, as_csv, as_json, as_markdown, as_sdmx_csv, as_xlsx
from services.statistics.tables import Asked, Counted, build
from services.tally.rollup import Terms

SI, HR, AT = Side("SI"), Side("HR"), Side("AT")
SIDES: Final = (SI, HR, AT)
OWN: Final = {SI: "SVN", HR: "HRV", AT: "AUT"}
COVERAGE: Final = {(SI, "JOINT", "koper"): "joint", (HR, "JOINT", "istra"): "remaining"}
TERMS: Final = Terms({side: OWN[side] for side in SIDES}, COVERAGE)
FIRST: Final = date(2023, 12, 20)
THIS: Final = Period(date(2024, 1, 1), date(2024, 2, 29))
VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "side": SIDES, "operation": ("", "JOINT", "OTHER"), "section": ("", "koper", "istra"),
    "coverage": ("", "joint", "remaining"), "citizenship": ("", "SVN", "HRV", "SYR"),
    "origin": ("", "domestic", "foreign"), "measure": ("persons", "smugglers"),
    "day": ("2024-01-31", "2024-02-01", "2024-02-02"), "month": ("2023-12", "2024-01", "2024-02"),
    "year": ("2023", "2024"),
}  # fmt: skip

Cell = tuple[str, ...]


def cells(random: Random) -> dict[Cell, int]:
    made: dict[Cell, int] = {}
    for _ in range(250):
        day = (FIRST + timedelta(days=random.randrange(85))).isoformat()
        cell = (*(random.choice(VALUES[name]) for name in ("side", "operation", "section")), day,
                random.choice(VALUES["measure"]), random.choice(VALUES["citizenship"]))  # fmt: skip
        made[cell] = random.randrange(1, 60)
    return made


def asked(random: Random) -> Asked:
    """Any restriction: days that cut months and years or not, one value or more, of one dimension or more."""
    names = random.sample(sorted(VALUES), random.choice((0, 1, 1, 2)))
    where: Any = {name: tuple(random.sample(VALUES[name], random.choice((1, 1, 2)))) for name in names}
    first, last = sorted(FIRST + timedelta(days=random.randrange(85)) for _ in range(2))
    first_day, last_day = random.choice(
        (
            (None, None), (first, last), (first, None), (None, last),
            (date(2024, 1, 1), date(2024, 1, 31)), (None, date(2024, 12, 31)),
        )
    )  # fmt: skip
    tables: Any = ("months", "operations", "smuggling")
    if not {"day", "month", "year"} & set(names):
        tables = (*tables, "year-to-date")
    return Asked(tables, SIDES, where, first_day, last_day, THIS)


def published(asked_for: Asked, counted: Mapping[Cell, int]) -> Publication:
    made: Any = counted
    tables = build(asked_for, Counted(made, TERMS, frozenset(SIDES)), Counted(made, TERMS, frozenset(SIDES)))
    stand = Stand(dict.fromkeys(SIDES, Position("1-0")), "digest", 1)
    return Publication(tables, datetime(2024, 2, 29, tzinfo=UTC), stand, stand)


def sums(row: Mapping[str, str], counted: Mapping[Cell, int]) -> int:
    """Add up what a row of CSV names: each of its columns is a condition, `_T` is none, + stands between any of."""
    total = 0
    first, stroke, last = row["period"].partition("/")
    for (side, operation, section, day, measure, citizenship), count in counted.items():
        origin = "" if not citizenship else "domestic" if OWN[Side(side)] == citizenship else "foreign"
        of = {
            "side": side, "operation": operation, "section": section, "measure": measure, "citizenship": citizenship,
            "coverage": COVERAGE.get((Side(side), operation, section), ""), "origin": origin,
            "day": day, "month": day[:7], "year": day[:4],
        }  # fmt: skip
        in_period = first <= day <= last if stroke else day.startswith(first)
        total += count * (
            in_period
            and all(row[name] == "_T" or value in row[name].split("+") for name, value in of.items() if name in row)
        )
    return total


def lines(text: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text.decode())))


SEEDS: Final = range(60)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_row_of_csv_is_the_sum_of_what_it_names(seed: int) -> None:
    random = Random(seed)
    counted = cells(random)
    publication = published(asked(random), counted)
    rows = lines(as_csv(publication))
    keys = [tuple(value for name, value in row.items() if name not in ("count", "known")) for row in rows]
    assert [] == [row for row in rows if sums(row, counted) != int(row["count"])]
    now = [key for key, row in zip(keys, rows, strict=True) if row["known"] == "now"]
    assert len(now) == len(set(now))


@pytest.mark.parametrize("seed", SEEDS)
def test_json_and_sdmx_have_the_same_rows(seed: int) -> None:
    random = Random(seed)
    publication = published(asked(random), cells(random))
    rows = lines(as_csv(publication))
    objects = [
        {"table": table["table"]} | row
        for table in msgspec.json.decode(as_json(publication))["tables"]
        for row in table["rows"]
    ]
    for row, record, seen in zip(rows, objects, lines(as_sdmx_csv(publication)), strict=True):
        assert {name: str(value) for name, value in record.items()}.items() <= row.items()
        assert {"section", "coverage", "day", "month", "year"} & set(row) == {
            "section",
            "coverage",
            "day",
            "month",
            "year",
        } & set(record)
        first, _, last = row["period"].partition("/")
        days = (date.fromisoformat(last) - date.fromisoformat(first)).days + 1 if last else 0
        assert (f"{first}/P{days}D" if days else first) == seen["TIME_PERIOD"]
        for name in {"section", "coverage", "day", "month", "year"} & set(row):
            assert [value or "_Z" for value in row[name].split("+")] == seen[name.upper()].split("+")
            assert "_OF_" in seen["STRUCTURE_ID"]
        assert row["count"] == seen["OBS_VALUE"]


@pytest.mark.parametrize("seed", SEEDS)
def test_people_see_the_same_names_of_periods(seed: int) -> None:
    """No part of a month or year is called by the whole's name, in any format."""
    random = Random(seed)
    asked_for = asked(random)
    publication = published(asked_for, cells(random))
    book = openpyxl.load_workbook(io.BytesIO(as_xlsx(publication)))
    text = as_markdown(publication).decode()
    for table in publication.tables:
        periods = {figure.key.period for figure in table.figures}
        if table.name in ("months", "smuggling"):
            shown = {str(label) for line in list(book[table.name].values)[3:] for label in line}
            assert periods <= shown
            assert all(f"| {period} |" in text for period in periods)
        headings = next(iter(list(book[table.name].values)[2:3]), ())
        for name in set(asked_for.where) - {"side", "measure"} if table.rows else ():
            at = headings.index(f"only {name}")
            wanted = "+".join(value or "none" for value in asked_for.where[name])
            assert {wanted} == {line[at] for line in list(book[table.name].values)[3 : 3 + len(table.rows)]}


def test_the_row_that_an_auditor_found_false() -> None:
    """A month and a year that were cut by days and by a section said they were whole, of everywhere."""
    counted: dict[Cell, int] = {
        ("SI", "", section, day, "persons", "SYR"): count
        for section, day, count in (
            ("koper", "2024-01-15", 1), ("koper", "2024-01-16", 2), ("koper", "2024-02-10", 4),
            ("koper", "2024-02-11", 8),            ("istra", "2024-01-20", 16),
        )
    }  # fmt: skip
    found = asked_of(section=("koper",))
    rows = {
        (row["period"], row["section"], row["count"])
        for row in lines(as_csv(published(found, counted)))
        if row["side"] == "SI" and row["citizenship"] == "_T"
    }
    assert {
        ("2024-01-16/2024-01-31", "koper", "2"), ("2024-02-01/2024-02-10", "koper", "4"),
        ("2024-01-16/2024-02-10", "koper", "6"),
    } == rows  # fmt: skip
    whole = Asked(("months",), SIDES, {}, date(2024, 1, 1), date(2024, 1, 31))
    assert {"2024-01"} == periods_of(whole, counted)
    assert {"2024-01", "2024-02", "2024"} == periods_of(Asked(("months",), SIDES), counted)


def asked_of(**where: tuple[str, ...]) -> Asked:
    of: Any = where
    return Asked(("months",), SIDES, of, date(2024, 1, 16), date(2024, 2, 10))


def periods_of(asked_for: Asked, counted: Mapping[Cell, int]) -> set[str]:
    return {row["period"] for row in lines(as_csv(published(asked_for, counted)))}
