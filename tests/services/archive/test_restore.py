"""A server that lost what its archive has goes on behind it; whatever else was lost is said, and nothing done."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis

from schemas.vocabulary import START, Position, order
from services.archive.restore import Restored
from services.runtime.errors import DamagedLogError, FieldtallyError, UsageError
from services.store.contract import Entry, LogExtent
from tests import archives
from tests.archives import archive_now, entries_in, folder_of, restored, small_pieces, trim_now, whole, whole_log
from tests.faults import Action, Command, FaultProxy
from tests.given import apprehension, entry, seeded_log

SEED = 20240313
LENGTH = 40
ARCHIVED = 29


@pytest.fixture
def key(prefix: str) -> str:
    return f"{{{prefix}:SI}}:log"


@pytest.fixture
def log(
    client: redis.Redis, server_url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Entry]:
    """Write a log, archive most of it, and return it."""
    small_pieces(monkeypatch)
    written = archives.write(client, prefix, seeded_log(SEED, 300)["SI"][:LENGTH])
    archive_now(server_url, prefix, tmp_path, written[ARCHIVED - 1].position)
    return written


def extent_of(url: str, prefix: str, folder: Path) -> LogExtent:
    async def read() -> LogExtent:
        async with whole_log(url, prefix, folder) as log:
            return await log.extent()

    return asyncio.run(read())


def restore(url: str, prefix: str, folder: Path, counted: Position = START, *, went_on: bool = False) -> Restored:
    return asyncio.run(restored(url, prefix, folder, counted, went_on=went_on))


def emptied(client: redis.Redis, prefix: str) -> None:
    client.delete(*client.keys(f"{{{prefix}:SI}}:*"))


def test_an_emptied_server_has_the_log_as_after_a_trim_of_all(
    log: list[Entry], client: redis.Redis, server_url: str, prefix: str, key: str, tmp_path: Path
) -> None:
    trim_now(server_url, prefix, tmp_path, log[ARCHIVED - 1].position)
    client.xtrim(key, maxlen=0)
    emptied(client, prefix)
    assert extent_of(server_url, prefix, tmp_path).foreign
    assert restore(server_url, prefix, tmp_path) == Restored(ARCHIVED, log[ARCHIVED - 1].position, 0)
    assert whole(server_url, prefix, tmp_path) == log[:ARCHIVED]
    found = extent_of(server_url, prefix, tmp_path)
    assert (found.apart, found.lost, found.entries, found.last) == (False, 0, ARCHIVED, log[ARCHIVED - 1].position)


def test_what_is_recorded_next_follows_and_is_archived_and_trimmed_as_ever(
    log: list[Entry], client: redis.Redis, server_url: str, prefix: str, key: str, tmp_path: Path
) -> None:
    emptied(client, prefix)
    restore(server_url, prefix, tmp_path)
    for number in range(1, 4):
        client.xadd(key, {**entry(apprehension(id=number))})
    found = whole(server_url, prefix, tmp_path)
    assert (found[:ARCHIVED], len(found)) == (log[:ARCHIVED], ARCHIVED + 3)
    assert sorted(found, key=lambda one: order(one.position)) == found
    archive_now(server_url, prefix, tmp_path)
    assert trim_now(server_url, prefix, tmp_path) == 3
    assert whole(server_url, prefix, tmp_path) == found == entries_in(tmp_path, prefix)


@pytest.mark.parametrize("left", [1, 6, 7, 8, ARCHIVED - 1])
def test_a_server_that_was_set_back_to_a_part_of_it_goes_on_behind_all_of_it(
    log: list[Entry], client: redis.Redis, server_url: str, prefix: str, key: str, tmp_path: Path, left: int
) -> None:
    emptied(client, prefix)
    for one in log[:left]:
        client.xadd(key, {**one.fields}, id=one.position)
    assert restore(server_url, prefix, tmp_path).restored == ARCHIVED - left
    assert whole(server_url, prefix, tmp_path) == log[:ARCHIVED]
    assert extent_of(server_url, prefix, tmp_path).entries == ARCHIVED


def test_what_was_recorded_since_is_kept_if_it_is_said_that_it_was(
    log: list[Entry], client: redis.Redis, server_url: str, prefix: str, key: str, tmp_path: Path
) -> None:
    emptied(client, prefix)
    for one in log[ARCHIVED:]:
        client.xadd(key, {**one.fields}, id=one.position)
    before = client.dump(key)
    with pytest.raises(UsageError, match=rf"on to {log[-1].position}, with {LENGTH - ARCHIVED} more.*--went-on"):
        restore(server_url, prefix, tmp_path)
    assert client.dump(key) == before
    done = restore(server_url, prefix, tmp_path, went_on=True)
    assert done == Restored(ARCHIVED, log[ARCHIVED - 1].position, LENGTH - ARCHIVED)
    assert whole(server_url, prefix, tmp_path) == log
    assert extent_of(server_url, prefix, tmp_path).entries == LENGTH
    assert restore(server_url, prefix, tmp_path).restored == 0, "it is done already"


def test_a_log_that_has_all_of_its_archive_is_left_as_it_is(
    log: list[Entry], client: redis.Redis, server_url: str, prefix: str, key: str, tmp_path: Path
) -> None:
    for _ in ("before a trim", "after it"):
        before = client.dump(key)
        assert restore(server_url, prefix, tmp_path) == Restored(0, log[ARCHIVED - 1].position, LENGTH - ARCHIVED)
        assert client.dump(key) == before
        trim_now(server_url, prefix, tmp_path, log[10].position)


def test_another_log_is_not_touched(
    log: list[Entry], client: redis.Redis, server_url: str, prefix: str, key: str, tmp_path: Path
) -> None:
    emptied(client, prefix)
    for one in log[:10]:
        client.xadd(key, {**(one.fields if one is not log[7] else entry(apprehension(id=7)))}, id=one.position)
    before = client.dump(key)
    with pytest.raises(DamagedLogError, match=r"differ between .* nothing is restored"):
        restore(server_url, prefix, tmp_path, went_on=True)
    assert client.dump(key) == before


@pytest.mark.usefixtures("log")
def test_an_archive_that_is_not_as_written_restores_nothing(
    client: redis.Redis, server_url: str, prefix: str, key: str, tmp_path: Path
) -> None:
    emptied(client, prefix)
    segment = folder_of(tmp_path, prefix) / "000002.parquet"
    segment.write_bytes(segment.read_bytes()[:-1])
    with pytest.raises(DamagedLogError, match=r"000002\.parquet: cut.*nothing is restored"):
        restore(server_url, prefix, tmp_path)
    assert not client.exists(key)


def test_more_that_is_lost_than_it_has_is_said(
    log: list[Entry], client: redis.Redis, server_url: str, prefix: str, key: str, tmp_path: Path
) -> None:
    emptied(client, prefix)
    with pytest.raises(DamagedLogError, match=f"the live tallies reach {log[-1].position}, beyond"):
        restore(server_url, prefix, tmp_path, log[-1].position)
    for one in log[ARCHIVED:]:
        client.xadd(key, {**one.fields}, id=one.position)
    client.xdel(key, log[-2].position)
    with pytest.raises(DamagedLogError, match=f"entries up to {log[-2].position} were taken out"):
        restore(server_url, prefix, tmp_path, went_on=True)


@pytest.mark.parametrize("action", [Action.CUT_BEFORE, Action.CUT_AFTER])
def test_cut_off_at_any_command_it_is_done_once_it_is_repeated(
    log: list[Entry], client: redis.Redis, server_url: str, prefix: str, key: str, tmp_path: Path, action: Action
) -> None:
    with FaultProxy(server_url) as proxy:
        for step in range(100):
            emptied(client, prefix)
            for one in [*log[:3], *log[ARCHIVED:]]:
                client.xadd(key, {**one.fields}, id=one.position)
            left = step

            def cut(_: Command) -> Action:
                nonlocal left
                left -= 1
                return Action.PASS if left >= 0 else action

            proxy.on_command = cut
            try:
                restore(proxy.url, prefix, tmp_path, went_on=True)
                ended = True
            except FieldtallyError:
                ended = False
            proxy.on_command = None
            restore(server_url, prefix, tmp_path, went_on=True)
            assert whole(server_url, prefix, tmp_path) == log, step
            assert extent_of(server_url, prefix, tmp_path).entries == LENGTH, step
            if ended:
                break
        assert ended and step > 8


@pytest.mark.usefixtures("log")
def test_a_report_that_comes_in_meanwhile_is_counted_in(
    client: redis.Redis, server_url: str, prefix: str, key: str, tmp_path: Path
) -> None:
    emptied(client, prefix)
    came: list[bytes] = []

    def record(command: Command) -> Action:
        if command.name == "XSETID" and not came:
            came.append(client.xadd(key, {**entry(apprehension(id=5))}))
        return Action.PASS

    with FaultProxy(server_url) as proxy:
        proxy.on_command = record
        done = restore(proxy.url, prefix, tmp_path)
    assert (done.recorded_since, len(came)) == (1, 1)
    assert extent_of(server_url, prefix, tmp_path).entries == ARCHIVED + 1
    assert whole(server_url, prefix, tmp_path)[-1].position == came[0].decode()
