"""`stats` prints the tables that people publish: in every format the sums of what an independent counting finds."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import openpyxl
import pytest
import redis

from tests import given, oracle
from tests.given import OPERATION
from tests.services.cli.conftest import Cli, assert_refused, told
from tests.services.cli.conftest import count as bring_up

AT = "cli-stats"
ZONES: Final = {"SI": "Europe/Ljubljana", "HR": "Europe/Zagreb"}
OWN: Final = {"SI": "SVN", "HR": "HRV"}
TABLES: Final = ("months", "year-to-date", "operations", "smuggling")
ONE_CALL: Final = "This holds for the tables of this one call: others of the same figures beside them may give"
LEAP_EVENING = "2024-02-29T23:30:00+01:00"


def received(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


# Local midnights of the year's end, of both changes of the clocks, of the leap day, on both sides of each.
MIDNIGHTS: Final = (
    ("2022-12-31T23:59:59+01:00", 1), ("2023-01-01T00:00:00+01:00", 2),
    ("2023-02-28T23:59:59+01:00", 4), ("2023-03-01T00:00:00+01:00", 8),
    ("2023-03-25T23:59:59+01:00", 16), ("2023-03-26T23:59:59+02:00", 32), ("2023-03-31T23:59:59+02:00", 64),
    ("2023-04-01T00:00:00+02:00", 128), ("2023-10-29T23:59:59+01:00", 256), ("2023-10-31T23:59:59+01:00", 512),
    ("2023-12-31T23:59:59+01:00", 1_024), ("2024-01-01T00:00:00+01:00", 2_048),
    ("2024-02-28T23:59:59+01:00", 3), ("2024-02-29T00:00:00+01:00", 5), ("2024-02-29T23:29:59+01:00", 7),
    ("2024-02-29T23:59:59+01:00", 11), ("2024-03-01T00:00:00+01:00", 13), ("2024-03-31T00:00:00+01:00", 17),
    ("2024-03-31T23:59:59+02:00", 19), ("2024-04-01T00:00:00+02:00", 23), ("2024-12-31T23:59:59+01:00", 29),
    ("2025-01-01T00:00:00+01:00", 31),
)  # fmt: skip


class Log(NamedTuple):
    """Entries of each side's log, with their positions."""

    entries: dict[str, list[tuple[str, dict[bytes, bytes]]]]

    @property
    def end(self) -> str:
        """The last position of all."""
        return max((side[-1][0] for side in self.entries.values()), key=given_order)


def given_order(position: str) -> tuple[int, int]:
    milliseconds, _, sequence = position.partition("-")
    return int(milliseconds), int(sequence)


