"""One turn: a batch of the log folded into a generation of derived state, and recorded by compare-and-set."""

from __future__ import annotations

from collections.abc import Sequence

from services.store.contract import Entry, Log, StoredAt, TallyStore
from services.store.versions import versions_in_force
from services.tally.fold import Changes, State, arrive, fold


async def take_turn(
    log: Log, store: TallyStore, generation: str, state: State, entries: Sequence[Entry]
) -> Changes | None:
    """Fold a batch into the state held of a generation, once it is recorded.

    None if it could not be: what is stored is not the state held, or the batch does not follow it without a gap. Then
    the caller loads again.
    """
    arrivals = [arrive(entry.position, entry.fields) for entry in entries]
    keys = list(dict.fromkeys(arrival.key for arrival in arrivals if arrival.event is not None))
    opened = await store.open_turn(StoredAt(generation, state.checkpoint), arrivals[0].position, keys)
    if opened is None:
        return None
    again = {key: entry for key, entry in zip(keys, opened, strict=True) if entry is not None}
    known = await versions_in_force(log, again) if again else {}
    changes = fold(state, arrivals, known)
    if not await store.record(changes):
        return None
    state.take(changes)
    return changes
