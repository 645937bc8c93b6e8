"""What every store of logs and tallies promises: one suite, over Redis and over the twin in memory.

A log is read over its archive, too: nothing, half, or all of it archived, or trimmed as soon as it is appended.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple, TypeAlias
from uuid import UUID

import pytest
from msgspec import UNSET

from schemas.events import Apprehension, ApprehensionData, CitizenshipCount, OperationOpenedData, SectionPlan
from schemas.tallies import Checkpoint, Counters, DeviceNumbers, Opening, Operation, Parked
from schemas.vocabulary import START, Position, Side, order
from services.archive.trim import trim_log
from services.archive.writer import archive_log
from services.store.connection import connect
from services.store.contract import Entry, Log, LogExtent, Stored, StoredAt, TallyStore
from services.store.index_entry import IndexEntry
from services.store.keys import PartitionKeys
from services.store.log import RedisLog
from services.store.memory import MemoryLog, MemoryTallyStore
from services.store.segments import Archive
from services.store.tally_store import RedisTallyStore
from services.store.whole_log import WholeLog
from services.tally.cells import Cell
from services.tally.fold import Changes, Key, Version
from tests.archives import NO_AGE, small_pieces
from tests.asynchronous import asynchronous


class Stores(NamedTuple):
    """One partition as two programs have it: a log, and the tallies through two connections."""

    log: Log
    store: TallyStore
    other: TallyStore


OpenStores: TypeAlias = Callable[[], AbstractAsyncContextManager[Stores]]

PERSONS: Cell = (Side("SI"), "SI-HR-2024-03", "novo-mesto", "2024-03-14", "persons", "SYR")
INCIDENTS: Cell = (Side("SI"), "SI-HR-2024-03", "novo-mesto", "2024-03-14", "apprehensions", "")
KEY = UUID(int=1).bytes
OTHER_KEY = UUID(int=2).bytes


ARCHIVED = {
    "nothing archived": (0.0, 0.0),
    "half archived": (0.5, 0.0),
    "archived": (1.0, 0.0),
    "trimmed": (1.0, 1.0),
    "half trimmed": (1.0, 0.5),
}
every_log = pytest.mark.parametrize("open_stores", ["redis", "memory", *ARCHIVED], indirect=True)


class Archived(WholeLog):
    """A log of which a part is archived, and a part of that trimmed, as soon as something is appended."""

    def __init__(self, stream: RedisLog, archive: Archive, archived: float, trimmed: float) -> None:
        super().__init__(stream, archive)
        self._archived = archived
        self._trimmed = trimmed

    async def append(self, events: Sequence[bytes], *, by: str | None = None) -> list[Position]:
        """Append, then archive and trim."""
        positions = await super().append(events, by=by)
        if positions and self._archived:
            archive = Archive(self.archive.folder, self.archive.side)
            await archive_log(self.stream, archive, positions[int(self._archived * (len(positions) - 1))])
            if self._trimmed:
                last = positions[int(self._trimmed * (len(positions) - 1))]
                await trim_log(self.stream, archive, last, NO_AGE)
        return positions


@pytest.fixture(params=["redis", "memory"])
def open_stores(
    request: pytest.FixtureRequest, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> OpenStores:
    small_pieces(monkeypatch)
    if request.param == "memory":

        @asynccontextmanager
        async def in_memory() -> AsyncIterator[Stores]:
            log = MemoryLog()
            store = MemoryTallyStore(log)
            # A shallow copy has the same stored state, and an opened turn of its own.
            yield Stores(log, store, copy.copy(store))

        return in_memory

    url: str = request.getfixturevalue("server_url")

    @asynccontextmanager
    async def on_redis() -> AsyncIterator[Stores]:
        client = connect(url)
        keys = PartitionKeys(prefix, Side("SI"))
        log: Log = RedisLog(client, url, keys)
        if request.param in ARCHIVED:
            log = Archived(log, Archive(tmp_path, keys.side), *ARCHIVED[request.param])
        stores = Stores(log, RedisTallyStore(client, url, keys), RedisTallyStore(client, url, keys))
        try:
            yield stores
        finally:
            await stores.store.close()
            await stores.other.close()
            await client.aclose()

    return on_redis


def report(revision: int = 0) -> Apprehension:
    return Apprehension(
        specversion="1.0",
        id=UUID(int=100 + revision),
        source="/SI/SI-MP-07/9f3c2a",
        reportno=1,
        side=Side("SI"),
        time=datetime(2024, 3, 14, 3, 12, tzinfo=UTC),
        data=ApprehensionData("novo-mesto", (CitizenshipCount("SYR", 4),)),
        amends=UUID(int=1) if revision else UNSET,
        revision=revision,
    )


def changes_at(
    position: Position,
    entries: int,
    *,
    counters: Counters | None = None,
    cells: dict[Cell, int] | None = None,
    index: dict[Key, Version] | None = None,
    devices: dict[str, DeviceNumbers] | None = None,
    operations: dict[str, Operation] | None = None,
    parked: dict[Position, Parked] | None = None,
) -> Changes:
    return Changes(
        checkpoint=Checkpoint(position, entries, 1, counters or Counters(applied=entries)),
        cells=cells or {},
        index=index or {},
        devices=devices or {},
        operations=operations or {},
        parked=parked or {},
    )


NOTHING_HELD = StoredAt("g1", Checkpoint(fold_version=1))


def held_after(changes: Changes) -> StoredAt:
    return StoredAt("g1", changes.checkpoint)


async def record(store: TallyStore, held: StoredAt, first: Position, changes: Changes) -> bool:
    """Open a turn and record it."""
    assert await store.open_turn(held, first, list(changes.index)) is not None
    return await store.record(changes)


def between(earlier: Position, later: Position) -> Position:
    """Return a position where nothing can stand, since the two follow each other."""
    milliseconds, sequence = order(earlier)
    position = Position(f"{milliseconds}-{sequence + 1}")
    assert order(earlier) < order(position)
    return position if position != later else Position(f"{milliseconds + 1_000_000}-0")


# The log


@every_log
@asynchronous
async def test_events_are_read_in_the_order_of_appending(open_stores: OpenStores) -> None:
    async with open_stores() as (log, *_):
        positions = await log.append([b"one", b"two"]) + await log.append([b"three"])
        entries = await log.read_after(START, 10)
    assert [entry.fields[b"event"] for entry in entries] == [b"one", b"two", b"three"]
    assert positions == [entry.position for entry in entries]
    assert sorted(set(positions), key=order) == positions


@every_log
@asynchronous
async def test_an_entry_says_by_whom_or_has_no_such_field(open_stores: OpenStores) -> None:
    async with open_stores() as (log, *_):
        [by_device] = await log.append([b"one"], by="SI-MP-07/9f3c2a")
        [directly] = await log.append([b"two"])
        entries = await log.read_after(START, 10)
    assert [
        Entry(by_device, {b"event": b"one", b"by": b"SI-MP-07/9f3c2a"}),
        Entry(directly, {b"event": b"two"}),
    ] == entries


@every_log
@asynchronous
async def test_any_bytes_come_back_as_they_were(open_stores: OpenStores) -> None:
    async with open_stores() as (log, *_):
        await log.append([bytes(range(256)), b""])
        entries = await log.read_after(START, 10)
    assert [bytes(range(256)), b""] == [entry.fields[b"event"] for entry in entries]


@every_log
@asynchronous
async def test_reading_after_a_position_leaves_that_one_out(open_stores: OpenStores) -> None:
    async with open_stores() as (log, *_):
        first, second, third = await log.append([b"one", b"two", b"three"])
        assert [second, third] == [entry.position for entry in await log.read_after(first, 10)]
        assert [second] == [entry.position for entry in await log.read_after(first, 1)]
        assert await log.read_after(third, 10) == []


@every_log
@asynchronous
async def test_reading_at_positions_keeps_their_order_and_has_none_for_a_missing_one(open_stores: OpenStores) -> None:
    async with open_stores() as (log, *_):
        first, second = await log.append([b"one", b"two"])
        nowhere = between(second, second)
        entries = await log.read_at([second, nowhere, first, second])
        assert [entry and entry.fields[b"event"] for entry in entries] == [b"two", None, b"one", b"two"]
        assert await log.read_at([]) == []


@every_log
@asynchronous
async def test_a_sequence_number_is_part_of_the_position(open_stores: OpenStores) -> None:
    async with open_stores() as (log, *_):
        [only] = await log.append([b"one"])
        milliseconds, sequence = order(only)
        assert await log.read_at([Position(f"{milliseconds}-{sequence + 1}")]) == [None]


@every_log
@asynchronous
async def test_an_absent_log_is_empty(open_stores: OpenStores) -> None:
    async with open_stores() as (log, *_):
        assert LogExtent(last=START, length=0, appended=0) == await log.extent()
        assert await log.read_after(START, 10) == []
        assert await log.read_at([Position("1-0")]) == [None]
        assert await log.append([]) == []


@every_log
@asynchronous
async def test_the_extent_is_the_last_position_and_how_many_were_appended(open_stores: OpenStores) -> None:
    async with open_stores() as (log, *_):
        positions = await log.append([b"one", b"two", b"three"])
        extent = await log.extent()
    assert (positions[-1], 3, 3) == (extent.last, extent.appended, extent.entries)
    assert (0, False) == (extent.lost, extent.apart)


# The tallies


@asynchronous
async def test_where_nothing_was_recorded_nothing_is_loaded(open_stores: OpenStores) -> None:
    async with open_stores() as (_, store, _):
        assert Stored(generation="g1", checkpoint=None, tallies={}, devices={}, operations={}) == await store.load()
        assert await store.parked() == {}


@asynchronous
async def test_a_recorded_turn_is_loaded_as_it_was(open_stores: OpenStores) -> None:
    counters = Counters(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    plan = OperationOpenedData(
        "Joint", date(2024, 3, 13), date(2024, 3, 15), (SectionPlan("novo-mesto", "Žužemberk", "joint"),)
    )
    operation = Operation(
        plan=plan, openings={KEY.hex(): Opening(datetime(2024, 3, 1, tzinfo=UTC), plan)}, closed=date(2024, 3, 15)
    )
    devices = {"SI-MP-07/9f3c2a": DeviceNumbers(118, [(103, 104), (110, 110)], Position("9-0"))}
    async with open_stores() as (log, store, other):
        first, last = await log.append([b"one", b"two"])
        changes = changes_at(
            last,
            2,
            counters=counters,
            cells={PERSONS: 4, INCIDENTS: 1},
            devices=devices,
            operations={"SI-HR-2024-03": operation},
        )
        assert await record(store, NOTHING_HELD, first, changes)
        expected = Stored(
            generation="g1",
            checkpoint=Checkpoint(last, 2, 1, counters),
            tallies={PERSONS: 4, INCIDENTS: 1},
            devices=devices,
            operations={"SI-HR-2024-03": operation},
        )
        assert expected == await store.load()
        assert expected == await other.load()


@asynchronous
async def test_a_later_turn_writes_absolute_values_and_leaves_the_rest(open_stores: OpenStores) -> None:
    async with open_stores() as (log, store, _):
        first, second = await log.append([b"one", b"two"])
        one = changes_at(
            first, 1, cells={PERSONS: 4, INCIDENTS: 1}, devices={"u/a": DeviceNumbers(1), "u/b": DeviceNumbers(7)}
        )
        assert await record(store, NOTHING_HELD, first, one)
        two = changes_at(second, 2, cells={PERSONS: 9}, devices={"u/a": DeviceNumbers(2)})
        assert await record(store, held_after(one), second, two)
        stored = await store.load()
    assert stored.tallies == {PERSONS: 9, INCIDENTS: 1}
    assert {"u/a": DeviceNumbers(2), "u/b": DeviceNumbers(7)} == stored.devices
    assert two.checkpoint == stored.checkpoint


@asynchronous
async def test_a_cell_that_comes_to_zero_vanishes(open_stores: OpenStores) -> None:
    async with open_stores() as (log, store, _):
        first, second = await log.append([b"one", b"two"])
        one = changes_at(first, 1, cells={PERSONS: 4, INCIDENTS: 1})
        assert await record(store, NOTHING_HELD, first, one)
        assert await record(store, held_after(one), second, changes_at(second, 2, cells={PERSONS: 0}))
        assert (await store.load()).tallies == {INCIDENTS: 1}


@asynchronous
async def test_what_was_loaded_is_a_copy(open_stores: OpenStores) -> None:
    async with open_stores() as (log, store, _):
        [first] = await log.append([b"one"])
        assert await record(store, NOTHING_HELD, first, changes_at(first, 1, devices={"u/a": DeviceNumbers(1)}))
        loaded = await store.load()
        loaded.devices["u/a"].missing.append((1, 9))
        loaded.tallies[PERSONS] = 1
        stored = await store.load()
    assert ({"u/a": DeviceNumbers(1)}, {}) == (stored.devices, stored.tallies)


@asynchronous
@pytest.mark.parametrize(
    ("revision", "original_missing"),
    [(0, False), (1, False), (1, True), (63, True), (64, True), (1_000_000, False), (1_000_000, True)],
)
async def test_the_index_tells_of_each_key_the_version_in_force(
    open_stores: OpenStores,
    revision: int,
    original_missing: bool,  # noqa: FBT001
) -> None:
    async with open_stores() as (log, store, other):
        first, second = await log.append([b"one", b"two"])
        assert await store.open_turn(NOTHING_HELD, first, [KEY, OTHER_KEY]) == [None, None]
        changes = changes_at(second, 2, index={OTHER_KEY: Version(report(revision), second, original_missing)})
        assert await store.record(changes)
        [third] = await log.append([b"three"])
        expected = [IndexEntry(second, revision, original_missing), None]
        assert expected == await other.open_turn(held_after(changes), third, [OTHER_KEY, KEY])
        assert await store.open_turn(held_after(changes), third, []) == []


@asynchronous
async def test_what_was_parked_comes_in_the_order_of_the_log(open_stores: OpenStores) -> None:
    async with open_stores() as (log, store, _):
        positions = await log.append([b"x"] * 12)
        # Positions do not sort as text: 9-0 and 10-0.
        set_aside = {position: Parked("malformed", f"number {n}", "d") for n, position in enumerate(positions)}
        half = changes_at(positions[5], 6, parked=dict(list(set_aside.items())[:6]))
        assert await record(store, NOTHING_HELD, positions[0], half)
        rest = changes_at(positions[-1], 12, parked=dict(list(set_aside.items())[6:]))
        assert await record(store, held_after(half), positions[6], rest)
        parked = await store.parked()
    assert list(set_aside.items()) == list(parked.items())


# Compare-and-set


@asynchronous
async def test_a_turn_is_refused_when_the_checkpoint_has_moved(open_stores: OpenStores) -> None:
    async with open_stores() as (log, store, other):
        first, second = await log.append([b"one", b"two"])
        assert await record(other, NOTHING_HELD, first, changes_at(first, 1))
        assert await store.open_turn(NOTHING_HELD, first, []) is None
        assert await store.open_turn(NOTHING_HELD, second, []) is None


@asynchronous
async def test_a_turn_is_refused_when_the_same_position_has_other_entries_below_it(open_stores: OpenStores) -> None:
    async with open_stores() as (log, store, other):
        first, second = await log.append([b"one", b"two"])
        assert await record(other, NOTHING_HELD, first, changes_at(first, 1))
        assert await store.open_turn(StoredAt("g1", Checkpoint(first, 7, 1)), second, []) is None


@asynchronous
async def test_a_turn_is_refused_when_the_counting_rules_are_of_another_version(open_stores: OpenStores) -> None:
    async with open_stores() as (log, store, other):
        first, second = await log.append([b"one", b"two"])
        one = changes_at(first, 1)
        assert await record(other, NOTHING_HELD, first, one)
        newer = Checkpoint(first, 1, 2, one.checkpoint.counters)
        assert await store.open_turn(StoredAt("g1", newer), second, []) is None


@asynchronous
async def test_a_turn_is_refused_on_another_generation(open_stores: OpenStores) -> None:
    async with open_stores() as (log, store, _):
        [first] = await log.append([b"one"])
        assert await store.open_turn(StoredAt("g2", Checkpoint(fold_version=1)), first, []) is None


@asynchronous
async def test_a_turn_is_refused_when_an_entry_was_skipped(open_stores: OpenStores) -> None:
    async with open_stores() as (log, store, _):
        first, second, third = await log.append([b"one", b"two", b"three"])
        assert await store.open_turn(NOTHING_HELD, second, []) is None
        one = changes_at(first, 1)
        assert await record(store, NOTHING_HELD, first, one)
        assert await store.open_turn(held_after(one), third, []) is None
        assert await store.open_turn(held_after(one), second, []) == []


@asynchronous
async def test_a_turn_is_refused_when_its_first_entry_is_not_after_the_checkpoint(open_stores: OpenStores) -> None:
    async with open_stores() as (log, store, _):
        first, second, _ = await log.append([b"one", b"two", b"three"])
        two = changes_at(second, 2)
        assert await record(store, NOTHING_HELD, first, two)
        assert await store.open_turn(held_after(two), first, []) is None
        assert await store.open_turn(held_after(two), second, []) is None


@asynchronous
@pytest.mark.parametrize("begun", [False, True], ids=["first-turn", "later-turn"])
async def test_recording_is_refused_when_another_recorded_meanwhile(
    open_stores: OpenStores,
    begun: bool,  # noqa: FBT001
) -> None:
    async with open_stores() as (log, store, other):
        [first] = await log.append([b"one"])
        held = NOTHING_HELD
        if begun:
            assert await record(store, held, first, changes_at(first, 1))
            held = held_after(changes_at(first, 1))
            [first] = await log.append([b"two"])
        assert await store.open_turn(held, first, [KEY]) is not None
        theirs = changes_at(first, 1 + begun, cells={PERSONS: 4})
        assert await record(other, held, first, theirs)
        ours = changes_at(
            first,
            1 + begun,
            counters=Counters(malformed=1),
            cells={INCIDENTS: 1},
            index={KEY: Version(report(), first, original_missing=False)},
            devices={"u/a": DeviceNumbers(1)},
            operations={"o": Operation()},
            parked={first: Parked("malformed", "", "")},
        )
        assert await store.record(ours) is False
        # All or nothing: nothing of it is there.
        assert await store.load() == Stored("g1", theirs.checkpoint, {PERSONS: 4}, {}, {})
        assert await store.parked() == {}
        [last] = await log.append([b"three"])
        assert await store.open_turn(held_after(theirs), last, [KEY]) == [None]


@asynchronous
async def test_after_a_refusal_the_next_turn_is_recorded(open_stores: OpenStores) -> None:
    async with open_stores() as (log, store, other):
        first, second = await log.append([b"one", b"two"])
        assert await store.open_turn(NOTHING_HELD, first, []) is not None
        theirs = changes_at(first, 1)
        assert await record(other, NOTHING_HELD, first, theirs)
        assert await store.record(changes_at(first, 1)) is False
        assert await record(store, held_after(theirs), second, changes_at(second, 2))


@asynchronous
async def test_a_turn_opened_and_not_recorded_leaves_nothing_behind(open_stores: OpenStores) -> None:
    """What it watched moves on, and the next turn is recorded all the same."""
    async with open_stores() as (log, store, other):
        first, second = await log.append([b"one", b"two"])
        assert await store.open_turn(NOTHING_HELD, first, []) is not None
        theirs = changes_at(first, 1)
        assert await record(other, NOTHING_HELD, first, theirs)
        assert await store.open_turn(held_after(theirs), second, []) is not None
        assert await store.record(changes_at(second, 2))


@asynchronous
async def test_a_refused_opening_leaves_nothing_behind(open_stores: OpenStores) -> None:
    async with open_stores() as (log, store, other):
        first, second, third = await log.append([b"one", b"two", b"three"])
        assert await store.open_turn(NOTHING_HELD, second, []) is None
        one = changes_at(first, 1)
        assert await record(other, NOTHING_HELD, first, one)
        two = changes_at(second, 2)
        assert await record(store, held_after(one), second, two)
        assert await record(store, held_after(two), third, changes_at(third, 3))


@asynchronous
async def test_of_two_turns_on_the_same_entries_one_is_recorded(open_stores: OpenStores) -> None:
    async with open_stores() as (log, store, other):
        [first] = await log.append([b"one"])
        assert await store.open_turn(NOTHING_HELD, first, []) is not None
        assert await other.open_turn(NOTHING_HELD, first, []) is not None
        assert await other.record(changes_at(first, 1, cells={PERSONS: 4}))
        assert await store.record(changes_at(first, 1, cells={PERSONS: 4})) is False
        assert (await store.load()).tallies == {PERSONS: 4}


@asynchronous
async def test_nothing_is_recorded_twice_on_one_opening(open_stores: OpenStores) -> None:
    async with open_stores() as (log, store, _):
        first, second = await log.append([b"one", b"two"])
        one = changes_at(first, 1)
        assert await record(store, NOTHING_HELD, first, one)
        with pytest.raises(RuntimeError, match="without open_turn"):
            await store.record(changes_at(second, 2))
        assert one.checkpoint == (await store.load()).checkpoint


@asynchronous
async def test_nothing_is_recorded_on_a_refused_opening(open_stores: OpenStores) -> None:
    async with open_stores() as (log, store, other):
        first, second = await log.append([b"one", b"two"])
        one = changes_at(first, 1)
        assert await store.open_turn(NOTHING_HELD, first, []) is not None
        assert await record(other, NOTHING_HELD, first, one)
        # The opening before was good, this one is not: the good one is spent too.
        assert await store.open_turn(NOTHING_HELD, first, []) is None
        with pytest.raises(RuntimeError, match="without open_turn"):
            await store.record(changes_at(second, 2))
        assert one.checkpoint == (await store.load()).checkpoint


@asynchronous
async def test_a_store_that_was_closed_opens_again_at_the_next_turn(open_stores: OpenStores) -> None:
    async with open_stores() as (log, store, _):
        first, second = await log.append([b"one", b"two"])
        one = changes_at(first, 1)
        assert await record(store, NOTHING_HELD, first, one)
        await store.close()
        assert await record(store, held_after(one), second, changes_at(second, 2))
