"""Writes what `sql` is measured on: the same events as Parquet segments of each side, and as NDJSON.

`archived.py FOLDER EVENTS` fills a folder with a simulated year of both sides. In memory are never more than one
segment of each side.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq

from schemas.vocabulary import Position, Side
from services.simulator.fleet import FleetPlan, fleet
from services.store.columns import table_of
from services.store.contract import Entry

SEGMENT = 100_000
YEAR = timedelta(days=365)


def write(folder: Path, events: int) -> None:
    """Write `SIDE-NUMBER.parquet` and `SIDE.ndjson`."""
    held: dict[Side, list[Entry]] = {}
    written: dict[Side, int] = {}
    with ExitStack() as files:
        lines = {}
        for number, (side, event) in enumerate(_submitted(events), 1):
            if side not in held:
                held[side], written[side] = [], 0
                lines[side] = files.enter_context((folder / f"{side}.ndjson").open("wb"))
            fields = {b"event": event, b"by": f"{side}/{side}-MP-{number % 40:02}/d{number % 40}".encode()}
            held[side].append(Entry(Position(f"{1_710_000_000_000 + number}-0"), fields))
            lines[side].write(event + b"\n")
            if len(held[side]) == SEGMENT:
                _segment(folder, side, written[side], held[side])
                written[side] += 1
                held[side] = []
        for side, entries in held.items():
            if entries:
                _segment(folder, side, written[side], entries)


def _submitted(events: int) -> Iterator[tuple[Side, bytes]]:
    for submission in fleet(FleetPlan(seed=1, reports=events, period=YEAR)):
        yield submission.side, submission.event


def _segment(folder: Path, side: Side, number: int, entries: list[Entry]) -> None:
    pq.write_table(table_of(entries), folder / f"{side}-{number:04}.parquet", compression="zstd")


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
