"""Whatever a reader delivers, and however the store fails, a follower ends at the tallies of the log."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.tallies import Checkpoint
from schemas.vocabulary import START, Position, Side
from services.projector import follower as follower_module
from services.projector.follower import LONGEST_PAUSE_S, Follower, growing_pause_s, reached
from services.projector.partition import Partition
from services.runtime.errors import DamagedLogError, FieldtallyError, UnreachableError, UsageError
from services.runtime.settings import SideSettings
from services.store.contract import Entry, Stored, StoredAt
from services.store.index_entry import IndexEntry
from services.store.memory import MemoryLog, MemoryTallyStore
from services.tally.cells import cell_text
from services.tally.fold import FOLD_VERSION, Changes, Key
from tests import oracle
from tests.asynchronous import asynchronous
from tests.given import Fields, apprehension, entry, key, logs, withdrawal
from tests.projectors import Lines

SI = SideSettings(Side("SI"), ZoneInfo("Europe/Ljubljana"), "SVN")


class Reader:
    """Stands for a FastStream subscriber, which moves its position on before it calls the handler."""

    last_id: str = "0"


class Rig:
    """A follower over stores in memory, with everything that it tells."""

    def __init__(self, log: MemoryLog, store: MemoryTallyStore) -> None:
        self.log = log
        self.store = store
        self.reader = Reader()
        self.lines = Lines()
        self.progress: list[int] = []
        self.damage: list[FieldtallyError] = []
        self.partition = Partition(SI, log, store)
        self.follower = Follower(
            self.partition,
            self.reader,
            self.lines.logger(),
            on_progress=self.progress.append,
            on_damage=self.damage.append,
        )

    async def deliver(self, first: int, count: int) -> None:
        """Deliver the entries from one on, counted from 0."""
        entries = self.log.entries[first : first + count]
        if entries:
            self.reader.last_id = entries[-1].position
            await self.follower.deliver(entries)

    async def read_on(self, count: int = 3) -> None:
        """Read from where the reader stands until nothing comes, as FastStream does; it must come to an end."""
        for _ in range(2 * len(self.log.entries) + 10):
            entries = await self.log.read_after(Position(self.reader.last_id), count)
            if not entries:
                return
            self.reader.last_id = entries[-1].position
            await self.follower.deliver(entries)
        pytest.fail("the reader is set back for ever")

    async def assert_sound(self) -> Stored:
        """What is stored is what the log amounts to at the checkpoint; return it."""
        stored = await self.store.load()
        checkpoint = stored.checkpoint or Checkpoint()
        entries = [(one.position, one.fields) for one in self.log.entries]
        counted = oracle.count("SI", SI.zone.key, entries[: checkpoint.entries])
        assert counted.tallies == {cell_text(cell): number for cell, number in stored.tallies.items()}
        assert counted.parked == {at: parked.reason for at, parked in (await self.store.parked()).items()}
        assert checkpoint.position == (
            self.log.entries[checkpoint.entries - 1].position if checkpoint.entries else START
        )
        return stored

    async def assert_all_counted(self) -> None:
        """Everything in the log is counted, once."""
        checkpoint = (await self.assert_sound()).checkpoint or Checkpoint()
        assert checkpoint.entries == len(self.log.entries)
        assert self.damage == []


def log_with(entries: Sequence[Fields]) -> MemoryLog:
    log = MemoryLog()
    for fields in entries:
        log.append_fields(fields)
    return log


def reports(count: int) -> list[Fields]:
    return [entry(apprehension(id=number)) for number in range(1, count + 1)]


async def started(entries: Sequence[Fields]) -> Rig:
    log = log_with(entries)
    rig = Rig(log, MemoryTallyStore(log))
    await rig.follower.start()
    return rig


class FailingStore(MemoryTallyStore):
    """A store that fails at the calls named, in turn; "after record" fails when it has taken effect."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.failing: list[str] = []

    def _may_fail(self, call: str) -> None:
        if self.failing[:1] == [call]:
            del self.failing[0]
            raise UnreachableError(f"failed at {call}")

    async def load(self) -> Stored:
        """Load, or fail."""
        self._may_fail("load")
        return await super().load()

    async def open_turn(self, held: StoredAt, first: Position, keys: Sequence[Key]) -> list[IndexEntry | None] | None:
        """Open a turn, or fail."""
        self._may_fail("open_turn")
        return await super().open_turn(held, first, keys)

    async def record(self, changes: Changes) -> bool:
        """Record, or fail before or after."""
        self._may_fail("record")
        recorded = await super().record(changes)
        self._may_fail("after record")
        return recorded


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "FIRST_PAUSE_S", 0.0)


# Deliveries


