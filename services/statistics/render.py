"""The formats of published tables. Each carries where its figures are true, and says what is hidden."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final, TypeAlias

import msgspec
import xlsxwriter  # type: ignore[import-untyped]  # it brings no types
from msgspec import Struct

from schemas.vocabulary import UNITS, Position, Side
from services.statistics.periods import Period
from services.statistics.tables import TOTAL, Figure, Key, Known, Table
from services.tally.rollup import Dimension

HIDDEN: Final = "·"
UNKNOWN: Final = "–"
NOTHING: Final = "nothing"
ONE_CALL: Final = (
    "This holds for the tables of this one call: others of the same figures beside them may give the hidden ones away."
)

COLUMNS: Final = (
    "table", "measure", "unit", "period", "known", "side", "operation", "citizenship", "origin", "count", "status",
    "min_cell", "position", "digest", "fold_version",
)  # fmt: skip
"""The columns of CSV; `status` is empty, `suppressed` or `missing`, where nothing was known then.

Where tables are restricted by a dimension that is none of these, that has a column too, behind `origin`.
"""

SDMX_COLUMNS: Final = (
    "STRUCTURE", "STRUCTURE_ID", "ACTION", "REF_AREA", "MEASURE", "OPERATION", "CITIZENSHIP", "ORIGIN", "KNOWN",
    "TIME_PERIOD", "OBS_VALUE", "UNIT_MEASURE", "OBS_STATUS", "CONF_STATUS", "MIN_CELL", "POSITION", "DIGEST",
    "FOLD_VERSION",
)  # fmt: skip
AGENCY: Final = "FIELDTALLY"
VERSION: Final = "1.0"

# CL_OBS_STATUS: A normal value, Q missing value, suppressed, O missing value. CL_CONF_STATUS: F free, C confidential.
# That list also has codes for small counts (A) and for what is hidden with them (D): they would tell which is which.
NORMAL, SUPPRESSED, MISSING, FREE, CONFIDENTIAL = "A", "Q", "O", "F", "C"

_SHEET_EXACT: Final = 2**53
"""From here on a spreadsheet's numbers are no longer whole; greater counts are written as text."""


class Stand(Struct, frozen=True):
    """Where figures are true: the position of each side, the digest of all its cells, and the version of the fold."""

    position: Mapping[Side, Position]
    digest: str
    fold_version: int

    def of(self, side: str) -> str:
        """Return the position of a side, or that of all sides as a stream of the screen has it."""
        if side == TOTAL:
            return ",".join(f"{name}:{position}" for name, position in self.position.items())
        return self.position[Side(side)]


class Publication(Struct, frozen=True):
    """Tables with where they are true: now, which is the as-of moment, and one year before if a table shows that."""

    tables: Sequence[Table]
    moment: datetime
    now: Stand
    then: Stand | None = None
    min_cell: int = 0

    def stand(self, known: Known) -> Stand:
        """Return where the figures that were known then are true."""
        return self.then if known == "then" and self.then else self.now


COLUMNLESS: Final[tuple[Dimension, ...]] = ("section", "coverage", "day", "month", "year")
"""Dimensions that are a column only where they are restricted."""


def _restricted(table: Table) -> dict[str, str]:
    """Return what a table was restricted to in dimensions that have no column, several values with + between."""
    return {name: _any_of(table.where[name]) for name in COLUMNLESS if name in table.where}


def _any_of(values: Iterable[str], absent: str = "") -> str:
    return "+".join(value or absent for value in values)


def _of(table: Table, field: Dimension, value: str) -> str:
    """Return what a figure is about; a total over some values only is called by these."""
    return _any_of(table.where[field]) if value == TOTAL and field in table.where else value


Shown: TypeAlias = int | str


def spread(table: Table) -> tuple[tuple[str, ...], list[tuple[Shown, ...]]]:
    """Return headings and rows as people see them; the year to date with its change, where both figures are shown."""
    with_change = table.name == "year-to-date"
    rows: list[tuple[Shown, ...]] = []
    for row in table.rows:
        change: Sequence[Shown] = (_change(*row.figures[:2]),) if with_change else ()
        rows.append((*row.labels, *(_shown(figure) for figure in row.figures), *change))
    return (*table.headings, *table.columns, *(("change",) if with_change else ())), rows


def _shown(figure: Figure) -> Shown:
    if figure.count is None:
        return HIDDEN if figure.hidden else UNKNOWN
    return figure.count


def _change(this: Figure, last: Figure) -> Shown:
    if this.count is None or last.count is None:
        return HIDDEN
    return this.count - last.count


