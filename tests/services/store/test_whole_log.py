"""The log over archive and stream reads as one, wherever the border lies and whatever moves it meanwhile."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import redis

from schemas.vocabulary import START, Position, order
from services.runtime.errors import UsageError
from services.store.contract import Entry
from services.store.segments import MANIFEST, Archive, DamagedArchiveError
from services.store.whole_log import WholeLog
from tests import archives
from tests.archives import SI, archived, places_around, small_pieces, trimmed, whole_log
from tests.asynchronous import asynchronous
from tests.given import apprehension, entry, seeded_log

SEED = 20240313
COUNTS = (1, 2, 5, 100)
# Up to which of the log's entries (in halves) it is archived, and up to which it is trimmed.
STATES = {
    "nothing archived": (None, None),
    "half archived": (0.5, None),
    "all archived": (1.0, None),
    "half trimmed": (0.5, 0.5),
    "all archived, a third trimmed": (1.0, 0.33),
    "all trimmed": (1.0, 1.0),
}


def weird_log(client: redis.Redis, prefix: str, length: int) -> list[Entry]:
    """Write a log with every kind of entry at awkward positions."""
    pool = seeded_log(SEED, 300)["SI"]
    return archives.write(client, prefix, Random(SEED).sample(pool, length))


def after(log: list[Entry], position: Position, count: int) -> list[Entry]:
    return [one for one in log if order(one.position) > order(position)][:count]


def before(log: list[Entry], position: Position, count: int) -> list[Entry]:
    return [one for one in reversed(log) if order(one.position) <= order(position)][:count]


async def bring_to(state: str, url: str, prefix: str, folder: Path, log: list[Entry]) -> None:
    """Archive and trim as far as a state says."""
    to_archive, to_trim = STATES[state]
    if to_archive is not None:
        await archived(url, prefix, folder, log[int(to_archive * (len(log) - 1))].position)
    if to_trim is not None:
        assert await trimmed(url, prefix, folder, log[int(to_trim * (len(log) - 1))].position)


@pytest.mark.parametrize("state", STATES)
@asynchronous
async def test_every_position_reads_as_if_all_stood_in_one_place(
    server_url: str, prefix: str, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    small_pieces(monkeypatch)
    log = weird_log(client, prefix, 40)
    await bring_to(state, server_url, prefix, tmp_path, log)
    async with whole_log(server_url, prefix, tmp_path) as one:
        extent = await one.extent()
        assert (extent.last, extent.entries, extent.lost, extent.apart) == (log[-1].position, len(log), 0, False)
        for position in places_around(entry.position for entry in log):
            count = COUNTS[order(position)[1] % len(COUNTS)]
            assert await one.read_after(position, count) == after(log, position, count), position
            assert await one.read_before(position, count) == before(log, position, count), position
        # Going on in steps of any size meets the border in any place.
        for step in COUNTS:
            found: list[Entry] = []
            while entries := await one.read_after(found[-1].position if found else START, step):
                assert len(entries) == min(step, len(log) - len(found)), "only the end of the log gives less"
                found += entries
            assert found == log
        there = {entry.position: entry for entry in log}
        asked = places_around(there) * 2
        Random(SEED).shuffle(asked)
        assert await one.read_at(asked) == [there.get(position) for position in asked]
        assert await one.read_at([]) == []


class Meddler:
    """Has something happen before or after the nth question to the stream, as if another program did it."""

    def __init__(self, log: WholeLog, at: int, deed: Callable[[], Awaitable[Any]]) -> None:
        self.asked = 0
        self._at = at
        self._deed = deed
        for name in ("read_after", "read_before", "read_at", "extent", "trimmed"):
            setattr(log.stream, name, self._around(getattr(log.stream, name)))

    def _around(self, ask: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def asked(*args: Any, **named: Any) -> Any:
            await self._moment()
            answer = await ask(*args, **named)
            await self._moment()
            return answer

        return asked

    async def _moment(self) -> None:
        self.asked += 1
        if self.asked == self._at:
            await self._deed()


@pytest.mark.parametrize("at", range(1, 9))
@pytest.mark.parametrize("read", ["after", "before", "at", "extent"])
@asynchronous
async def test_archived_and_trimmed_at_any_moment_of_a_read_it_reads_the_same(
    server_url: str,
    prefix: str,
    client: redis.Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    read: str,
    at: int,
) -> None:
    small_pieces(monkeypatch)
    log = weird_log(client, prefix, 20)
    await archived(server_url, prefix, tmp_path, log[5].position)

    async def deed() -> None:
        await archived(server_url, prefix, tmp_path, log[14].position)
        await trimmed(server_url, prefix, tmp_path)

    for position in (log[3].position, log[5].position, log[8].position, log[19].position):
        for key in (f"{{{prefix}:SI}}:log", f"{{{prefix}:SI}}:trimmed"):
            client.delete(key)
        shutil.rmtree(tmp_path)
        archives.write(client, prefix, [one.fields for one in log])
        await archived(server_url, prefix, tmp_path, log[5].position)
        async with whole_log(server_url, prefix, tmp_path) as one:
            one.archive.refresh()
            Meddler(one, at, deed)
            if read == "after":
                assert await one.read_after(position, 4) == after(log, position, 4), position
            elif read == "before":
                assert await one.read_before(position, 4) == before(log, position, 4), position
            elif read == "at":
                assert await one.read_at([position, log[12].position]) == [
                    next((one for one in log if one.position == position), None), log[12]
                ]  # fmt: skip
            else:
                extent = await one.extent()
                assert (extent.last, extent.entries, extent.lost, extent.apart) == (log[-1].position, 20, 0, False)


@asynchronous
async def test_a_log_that_grows_and_is_archived_and_trimmed_all_the_time_is_read_whole_by_whoever_reads(
    server_url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_pieces(monkeypatch, segment=16, group=5, read=4, piece=8)
    written: list[Position] = []

    async def grow() -> None:
        async with whole_log(server_url, prefix, tmp_path) as one:
            for number in range(12):
                written.extend(await one.append([apprehension(id=10 * number + each) for each in range(10)]))
                await archived(server_url, prefix, tmp_path, written[-3])
                await trimmed(server_url, prefix, tmp_path, written[-8])

    growing = asyncio.create_task(grow())

    async def follow(count: int) -> None:
        async with whole_log(server_url, prefix, tmp_path) as one:
            found: list[Position] = []
            while not growing.done() or len(found) < len(written):
                entries = await one.read_after(found[-1] if found else START, count, block_ms=5)
                found += [entry.position for entry in entries]
                assert found[: len(written)] == written[: len(found)]  # what is appended is read before that is said
                assert not (await one.extent()).lost
            for position in Random(SEED).sample(written, 5):
                assert [position] == [entry.position for entry in await one.read_before(position, 1)]

    await asyncio.gather(growing, *(follow(count) for count in (1, 3, 50)))


@asynchronous
async def test_readers_in_threads_of_one_archive_do_not_disturb_each_other(
    server_url: str, prefix: str, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_pieces(monkeypatch)
    log = weird_log(client, prefix, 60)
    await archived(server_url, prefix, tmp_path, log[30].position)
    archive = Archive(archives.folder_of(tmp_path, prefix), SI)
    archive.refresh()

    def forward(count: int) -> None:
        for _ in range(6):
            found: list[Entry] = []
            while entries := archive.read_after(found[-1].position if found else START, count):
                found += entries
            assert found in (log[:31], log)

    def at_random(seed: int) -> None:
        for one in Random(seed).choices(log[:31], k=40):
            assert archive.read_at([one.position, START]) == [one, None]
            assert archive.read_before(one.position, 3) == before(log, one.position, 3)

    def look() -> None:
        asyncio.run(archived(server_url, prefix, tmp_path))
        for _ in range(20):
            archive.refresh()

    works = [asyncio.to_thread(forward, count) for count in (1, 4, 9)]
    works += [asyncio.to_thread(at_random, seed) for seed in (1, 2)]
    await asyncio.gather(*works, asyncio.to_thread(look))


# An archive that is not the one


async def reads(one: WholeLog, log: list[Entry]) -> list[Callable[[], Awaitable[Any]]]:
    """Return every way to read, of a part that was trimmed."""
    return [
        lambda: one.read_after(START, 2),
        lambda: one.read_after(log[1].position, 1),
        lambda: one.read_before(log[2].position, 1),
        lambda: one.read_at([log[2].position]),
        one.extent,
    ]


@pytest.mark.parametrize("instead", ["nothing", "no folder", "an older copy", "another log's"])
@asynchronous
async def test_without_the_archive_it_was_trimmed_by_a_log_says_so_however_it_is_read(
    server_url: str,
    prefix: str,
    client: redis.Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    instead: str,
) -> None:
    small_pieces(monkeypatch)
    log = weird_log(client, prefix, 20)
    await archived(server_url, prefix, tmp_path, log[6].position)
    folder = archives.folder_of(tmp_path, prefix)
    shutil.copytree(folder, tmp_path / "older")
    await archived(server_url, prefix, tmp_path)
    async with whole_log(server_url, prefix, tmp_path) as reader:
        assert await reader.read_after(START, 100) == log
        await trimmed(server_url, prefix, tmp_path, log[12].position)
        shutil.rmtree(folder)
        if instead == "nothing":
            folder.mkdir()
        elif instead == "an older copy":
            shutil.copytree(tmp_path / "older", folder)
        elif instead == "another log's":
            other = f"{prefix}x"
            archives.write(client, other, [entry(apprehension(id=number)) for number in range(1, 40)])
            await archived(server_url, other, tmp_path)
            shutil.copytree(archives.folder_of(tmp_path, other), folder)
        async with whole_log(server_url, prefix, tmp_path) as fresh:
            for one in (fresh, reader):  # one that begins now, and one that has read it all before
                for read in await reads(one, log):
                    with pytest.raises(DamagedArchiveError, match=r"was trimmed up to .* FIELDTALLY_DATA_DIR"):
                        await read()


@pytest.mark.parametrize("trimming", [False, True])
@asynchronous
async def test_an_archive_of_another_log_is_told_from_the_logs_own(
    server_url: str,
    prefix: str,
    client: redis.Redis,
    tmp_path: Path,
    trimming: bool,  # noqa: FBT001
) -> None:
    """Both wrote over the same time, so the positions alone do not tell."""
    log = weird_log(client, prefix, 10)
    for number in range(20):
        client.xadd(
            f"{{{prefix}x:SI}}:log", {"event": apprehension(id=number)}, id=f"{archives.FIRST_MS}-{10 + number}"
        )
    client.xadd(f"{{{prefix}x:SI}}:log", {"event": b"the last"}, id=f"{archives.FIRST_MS + 60_000}-0")
    await archived(server_url, f"{prefix}x", tmp_path)
    if trimming:  # by hand
        client.xtrim(f"{{{prefix}:SI}}:log", minid=log[3].position)
    archives.folder_of(tmp_path, f"{prefix}x").rename(archives.folder_of(tmp_path, prefix))
    async with whole_log(server_url, prefix, tmp_path) as one:
        for read in (lambda: one.read_after(START, 2), lambda: one.read_before(log[-1].position, 1), one.extent):
            with pytest.raises(DamagedArchiveError, match="archive of another log"):
                await read()


@asynchronous
async def test_an_archive_that_cannot_be_read_at_all_is_a_matter_of_settings(
    server_url: str, prefix: str, client: redis.Redis, tmp_path: Path
) -> None:
    weird_log(client, prefix, 5)
    (tmp_path / "archive").write_text("a file")
    async with whole_log(server_url, prefix, tmp_path / "archive") as one:
        with pytest.raises(UsageError, match=f"{MANIFEST}: Not a directory"):
            await one.read_after(START, 1)


@pytest.mark.parametrize("new", [0, 3, 40])
@asynchronous
async def test_over_a_server_that_never_had_it_an_archive_reads_as_before_and_is_known_to_be_apart(
    server_url: str, prefix: str, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: int
) -> None:
    small_pieces(monkeypatch)
    log = weird_log(client, prefix, 20)
    await archived(server_url, prefix, tmp_path)
    client.delete(f"{{{prefix}:SI}}:log")
    async with whole_log(server_url, prefix, tmp_path) as one:
        await one.append([apprehension(id=number) for number in range(1, new + 1)])
        found = await one.read_after(START, 100)
        assert found[:20] == log
        assert len(found) == 20 + new
        extent = await one.extent()
        assert (extent.apart, extent.entries, extent.lost) == (True, 20 + new, 0)
        assert order(extent.last) >= order(log[-1].position)


@asynchronous
async def test_a_stream_that_was_set_back_is_apart_from_its_archive(
    server_url: str, prefix: str, client: redis.Redis, tmp_path: Path
) -> None:
    log = weird_log(client, prefix, 20)
    await archived(server_url, prefix, tmp_path)
    client.delete(f"{{{prefix}:SI}}:log")
    archives.write(client, prefix, [one.fields for one in log[:12]])
    async with whole_log(server_url, prefix, tmp_path) as one:
        assert (await one.extent()).apart
        await one.append([apprehension(id=number) for number in range(1, 12)])  # more than were ever archived
        assert (await one.extent()).apart


@asynchronous
async def test_what_is_taken_out_singly_after_it_was_archived_is_still_read(
    server_url: str, prefix: str, client: redis.Redis, tmp_path: Path
) -> None:
    log = weird_log(client, prefix, 12)
    await archived(server_url, prefix, tmp_path, log[9].position)
    client.xdel(f"{{{prefix}:SI}}:log", log[4].position, log[9].position)
    async with whole_log(server_url, prefix, tmp_path) as one:
        assert await one.read_after(START, 100) == log
        extent = await one.extent()
        assert (extent.lost, extent.apart, extent.entries) == (0, False, 12)
        client.xdel(f"{{{prefix}:SI}}:log", log[11].position)
        assert (await one.extent()).lost == 1


@pytest.mark.parametrize("to_trim", [3, 7])
@asynchronous
async def test_a_trimmed_stream_that_was_set_back_stays_apart_however_much_comes_in(
    server_url: str, prefix: str, client: redis.Redis, tmp_path: Path, to_trim: int
) -> None:
    log = weird_log(client, prefix, 20)
    await archived(server_url, prefix, tmp_path, log[7].position)
    await trimmed(server_url, prefix, tmp_path, log[to_trim].position)
    copy = client.dump(f"{{{prefix}:SI}}:log")
    client.xadd(f"{{{prefix}:SI}}:log", {"event": b"the last"}, id=f"{archives.FIRST_MS + 600_000}-0")
    await archived(server_url, prefix, tmp_path)
    async with whole_log(server_url, prefix, tmp_path) as one:
        assert not (await one.extent()).apart
        client.restore(f"{{{prefix}:SI}}:log", 0, copy, replace=True)
        for number in range(3):
            assert (await one.extent()).apart
            await one.append([apprehension(id=number + 1)])
