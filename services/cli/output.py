"""What commands print: rows in four formats to stdout, notes and progress bars to stderr, bars only on a terminal."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final, Literal, Self, get_args

import click
import msgspec
from click.core import ParameterSource
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

Format = Literal["table", "json", "ndjson", "csv"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)

Record = Mapping[str, Any]


class Figure(str):
    """A number with something beside it, such as `> 7,850`; in a table it stands where numbers do."""

    __slots__ = ()


_ANY_WIDTH: Final = 100_000

notes: Final = Console(stderr=True, highlight=False, soft_wrap=True)


def format_option(*formats: str, how: str = "How to print the rows.") -> Callable[[Any], Any]:
    """Return the option `--format` with the formats that a command has, json among them, and `--json` beside it."""
    chosen = click.option(
        "--format", "output_format", type=click.Choice(formats or FORMATS), default="table", show_default=True, help=how
    )
    short = click.option("--json", "as_json", is_flag=True, help="Short for --format json.")

    def add(function: Callable[..., Any]) -> Any:
        @wraps(function)
        def read(*args: Any, output_format: str, as_json: bool, **options: Any) -> Any:
            context = click.get_current_context()
            given = context.get_parameter_source("output_format") is ParameterSource.COMMANDLINE
            if as_json and given and output_format != "json":
                context.fail(f"--json is short for --format json: give it without --format {output_format}")
            if (as_json or given) and (inner := context.invoked_subcommand):
                option = "--json" if as_json else "--format"
                context.fail(f"{option} before {inner} is for {context.command_path} alone: give it behind {inner}")
            return function(*args, output_format="json" if as_json else output_format, **options)

        return chosen(short(read))

    return add


def note(text: str) -> None:
    """Say something to the person, beside the data."""
    notes.print(text, markup=False)


def many(count: int, one: str, more: str = "") -> str:
    """Return a count with its noun."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


class RecordWriter:
    """Writes rows one by one as they come; as a table, in columns of given widths, since longer rows may follow."""

    def __init__(self, columns: Sequence[str], output_format: Format, widths: Mapping[str, int] = {}) -> None:
        self._columns = columns
        self._format = output_format
        self._widths = widths
        self._written = 0
        self._csv = csv.writer(sys.stdout, lineterminator="\n")

    def __enter__(self) -> Self:
        if self._format == "csv":
            self._csv.writerow(self._columns)
        return self

    def write(self, record: Record) -> None:
        """Write one row."""
        match self._format:
            case "json":
                sys.stdout.write((",\n " if self._written else "[\n ") + msgspec.json.encode(record).decode())
            case "ndjson":
                sys.stdout.write(msgspec.json.encode(record).decode() + "\n")
            case "csv":
                self._csv.writerow([record.get(column, "") for column in self._columns])
            case "table":
                if not self._written:
                    self._write_line({column: column for column in self._columns})
                self._write_line(record)
        self._written += 1

    def _write_line(self, record: Record) -> None:
        """Numbers are right-aligned, under a heading of a width below zero; a column without a width may be absent."""
        texts = []
        for column in self._columns:
            width, text = self._widths.get(column, 0), printable(str(record.get(column, "")))
            if width or text:
                texts.append(text.ljust(width) if width >= 0 else text.rjust(-width))
        sys.stdout.write("  ".join(texts).rstrip() + "\n")

    def flush(self) -> None:
        """Let a reader of a pipe see what was written."""
        sys.stdout.flush()

    def __exit__(self, *exception: object) -> None:
        if self._format == "json":
            sys.stdout.write("\n]\n" if self._written else "[]\n")
        sys.stdout.flush()


def print_records(records: Sequence[Record], columns: Sequence[str], output_format: Format, title: str = "") -> None:
    """Print rows that are all there."""
    if output_format == "table":
        print_table(records, columns, title)
        return
    with RecordWriter(columns, output_format) as writer:
        for record in records:
            writer.write(record)


def print_table(records: Sequence[Record], columns: Sequence[str], title: str = "") -> None:
    """Print rows for a person: numbers right-aligned with thousands separators, no frame that a pipe would garble."""
    if not records:
        Console(highlight=False).print(f"{title}: nothing" if title else "nothing", markup=False)
        return
    sys.stdout.flush()  # of what stands there already: if its reader has left, rich would end the program with 1
    print(table_text(records, columns, Console(), title))


def table_text(records: Sequence[Record], columns: Sequence[str], console: Console, title: str = "") -> str:
    """Return such rows as lines that fit a console; in a pipe or a file, one row is one line."""
    if not console.is_terminal:
        console.width = _ANY_WIDTH
    table = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        numeric = all(isinstance(record.get(column), int | Figure) for record in records)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    for record in records:
        table.add_row(*(_cell_text(record.get(column, "")) for column in columns))
    with console.capture() as printed:
        console.print(table, highlight=False)
    return "\n".join(line.rstrip() for line in printed.get().splitlines())


@contextmanager
def progress(what: str, total: int, *, rows_meanwhile: bool = False) -> Iterator[Callable[[int], None]]:
    """Show a bar with rate and time left on a terminal; yield the function that moves it on by some entries.

    Not where rows are printed on that terminal meanwhile: they show well enough how far it is.
    """
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}", style="progress.download"),
        _Rate(),
        TimeRemainingColumn(),
        console=notes,
        disable=not notes.is_terminal or (rows_meanwhile and sys.stdout.isatty()),
        transient=True,
        redirect_stdout=False,  # to rich this means: to where the bar is, so rows would never reach their file
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda entries: bar.advance(task, entries)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


def _cell_text(value: Any) -> Text:
    return Text(_plain_text(value))


def _plain_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else printable(str(value))


def printable(text: str) -> str:
    """Return a text fit for a terminal: whatever a direct write may have brought in, it moves no cursor."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else "�" for sign in text)