@lru_cache
def log() -> Log:
    made: dict[str, list[tuple[int, bytes]]] = {"SI": [], "HR": []}
    ident = 0
    for side, entries in made.items():
        of = {"SI": ("SYR", "SVN", "AFG"), "HR": ("SYR", "HRV", "TUR")}[side]
        for when, count in MIDNIGHTS:
            ident += 1
            persons = {of[ident % 3]: count, "XXX": 1}
            subject = {"subject": OPERATION} if when.startswith("2024-03") else {}
            utc = datetime.fromisoformat(when).astimezone(UTC).isoformat().replace("+00:00", "Z")
            head = {"id": ident, "side": side, "time": (when, utc)[ident % 2], "device": f"d{ident}", "reportno": 1}
            entries.append((received(when), given.apprehension(persons=persons, **head, **subject)))
        # Of last year's January: one reported two years late, one amended after a year, one withdrawn.
        for number, (late, kind) in enumerate(
            (("2024-06-01T00:00:00Z", None), ("2023-01-10T12:00:00Z", "amended"), ("2023-01-10T12:00:01Z", "withdrawn"))
        ):
            ident += 1
            head = {"id": ident, "side": side, "time": "2023-01-10T12:00:00Z", "device": f"d{ident}", "reportno": 1}
            entries.append((received(late), given.apprehension(persons={"MAR": 40 + number}, **head)))
            if kind == "amended":
                again = head | {"id": ident * 1000, "amends": ident, "revision": 1, "reportno": 2}
                entries.append((received("2024-01-20T00:00:00Z"), given.apprehension(persons={"MAR": 60}, **again)))
            if kind == "withdrawn":
                again = head | {"id": ident * 1000, "amends": ident, "revision": 1, "reportno": 2}
                entries.append((received("2024-01-20T00:00:01Z"), given.withdrawal(**again)))
        for when, smugglers in (
            ("2023-02-11T10:00:00Z", {"UKR": 2, OWN[side]: 1}),
            ("2024-02-11T10:00:00Z", {"UKR": 9}),
        ):
            ident += 1
            head = {"id": ident, "side": side, "time": when, "device": f"d{ident}", "reportno": 1}
            arrest = given.smuggler_arrest(smugglers=smugglers, smuggled_persons={"SYR": 12}, **head)
            entries.append((received(when), arrest))
            ident += 1
            head |= {"id": ident, "reportno": 2}
            entries.append((received(when) + 1, given.custody(remanded={"UKR": 1}, **head)))
        ident += 1
        totals = [
            {"measure": "persons", "count": 10**9, "citizenship": "SYR"}, {"measure": "persons", "count": 10**9},
            {"measure": "smugglers", "count": 10**9}, {"measure": "nil_reports", "count": 3},
        ]  # fmt: skip
        balance = given.opening_balance(
            id=ident, side=side, totals=totals, period_from="2022-01-01", period_to="2022-12-31", device="desk"
        )
        entries.append((received("2023-01-02T00:00:00Z"), balance))
        entries.append((received("2024-03-02T00:00:00Z"), b"no event"))
    return Log(
        {
            side: [(f"{at}-0", {b"event": raw}) for at, raw in sorted(entries)] for side, entries in made.items()
        }
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _log(server_url: str) -> Iterator[None]:
    with told(server_url, AT, {}, projected=False) as client:
        for side, entries in log().entries.items():
            for position, fields in entries:
                client.xadd(f"{{{AT}:{side}}}:log", fields, id=position)
        yield


# --- what is to be expected ---


Tallies = Mapping[tuple[str, ...], int]


def tallies_at(moment: int) -> Tallies:
    """Count everything that was received up to a moment, by the oracle."""
    counted: dict[tuple[str, ...], int] = {}
    for side, entries in log().entries.items():
        until = [entry for entry in entries if given_order(entry[0])[0] <= moment]
        for cell, count in oracle.count(side, ZONES[side], until).tallies.items():
            counted[tuple(cell.split("|"))] = count
    return counted


def digest_at(moment: int) -> str:
    return oracle.digest({"|".join(cell): count for cell, count in tallies_at(moment).items()})


Row = Mapping[str, Any]


def expected(row: Row, now: Tallies, then: Tallies) -> int:
    """Sum the cells that a row says it is about."""
    total = 0
    for (side, operation, _, day, measure, citizenship), count in (then if row["known"] == "then" else now).items():
        origin = "" if not citizenship else "domestic" if OWN[side] == citizenship else "foreign"
        first, stroke, last = row["period"].partition("/")
        total += count * (
            row["measure"] == measure
            and row["side"] in (side, "_T")
            and row["operation"] in (operation, "_T")
            and row["citizenship"] in (citizenship, "_T")
            and row["origin"] in (origin, "_T")
            and (first <= day <= last if stroke else day.startswith(first))
        )
    return total


def stats(cli: Cli, *args: str) -> Any:
    outcome = cli("stats", *args, "--format", "json", at=AT)
    assert 0 == outcome.code, outcome.err
    return outcome.json


def rows(published: Any, table: str) -> list[dict[str, Any]]:
    (found,) = (one for one in published["tables"] if one["table"] == table)
    return list(found["rows"])


END = received("2025-01-01T00:00:00+01:00")


# --- what the figures are ---


@pytest.mark.parametrize(
    ("as_of", "now", "then", "this", "last"),
    [
        (None, "2025-01-01T00:00:00+01:00", "2024-01-01T00:00:00+01:00",
         "2025-01-01/2025-01-01", "2024-01-01/2024-01-01"),
        (LEAP_EVENING, LEAP_EVENING, "2023-02-28T23:30:00+01:00", "2024-01-01/2024-02-29", "2023-01-01/2023-02-28"),
        ("2024-12-31T22:59:59.999Z", "2024-12-31T22:59:59.999Z", "2023-12-31T22:59:59.999Z",
         "2024-01-01/2024-12-31", "2023-01-01/2023-12-31"),
        ("2024-12-31T23:00:00Z", "2024-12-31T23:00:00Z", "2023-12-31T23:00:00Z",
         "2025-01-01/2025-01-01", "2024-01-01/2024-01-01"),
        ("2024-03-31T23:59:59+02:00", "2024-03-31T23:59:59+02:00", "2023-03-31T23:59:59+02:00",
         "2024-01-01/2024-03-31", "2023-01-01/2023-03-31"),
        (f"{received('2024-04-01T00:00:00+02:00')}-0", "2024-04-01T00:00:00+02:00", "2023-04-01T00:00:00+02:00",
         "2024-01-01/2024-04-01", "2023-01-01/2023-04-01"),
        ("2023-01-10T13:00:00Z", "2023-01-10T13:00:00Z", "2022-01-10T13:00:00Z",
         "2023-01-01/2023-01-10", "2022-01-01/2022-01-10"),
    ],
)  # fmt: skip
def test_every_figure_is_what_the_oracle_counts(
    cli: Cli, as_of: str | None, now: str, then: str, this: str, last: str
) -> None:
    published = stats(cli, *(["--as-of", as_of] if as_of else []))
    of_now, of_then = tallies_at(received(now)), tallies_at(received(then))
    assert list(TABLES) == [table["table"] for table in published["tables"]]
    seen = set()
    for table in published["tables"]:
        for row in table["rows"]:
            assert row.get("missing", False) == (row["known"] == "then" and not of_then)
            if row.get("missing"):
                assert row["count"] is None
            else:
                assert expected(row, of_now, of_then) == row["count"], row
            seen.add(row["period"])
    assert {this, last} & seen == {row["period"] for row in rows(published, "year-to-date")}
    assert digest_at(received(now)) == published["digest"]
    assert digest_at(received(then)) == published["known_then"]["digest"]
    assert 1 == published["fold_version"] == published["known_then"]["fold_version"]
    for moment, position in ((now, published["position"]), (then, published["known_then"]["position"])):
        reached = {
            side: ([at for at, _ in entries if given_order(at)[0] <= received(moment)] or ["0-0"])[-1]
            for side, entries in log().entries.items()
        }
        assert reached == position


def test_every_day_of_a_month_is_in_its_month(cli: Cli) -> None:
    """At one second to midnight and at midnight, whichever way the time was written."""
    found = {
        (row["period"], row["citizenship"]): row["count"]
        for row in rows(stats(cli, "months"), "months")
        if row["side"] == "_T"
    }
    by_month: dict[str, int] = {}
    for when, count in MIDNIGHTS:
        by_month[when[:7]] = by_month.get(when[:7], 0) + 2 * (count + 1)
    by_month["2022-12"] += 4 * 10**9
    by_month["2023-01"] += 2 * (40 + 60)
    assert by_month == {month: count for (month, one), count in found.items() if one == "_T" and len(month) == 7}
    for year in ("2022", "2023", "2024", "2025"):
        assert found[year, "_T"] == sum(count for month, count in by_month.items() if month.startswith(year))


def test_the_two_figures_of_last_year_differ_by_what_was_reported_since(cli: Cli) -> None:
    published = stats(cli, "year-to-date", "--as-of", LEAP_EVENING, "--where", "citizenship=MAR")
    counts = {
        (row["period"][:4], row["known"]): row["count"]
        for row in rows(published, "year-to-date")
        if row["measure"] == "persons" and row["citizenship"] == "MAR" and row["side"] == "SI"
    }
    # Then 41 and 42 were known; since, one was amended to 60 and one withdrawn; the third came only later.
    assert {("2024", "now"): 0, ("2023", "now"): 60, ("2023", "then"): 83} == counts


def test_days_may_be_chosen(cli: Cli) -> None:
    published = stats(cli, "--from", "2024-02-01", "--to", "2024-02-29")
    now = {cell: count for cell, count in tallies_at(END).items() if "2024-02-01" <= cell[3] <= "2024-02-29"}
    for table in ("months", "operations", "smuggling"):
        assert rows(published, table)
        for row in rows(published, table):
            assert expected(row, now, {}) == row["count"]
    then = tallies_at(received("2024-01-01T00:00:00+01:00"))
    periods = {"2024-02-01/2024-02-29", "2023-02-01/2023-02-28"}
    assert periods == {row["period"] for row in rows(published, "year-to-date")}
    for row in rows(published, "year-to-date"):
        assert expected(row, tallies_at(END), then) == row["count"]


@pytest.mark.parametrize("output_format", ["table", "markdown", "csv", "json", "sdmx-csv"])
def test_a_period_that_is_not_over_ends_where_what_is_known_does(cli: Cli, output_format: str) -> None:
    args = ("stats", "year-to-date", "--as-of", LEAP_EVENING, "--to", "2024-12-31", "--format", output_format)
    outcome = cli(*args, at=AT)
    assert "year-to-date: up to 2024-02-29 only, the day of the as-of moment, and not 2024-12-31" in outcome.err
    assert "2024-12-31" not in outcome.out
    if output_format in ("table", "markdown", "json"):
        assert (
            "Year to date, 2024-01-01 to 2024-02-29 (what was known ends there) against 2023-01-01 to 2023-02-28"
            in outcome.out
        )
    uncut = cli(*args[:4], "--format", output_format, at=AT)
    assert ("", uncut.out) == (uncut.err, outcome.out.replace(" (what was known ends there)", ""))


def test_a_part_of_a_month_is_not_called_the_month(cli: Cli) -> None:
    args = ("stats", "months", "--where", "section=koper", "--from", "2024-02-29", "--to", "2024-03-31")
    now = {cell: count for cell, count in tallies_at(END).items() if "2024-02-29" <= cell[3] <= "2024-03-31"}
    found = cli(*args, "--format", "csv", at=AT).csv
    assert ["2024-02-29/2024-02-29", "2024-03", "2024-02-29/2024-03-31"] == list(
        dict.fromkeys(row["period"] for row in found)
    )
    for row in found:
        assert ("koper", expected(row, now, {})) == (row["section"], int(row["count"]))
    text = cli(*args, at=AT).out
    assert not re.search(r"persons +(2024|2024-02) ", text)
    assert re.search(r"persons +2024-02-29/2024-03-31 ", text)


def test_conditions_choose_cells(cli: Cli) -> None:
    published = stats(cli, "months", "operations", "--where", f"operation={OPERATION}", "--where", "side=HR")
    now = {cell: n for cell, n in tallies_at(END).items() if cell[0] == "HR" and cell[1] == OPERATION}
    assert {"HR"} == {row["side"] for table in published["tables"] for row in table["rows"]}
    for table in published["tables"]:
        assert sum(row["count"] for row in table["rows"])
        for row in table["rows"]:
            assert expected(row, now, {}) == row["count"]


def test_no_sum_has_two_measures(cli: Cli) -> None:
    for table in stats(cli)["tables"]:
        for row in table["rows"]:
            assert row["measure"] in given.MEASURES
            assert row["unit"]


# --- formats ---


ARGS: Final = ("--as-of", LEAP_EVENING, "--min-cell", "5")


def test_csv_has_the_rows_of_json_with_position_and_digest(cli: Cli) -> None:
    published = stats(cli, *ARGS)
    found = cli("stats", *ARGS, "--format", "csv", at=AT).csv
    plain = [{"table": table["table"]} | row for table in published["tables"] for row in table["rows"]]
    assert len(plain) == len(found) > 50
    for row, line in zip(plain, found, strict=True):
        status = "suppressed" if row.pop("suppressed", False) else "missing" if row.pop("missing", False) else ""
        known = published["known_then"] if row["known"] == "then" else published
        position = ",".join(f"{side}:{at}" for side, at in known["position"].items())
        as_text = {name: "" if value is None else str(value) for name, value in row.items()}
        assert line == as_text | {
            "status": status,
            "min_cell": "5",
            "position": position if row["side"] == "_T" else known["position"][row["side"]],
            "digest": known["digest"],
            "fold_version": "1",
        }
    assert {"", "suppressed"} == {line["status"] for line in found}


def test_sdmx_csv_has_the_observations_of_json(cli: Cli) -> None:
    published = stats(cli, *ARGS)
    found = cli("stats", *ARGS, "--format", "sdmx-csv", at=AT).csv
    assert [
        "STRUCTURE", "STRUCTURE_ID", "ACTION", "REF_AREA", "MEASURE", "OPERATION", "CITIZENSHIP", "ORIGIN", "KNOWN",
        "TIME_PERIOD", "OBS_VALUE", "UNIT_MEASURE", "OBS_STATUS", "CONF_STATUS", "MIN_CELL", "POSITION", "DIGEST",
        "FOLD_VERSION",
    ] == list(found[0])  # fmt: skip
    plain = [(table["table"], row) for table in published["tables"] for row in table["rows"]]
    keys = set()
    for (table, row), line in zip(plain, found, strict=True):
        assert ("dataflow", "I") == (line["STRUCTURE"], line["ACTION"])
        assert re.fullmatch(r"FIELDTALLY:[A-Z_]+\(1\.0\)", line["STRUCTURE_ID"])
        assert line["STRUCTURE_ID"].partition(":")[2] == f"{table.upper().replace('-', '_')}(1.0)"
        dimensions = (
            row["side"], row["measure"].upper(), row["operation"] or "_Z", row["citizenship"] or "_U",
            row["origin"].upper() or "_U", row["known"].upper(),
        )  # fmt: skip
        assert dimensions == tuple(line[name] for name in list(line)[3:9])
        assert row["period"] == days_of(line["TIME_PERIOD"])
        hidden = row.get("suppressed", False)
        assert ("" if hidden else str(row["count"])) == line["OBS_VALUE"]
        assert (("Q", "C") if hidden else ("A", "F")) == (line["OBS_STATUS"], line["CONF_STATUS"])
        keys.add((line["STRUCTURE_ID"], *dimensions, line["TIME_PERIOD"]))
    assert len(keys) == len(found)


def test_what_was_not_known_then_is_missing_in_every_format(cli: Cli) -> None:
    args = ("stats", "year-to-date", "--as-of", "2023-01-10T13:00:00Z", "--min-cell", "5")
    plain = rows(cli(*args, "--format", "json", at=AT).json, "year-to-date")
    unknown = [row for row in plain if row["known"] == "then"]
    assert unknown
    assert all(row["count"] is None and row["missing"] and "suppressed" not in row for row in unknown)
    of_csv = [line for line in cli(*args, "--format", "csv", at=AT).csv if line["known"] == "then"]
    assert {("", "missing")} == {(line["count"], line["status"]) for line in of_csv}
    of_sdmx = [line for line in cli(*args, "--format", "sdmx-csv", at=AT).csv if line["KNOWN"] == "THEN"]
    assert {("", "O", "F")} == {(line["OBS_VALUE"], line["OBS_STATUS"], line["CONF_STATUS"]) for line in of_sdmx}
    assert len(unknown) == len(of_csv) == len(of_sdmx)
    text = cli(*args, at=AT).out
    assert len(unknown) == len(re.findall(r" – ", text))
    assert "– not known: the log of a side had not begun then" in text


def days_of(time_period: str) -> str:
    """Read a time range of SDMX, which is a first day and a number of days."""
    first, stroke, length = time_period.partition("/")
    if not stroke:
        return time_period
    days = re.fullmatch(r"P([0-9]+)D", length)
    assert days
    return f"{first}/{date.fromisoformat(first) + timedelta(days=int(days[1]) - 1)}"


def as_shown(published: Any, table: str) -> list[list[Any]]:
    """Return the figures of a table's rows, as people are to see them."""
    width = 3  # two sides and their total, or two years and what was known then
    found = [
        ("·" if row.get("suppressed") else "–" if row.get("missing") else row["count"])
        for row in rows(published, table)
    ]
    shown = [list(found[at : at + width]) for at in range(0, len(found), width)]
    if table == "year-to-date":
        for row in shown:
            row.append("·" if "·" in row[:2] else row[0] - row[1])
    return shown


def numbers(cells: Sequence[str]) -> list[Any]:
    return [cell if cell in "·–" else int(cell.replace(",", "")) for cell in cells]


def test_a_workbook_has_numbers_and_where_they_are_true(cli: Cli, tmp_path: Path) -> None:
    published = stats(cli, *ARGS)
    out = tmp_path / "statistics.xlsx"
    outcome = cli("stats", *ARGS, "--format", "xlsx", "--out", str(out), at=AT)
    assert (0, "") == (outcome.code, outcome.out)
    assert f"wrote {out}" in outcome.err
    book = openpyxl.load_workbook(out)
    assert [*TABLES, "provenance"] == book.sheetnames
    for table in published["tables"]:
        lines = list(book[table["table"]].values)
        assert table["title"] == lines[0][0]
        labels = {"operations": 2}.get(table["table"], 3)
        shown = as_shown(published, table["table"])
        assert shown == [list(line[labels : labels + len(shown[0])]) for line in lines[3 : 3 + len(shown)]]
        assert any(line[0] and str(line[0]).startswith("· hidden: ") for line in lines[3 + len(shown) :])
    said = dict(book["provenance"].values)
    assert published["digest"] == said["digest"]
    assert published["known_then"]["digest"] == said["known then: digest"]
    assert ", ".join(f"{side} {at}" for side, at in published["position"].items()) == said["position"]
    assert ("1", "5") == (said["fold version"], said["min-cell"])
    first = out.read_bytes()
    cli("stats", *ARGS, "--format", "xlsx", "--out", str(out), at=AT)
    assert first == out.read_bytes()


def test_a_markdown_table_has_every_row(cli: Cli) -> None:
    published = stats(cli, *ARGS)
    text = cli("stats", *ARGS, "--format", "markdown", at=AT).out
    parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    for table, part in zip(published["tables"], parts, strict=True):
        assert part.startswith(table["title"].replace("_", r"\_"))
        lines = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("|")]
        shown = as_shown(published, table["table"])
        assert shown == [numbers(line[-len(shown[0]) :]) for line in lines[2:]]
        assert {len(lines[0])} == {len(line) for line in lines}
        assert "\n· hidden: " in part
    assert f"- digest: {published['digest']}" in text
    assert "- fold version: 1" in text


