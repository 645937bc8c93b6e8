"""Verifies an archive against its manifest: every file is there, whole, in its place and as it was written.

What a manifest cannot know is whether it was rewritten together with its files: for that, somebody keeps the head (the
hash of the last line) elsewhere. The server keeps the one by which its log was trimmed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from schemas.vocabulary import Side
from services.archive.writer import sha256_of
from services.store.segments import MANIFEST, NO_LINE, DamagedArchiveError, Manifest, Segment, read_manifest

_segment: Final = msgspec.json.Decoder(Segment)


class Flaw(Struct, frozen=True):
    """What is wrong with one file of an archive."""

    side: Side
    file: str
    wrong: str


class Verified(Struct, frozen=True):
    """What a verification found: an archive as its manifest has it, and what is wrong with it."""

    side: Side
    manifest: Manifest
    flaws: list[Flaw]


def archive_size(folder: Path) -> int:
    """Return how many bytes a verification reads."""
    return sum(path.stat().st_size for path in folder.glob("*.parquet") if path.is_file())


def verify_archive(
    folder: Path, side: Side, head: str | None = None, on_progress: Callable[[int], None] = lambda _: None
) -> Verified:
    """Verify all files of a side's archive; with `head`, also that the archive once ended with this hash."""
    flaws: list[Flaw] = []

    def found(file: str, wrong: str) -> None:
        flaws.append(Flaw(side, file, wrong))

    try:
        manifest = read_manifest(folder, side)
        segments = list(manifest.segments)
    except DamagedArchiveError as error:
        found(MANIFEST, str(error))
        manifest, segments = Manifest(), _legible(folder)
    if not flaws and head is not None and head not in {NO_LINE, manifest.head, *(one.previous for one in segments)}:
        found(MANIFEST, f"the archive never ended with the hash {head}: it was rewritten, or lines of it are gone")
    files = {path.name: path for path in sorted(folder.glob("*.parquet"))} if folder.is_dir() else {}
    hashes = {name: sha256_of(path, on_progress) for name, path in files.items() if path.is_file()}
    owner = {segment.sha256: segment.file for segment in segments}
    named = {segment.file for segment in segments}
    for segment in segments:
        if segment.file not in files:
            elsewhere = [name for name, sha256 in hashes.items() if sha256 == segment.sha256 and name not in named]
            found(segment.file, f"missing{f'; {elsewhere[0]} holds its content' if elsewhere else ''}")
        elif hashes.get(segment.file) != segment.sha256:
            found(segment.file, _altered(files[segment.file], segment, owner.get(hashes.get(segment.file, ""))))
    for name in files.keys() - named:
        copied = owner.get(hashes.get(name, ""))
        what = f"a second copy of {copied}" if copied else "left by a run that was interrupted, or its line is gone"
        found(name, f"in no line of the manifest: {what}")
    return Verified(side, manifest, sorted(flaws, key=lambda flaw: flaw.file))


def _altered(path: Path, segment: Segment, owner: str | None) -> str:
    """Say how a file differs from what the manifest has of it."""
    if owner:
        return f"swapped: it holds what belongs in {owner}"
    size = path.stat().st_size
    if size < segment.size:
        return f"cut: {size:,} of {segment.size:,} bytes are left"
    if size > segment.size:
        return f"altered: {size - segment.size:,} bytes longer than it was"
    return f"altered: its SHA-256 is not the one it had{_where(path)}"


def _where(path: Path) -> str:
    """Say which row groups of a file of the right size can no longer be read, if any: often that is where it hurts."""
    try:
        file: Any = pq.ParquetFile(path)
    except (OSError, ValueError, pa.ArrowException):
        return "; it can no longer be read"
    broken = []
    for index in range(file.num_row_groups):
        try:
            file.read_row_group(index)
        except (OSError, ValueError, pa.ArrowException):
            statistics = file.metadata.row_group(index).column(0).statistics
            broken.append(f"{statistics.min}-0 to {statistics.max}")
    return f"; entries cannot be read from {', '.join(broken)}" if broken else ""


def _legible(folder: Path) -> list[Segment]:
    """Return the lines of a damaged manifest that can be read, so that the files can be looked at all the same."""
    try:
        lines = (folder / MANIFEST).read_bytes().splitlines(keepends=True)
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            found.append(_segment.decode(line))
        except (msgspec.MsgspecError, ValueError):
            continue
    return found
