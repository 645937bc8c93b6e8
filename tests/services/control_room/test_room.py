"""One side of the room on a real server: after any batches it holds what is stored, and shows what the log says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from random import Random
from typing import Any

import msgspec
import pytest

from schemas.screen import AMENDMENTS_MAX, AuditShown, ChangeMessage, SideMessage
from schemas.vocabulary import START, Position, order
from services.control_room.book import HOUR_S, apply_cells
from services.control_room.room import CHUNK, RoomSide, read_change
from services.replay.replay import Replay
from services.runtime.errors import UnreachableError
from services.runtime.settings import Settings
from services.store.contract import Entry
from services.store.log import RedisLog
from services.tally.cells import cell_text
from services.tally.digest import state_digest
from tests import given, oracle
from tests.asynchronous import asynchronous
from tests.projectors import ZONES
from tests.services.control_room.rooms import (
    OneSide,
    about,
    amended_of,
    amendments_of,
    hours_of,
    latest_of,
    one_side,
)

SEED = 20240313


async def assert_holds_what_is_stored(side: OneSide) -> None:
    stored = await side.store.load()
    assert stored.checkpoint
    assert {cell_text(cell): count for cell, count in stored.tallies.items()} == side.room.cells
    shown = side.room.shown()
    assert stored.checkpoint.position == shown.position
    assert stored.checkpoint.entries == shown.entries
    assert state_digest(stored.tallies) == shown.digest


# In step with the tallies


@pytest.mark.parametrize("name", ["SI", "HR"])
@asynchronous
async def test_after_any_batches_the_room_holds_what_is_stored(settings: Settings, name: str) -> None:
    """On a seeded log with every outcome; one room that follows and one that is loaded anew show the same."""
    random = Random(f"{SEED} {name}")
    entries = given.seeded_log(SEED, 900)[name]
    async with one_side(settings, side=name) as side:
        await side.room.load()
        while entries:
            for _ in range(random.randint(1, 3)):  # changes at a time
                size = random.randint(1, 60)
                await side.write(entries[:size])
                await side.count()
                del entries[:size]
            assert await side.follow()
            await assert_holds_what_is_stored(side)
            loaded = side.new_room()
            await loaded.load()
            assert about(loaded.shown()) | {"parked": 0, "devices": (), "operations": ()} == about(
                side.room.shown()
            ) | {"parked": 0, "devices": (), "operations": ()}
        log = await side.entries()
        shown = side.room.shown()
        assert {one: count for one, count in hours_of(log, name).items() if int(one.split("|")[0]) >= 0} == (
            shown.hours.counts
        )
        assert latest_of(log, name) == [report.position for report in shown.latest]
        amendments = amendments_of(log, name, ZONES[name])
        newest = list(amendments.items())[:AMENDMENTS_MAX]
        assert len(amendments) > AMENDMENTS_MAX
        assert newest == [(one.position, one.changes) for one in shown.amendments]
        assert amended_of(amendments) == shown.amended
        assert side.told
        assert all(isinstance(message, ChangeMessage) for message in side.told)


@asynchronous
async def test_whoever_adds_the_changes_to_a_snapshot_has_the_next_one(settings: Settings) -> None:
    """Counts in changes are absolute, hours too, and what is new comes before what was there."""
    entries = given.seeded_log(SEED + 1, 150)["SI"]
    async with one_side(settings) as side:
        await side.write(entries[:60])
        await side.count()
        await side.room.load()
        page = msgspec.to_builtins(side.room.shown())
        for start in range(60, len(entries), 25):
            await side.write(entries[start : start + 25])
            await side.count()
        await side.follow()
        after = page["position"]
        for message in side.told:
            apply_cells(page["cells"], message.cells)
            apply_cells(page["hours"]["counts"], message.hours)
            page["amended"].update(message.amended)
            page["latest"] = [*msgspec.to_builtins(message.latest), *page["latest"]][:30]
            page["amendments"] = [*msgspec.to_builtins(message.amendments), *page["amendments"]][:50]
            assert order(after) < order(message.position)
            after = message.position
        shown = msgspec.to_builtins(side.room.shown())
        for name in ("cells", "hours", "latest", "amendments", "amended"):
            if name in ("latest", "amendments"):
                shown[name] = list(shown[name])
            assert shown[name] == page[name], name
        assert after == shown["position"]


@asynchronous
async def test_a_report_that_is_taken_back_leaves_no_cell(settings: Settings) -> None:
    async with one_side(settings) as side:
        await side.record(given.apprehension(id=1))
        await side.room.load()
        assert side.room.cells
        await side.record(given.withdrawal(amends=1))
        await side.follow()
        assert not side.room.cells
        assert side.room.shown().hours.counts == {}
        assert set(side.told[0].cells.values()) == {0}
        assert set(side.told[0].hours.values()) == {0}


@asynchronous
async def test_a_log_longer_than_one_reading_is_known_whole(settings: Settings) -> None:
    reports = CHUNK + 50
    async with one_side(settings) as side:
        raws = [given.apprehension(id=number) for number in range(1, reports + 1)]
        async with side.client.pipeline(transaction=False) as pipe:
            for raw in raws:
                pipe.xadd(side.keys.log, {"event": raw})
            await pipe.execute()
        late = side.new_room()
        await late.load()  # before anything was counted
        await side.count()
        await side.room.load()
        assert await late.follow(await side.changes(START))
        for room in (side.room, late):
            assert set(room.shown().hours.counts.values()) == {reports}
            assert room.shown().entries == reports


# What is not of this side, or came twice


@asynchronous
async def test_nothing_of_another_side_is_shown_whoever_wrote_it(settings: Settings) -> None:
    """Anyone with the right to XADD may write into the log of SI what says that it is of HR."""
    foreign = given.apprehension(id=2, side="HR", unit="HR-SECRET", section="zagreb-secret", persons={"AFG": 9})
    again = given.apprehension(id=3, amends=2, side="HR", unit="HR-SECRET", section="zagreb-secret")
    async with one_side(settings) as side:
        await side.room.load()
        entries = [given.entry(event) for event in (given.apprehension(id=1), foreign, again)]
        await side.write(entries, datetime(2024, 3, 14, 4, tzinfo=UTC))
        await side.count()
        await side.follow()
        loaded = side.new_room()
        await loaded.load()
        past = await side.room.past(await _rebuilt(side, side.room.position))
        for said in (side.room.shown(), loaded.shown(), past, *side.told):
            assert b"secret" not in msgspec.json.encode(said).lower()
            assert b"HR" not in msgspec.json.encode(said)
        assert hours_of(await side.entries(), "SI") == past.hours.counts == side.room.shown().hours.counts


@asynchronous
async def test_what_is_parked_or_only_came_again_is_no_news(settings: Settings) -> None:
    first = given.apprehension(id=1, persons={"SYR": 4})
    conflict = given.apprehension(id=1, persons={"SYR": 5})
    amended = given.apprehension(id=2, amends=1, revision=2, persons={"SYR": 3})
    lower = given.apprehension(id=3, amends=1, revision=1, persons={"SYR": 9})
    async with one_side(settings) as side:
        await side.room.load()
        await side.record(first)
        await side.record(first, conflict)
        await side.record(amended)
        await side.record(lower, amended)
        await side.follow()
        assert [(2, {"SYR": 3}), (0, {"SYR": 4})] == [
            (report.revision, report.counts["persons"]) for report in side.room.shown().latest
        ]
        assert [-1] == [one.changes["SI||koper|2024-03-14|persons|SYR"] for one in side.room.shown().amendments]


@asynchronous
async def test_the_latest_are_thirty_even_behind_many_parked_ones(settings: Settings) -> None:
    async with one_side(settings) as side:
        reports = [given.apprehension(id=number) for number in range(1, 41)]
        await side.record(*reports)
        await side.write([{b"event": b"junk"}] * 40)
        await side.count()
        await side.room.load()
        assert list(reversed([position for position, _ in await side.entries()][10:40])) == [
            report.position for report in side.room.shown().latest
        ]


# Hours go by


@asynchronous
async def test_a_book_of_a_day_is_whole_and_does_not_grow(settings: Settings) -> None:
    """What happened earlier than a day ago is let go of, at the start and as time goes by."""
    now = datetime.now(UTC)
    old, recent = now - timedelta(hours=30), now - timedelta(hours=20)
    async with one_side(settings, now=now) as side:
        await side.write([given.entry(given.nil_report(id=3))], now - timedelta(days=3))
        await side.record(given.apprehension(id=1, time=_written(old)), given.apprehension(id=2, time=_written(recent)))
        await side.room.load()
        hour = int(recent.timestamp() // HOUR_S) * HOUR_S
        known = {f"{hour}||koper|apprehensions": 1, f"{hour}||koper|persons": 1}
        assert known == side.room.shown().hours.counts
        since = side.room.shown().hours.since
        assert now - timedelta(hours=25) <= datetime.fromtimestamp(since, UTC) <= now - timedelta(hours=24)
        side.now = now + timedelta(hours=10)
        await side.room.look()
        assert {} == side.room.shown().hours.counts
        assert since + 10 * HOUR_S == side.room.shown().hours.since


@asynchronous
async def test_what_came_late_counts_in_no_hour_though_its_amendment_is_forgotten(settings: Settings) -> None:
    """The index knows what is in force when the book does not any more; a device's clock may have been wrong."""
    now = datetime.now(UTC)
    amendment = given.apprehension(id=2, amends=1, time=_written(now - timedelta(hours=40)))
    async with one_side(settings, now=now) as side:
        await side.write([given.entry(amendment)], now - timedelta(hours=30))
        await side.count()
        await side.room.load()
        await side.record(given.apprehension(id=1, time=_written(now - timedelta(hours=2))))
        await side.follow()
        loaded = side.new_room()
        await loaded.load()
        assert {} == side.room.shown().hours.counts == loaded.shown().hours.counts