BALANCES: Final = [
    f"includes an opening balance of {side} for 2022-01-01 to 2022-12-31, which counts whole on its last day"
    for side in ("HR", "SI")
]


def test_a_month_that_has_the_whole_of_an_opening_balance_says_so(cli: Cli) -> None:
    notes = {table["table"]: table["notes"] for table in stats(cli)["tables"]}
    assert BALANCES == notes["months"]
    assert [] == notes["smuggling"]  # by years
    cut = {
        table["table"]: table["notes"] for table in stats(cli, "--from", "2022-03-01", "--to", "2022-12-31")["tables"]
    }
    assert BALANCES == cut["operations"] == cut["smuggling"]
    for written in ("table", "markdown"):
        assert BALANCES[0] in cli("stats", "months", "--format", written, at=AT).out
    assert f"months: {BALANCES[0]}" in cli("stats", "months", "--format", "csv", at=AT).err
    assert BALANCES[0] in cli("replay", "--from", "2022-03-01", at=AT).err
    assert "opening balance" not in cli("replay", at=AT).err


def test_a_table_has_every_row(cli: Cli) -> None:
    published = stats(cli, *ARGS)
    text = cli("stats", *ARGS, at=AT).out
    parts = text.split("\n\n")
    for table, part in zip(published["tables"], parts[:-1], strict=True):
        lines = part.splitlines()
        assert table["title"] == lines[0]
        shown = as_shown(published, table["table"])
        found = [re.split(r" {2,}", line)[-len(shown[0]) :] for line in lines[2 : 2 + len(shown)]]
        assert shown == [numbers(line) for line in found]
        assert lines[2 + len(shown)].startswith("· hidden: ")
    assert f"digest: {published['digest']}" in parts[-1]
    position = ", ".join(f"{side} {at}" for side, at in published["position"].items())
    assert f"position: {position}" in parts[-1]


