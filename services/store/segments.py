"""The archive of one side's log, as it is read: immutable Parquet segments, and the manifest that chains them.

A line of the manifest describes one segment and carries the SHA-256 of the line before, so whoever knows the hash of
the last line (the head) knows that nothing before it was altered. By hand: `sed -n 1p manifest.ndjson | sha256sum`.
"""

from __future__ import annotations

import hashlib
import re
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from schemas.vocabulary import START, Position, Side, order
from services.runtime.errors import DamagedLogError, UsageError
from services.store.contract import Entry
from services.tally.fold import Arrival

if TYPE_CHECKING:
    from services.store.recurrence import Marks, Recurring
    from services.store.segment_file import SegmentFile

MANIFEST: Final = "manifest.ndjson"
NO_LINE: Final = "0" * 64
"""What the first line of a manifest carries in the place of a hash."""
OPEN_FILES: Final = 8

_json: Final = msgspec.json.Encoder()
_position: Final = re.compile(r"(0|[1-9][0-9]{0,19})-(0|[1-9][0-9]{0,19})")


_Read = TypeVar("_Read", Entry, Arrival)
_Reading: TypeAlias = tuple[Position, list[_Read], Iterator[list[_Read]]] | None
"""How reading goes on behind a position: with what is left of the last piece, then with the pieces after it."""


class DamagedArchiveError(DamagedLogError):
    """The archive is not what was written. A person looks, with `fieldtally archive verify`.

    `file` is the segment whose line in the manifest is wrong or gone, where that is known.
    """

    file: str = ""


class Segment(Struct, frozen=True, forbid_unknown_fields=True):
    """A line of the manifest.

    `count` entries from `first` to `last` stand in `file`; `before` entries stand in the segments before it. `size` is
    in bytes, `previous` the SHA-256 of the line before, with its line feed.
    """

    number: int
    file: str
    side: Side
    first: Position
    last: Position
    count: int
    before: int
    size: int
    sha256: str
    previous: str

    def line(self) -> bytes:
        """Return the line as it stands in the manifest."""
        return _json.encode(self) + b"\n"


_segment: Final = msgspec.json.Decoder(Segment)


class Manifest(Struct, frozen=True):
    """The segments in their order, and the SHA-256 of the last line."""

    segments: tuple[Segment, ...] = ()
    head: str = NO_LINE

    @property
    def end(self) -> Position:
        """The last archived position."""
        return self.segments[-1].last if self.segments else START

    @property
    def entries(self) -> int:
        """How many entries are archived."""
        return self.segments[-1].before + self.segments[-1].count if self.segments else 0

    def with_segment(self, segment: Segment) -> Manifest:
        """Return the manifest with one more line."""
        return Manifest((*self.segments, segment), hashlib.sha256(segment.line()).hexdigest())

    def hash_at(self, entries: int) -> str | None:
        """Return the head as it was when the archive ended after so many entries; None if it never did."""
        if not entries:
            return NO_LINE
        following = [*(segment.previous for segment in self.segments[1:]), self.head]
        ends = (segment.before + segment.count for segment in self.segments)
        return next((head for end, head in zip(ends, following, strict=False) if end == entries), None)

    def encoded(self) -> bytes:
        """Return the manifest as it stands in its file."""
        return b"".join(segment.line() for segment in self.segments)


def archive_folder(archive_dir: Path, prefix: str, side: Side) -> Path:
    """Return where a side's archive is kept."""
    return archive_dir / f"{prefix}-{side}"


def segment_name(number: int) -> str:
    """Return the name of the file of a segment; numbers count up from 1."""
    return f"{number:06}.parquet"


def read_manifest(folder: Path, side: Side) -> Manifest:
    """Read a manifest and check its chain; an absent one is empty.

    Raises:
        DamagedArchiveError: it is not what was written; names file and line.
        UsageError: it cannot be read.

    """
    path = folder / MANIFEST
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return Manifest()
    except OSError as error:
        raise _unreadable(path, error) from error
    manifest = Manifest()
    for number, line in enumerate(lines, 1):
        segment = read_line(line)
        file, wrong = _wrong(manifest, segment, side, lines)
        if segment is None or wrong:
            damage = DamagedArchiveError(f"{path}, line {number}: {wrong}; restore the file")
            damage.file = file
            raise damage
        manifest = manifest.with_segment(segment)
    return manifest


