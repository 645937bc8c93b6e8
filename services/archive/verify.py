"""Verifies an archive against its manifest: every file is there, whole, in its place and as it was written.

What a manifest cannot know is whether it was rewritten together with its files: for that, somebody keeps the head (the
hash of the last line) elsewhere. The server keeps the one by which its log was trimmed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow.parquet as pq
from msgspec import Struct

from schemas.vocabulary import Side
from services.archive.writer import is_written
from services.runtime.errors import FieldtallyError
from services.store.segment_file import sha256_of
from services.store.segments import MANIFEST, NO_LINE, Manifest, Segment, read_manifest, segment_name

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
    return sum(path.stat().st_size for path in _files(folder).values() if path.is_file())


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
    except FieldtallyError as error:
        found(MANIFEST, str(error))
        manifest, segments = Manifest(), _legible(folder)
    files = _files(folder)
    if files and not segments and not flaws:
        found(MANIFEST, "missing, or empty, but there are segments: restore the file")
    if not flaws and head is not None and head not in {NO_LINE, manifest.head, *(one.previous for one in segments)}:
        found(
            MANIFEST,
            f"the archive never ended with the hash {head}: it was rewritten, lines of it are gone, "
            "or this is the head of another side or archive",
        )
    hashes = {name: _hash(path, on_progress) for name, path in files.items()}
    owner = {segment.sha256: segment.file for segment in segments}
    named = {segment.file for segment in segments}
    for segment in segments:
        if segment.file not in files:
            elsewhere = [name for name, sha256 in hashes.items() if sha256 == segment.sha256 and name not in named]
            found(segment.file, f"missing{f'; {elsewhere[0]} holds its content' if elsewhere else ''}")
        elif hashes[segment.file] != segment.sha256:
            found(segment.file, _altered(files[segment.file], segment, owner.get(hashes[segment.file])))
        elif wrong := _misdescribed(files[segment.file], segment):
            found(MANIFEST, f"{folder / MANIFEST}, line {segment.number}: {wrong}; restore the file")
    for name in files.keys() - named - _written_since(folder, side):
        copied = owner.get(hashes[name])
        what = f"a second copy of {copied}" if copied else "left by a run that was interrupted, or its line is gone"
        found(name, f"in no line of the manifest: {what}")
    return Verified(side, manifest, sorted(flaws, key=lambda flaw: flaw.file))


def _files(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(folder.glob("*.parquet"))} if folder.is_dir() else {}


def _hash(path: Path, on_progress: Callable[[int], None]) -> str:
    """Return the SHA-256 of a file; the empty string if it cannot be read."""
    try:
        return sha256_of(path, on_progress)
    except OSError:
        return ""


def _written_since(folder: Path, side: Side) -> set[str]:
    """Return the names of what somebody has archived since the files were listed, or is about to."""
    at_it = is_written(folder)
    try:
        segments = read_manifest(folder, side).segments
    except FieldtallyError:
        return set()
    return {segment.file for segment in segments} | ({segment_name(len(segments) + 1)} if at_it else set())


def _misdescribed(path: Path, segment: Segment) -> str:
    """Say what the manifest has wrong of a file that has its hash; the empty string if nothing."""
    try:
        file: Any = pq.ParquetFile(path)
        ends = [file.read_row_group(index, ["ms", "seq"]).to_pylist() for index in (0, file.num_row_groups - 1)]
        first, last = ends[0][0], ends[1][-1]
        holds = (
            file.metadata.num_rows, f"{first['ms']}-{first['seq']}", f"{last['ms']}-{last['seq']}", path.stat().st_size
        )  # fmt: skip
    except Exception:  # noqa: BLE001  # whoever wrote both anew may have written anything
        return f"altered: {segment.file} is no segment, though it has the hash that stands here"
    if holds == (segment.count, segment.first, segment.last, segment.size):
        return ""
    return "altered: {:,} entries from {} to {} in {:,} bytes stand in {}, not what it says".format(
        *holds, segment.file
    )


def _altered(path: Path, segment: Segment, owner: str | None) -> str:
    """Say how a file differs from what the manifest has of it."""
    if owner:
        return f"swapped: it holds what belongs in {owner}"
    try:
        path.open("rb").close()
        size = path.stat().st_size
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if size < segment.size:
        return f"cut: {size:,} of {segment.size:,} bytes are left"
    if size > segment.size:
        return f"altered: {size - segment.size:,} bytes longer than it was"
    return f"altered: its SHA-256 is not the one in the manifest{_where(path)}"


def _where(path: Path) -> str:
    """Say which row groups of a file of the right size can no longer be read, if any: often that is where it hurts."""
    try:
        file: Any = pq.ParquetFile(path)
    except Exception:  # noqa: BLE001  # of altered bytes, what is not written there can be anything
        return "; it can no longer be read"
    broken = []
    for index in range(file.num_row_groups):
        try:
            file.read_row_group(index)
        except Exception:  # noqa: BLE001
            broken.append(str(index + 1))
    return f"; of {file.num_row_groups} row groups cannot be read: {', '.join(broken)}" if broken else ""


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
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue
    return found