@asynchronous
async def test_a_delivery_that_follows_is_applied() -> None:
    rig = await started(reports(3))
    await rig.deliver(0, 2)
    await rig.deliver(2, 1)
    assert rig.progress == [2, 1]
    assert [(line["entries"], line["position"]) for line in rig.lines.named("batch_applied")] == [
        (2, "2-0"),
        (1, "3-0"),
    ]
    await rig.assert_all_counted()


@asynchronous
async def test_the_reader_starts_behind_the_checkpoint() -> None:
    rig = await started(reports(3))
    assert rig.reader.last_id == "0-0"
    await rig.deliver(0, 2)
    after_restart = Rig(rig.log, rig.store)
    await after_restart.follower.start()
    assert after_restart.reader.last_id == "2-0"


@asynchronous
@pytest.mark.parametrize(("first", "count"), [(3, 1), (0, 1), (0, 3), (1, 2)], ids=["gap", "again", "wider", "half"])
async def test_a_delivery_that_does_not_follow_changes_nothing_and_sets_the_reader_back(first: int, count: int) -> None:
    rig = await started(reports(4))
    await rig.deliver(0, 2)
    before = await rig.assert_sound()
    await rig.deliver(first, count)
    assert await rig.store.load() == before
    assert rig.reader.last_id == "2-0"
    assert [line["event"] for line in rig.lines[1:]] == ["turn_refused"]
    await rig.read_on()
    await rig.assert_all_counted()


@given(
    entries=logs("SI"),
    deliveries=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 24), st.integers(1, 6)), max_size=12),
)
def test_any_deliveries_to_two_followers_end_in_the_tallies_of_the_log(
    entries: list[Fields], deliveries: list[tuple[int, int, int]]
) -> None:
    """Repeated, skipped, reordered, and each of the two behind the other's back."""

    async def run() -> None:
        rig = await started(entries)
        other = Rig(rig.log, copy.copy(rig.store))
        await other.follower.start()
        for which, first, count in deliveries:
            await (rig, other)[which].deliver(first, count)
            await rig.assert_sound()
        await other.read_on()
        await rig.read_on()
        await rig.assert_all_counted()

    asyncio.run(run())


# Failures


@asynchronous
@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("call", ["open_turn", "record", "after record"])
@pytest.mark.parametrize("loads", [0, 1, 3])
async def test_a_failing_store_is_waited_for_and_nothing_counts_twice(call: str, loads: int) -> None:
    log = log_with(reports(9))
    store = FailingStore(log)
    rig = Rig(log, store)
    await rig.follower.start()
    await rig.deliver(0, 3)
    store.failing = [call, *["load"] * loads]
    await rig.deliver(3, 3)
    assert store.failing == []
    assert len(rig.lines.named("waiting")) == 1 + loads
    assert rig.reader.last_id == ("6-0" if call == "after record" else "3-0")
    await rig.read_on()
    await rig.assert_all_counted()


@given(
    entries=logs("SI"),
    failing=st.lists(st.sampled_from(["load", "open_turn", "record", "after record"]), max_size=12),
)
def test_any_failures_end_in_the_tallies_of_the_log(entries: list[Fields], failing: list[str]) -> None:
    async def run() -> None:
        log = log_with(entries)
        store = FailingStore(log)
        rig = Rig(log, store)
        await rig.follower.start()
        store.failing = failing
        await rig.read_on()
        store.failing = []
        await rig.assert_all_counted()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(follower_module, "FIRST_PAUSE_S", 0.0)
        asyncio.run(run())


@asynchronous
async def test_pauses_grow_while_it_fails_and_start_anew_when_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def pause(_: Follower, seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(Follower, "_pause", pause)
    log = log_with(reports(4))
    store = FailingStore(log)
    rig = Rig(log, store)
    await rig.follower.start()
    store.failing = ["open_turn", "load", "load", "open_turn"]
    await rig.deliver(0, 2)
    await rig.deliver(0, 2)
    assert waited == [0.1, 0.2, 0.4, 0.8]
    await rig.read_on()
    store.failing = ["record"]
    log.append_fields(entry(apprehension(id=5)))
    await rig.deliver(4, 1)
    assert waited[4:] == [0.1]
    said = rig.lines.named("waiting")
    assert [line["wait_s"] for line in said] == waited
    assert {line["reason"] for line in said} == {"failed at open_turn", "failed at load", "failed at record"}


def test_a_pause_doubles_from_a_tenth_of_a_second_to_a_quarter_of_a_minute() -> None:
    assert [growing_pause_s(n) for n in range(1, 11)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15.0, 15.0]
    assert growing_pause_s(10**9) == LONGEST_PAUSE_S


@asynchronous
async def test_stopping_ends_a_pause_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "FIRST_PAUSE_S", 1_000.0)
    monkeypatch.setattr(follower_module, "LONGEST_PAUSE_S", 1_000.0)
    log = log_with(reports(2))
    store = FailingStore(log)
    rig = Rig(log, store)
    await rig.follower.start()
    store.failing = ["open_turn"]
    delivery = asyncio.create_task(rig.deliver(0, 2))
    await asyncio.sleep(0)
    assert rig.lines.named("waiting")
    rig.follower.stopping.set()
    await asyncio.wait_for(delivery, 5)
    assert rig.progress == []


