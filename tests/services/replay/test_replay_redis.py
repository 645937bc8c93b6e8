"""Replay and audit over the log on a real server: they agree with the live tallies, and both with the oracle."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import redis

from schemas.vocabulary import START, Position, Side, order
from services.replay import replay as replay_module
from services.replay.audit import Audited, Verdict, audit
from services.replay.replay import Replay
from services.runtime.errors import DamagedLogError
from services.runtime.settings import Settings
from services.store.connection import connect
from services.store.keys import PartitionKeys
from services.store.log import RedisLog
from services.store.tally_store import RedisTallyStore
from services.tally.cells import cell_text
from services.tally.digest import state_digest
from services.tally.fold import State
from tests import oracle
from tests.given import apprehension, entry, seeded_log
from tests.projectors import (
    ROOT,
    SI_ONLY,
    Standing,
    environment,
    expected,
    feed,
    log_of,
    project,
    stored,
)

SEED = 20240313


@asynccontextmanager
async def audited_sides(settings: Settings) -> AsyncIterator[list[Audited]]:
    assert settings.redis_url
    client = connect(settings.redis_url)
    partitions = [(side, PartitionKeys(settings.prefix, side.side)) for side in settings.sides]
    try:
        yield [
            Audited(side, RedisLog(client, settings.redis_url, keys), RedisTallyStore(client, settings.redis_url, keys))
            for side, keys in partitions
        ]
    finally:
        await client.aclose()


def replayed(settings: Settings, side: str, stops: Sequence[str]) -> list[Standing]:
    """Return what one replay, going on from stop to stop, has rebuilt at each."""

    async def run() -> list[Standing]:
        async with audited_sides(settings) as sides:
            one = next(one for one in sides if one.side.side == side)
            replay = Replay(one.side, one.log)
            standings = []
            for stop in stops:
                await replay.run(Position(stop))
                standings.append(standing_of(replay.state))
            return standings

    return asyncio.run(run())


def run_audit(settings: Settings) -> Verdict:
    async def run() -> Verdict:
        async with audited_sides(settings) as sides:
            return await audit(sides, ())

    return asyncio.run(run())


def standing_of(state: State) -> Standing:
    """Return a state in the words of the tests; what was parked is in its counters only."""
    counters = state.checkpoint.counters
    outcomes = {name: number for name in counters.__struct_fields__ if (number := getattr(counters, name))}
    tallies = {cell_text(cell): number for cell, number in state.tallies.items()}
    return Standing(state.checkpoint.position, state.checkpoint.entries, tallies, outcomes, {})


def counted(entries: Sequence[tuple[str, dict[bytes, bytes]]], side: str, until: str) -> Standing:
    """Return the oracle's word, as far as a replay knows it."""
    return expected(entries, side, until)._replace(parked={})


# Replay


@pytest.mark.parametrize("seed", [SEED, SEED + 1])
def test_replay_equals_the_live_tallies_and_the_oracle_at_the_same_position_and_digest(
    settings: Settings, prefix: str, client: redis.Redis, seed: int
) -> None:
    for side, entries in seeded_log(seed, 500).items():
        feed(client, prefix, side, entries)
    project(settings)
    for side in ("SI", "HR"):
        live = stored(client, prefix, side)
        [rebuilt] = replayed(settings, side, [live.position])
        assert rebuilt == counted(log_of(client, prefix, side), side, live.position)
        assert rebuilt == live._replace(parked={})
        assert oracle.digest(live.tallies) == oracle.digest(rebuilt.tallies)