def test_hidden_figures_are_null_and_their_numbers_are_nowhere(cli: Cli) -> None:
    published = stats(cli, *ARGS)
    whole = stats(cli, *ARGS[:2])
    assert (None, 5) == (whole["min_cell"], published["min_cell"])
    for table, shown in zip(whole["tables"], published["tables"], strict=True):
        pairs = list(zip(table["rows"], shown["rows"], strict=True))
        assert [(row | {"count": 0}) == ({**safe, "count": 0}) or safe.pop("suppressed") for row, safe in pairs]
        hidden = [row["count"] for row, safe in pairs if safe["count"] is None]
        assert len(hidden) == shown["hidden"]["figures"] > 0
        assert all(safe["count"] is None for row, safe in pairs if 0 < row["count"] < 5)
        assert all(safe["count"] in (None, row["count"]) for row, safe in pairs)
        assert all(safe["count"] == 0 for row, safe in pairs if row["count"] == 0)
        if shown["hidden"]["small"] is not None:
            small = sum(0 < count < 5 for count in hidden)
            assert (small, len(hidden) - small) == (shown["hidden"]["small"], shown["hidden"]["others"])


def test_the_publisher_is_told_how_many_are_hidden(cli: Cli) -> None:
    outcome = cli("stats", "months", *ARGS, at=AT)
    assert re.fullmatch(
        rf"hidden: \d+ figures? from 1 to 4, and \d+ more with them\. {ONE_CALL} the hidden ones away\.\n", outcome.err
    )