@asynchronous
async def test_hours_of_reports_from_before_the_book_are_not_claimed(settings: Settings) -> None:
    """What was received before the book began is not read; the hours that it may concern are said to be unknown."""
    now = datetime.now(UTC)
    async with one_side(settings, now=now + timedelta(hours=48)) as side:
        await side.record(given.apprehension(id=1, time=_written(now)))
        await side.room.load()
        assert {} == side.room.shown().hours.counts
        assert side.room.shown().hours.since > now.timestamp()


@asynchronous
async def test_hours_before_the_log_began_are_not_known_though_what_is_reported_of_them_counts(
    settings: Settings,
) -> None:
    """Before a side's first report nobody was there to say that an hour was quiet."""
    now = datetime.now(UTC)
    began, day = now - timedelta(hours=5), (now - timedelta(days=40)).date()
    long_ago = datetime.combine(day, time(12), settings.sides[0].zone)
    early = given.apprehension(id=1, time=_written(now - timedelta(hours=9)))
    async with one_side(settings, now=now) as side:
        await side.room.load()
        await side.write([given.entry(early)], began)
        await side.count()
        await side.follow()
        loaded = side.new_room()
        await loaded.load()
        for room in (side.room, loaded):
            hours = room.shown().hours
            assert began <= datetime.fromtimestamp(hours.since, UTC) < began + timedelta(hours=1)
            assert 1 == sum(count for name, count in hours.counts.items() if name.endswith("|persons"))
        # A day that was over by then was reported afterwards, and as a whole.
        assert long_ago.timestamp() > (await loaded.hours_of(day)).since


