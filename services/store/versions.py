"""Reads back from the log the events that are in force for keys which come again: the fold takes their counts out."""

from __future__ import annotations

from collections.abc import Mapping

from services.runtime.errors import DamagedLogError
from services.store.contract import Log
from services.store.index_entry import IndexEntry
from services.tally.fold import Key, Version, arrive


async def versions_in_force(log: Log, indexed: Mapping[Key, IndexEntry]) -> dict[Key, Version]:
    """Return the version of each key; DamagedLogError if the log no longer has its entry."""
    entries = await log.read_at([entry.position for entry in indexed.values()])
    versions: dict[Key, Version] = {}
    for (key, index_entry), entry in zip(indexed.items(), entries, strict=True):
        event = arrive(entry.position, entry.fields).event if entry else None
        if event is None:
            raise DamagedLogError(
                f"the log has lost the entry at {index_entry.position}, which a later report repeats or amends; "
                "restore the log, then start again"
            )
        versions[key] = Version(event, index_entry.position, index_entry.original_missing, index_entry.original)
    return versions
