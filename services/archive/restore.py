"""Makes an archive the beginning of the log of a server that lost it: one that was emptied, or set back.

Nothing is written back entry by entry. The stream becomes what it would be if all that is archived had been trimmed:
archive and stream are read as one log, and whoever reads it needs the archive.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from schemas.vocabulary import START, Position, order
from services.archive.trim import PIECE, require_as_written
from services.archive.writer import writing
from services.runtime.errors import DamagedLogError, UsageError
from services.store.contract import LogExtent, Trimmed
from services.store.log import RedisLog
from services.store.segments import Archive
from services.store.whole_log import WholeLog


class Restored(Struct, frozen=True):
    """What became of a side: entries that are its log's again, up to where, and how many follow them in the stream."""

    restored: int
    to: Position
    recorded_since: int


async def restore_log(
    stream: RedisLog,
    archive: Archive,
    counted: Position,
    *,
    went_on: bool,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Restored:
    """Let the stream go on behind the archive; `went_on` says that what it holds beyond it was recorded since the loss.

    `counted` is how far the live tallies reach.

    Safe to interrupt, and to repeat: a log that has all of its archive is left as it is.

    Raises:
        DamagedArchiveError: the archive is not what was written, or is another log's.
        DamagedLogError: stream and archive differ, or something else is lost than what the archive has.
        UsageError: it is not said of what follows in the stream that it follows the archive; or somebody archives here.

    """
    log = WholeLog(stream, archive)
    extent = await log.extent()
    if not extent.apart:
        return Restored(0, archive.end, extent.entries - extent.archived)
    with writing(archive.folder, archive.side):
        extent = await log.extent()
        require_as_written(archive.folder, archive.side, "nothing is restored")
        held = await _require_held(stream, archive, on_progress)
        _require_mendable(archive, extent, counted, extent.length - held, went_on=went_on)
        since = await stream.begin_behind(Trimmed(archive.end, archive.manifest.entries, archive.manifest.head))
        return Restored(archive.manifest.entries - held, archive.end, since)


async def _require_held(stream: RedisLog, archive: Archive, on_progress: Callable[[int], None]) -> int:
    """Return how many entries of the stream the archive has; DamagedLogError if it has them otherwise."""
    held, position = 0, START
    while True:
        entries = [
            entry for entry in await stream.read_after(position, PIECE) if order(entry.position) <= order(archive.end)
        ]
        if not entries:
            return held
        if archive.read_at([entry.position for entry in entries]) != entries:
            raise DamagedLogError(
                f"side {archive.side}: the stream and the archive in {archive.folder} differ between "
                f"{entries[0].position} and {entries[-1].position}; nothing is restored"
            )
        position = entries[-1].position
        held += len(entries)
        on_progress(len(entries))


def _require_mendable(archive: Archive, extent: LogExtent, counted: Position, since: int, *, went_on: bool) -> None:
    side = archive.side
    if order(counted) > order(archive.end):
        raise DamagedLogError(
            f"side {side}: the live tallies reach {counted}, beyond {archive.end} where the archive ends, so "
            "more is lost than it has; restore the server from a copy"
        )
    if order(extent.newest_deleted) > order(archive.end):
        raise DamagedLogError(
            f"side {side}: entries up to {extent.newest_deleted} were taken out of the stream that are not archived; "
            "restore the server from a copy"
        )
    if since and not went_on:
        raise UsageError(
            f"side {side}: behind {archive.end}, where the archive ends, the stream goes on to {extent.last}, with "
            f"{since:,} more; if that was recorded after this server had lost what is archived, say so with --went-on; "
            "if not, this is another server's archive"
        )