# Where the feed does not lead on


@asynchronous
async def test_a_gap_in_the_feed_is_seen_and_everything_loaded_anew(settings: Settings) -> None:
    async with one_side(settings) as side:
        await side.room.load()
        for number in range(1, 4):
            await side.record(given.apprehension(id=number))
        _, *rest = await side.changes()
        assert not await side.room.follow(rest)
        await assert_holds_what_is_stored(side)
        assert ["too-old"] == side.told


@asynchronous
async def test_what_the_room_has_already_is_skipped(settings: Settings) -> None:
    async with one_side(settings) as side:
        await side.record(given.apprehension(id=1))
        await side.room.load()
        await side.record(given.apprehension(id=2))
        changes = await side.changes(START)
        assert await side.room.follow(changes)
        assert await side.room.follow(changes)
        await assert_holds_what_is_stored(side)
        assert 1 == len(side.told)


@asynchronous
async def test_a_generation_that_is_swapped_in_is_loaded_once(settings: Settings) -> None:
    """Also where it is behind: what the former one left in the feed is passed over until a projector goes on."""
    async with one_side(settings) as side:
        await side.record(given.apprehension(id=1))
        await _copy_generation(side, "g1", "g2")
        for number in (2, 3):
            await side.record(given.apprehension(id=number))
        await side.room.load()
        await side.client.set(side.keys.live, "g2")
        assert await side.room.look()
        await assert_holds_what_is_stored(side)
        assert 1 == side.room.shown().entries
        assert await side.follow()
        assert await side.follow()
        assert ["generation"] == side.told
        await side.count()  # in the new one
        assert await side.follow()
        await assert_holds_what_is_stored(side)
        assert {"SI||koper|2024-03-14|persons|SYR": 3} | {"SI||koper|2024-03-14|apprehensions|": 3} == side.room.cells


