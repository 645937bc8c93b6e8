"""Loads derived state together with how far its log reaches, and refuses what does not fit together."""

from __future__ import annotations

from typing import NamedTuple

from schemas.tallies import Checkpoint
from schemas.vocabulary import Side
from services.runtime.errors import DamagedLogError, UsageError
from services.runtime.settings import SideSettings
from services.store.contract import Log, LogExtent, Stored, TallyStore


class Loaded(NamedTuple):
    """What is stored, its checkpoint (the beginning, if there is none), and how far the log reaches."""

    stored: Stored
    checkpoint: Checkpoint
    extent: LogExtent


async def load_fitting(side: SideSettings, log: Log, store: TallyStore) -> Loaded:
    """Load one side's state; whatever comes in meanwhile, the log reaches at least as far.

    Raises:
        DamagedLogError: the log lacks something that was counted or has yet to be. Stop: no waiting mends it.
        UnsoundTalliesError: what is stored is damaged; the log may be replayed all the same.

    """
    stored = await store.load()
    while True:
        checkpoint = stored.checkpoint or Checkpoint()
        extent = await log.extent()
        lacking = extent.lacks(checkpoint)
        if not lacking:
            break
        # Unless both were emptied between the two looks.
        again = await store.load()
        if again.checkpoint == stored.checkpoint:
            raise DamagedLogError(
                f"the log of side {side.side} has lost entries: {lacking}; restore the log, then start again"
            )
        stored = again
    return Loaded(stored, checkpoint, extent)


def require_one_log(side: Side, extent: LogExtent) -> None:
    """Raise DamagedLogError if what the archive holds and what the stream holds are not one log."""
    if extent.mixed:
        raise DamagedLogError(f"side {side}: {extent.mixed}")


def require_zone(side: SideSettings, counted: Checkpoint) -> None:
    """Raise UsageError if the stored days were counted in another zone than the settings have now."""
    if counted.zone and counted.zone != str(side.zone):
        raise UsageError(
            f"the days of side {side.side} were counted in {counted.zone}, FIELDTALLY_SIDES says {side.zone}: "
            "put it back, or `fieldtally rebuild --swap` counts them anew"
        )
