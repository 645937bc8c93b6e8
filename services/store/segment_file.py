"""One segment of the archive, a Parquet file: its entries after, before and at positions."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.vocabulary import Position, order
from services.store.columns import ARRIVAL_COLUMNS, ENTRY_COLUMNS, arrivals_of, entries_of
from services.store.contract import Entry
from services.store.recurrence import Marks, marks_of, marks_of_entries
from services.store.segments import DamagedArchiveError, Segment
from services.tally.fold import Arrival

READ_ROWS: Final = 2_000
MARK_ROWS: Final = 65_536
HASH_BYTES: Final = 1 << 20

Read = TypeVar("Read", Entry, Arrival)


def sha256_of(path: Path, on_progress: Callable[[int], None] = lambda _: None) -> str:
    """Return the SHA-256 of a file, telling how many bytes were read."""
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(HASH_BYTES):
            hashed.update(piece)
            on_progress(len(piece))
    return hashed.hexdigest()


class SegmentFile:
    """Reads one segment; DamagedArchiveError, from every method, if it is not what was archived.

    Its hash is taken before anything is read of it: 2 ms for a megabyte, and no figure ever comes from other bytes.
    """

    def __init__(self, path: Path, segment: Segment) -> None:
        self._path = path
        with self._readable():
            if self._path.stat().st_size != segment.size or sha256_of(self._path) != segment.sha256:
                raise ValueError("other bytes")
            self._file: Any = pq.ParquetFile(self._path)
            metadata = self._file.metadata
            if metadata.num_rows != segment.count:
                raise ValueError("another count")
            groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
            self._first_ms = [group.column(0).statistics.min for group in groups]

    def after(self, position: Position) -> Iterator[list[Entry]]:
        """Yield the entries after a position, in order, some at a time."""
        return self._after(position, ENTRY_COLUMNS, entries_of)

    def arrivals_after(self, position: Position) -> Iterator[list[Arrival]]:
        """Yield the entries after a position, in order, some at a time, as the fold takes them."""
        return self._after(position, ARRIVAL_COLUMNS, arrivals_of)

    def _after(
        self, position: Position, columns: Sequence[str], read: Callable[[pa.RecordBatch], list[Read]]
    ) -> Iterator[list[Read]]:
        limit = order(position)
        groups = range(self._group_at(limit), len(self._first_ms))
        with self._readable():
            for batch in self._file.iter_batches(READ_ROWS, groups, list(columns)):
                found = read(batch)
                if order(found[0].position) <= limit:
                    found = [one for one in found if order(one.position) > limit]
                if found:
                    yield found

    def before(self, position: Position) -> Iterator[list[Entry]]:
        """Yield the entries at and before a position, the newest first, some at a time."""
        limit = order(position)
        with self._readable():
            for index in reversed(range(self._group_at(limit, last=True) + 1)):
                found = entries_of(self._file.read_row_group(index, list(ENTRY_COLUMNS)))
                yield [entry for entry in reversed(found) if order(entry.position) <= limit]

    def at(self, positions: Sequence[Position]) -> Iterator[Entry]:
        """Yield the entries that stand at these positions."""
        by_group: dict[int, set[tuple[int, int]]] = {}
        for place in map(order, positions):
            for index in range(self._group_at(place), self._group_at(place, last=True) + 1):
                by_group.setdefault(index, set()).add(place)
        with self._readable():
            for index, wanted in by_group.items():
                table = self._file.read_row_group(index, list(ENTRY_COLUMNS))
                places = zip(table.column("ms").to_pylist(), table.column("seq").to_pylist(), strict=True)
                rows = [row for row, place in enumerate(places) if place in wanted]
                yield from entries_of(table.take(pa.array(rows, pa.int64())))

    def marks(self) -> Iterator[Marks]:
        """Yield the marks of the reports in it (see `recurrence`)."""
        with self._readable():
            unread = False
            for batch in self._file.iter_batches(MARK_ROWS, columns=["id", "amends"]):
                ids, amends = (batch.column(name).storage for name in ("id", "amends"))
                unread = unread or ids.null_count > 0
                keys = pc.coalesce(amends, ids).drop_null()
                yield marks_of(keys.buffers()[1].slice(keys.offset * 16, len(keys) * 16).to_pybytes())
            if not unread:
                return
            # What was no event when it was archived may be one to a later program.
            for batch in self._file.iter_batches(MARK_ROWS, columns=list(ENTRY_COLUMNS)):
                yield marks_of_entries(entries_of(batch.filter(pc.is_null(batch.column("id").storage))))

    def _group_at(self, place: tuple[int, int], *, last: bool = False) -> int:
        """Return the first or the last row group that may hold a place: those of one millisecond may lie in several."""
        index = bisect_right(self._first_ms, place[0]) - 1
        while not last and index > 0 and self._first_ms[index] == place[0]:
            index -= 1
        return max(index, 0)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise DamagedArchiveError(f"{self._path} is missing from the archive; restore it from a copy") from error
        except (OSError, ValueError, LookupError, pa.ArrowException) as error:
            if isinstance(error, OSError) and error.strerror:
                raise DamagedArchiveError(
                    f"{self._path}: {error.strerror}; the archive cannot be read there"
                ) from error
            raise DamagedArchiveError(
                f"{self._path} is not the segment that was archived: `fieldtally archive verify` says more"
            ) from error
