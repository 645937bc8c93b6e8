"""The projector as a whole, on a real server: everything in the log is counted once, whatever happens on the way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import redis
from msgspec.structs import replace

from schemas.vocabulary import Side
from services.projector import app, follower
from services.projector.app import Projector
from services.replay.processes import rebuild_generations
from services.replay.rebuild import Rebuilt
from services.runtime.errors import DamagedLogError, UnreachableError
from services.runtime.settings import Settings
from services.store import connection, subscription
from tests.faults import Action, Command, FaultProxy
from tests.given import apprehension, entry, seeded_log
from tests.projectors import SI_ONLY, Lines, assert_counted, assert_sound, feed, log_of, project, stored

SEED = 20240313


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "BATCH_MAX", 7)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a lost reply, and the pause after it, short."""
    monkeypatch.setattr(subscription, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(connection.connect, "__kwdefaults__", {"timeout_s": 0.3})
    monkeypatch.setattr(subscription, "POLL_MS", 50)
    monkeypatch.setattr(follower, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(follower, "LONGEST_PAUSE_S", 0.02)


def test_history_before_the_first_start_is_counted(settings: Settings, prefix: str, client: redis.Redis) -> None:
    for side, entries in seeded_log(SEED, 400).items():
        feed(client, prefix, side, entries)
    project(settings)
    assert_counted(client, prefix, "SI", "HR")


@pytest.mark.usefixtures("small_batches")
def test_many_batches_amount_to_the_same_as_one(settings: Settings, prefix: str, client: redis.Redis) -> None:
    entries = seeded_log(SEED + 1, 200)["SI"]
    feed(client, prefix, "SI", entries)
    lines = project(settings)
    assert_counted(client, prefix, "SI")
    applied = [line["entries"] for line in lines.named("batch_applied")]
    assert (sum(applied), max(applied)) == (len(entries), 7)


def test_an_empty_log_is_caught_up_with_at_once(settings: Settings, prefix: str, client: redis.Redis) -> None:
    lines = project(settings)
    assert [line["event"] for line in lines] == ["projector_started"]
    assert client.keys(f"*{prefix}:*") == []


def test_a_restart_goes_on_from_the_checkpoint(settings: Settings, prefix: str, client: redis.Redis) -> None:
    entries = seeded_log(SEED + 2, 150)["SI"]
    feed(client, prefix, "SI", entries[:40])
    project(settings)
    feed(client, prefix, "SI", entries[40:])
    lines = project(settings)
    assert sum(line["entries"] for line in lines.named("batch_applied")) == len(entries) - 40
    assert_counted(client, prefix, "SI")
    assert lines.named("turn_refused") == []


@pytest.mark.usefixtures("small_batches")
def test_a_stop_between_two_batches_leaves_a_sound_state(settings: Settings, prefix: str, client: redis.Redis) -> None:
    entries = seeded_log(SEED + 3, 150)["SI"]
    feed(client, prefix, "SI", entries)

    def stop_soon(_entries: int) -> None:
        if projector.entries_applied >= 14:
            projector.app.exit()

    assert settings.redis_url
    projector = Projector(settings, settings.redis_url, Lines().logger(), on_progress=stop_soon)
    asyncio.run(asyncio.wait_for(projector.run(), 60))
    standing = assert_sound(client, prefix, "SI")
    assert standing.entries >= 14
    project(settings)
    assert_counted(client, prefix, "SI")


def test_sides_are_counted_apart(settings_for: Callable[..., Settings], server_url: str, prefix: str) -> None:
    """A projector for one side leaves the other alone, and one for both takes it up."""
    with redis.Redis.from_url(server_url) as client:
        for side, entries in seeded_log(SEED + 4, 80).items():
            feed(client, prefix, side, entries)
        project(settings_for(server_url, SIDES=SI_ONLY))
        assert_counted(client, prefix, "SI")
        assert stored(client, prefix, "HR").entries == 0
        project(settings_for(server_url))
        assert_counted(client, prefix, "SI", "HR")


def test_the_change_feed_leads_to_the_tallies(settings: Settings, prefix: str, client: redis.Redis) -> None:
    """Whoever lays the changes over an empty screen, in their order, sees the tallies at each checkpoint."""
    entries = seeded_log(SEED + 5, 150)["SI"]
    for start in range(0, len(entries), 25):
        feed(client, prefix, "SI", entries[start : start + 25])
        project(settings)
    screen: dict[str, int] = {}
    feed_entries: Any = client.xrange(f"{{{prefix}:SI}}:changes")
    for _, fields in feed_entries:
        assert fields[b"generation"] == b"g1"
        screen |= json.loads(fields[b"cells"])
    standing = stored(client, prefix, "SI")
    assert {cell: number for cell, number in screen.items() if number} == standing.tallies
    assert feed_entries[-1][0].decode() == standing.position
    assert len(feed_entries) == -(-len(entries) // 25)


# Junk


JUNK: list[tuple[str, dict[bytes, bytes]]] = [
    ("malformed", {b"event": b""}),
    ("malformed", {b"event": b"\xff\x00"}),
    ("malformed", {b"data": apprehension(id=50)}),
    ("malformed", {b"event": apprehension(id=51), b"extra": b"1"}),
    ("malformed", {b"event": apprehension(id=52).replace(b'"SYR"', b'"XYZ"')}),
    ("malformed", {b"event": b'{"type":' * 5_000}),
    ("unknown-type", {b"event": apprehension(id=53).replace(b"apprehension.v1", b"apprehension.v9")}),
    ("unknown-type", {b"event": b'{"type":"com.example.other"}'}),
    ("wrong-side", {b"event": apprehension(id=54, side="HR")}),
    ("conflict", {b"event": apprehension(id=1, persons={"AFG": 9})}),
]


@pytest.mark.parametrize("batch_max", [1, 1_000])
def test_junk_is_parked_with_position_and_reason_and_the_rest_is_counted(
    settings: Settings, prefix: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, batch_max: int
) -> None:
    monkeypatch.setattr(app, "BATCH_MAX", batch_max)
    good = [entry(apprehension(id=number)) for number in range(1, len(JUNK) + 2)]
    mixed = [fields for one, (_, junk) in zip(good, JUNK, strict=False) for fields in (one, junk)] + good[-1:]
    positions = feed(client, prefix, "SI", mixed)
    project(settings)
    reasons = [reason for reason, _ in JUNK]
    assert dict(zip(positions[1::2], reasons, strict=True)) == stored(client, prefix, "SI").parked
    assert_counted(client, prefix, "SI")
    assert stored(client, prefix, "SI").outcomes["applied"] == len(good)


def test_parked_entries_stay_in_the_log_and_say_why(settings: Settings, prefix: str, client: redis.Redis) -> None:
    [position] = feed(client, prefix, "SI", [{b"event": b"no event"}])
    project(settings)
    row = json.loads(client.hget(f"{{{prefix}:SI}}:g1:parked", position) or b"")
    assert sorted(row) == ["detail", "digest", "reason"]
    assert "no event" not in row["detail"]
    assert log_of(client, prefix, "SI") == [(position, {b"event": b"no event"})]


# A bad line


@pytest.mark.usefixtures("impatient", "small_batches")
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_a_line_that_drops_replies_does_no_harm(
    settings_for: Callable[..., Settings], server_url: str, prefix: str, client: redis.Redis, seed: int
) -> None:
    """Of some 150 commands one in ten is lost on the way, on the way back, or with everything that follows it."""
    random = Random(f"drops {seed}")
    entries = seeded_log(seed, 130)["SI"]
    feed(client, prefix, "SI", entries)
    dropped: list[str] = []

    def rule(command: Command) -> Action:
        # From the first read on: what fails before that fails the start, and is reported to the caller.
        if "XREAD" not in proxy.commands or command.number > 200 or random.random() >= 0.1:
            return Action.PASS
        dropped.append(command.name)
        # A swallowed reply takes a timeout's length, so it is the rarest.
        kinds = [Action.CUT_BEFORE, Action.CUT_AFTER, Action.SWALLOW_REPLY]
        return random.choices(kinds, (3, 3, 1))[0]

    with FaultProxy(server_url) as proxy:
        proxy.on_command = rule
        lines = project(settings_for(proxy.url, SIDES=SI_ONLY))
    assert len(dropped) >= 5
    assert lines.named("waiting")
    assert_counted(client, prefix, "SI")


@pytest.mark.usefixtures("impatient", "small_batches")
@pytest.mark.parametrize("action", [Action.CUT_BEFORE, Action.CUT_AFTER, Action.SWALLOW_REPLY], ids=lambda a: a.name)
@pytest.mark.parametrize("name", ["XREAD", "WATCH", "EXEC"])
def test_a_reply_lost_at_the_first_two_tries_does_no_harm(
    settings_for: Callable[..., Settings], server_url: str, prefix: str, client: redis.Redis, name: str, action: Action
) -> None:
    entries = seeded_log(7, 40)["SI"]
    feed(client, prefix, "SI", entries)
    met = 0

    def rule(command: Command) -> Action:
        nonlocal met
        if "XREAD" not in proxy.commands or command.name != name:
            return Action.PASS
        met += 1
        return action if met <= 2 else Action.PASS

    with FaultProxy(server_url) as proxy:
        proxy.on_command = rule
        project(settings_for(proxy.url, SIDES=SI_ONLY))
    assert met >= 3
    assert_counted(client, prefix, "SI")


@pytest.mark.usefixtures("impatient", "small_batches")
def test_replies_broken_off_at_any_byte_do_no_harm(
    settings_for: Callable[..., Settings], server_url: str, prefix: str, client: redis.Redis
) -> None:
    entries = seeded_log(8, 60)["SI"]
    feed(client, prefix, "SI", entries)
    random = Random("bytes")
    exchanges = 0

    def rule(command: Command) -> Action:
        nonlocal exchanges
        if "XREAD" in proxy.commands and command.name in {"XREAD", "HMGET", "EXEC"}:
            exchanges += 1
            if exchanges <= 40 and random.random() < 0.5:
                proxy.limit_reply_bytes(random.randrange(200))
        return Action.PASS

    with FaultProxy(server_url) as proxy:
        proxy.on_command = rule
        project(settings_for(proxy.url, SIDES=SI_ONLY))
    assert exchanges >= 40
    assert_counted(client, prefix, "SI")


# What it cannot go on from


def test_a_server_that_is_away_at_the_start_is_told_to_the_caller(settings_for: Callable[..., Settings]) -> None:
    with pytest.raises(UnreachableError):
        project(settings_for("unix:///nowhere/valkey.sock"))


@pytest.mark.usefixtures("small_batches")
def test_an_error_inside_exec_stops_the_partition_for_good(
    settings: Settings, prefix: str, client: redis.Redis
) -> None:
    """Redis does not roll back. Nothing more is applied, by this projector or the next, until it is rebuilt."""
    entries = seeded_log(SEED + 7, 100)["SI"]
    feed(client, prefix, "SI", [{b"event": b"junk"}, *entries])
    generation = f"{{{prefix}:SI}}:g1"
    client.set(f"{generation}:parked", "not a hash")
    for _ in range(2):
        with pytest.raises(DamagedLogError, match=r"no longer sound: HSET on .*parked.*`fieldtally rebuild --swap`"):
            project(settings)
        assert client.hget(f"{generation}:checkpoint", "entries") == b"7"
    client.delete(f"{generation}:parked")  # which is not enough: it lacks what was not written
    with pytest.raises(DamagedLogError, match="no longer sound"):
        project(settings)
    one_side = replace(settings, sides=settings.sides[:1])
    rebuilt = rebuild_generations(one_side, str(settings.redis_url), swap=True)[Side("SI")]
    assert isinstance(rebuilt, Rebuilt), rebuilt
    assert "no longer sound" in rebuilt.problem
    project(settings)
    assert_counted(client, prefix, "SI")


@pytest.mark.usefixtures("small_batches")
def test_a_second_projector_does_not_go_on_from_what_is_not_sound(
    settings: Settings, prefix: str, client: redis.Redis
) -> None:
    """It holds a state that was sound, and finds the mark when it opens its turn."""
    feed(client, prefix, "SI", seeded_log(SEED + 7, 40)["SI"])

    async def run() -> None:
        working = asyncio.Event()
        projector = Projector(settings, str(settings.redis_url), Lines().logger(), on_progress=lambda _: working.set())
        running = asyncio.create_task(projector.run())
        await asyncio.wait_for(working.wait(), 30)
        client.hset(f"{{{prefix}:SI}}:g1:checkpoint", "unsound", "HSET on a key failed")
        feed(client, prefix, "SI", [entry(apprehension(id=999))])
        await asyncio.wait_for(running, 30)

    with pytest.raises(DamagedLogError, match="no longer sound: HSET on a key failed"):
        asyncio.run(run())


def test_any_id_that_a_stream_takes_is_a_position(settings: Settings, prefix: str, client: redis.Redis) -> None:
    """Anyone with the right to XADD chooses the ID; it must neither stop the side nor be forgotten."""
    log = f"{{{prefix}:SI}}:log"
    for number, position in enumerate(("281474976710655-0", "281474976710656-1", "18446744073709551615-7"), 1):
        client.xadd(log, {**entry(apprehension(id=number))}, id=position)
    project(settings)
    assert_counted(client, prefix, "SI")
    for number in (1, 2, 3):  # the index leads back to each
        client.xadd(log, {**entry(apprehension(amends=number))}, id=f"18446744073709551615-{7 + number}")
    project(settings)
    assert_counted(client, prefix, "SI")
    assert stored(client, prefix, "SI").outcomes["replaced"] == 3


def test_tallies_of_other_counting_rules_are_refused(settings: Settings, prefix: str, client: redis.Redis) -> None:
    feed(client, prefix, "SI", [entry(apprehension())])
    project(settings)
    client.hset(f"{{{prefix}:SI}}:g1:checkpoint", "fold_version", 99)
    with pytest.raises(DamagedLogError, match=r"counting rules version 99.*rebuild"):
        project(settings)


def test_a_log_whose_beginning_is_gone_is_not_begun_with(settings: Settings, prefix: str, client: redis.Redis) -> None:
    """Nothing would tell that the first reports are missing from the tallies."""
    feed(client, prefix, "SI", [entry(apprehension(id=number)) for number in (1, 2, 3)])
    client.xtrim(f"{{{prefix}:SI}}:log", maxlen=2, approximate=False)
    with pytest.raises(DamagedLogError, match="has lost entries: 1 of the 3 ever appended are gone"):
        project(settings)
    assert stored(client, prefix, "SI").entries == 0


def trim(client: redis.Redis, log: str, _: list[str]) -> None:
    client.xtrim(log, maxlen=2, approximate=False)


def delete_one_ahead(client: redis.Redis, log: str, positions: list[str]) -> None:
    client.xdel(log, positions[-3])


def delete_the_last(client: redis.Redis, log: str, positions: list[str]) -> None:
    client.xdel(log, positions[-1])


def begin_anew(client: redis.Redis, log: str, _: list[str]) -> None:
    client.delete(log)
    client.xadd(log, {**entry(apprehension(id=99))})


LOSSES = [trim, delete_one_ahead, delete_the_last, begin_anew]


@pytest.mark.parametrize("lose", LOSSES)
def test_what_is_gone_before_it_was_counted_is_not_skipped(
    settings: Settings, prefix: str, client: redis.Redis, lose: Callable[[redis.Redis, str, list[str]], None]
) -> None:
    feed(client, prefix, "SI", [entry(apprehension(id=number)) for number in range(1, 6)])
    project(settings)
    before = stored(client, prefix, "SI")
    positions = feed(client, prefix, "SI", [entry(apprehension(id=number)) for number in range(6, 11)])
    lose(client, f"{{{prefix}:SI}}:log", positions)
    with pytest.raises(DamagedLogError, match=r"the log of side SI has lost entries: .*; restore the log"):
        project(settings)
    assert stored(client, prefix, "SI") == before


def test_what_was_counted_may_be_archived_and_trimmed(settings: Settings, prefix: str, client: redis.Redis) -> None:
    """For the projector; a replay needs all of it."""
    feed(client, prefix, "SI", [entry(apprehension(id=number)) for number in range(1, 6)])
    project(settings)
    client.xtrim(f"{{{prefix}:SI}}:log", maxlen=2, approximate=False)
    feed(client, prefix, "SI", [entry(apprehension(id=6))])
    project(settings)
    assert stored(client, prefix, "SI").entries == 6
