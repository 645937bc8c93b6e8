"""Writes a side's log to its archive: segments that never change, each in the manifest once it is whole and on disk.

A run that is interrupted at any moment leaves the archive as it was after the last whole segment, and the next one goes
on from there. A segment is read back and compared with what was read from the log before the manifest names it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import pyarrow.parquet as pq

from schemas.vocabulary import START, Position, Side, order
from services.runtime.errors import DamagedLogError, FaultError, UsageError
from services.store.columns import ENCODINGS, SCHEMA, WORD_COLUMNS, table_of
from services.store.contract import Entry
from services.store.log import RedisLog
from services.store.segment_file import SegmentFile, sha256_of
from services.store.segments import MANIFEST, Archive, Manifest, Segment, segment_name
from services.store.whole_log import WholeLog

SEGMENT_ENTRIES: Final = 262_144
GROUP_ENTRIES: Final = 16_384
"""Entries of a row group: as much as is unpacked to read one of them."""
LEVEL: Final = 12
"""Of zstd: 19 takes a tenth less space and thirty times as long."""
ID_LEVEL: Final = 19
"""Of the ids, which are a third of the archive and take hardly longer for it."""
READ_ENTRIES: Final = 4_096
LOCK: Final = "lock"
LOCK_PAUSES_S: Final = (0.01, 0.05, 0.2)
_PART: Final = ".part"


async def archive_log(
    stream: RedisLog,
    archive: Archive,
    until: Position | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> list[Segment]:
    """Archive the log's entries up to a position, or to where it ends now; return the segments that are new.

    Raises:
        DamagedLogError: entries are gone that were never archived, or the archive is not what was written, as which
            it is verified first.
        UsageError: somebody archives here at this moment, or the folder cannot be written.

    """
    with writing(archive.folder, archive.side):
        extent = await WholeLog(stream, archive).extent()
        if extent.apart:
            raise DamagedLogError(f"side {archive.side}: {extent.foreign}")
        if extent.lost:
            raise DamagedLogError(
                f"the log of side {archive.side} has lost entries: {extent.trimmed:,} are no longer in the stream, and "
                f"{extent.archived:,} are archived up to {extent.archive_end}; restore the log from a copy before "
                "anything is archived"
            )
        archive.paths()  # nothing is written behind what is damaged: the new head would vouch for it
        last = min(extent.last, until, key=order) if until else extent.last
        new = []
        while order(archive.end) < order(last):
            segment = await _write_segment(stream, archive, last, extent.trimmed, on_progress)
            if segment is None:
                break
            new.append(segment)
            archive.refresh()
        return new


async def _write_segment(
    stream: RedisLog, archive: Archive, last: Position, trimmed: int, on_progress: Callable[[int], None]
) -> Segment | None:
    """Write one more segment; None if the log has no entry up to there. `trimmed` entries were gone at the start."""
    manifest = archive.manifest
    number = len(manifest.segments) + 1
    path = archive.folder / segment_name(number)
    part = path.with_name(path.name + _PART)
    fingerprint, count, first, position = Fingerprint(), 0, START, manifest.end
    with _parquet(part) as write:
        waiting: list[Entry] = []
        while count < SEGMENT_ENTRIES:
            entries = await stream.read_after(position, min(READ_ENTRIES, SEGMENT_ENTRIES - count))
            entries = [entry for entry in entries if order(entry.position) <= order(last)]
            if not entries:
                break
            first = first if count else entries[0].position
            position = entries[-1].position
            count += len(entries)
            fingerprint.take(entries)
            waiting += entries
            if len(waiting) >= GROUP_ENTRIES:
                write(waiting)
                waiting = []
            on_progress(len(entries))
        if waiting:
            write(waiting)
    if (await stream.extent()).trimmed != trimmed:
        part.unlink()
        raise DamagedLogError(
            f"somebody took entries out of the log of side {archive.side} while it was archived; the archive is as "
            f"before: `fieldtally archive` again says whether they are lost"
        )
    if not count:
        part.unlink()
        return None
    _sync(part)
    segment = Segment(
        number=number, file=path.name, side=archive.side, first=first, last=position, count=count,
        before=manifest.entries, size=part.stat().st_size, sha256=sha256_of(part), previous=manifest.head,
    )  # fmt: skip
    back = Fingerprint()
    for entries in SegmentFile(part, segment).after(START):
        back.take(entries)
    if back.digest() != fingerprint.digest():
        raise FaultError(f"{part} does not read back as what stands in the log; nothing was archived")
    part.replace(path)
    write_manifest(archive.folder, manifest.with_segment(segment))
    return segment


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put a manifest in the place of the one that is there, whole or not at all."""
    _sync(folder)  # the segments' names first: a manifest never names a file that a power cut can take away
    part = folder / (MANIFEST + _PART)
    with part.open("wb") as file:
        file.write(manifest.encoded())
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / MANIFEST)
    _sync(folder)


class Fingerprint:
    """A hash over entries, positions and all fields: equal for equal entries only."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=32)

    def take(self, entries: Iterable[Entry]) -> None:
        """Take entries in, in their order."""
        for entry in entries:
            parts = [entry.position.encode(), *(part for pair in sorted(entry.fields.items()) for part in pair)]
            self._hash.update(b"".join(b"%d:%b" % (len(part), part) for part in parts) + b"\n")

    def digest(self) -> bytes:
        """Return the hash of all that was taken in."""
        return self._hash.digest()


@contextmanager
def writing(folder: Path, side: Side) -> Iterator[None]:
    """Be the only one who changes this archive, or what of the log depends on it."""
    try:
        new = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for made in new:  # a power cut must not take away the folder of what was trimmed
            _sync(made.parent)
        lock = (folder / LOCK).open("w")
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror or 'cannot be written'}; the archive is kept there") from error
    with lock:
        if not _taken(lock):
            raise UsageError(f"somebody archives side {side} in {folder} at this moment; try again later")
        try:
            yield
        except OSError as error:
            raise UsageError(f"{folder}: {error.strerror or 'cannot be written'}; the archive is as before") from error


def _taken(lock: IO[str]) -> bool:
    """Take a lock, and tell whether that was possible; whoever asks with `is_written` holds it for a moment only."""
    for pause in (*LOCK_PAUSES_S, None):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if pause is not None:
                time.sleep(pause)
        else:
            return True
    return False


def is_written(folder: Path) -> bool:
    """Tell whether somebody changes this archive now."""
    try:
        with (folder / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def _parquet(path: Path) -> Iterator[Callable[[list[Entry]], None]]:
    """Yield what writes a row group."""
    writer: Any = pq.ParquetWriter(
        path,
        SCHEMA,
        compression="zstd",
        compression_level={name: ID_LEVEL if name == "id" else LEVEL for name in SCHEMA.names},
        use_dictionary=list(WORD_COLUMNS),
        column_encoding=ENCODINGS,
        write_statistics=["ms", "seq", "time"],
    )
    with writer:
        yield lambda entries: writer.write_table(table_of(entries), row_group_size=len(entries))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