@asynchronous
async def test_a_generation_that_the_feed_tells_of_first_is_loaded(settings: Settings) -> None:
    async with one_side(settings) as side:
        await side.record(given.apprehension(id=1))
        await side.room.load()
        await _copy_generation(side, "g1", "g2")
        await side.client.set(side.keys.live, "g2")
        await side.record(given.apprehension(id=2))
        assert not await side.follow()
        await assert_holds_what_is_stored(side)
        assert ["generation"] == side.told


@asynchronous
async def test_a_change_that_could_not_be_taken_is_taken_whole_the_next_time(settings: Settings) -> None:
    """What fails half-way has changed nothing: neither hours nor cells go missing from the message."""
    async with one_side(settings) as side:
        await side.record(given.apprehension(id=1))
        await side.room.load()
        await side.record(given.apprehension(id=2, persons={"SYR": 2}), given.apprehension(id=3, amends=1))
        changes, before = await side.changes(), about(side.room.shown())
        for part, name in ((side.log, "read_after"), (side.glance, "index"), (side.glance, "amendments"),
                           (side.log, "read_at")):  # fmt: skip
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(part, name, _fails(UnreachableError("away")))
                with pytest.raises(UnreachableError):
                    await side.room.follow(changes)
            assert before == about(side.room.shown())
        await side.room.follow(changes)
        (message,) = side.told
        assert message.hours == side.room.shown().hours.counts
        assert message.cells == side.room.cells


def test_what_no_projector_wrote_is_no_change() -> None:
    fields = {b"after": b"0-0", b"generation": b"g1", b"cells": b'{"SI|||2024-03-14|persons|SYR":1}'}
    assert read_change(Entry(Position("1-0"), fields))
    for name, wrong in ((b"after", b"\xff"), (b"cells", b"[]"), (b"cells", b'{"a":"1"}'), (b"cells", b"{")):
        assert read_change(Entry(Position("1-0"), fields | {name: wrong})) is None
    for name in fields:
        assert read_change(Entry(Position("1-0"), {one: text for one, text in fields.items() if one != name})) is None


# Looks


@asynchronous
async def test_a_look_finds_what_the_feed_does_not_tell(settings: Settings) -> None:
    """At the second look: at the first one the feed may be about to tell it."""
    async with one_side(settings) as side:
        await side.record(given.apprehension(id=1))
        await side.room.load()
        await side.record(given.apprehension(id=2))
        await side.client.delete(side.keys.changes)
        assert not await side.room.look()
        assert await side.room.look()
        await assert_holds_what_is_stored(side)
        assert "too-old" in side.told


@asynchronous
async def test_a_look_between_a_change_and_its_delivery_resets_nobody(settings: Settings) -> None:
    """However long nothing happened before."""
    async with one_side(settings) as side:
        await side.room.load()
        for number in range(1, 4):
            for _ in range(3):
                assert not await side.room.look()
            await side.record(given.apprehension(id=number))
            assert not await side.room.look()
            assert await side.follow()
        assert [] == [message for message in side.told if isinstance(message, str)]


