"""One side's projection: keeps its tallies current, turn by turn, and never trusts what it was delivered.

A turn applies a batch only if the stored checkpoint is the one we hold and the batch follows it without a gap. A
repeated, skipped or reordered delivery, a second projector, a zombie after a pause, a lost reply to EXEC: all end in
`reload`, after which the reader is rewound to the checkpoint and goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

from schemas.tallies import Checkpoint
from services.runtime.errors import DamagedLogError
from services.runtime.settings import SideSettings
from services.store.contract import Entry, Log, StoredAt, TallyStore
from services.store.loading import load_fitting, require_zone
from services.store.versions import versions_in_force
from services.tally.fold import FOLD_VERSION, Changes, State, arrive, fold


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
                f"this program has version {FOLD_VERSION}: rebuild them from the log"
            )
        require_zone(self.side, checkpoint)
        self._generation = stored.generation
        self._state = State(side, self.side.zone, checkpoint, stored.tallies, stored.devices, stored.operations)

    async def turn(self, entries: Sequence[Entry]) -> Changes | None:
        """Apply a batch and record it; None if it could not be, and the caller must `reload` and rewind."""
        arrivals = [arrive(entry.position, entry.fields) for entry in entries]
        keys = list(dict.fromkeys(arrival.key for arrival in arrivals if arrival.event is not None))
        held = StoredAt(self._generation, self.checkpoint)
        opened = await self.store.open_turn(held, arrivals[0].position, keys)
        if opened is None:
            return None
        again = {key: entry for key, entry in zip(keys, opened, strict=True) if entry is not None}
        known = await versions_in_force(self.log, again) if again else {}
        changes = fold(self._state, arrivals, known)
        if not await self.store.record(changes):
            return None
        self._state.take(changes)
        return changes
