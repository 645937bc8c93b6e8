"""`sql`: questions to the log that no command answers, in SQL, for reading only."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import click
import duckdb
import msgspec
from msgspec.structs import replace

from schemas.vocabulary import Position, order
from services.archive.engine import Engine
from services.archive.views import VIEWS
from services.cli.command import ONLY_READ, command, run_async, settings
from services.cli.output import Figure, Format, RecordWriter, format_option, note, print_table, printable
from services.cli.second import second_engine
from services.cli.selectors import ENDS, AsOf, read_as_of
from services.cli.server import log_extents, note_absent, server_url
from services.runtime.errors import UsageError
from services.runtime.settings import Settings
from services.store.contract import LogExtent

ROWS: Final = 1_000
TABLE_ROWS: Final = 200
"""A table of more rows is not laid out as a whole: that would take longer than the query."""

_NEXT_STEP: Final = "`fieldtally sql --schema` prints the tables and their columns"


@command(
    "sql",
    "sql \"SELECT measure, sum(count) FROM tallies WHERE side = 'SI' GROUP BY measure\"",
    'sql "SELECT type, outcome, count(*) FROM outcomes GROUP BY ALL" --as-of 2024-03-14T12:00:00+01:00',
    "sql \"SELECT position, id FROM effective WHERE section = 'koper'\" --format csv",
    "sql --schema",
    stands=ONLY_READ,
)
@click.argument("query", required=False, metavar="SELECT…")
@click.option(
    "--as-of", "as_of", metavar="POSITION|TIME", help=f"Only what was recorded by this position or time. {ENDS}"
)
@click.option("--schema", "schema", is_flag=True, help="Print the tables and their columns, and end.")
@format_option()
def sql(*, query: str | None, as_of: str | None, schema: bool, output_format: Format) -> None:
    """Ask the log a question in SQL (DuckDB's).

    It reads the log as it stands, archive and stream, or stood at `--as-of`. Nothing can be written, and no file and no
    address be reached. The tables: events, outcomes, effective, tallies, plans, parked.
    """
    if schema:
        _print_schema(output_format)
        return
    if query is None:
        raise UsageError(f"sql: there is no query; {_NEXT_STEP}")
    chosen = settings()
    until = read_as_of(chosen, as_of)
    with server_url(chosen, reading=True) as url:
        extents = run_async(log_extents(replace(chosen, redis_url=url)))
        note_absent(chosen, extents)
        _ask(chosen, url, extents, until, query, output_format)


def _ask(chosen: Settings, url: str, extents: Any, until: AsOf, query: str, output_format: Format) -> None:
    stops = {side: _stop(extent, until.get(side)) for side, extent in extents.items()}
    with second_engine(chosen, url, stops, sum(extent.entries for extent in extents.values())) as engine:
        positions = {side: engine.end(side) for side in stops}
        _print(engine, query, output_format)
    note(f"as of {', '.join(f'{side} {position}' for side, position in positions.items())}")


def _stop(extent: LogExtent, until: Position | None) -> Position:
    return extent.last if until is None or order(extent.last) <= order(until) else until


def _print(engine: Engine, query: str, output_format: Format) -> None:
    try:
        result = run_query(engine, query)
        columns = _named_apart([column[0] for column in result.description])
        if output_format == "table":
            _print_table(engine, result, columns)
        elif output_format == "csv":
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(columns)
            while rows_read := engine.interruptible(lambda: result.fetchmany(ROWS)):
                writer.writerows([[_as_text(_plain(value)) for value in row] for row in rows_read])
        else:
            with RecordWriter(columns, output_format) as records:
                while rows_read := engine.interruptible(lambda: result.fetchmany(ROWS)):
                    for row in rows_read:
                        records.write(_shown(columns, row))
    except duckdb.Error as error:
        said = _one_line(str(error), query)
        raise UsageError(f"sql: {said}; {_quoting(said)}{_NEXT_STEP}") from error


def _print_table(engine: Engine, result: duckdb.DuckDBPyConnection, columns: Sequence[str]) -> None:
    """Print a table; a long one line by line as it comes, in columns as wide as the first rows need."""
    rows = [_in_table(columns, row) for row in engine.interruptible(lambda: result.fetchmany(TABLE_ROWS))]
    if columns == ["explain_key", "explain_value"]:
        for row in rows:
            print("\n".join(map(printable, row["explain_value"].splitlines())))
        return
    if not rows:
        print("  ".join(map(printable, columns)))
        note("no rows")
        return
    if len(rows) < TABLE_ROWS:
        print_table(rows, columns)
        return
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in columns}
    numbers = {name for name in columns if all(isinstance(row[name], Figure) for row in rows)}
    with RecordWriter(columns, "table", {n: -w if n in numbers else w for n, w in widths.items()}) as records:
        while rows:
            for row in rows:
                records.write(row)
            rows = [_in_table(columns, row) for row in engine.interruptible(lambda: result.fetchmany(ROWS))]


def run_query(engine: Engine, query: str) -> duckdb.DuckDBPyConnection:
    """Run one query that only reads; UsageError if it is anything else, duckdb.Error if it is wrong."""
    statements = engine.connection.extract_statements(query)
    if not statements:
        raise UsageError(f"sql: there is no query; {_NEXT_STEP}")
    if len(statements) > 1:
        raise UsageError(f"sql: one query at a time, these are {len(statements)}")
    if statements[0].type is duckdb.StatementType.MULTI:  # it makes a type of the values first
        raise UsageError(f"sql: {_PIVOT}")
    if statements[0].type not in _READING:
        raise UsageError(
            f"sql: {statements[0].type.name} is refused: only reading is possible, with SELECT, DESCRIBE or EXPLAIN"
        )
    # A SELECT may delete in its WITH, and EXPLAIN ANALYZE does what it explains.
    engine.interruptible(lambda: engine.connection.execute("BEGIN TRANSACTION READ ONLY"))
    return engine.interruptible(lambda: engine.connection.execute(statements[0]))


_PIVOT: Final = (
    "PIVOT without its values is refused, since it writes something down first: say which become columns, such as "
    "PIVOT tallies ON side IN ('SI', 'HR') USING sum(count) GROUP BY measure"
)
_READING: Final = frozenset({duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN})


def _quoting(said: str) -> str:
    """Return what to do about a column that is none, since it may have been meant as text; else the empty string."""
    found = _UNKNOWN_COLUMN.search(said)
    return f"text stands in single quotes: '{found[1]}'; " if found else ""


_UNKNOWN_COLUMN: Final = re.compile(r'Referenced column "([^"]+)" not found')


def _one_line(message: str, query: str) -> str:
    """Return DuckDB's message in one line, with the place in the query marked where it says one."""
    said, _, place = message.partition("\n\nLINE ")
    said = " ".join(said.split())
    lines = place.splitlines()
    if len(lines) < 2 or "^" not in lines[1]:
        return said
    line, caret = lines[0], lines[1].index("^") - len("LINE ")
    at = line[caret : caret + 20].split()
    return f"{said} — at ^{at[0]}" if at else f"{said} — at the end of the query" if query else said


def _named_apart(names: Sequence[str]) -> list[str]:
    """Return the columns' names; one that stands twice gets a number, since a row as JSON has each once."""
    apart: list[str] = []
    for name in names:
        one, number = name, 1
        while one in apart or (number > 1 and one in names):
            number += 1
            one = f"{name}_{number}"
        apart.append(one)
    return apart


def _shown(columns: Sequence[str], row: Sequence[Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in zip(columns, row, strict=True)}


def _plain(value: Any) -> Any:
    """Return a value of DuckDB as JSON has it: ids and times as text, bytes as text with what is none escaped."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case datetime() | date():
            return value.isoformat()
        case UUID():
            return str(value)
        case Decimal():
            return msgspec.Raw(format(value, "f").encode())  # a number with all its digits
        case bytes():
            return value.decode(errors="backslashreplace")
        case dict():
            return {str(_plain(key)): _plain(one) for key, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
    return str(value)


def _in_table(columns: Sequence[str], row: Sequence[Any]) -> dict[str, str]:
    """Return a row as it stands in a table: a number may be a year or a position, so nothing is put between digits."""
    return {name: _cell(value) for name, value in _shown(columns, row).items()}


def _cell(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return Figure(value)
    return str(_as_text(value))


def _as_text(value: Any) -> Any:
    """Return what stands in a table or in CSV; what has parts stands there as JSON."""
    if value is None:
        return ""
    return msgspec.json.encode(value).decode() if isinstance(value, dict | list | msgspec.Raw) else value


def _print_schema(output_format: Format) -> None:
    columns = ("table", "column", "type", "what")
    rows = [
        {"table": view.name, "column": column.name, "type": column.type, "what": column.about}
        for view in VIEWS
        for column in view.columns
    ]
    if output_format == "table":
        for view in VIEWS:
            print(f"{view.name}: {view.about}")
        print()
        print_table(rows, columns)
        return
    with RecordWriter(columns, output_format) as writer:
        for row in rows:
            writer.write(row)