@asynchronous
async def test_an_error_of_the_start_goes_to_the_caller() -> None:
    log = log_with(reports(2))
    store = FailingStore(log)
    store.failing = ["load"]
    with pytest.raises(UnreachableError, match="failed at load"):
        await Rig(log, store).follower.start()


# Damage


@asynchronous
async def test_a_log_that_ends_before_the_checkpoint_is_damage() -> None:
    """Both where a delivery finds it and where nothing is delivered any more."""
    rig = await started(reports(4))
    await rig.deliver(0, 4)
    del rig.log.entries[2:]
    await rig.follower.check()
    assert [str(damage).partition(";")[0] for damage in rig.damage] == [
        "the log of side SI has lost entries: it ends at 2-0, but the tallies reach 4-0"
    ]
    await rig.deliver(0, 1)
    await rig.follower.check()
    assert len(rig.damage) == 1
    with pytest.raises(DamagedLogError):
        await Rig(rig.log, rig.store).follower.start()


@asynchronous
async def test_a_report_whose_first_version_the_log_has_lost_is_damage() -> None:
    """Its counts could not be taken out: the tallies stay at the last sound position."""
    rig = await started([*reports(2), entry(withdrawal(amends=1))])
    await rig.deliver(0, 2)
    rig.log.entries[0] = Entry(Position("1-1"), {})  # something else in its place
    await rig.deliver(2, 1)
    assert [str(damage).partition(",")[0] for damage in rig.damage] == ["the log has lost the entry at 1-0"]
    stored = await rig.store.load()
    assert stored.checkpoint
    assert stored.checkpoint.position == "2-0"
    assert key(1) in rig.store._index


@asynchronous
async def test_tallies_of_other_counting_rules_are_refused() -> None:
    rig = await started(reports(2))
    await rig.deliver(0, 2)
    stored = rig.store._stored
    assert stored.checkpoint
    stored.checkpoint = Checkpoint(stored.checkpoint.position, 2, FOLD_VERSION + 1)
    with pytest.raises(DamagedLogError, match="rebuild"):
        await Rig(rig.log, rig.store).follower.start()


@asynchronous
async def test_a_check_of_a_whole_log_says_nothing() -> None:
    rig = await started(reports(2))
    await rig.follower.check()
    await rig.deliver(0, 2)
    await rig.follower.check()
    assert (rig.damage, len(rig.lines)) == ([], 1)


@asynchronous
async def test_log_and_tallies_set_back_together_are_followed_from_there() -> None:
    """A server that was emptied, or a failover to a replica that lagged: both went back to the same moment."""
    rig = await started(reports(4))
    await rig.deliver(0, 2)
    earlier = await rig.store.load()
    index = dict(rig.store._index)
    await rig.deliver(2, 2)
    rig.store._stored = earlier
    rig.store._index = index
    del rig.log.entries[2:]
    await rig.follower.check()
    assert [line["position"] for line in rig.lines.named("state_gone")] == ["2-0"]
    assert rig.reader.last_id == "2-0"
    rig.log.append_fields(entry(apprehension(id=9)))
    await rig.read_on()
    await rig.assert_all_counted()


@asynchronous
async def test_what_is_reached_lies_at_or_behind_the_checkpoint() -> None:
    rig = await started(reports(12))
    await rig.deliver(0, 10)
    assert [reached(rig.partition, Position(at)) for at in ("9-0", "10-0", "11-0")] == [True, True, False]


def test_a_fault_of_our_own_stops_the_side_instead_of_being_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """FastStream goes on after whatever its handler raises, and would read past what was not counted."""

    async def broken(_entries: Sequence[Entry]) -> None:
        raise ZeroDivisionError

    async def scenario() -> None:
        rig = await started(reports(1))
        monkeypatch.setattr(rig.partition, "turn", broken)
        await rig.deliver(0, 1)
        assert [70] == [fault.exit_code for fault in rig.damage]
        assert "ZeroDivisionError" in str(rig.damage[0])

    asyncio.run(scenario())


def test_tallies_whose_days_were_counted_in_another_zone_are_not_gone_on_with() -> None:
    """A report withdrawn later would be taken out of another day than it was put in."""

    async def scenario() -> None:
        rig = await started(reports(1))
        await rig.deliver(0, 1)
        elsewhere = SideSettings(Side("SI"), ZoneInfo("Asia/Tokyo"), "SVN")
        with pytest.raises(UsageError, match="counted in Europe/Ljubljana, FIELDTALLY_SIDES says Asia/Tokyo"):
            await Partition(elsewhere, rig.log, rig.store).reload()

    asyncio.run(scenario())