@asynchronous
async def test_looks_while_changes_come_reset_nobody(settings: Settings) -> None:
    """A look that began before a change was taken must not take the server for one that was set back."""
    async with one_side(settings) as side:
        await side.room.load()
        done = False

        async def look() -> None:
            while not done:
                assert not await side.room.look()

        looking = asyncio.create_task(look())
        for number in range(1, 101):
            await side.record(given.apprehension(id=number))
            await side.follow()
        done = True
        await looking
        assert 100 == len([message for message in side.told if isinstance(message, ChangeMessage)])
        assert [] == [message for message in side.told if isinstance(message, str)]


@asynchronous
async def test_a_server_that_was_set_back_or_emptied_is_noticed(settings: Settings) -> None:
    async with one_side(settings) as side:
        await side.record(given.apprehension(id=1))
        keys = [key async for key in side.client.scan_iter(f"{{{settings.prefix}:SI}}:*")]
        kept = [(key, await side.client.dump(key)) for key in keys]
        await side.record(given.apprehension(id=2))
        await side.room.load()
        for key, value in kept:
            await side.client.restore(key, 0, value, replace=True)
        assert await side.room.look()
        await assert_holds_what_is_stored(side)
        assert 1 == side.room.shown().entries
        await side.client.delete(*keys)
        assert await side.room.look()
        assert (START, {}, 0) == (side.room.position, side.room.cells, side.room.shown().entries)
        assert ["restarted", "restarted"] == side.told
        await side.record(given.apprehension(id=3))
        assert await side.follow()
        await assert_holds_what_is_stored(side)


@asynchronous
async def test_operations_and_devices_are_told_when_they_change(settings: Settings) -> None:
    async with one_side(settings) as side:
        await side.room.load()
        await side.record(given.operation_opened(id=1), given.apprehension(id=3, reportno=3))
        await side.follow()
        await side.room.look()
        await side.room.look()
        (message,) = [message for message in side.told if isinstance(message, SideMessage)]
        assert [given.OPERATION] == [operation.operation for operation in message.operations]
        assert [("SI-MP-07", "9f3c2a", 3, ((2, 2),))] == [
            (one.unit, one.device, one.highest, one.missing) for one in message.devices
        ]
        shown = side.room.shown()
        assert (message.operations, message.devices) == (shown.operations, shown.devices)


@asynchronous
async def test_only_devices_that_changed_are_told(settings: Settings) -> None:
    """Three hundred devices, told to two hundred screens every second, would be most of what the room does."""
    async with one_side(settings) as side:
        await side.room.load()
        for number in (1, 2, 3):
            await side.record(
                *(given.apprehension(id=10 * number + n, reportno=number, device=f"d{n}") for n in (1, 2))
            )
            await side.follow()
            await side.room.look()
        await side.record(given.apprehension(id=99, reportno=4, device="d2"))
        await side.follow()
        await side.room.look()
        told = [message for message in side.told if isinstance(message, SideMessage)]
        assert [["d1", "d2"]] * 3 + [["d2"]] == [[one.device for one in message.devices] for message in told]
        assert ["d1", "d2"] == [one.device for one in side.room.plans().devices]


@asynchronous
async def test_lag_and_last_heard_are_of_the_log_and_not_of_the_feed(settings: Settings) -> None:
    now = datetime.now(UTC)
    async with one_side(settings, now=now) as side:
        await side.room.load()
        assert (0, 0.0, None) == _standing(side.room)
        at = await side.record(given.apprehension(id=1))
        await side.follow()
        await side.room.look()
        heard = datetime.fromtimestamp(int(at.partition("-")[0]) / 1000, UTC)
        assert (0, 0.0, heard) == _standing(side.room)
        first, last = await side.write([given.entry(given.apprehension(id=n)) for n in (2, 3)])
        side.now = datetime.fromtimestamp(int(first.partition("-")[0]) / 1000, UTC) + timedelta(seconds=7)
        await side.room.look()
        heard = datetime.fromtimestamp(int(last.partition("-")[0]) / 1000, UTC)
        assert (2, 7.0, heard) == _standing(side.room)


@asynchronous
async def test_the_last_audit_that_agreed_is_shown(settings: Settings) -> None:
    async with one_side(settings) as side:
        await side.room.load()
        assert side.room.standing().audit is None
        audit = AuditShown(Position("7-0"), "ab" * 32, datetime(2024, 3, 14, tzinfo=UTC))
        await side.client.set(side.keys.audit, msgspec.json.encode(audit))
        await side.room.look()
        assert audit == side.room.standing().audit


