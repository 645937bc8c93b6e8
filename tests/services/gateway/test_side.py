"""One side's turns, over a log that does what a test says: who waits together, and what becomes of each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, cast

import msgspec
import pytest

from schemas import codec
from schemas.http import Result
from schemas.principals import Principal
from schemas.vocabulary import START, Position, Side, order
from services.gateway import side as side_module
from services.gateway.side import TURN_MAX, GatewaySide, LaggingError
from services.gateway.turn import Submitted
from services.runtime.errors import FieldtallyError, UnreachableError
from services.runtime.settings import SideSettings
from services.store.contract import Entry
from services.store.door import Known
from services.store.glance import Glance
from services.store.index_entry import IndexEntry
from tests import given
from tests.asynchronous import asynchronous
from tests.gateways import LONG_AGO

DESK = Principal(role="desk", side="SI", unit="SI-DESK", device="d", enrolled=LONG_AGO)
UNIT = Principal(role="unit", side="SI", unit="SI-MP-07", device="9f3c2a", enrolled=LONG_AGO)
AWAY = UnreachableError("the server is away")


class Log:
    """A log, its index and its state in memory, that holds appends up, fails them, or refuses some of their entries."""

    def __init__(self) -> None:
        self.entries: dict[Position, bytes] = {}
        self.appends: list[int] = []
        self.appending = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.refused: frozenset[int] = frozenset()
        self.closed = False
        self.read_on = 0
        self.known: dict[bytes, IndexEntry] = {}
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        self.slow: asyncio.Event | None = None
        self.live = ""
        self.glance: Glance | FieldtallyError = Glance("g1", START, 0, 0, {}, 0, None)

    async def take(self) -> Glance:
        """Look, as the store does."""
        glance, slow, self.slow = self.glance, self.slow, None
        if isinstance(glance, FieldtallyError):
            raise glance
        if slow:
            await slow.wait()
        return glance

    async def look(self, generation: str, _names: Sequence[bytes]) -> Known | None:
        """Know of what a test says: no projector runs here."""
        if self.live not in ("", generation):
            return None
        return Known(index=dict(self.known), amendments={}, length=len(self.entries))

    async def read_after(self, position: Position, count: int) -> list[Entry]:
        """Read on."""
        self.read_on += 1
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            await meanwhile()
        after = [at for at in self.entries if order(at) > order(position)]
        return [Entry(at, given.entry(self.entries[at])) for at in after[:count]]

    async def read(self, positions: Sequence[Position]) -> list[Entry | None]:
        """Return entries."""
        return [Entry(at, given.entry(self.entries[at])) if at in self.entries else None for at in positions]

    async def append(self, events: Sequence[tuple[bytes, str]]) -> list[Position | None]:
        """Append."""
        self.appends.append(len(events))
        self.appending.set()
        await self.gate.wait()
        if self.failure:
            raise self.failure
        positions: list[Position | None] = []
        for at, (raw, _) in enumerate(events):
            position = None if at in self.refused else Position(f"{len(self.entries) + 1}-0")
            positions.append(position)
            if position:
                self.entries[position] = raw
        return positions

    async def close(self) -> None:
        """Close."""
        self.closed = True


def side_over(log: Log) -> GatewaySide:
    """Return a side over that log."""
    settings = SideSettings(Side("SI"), given.ZONES["SI"], "SVN")
    return GatewaySide(settings, cast("Any", log), cast("Any", [log, log]), cast("Any", log), 10)


def one(number: int, sender: Principal = UNIT, **more: Any) -> Submitted:
    """Return an admitted report."""
    raw = given.apprehension(id=number, unit=sender.unit, **more)
    return Submitted(codec.decode(raw), raw, sender)


def statuses(results: Sequence[Result]) -> list[str]:
    """Return what became of each."""
    return [result.status for result in results]


@asynchronous
async def test_what_comes_while_a_turn_is_under_way_is_recorded_together_in_the_next() -> None:
    log = Log()
    log.gate.clear()
    side = side_over(log)
    first = asyncio.create_task(side.record([one(1)]))
    await log.appending.wait()
    others = [asyncio.create_task(side.record([one(number), one(number + 100)])) for number in range(2, 12)]
    await asyncio.sleep(0)
    log.gate.set()
    assert ["recorded"] == statuses(await first)
    for number, results in zip(range(2, 12), await asyncio.gather(*others), strict=True):
        assert [given.uid(number), given.uid(number + 100)] == [result.id for result in results]
        assert ["recorded"] * 2 == statuses(results)
    assert 21 == sum(log.appends)
    assert len(log.appends) <= 3


@asynchronous
async def test_a_turn_has_its_size_and_keeps_a_request_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TURN_MAX >= 500
    monkeypatch.setattr(side_module, "TURN_MAX", 5)
    log = Log()
    side = side_over(log)
    requests = [[one(number * 10 + at) for at in range(3)] for number in range(1, 5)] + [
        [one(at) for at in range(900, 909)]
    ]
    answers = await asyncio.gather(*(side.record(request) for request in requests))
    assert [3, 3, 3, 3, 9] == [len(answer) for answer in answers]
    assert [3, 3, 3, 3, 9] == sorted(log.appends)


@asynchronous
async def test_what_the_server_refused_of_a_batch_may_be_sent_again_and_the_rest_is_recorded() -> None:
    log = Log()
    log.refused = frozenset({1})
    side = side_over(log)
    batch = [one(1), one(2), one(3), one(2)]
    results = await side.record(batch)
    assert ["recorded", "rejected", "recorded", "rejected"] == statuses(results)
    for result in (results[1], results[3]):
        assert result.problem
        assert ("unavailable", 503, True) == (result.problem.code, result.problem.status, result.problem.retryable)
    log.refused = frozenset()
    assert ["duplicate", "recorded", "duplicate", "duplicate"] == statuses(await side.record(batch))
    assert [one(1).canonical, one(3).canonical, one(2).canonical] == list(log.entries.values())


@asynchronous
async def test_when_a_turn_fails_all_who_wait_are_told_and_the_next_turn_goes_on() -> None:
    log = Log()
    log.failure = AWAY
    side = side_over(log)
    answers = await asyncio.gather(*(side.record([one(number)]) for number in range(1, 4)), return_exceptions=True)
    assert [AWAY] * 3 == answers
    log.failure = None
    assert ["recorded"] == statuses(await side.record([one(1)]))


@asynchronous
async def test_a_sender_that_hangs_up_takes_nobody_with_it_and_its_report_is_recorded() -> None:
    log = Log()
    log.gate.clear()
    side = side_over(log)
    hasty, patient = (asyncio.create_task(side.record([one(number)])) for number in (1, 2))
    await log.appending.wait()
    hasty.cancel()
    with suppress(asyncio.CancelledError):
        await hasty
    log.gate.set()
    assert ["recorded"] == statuses(await patient)
    assert ["duplicate"] == statuses(await side.record([one(1)]))


@asynchronous
async def test_of_two_requests_in_one_turn_the_second_finds_what_the_first_brought() -> None:
    side = side_over(Log())
    answers = await asyncio.gather(
        side.record([one(1), one(2)]), side.record([one(1)]), side.record([one(2, persons={"AFG": 9}), one(3)])
    )
    assert [["recorded", "recorded"], ["duplicate"], ["conflict", "recorded"]] == [statuses(each) for each in answers]
    assert answers[0][0].position == answers[1][0].position
    assert answers[0][1].position == answers[2][0].position


@asynchronous
async def test_in_one_turn_too_a_unit_amends_its_own_reports_only_and_an_amendment_makes_a_report_nobodys() -> None:
    other = msgspec.structs.replace(UNIT, unit="SI-MP-08")
    answers = await asyncio.gather(
        (side := side_over(Log())).record([one(1), one(2, other)]),
        side.record([one(11, amends=1, revision=1), one(12, amends=2, revision=1)]),
        side.record([one(31, DESK, amends=3, revision=1)]),
        side.record([one(32, amends=3, revision=2)]),
    )
    assert [["recorded"] * 2, ["recorded", "rejected"], ["recorded"], ["recorded"]] == [
        statuses(each) for each in answers
    ]
    refused = answers[1][1].problem
    assert refused
    assert ("not-your-report", "/amends") == (refused.code, refused.pointer)


@asynchronous
async def test_who_made_a_report_is_not_told_by_another_that_stands_where_it_once_stood() -> None:
    log = Log()
    side = side_over(log)
    (result,) = await side.record([one(1)])
    assert result.position
    log.entries = {Position(result.position): given.apprehension(id=2, unit="SI-MP-08")}  # set back, and written since
    assert ["recorded"] * 2 == statuses(await side.record([one(11, amends=1, revision=1), one(1)]))


@asynchronous
async def test_a_copy_of_a_report_that_is_being_recorded_waits_for_it() -> None:
    log = Log()
    log.gate.clear()
    side = side_over(log)
    first = asyncio.create_task(side.record([one(1)]))
    await log.appending.wait()
    copies = [asyncio.create_task(side.record([one(1), one(number)])) for number in (2, 3)]
    for _ in range(20):
        await asyncio.sleep(0)
    log.gate.set()
    assert ["recorded"] == statuses(await first)
    assert [["duplicate", "recorded"]] * 2 == [statuses(results) for results in await asyncio.gather(*copies)]
    assert 3 == len(log.entries)


@asynchronous
async def test_the_end_waits_for_the_turn_under_way_and_gives_up_the_connection() -> None:
    log = Log()
    log.gate.clear()
    side = side_over(log)
    record = asyncio.create_task(side.record([one(1)]))
    await log.appending.wait()
    end = asyncio.create_task(side.close())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not end.done() and not log.closed
    log.gate.set()
    await end
    assert log.closed
    assert ["recorded"] == statuses(await record)


@asynchronous
async def test_what_was_recorded_here_is_remembered_until_it_is_counted_and_no_longer() -> None:
    log = Log()
    side = side_over(log)
    for number in range(1, 31):
        await side.record([one(number)])
    assert 30 == len(side._tail)
    log.glance = Glance("g1", Position("20-0"), 20, 0, {}, 30, Position("21-0"))
    await side.look()
    assert 10 == len(side._tail)
    assert ["duplicate"] == statuses(await side.record([one(21)]))


@asynchronous
async def test_the_log_is_read_when_it_is_longer_than_what_was_appended_here_and_only_then() -> None:
    log = Log()
    side = side_over(log)
    for number in range(1, 11):
        await side.record([one(number)])
    assert 1 == log.read_on  # at the start, when nothing is known of it
    log.entries[Position("11-0")] = given.apprehension(id=11, unit="SI-MP-08")
    changed = given.apprehension(id=11, unit="SI-MP-08", persons={"SYR": 9})
    conflicting = Submitted(codec.decode(changed), changed, DESK)
    assert ["conflict", "rejected", "recorded"] == statuses(
        await side.record([conflicting, one(12, amends=11, revision=1), one(13)])
    )
    assert 2 == log.read_on
    await side.record([one(14)])
    assert 2 == log.read_on


@asynchronous
async def test_an_append_that_failed_may_have_got_there_all_the_same() -> None:
    log = Log()
    side = side_over(log)
    await side.record([one(1)])
    log.failure = AWAY
    with pytest.raises(UnreachableError):
        await side.record([one(2)])
    log.failure = None
    log.entries[Position("2-0")] = one(2).canonical
    log.entries[Position("3-0")] = one(1).canonical  # once more, by whomever: the first one is the one that counts
    results = await side.record([one(2), one(1)])
    assert [("duplicate", "2-0"), ("duplicate", "1-0")] == [(result.status, result.position) for result in results]


@asynchronous
async def test_another_report_of_an_id_that_is_being_recorded_waits_for_it() -> None:
    log = Log()
    side = side_over(log)
    await side.record([one(1), one(2)])
    log.gate.clear()
    log.appending.clear()
    first = asyncio.create_task(side.record([one(11, amends=1, revision=1)]))
    await log.appending.wait()
    second = asyncio.create_task(side.record([one(11, amends=2, revision=1)]))
    for _ in range(20):
        await asyncio.sleep(0)
    log.gate.set()
    assert [["recorded"], ["conflict"]] == [statuses(each) for each in await asyncio.gather(first, second)]


@asynchronous
async def test_what_is_counted_while_the_tail_is_read_is_lost_to_neither() -> None:
    log = Log()
    side = side_over(log)
    await side.record([one(1)])
    log.entries[Position("2-0")] = one(2).canonical

    async def counted() -> None:
        log.known = {given.key(1): IndexEntry(Position("1-0"), 0, original_missing=False)}
        log.glance = Glance("g1", Position("1-0"), 1, 0, {}, 2, Position("2-0"))
        await side.look()

    log.meanwhile = counted
    assert ["duplicate"] * 2 == statuses(await side.record([one(1), one(2)]))


@asynchronous
async def test_a_tail_that_begins_anew_while_it_is_read_is_read_from_there() -> None:
    log = Log()
    side = side_over(log)
    await side.record([one(1)])
    log.entries |= {Position(f"{at}-0"): one(at).canonical for at in (2, 3)}

    async def set_back() -> None:
        side._tail.start_at(START)

    log.meanwhile = set_back
    assert ["duplicate"] * 3 == statuses(await side.record([one(1), one(2), one(3)]))


@asynchronous
async def test_an_answer_to_an_older_question_is_no_sign_of_a_server_that_was_set_back() -> None:
    log = Log()
    side = side_over(log)
    await side.record([one(1)])
    log.slow = slow = asyncio.Event()
    older = asyncio.create_task(side.look())
    await asyncio.sleep(0)
    log.glance = Glance("g1", Position("1-0"), 1, 0, {}, 1, None)
    await side.look()
    await side.record([one(2)])
    slow.set()
    await older
    assert side.seen == log.glance
    assert 1 == len(side._tail)


@asynchronous
async def test_behind_a_log_that_lost_its_end_the_new_end_is_read() -> None:
    log = Log()
    side = side_over(log)
    log.entries = {Position(f"{at}-0"): one(at).canonical for at in range(1, 9)}
    log.glance = Glance("g1", Position("3-0"), 3, 0, {}, 8, Position("4-0"))
    await side.look()
    assert ["duplicate"] == statuses(await side.record([one(8)]))
    log.entries = {Position(f"{at}-0"): one(at).canonical for at in range(1, 4)} | {Position("4-0"): one(24).canonical}
    log.glance = Glance("g1", Position("3-0"), 3, 0, {}, 4, Position("4-0"))
    await side.look()
    assert ["duplicate"] == statuses(await side.record([one(24)]))


@asynchronous
async def test_a_server_that_was_set_back_is_read_anew() -> None:
    log = Log()
    side = side_over(log)
    log.glance = Glance("g1", Position("5-0"), 5, 0, {}, 8, Position("6-0"))
    await side.look()
    await side.record([one(1)])
    log.entries = {Position("1-0"): one(7).canonical}
    log.glance = Glance("g1", START, 0, 0, {}, 1, Position("1-0"))
    await side.look()
    assert ["duplicate", "recorded"] == statuses(await side.record([one(7), one(1)]))


@asynchronous
async def test_a_side_is_not_ready_while_its_server_is_away_or_the_counting_too_far_behind() -> None:
    log = Log()
    side = side_over(log)
    await side.look()
    side.ready()
    log.glance = Glance("g1", START, 0, 0, {}, 11, Position("1000-0"))
    await side.look()
    with pytest.raises(LaggingError, match="11 reports of SI wait to be counted"):
        side.ready()
    log.glance = AWAY
    await side.look()
    with pytest.raises(UnreachableError):
        side.ready()
    log.glance = Glance("g1", START, 0, 0, {}, 10, Position("1000-0"))
    await side.look()
    side.ready()


@asynchronous
async def test_no_reports_are_no_turn() -> None:
    log = Log()
    assert [] == await side_over(log).record([])
    assert [] == log.appends


@asynchronous
async def test_an_index_that_has_given_way_to_another_is_not_believed_to_know_nothing() -> None:
    """A generation may be swapped and removed between two looks at the side."""
    log = Log()
    side = side_over(log)
    await side.look()
    position = Position("1-0")
    log.entries[position] = one(1).canonical
    log.known[one(1).key] = IndexEntry(position, 0, original_missing=False)
    log.live = "g2"
    log.glance = Glance("g2", position, 1, 0, {}, 1, None)
    assert ["duplicate"] == statuses(await side.record([one(1)]))
    assert 1 == len(log.entries)
    assert side.seen
    assert "g2" == side.seen.generation
