"""`sql` answers questions to the log, and nothing that is asked can read or write anything else."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.archive.views import VIEWS
from services.cli.sql import ROWS, TABLE_ROWS
from tests import given
from tests.services.cli.conftest import PROGRAM, ROOT, Cli, assert_refused, environ, told
from tests.waiting import wait_for

AT = "cli-sql"


@pytest.fixture(scope="module", autouse=True)
def _log(server_url: str) -> Iterator[None]:
    events = {
        "SI": [given.apprehension(id=1, persons={"SYR": 4}), given.apprehension(id=2), given.apprehension(amends=1)],
        "HR": [given.custody(id=3, side="HR")],
    }
    with told(server_url, AT, events, projected=False):
        yield


def test_a_question_is_answered_and_says_as_of_when(cli: Cli) -> None:
    outcome = cli("sql", "SELECT side, outcome, count(*) AS n FROM outcomes GROUP BY ALL ORDER BY ALL", at=AT)
    assert 0 == outcome.code
    assert [
        ["side", "outcome", "n"],
        ["HR", "applied", "1"],
        ["SI", "applied", "2"],
        ["SI", "replaced", "1"],
    ] == outcome.table
    assert outcome.err.startswith("as of SI ")


def test_every_format_has_the_same_rows(cli: Cli) -> None:
    query = "SELECT type, counts, time, revision FROM effective WHERE type = 'apprehension' ORDER BY revision, type"
    rows = cli("sql", query, "--format", "json", at=AT).json
    assert [
        {"type": "apprehension", "counts": [{"measure": "persons", "citizenship": "SYR", "count": 1}], "revision": 0}
    ] == [{name: value for name, value in row.items() if name != "time"} for row in rows][:1]
    assert "2024-03-14T03:12:09+00:00" == rows[0]["time"]
    assert rows == cli("sql", query, "--format", "ndjson", at=AT).ndjson
    [first, _] = cli("sql", query, "--format", "csv", at=AT).csv
    assert '[{"measure":"persons","citizenship":"SYR","count":1}]' == first["counts"]


def test_no_rows_are_no_error(cli: Cli) -> None:
    query = "SELECT side, reason FROM parked"
    assert [] == cli("sql", query, "--format", "json", at=AT).json
    outcome = cli("sql", query, at=AT)
    assert (0, "side  reason\n") == outcome[:2]
    assert outcome.err.startswith("no rows\n")


def test_numbers_stand_in_a_table_as_they_are(cli: Cli) -> None:
    """One may be a year or a position; whoever copies it gets what was there."""
    query = "SELECT 2024 AS year, ms FROM events WHERE side = 'SI' ORDER BY ms, seq LIMIT 1"
    [row] = cli("sql", query, "--format", "json", at=AT).json
    assert ["2024", str(row["ms"])] == cli("sql", query, at=AT).table[1]


@pytest.mark.parametrize("rows", [TABLE_ROWS - 1, TABLE_ROWS, TABLE_ROWS + 1, 3 * ROWS])
def test_a_table_of_any_length_has_every_row_in_columns(cli: Cli, rows: int) -> None:
    query = f"SELECT range AS n, repeat('x', 1 + range % 7) AS text, -range AS less FROM range({rows})"  # noqa: S608  # a number
    outcome = cli("sql", query, at=AT)
    expected = [[str(n), "x" * (1 + n % 7), str(-n)] for n in range(rows)]
    assert [["n", "text", "less"], *expected] == outcome.table
    starts = {line.index("x") for line in outcome.out.splitlines()[2:TABLE_ROWS]}
    assert 1 == len(starts)


def test_a_plan_stands_as_it_is_drawn(cli: Cli) -> None:
    out = cli("sql", "EXPLAIN SELECT * FROM tallies", at=AT).out
    assert "\ufffd" not in out
    assert 5 < len(out.splitlines())


def test_columns_of_one_name_are_told_apart(cli: Cli) -> None:
    assert [{"a": 1, "a_2": 2}] == cli("sql", "SELECT 1 AS a, 2 AS a", "--format", "json", at=AT).json
    query = "SELECT 1 AS a, 2 AS a, 3 AS a_2"
    assert [{"a": 1, "a_3": 2, "a_2": 3}] == cli("sql", query, "--format", "json", at=AT).json


@pytest.mark.parametrize("output_format", ["table", "csv", "json"])
def test_a_decimal_keeps_its_digits(cli: Cli, output_format: str) -> None:
    query = "SELECT 12345678901234567890.123456789::DECIMAL(38, 9) AS a"
    assert "12345678901234567890.123456789" in cli("sql", query, "--format", output_format, at=AT).out


def test_the_past_can_be_asked(cli: Cli) -> None:
    first = cli("sql", "SELECT min(position) AS at FROM events WHERE side = 'SI'", "--format", "json", at=AT).json[0][
        "at"
    ]
    query = "SELECT side, count FROM tallies WHERE measure = 'persons'"
    outcome = cli("sql", query, "--as-of", first, "--format", "json", at=AT)
    assert f"as of SI {first}, HR " in outcome.err
    before = cli("sql", query, "--as-of", "2001-01-01T00:00:00Z", "--format", "json", at=AT)
    assert ([], "as of SI 0-0, HR 0-0\n") == (before.json, before.err)
    assert [{"side": "SI", "count": 4}] == cli("sql", query, "--as-of", first, "--format", "json", at=AT).json
    assert_refused(cli("sql", query, "--as-of", "noon", at=AT), 2, "--as-of 'noon'")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT * FROM read_csv('/etc/passwd')", "disabled by configuration"),
        ("SELECT * FROM read_text('/etc/passwd')", "disabled by configuration"),
        ("SELECT * FROM read_parquet('https://example.com/x.parquet')", "disabled by configuration"),
        ("SELECT * FROM '/etc/passwd'", "does not exist"),
        ("SELECT * FROM glob('/etc/*')", "disabled by configuration"),
        ("SELECT * FROM sniff_csv('/etc/passwd')", "disabled by configuration"),
        ("COPY (SELECT 1) TO '{folder}/x.csv'", "COPY is refused"),
        ("EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/x.csv'", "disabled by configuration"),
        ("EXPORT DATABASE '{folder}'", "EXPORT is refused"),
        ("ATTACH '{folder}/x.db'", "ATTACH is refused"),
        ("INSTALL httpfs", "is refused"),
        ("LOAD '{folder}/x'", "LOAD is refused"),
        ("SET enable_external_access = true", "SET is refused"),
        ("RESET lock_configuration", "is refused"),
        ("PRAGMA enable_profiling", "PRAGMA is refused"),
        ("CALL pragma_version()", "CALL is refused"),
        ("CREATE TABLE x AS SELECT 1", "CREATE is refused"),
        ("DROP VIEW tallies", "DROP is refused"),
        ("DELETE FROM internal.rest_SI", "DELETE is refused"),
        ("INSERT INTO internal.rest_SI FROM internal.rest_HR", "INSERT is refused"),
        ("UPDATE internal.rest_SI SET seq = 0", "UPDATE is refused"),
        ("WITH gone AS (DELETE FROM internal.rest_SI RETURNING *) FROM gone", "read-only"),
        ("EXPLAIN ANALYZE DELETE FROM internal.rest_SI", "read-only"),
        ("SELECT 1; SELECT 2", "one query at a time, these are 2"),
        ("", "sql: there is no query; `fieldtally sql --schema`"),
        (" ; -- nothing", "sql: there is no query; `fieldtally sql --schema`"),
        ("SELECT * FROM given", "given does not exist"),
    ],
)
def test_nothing_else_can_be_read_or_written(cli: Cli, tmp_path: Path, query: str, said: str) -> None:
    given_here = [{"secret": 1}]  # no variable of the program is a table
    assert given_here
    assert_refused(cli("sql", query.replace("{folder}", str(tmp_path)), at=AT), 2, said)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELEC 1", "at ^SELEC"),
        ("SELECT nothing\nFROM events", "at ^nothing"),
        ('SELECT * FROM tallies WHERE side = "SI"', "; text stands in single quotes: 'SI'; "),
        ("SELECT * FROM tallies WHERE side = SI", "; text stands in single quotes: 'SI'; "),
        ("SELECT * FROM evnts", 'Did you mean "events"'),
        ("SELECT 'x'::INT", "Could not convert"),
        ("SELECT error('x')", "x"),
    ],
)
def test_an_error_is_one_line_that_marks_the_place_and_says_where_the_tables_are(
    cli: Cli, query: str, said: str
) -> None:
    assert_refused(cli("sql", query, at=AT), 2, said, "`fieldtally sql --schema`")


@pytest.mark.parametrize("query", ["{}", "SELECT * FROM ({})", "EXPLAIN {}"])
def test_a_pivot_is_taken_with_its_values_and_refused_in_words_without(cli: Cli, query: str) -> None:
    pivot = "PIVOT tallies ON side USING sum(count) GROUP BY measure"
    refused = cli("sql", query.format(pivot), at=AT)
    assert_refused(refused, 2, "PIVOT without its values is refused")
    advised = refused.err.strip().rpartition("such as ")[2]
    assert advised == pivot.replace("side", "side IN ('SI', 'HR')")
    assert 0 == cli("sql", query.format(advised), at=AT).code
    rows = cli("sql", advised, "--format", "json", at=AT).json
    assert {"measure": "remanded", "SI": None, "HR": 1} in rows


@pytest.mark.parametrize("name", ["duckdb_secrets()", "duckdb_extensions()", "which_secret('s3://x', 's3')"])
def test_no_folder_of_this_machine_is_named(cli: Cli, name: str) -> None:
    outcome = cli("sql", f"SELECT * FROM {name}", at=AT)  # noqa: S608  # names of ours
    assert str(Path.home()) not in outcome.out + outcome.err
    assert outcome.code in (0, 2)


def test_the_tables_can_be_printed(cli: Cli) -> None:
    rows = cli("sql", "--schema", "--format", "json", at=AT).json
    assert {view.name for view in VIEWS} == {row["table"] for row in rows}
    assert "tallies: The cells" in cli("sql", "--schema", at=AT).out
    assert_refused(cli("sql", at=AT), 2, "there is no query")


def test_ctrl_c_ends_a_query(server_url: str) -> None:
    query = "SELECT sum(a.range * b.range) FROM range(10_000_000) a, range(10_000_000) b"
    with subprocess.Popen(
        [*PROGRAM, "sql", query], cwd=ROOT, env=environ(server_url, AT), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            # Opening takes a part of this; the query goes on for ever.
            wait_for(lambda: _cpu_s(process.pid) > 1.5, within_s=60, what="the query to run")
            process.send_signal(signal.SIGINT)
            out, said = process.communicate(timeout=30)
            assert (b"", 130) == (out, process.returncode)
            assert said == b"interrupted: nothing was changed; run it again for the whole\n"
        finally:
            process.kill()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