def notes_on(publication: Publication, table: Table) -> Iterator[str]:
    """Yield what a table must say of itself."""
    if publication.min_cell:
        most = publication.min_cell - 1
        if table.countable:
            small = _figures_many(table.small)
            more = f"{table.others:,} more, from which they could be worked out"
            yield f"{HIDDEN} hidden: {small} from 1 to {most}, and {more}. {ONE_CALL}"
        else:
            all_hidden = _figures_many(table.small + table.others)
            yield (
                f"{HIDDEN} hidden: {all_hidden}, those from 1 to {most} and others from which they could be worked "
                f"out; how many of each would help to do so. {ONE_CALL}"
            )
    if table.name == "year-to-date":
        yield f"as known then: by what had been received one year before {_time(publication.moment)}"
        if any(figure.count is None and not figure.hidden for figure in table.figures):
            yield f"{UNKNOWN} not known: the log of a side had not begun then"
    yield from table.notes


def provenance(publication: Publication) -> Iterator[tuple[str, str]]:
    """Yield where the tables are true, as names with their values."""
    yield "as of", _time(publication.moment)
    yield from _lines("", publication.now)
    if publication.then:
        yield from _lines("known then: ", publication.then)
    yield "min-cell", str(publication.min_cell or "none")


def _lines(prefix: str, stand: Stand) -> Iterator[tuple[str, str]]:
    yield f"{prefix}position", ", ".join(f"{side} {position}" for side, position in stand.position.items())
    yield f"{prefix}digest", stand.digest
    yield f"{prefix}fold version", str(stand.fold_version)


def _figures_many(count: int) -> str:
    return f"{count:,} {'figure' if count == 1 else 'figures'}"


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- for people ---


def as_markdown(publication: Publication) -> bytes:
    """Write a table in GitHub's Markdown for each."""
    parts = []
    for table in publication.tables:
        headings, rows = spread(table)
        lines = [f"## {_escaped(table.title)}", ""]
        if rows:
            left = len(table.headings)
            lines.append(_line(headings))
            lines.append(_line(["---" if at < left else "---:" for at in range(len(headings))]))
            lines += [_line(_escaped(f"{cell:,}" if isinstance(cell, int) else cell) for cell in row) for row in rows]
        else:
            lines.append(NOTHING)
        for text in notes_on(publication, table):
            lines += ["", text]
        parts.append("\n".join(lines))
    parts.append("\n".join(f"- {name}: {value}" for name, value in provenance(publication)))
    return ("\n\n".join(parts) + "\n").encode()


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return "".join(f"\\{sign}" if sign in r"\`*_[]<>|" else sign for sign in text)


def as_xlsx(publication: Publication) -> bytes:
    """Write a workbook: a sheet for each table, and one that says where they are true. Equal tables, equal bytes."""
    file = io.BytesIO()
    # Nothing that an operation may be called is a formula or an address here.
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    book = xlsxwriter.Workbook(file, options)
    book.set_properties({"title": "Fieldtally statistics", "created": publication.moment.replace(tzinfo=None)})
    bold, number = book.add_format({"bold": True}), book.add_format({"num_format": "#,##0"})
    right = book.add_format({"align": "right"})
    for table in publication.tables:
        sheet = book.add_worksheet(table.name)
        headings, rows = spread(table)
        only = {name: values for name, values in table.where.items() if name not in ("side", "measure")}
        headings = (*(f"only {name}" for name in only), *headings)
        rows = [(*(_any_of(values, "none") for values in only.values()), *row) for row in rows]
        labels = len(only) + len(table.headings)
        sheet.write_string(0, 0, table.title, bold)
        for column, heading in enumerate(headings):
            sheet.write_string(2, column, heading, bold)
        for at, row in enumerate(rows, 3):
            for column, cell in enumerate(row):
                if isinstance(cell, int) and abs(cell) <= _SHEET_EXACT:
                    sheet.write_number(at, column, cell, number)
                else:
                    sheet.write_string(at, column, str(cell), right if column >= labels else None)
        end = 3 + len(rows)
        if not rows:
            sheet.write_string(end, 0, NOTHING)
            end += 1
        for at, text in enumerate(notes_on(publication, table), end + 1):
            sheet.write_string(at, 0, text)
        sheet.freeze_panes(3, labels)
        sheet.set_column(0, len(headings) - 1, 16)
    sheet = book.add_worksheet("provenance")
    for at, (name, value) in enumerate(provenance(publication)):
        sheet.write_string(at, 0, name, bold)
        sheet.write_string(at, 1, value)
    if publication.min_cell:
        sheet.write_string(at + 1, 1, ONE_CALL)
    sheet.set_column(0, 0, 24)
    book.close()
    return file.getvalue()


# --- for machines ---


