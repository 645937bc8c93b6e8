"""Rebuilds tallies from the log: the same fold as the projector's, from the first entry, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from msgspec.structs import asdict

from schemas.events import OpeningBalance
from schemas.vocabulary import Position, order
from services.runtime.ending import end
from services.runtime.errors import DamagedLogError
from services.runtime.settings import SideSettings
from services.store.contract import Log
from services.store.index_entry import IndexEntry
from services.store.loading import require_one_log
from services.store.versions import versions_in_force
from services.tally.balances import Replayed
from services.tally.fold import Arrival, Key, State, Version, fold

if TYPE_CHECKING:
    from services.store.recurrence import Recurring

BATCH: Final = 2_000


class Replay:
    """One side's state, rebuilt step by step; `run` may be called again to go on further.

    `recurring` says which reports come again up to its last position, and no other is remembered.
    """

    def __init__(self, side: SideSettings, log: Log, recurring: Recurring | None = None) -> None:
        self.state = State(side.side, side.zone)
        self._balances: dict[Key, OpeningBalance] = {}
        self._log = log
        self._recurring = recurring
        self._index: dict[Key, IndexEntry] = {}  # where each report stands, if nobody knows which come again
        self._awaited: dict[Key, Version] = {}  # else the reports themselves that do

    def replayed(self) -> Replayed:
        """Return the state as it is now, with the opening balances in force; what is folded later leaves it alone."""
        return Replayed(**asdict(self.state.copy()), balances=self._balances.copy())

    async def run(self, until: Position, on_progress: Callable[[int], None] = lambda _: None) -> None:
        """Fold every entry up to and with a position; DamagedLogError if the log is not whole."""
        extent = await self._log.extent()
        require_one_log(self.state.side, extent)
        if extent.lost:
            held = f"holds {extent.length} of the {extent.appended} entries ever appended"
            archived = f", {extent.archived} are archived up to {extent.archive_end}" if extent.archived else ""
            raise DamagedLogError(
                f"the log of side {self.state.side} is incomplete: it {held}{archived}, so no figure can be rebuilt "
                "from it; restore the log first"
            )
        limit = order(until)
        if self._recurring and limit > order(self._recurring.last):
            raise ValueError("it is not known which reports come again so late in the log")
        reading = asyncio.create_task(self._read(self.state.checkpoint.position))
        try:
            while arrivals := await reading:
                last = arrivals[-1].position
                if order(last) < limit:  # the next batch is on its way while this one is folded
                    reading = asyncio.create_task(self._read(last))
                if order(last) > limit:
                    arrivals = [arrival for arrival in arrivals if order(arrival.position) <= limit]
                if arrivals:
                    await self._fold(arrivals)
                    on_progress(len(arrivals))
                if order(last) >= limit:
                    return
        finally:
            await end(reading)

    async def _read(self, position: Position) -> list[Arrival]:
        return await self._log.read_arrivals(position, BATCH)

    async def _fold(self, arrivals: list[Arrival]) -> None:
        changes = fold(self.state, arrivals, await self._known(arrivals))
        self.state.take(changes)
        for key, version in changes.index.items():
            if isinstance(version.event, OpeningBalance):
                self._balances[key] = version.event
            elif self._balances:
                self._balances.pop(key, None)  # withdrawn
        self._remember(arrivals, changes.index)

    def _remember(self, arrivals: list[Arrival], index: Mapping[Key, Version]) -> None:
        """Keep what later batches may need of what is in force now for the keys of this one."""
        if self._recurring is None:
            for key, version in index.items():
                self._index[key] = IndexEntry(version.position, version.event.revision, version.original_missing)
            return
        again = self._recurring.take([arrival.key for arrival in arrivals if arrival.event])
        for arrival in arrivals:
            if arrival.key in self._awaited and arrival.key not in again:
                del self._awaited[arrival.key]
        self._awaited |= {key: index[key] for key in again if key in index}

    async def _known(self, arrivals: list[Arrival]) -> Mapping[Key, Version]:
        if self._recurring is not None:
            return {arrival.key: self._awaited[arrival.key] for arrival in arrivals if arrival.key in self._awaited}
        again = {arrival.key: self._index[arrival.key] for arrival in arrivals if arrival.key in self._index}
        return await versions_in_force(self._log, again) if again else {}
