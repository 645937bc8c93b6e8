"""Takes out of a side's stream what is archived and verified, counted, and older than a limit; nothing else, ever.

Before a piece is taken out, the archive's copy is held against it, byte for byte. With each piece, in one transaction,
the server notes how far it was trimmed and by which archive: whoever reads the log later needs that one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from schemas.vocabulary import START, Position, Side, order, preceding
from services.archive.verify import verify_archive
from services.archive.writer import writing
from services.runtime.errors import DamagedLogError
from services.store.contract import Entry, Trimmed
from services.store.log import RedisLog
from services.store.segments import Archive, DamagedArchiveError
from services.store.whole_log import WholeLog

PIECE: Final = 4_096


async def trim_log(
    stream: RedisLog,
    archive: Archive,
    counted: Position,
    before_ms: int,
    on_progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Trim the stream up to `counted`, of what was received before a time (milliseconds); return how many entries went.

    Raises:
        DamagedArchiveError: the archive is not what was written; nothing more is taken out.
        DamagedLogError: the stream holds something else than the archive.
        UsageError: somebody archives here at this moment, or the folder cannot be written.

    """
    with writing(archive.folder, archive.side):
        if (await WholeLog(stream, archive).extent()).apart:
            raise DamagedLogError(
                f"{archive.folder} is not the archive of the log of side {archive.side} on this server, or the log was "
                "set back; nothing is trimmed"
            )
        require_as_written(archive.folder, archive.side, "nothing is trimmed")
        last = min(archive.end, counted, key=order)
        taken, position = 0, START
        while True:
            entries = [
                entry
                for entry in await stream.read_after(position, PIECE)
                if order(entry.position) <= order(last) and order(entry.position)[0] < before_ms
            ]
            if not entries:
                return taken
            before = position if taken else preceding(entries[0].position)
            if not _archived(archive, before, entries):
                raise DamagedLogError(
                    f"side {archive.side}: the stream and the archive differ between {entries[0].position} and "
                    f"{entries[-1].position}; nothing from there on is trimmed"
                )
            position = entries[-1].position
            await stream.trim(Trimmed(position, archive.manifest.entries, archive.manifest.head))
            taken += len(entries)
            on_progress(len(entries))


def require_as_written(folder: Path, side: Side, undone: str) -> None:
    """Raise DamagedArchiveError, with what is left undone, if a file of an archive is not what was written."""
    if flaws := verify_archive(folder, side).flaws:
        raise DamagedArchiveError(f"{folder / flaws[0].file}: {flaws[0].wrong}; {undone}")


def _archived(archive: Archive, before: Position, entries: list[Entry]) -> bool:
    """Tell whether the archive has these entries as the stream has them."""
    # Where somebody took single entries out of the stream, the archive has more than these.
    return archive.read_after(before, len(entries)) == entries or (
        archive.read_at([entry.position for entry in entries]) == entries
    )