def test_every_format_says_that_hiding_holds_for_one_call_and_only_where_something_is_hidden(
    cli: Cli, tmp_path: Path
) -> None:
    for output_format in ("table", "markdown", "json"):
        out = cli("stats", *ARGS, "--format", output_format, at=AT).out
        assert out.count(ONE_CALL) == len(TABLES), output_format
        assert ONE_CALL not in cli("stats", *ARGS[:2], "--format", output_format, at=AT).out
    for output_format in ("csv", "sdmx-csv"):
        outcome = cli("stats", *ARGS, "--format", output_format, at=AT)
        assert ONE_CALL in outcome.err
        assert (len(set(map(len, csv.reader(io.StringIO(outcome.out))))), ONE_CALL in outcome.out) == (1, False)
    for args, sheets in ((ARGS, [*TABLES, "provenance"]), (ARGS[:2], [])):
        out = tmp_path / "statistics.xlsx"
        cli("stats", *args, "--format", "xlsx", "--out", str(out), at=AT)
        book = openpyxl.load_workbook(out)
        assert sheets == [
            sheet.title for sheet in book if any(ONE_CALL in str(cell) for row in sheet.values for cell in row)
        ]


@pytest.mark.parametrize("output_format", ["table", "markdown", "csv", "json", "sdmx-csv"])
def test_a_file_holds_what_would_be_printed(cli: Cli, tmp_path: Path, output_format: str) -> None:
    out = tmp_path / "tables"
    printed = cli("stats", "--format", output_format, at=AT).out
    out.write_text("of yesterday")
    out.chmod(0o640)
    assert (0, "") == cli("stats", "--format", output_format, "--out", str(out), at=AT)[:2]
    assert printed == out.read_bytes().decode()
    assert ["tables"] == [path.name for path in tmp_path.iterdir()]
    assert 0o600 & out.stat().st_mode


