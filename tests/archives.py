"""Archives for tests: logs with awkward positions, and what archives and trims them as another program would."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import redis

from schemas.vocabulary import START, Position, Side, following, order
from services.archive import restore, trim, writer
from services.archive.verify import Verified, verify_archive
from services.store import segment_file
from services.store.connection import connect
from services.store.contract import Entry
from services.store.keys import PartitionKeys
from services.store.segments import Archive, Segment, archive_folder, read_manifest
from services.store.whole_log import WholeLog, open_log

SI: Final = Side("SI")
NO_AGE: Final = 2**63
"""Trimming what was received before this trims whatever is archived and counted."""
LAST: Final = 2**64 - 1
FIRST_MS: Final = 1_710_385_929_000


def small_pieces(
    patch: pytest.MonkeyPatch, segment: int = 7, group: int = 3, read: int = 2, piece: int = 4, rows: int = 2
) -> None:
    """Have many segments, row groups and reads in a log of a few entries, and wait for no disk."""
    patch.setattr(os, "fsync", lambda _: None)
    patch.setattr(writer, "SEGMENT_ENTRIES", segment)
    patch.setattr(writer, "GROUP_ENTRIES", group)
    patch.setattr(writer, "READ_ENTRIES", read)
    patch.setattr(writer, "LEVEL", 1)
    patch.setattr(trim, "PIECE", piece)
    patch.setattr(segment_file, "READ_ROWS", rows)


def awkward_positions(count: int) -> list[Position]:
    """Return positions of which many share a millisecond, with sequences up to the highest there is."""
    rounds = ((0,), (0, 1, 2, 3, 4, 5, 6, 7, 8, 9), (5, 2**63, LAST - 1, LAST), (LAST,), (0, 1))
    found: list[Position] = []
    milliseconds = FIRST_MS
    while len(found) < count:
        for sequences in rounds:
            found += [Position(f"{milliseconds}-{sequence}") for sequence in sequences]
            milliseconds += 1
        milliseconds += 1_000
    return found[:count]


def write(client: redis.Redis, prefix: str, entries: Sequence[Mapping[bytes, bytes]], side: str = "SI") -> list[Entry]:
    """Write entries at awkward positions; return them as they stand in the log."""
    log = [Entry(at, fields) for at, fields in zip(awkward_positions(len(entries)), entries, strict=True)]
    with client.pipeline(transaction=False) as pipe:
        for entry in log:
            pipe.xadd(f"{{{prefix}:{side}}}:log", {**entry.fields}, id=entry.position)
        pipe.execute()
    return log


@asynccontextmanager
async def whole_log(url: str, prefix: str, archives: Path, side: Side = SI) -> AsyncIterator[WholeLog]:
    """Yield a log over archive and stream, on a connection of its own."""
    client = connect(url)
    try:
        yield open_log(client, url, PartitionKeys(prefix, side), archives)
    finally:
        await client.aclose()


async def archived(
    url: str, prefix: str, archives: Path, until: Position | None = None, side: Side = SI
) -> list[Segment]:
    """Archive, as `fieldtally archive` does."""
    async with whole_log(url, prefix, archives, side) as log:
        return await writer.archive_log(log.stream, log.archive, until)


async def trimmed(
    url: str, prefix: str, archives: Path, until: Position | None = None, side: Side = SI, before_ms: int = NO_AGE
) -> int:
    """Trim what is archived, as `fieldtally archive trim` does when all up to a position is counted."""
    async with whole_log(url, prefix, archives, side) as log:
        counted = until or (await log.extent()).last
        return await trim.trim_log(log.stream, log.archive, counted, before_ms)


async def restored(
    url: str, prefix: str, archives: Path, counted: Position = START, side: Side = SI, *, went_on: bool = False
) -> restore.Restored:
    """Let the log go on behind its archive, as `fieldtally archive restore` does."""
    async with whole_log(url, prefix, archives, side) as log:
        return await restore.restore_log(log.stream, log.archive, counted, went_on=went_on)


def archive_now(url: str, prefix: str, archives: Path, until: Position | None = None, side: Side = SI) -> list[Segment]:
    """Archive, from a test that is not asynchronous."""
    return asyncio.run(archived(url, prefix, archives, until, side))


def trim_now(url: str, prefix: str, archives: Path, until: Position | None = None, side: Side = SI) -> int:
    """Trim, from a test that is not asynchronous."""
    return asyncio.run(trimmed(url, prefix, archives, until, side))


def whole(url: str, prefix: str, archives: Path, side: Side = SI, count: int = 500) -> list[Entry]:
    """Return all entries of archive and stream."""

    async def read() -> list[Entry]:
        async with whole_log(url, prefix, archives, side) as log:
            found: list[Entry] = []
            while entries := await log.read_after(found[-1].position if found else START, count):
                found += entries
            return found

    return asyncio.run(read())


def folder_of(archives: Path, prefix: str, side: Side = SI) -> Path:
    """Return the folder of a side's archive."""
    return archive_folder(archives, prefix, side)


def entries_in(archives: Path, prefix: str, side: Side = SI) -> list[Entry]:
    """Return all entries of the archive alone."""
    archive = Archive(folder_of(archives, prefix, side), side)
    archive.refresh()
    return archive.read_after(START, 10**9)


def assert_intact(archives: Path, prefix: str, side: Side = SI) -> Verified:
    """The archive is as its manifest says, and its numbers fit; return what was verified."""
    found = verify_archive(folder_of(archives, prefix, side), side)
    assert found.flaws == []
    assert sum(segment.count for segment in found.manifest.segments) == found.manifest.entries
    assert found.manifest == read_manifest(folder_of(archives, prefix, side), side)
    return found


def places_around(positions: Iterable[Position]) -> list[Position]:
    """Return positions, the ones right after them, and both ends of all."""
    around = {START, Position(f"{2**64 - 1}-{LAST}")}
    for position in positions:
        around |= {position, following(position)}
    return sorted(around, key=order)