@asynchronous
async def test_the_hours_of_a_day_are_read_on_from_where_they_were_read_to(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A screen that shows a day long ago asks for it as long as reports come; the log since then may be long."""
    random, entries, day = Random(SEED), given.seeded_log(SEED + 3, 200)["SI"], date(2024, 3, 14)
    read, read_after = [], RedisLog.read_after

    async def noted(log: RedisLog, after: Position, most: int, **more: Any) -> Any:
        read.append(after)
        return await read_after(log, after, most, **more)

    async with one_side(settings) as side:
        await side.room.load()
        counted = []
        while entries:
            size = random.randint(20, 60)
            await side.write(entries[:size])
            await side.count()
            del entries[:size]
            before = side.room.position
            await side.follow()
            with monkeypatch.context() as patched:
                patched.setattr(RedisLog, "read_after", noted)
                read.clear()
                hours = await side.room.hours_of(day)
            assert not counted or [before] == read
            other = side.new_room()
            await other.load()
            assert await other.hours_of(day) == hours
            counted.append(len(hours.counts))
        assert len(counted) > 2 and counted[-1]
        await side.room.load()
        assert await side.room.hours_of(day) == hours


# The past


@asynchronous
async def test_the_past_is_what_was_shown_then(settings: Settings) -> None:
    """At any position: cells, digest, entries, latest, amendments, hours, as a room had them that followed."""
    random, received = Random(SEED), datetime(2024, 3, 15, 20, tzinfo=UTC)
    entries = given.seeded_log(SEED + 2, 150)["SI"]
    then: dict[str, Any] = {}
    async with one_side(settings) as side:
        await side.write([given.entry(given.nil_report(id=9_999))], received - timedelta(days=3))  # the log is older
        await side.count()
        await side.room.load()
        while entries:
            size = random.randint(1, 15)
            await side.write(entries[:size], received + timedelta(minutes=len(then)))
            await side.count()
            del entries[:size]
            await side.follow()
            await side.room.look()
            then[side.room.position] = about(side.room.shown())
        for position in random.sample(sorted(then, key=order), 4):
            past = about(await side.room.past(await _rebuilt(side, position)))
            expected = then[position] | {"generation": ""}
            hours = past.pop("hours")
            known = {
                name: n for name, n in expected.pop("hours").counts.items() if int(name.split("|")[0]) >= hours.since
            }
            assert known
            assert known == hours.counts
            assert expected == past
            log = await side.entries(position)
            assert oracle.count("SI", ZONES["SI"], log).tallies == past["cells"]


@asynchronous
async def test_what_was_parked_counts_in_no_hour_of_the_past_though_its_original_came_long_before(
    settings: Settings,
) -> None:
    now = datetime.now(UTC).replace(minute=30)
    happened = _written(now - timedelta(hours=2))
    async with one_side(settings) as side:
        await side.room.load()
        await side.write([given.entry(given.apprehension(id=1, persons={"SYR": 4}))], now - timedelta(days=3))
        conflict = given.apprehension(id=1, persons={"SYR": 9}, time=happened)
        await side.write([given.entry(conflict)], now - timedelta(hours=1))
        await side.count()
        await side.follow()
        past = await side.room.past(await _rebuilt(side, side.room.position))
        assert {} == past.hours.counts
        assert [4] == [count for name, count in past.cells.items() if "|persons|" in name]


async def _rebuilt(side: OneSide, until: str) -> Any:
    replay = Replay(side.settings, side.log)
    await replay.run(Position(until))
    return replay.state


async def _copy_generation(side: OneSide, old: str, new: str) -> None:
    names: Sequence[str] = ("checkpoint", "tallies", "index", "amendments", "devices", "operations", "parked")
    for name in names:
        source, target = (getattr(side.keys.generation(one), name) for one in (old, new))
        await side.client.copy(source, target)


def _fails(error: Exception) -> Any:
    async def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


def _standing(room: RoomSide) -> tuple[int, float, datetime | None]:
    standing = room.standing()
    return standing.lag, standing.lag_s, standing.heard


def _written(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