def test_an_empty_log_says_so(cli: Cli, tmp_path: Path) -> None:
    text = cli("stats", "--min-cell", "5").out
    assert 4 == text.count(": nothing\n")
    assert 4 == cli("stats", "--format", "markdown").out.count("\nnothing\n")
    assert [[], [], [], []] == [table["rows"] for table in cli("stats", "--format", "json").json["tables"]]
    for output_format in ("csv", "sdmx-csv"):
        (heading,) = csv.reader(io.StringIO(cli("stats", "--format", output_format).out))
        assert len(heading) > 10
    out = tmp_path / "empty.xlsx"
    assert 0 == cli("stats", "--format", "xlsx", "--out", str(out)).code
    assert "nothing" in [line[0] for line in openpyxl.load_workbook(out)["months"].values]


def test_tables_come_once_and_in_the_order_asked_for(cli: Cli) -> None:
    published = stats(cli, "smuggling", "months", "smuggling")
    assert ["smuggling", "months"] == [table["table"] for table in published["tables"]]
    assert "known_then" not in published


def test_a_trimmed_log_has_the_same_tables(
    cli: Cli, client: redis.Redis, server_url: str, prefix: str, tmp_path: Path
) -> None:
    """They come from archive and stream as one log, also as known one year before."""
    for side, entries in log().entries.items():
        for position, fields in entries:
            client.xadd(f"{{{prefix}:{side}}}:log", fields, id=position)
    bring_up(server_url, prefix)
    kept = {"DATA_DIR": str(tmp_path)}
    before = [cli("stats", *args, "--format", "json", **kept).json for args in ((), ARGS)]
    assert 0 == cli("archive", **kept).code
    trimmed = cli("archive", "trim", "--older-than", "36h", "--format", "json", **kept)
    assert 0 == trimmed.code, trimmed.err
    assert {0} == {client.xlen(f"{{{prefix}:{side}}}:log") for side in ZONES}
    assert before == [cli("stats", *args, "--format", "json", **kept).json for args in ((), ARGS)]


