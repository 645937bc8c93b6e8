"""Verifies an archive against its manifest: every file is there, whole, in its place and as it was written.

What a manifest cannot know is whether it was rewritten together with its files: for that, somebody keeps the head (the
hash of the last line) elsewhere. The server keeps the one by which its log was trimmed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
from msgspec import Struct

from schemas.vocabulary import Side
from services.archive.writer import is_written
from services.runtime.errors import FieldtallyError
from services.store.contract import Trimmed
from services.store.segment_file import sha256_of
from services.store.segments import (
    MANIFEST,
    NO_LINE,
    DamagedArchiveError,
    Manifest,
    Segment,
    read_line,
    read_manifest,
    segment_name,
)

LISTED_MAX: Final = 1_000
"""Segments without a line that are listed, where a line far on has been left or was made up."""


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
    folder: Path,
    side: Side,
    head: str | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
    trimmed: Trimmed | None = None,
) -> Verified:
    """Verify all files of a side's archive; with `head`, also that the archive once ended with this hash.

    With `trimmed`, which the server was asked for before, also that this is the archive that its log was trimmed by.
    """
    flaws: list[Flaw] = []

    def found(file: str, wrong: str) -> None:
        flaws.append(Flaw(side, file, wrong))

    segments: list[Segment] = []
    damaged = ""
    try:
        manifest = read_manifest(folder, side)
        segments = [*manifest.segments]
    except FieldtallyError as error:
        found(MANIFEST, str(error))
        damaged = error.file if isinstance(error, DamagedArchiveError) else ""
        manifest, segments = Manifest(), _legible(folder)
    files = _files(folder)
    if files and not segments and not flaws:
        found(MANIFEST, _without_lines(folder, files))
    if not flaws and head is not None and head not in {NO_LINE, manifest.head, *(one.previous for one in segments)}:
        found(
            MANIFEST,
            f"the archive never ended with the hash {head}: it was rewritten, lines of it are gone, "
            "or this is the head of another side or archive",
        )
    if not flaws and trimmed and manifest.hash_at(trimmed.entries) != trimmed.head:
        found(MANIFEST, _of_another_trim(manifest, trimmed))
    for file, wrong in _out_of_place(segments).items():
        found(file, wrong)
    hashes = {name: _hash(path, on_progress) for name, path in files.items()}
    # Of two lines about a file, the one that is right about it.
    named = {one.file: one for one in sorted(segments, key=lambda one: hashes.get(one.file) == one.sha256)}
    owner = {segment.sha256: segment.file for segment in named.values()}
    for segment in named.values():
        if segment.file not in files:
            elsewhere = [name for name, sha256 in hashes.items() if sha256 == segment.sha256 and name not in named]
            found(segment.file, f"missing{f'; {elsewhere[0]} holds its content' if elsewhere else ''}")
        elif hashes[segment.file] != segment.sha256:
            found(segment.file, _altered(files[segment.file], segment, owner.get(hashes[segment.file])))
        elif wrong := _misdescribed(files[segment.file], segment):
            found(segment.file, f"{folder / MANIFEST}, line {segment.number}: {wrong}; restore the file")
    dropped = _dropped(named) - {damaged}
    for name in files.keys() - named.keys() - {damaged} - _written_since(folder, side):
        found(name, f"in no line of the manifest{_unlisted(name, hashes[name], owner, dropped)}")
    for name in dropped - files.keys():
        found(name, "missing, and no line of the manifest describes it")
    if damaged and damaged not in {flaw.file for flaw in flaws}:
        lost = "" if damaged in files else "missing; "
        found(damaged, f"{lost}its line in {MANIFEST} is {'not as written' if damaged in named else 'gone or altered'}")
    return Verified(side, manifest, sorted(flaws, key=lambda flaw: (flaw.file != MANIFEST, flaw.file)))


def _without_lines(folder: Path, files: dict[str, Path]) -> str:
    """Say what is wrong with a manifest that has no line where segments lie."""
    state = "empty" if (folder / MANIFEST).exists() else "missing"
    if set(files) == {segment_name(1)}:
        again = "if the first run of `fieldtally archive` was interrupted, run it again, else restore the file"
        return f"{state}, but there is a segment: {again}"
    return f"{state}, but there are segments: restore the file"


def _of_another_trim(manifest: Manifest, trimmed: Trimmed) -> str:
    """Say how an archive differs from the one that a log was trimmed by."""
    if manifest.entries < trimmed.entries:
        how = f"this one ends after {manifest.entries:,}: it is older, or its last segments are gone with their lines"
    else:
        how = "this one has another there: it was rewritten, or is of another log"
    return (
        f"the server's log was trimmed up to {trimmed.position} by an archive with {trimmed.entries:,} entries and the "
        f"hash {trimmed.head[:12]}…; {how}"
    )


def _out_of_place(segments: Sequence[Segment]) -> dict[str, str]:
    """Say of each segment whose line stands twice in a manifest, or in the place of another; read from the top."""
    lines = Counter(segment.file for segment in segments)
    found = {file: "doubled: the manifest has more than one line of it" for file, count in lines.items() if count > 1}
    highest: Segment | None = None
    for segment in segments:
        if lines[segment.file] > 1:
            continue
        if highest and segment.number < highest.number:
            found.setdefault(highest.file, f"swapped: its line stands before that of {segment.file}")
            found[segment.file] = f"swapped: its line stands behind that of {highest.file}"
        else:
            highest = segment
    return found


def _dropped(named: dict[str, Segment]) -> set[str]:
    """Return the segments without a line, though segments behind them have one."""
    last = min(max((one.number for one in named.values()), default=0), len(named) + LISTED_MAX)
    return {segment_name(number) for number in range(1, last)} - named.keys()


def _unlisted(name: str, sha256: str, owner: dict[str, str], dropped: set[str]) -> str:
    """Say what a file may be that is in no line of a manifest; nothing where no file is."""
    if not owner:
        return ""
    if copied := owner.get(sha256):
        return f": a second copy of {copied}"
    return ": its line was dropped" if name in dropped else ": left by a run that was interrupted, or its line is gone"


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
    """Return what a damaged manifest has of its files all the same: the lines that can be read and name their own."""
    try:
        lines = (folder / MANIFEST).read_bytes().splitlines(keepends=True)
    except OSError:
        return []
    return [segment for line in lines if (segment := read_line(line)) and segment.file == segment_name(segment.number)]
