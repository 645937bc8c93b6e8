"""What a side's log is read from: segments of the archive as far as they go, and the stream after them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa  # type: ignore[import-untyped]  # it has none

from schemas.vocabulary import START, Position, order
from services.archive.columns import table_of
from services.archive.engine import Engine
from services.runtime.errors import DamagedLogError
from services.runtime.settings import SideSettings
from services.store.contract import Entry, Log

TABLE: Final = 50_000
BATCH: Final = 5_000


class Segment(NamedTuple):
    """A segment of the archive: its file, and the positions of its first and last entry."""

    path: Path
    first: Position
    last: Position


class Sources(NamedTuple):
    """One side's log up to a position: the segments that begin by then, and where in the stream to go on after them."""

    segments: list[Path]
    after: Position
    until: Position


def sources_of(segments: Sequence[Segment], until: Position) -> Sources:
    """Return what a side's log is to be read from; segments are in order, and leave nothing out between them."""
    chosen = [segment for segment in segments if order(segment.first) <= order(until)]
    return Sources([segment.path for segment in chosen], chosen[-1].last if chosen else START, until)


async def read_into(
    engine: Engine, side: SideSettings, log: Log, sources: Sources, on_progress: Callable[[int], None] = lambda _: None
) -> None:
    """Give an engine one side's log; DamagedLogError if the log is not whole."""
    extent = await log.extent()
    if extent.lost and not sources.segments:
        raise DamagedLogError(
            f"the log of side {side.side} is incomplete: it holds {extent.length} of the {extent.appended} entries "
            "ever appended, so no figure can be had from it; restore the log first"
        )
    engine.add_side(side, sources.segments, sources.until)
    async for table in _rest(log, sources.after, sources.until):
        engine.add(side.side, table)
        on_progress(table.num_rows)


async def _rest(log: Log, after: Position, until: Position) -> AsyncIterator[pa.Table]:
    """Yield the entries after one position, up to and with another; in memory are never more than one table's."""
    held: list[Entry] = []
    limit = order(until)
    while order(after) < limit and (entries := await log.read_after(after, BATCH)):
        after = entries[-1].position
        held += entries if order(after) <= limit else [one for one in entries if order(one.position) <= limit]
        if len(held) >= TABLE:
            yield table_of(held)
            held = []
    if held:
        yield table_of(held)
