"""One side's projection: keeps its tallies current, turn by turn, and never trusts what it was delivered.

A turn applies a batch only if the stored checkpoint is the one we hold and the batch follows it without a gap. A
repeated, skipped or reordered delivery, a second projector, another generation swapped in, a zombie after a pause, a
lost reply to EXEC: all end in `reload`, after which the reader is rewound to the checkpoint and goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

from schemas.tallies import Checkpoint
from services.runtime.errors import DamagedLogError
from services.runtime.settings import SideSettings
from services.store.contract import Entry, Log, TallyStore
from services.store.loading import load_fitting, require_zone
from services.store.turn import take_turn
from services.tally.fold import FOLD_VERSION, Changes, State


class Partition:
    """The projection of one side over a log and a tally store."""

    def __init__(self, side: SideSettings, log: Log, store: TallyStore) -> None:
        self.side = side
        self.log = log
        self.store = store
        self._generation = ""
        self._state = State(side.side, side.zone)

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint of the state held."""
        return self._state.checkpoint

    async def reload(self) -> None:
        """Forget the state held and take the stored one; DamagedLogError or UsageError if it cannot be used."""
        stored, checkpoint, extent = await load_fitting(self.side, self.log, self.store)
        side = self.side.side
        if beyond := extent.beyond(checkpoint):
            raise DamagedLogError(f"side {side} cannot be counted on from here: {beyond}")
        if stored.checkpoint is None:
            checkpoint = Checkpoint(fold_version=FOLD_VERSION)
        if checkpoint.fold_version != FOLD_VERSION:
            raise DamagedLogError(
                f"the tallies of side {side} were made by counting rules version {checkpoint.fold_version}, "
                f"this program has version {FOLD_VERSION}: `fieldtally rebuild --swap` makes them anew from the log"
            )
        require_zone(self.side, checkpoint)
        self._generation = stored.generation
        self._state = State(side, self.side.zone, checkpoint, stored.tallies, stored.devices, stored.operations)

    async def turn(self, entries: Sequence[Entry]) -> Changes | None:
        """Apply a batch and record it; None if it could not be, and the caller must `reload` and rewind."""
        return await take_turn(self.log, self.store, self._generation, self._state, entries)
