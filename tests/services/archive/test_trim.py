"""Trimming: out of the stream goes what is archived, counted and old, and no more; what went is read all the same."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis

from schemas.vocabulary import START, order
from services.archive.trim import trim_log
from services.archive.writer import writing
from services.runtime.errors import DamagedLogError, UsageError
from services.store.contract import Entry
from services.store.segments import MANIFEST, DamagedArchiveError, read_manifest
from tests import archives
from tests.archives import (
    NO_AGE,
    SI,
    archive_now,
    folder_of,
    small_pieces,
    trim_now,
    trimmed,
    whole,
    whole_log,
)
from tests.given import seeded_log

SEED = 20240313


@pytest.fixture
def log(
    server_url: str, client: redis.Redis, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Entry]:
    """Give a log of 20 entries that are archived."""
    small_pieces(monkeypatch)
    written = archives.write(client, prefix, seeded_log(SEED, 300)["SI"][:20])
    archive_now(server_url, prefix, tmp_path)
    return written


def left(client: redis.Redis, prefix: str) -> list[str]:
    """Return the positions that are still in the stream."""
    return [position.decode() for position, _ in client.xrange(f"{{{prefix}:SI}}:log")]


def positions(entries: list[Entry]) -> list[str]:
    return [entry.position for entry in entries]


@pytest.mark.parametrize("at", [0, 3, 4, 5, 12, 19])
def test_what_is_counted_goes_and_what_follows_stays(
    server_url: str, prefix: str, client: redis.Redis, log: list[Entry], tmp_path: Path, at: int
) -> None:
    assert trim_now(server_url, prefix, tmp_path, log[at].position) == at + 1
    assert left(client, prefix) == positions(log[at + 1 :])
    assert whole(server_url, prefix, tmp_path) == log
    assert trim_now(server_url, prefix, tmp_path, log[at].position) == 0
    assert trim_now(server_url, prefix, tmp_path) == 19 - at
    assert (left(client, prefix), whole(server_url, prefix, tmp_path)) == ([], log)


def test_the_server_notes_how_far_and_by_which_archive(
    server_url: str, prefix: str, client: redis.Redis, log: list[Entry], tmp_path: Path
) -> None:
    trim_now(server_url, prefix, tmp_path, log[9].position)
    manifest = read_manifest(folder_of(tmp_path, prefix), SI)
    assert client.hgetall(f"{{{prefix}:SI}}:trimmed") == {
        b"position": log[9].position.encode(), b"entries": b"20", b"head": manifest.head.encode()
    }  # fmt: skip


def test_what_nobody_has_counted_stays(
    server_url: str, prefix: str, client: redis.Redis, log: list[Entry], tmp_path: Path
) -> None:
    assert trim_now(server_url, prefix, tmp_path, START) == 0
    assert left(client, prefix) == positions(log)
    assert not client.exists(f"{{{prefix}:SI}}:trimmed")


def test_what_is_not_archived_stays(
    server_url: str, prefix: str, client: redis.Redis, log: list[Entry], tmp_path: Path
) -> None:
    more = client.xadd(f"{{{prefix}:SI}}:log", {"event": b"more"})
    assert trim_now(server_url, prefix, tmp_path) == len(log)
    assert left(client, prefix) == [more.decode()]


@pytest.mark.parametrize("age_ms", [0, 1, 2, 3, 1_000, 1_005])
def test_what_is_younger_stays(
    server_url: str, prefix: str, client: redis.Redis, log: list[Entry], tmp_path: Path, age_ms: int
) -> None:
    before_ms = archives.FIRST_MS + age_ms
    taken = asyncio.run(trimmed(server_url, prefix, tmp_path, before_ms=before_ms))
    expected = [one for one in log if order(one.position)[0] >= before_ms]
    assert left(client, prefix) == positions(expected)
    assert taken == len(log) - len(expected)


@pytest.mark.parametrize("at", [0, 5, 13])
def test_where_the_stream_differs_from_the_archive_nothing_more_goes(
    server_url: str, prefix: str, client: redis.Redis, log: list[Entry], tmp_path: Path, at: int
) -> None:
    key = f"{{{prefix}:SI}}:log"
    client.delete(key)
    for one in log:
        fields = {b"event": b"other"} if one is log[at] else one.fields
        client.xadd(key, {**fields}, id=one.position)
    with pytest.raises(DamagedLogError, match=r"the stream and the archive differ between .* nothing from there on"):
        trim_now(server_url, prefix, tmp_path)
    assert left(client, prefix) == positions(log[at // 4 * 4 :]), "pieces of four"


def test_what_was_taken_out_singly_since_keeps_nothing_from_going(
    server_url: str, prefix: str, client: redis.Redis, log: list[Entry], tmp_path: Path
) -> None:
    client.xdel(f"{{{prefix}:SI}}:log", *(log[at].position for at in (0, 5, 6, 19)))
    assert trim_now(server_url, prefix, tmp_path) == 16
    assert (left(client, prefix), whole(server_url, prefix, tmp_path)) == ([], log)


@pytest.mark.parametrize("damaged", ["000001.parquet", "000003.parquet", MANIFEST])
def test_by_a_damaged_archive_nothing_goes(
    server_url: str, prefix: str, client: redis.Redis, log: list[Entry], tmp_path: Path, damaged: str
) -> None:
    path = folder_of(tmp_path, prefix) / damaged
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"x" + content[101:])
    with pytest.raises(DamagedArchiveError, match=damaged):
        trim_now(server_url, prefix, tmp_path, log[4].position)
    assert left(client, prefix) == positions(log)


def test_by_the_archive_of_another_log_nothing_goes(
    server_url: str, prefix: str, client: redis.Redis, log: list[Entry], tmp_path: Path
) -> None:
    client.delete(f"{{{prefix}:SI}}:log")
    archives.write(client, prefix, [one.fields for one in log[:12]])
    with pytest.raises(DamagedLogError, match="is not the archive of the log of side SI on this server"):
        trim_now(server_url, prefix, tmp_path)
    assert left(client, prefix) == positions(log[:12])


def test_while_somebody_archives_nothing_goes(
    server_url: str, prefix: str, client: redis.Redis, log: list[Entry], tmp_path: Path
) -> None:
    with writing(folder_of(tmp_path, prefix), SI), pytest.raises(UsageError, match="somebody archives"):
        trim_now(server_url, prefix, tmp_path)
    assert left(client, prefix) == positions(log)


def test_what_is_altered_while_it_trims_is_noticed_piece_by_piece(
    server_url: str, prefix: str, client: redis.Redis, log: list[Entry], tmp_path: Path
) -> None:
    async def run() -> None:
        async with whole_log(server_url, prefix, tmp_path) as one:

            def damage(_taken: int) -> None:
                (folder_of(tmp_path, prefix) / "000003.parquet").write_bytes(b"")

            await trim_log(one.stream, one.archive, log[-1].position, NO_AGE, damage)

    with pytest.raises(DamagedArchiveError, match=r"000003\.parquet is not the segment that was archived"):
        asyncio.run(run())
    assert left(client, prefix) == positions(log[12:])


def test_an_archive_that_grows_after_a_trim_is_still_the_one(
    server_url: str, prefix: str, client: redis.Redis, log: list[Entry], tmp_path: Path
) -> None:
    trim_now(server_url, prefix, tmp_path, log[9].position)
    for number in range(10):
        client.xadd(f"{{{prefix}:SI}}:log", {"event": b"%d" % number})
    archive_now(server_url, prefix, tmp_path)
    found = whole(server_url, prefix, tmp_path)
    assert (found[:20], len(found)) == (log, 30)
    trim_now(server_url, prefix, tmp_path)
    assert whole(server_url, prefix, tmp_path) == found