# --- hurried typing ---


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["month"], ["'month' is not one of 'months', 'year-to-date', 'operations', 'smuggling'"]),
        (["months", "year to date"], ["'year to date'", "'year-to-date'"]),
        (["MONTHS"], ["'MONTHS'", "'months'"]),
        (["--format", "xls"], ["'--format': 'xls'", "'sdmx-csv', 'xlsx'"]),
        (["--format", "ndjson"], ["'--format': 'ndjson'"]),
        (["--format", "xlsx"], ["--format xlsx", "--out FILE"]),
        (["--min-cell", "0"], ["'--min-cell': 0 is not in the range x>=3"]),
        (["--min-cell", "-5"], ["'--min-cell': -5", "x>=3"]),
        (["--min-cell", "2"], ["'--min-cell': 2", "x>=3"]),
        (["--min-cell", "five"], ["'--min-cell': 'five' is not a valid whole number"]),
        (["--min-cell", "5.5"], ["'--min-cell': '5.5'"]),
        (["--min-cell"], ["'--min-cell' requires an argument"]),
        (["--out", ""], ["'--out': '' is no name of a file"]),
        (["--out", "/nowhere/at/all.csv"], ["--out '/nowhere/at/all.csv'", "No such file or directory"]),
        (["--out", "/"], ["--out '/'", "Is a directory"]),
        (["--out", "/dev/null/x"], ["--out '/dev/null/x'", "Not a directory"]),
        (["--by", "side"], ["No such option '--by'"]),
        (["--where", "measure=people"], ["--where measure=people", "apprehensions, persons"]),
        (["--where", "side"], ["--where 'side': write DIM=VALUE"]),
        (["--where", "month=2024-03"], ["--where month=…", "of two years", "--from and --to"]),
        (["year-to-date", "--where", "year=2024"], ["--where year=…", "of two years"]),
        (["--from", "2024-13-01"], ["--from '2024-13-01'", "a date such as"]),
        (["--from", "2024-03-15", "--to", "2024-03-14"], ["--from 2024-03-15 lies after --to 2024-03-14"]),
        (["year-to-date", "--from", "2031-01-01"], ["year-to-date", "begin on 2031-01-01", "--from and --to"]),
        (
            ["--from", "2024-03-01"],
            ["year-to-date", "from 2024-03-01 to 2025-01-01", "one year", "name the other tables"],
        ),
        (
            ["year-to-date", "--from", "2023-06-01", "--to", "2024-03-01"],
            ["more than one year's days", "--from and --to"],
        ),
        (["--to", "0001-01-01"], ["year-to-date", "no year comes before the year 1"]),
        (["--as-of", "yesterday"], ["--as-of 'yesterday'", "a time with an offset"]),
    ],
)
def test_what_is_typed_wrong_is_named(cli: Cli, args: list[str], said: list[str]) -> None:
    assert_refused(cli("stats", *args, at=AT), 2, *said)


