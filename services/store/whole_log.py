"""The log as one, whichever part of it is in the archive and whichever in the stream.

What is archived is read there, whether or not the stream has it too: so it is the same log before a trim and after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from schemas.vocabulary import Position, order
from services.store.connection import Client
from services.store.contract import Entry, LogExtent, Trimmed
from services.store.keys import PartitionKeys
from services.store.log import RedisLog
from services.store.segments import Archive, DamagedArchiveError, archive_folder
from services.tally.fold import Arrival, arrive

if TYPE_CHECKING:
    from services.store.recurrence import Recurring

READ_AHEAD: Final = 4_096


class WholeLog:
    """One partition's log over archive and stream; see `contract.Log`."""

    def __init__(self, stream: RedisLog, archive: Archive) -> None:
        self.stream = stream
        self.archive = archive

    async def append(self, events: Sequence[bytes], *, by: str | None = None) -> list[Position]:
        """Append events to the stream, in order."""
        return await self.stream.append(events, by=by)

    async def read_after(self, position: Position, count: int, *, block_ms: int | None = None) -> list[Entry]:
        """Return up to `count` entries after a position; with `block_ms`, wait that long for the first."""
        place = order(position)
        self.archive.refresh()
        while True:
            if place < order(self.archive.end):
                return await asyncio.to_thread(self.archive.read_after, position, count)
            entries = await self.stream.read_after(position, count, block_ms=block_ms)
            # Archived meanwhile, it may have been trimmed as well, and the stream would have gone on behind the gap.
            if not self.archive.refresh() or place >= order(self.archive.end):
                return entries

    async def read_arrivals(self, position: Position, count: int) -> list[Arrival]:
        """Return up to `count` entries after a position, as the fold takes them; for replays, which do nothing else."""
        self.archive.refresh()
        if order(position) < order(self.archive.end):
            return self.archive.read_arrivals(position, count)
        return [arrive(entry.position, entry.fields) for entry in await self.read_after(position, count)]

    async def read_before(self, position: Position, count: int) -> list[Entry]:
        """Return up to `count` entries at and before a position, the newest first."""
        entries = await self.stream.read_before(position, count)
        self.archive.refresh()
        end = order(self.archive.end)
        entries = [entry for entry in entries if order(entry.position) > end]
        if len(entries) < count and self.archive.manifest.segments:
            older = min(position, self.archive.end, key=order)
            entries += await asyncio.to_thread(self.archive.read_before, older, count - len(entries))
        return entries

    async def read_at(self, positions: Sequence[Position]) -> list[Entry | None]:
        """Return the entries at these positions, None for each that is not there."""
        entries = await self.stream.read_at(positions)
        if all(entries):
            return entries
        self.archive.refresh()
        gone = [position for position, entry in zip(positions, entries, strict=True) if entry is None]
        archived = iter(await asyncio.to_thread(self.archive.read_at, gone))
        return [entry or next(archived) for entry in entries]

    async def extent(self) -> LogExtent:
        """Return how far the log reaches, and how much of it is archived."""
        extent = await self.stream.extent()
        self.archive.refresh()  # after the stream: what is trimmed there is archived here
        manifest = self.archive.manifest
        if extent.trimmed and (trimmed := await self.stream.trimmed()):
            self._require(trimmed)
        return replace(
            extent, last=max(extent.last, manifest.end, key=order), archived=manifest.entries, archive_end=manifest.end
        )

    async def recurring(self, last: Position) -> Recurring | None:
        """Return which reports come again up to a position; None if nothing is archived: then any may."""
        self.archive.refresh()
        if not self.archive.manifest.segments:
            return None
        from services.store.recurrence import marks_of_entries  # noqa: PLC0415  # only for those who have an archive

        position, later = self.archive.end, []
        while order(position) < order(last) and (entries := await self.stream.read_after(position, READ_AHEAD)):
            position = entries[-1].position
            later.append(marks_of_entries(entries))
        return await asyncio.to_thread(self.archive.recurring, last, later)

    def _require(self, trimmed: Trimmed) -> None:
        """Raise DamagedArchiveError unless this archive is, or has grown from, the one the stream was trimmed by."""
        if self.archive.manifest.hash_at(trimmed.entries) != trimmed.head:
            raise DamagedArchiveError(
                f"the log of side {self.archive.side} was trimmed up to {trimmed.position}; what was taken out is in "
                f"the archive that had {trimmed.entries:,} entries and the hash {trimmed.head[:12]}…, not the one "
                f"in {self.archive.folder}: put that archive there, or say where it is with FIELDTALLY_DATA_DIR"
            )


def open_log(client: Client, url: str, keys: PartitionKeys, archive_dir: Path) -> WholeLog:
    """Return the log of a partition over the stream on a server and the archive in a folder."""
    folder = archive_folder(archive_dir, keys.prefix, keys.side)
    return WholeLog(RedisLog(client, url, keys), Archive(folder, keys.side))
