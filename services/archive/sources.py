"""What the second engine reads a side's log from: segments of the archive as far as they go, the stream after them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, NamedTuple

import duckdb
import pyarrow as pa

from schemas.vocabulary import START, Position, order
from services.archive.engine import Engine
from services.runtime.errors import DamagedLogError
from services.runtime.settings import SideSettings
from services.store.columns import table_of
from services.store.contract import Entry, Log
from services.store.segments import Archive, DamagedArchiveError
from services.store.whole_log import WholeLog

TABLE: Final = 50_000
BATCH: Final = 5_000


class Sources(NamedTuple):
    """One side's log up to a position: the segments that begin by then, and where in the stream to go on after them."""

    segments: list[Path]
    after: Position
    until: Position


def sources_of(archive: Archive, until: Position) -> Sources:
    """Return what a side's log is to be read from, with an archive as it is known now."""
    chosen = [segment for segment in archive.manifest.segments if order(segment.first) <= order(until)]
    return Sources(archive.paths(until), chosen[-1].last if chosen else START, until)


async def read_into(
    engine: Engine,
    side: SideSettings,
    log: WholeLog,
    until: Position,
    on_progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Give an engine one side's log up to and with a position; DamagedLogError if the log is not whole."""
    extent = await log.extent()
    if extent.lost:
        raise DamagedLogError(
            f"the log of side {side.side} is incomplete: {extent.lost:,} entries are neither in the stream nor in the "
            "archive, so no figure can be had from it; restore the log first"
        )
    sources = sources_of(log.archive, until)
    try:
        engine.add_side(side, sources.segments, sources.until)
    except duckdb.Error as error:
        raise unreadable(error) from error
    on_progress(sum(segment.count for segment in log.archive.manifest.segments[: len(sources.segments)]))
    async for table in _rest(log, sources.after, sources.until):
        engine.add(side.side, table)
        on_progress(table.num_rows)


def unreadable(error: duckdb.Error) -> DamagedArchiveError:
    """Return what to say when DuckDB cannot read a segment."""
    said = " ".join(str(error).split())
    return DamagedArchiveError(
        f"a segment cannot be read ({said[:200]}); `fieldtally archive verify` names what is wrong"
    )


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
