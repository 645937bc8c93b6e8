"""A replay over an archive remembers every report that comes again, whoever understood it and whatever comes in."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from schemas.vocabulary import Position
from services.replay.processes import rebuild_sides
from services.runtime.settings import Settings
from services.store import columns
from services.store.whole_log import WholeLog
from services.tally.cells import cell_text
from services.tally.fold import arrive
from tests import archives
from tests.archives import archive_now, archived, small_pieces, trim_now, trimmed, whole_log
from tests.given import apprehension

LAST = Position(f"{2**63}-0")


@pytest.fixture
def here(settings: Settings, tmp_path: Path) -> Settings:
    """The settings, with an archive of the test's own."""
    return msgspec.structs.replace(settings, data_dir=tmp_path)


def persons(settings: Settings) -> int:
    """Return how many persons a replay counts, asked for a time that is still to come."""
    assert settings.redis_url
    state = rebuild_sides(settings, settings.redis_url, {archives.SI: LAST})[archives.SI]
    return sum(count for cell, count in state.tallies.items() if "|persons|" in cell_text(cell))


def append(client: redis.Redis, prefix: str, *events: bytes) -> None:
    for event in events:
        client.xadd(f"{{{prefix}:SI}}:log", {"event": event})


def test_a_report_that_was_not_understood_when_it_was_archived_is_remembered(
    here: Settings, server_url: str, prefix: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_pieces(monkeypatch)
    append(client, prefix, apprehension(id=1, persons={"SYR": 4}))
    with monkeypatch.context() as older:
        older.setattr(columns, "arrive", lambda position, _: arrive(position, {b"event": b""}))
        archive_now(server_url, prefix, here.archive_dir)
    append(client, prefix, *[apprehension(id=1, persons={"SYR": 4})] * 2, apprehension(amends=1, persons={"SYR": 5}))
    monkeypatch.setattr("services.replay.replay.BATCH", 1)
    assert persons(here) == 5
    archive_now(server_url, prefix, here.archive_dir)
    trim_now(server_url, prefix, here.archive_dir)
    assert persons(here) == 5


def test_what_comes_in_while_it_replays_is_not_counted_twice(
    here: Settings, server_url: str, prefix: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(client, prefix, apprehension(id=1, persons={"SYR": 4}))
    archive_now(server_url, prefix, here.archive_dir)
    monkeypatch.setattr("services.replay.replay.BATCH", 1)
    honest = WholeLog.recurring

    async def and_then_it_comes_again(log: WholeLog, last: Position) -> Any:
        found = await honest(log, last)
        append(client, prefix, apprehension(id=1, persons={"SYR": 4}))
        return found

    monkeypatch.setattr(WholeLog, "recurring", and_then_it_comes_again)
    assert persons(here) == 4


def test_what_is_archived_and_trimmed_while_it_looks_for_what_comes_again_is_found(
    server_url: str, prefix: str, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(client, prefix, apprehension(id=1))
    archive_now(server_url, prefix, tmp_path)
    append(client, prefix, apprehension(id=1), apprehension(id=2))

    async def run() -> None:
        async with whole_log(server_url, prefix, tmp_path) as log:
            honest = log.stream.read_after

            async def once_trimmed(*args: Any) -> Any:
                await archived(server_url, prefix, tmp_path)
                await trimmed(server_url, prefix, tmp_path)
                return await honest(*args)

            monkeypatch.setattr(log.stream, "read_after", once_trimmed)
            recurring = await log.recurring(LAST)
            assert recurring is not None
            arrivals = [arrive(one.position, one.fields) for one in archives.entries_in(tmp_path, prefix)]
            assert len(recurring.take([arrivals[0].key])) == 1

    asyncio.run(run())