@pytest.mark.parametrize("text", ["18446744073709551615-0", "9999-12-31T23:59:59Z"])
def test_a_moment_in_no_calendar_is_named(cli: Cli, text: str) -> None:
    outcome = cli("stats", "--as-of", text, at=AT)
    assert (2, "") == (outcome.code, outcome.out)
    assert f"--as-of {text} has not come yet: SI, HR as the log stands now" in outcome.err
    assert "--as-of: no calendar goes that far" in outcome.err.splitlines()[-1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_closed_is_named(cli: Cli, tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert_refused(cli("stats", "--out", str(tmp_path / "x"), at=AT), 2, "--out", "Permission denied")


def test_a_file_is_left_as_it_was_when_something_fails(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "tables.json"
    out.write_text("of yesterday")
    args = ("stats", "--format", "json", "--out", str(out))
    assert 3 == cli(*args, at=AT, url="redis://127.0.0.1:1").code
    assert 2 == cli(*args, "--from", "2031-01-01", at=AT).code
    assert ("of yesterday", ["tables.json"]) == (out.read_text(), [path.name for path in tmp_path.iterdir()])


def test_what_is_no_file_is_written_to_as_it_is(cli: Cli) -> None:
    assert 0 == cli("stats", "--format", "json", "--out", "/dev/null", at=AT).code
    assert not Path("/dev/null").is_file()


def test_a_link_stays_a_link(cli: Cli, tmp_path: Path) -> None:
    link, file = tmp_path / "link", tmp_path / "file"
    link.symlink_to(file)
    assert 0 == cli("stats", "months", "--format", "json", "--out", str(link), at=AT).code
    assert link.is_symlink()
    assert "months" == json.loads(file.read_text())["tables"][0]["table"]
