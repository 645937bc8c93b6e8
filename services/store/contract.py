"""What a store of logs and tallies promises; `log` and `tally_store` keep it on Redis, `memory` without a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from schemas.tallies import Checkpoint, DeviceNumbers, Operation, Parked
from schemas.vocabulary import START, Position, order
from services.store.index_entry import IndexEntry
from services.tally.cells import Tallies
from services.tally.fold import Arrival, Changes, Key


class Entry(Struct, frozen=True, gc=False):
    """One entry of the log as it stands there."""

    position: Position
    fields: Mapping[bytes, bytes]


class LogExtent(Struct, frozen=True):
    """How far a log reaches: its last ID ever given, how many entries its stream holds, and how many it was ever given.

    `newest_deleted` is the highest position from which an entry was taken singly; cutting off the beginning leaves it.
    `archived` entries, up to `archive_end`, stand in the archive, the folder `archive`. `apart`: this stream never held
    some of them, for it is another server's, or was set back.
    """

    last: Position
    length: int
    appended: int
    newest_deleted: Position = START
    archived: int = 0
    archive_end: Position = START
    apart: bool = False
    archive: str = ""

    @property
    def trimmed(self) -> int:
        """Entries that are no longer in the stream."""
        return self.appended - self.length

    @property
    def lost(self) -> int:
        """Entries that are neither in stream nor archive, as far as they can be counted; 0 if all are there."""
        taken_singly = self.trimmed > 0 and order(self.newest_deleted) > order(self.archive_end)
        return max(self.trimmed - self.archived, int(taken_singly))

    @property
    def entries(self) -> int:
        """How many entries there are to read, in archive and stream; at most, where the two are apart."""
        return self.appended + (self.archived if self.apart else 0)

    @property
    def mixed(self) -> str:
        """Say why stream and archive are not one log, though both hold something; the empty string if they are.

        Over a stream that was never given anything, as where an auditor has a copy, the archive alone is the log.
        """
        return self.foreign if self.appended else ""

    @property
    def foreign(self) -> str:
        """Say what the archive has that the stream never held; the empty string if nothing."""
        if not self.apart:
            return ""
        return (
            f"the archive in {self.archive} has {self.archived:,} entries up to {self.archive_end}, some of which the "
            "log of this server never held: restore the server from a copy, or, where there is none, with `fieldtally "
            "archive restore`; or set FIELDTALLY_DATA_DIR to the folder of this server's archive"
        )

    def lacks(self, counted: Checkpoint) -> str:
        """Say what is gone of what the tallies hold, or have yet to take in; the empty string if nothing is.

        What was taken out of the stream after it was counted is not asked for here: that is for a replay. Nor is what
        only the archive has: `beyond` tells of that.
        """
        if order(self.last) < order(counted.position):
            return f"it ends at {self.last}, but the tallies reach {counted.position}"
        if self.entries < counted.entries:
            return f"{self.entries:,} were ever appended to it, but the tallies hold {counted.entries:,}"
        if self.trimmed > counted.entries and self.lost:
            held = f"the tallies hold {counted.entries:,}"
            return f"{self.trimmed:,} of the {self.appended:,} ever appended are gone, and {held}"
        at_end = self.last == counted.position and counted.entries < self.appended
        taken_singly = order(self.newest_deleted) > max(order(counted.position), order(self.archive_end))
        if at_end or taken_singly:
            return f"some of the {self.appended:,} ever appended were gone before they were counted"
        return ""

    def beyond(self, counted: Checkpoint) -> str:
        """Say why the tallies cannot go on with what the stream holds, though nothing is lost; the empty string if so.

        Who only follows the stream asks this: it would count on behind what only the archive has.
        """
        if self.apart:
            return self.foreign
        if self.trimmed > counted.entries or order(self.newest_deleted) > order(counted.position):
            return (
                f"the tallies hold {counted.entries:,} entries, and of those that follow only the archive has some: "
                "`fieldtally rebuild --swap` makes the tallies anew from archive and stream"
            )
        return ""


class Trimmed(Struct, frozen=True):
    """How far a stream was trimmed, and by which archive: one with so many entries, and that hash at its end."""

    position: Position
    entries: int
    head: str


class Stored(Struct):
    """One generation of derived state as stored, read at one instant. Devices are named `unit/device`."""

    generation: str
    checkpoint: Checkpoint | None
    tallies: Tallies
    devices: dict[str, DeviceNumbers]
    operations: dict[str, Operation]


class StoredAt(Struct, frozen=True):
    """Which state a projector holds: a generation and its checkpoint."""

    generation: str
    checkpoint: Checkpoint


class Log(Protocol):
    """One partition's log."""

    async def append(self, events: Sequence[bytes], *, by: str | None = None) -> list[Position]:
        """Append canonical events in order and return their positions; durable as the server is set to be."""
        ...

    async def read_after(self, position: Position, count: int) -> list[Entry]:
        """Return up to `count` entries after a position, in order."""
        ...

    async def read_arrivals(self, position: Position, count: int) -> list[Arrival]:
        """Return up to `count` entries after a position, in order, as the fold takes them."""
        ...

    async def read_at(self, positions: Sequence[Position]) -> list[Entry | None]:
        """Return the entries at these positions, None for each that is not there."""
        ...

    async def extent(self) -> LogExtent:
        """Return how far the log reaches; an absent log is empty."""
        ...


class TallyStore(Protocol):
    """One partition's derived state, changed only by compare-and-set on its checkpoint."""

    async def load(self) -> Stored:
        """Read the live generation, all of it at one instant."""
        ...

    async def open_turn(self, held: StoredAt, first: Position, keys: Sequence[Key]) -> list[IndexEntry | None] | None:
        """Begin a turn on the entries from `first` on: return what the index holds for the keys, in their order.

        None if the state held is not the stored one, if the log has an entry between the checkpoint and `first`, or if
        `first` is not after the checkpoint: then the caller loads again.
        """
        ...

    async def record(self, changes: Changes) -> bool:
        """Record a turn, all or nothing; False if the checkpoint or the generation moved since the turn was opened."""
        ...

    async def parked(self) -> dict[Position, Parked]:
        """Return what was set aside, by position, in the order of the log."""
        ...

    async def close(self) -> None:
        """Give up the connection that turns are made on."""
        ...
