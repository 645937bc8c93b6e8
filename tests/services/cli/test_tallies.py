"""`tallies` and `replay` show the sums that were asked for: held to an addition in this test, in all four formats."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests import given
from tests.given import OPERATION
from tests.services.cli.conftest import Cli, Outcome, assert_refused, told

AT = "cli-tallies"
ONCE_MORE = {"id": 9, "reportno": 9}

EVENTS = {
    "SI": [
        given.operation_opened(id=50, sections={"koper": "joint", "novo-mesto": "remaining"}),
        # Half past midnight of the 14th in Ljubljana.
        given.apprehension(
            id=1, time="2024-03-13T23:30:00Z", subject=OPERATION, section="koper", persons={"SYR": 1_204, "SVN": 1}
        ),
        given.apprehension(
            id=2, time="2024-03-14T10:00:00Z", subject=OPERATION, section="novo-mesto", persons={"AFG": 2}
        ),
        given.apprehension(id=3, time="2024-02-29T12:00:00Z", section="koper", persons={"SYR": 7}),
        given.smuggler_arrest(
            id=4, time="2024-03-15T08:00:00Z", subject=OPERATION, section="koper", smugglers={"UKR": 1, "HRV": 2},
            smuggled_persons={"SYR": 3},
        ),
        given.custody(id=5, time="2024-03-16T08:00:00Z", subject=OPERATION, remanded={"UKR": 1}),
        given.opening_balance(
            id=6,
            totals=[{"measure": "smuggling_cases", "count": 479},
                    {"measure": "smugglers", "count": 9, "citizenship": "SVN"}],
        ),
        # Withdrawn: nothing of it is left.
        given.apprehension(id=7, time="2024-03-14T10:00:00Z", section="ljubljana", persons={"MAR": 5}),
        given.withdrawal(amends=7),
    ],
    "HR": [
        given.operation_opened(side="HR", id=60, sections={"joint-sections": "joint"}),
        # Half past midnight of New Year in Zagreb.
        given.apprehension(
            side="HR", id=11, time="2024-12-31T23:30:00Z", subject=OPERATION, section="joint-sections",
            persons={"HRV": 1, "SYR": 2},
        ),
        given.nil_report(side="HR", id=12, time="2024-03-14T05:00:00Z", subject=OPERATION, section="elsewhere"),
    ],
}  # fmt: skip

CELL = ("side", "operation", "section", "coverage", "day", "measure", "citizenship", "origin")
FACTS: list[tuple[str, str, str, str, str, str, str, str, int]] = [
    ("SI", OPERATION, "koper", "joint", "2024-03-14", "apprehensions", "", "", 1),
    ("SI", OPERATION, "koper", "joint", "2024-03-14", "persons", "SYR", "foreign", 1_204),
    ("SI", OPERATION, "koper", "joint", "2024-03-14", "persons", "SVN", "domestic", 1),
    ("SI", OPERATION, "novo-mesto", "remaining", "2024-03-14", "apprehensions", "", "", 1),
    ("SI", OPERATION, "novo-mesto", "remaining", "2024-03-14", "persons", "AFG", "foreign", 2),
    ("SI", "", "koper", "", "2024-02-29", "apprehensions", "", "", 1),
    ("SI", "", "koper", "", "2024-02-29", "persons", "SYR", "foreign", 7),
    ("SI", OPERATION, "koper", "joint", "2024-03-15", "smuggling_cases", "", "", 1),
    ("SI", OPERATION, "koper", "joint", "2024-03-15", "smugglers", "UKR", "foreign", 1),
    ("SI", OPERATION, "koper", "joint", "2024-03-15", "smugglers", "HRV", "foreign", 2),
    ("SI", OPERATION, "koper", "joint", "2024-03-15", "smuggled_persons", "SYR", "foreign", 3),
    ("SI", OPERATION, "", "", "2024-03-16", "remanded", "UKR", "foreign", 1),
    ("SI", "", "", "", "2023-12-31", "smuggling_cases", "", "", 479),
    ("SI", "", "", "", "2023-12-31", "smugglers", "SVN", "domestic", 9),
    ("HR", OPERATION, "joint-sections", "joint", "2025-01-01", "apprehensions", "", "", 1),
    ("HR", OPERATION, "joint-sections", "joint", "2025-01-01", "persons", "HRV", "domestic", 1),
    ("HR", OPERATION, "joint-sections", "joint", "2025-01-01", "persons", "SYR", "foreign", 2),
    ("HR", OPERATION, "elsewhere", "", "2024-03-14", "nil_reports", "", "", 1),
]

PERSONS = ["--where", "measure=persons"]
SELECTIONS = [
    [],
    ["--by", "measure"],
    ["--by", "side", *PERSONS],
    ["--by", "operation", *PERSONS],
    ["--by", "section", *PERSONS],
    ["--by", "coverage", *PERSONS],
    ["--by", "day", *PERSONS],
    ["--by", "month", *PERSONS],
    ["--by", "year", *PERSONS],
    ["--by", "citizenship", *PERSONS],
    ["--by", "origin", *PERSONS],
    ["--by", "year,month,day,measure"],
    ["--by", "citizenship , side", *PERSONS],
    ["--by", "side,operation,section,coverage,day,month,year,measure,citizenship,origin"],
    ["--by", "measure,origin", "--where", "measure=smugglers", "--where", "measure=persons"],
    ["--by", "measure", "--where", "side=SI", "--where", "side=HR"],
    ["--by", "measure", "--where", "side=HR"],
    ["--by", "measure", "--where", f"operation={OPERATION}"],
    ["--by", "measure", "--where", "operation="],
    ["--by", "measure", "--where", "section="],
    ["--by", "measure", "--where", "section=koper", "--where", "operation="],
    ["--by", "measure", "--where", "coverage=remaining"],
    ["--by", "measure", "--where", "coverage="],
    ["--by", "measure", "--where", "citizenship=SYR", "--where", "citizenship=UKR"],
    ["--by", "measure", "--where", "citizenship="],
    ["--by", "measure,side", "--where", "origin=domestic"],
    ["--by", "measure", "--where", "origin="],
    ["--by", "measure", "--where", "day=2024-03-14"],
    ["--by", "measure", "--where", "month=2024-03"],
    ["--by", "measure", "--where", "year=2024"],
    ["--by", "measure", "--from", "2024-03-14", "--to", "2024-03-15"],
    ["--by", "measure", "--from", "2024-03-15"],
    ["--by", "measure", "--to", "2024-02-29"],
    ["--by", "measure", "--from", "2024-03-14", "--to", "2024-03-14", "--where", "year=2024"],
    ["--by", "side", *PERSONS, "--where", "measure=persons"],
    ["--by", "side", *PERSONS, "--where", "operation=SI-HR-1999-01"],
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _log(server_url: str) -> Iterator[None]:
    with told(server_url, AT, EVENTS):
        yield


def added_up(args: Sequence[str]) -> list[dict[str, Any]]:
    """Select and add, by hand and in no particular order."""
    options: dict[str, list[str]] = {"--by": ["side,operation,measure"]}
    for option, value in zip(args[::2], args[1::2], strict=True):
        options[option] = [*(options.get(option, []) if option == "--where" else []), value]
    by = [name.strip() for name in options["--by"][0].split(",")]
    wanted: dict[str, set[str]] = {}
    for condition in options.get("--where", []):
        name, _, value = condition.partition("=")
        wanted.setdefault(name, set()).add(value)
    sums: dict[tuple[str, ...], int] = {}
    for fact in FACTS:
        values: dict[str, str] = dict(zip(CELL, [str(part) for part in fact[:-1]], strict=True))
        values |= {"month": values["day"][:7], "year": values["day"][:4]}
        if values["day"] < options.get("--from", ["0"])[0] or values["day"] > options.get("--to", ["9"])[0]:
            continue
        if all(values[name] in allowed for name, allowed in wanted.items()):
            row = tuple(values[name] for name in by)
            sums[row] = sums.get(row, 0) + fact[-1]
    return [dict(zip(by, row, strict=True)) | {"count": count} for row, count in sums.items()]


def unordered(rows: list[dict[str, Any]]) -> list[tuple[tuple[str, Any], ...]]:
    return sorted(tuple(row.items()) for row in rows)


@pytest.mark.parametrize("command", ["tallies", "replay"])
@pytest.mark.parametrize("selection", SELECTIONS, ids=" ".join)
def test_the_rows_are_the_sums_that_were_selected(cli: Cli, command: str, selection: list[str]) -> None:
    outcome = cli(command, *selection, "--format", "json", at=AT)
    assert 0 == outcome.code, outcome.err
    assert unordered(added_up(selection)) == unordered(outcome.json)


def test_the_hand_made_facts_are_the_whole_log(cli: Cli) -> None:
    cells = cli("tallies", "--by", "side,operation,section,day,measure,citizenship", "--format", "json", at=AT).json
    assert len(FACTS) == len(cells)


@pytest.mark.parametrize("command", ["tallies", "replay"])
def test_all_formats_hold_the_same_rows(cli: Cli, command: str) -> None:
    selection = ["--by", "day,citizenship,measure", "--where", "side=SI"]
    plain: list[dict[str, Any]] = cli(command, *selection, "--format", "json", at=AT).json
    as_text = [{name: str(value) for name, value in row.items()} for row in plain]
    assert any(row["count"] == 1_204 for row in plain)
    assert plain == cli(command, *selection, "--format", "ndjson", at=AT).ndjson
    assert as_text == cli(command, *selection, "--format", "csv", at=AT).csv
    shown = cli(command, *selection, at=AT).table
    assert ["day", "citizenship", "measure", "count"] == shown[1]
    assert [
        [part for part in (row["day"], row["citizenship"], row["measure"], f"{row['count']:,}") if part]
        for row in plain
    ] == shown[2:]


def test_measures_stand_in_the_order_of_the_handbook(cli: Cli) -> None:
    rows = cli("tallies", "--by", "measure", "--format", "csv", at=AT).csv
    assert [
        "apprehensions", "persons", "smuggling_cases", "smugglers", "smuggled_persons", "remanded", "nil_reports",
    ] == [row["measure"] for row in rows]  # fmt: skip


def test_a_table_is_aligned_with_numbers_to_the_right_and_no_blanks_at_the_end(cli: Cli) -> None:
    lines = cli("tallies", "--by", "section,measure", "--where", "side=SI", at=AT).out.splitlines()
    assert "live tallies" == lines[0]
    width = len(lines[1])
    for line in lines[1:]:
        assert width == len(line) == len(line.rstrip())
    assert "koper       persons           1,212" in lines


@pytest.mark.parametrize(("command", "what"), [("tallies", "live tallies"), ("replay", "rebuilt tallies")])
def test_positions_and_digest_go_to_stderr(cli: Cli, command: str, what: str) -> None:
    outcome = cli(command, "--format", "json", at=AT)
    assert re.fullmatch(rf"{what} as of SI \d+-\d+, HR \d+-\d+; digest [0-9a-f]{{64}}\n", outcome.err)


def test_live_and_rebuilt_tallies_have_the_same_digest(cli: Cli) -> None:
    def said(outcome: Outcome) -> str:
        return outcome.err.partition("as of ")[2]

    assert said(cli("tallies", at=AT)) == said(cli("replay", at=AT)) != ""


def test_nothing_is_an_empty_list_and_not_an_empty_page(cli: Cli) -> None:
    nobody = ["tallies", "--where", "operation=SI-HR-1999-01"]
    assert [] == cli(*nobody, "--format", "json", at=AT).json
    assert "" == cli(*nobody, "--format", "ndjson", at=AT).out
    assert "side,operation,measure,count\n" == cli(*nobody, "--format", "csv", at=AT).out
    assert "live tallies: nothing\n" == cli(*nobody, at=AT).out


def test_a_side_can_be_left_out_of_the_settings(cli: Cli) -> None:
    rows = cli("tallies", "--by", "side", *PERSONS, "--format", "json", at=AT, SIDES="HR:Europe/Zagreb:HRV").json
    assert [{"side": "HR", "count": 3}] == rows


def test_domestic_is_what_the_side_calls_its_own(cli: Cli) -> None:
    sides = "SI:Europe/Ljubljana:SYR,HR:Europe/Zagreb:HRV"
    rows = cli("tallies", "--by", "origin", *PERSONS, "--where", "side=SI", "--format", "json", at=AT, SIDES=sides).json
    assert [{"origin": "domestic", "count": 1_211}, {"origin": "foreign", "count": 3}] == rows


def test_dimensions_may_be_given_one_by_one(cli: Cli) -> None:
    together = cli("tallies", "--by", "measure,side", at=AT)
    assert (together.out, together.err) == cli("tallies", "--by", "measure", "--by", "side", at=AT)[1:]
    assert_refused(cli("tallies", "--by", "side", "--by", "side"), 2, "names a dimension twice")
