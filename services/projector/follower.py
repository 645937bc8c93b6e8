"""Ties one partition to its FastStream subscriber: deliver, recover, rewind, and say what is going on in one line.

FastStream's reader moves its own position before the handler runs and goes on after an exception, so after anything
but a recorded turn the reader is set back to the checkpoint here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from structlog.typing import FilteringBoundLogger

from schemas.vocabulary import Position, order
from services.projector.partition import Partition
from services.runtime.errors import DamagedLogError, FaultError, FieldtallyError, UsageError
from services.store.contract import Entry
from services.store.segments import DamagedArchiveError
from services.store.subscription import Reader

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 15.0


def growing_pause_s(failures: int) -> float:
    """Return how long to wait after so many failures in a row: doubling from 0.1 s to 15 s."""
    return min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 30), LONGEST_PAUSE_S)


class Follower:
    """Keeps one partition following its log.

    `on_progress` hears how many entries were applied, `on_damage` of what no waiting mends.
    """

    def __init__(
        self,
        partition: Partition,
        reader: Reader,
        logger: FilteringBoundLogger,
        on_progress: Callable[[int], None],
        on_damage: Callable[[FieldtallyError], None],
    ) -> None:
        self.partition = partition
        self.stopping = asyncio.Event()
        self._reader = reader
        self._side = partition.side.side
        self._logger = logger.bind(side=self._side)
        self._on_progress = on_progress
        self._on_damage = on_damage
        self._busy = asyncio.Lock()
        self._failures = 0
        self._damaged = False

    async def start(self) -> None:
        """Load the stored state and set the reader behind it; errors go to the caller."""
        await self.partition.reload()
        self._rewind()

    async def deliver(self, entries: Sequence[Entry]) -> None:
        """Take a batch as the reader brought it; never raises."""
        async with self._busy:
            if self._damaged:  # the reader goes on until the program has ended
                return
            try:
                changes = await self.partition.turn(entries)
            except DamagedLogError as damage:
                self._stop(damage)
                return
            except FieldtallyError as error:
                await self._recover(error)
                return
            except Exception as fault:  # noqa: BLE001  # FastStream would swallow it and read on
                kind = type(fault).__name__
                self._stop(FaultError(f"a fault in Fieldtally itself ({kind}) stopped side {self._side}"))
                return
            if changes is None:
                await self._recover(None)
                return
            self._failures = 0
            self._logger.info(
                "batch_applied",
                entries=len(entries),
                position=changes.checkpoint.position,
                cells=len(changes.cells),
                parked=len(changes.parked),
            )
            self._on_progress(len(entries))

    async def check(self) -> None:
        """Look whether the log still reaches the checkpoint: nothing would be delivered if it did not."""
        async with self._busy:
            if self._damaged:
                return
            try:
                extent = await self.partition.log.extent()
                if extent.lacks(self.partition.checkpoint) or extent.beyond(self.partition.checkpoint):
                    await self._recover(None)
            except DamagedArchiveError:
                return  # what comes in can be counted without it; a report that amends an archived one asks for it
            except DamagedLogError as damage:
                self._stop(damage)
            except FieldtallyError:
                return  # the reader meets the same error, says so, and waits

    async def _recover(self, error: FieldtallyError | None) -> None:
        """Forget the state held, take the stored one, rewind; wait with growing pauses as long as that fails."""
        while not self.stopping.is_set():
            if error is None:
                self._logger.info("turn_refused", reason="the stored checkpoint is not the one held, or a gap")
            else:
                self._failures += 1
                pause_s = growing_pause_s(self._failures)
                self._logger.warning("waiting", reason=str(error), wait_s=round(pause_s, 1))
                await self._pause(pause_s)
                if self.stopping.is_set():
                    return
            before = self.partition.checkpoint.position
            try:
                await self.partition.reload()
            except (DamagedLogError, UsageError) as damage:  # no waiting mends it
                self._stop(damage)
                return
            except FieldtallyError as next_error:
                error = next_error
                continue
            if order(self.partition.checkpoint.position) < order(before):
                self._logger.warning(
                    "state_gone",
                    reason=f"the tallies to {before} are gone: the server was emptied or set back",
                    position=self.partition.checkpoint.position,
                )
            self._rewind()
            self._on_progress(0)
            return

    def _stop(self, damage: FieldtallyError) -> None:
        """Apply nothing more, whatever is still delivered, and say why."""
        self._damaged = True
        self._on_damage(damage)

    def _rewind(self) -> None:
        self._reader.last_id = self.partition.checkpoint.position

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return


def reached(partition: Partition, target: Position) -> bool:
    """Tell whether a partition's tallies reach a position."""
    return order(partition.checkpoint.position) >= order(target)
