"""`import`: events from a file, through admission, into the log; a result per line."""

from __future__ import annotations

import sys
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

import click

from services.cli.command import command, run_async, settings
from services.cli.output import Format, RecordWriter, format_option, note, progress
from services.cli.server import SideStore, side_stores
from services.gateway.admission import EVENT_BYTES_MAX, Admitted, admit
from services.runtime.errors import UsageError
from services.runtime.settings import Settings
from services.store.log import PartlyAppendedError

CHUNK: Final = 500
LINE_BYTES_MAX: Final = 2 * EVENT_BYTES_MAX
COLUMNS: Final = ("line", "status", "position", "id", "problem")
WIDTHS: Final = {"line": -7, "status": 8, "position": 15}


@command(
    "import",
    "import reports.ndjson",
    "import reports.ndjson --format ndjson > results.ndjson",
    "import - < reports.ndjson",
)
@click.argument("file", metavar="FILE.ndjson")
@format_option()
def import_file(file: str, output_format: Format) -> int:
    """Append events from a file to the log; a result per line.

    The file has one JSON event per line; `-` reads standard input. Good lines are recorded whatever the others hold; a
    line that is sent again counts once. Exit code 0: all recorded; 1: some lines were not.
    """
    with _opened(file) as lines:
        return run_async(_import(settings(), lines, _size(file), output_format))


async def _import(chosen: Settings, lines: IO[bytes], size: int, output_format: Format) -> int:
    recorded = rejected = 0
    async with side_stores(chosen) as stores:
        by_side = {store.side.side: store for store in stores}
        with (
            progress("importing bytes", size, rows_meanwhile=True) as on_progress,
            RecordWriter(COLUMNS, output_format, WIDTHS) as writer,
        ):
            number = 0
            numbered = _lines(lines)
            while chunk := list(islice(numbered, CHUNK)):
                for result in await _append(by_side, chunk, number):
                    writer.write(result)
                    if result["status"] == "recorded":
                        recorded += 1
                    else:
                        rejected += 1
                number += len(chunk)
                on_progress(sum(map(len, chunk)))
    blank = number - recorded - rejected
    note(f"{number:,} lines: {recorded:,} recorded, {rejected:,} rejected" + (f", {blank:,} blank" if blank else ""))
    return 1 if rejected else 0


async def _append(by_side: dict[Any, SideStore], chunk: Sequence[bytes], before: int) -> list[dict[str, Any]]:
    """Append one chunk; return a result for each of its lines that is not blank."""
    results: dict[int, dict[str, Any]] = {}
    admitted: dict[Any, list[tuple[int, Admitted]]] = {}
    for number, line in enumerate(chunk, before + 1):
        # A line that was cut off stays too long.
        raw = line.strip() if len(line) < LINE_BYTES_MAX else line
        if not raw:
            continue
        decision = admit(raw, by_side.keys())
        if isinstance(decision, Admitted):
            admitted.setdefault(decision.event.side, []).append((number, decision))
        else:
            results[number] = {"line": number, "status": "rejected", "id": decision.id, "problem": decision.problem}
    for side, items in admitted.items():
        problem = ""
        try:
            positions: Sequence[str | None] = await by_side[side].log.append([item.canonical for _, item in items])
        except PartlyAppendedError as error:
            positions, problem = error.positions, str(error)
        for (number, item), position in zip(items, positions, strict=True):
            result = {"line": number, "id": str(item.event.id)}
            if position:
                results[number] = result | {"status": "recorded", "position": position}
            else:
                results[number] = result | {"status": "rejected", "problem": problem}
    return [results[number] for number in sorted(results)]


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
