"""`stats`: the tables that people publish, rebuilt from the log."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, get_args

import click
from msgspec.structs import replace
from rich.console import Console

from schemas.vocabulary import Position, Side, order
from services.cli.command import ONLY_READ, FileName, Whole, command, run_async, settings
from services.cli.output import Figure, format_option, many, note, progress, table_text
from services.cli.selectors import ENDS, AsOf, read_as_of, read_selection
from services.cli.server import log_extents, note_absent, server_url
from services.replay.audit import join, terms
from services.replay.processes import replay_sides
from services.runtime.errors import UsageError
from services.runtime.settings import Settings
from services.statistics.periods import moment_year_before, position_at, received, year_to_date
from services.statistics.render import (
    NOTHING,
    ONE_CALL,
    Publication,
    Shown,
    Stand,
    as_csv,
    as_json,
    as_markdown,
    as_sdmx_csv,
    as_xlsx,
    notes_on,
    provenance,
    spread,
)
from services.statistics.tables import TABLES, Asked, Counted, TableName, build
from services.tally.balances import Replayed, balances_of
from services.tally.digest import state_digest
from services.tally.fold import FOLD_VERSION, State
from services.tally.names import unknown_names
from services.tally.rollup import Dimension, Selection
from services.tally.suppression import LEAST_MIN_CELL

StatsFormat = Literal["table", "markdown", "csv", "json", "sdmx-csv", "xlsx"]
FORMATS: Final[tuple[StatsFormat, ...]] = get_args(StatsFormat)

_DAYS: Final[tuple[Dimension, ...]] = ("day", "month", "year")


@command(
    "stats",
    "stats",
    "stats months --from 2024-01-01 --to 2024-12-31 --min-cell 5",
    "stats year-to-date --as-of 2024-06-30T23:59:59+02:00 --format markdown",
    "stats operations smuggling --where side=SI --format xlsx --out statistics.xlsx",
    stands=ONLY_READ,
)
@click.argument("tables", metavar="[TABLE …]", nargs=-1, type=click.Choice(TABLES))
@click.option(
    "--where",
    "where",
    multiple=True,
    metavar="DIM=VALUE",
    help="Only these cells; may be repeated. Several values of one dimension: any of them.",
)
@click.option("--from", "first_day", metavar="DATE", help="First day, included; also of the year to date.")
@click.option("--to", "last_day", metavar="DATE", help="Last day, included; also of the year to date.")
@click.option(
    "--as-of",
    "as_of",
    metavar="POSITION|TIME",
    help=f"As known at this position or time of receipt; without it, at the log's end. {ENDS}",
)
@click.option(
    "--min-cell",
    type=Whole(min=LEAST_MIN_CELL),
    metavar="N",
    help=f"Hide figures below N, which is {LEAST_MIN_CELL} or more, and what would give them away.",
)
@format_option(*FORMATS, how="How to write the tables; xlsx needs --out.")
@click.option("--out", metavar="FILE", type=FileName(), help="Write them there instead of to stdout.")
def stats(
    *,
    tables: tuple[TableName, ...],
    where: tuple[str, ...],
    first_day: str | None,
    last_day: str | None,
    as_of: str | None,
    min_cell: int | None,
    output_format: StatsFormat,
    out: str | None,
) -> None:
    """Print the tables that people publish, rebuilt from the log.

    `months`: by month and citizenship, persons unless --where measure=… names another measure. `year-to-date`: this
    year's days against the same of last year, as known now and as known then, which is one year before. `operations`:
    per operation. `smuggling`: cases, smugglers (foreign, domestic), persons found with them, remanded. If none is
    named, all of them.

    With --min-cell, figures from 1 to N-1 are hidden, and others with them so that none can be worked out from those
    shown. That holds for the tables of one call: publish no second one of the same figures beside it.
    """
    chosen = settings()
    selection = read_selection(chosen, ("side,measure",), where, first_day, last_day)
    until = read_as_of(chosen, as_of)
    if "year-to-date" in (tables or TABLES) and (of := next((name for name in _DAYS if name in selection.where), None)):
        raise UsageError(f"--where {of}=…: the year to date is of two years; choose its days with --from and --to")
    if output_format == "xlsx" and out is None:
        raise UsageError("--format xlsx is no text for a terminal: say with --out FILE where to write it")
    with _opened(out) as write:
        publication = _published(chosen, tables or TABLES, selection, until, min_cell or 0)
        if output_format == "table" and out is None:
            print(_lines(publication, Console()), end="")  # as wide as the terminal
        else:
            write(_WRITERS[output_format](publication))
    if output_format in ("csv", "sdmx-csv"):  # whose rows have no place for them
        for table in publication.tables:
            for text in table.notes:
                note(f"{table.name}: {text}")
    if min_cell:
        small, others = (
            sum(each) for each in zip(*((one.small, one.others) for one in publication.tables), strict=True)
        )
        note(f"hidden: {many(small, 'figure')} from 1 to {min_cell - 1}, and {others:,} more with them. {ONE_CALL}")


def _published(
    chosen: Settings, tables: Sequence[TableName], selection: Selection, until: AsOf, min_cell: int
) -> Publication:
    zones = {side.side: side.zone for side in chosen.sides}
    with server_url(chosen, reading=True) as url:
        extents = run_async(log_extents(replace(chosen, redis_url=url), until))
        if not any(extent.entries for extent in extents.values()):
            note_absent(chosen, extents)
        last = until or {side: extent.last for side, extent in extents.items()}
        moment = _moment(max(last.values(), key=order))
        stops: dict[Side, list[Position]] = {side: [stop] for side, stop in last.items()}
        asked = Asked(tables, tuple(zones), selection.where, selection.first_day, selection.last_day, None, min_cell)
        if "year-to-date" in tables:
            try:
                days = year_to_date(moment, zones.values(), selection.first_day, selection.last_day)
                for side, (stop,) in stops.items():
                    then = position_at(moment_year_before(moment, zones[side]))
                    stops[side] = [min(then, stop, key=order), stop]
            except ValueError as error:
                others = "; or name the other tables" if len(tables) > 1 else ""
                raise UsageError(
                    f"year-to-date: {error}; choose days of one year with --from and --to{others}"
                ) from error
            if selection.last_day and selection.last_day > days.last:
                note(
                    f"year-to-date: up to {days.last} only, the day of the as-of moment, and not {selection.last_day}: "
                    "of the days between nothing is known yet, and last year's would stand against nothing"
                )
            asked = replace(asked, this_year=days)
        entries = sum(extent.entries for extent in extents.values())
        replayed = replay_sides(chosen, url, stops, lambda: progress("replaying", entries))
    now = [states[-1] for states in replayed.values()]
    then_known = [states[0] for states in replayed.values()] if asked.this_year else None
    for text in unknown_names(selection.where, join(now), terms(chosen.sides, now)):
        note(f"--where: {text}")
    built = build(asked, _counted(chosen, now), _counted(chosen, then_known) if then_known else None)
    return Publication(built, moment, _stand(now), _stand(then_known) if then_known else None, min_cell)


def _moment(position: Position) -> datetime:
    try:
        return received(position)
    except OverflowError as error:
        raise UsageError("--as-of: no calendar goes that far; leave it out for the log's end") from error


def _counted(chosen: Settings, states: Sequence[Replayed]) -> Counted:
    begun = frozenset(state.side for state in states if state.checkpoint.entries)
    return Counted(join(states), terms(chosen.sides, states), begun, balances_of(states))


def _stand(states: Sequence[State]) -> Stand:
    positions = {state.side: state.checkpoint.position for state in states}
    return Stand(positions, state_digest(join(states)), FOLD_VERSION)


def _as_text(publication: Publication) -> bytes:
    return _lines(publication, Console(file=io.StringIO())).encode()


def _lines(publication: Publication, console: Console) -> str:
    parts = []
    for table in publication.tables:
        headings, rows = spread(table)
        left = len(table.headings)
        records = [dict(zip(headings, (*row[:left], *map(_to_the_right, row[left:])), strict=True)) for row in rows]
        lines = [table.title, table_text(records, headings, console)] if rows else [f"{table.title}: {NOTHING}"]
        parts.append("\n".join([*lines, *notes_on(publication, table)]))
    parts.append("\n".join(f"{name}: {value}" for name, value in provenance(publication)))
    return "\n\n".join(parts) + "\n"


def _to_the_right(shown: Shown) -> Shown:
    return Figure(shown) if isinstance(shown, str) else shown


_WRITERS: Final[Mapping[StatsFormat, Callable[[Publication], bytes]]] = {
    "table": _as_text,
    "markdown": as_markdown,
    "csv": as_csv,
    "json": as_json,
    "sdmx-csv": as_sdmx_csv,
    "xlsx": as_xlsx,
}


@contextmanager
def _opened(out: str | None) -> Iterator[Callable[[bytes], object]]:
    """Yield what writes the whole: to stdout, or to a file, which is the old one or the whole new one at any moment.

    That a file cannot be written is said before any work is done.
    """
    if out is None:
        yield lambda whole: sys.stdout.write(whole.decode())
        return
    path = Path(os.path.realpath(out))
    part = path.parent / f"{path.name}.{os.getpid()}.part"
    with _refused(out):
        device = path.exists() and not path.is_file()  # a pipe cannot be replaced, and a folder is refused here
        file = path.open("wb") if device else part.open("xb")
    try:
        written: list[bytes] = []
        yield written.append
        with _refused(out), file:
            file.writelines(written)
            if not device:
                file.flush()
                os.fsync(file.fileno())
                part.replace(path)
    finally:
        file.close()
        if not device:
            part.unlink(missing_ok=True)
    note(f"wrote {out}")


@contextmanager
def _refused(out: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"--out {out!r}: {error.strerror or 'cannot be written'}") from error
