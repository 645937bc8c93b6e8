"""The in-memory twin of log and tally store, under the same contract suite: for tests, and to fold without a server."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from schemas.tallies import Checkpoint, Parked
from schemas.vocabulary import START, Position
from services.store.contract import Entry, LogExtent, Stored, StoredAt
from services.store.index_entry import IndexEntry, pack_version, unpack
from services.tally.fold import Arrival, Changes, Key, arrive


class MemoryLog:
    """One partition's log; see `contract.Log`. Positions count up from 1-0."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    async def append(self, events: Sequence[bytes], *, by: str | None = None) -> list[Position]:
        """Append canonical events in order."""
        return [
            self.append_fields({b"event": event} | ({b"by": by.encode()} if by is not None else {})) for event in events
        ]

    def append_fields(self, fields: dict[bytes, bytes]) -> Position:
        """Append whatever a direct write may hold."""
        position = Position(f"{len(self.entries) + 1}-0")
        self.entries.append(Entry(position, fields))
        return position

    async def read_after(self, position: Position, count: int) -> list[Entry]:
        """Return up to `count` entries after a position."""
        start = int(position.partition("-")[0])
        return self.entries[start : start + count]

    async def read_arrivals(self, position: Position, count: int) -> list[Arrival]:
        """Return up to `count` entries after a position, as the fold takes them."""
        return [arrive(entry.position, entry.fields) for entry in await self.read_after(position, count)]

    async def read_at(self, positions: Sequence[Position]) -> list[Entry | None]:
        """Return the entries at these positions."""
        numbers = [int(position.partition("-")[0]) for position in positions]
        entries = [self.entries[number - 1] if 0 < number <= len(self.entries) else None for number in numbers]
        return [
            entry if entry and entry.position == position else None
            for entry, position in zip(entries, positions, strict=True)
        ]

    async def trimmed(self) -> None:
        """Return how far it was trimmed: never."""
        return

    async def extent(self) -> LogExtent:
        """Return how far the log reaches."""
        last = self.entries[-1].position if self.entries else START
        return LogExtent(last=last, length=len(self.entries), appended=len(self.entries))


class MemoryTallyStore:
    """One partition's derived state; see `contract.TallyStore`. It shares a `MemoryLog` to see what was skipped."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._stored = Stored(generation="g1", checkpoint=None, tallies={}, devices={}, operations={})
        self._index: dict[Key, bytes] = {}
        self._parked: dict[Position, Parked] = {}
        self._opened: StoredAt | None = None

    async def load(self) -> Stored:
        """Return a copy of what is stored."""
        return copy.deepcopy(self._stored)

    async def open_turn(self, held: StoredAt, first: Position, keys: Sequence[Key]) -> list[IndexEntry | None] | None:
        """Compare, and look the keys up."""
        self._opened = None
        if not self._is_stored(held):
            return None
        following = await self._log.read_after(held.checkpoint.position, 1)
        if not following or following[0].position != first:
            return None
        self._opened = held
        return [self._entry(key) for key in keys]

    async def record(self, changes: Changes) -> bool:
        """Record a turn if nobody else did."""
        held, self._opened = self._opened, None
        if held is None:
            raise RuntimeError("record without open_turn")
        if not self._is_stored(held):
            return False
        stored = self._stored
        stored.checkpoint = changes.checkpoint
        stored.tallies.update(changes.cells)
        stored.tallies = {cell: count for cell, count in stored.tallies.items() if count}
        stored.devices.update(copy.deepcopy(changes.devices))
        stored.operations.update(changes.operations)
        self._parked.update(changes.parked)
        for key, version in changes.index.items():
            self._index[key] = pack_version(version)
        return True

    async def parked(self) -> dict[Position, Parked]:
        """Return what was set aside, in the order of the log."""
        return dict(self._parked)

    async def close(self) -> None:
        """Nothing is held open."""

    def _is_stored(self, held: StoredAt) -> bool:
        stored = self._stored.checkpoint or Checkpoint(fold_version=held.checkpoint.fold_version)
        return held.generation == self._stored.generation and held.checkpoint == stored

    def _entry(self, key: Key) -> IndexEntry | None:
        packed = self._index.get(key)
        return None if packed is None else unpack(packed)