@pytest.mark.parametrize("batch", [1, 7, 2_000])
def test_replay_as_of_any_position_is_the_oracle_of_the_log_up_to_there(
    settings: Settings, prefix: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(replay_module, "BATCH", batch)
    feed(client, prefix, "SI", seeded_log(SEED + 2, 120)["SI"])
    entries = log_of(client, prefix, "SI")
    at = [position for position, _ in entries]
    milliseconds, sequence = order(at[-1])
    stops = [START, "1-0", at[0], at[1], at[6], at[7], at[40], at[-2], at[-1], f"{milliseconds}-{sequence + 1}"]
    for stop in stops:
        assert replayed(settings, "SI", [stop]) == [counted(entries, "SI", stop)], f"as of {stop}"


def test_replay_as_of_a_position_between_two_entries_is_that_of_the_former(
    settings: Settings, prefix: str, client: redis.Redis
) -> None:
    reports = [entry(apprehension(id=number)) for number in (1, 2, 3)]
    for position, fields in zip(("5-1", "5-7", "10-0"), reports, strict=True):
        client.xadd(f"{{{prefix}:SI}}:log", {**fields}, id=position)
    found = {
        stop: replayed(settings, "SI", [stop])[0].position for stop in ("5-0", "5-1", "5-6", "9-0", "10-0", "11-0")
    }
    assert found == {"5-0": "0-0", "5-1": "5-1", "5-6": "5-1", "9-0": "5-7", "10-0": "10-0", "11-0": "10-0"}


def test_a_replay_may_go_on_from_where_it_stopped(settings: Settings, prefix: str, client: redis.Redis) -> None:
    feed(client, prefix, "SI", seeded_log(SEED + 3, 120)["SI"])
    entries = log_of(client, prefix, "SI")
    stops = [entries[number][0] for number in (0, 3, 3, 30, len(entries) - 1)]
    assert replayed(settings, "SI", stops) == [counted(entries, "SI", stop) for stop in stops]


def test_what_comes_in_behind_the_position_changes_nothing(
    settings: Settings, prefix: str, client: redis.Redis
) -> None:
    entries = seeded_log(SEED + 4, 120)["SI"]
    stop = feed(client, prefix, "SI", entries[:50])[-1]
    before = replayed(settings, "SI", [stop])
    feed(client, prefix, "SI", entries[50:])
    assert replayed(settings, "SI", [stop]) == before
    assert replayed(settings, "SI", [stop, log_of(client, prefix, "SI")[-1][0]])[1].entries == len(entries)


def lose_one(client: redis.Redis, key: str, positions: Sequence[str]) -> None:
    client.xdel(key, positions[len(positions) // 2])


def lose_the_first(client: redis.Redis, key: str, positions: Sequence[str]) -> None:
    client.xtrim(key, maxlen=len(positions) - 1, approximate=False)


def lose_the_last(client: redis.Redis, key: str, positions: Sequence[str]) -> None:
    client.xdel(key, positions[-1])


def lose_all(client: redis.Redis, key: str, _: Sequence[str]) -> None:
    client.xtrim(key, maxlen=0, approximate=False)


LOSSES = [lose_one, lose_the_first, lose_the_last, lose_all]


@pytest.mark.parametrize("lose", LOSSES)
def test_an_incomplete_log_is_not_replayed_at_any_position(
    settings: Settings,
    prefix: str,
    client: redis.Redis,
    lose: Callable[[redis.Redis, str, Sequence[str]], None],
) -> None:
    """Not even up to a position before the loss: nobody could say that it is before."""
    positions = feed(client, prefix, "SI", seeded_log(SEED + 5, 60)["SI"])
    lose(client, f"{{{prefix}:SI}}:log", positions)
    missing = len(positions) - client.xlen(f"{{{prefix}:SI}}:log")
    for stop in (positions[0], positions[-1]):
        with pytest.raises(DamagedLogError) as raised:
            replayed(settings, "SI", [stop])
        assert f"holds {len(positions) - missing} of the {len(positions)} entries ever appended" in str(raised.value)
        assert raised.value.exit_code == 4


# Audit


def test_an_audit_of_sound_tallies_finds_nothing(settings: Settings, prefix: str, client: redis.Redis) -> None:
    for side, entries in seeded_log(SEED + 6, 200).items():
        feed(client, prefix, side, entries)
    project(settings)
    live = {side: stored(client, prefix, side) for side in ("SI", "HR")}
    verdict = run_audit(settings)
    assert (verdict.clean, verdict.live_equals_rebuilt, verdict.differences) == (True, True, [])
    assert verdict.position == verdict.live_position == {side: live[side].position for side in live}
    assert verdict.entries_behind == {"SI": 0, "HR": 0}
    assert verdict.digest == oracle.digest(live["SI"].tallies | live["HR"].tallies)


def test_an_audit_needs_no_pause(settings: Settings, prefix: str, client: redis.Redis) -> None:
    """The live tallies are compared where they stand, and the rest is said to be behind."""
    entries = seeded_log(SEED + 7, 200)["SI"]
    feed(client, prefix, "SI", entries[:60])
    project(settings)
    live = stored(client, prefix, "SI")
    end = feed(client, prefix, "SI", entries[60:])[-1]
    verdict = run_audit(settings)
    assert verdict.live_equals_rebuilt
    assert verdict.live_position[Side("SI")] == live.position
    assert verdict.position[Side("SI")] == end
    assert verdict.entries_behind[Side("SI")] == len(entries) - 60
    assert verdict.digest == oracle.digest(expected(log_of(client, prefix, "SI"), "SI").tallies)


def test_an_audit_before_any_projection_compares_nothing_and_counts_everything(
    settings: Settings, prefix: str, client: redis.Redis
) -> None:
    entries = seeded_log(SEED + 8, 60)["SI"]
    feed(client, prefix, "SI", entries)
    verdict = run_audit(settings)
    assert verdict.live_equals_rebuilt is None
    assert (verdict.uncounted, verdict.agreed) == (["SI"], [])
    assert verdict.live_position == {"SI": START, "HR": START}
    assert verdict.entries_behind == {"SI": len(entries), "HR": 0}


@pytest.mark.parametrize("by", [1, -1])
def test_an_audit_names_a_cell_that_is_not_what_the_log_says(
    settings: Settings, prefix: str, client: redis.Redis, by: int
) -> None:
    feed(client, prefix, "SI", seeded_log(SEED + 9, 120)["SI"])
    project(settings)
    cell, number = max(stored(client, prefix, "SI").tallies.items(), key=lambda item: item[1])
    client.hincrby(f"{{{prefix}:SI}}:g1:tallies", cell, by)
    verdict = run_audit(settings)
    assert not verdict.clean
    assert [(cell_text(row.cell), row.live, row.rebuilt) for row in verdict.differences] == [
        (cell, number + by, number)
    ]


def test_an_audit_names_cells_that_are_missing_or_too_many(
    settings: Settings, prefix: str, client: redis.Redis
) -> None:
    feed(client, prefix, "SI", seeded_log(SEED + 10, 120)["SI"])
    project(settings)
    cell, number = min(stored(client, prefix, "SI").tallies.items())
    invented = "SI||nowhere|2024-03-14|apprehensions|"
    client.hdel(f"{{{prefix}:SI}}:g1:tallies", cell)
    client.hset(f"{{{prefix}:SI}}:g1:tallies", invented, 3)
    verdict = run_audit(settings)
    found = {cell_text(row.cell): (row.live, row.rebuilt) for row in verdict.differences}
    assert found == {cell: (0, number), invented: (3, 0)}


def test_an_audit_finds_a_checkpoint_that_runs_ahead_of_the_tallies(
    settings: Settings, prefix: str, client: redis.Redis
) -> None:
    """What a projector would leave that wrote the two apart from each other."""
    first, last = feed(client, prefix, "SI", [entry(apprehension(id=number)) for number in (1, 2)])
    project(settings)
    assert stored(client, prefix, "SI").position == last
    tallies = f"{{{prefix}:SI}}:g1:tallies"
    for cell, number in expected(log_of(client, prefix, "SI"), "SI", first).tallies.items():
        client.hset(tallies, cell, number)
    assert not run_audit(settings).live_equals_rebuilt


@pytest.mark.parametrize("lose", LOSSES)
def test_an_incomplete_log_is_not_audited(
    settings: Settings,
    prefix: str,
    client: redis.Redis,
    lose: Callable[[redis.Redis, str, Sequence[str]], None],
) -> None:
    positions = feed(client, prefix, "SI", seeded_log(SEED + 11, 60)["SI"])
    project(settings)
    lose(client, f"{{{prefix}:SI}}:log", positions)
    with pytest.raises(DamagedLogError, match=r"side SI (is incomplete|has lost entries)"):
        run_audit(settings)


# As a person runs it


def run_command(server_url: str, prefix: str, *args: str) -> tuple[int, str, str]:
    """Run `fieldtally` and return its exit code and what it printed on stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", *args],
        cwd=ROOT,
        env={name: text for name, text in os.environ.items() if not name.startswith("FIELDTALLY_")}
        | environment(server_url, prefix, SI_ONLY),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


CELLS = ("--by", "side,operation,section,day,measure,citizenship", "--format", "json")


def test_the_command_replays_as_of_a_position(server_url: str, prefix: str, client: redis.Redis) -> None:
    feed(client, prefix, "SI", seeded_log(SEED + 12, 120)["SI"])
    entries = log_of(client, prefix, "SI")
    stop = entries[len(entries) // 2][0]
    code, printed, notes = run_command(server_url, prefix, "replay", "--as-of", stop, *CELLS)
    standing = expected(entries, "SI", stop)
    cells = {"|".join(str(part) for part in list(row.values())[:-1]): row["count"] for row in json.loads(printed)}
    assert (code, cells) == (0, standing.tallies)
    assert standing.position in notes
    assert oracle.digest(standing.tallies) in notes


def test_the_command_audits_with_0_and_with_1_where_something_differs(
    settings_for: Callable[..., Settings], server_url: str, prefix: str, client: redis.Redis
) -> None:
    feed(client, prefix, "SI", seeded_log(SEED + 13, 120)["SI"])
    project(settings_for(server_url, SIDES=SI_ONLY))
    live = stored(client, prefix, "SI")
    code, printed, _ = run_command(server_url, prefix, "audit", "--format", "json")
    found = json.loads(printed)
    assert (code, found["live_equals_rebuilt"], found["position"]) == (0, True, {"SI": live.position})
    assert found["digest"] == oracle.digest(live.tallies)
    client.hincrby(f"{{{prefix}:SI}}:g1:tallies", next(iter(live.tallies)), 1)
    code, printed, _ = run_command(server_url, prefix, "audit", "--format", "json")
    assert (code, json.loads(printed)["live_equals_rebuilt"]) == (1, False)


@pytest.mark.parametrize("command", ["replay", "audit"])
def test_the_command_refuses_an_incomplete_log_with_4_and_words(
    settings_for: Callable[..., Settings], server_url: str, prefix: str, client: redis.Redis, command: str
) -> None:
    positions = feed(client, prefix, "SI", [entry(apprehension(id=number)) for number in (1, 2, 3)])
    project(settings_for(server_url, SIDES=SI_ONLY))
    client.xdel(f"{{{prefix}:SI}}:log", positions[1])
    code, printed, words = run_command(server_url, prefix, command)
    assert (code, printed) == (4, "")
    assert words.startswith("fieldtally: the log of side SI is incomplete: it holds 2 of the 3 entries")
    assert len(words.splitlines()) == 1


@pytest.mark.parametrize("command", ["replay", "audit"])
@pytest.mark.parametrize("kept", [0, 2])
def test_the_command_refuses_a_log_that_ends_before_the_tallies(
    settings_for: Callable[..., Settings], server_url: str, prefix: str, client: redis.Redis, command: str, kept: int
) -> None:
    """By itself such a log looks whole; its figures would be too low, and said to be right."""
    feed(client, prefix, "SI", [entry(apprehension(id=number)) for number in (1, 2, 3)])
    project(settings_for(server_url, SIDES=SI_ONLY))
    entries = log_of(client, prefix, "SI")
    client.delete(f"{{{prefix}:SI}}:log")
    for position, fields in entries[:kept]:
        client.xadd(f"{{{prefix}:SI}}:log", {**fields}, id=position)
    code, printed, words = run_command(server_url, prefix, command)
    assert (code, printed) == (4, "")
    assert words.startswith("fieldtally: the log of side SI has lost entries: it ends at ")
    assert len(words.splitlines()) == 1


def test_the_digest_of_the_product_is_that_of_the_oracle(settings: Settings, prefix: str, client: redis.Redis) -> None:
    """Two parties read it to each other: so both must get it by the same rule, from whatever they keep."""
    feed(client, prefix, "SI", seeded_log(SEED + 14, 60)["SI"])
    project(settings)

    async def load() -> str:
        async with audited_sides(settings) as sides:
            return state_digest((await sides[0].store.load()).tallies)

    assert asyncio.run(load()) == oracle.digest(stored(client, prefix, "SI").tallies)
