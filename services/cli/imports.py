"""`import`: events from a file, through admission, into the log; a result per line."""

from __future__ import annotations

import asyncio
import sys
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import click

from schemas.vocabulary import Side
from services.cli.command import FileName, command, run_async, settings
from services.cli.output import Format, RecordWriter, format_option, many, note, progress
from services.cli.server import SideStore, require_own_archives, side_stores
from services.gateway.admission import EVENT_BYTES_MAX, Admitted, admit
from services.runtime.errors import FieldtallyError, UsageError
from services.runtime.settings import Settings
from services.store.log import PartlyAppendedError

Result = TypeVar("Result")

CHUNK: Final = 500
LINE_BYTES_MAX: Final = 2 * EVENT_BYTES_MAX
COLUMNS: Final = ("line", "status", "position", "id", "problem")
WIDTHS: Final = {"line": -7, "status": 11, "position": 17}


@command(
    "import",
    "import reports.ndjson",
    "import reports.ndjson --format ndjson > results.ndjson",
    "import - < reports.ndjson",
    stands="the lines with a result stand; import the file again for the rest, and no report counts twice",
)
@click.argument("file", type=FileName(), metavar="FILE.ndjson")
@format_option()
def import_file(file: str, output_format: Format) -> int:
    """Append events from a file to the log; a result per line.

    The file has one JSON event per line; `-` reads standard input. Good lines are recorded whatever the others hold; a
    line that is sent again counts once. Where the server fails, the lines under way are *unconfirmed*: import the file
    again. Exit code 0: all recorded; 1: some lines were rejected.
    """
    with _opened(file) as lines:
        return run_async(_import(settings(), lines, _size(file), output_format))


async def _import(chosen: Settings, lines: IO[bytes], size: int, output_format: Format) -> int:
    count = Counter({"recorded": 0, "rejected": 0})
    number = 0
    rest = "; the rest was not read"
    try:
        async with side_stores(chosen) as stores:
            await require_own_archives(stores)
            by_side = {store.side.side: store for store in stores}
            with (
                progress("importing bytes", size, rows_meanwhile=True) as on_progress,
                RecordWriter(COLUMNS, output_format, WIDTHS) as writer,
            ):
                numbered = _lines(lines)
                while chunk := list(islice(numbered, CHUNK)):
                    (results, failure), interrupted = await _to_its_end(_append(by_side, chunk, number))
                    for result in results:
                        writer.write(result)
                        count[result["status"]] += 1
                    number += len(chunk)
                    on_progress(sum(map(len, chunk)))
                    if failure:
                        raise failure
                    if interrupted:
                        raise asyncio.CancelledError
                rest = ""
    finally:
        blank = number - count.total()
        said = [f"{many:,} {status}" for status, many in count.items()] + ([f"{blank:,} blank"] if blank else [])
        if number or not rest:
            note(f"{many(number, 'line')}: {', '.join(said)}{rest}")
    return 1 if count["rejected"] else 0


async def _to_its_end(work: Coroutine[Any, Any, Result]) -> tuple[Result, bool]:
    """Let a chunk that is on its way arrive, and tell whether Ctrl-C came meanwhile: its lines too have results."""
    task = asyncio.ensure_future(work)
    interrupted = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            interrupted = True
    return task.result(), interrupted


async def _append(
    by_side: Mapping[Side, SideStore], chunk: Sequence[bytes], before: int
) -> tuple[list[dict[str, Any]], FieldtallyError | None]:
    """Append one chunk; return a result for each of its lines that is not blank, and what kept some from the log."""
    results: dict[int, dict[str, Any]] = {}
    admitted: dict[Side, list[tuple[int, Admitted]]] = {}
    for number, line in enumerate(chunk, before + 1):
        # A line that was cut off stays too long.
        raw = line.strip() if len(line) < LINE_BYTES_MAX else line
        if not raw:
            continue
        decision = admit(raw, by_side.keys())
        if isinstance(decision, Admitted):
            admitted.setdefault(decision.event.side, []).append((number, decision))
        else:
            results[number] = _result(number, "rejected", decision.id, problem=decision.problem.detail)
    failure: FieldtallyError | None = None
    for side, items in admitted.items():
        positions: Sequence[str | None] = [None] * len(items)
        try:
            positions = await by_side[side].log.append([item.canonical for _, item in items])
        except PartlyAppendedError as error:
            positions, failure = error.positions, error.cause
        except FieldtallyError as error:
            failure = error
        for (number, item), position in zip(items, positions, strict=True):
            ident = str(item.event.id)
            results[number] = (
                _result(number, "recorded", ident, position=position)
                if position
                else _result(number, "unconfirmed", ident, problem=f"{failure}; then import the file again")
            )
    return [results[number] for number in sorted(results)], failure


def _result(number: int, status: str, ident: str, *, position: str = "", problem: str = "") -> dict[str, Any]:
    return {"line": number, "status": status, "position": position, "id": ident, "problem": problem}


@contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        lines = Path(file).open("rb")  # noqa: SIM115  # closed below; only opening it is the user's business
    except OSError as error:
        raise UsageError(f"{file!r}: {error.strerror or 'cannot be read'}") from error
    with lines:
        yield lines


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines, without the mark that some editors put first; the rest of a line too long is skipped."""
    mark = BOM_UTF8
    while line := file.readline(LINE_BYTES_MAX):
        yield line.removeprefix(mark)
        mark = b""
        while len(line) == LINE_BYTES_MAX and not line.endswith(b"\n"):
            line = file.readline(LINE_BYTES_MAX)


def _size(file: str) -> int:
    return 0 if file == "-" else Path(file).stat().st_size