def read_line(line: bytes) -> Segment | None:
    """Return what a line of a manifest says; None if it is no such line."""
    try:
        return _segment.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _unreadable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path}: {error.strerror or 'cannot be read'}; the archive is kept there")


def _wrong(before: Manifest, segment: Segment | None, side: Side, lines: Sequence[bytes]) -> tuple[str, str]:
    """Say why a line cannot follow those before it, and of which segment; nothing wrong is the empty string."""
    number = len(before.segments) + 1
    own = segment_name(number)
    if segment is None:
        return own, f"not what Fieldtally writes; the line of {own} belongs there"
    if segment.line() != lines[number - 1]:
        return own, f"altered: not as Fieldtally writes the line of {own}"
    if (segment.number, segment.file) != (number, own):
        return _misplaced(before, segment, lines)
    if segment.previous != before.head:
        return _parted(before, segment, lines)
    return own, f"the line of {own} {wrong}" if (wrong := _impossible(before, segment, side)) else ""


def _misplaced(before: Manifest, segment: Segment, lines: Sequence[bytes]) -> tuple[str, str]:
    """Say how a line came to stand where that of another segment belongs."""
    number = len(before.segments) + 1
    own = segment_name(number)
    named = segment.file == segment_name(segment.number) and segment.number > 0
    if segment.previous == before.head or not named:
        says = f"describes segment {segment.number} in {segment.file[:40]!r}"
        return own, f"altered: {says}, where the line of {own} belongs"
    if segment.number < number:
        return segment.file, f"doubled: describes {segment.file} again, as line {segment.number} does"
    for later, line in enumerate(lines[number:], number + 1):
        if (other := read_line(line)) and other.file == own:
            return own, f"swapped: describes {segment.file}, and line {later} {own}"
    gone = own if segment.number == number + 1 else f"{own} to {segment_name(segment.number - 1)}"
    return own, f"dropped: describes {segment.file}; no line describes {gone}"


def _parted(before: Manifest, segment: Segment, lines: Sequence[bytes]) -> tuple[str, str]:
    """Say which of two lines was altered where the second carries another hash than that of the first.

    The line after the two knows whether the second is as it was written; without one, nobody does.
    """
    hashes = f"{segment.previous[:12]}…, not {before.head[:12]}…"
    number = segment.number
    if number == 1:
        return segment.file, f"altered: the line of {segment.file}, the first, carries the hash {hashes}"
    last = segment_name(number - 1)
    if number == len(lines) or not (after := read_line(lines[number])):
        both = f"the line of {segment.file}, or that of {last} before it"
        return "", f"altered: {both}: it carries the hash {hashes}"
    if after.previous == hashlib.sha256(lines[number - 1]).hexdigest():
        return last, f"line {number - 1}, of {last}, was altered: that of {segment.file} carries the hash {hashes}"
    return segment.file, f"altered: the line of {segment.file} carries the hash {hashes}"


def _impossible(before: Manifest, segment: Segment, side: Side) -> str:
    """Say what a line with the right hash cannot say all the same; the empty string if nothing."""
    if segment.side != side:
        return f"is of side {segment.side[:40]!r}"
    if segment.count < 1:
        return f"says that it has {segment.count:,} entries"
    if segment.before != before.entries:
        return f"says that {segment.before:,} entries come before it, but there are {before.entries:,}"
    if not (_position.fullmatch(segment.first) and _position.fullmatch(segment.last)):
        return f"reaches from {segment.first[:40]!r} to {segment.last[:40]!r}, which are no positions"
    if not order(before.end) < order(segment.first) <= order(segment.last):
        return f"reaches from {segment.first} to {segment.last}, after {before.end}"
    return ""