def as_json(publication: Publication) -> bytes:
    """Write one object: where the tables are true, and each with its figures as a list of objects."""
    known: dict[str, Any] = {"as_of": _time(publication.moment)} | msgspec.to_builtins(publication.now)
    if publication.then:
        known["known_then"] = publication.then
    known["min_cell"] = publication.min_cell or None
    known["tables"] = [
        {
            "table": table.name,
            "title": table.title,
            "hidden": _hidden(table),
            "where": table.where,
            "notes": [*([ONE_CALL] if publication.min_cell else []), *table.notes],
            "rows": [_object(table, figure) for figure in table.figures],
        }
        for table in publication.tables
    ]
    return msgspec.json.format(msgspec.json.encode(known), indent=2) + b"\n"


def _hidden(table: Table) -> dict[str, int | None]:
    return {
        "figures": table.small + table.others,
        "small": table.small if table.countable else None,
        "others": table.others if table.countable else None,
    }


def _object(table: Table, figure: Figure) -> dict[str, object]:
    key = figure.key
    record: dict[str, object] = {
        "measure": key.measure,
        "unit": UNITS[key.measure],
        "period": key.period,
        "known": key.known,
        "side": _of(table, "side", key.side),
        "operation": _of(table, "operation", key.operation),
        "citizenship": _of(table, "citizenship", key.citizenship),
        "origin": _of(table, "origin", key.origin),
        **_restricted(table),
        "count": figure.count,
    }
    if figure.count is None:
        record["suppressed" if figure.hidden else "missing"] = True
    return record


def as_csv(publication: Publication) -> bytes:
    """Write a line for each figure of every table, in UTF-8."""
    return _csv(
        _with_restricted(publication, COLUMNS, "count"),
        ((figure.key.table, *_fields(publication, table, figure)) for table, figure in _figures(publication)),
    )


def _with_restricted(publication: Publication, columns: Sequence[str], before: str) -> list[str]:
    """Return columns with those that the restrictions of the tables add; every table of a call has the same."""
    at = columns.index(before)
    added = _restricted(publication.tables[0]) if publication.tables else {}
    return [*columns[:at], *(name.upper() if before.isupper() else name for name in added), *columns[at:]]


def _fields(publication: Publication, table: Table, figure: Figure) -> tuple[object, ...]:
    stand = publication.stand(figure.key.known)
    status = "" if figure.count is not None else "suppressed" if figure.hidden else "missing"
    return (
        *(value for name, value in _object(table, figure).items() if name not in ("count", "suppressed", "missing")),
        "" if figure.count is None else figure.count,
        status,
        publication.min_cell or "",
        stand.of(figure.key.side),
        stand.digest,
        stand.fold_version,
    )


def as_sdmx_csv(publication: Publication) -> bytes:
    """Write SDMX-CSV 2.0: each table is a dataflow of its own, with the same dimensions.

    One that is restricted by a dimension without a column is another dataflow, which has this dimension, too.
    """
    return _csv(
        _with_restricted(publication, SDMX_COLUMNS, "KNOWN"),
        (_observation(publication, table, figure) for table, figure in _figures(publication)),
    )


def _observation(publication: Publication, table: Table, figure: Figure) -> tuple[object, ...]:
    def of(field: Dimension, value: str, absent: str) -> str:
        return _any_of(table.where[field], absent) if value == TOTAL and field in table.where else value or absent

    restricted = _restricted(table)
    dataflow = "_OF_".join(filter(None, (figure.key.table.upper().replace("-", "_"), "_".join(restricted).upper())))
    key, stand = figure.key, publication.stand(figure.key.known)
    shown = figure.count is not None
    return (
        "dataflow",
        f"{AGENCY}:{dataflow}({VERSION})",
        "I",
        of("side", key.side, "_Z"),
        key.measure.upper(),
        of("operation", key.operation, "_Z"),
        of("citizenship", key.citizenship, "_U"),
        of("origin", key.origin, "_U").upper(),
        *(_any_of(table.where[name], "_Z") for name in COLUMNLESS if name in table.where),
        key.known.upper(),
        _time_period(key),
        figure.count if shown else "",
        UNITS[key.measure],
        NORMAL if shown else SUPPRESSED if figure.hidden else MISSING,
        CONFIDENTIAL if figure.hidden else FREE,
        publication.min_cell or "",
        stand.of(key.side),
        stand.digest,
        stand.fold_version,
    )


def _time_period(key: Key) -> str:
    """Return the period as SDMX writes it: a range by its first day and how long it lasts."""
    first, stroke, last = key.period.partition("/")
    if not stroke:
        return key.period
    return f"{first}/P{Period(date.fromisoformat(first), date.fromisoformat(last)).days}D"


def _figures(publication: Publication) -> Iterator[tuple[Table, Figure]]:
    return ((table, figure) for table in publication.tables for figure in table.figures)


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()
