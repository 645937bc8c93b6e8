"""The log as one, whichever part of it is in the archive and whichever in the stream.

What is archived is read there, whether or not the stream has it too: so it is the same log before a trim and after.
Of what was trimmed the server knows which archive has it: without that one, what is missing is said, never left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from schemas.vocabulary import START, Position, order
from services.store.connection import Client
from services.store.contract import Entry, LogExtent, Trimmed
from services.store.keys import PartitionKeys
from services.store.log import RedisLog
from services.store.segments import Archive, DamagedArchiveError, Manifest, archive_folder
from services.tally.fold import Arrival, arrive

if TYPE_CHECKING:
    from services.store.recurrence import Recurring

READ_AHEAD: Final = 4_096


class WholeLog:
    """One partition's log over archive and stream; see `contract.Log`.

    DamagedArchiveError, from every method that reads, if what was trimmed is not in this archive; UsageError if the
    archive cannot be read.
    """

    def __init__(self, stream: RedisLog, archive: Archive) -> None:
        self.stream = stream
        self.archive = archive
        self._related = False

    async def append(self, events: Sequence[bytes], *, by: str | None = None) -> list[Position]:
        """Append events to the stream, in order."""
        return await self.stream.append(events, by=by)

    async def read_after(self, position: Position, count: int, *, block_ms: int | None = None) -> list[Entry]:
        """Return up to `count` entries after a position; with `block_ms`, wait that long for the first."""
        found: list[Entry] = []
        self._refresh()
        if order(position) < order(self.archive.end):
            await self._settle()
        while len(found) < count:
            if order(position) < order(self.archive.end):
                found += await asyncio.to_thread(self.archive.read_after, position, count - len(found))
                position = found[-1].position
                continue
            wait_ms = None if found else block_ms
            entries = await self.stream.read_after(position, count - len(found), block_ms=wait_ms)
            await self._settle()
            # Archived meanwhile, it may have been trimmed as well, and the stream would have gone on behind the gap.
            if order(position) >= order(self.archive.end):
                return found + entries
        return found

    async def read_arrivals(self, position: Position, count: int) -> list[Arrival]:
        """Return up to `count` entries after a position, as the fold takes them; for replays, which do nothing else."""
        self._refresh()
        if order(position) < order(self.archive.end):
            await self._settle()
            return self.archive.read_arrivals(position, count)
        return [arrive(entry.position, entry.fields) for entry in await self.read_after(position, count)]

    async def read_before(self, position: Position, count: int) -> list[Entry]:
        """Return up to `count` entries at and before a position, the newest first."""
        entries = await self.stream.read_before(position, count)
        await self._settle()
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
        await self._settle()
        gone = [position for position, entry in zip(positions, entries, strict=True) if entry is None]
        archived = iter(await asyncio.to_thread(self.archive.read_at, gone))
        return [entry or next(archived) for entry in entries]

    async def extent(self) -> LogExtent:
        """Return how far the log reaches, and how much of it is archived."""
        extent = await self.stream.extent()
        await self._settle()
        manifest = self.archive.manifest
        return replace(
            extent,
            last=max(extent.last, manifest.end, key=order),
            archived=manifest.entries,
            archive_end=manifest.end,
            apart=await self._is_apart(extent, manifest),
            archive=str(self.archive.folder) if manifest.segments else "",
        )

    async def recurring(self, last: Position) -> Recurring | None:
        """Return which reports come again up to a position, or to where the log ends now.

        None if nothing is archived: then any may.
        """
        last = min(last, (await self.extent()).last, key=order)  # of what is still to come nothing is known
        if not self.archive.manifest.segments:
            return None
        from services.store.recurrence import marks_of_entries  # noqa: PLC0415  # only for those who have an archive

        position, later = self.archive.end, []
        while order(position) < order(last) and (entries := await self.stream.read_after(position, READ_AHEAD)):
            position = entries[-1].position
            later.append(marks_of_entries(entries))
        await self._settle()  # what was archived meanwhile may have been trimmed before it was read here
        return await asyncio.to_thread(self.archive.recurring, last, later)

    def _refresh(self) -> None:
        """Take in what was archived since."""
        if self.archive.refresh():
            self._related = False

    async def _settle(self) -> None:
        """Take in what was archived; raise DamagedArchiveError if what was trimmed until now is not in this archive.

        The stream is asked first: whatever it says was trimmed is archived by the time the archive is looked at.
        """
        trimmed = await self.stream.trimmed()
        self._refresh()
        if trimmed and self.archive.manifest.hash_at(trimmed.entries) != trimmed.head:
            raise DamagedArchiveError(
                f"the log of side {self.archive.side} was trimmed up to {trimmed.position}; what was taken out is in "
                f"the archive that had {trimmed.entries:,} entries and the hash {trimmed.head[:12]}…, not the one "
                f"in {self.archive.folder}: put that archive there, or say where it is with FIELDTALLY_DATA_DIR"
            )
        if not self._related:
            await self._require_related(trimmed)
            self._related = True

    async def _require_related(self, trimmed: Trimmed | None) -> None:
        """Raise DamagedArchiveError if the stream holds something, where the archive reaches, that is not in it."""
        end = self.archive.end
        if not self.archive.manifest.segments or (trimmed and order(trimmed.position) >= order(end)):
            return
        first = await self.stream.read_after(START, 1)
        if not first or order(first[0].position) > order(end):
            return
        if all(await self.stream.read_at([end])):  # two logs never have an entry at the same position
            return
        if await asyncio.to_thread(self.archive.read_at, [first[0].position]) != first:
            raise DamagedArchiveError(
                f"{self.archive.folder} is the archive of another log than that of side {self.archive.side} on this "
                "server: put the archive of this one there, or say where it is with FIELDTALLY_DATA_DIR"
            )

    async def _is_apart(self, extent: LogExtent, manifest: Manifest) -> bool:
        """Tell whether the stream never held some of what is archived."""
        if not manifest.segments:
            return False
        if not _reaches(extent, manifest):  # unless it was appended and archived just now
            extent = await self.stream.extent()
        if not _reaches(extent, manifest):
            return True
        # The end is asked for before the beginning: a trim in between shows in the latter.
        [last] = await self.stream.read_at([manifest.end])
        if last:
            return False
        first = await self.stream.read_after(START, 1)
        extent = await self.stream.extent()
        if first and order(first[0].position) < order(manifest.end):
            return order(extent.newest_deleted) < order(manifest.end)
        return extent.trimmed < manifest.entries


def _reaches(extent: LogExtent, manifest: Manifest) -> bool:
    return order(extent.last) >= order(manifest.end) and extent.appended >= manifest.entries


def open_log(client: Client, url: str, keys: PartitionKeys, archive_dir: Path) -> WholeLog:
    """Return the log of a partition over the stream on a server and the archive in a folder."""
    folder = archive_folder(archive_dir, keys.prefix, keys.side)
    return WholeLog(RedisLog(client, url, keys), Archive(folder, keys.side))
