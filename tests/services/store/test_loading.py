"""Derived state is taken only if the log fits it: nothing that was counted is gone, nor what was yet to be counted."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from schemas.tallies import Checkpoint
from schemas.vocabulary import START, Position, Side
from services.runtime.errors import DamagedLogError, UsageError
from services.runtime.settings import SideSettings
from services.store.contract import LogExtent, Stored
from services.store.loading import load_fitting, require_zone
from services.store.memory import MemoryLog, MemoryTallyStore
from tests.asynchronous import asynchronous

SI = SideSettings(Side("SI"), ZoneInfo("Europe/Ljubljana"), "SVN")
COUNTED = Checkpoint(position=Position("5-0"), entries=5)
WHOLE = LogExtent(last=Position("9-0"), length=9, appended=9)


@pytest.mark.parametrize(
    ("extent", "counted"),
    [
        (WHOLE, COUNTED),
        (WHOLE, Checkpoint()),
        (LogExtent(last=START, length=0, appended=0), Checkpoint()),
        # What was counted may be trimmed, or taken out singly.
        (replace(WHOLE, length=4), COUNTED),
        (replace(WHOLE, length=8, newest_deleted=Position("5-0")), COUNTED),
    ],
)
def test_a_log_that_lacks_nothing_fits(extent: LogExtent, counted: Checkpoint) -> None:
    assert "" == extent.lacks(counted)


@pytest.mark.parametrize(
    ("extent", "counted", "words"),
    [
        (LogExtent(last=Position("4-0"), length=4, appended=4), COUNTED, "it ends at 4-0, but the tallies reach 5-0"),
        (replace(WHOLE, length=1, appended=1), COUNTED, "1 were ever appended to it, but the tallies hold 5"),
        (replace(WHOLE, length=3), COUNTED, "6 of the 9 ever appended are gone, and the tallies hold 5"),
        (replace(WHOLE, length=8), Checkpoint(), "1 of the 9 ever appended are gone, and the tallies hold 0"),
        (replace(WHOLE, length=8, newest_deleted=Position("6-0")), COUNTED, "gone before they were counted"),
        (LogExtent(last=Position("5-0"), length=5, appended=6), COUNTED, "gone before they were counted"),
    ],
)
def test_a_log_that_lacks_something_says_what(extent: LogExtent, counted: Checkpoint, words: str) -> None:
    assert words in extent.lacks(counted)


class Emptied(MemoryTallyStore):
    """Is emptied, log and all, right after it was looked at."""

    async def load(self) -> Stored:
        """Return what is stored, and forget everything."""
        stored = await super().load()
        self._stored = Stored(generation="g1", checkpoint=None, tallies={}, devices={}, operations={})
        self._log.entries.clear()
        return stored


async def counted(store: MemoryTallyStore, log: MemoryLog) -> None:
    last = (await log.append([b"one", b"two"]))[-1]
    store._stored.checkpoint = Checkpoint(position=last, entries=2)


@asynchronous
async def test_both_emptied_between_two_looks_is_no_loss() -> None:
    log = MemoryLog()
    store = Emptied(log)
    await counted(store, log)
    loaded = await load_fitting(SI, log, store)
    assert (Checkpoint(), START) == (loaded.checkpoint, loaded.extent.last)


@asynchronous
async def test_a_log_emptied_alone_is() -> None:
    log = MemoryLog()
    store = MemoryTallyStore(log)
    await counted(store, log)
    log.entries.clear()
    with pytest.raises(DamagedLogError, match="the log of side SI has lost entries: it ends at 0-0"):
        await load_fitting(SI, log, store)


def test_days_are_not_counted_in_two_zones() -> None:
    require_zone(SI, Checkpoint())
    require_zone(SI, Checkpoint(zone="Europe/Ljubljana"))
    with pytest.raises(UsageError, match="counted in Asia/Tokyo, FIELDTALLY_SIDES says Europe/Ljubljana"):
        require_zone(SI, Checkpoint(zone="Asia/Tokyo"))