class Archive:
    """Reads one side's archive. Whoever reads notices what is archived meanwhile; nothing is ever taken away.

    DamagedArchiveError, from every method, if it is not what was archived; UsageError if it cannot be read.
    """

    def __init__(self, folder: Path, side: Side) -> None:
        self.folder = folder
        self.side = side
        self.manifest = Manifest()
        self._seen: tuple[int, int, int] | None = None
        self._reading = threading.Lock()
        # Nothing that the archive holds refers to it: who lets go of it closes its files, at once.
        self._open = lru_cache(OPEN_FILES)(partial(_opened, folder))
        self._entries: _Reading[Entry] = None
        self._arrivals: _Reading[Arrival] = None

    @property
    def end(self) -> Position:
        """The last archived position."""
        return self.manifest.end

    def refresh(self) -> bool:
        """Take in what was archived since; return whether anything was."""
        path = self.folder / MANIFEST
        try:
            found = path.stat()
        except FileNotFoundError:
            seen = None
        except OSError as error:
            raise _unreadable(path, error) from error
        else:
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
        if seen == self._seen:
            return False
        with self._reading:
            self.manifest, self._seen = read_manifest(self.folder, self.side), seen
            self._entries = self._arrivals = None
            self._open.cache_clear()
        return True

    def read_after(self, position: Position, count: int) -> list[Entry]:
        """Return up to `count` archived entries after a position, in order. Reading on from where one was is fast."""
        with self._reading:
            goes_on, self._entries = self._entries, None
            if not goes_on or goes_on[0] != position:
                goes_on = (position, [], _pieces(self.manifest, self._open, position, "after"))
            found, self._entries = _first(goes_on, count)
            return found

    def read_arrivals(self, position: Position, count: int) -> list[Arrival]:
        """Return up to `count` archived entries after a position, as the fold takes them."""
        with self._reading:
            goes_on, self._arrivals = self._arrivals, None
            if not goes_on or goes_on[0] != position:
                goes_on = (position, [], _pieces(self.manifest, self._open, position, "arrivals_after"))
            found, self._arrivals = _first(goes_on, count)
            return found

    def read_before(self, position: Position, count: int) -> list[Entry]:
        """Return up to `count` archived entries at and before a position, the newest first."""
        found: list[Entry] = []
        with self._reading:
            for segment in reversed(self.manifest.segments):
                if order(segment.first) > order(position):
                    continue
                for entries in self._open(segment).before(position):
                    found += entries
                    if len(found) >= count:
                        return found[:count]
        return found

    def read_at(self, positions: Sequence[Position]) -> list[Entry | None]:
        """Return the archived entries at these positions, None for each that is not there."""
        segments = self.manifest.segments
        wanted: dict[Segment, list[Position]] = {}
        for position in dict.fromkeys(positions):
            place = order(position)
            index = bisect_right(segments, place, key=lambda segment: order(segment.first)) - 1
            if index >= 0 and place <= order(segments[index].last):
                wanted.setdefault(segments[index], []).append(position)
        with self._reading:
            found = {entry.position: entry for segment in wanted for entry in self._open(segment).at(wanted[segment])}
        return [found.get(position) for position in positions]

    def recurring(self, last: Position, later: Sequence[Marks] = ()) -> Recurring:
        """Find which reports come again up to a position, among those archived and the marks of later ones."""
        from services.store.recurrence import find_recurring  # noqa: PLC0415  # see `_opened`

        segments = [segment for segment in self.manifest.segments if order(segment.first) <= order(last)]

        def read() -> Iterator[Marks]:
            for segment in segments:
                yield from self._open(segment).marks()
            yield from later

        with self._reading:
            return find_recurring(read, sum(segment.count for segment in segments) + sum(map(len, later)), last)

    def paths(self, until: Position | None = None) -> list[Path]:
        """Return the files that hold the entries up to a position, or all; the last may hold more.

        DamagedArchiveError if one of them is not what was archived: who reads them need not ask again.
        """
        chosen = [
            segment for segment in self.manifest.segments if until is None or order(segment.first) <= order(until)
        ]
        for segment in chosen:
            _opened(self.folder, segment)
        return [self.folder / segment.file for segment in chosen]


def _opened(folder: Path, segment: Segment) -> SegmentFile:
    # 70 MB and a tenth of a second that a log without an archive does not need.
    from services.store.segment_file import SegmentFile  # noqa: PLC0415

    return SegmentFile(folder / segment.file, segment)


def _pieces(
    manifest: Manifest, opened: Callable[[Segment], SegmentFile], position: Position, way: str
) -> Iterator[list[Any]]:
    for segment in manifest.segments:
        if order(segment.last) > order(position):
            yield from getattr(opened(segment), way)(position)


def _first(
    goes_on: tuple[Position, list[_Read], Iterator[list[_Read]]], count: int
) -> tuple[list[_Read], _Reading[_Read]]:
    """Return the first `count` of what goes on, and how it goes on behind them."""
    _, found, pieces = goes_on
    while len(found) < count and (piece := next(pieces, None)) is not None:
        found += piece
    rest = found[count:]
    del found[count:]
    return found, (found[-1].position, rest, pieces) if found else None
