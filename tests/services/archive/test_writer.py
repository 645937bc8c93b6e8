"""Archiving: all of the log up to a position and nothing else, once, however often and however it is begun."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import pytest
import redis

from schemas.vocabulary import START, Position, order
from services.archive import writer
from services.archive.writer import archive_log, writing
from services.runtime.errors import DamagedLogError, FaultError, UsageError
from services.store.contract import Entry
from services.store.segments import MANIFEST, Archive
from tests import archives
from tests.archives import (
    SI,
    archive_now,
    archived,
    assert_intact,
    entries_in,
    folder_of,
    small_pieces,
    trim_now,
    whole,
    whole_log,
)
from tests.asynchronous import asynchronous
from tests.given import apprehension, seeded_log

SEED = 20240313


@pytest.fixture
def log(client: redis.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch) -> list[Entry]:
    """Give a log of 20 entries, which make three segments."""
    small_pieces(monkeypatch)
    return archives.write(client, prefix, seeded_log(SEED, 300)["SI"][:20])


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return the files of an archive with their age and content."""
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir() if path.name != "lock"}


def test_a_log_is_archived_whole_in_segments_and_row_groups(
    server_url: str, prefix: str, log: list[Entry], tmp_path: Path
) -> None:
    segments = archive_now(server_url, prefix, tmp_path)
    assert [(one.count, one.before, one.first, one.last) for one in segments] == [
        (count, before, log[before].position, log[before + count - 1].position)
        for count, before in ((7, 0), (7, 7), (6, 14))
    ]
    assert entries_in(tmp_path, prefix) == log
    assert_intact(tmp_path, prefix)
    assert set(files(folder_of(tmp_path, prefix))) == {MANIFEST, *(one.file for one in segments)}


def test_archiving_again_changes_nothing(server_url: str, prefix: str, log: list[Entry], tmp_path: Path) -> None:
    archive_now(server_url, prefix, tmp_path, log[10].position)
    before = files(folder_of(tmp_path, prefix))
    for until in (log[10].position, log[3].position, START):
        assert archive_now(server_url, prefix, tmp_path, until) == []
    assert files(folder_of(tmp_path, prefix)) == before


@pytest.mark.usefixtures("log")
def test_equal_logs_give_equal_files(server_url: str, prefix: str, tmp_path: Path) -> None:
    for copy in ("a", "b"):
        archive_now(server_url, prefix, tmp_path / copy)
    contents = [
        {name: content for name, (_, content) in files(folder_of(tmp_path / copy, prefix)).items()} for copy in "ab"
    ]
    assert contents[0] == contents[1]


@pytest.mark.parametrize("step", [1, 4, 7, 8, 19])
def test_archived_piece_by_piece_it_is_the_same_log(
    server_url: str, prefix: str, log: list[Entry], tmp_path: Path, step: int
) -> None:
    kept: dict[str, tuple[int, bytes]] = {}
    for at in range(step - 1, len(log), step):
        archive_now(server_url, prefix, tmp_path, log[at].position)
        assert entries_in(tmp_path, prefix) == log[: at + 1]
        now = files(folder_of(tmp_path, prefix))
        assert {name: now[name] for name in kept if name != MANIFEST} == {
            name: kept[name] for name in kept if name != MANIFEST
        }, "a segment never changes"
        kept = now
    archive_now(server_url, prefix, tmp_path)
    assert entries_in(tmp_path, prefix) == log
    assert_intact(tmp_path, prefix)


def test_between_two_entries_it_ends_at_the_former(
    server_url: str, prefix: str, log: list[Entry], tmp_path: Path
) -> None:
    milliseconds, sequence = order(log[4].position)
    archive_now(server_url, prefix, tmp_path, Position(f"{milliseconds}-{sequence - 1}"))
    assert entries_in(tmp_path, prefix) == log[:4]
    archive_now(server_url, prefix, tmp_path, Position(f"{milliseconds}-{2**64 - 1}"))
    assert entries_in(tmp_path, prefix) == [one for one in log if order(one.position)[0] <= milliseconds]


def test_an_empty_log_has_an_empty_archive(server_url: str, prefix: str, tmp_path: Path) -> None:
    assert archive_now(server_url, prefix, tmp_path) == []
    assert files(folder_of(tmp_path, prefix)) == {}
    assert_intact(tmp_path, prefix)


@asynchronous
async def test_what_comes_in_meanwhile_is_for_the_next_time(
    server_url: str, prefix: str, log: list[Entry], tmp_path: Path
) -> None:
    async with whole_log(server_url, prefix, tmp_path) as one:
        read = one.stream.read_after

        async def and_more(position: Position, count: int, *, block_ms: int | None = None) -> list[Entry]:
            await one.stream.append([apprehension(id=1), apprehension(id=2)])
            return await read(position, count, block_ms=block_ms)

        one.stream.read_after = and_more  # type: ignore[method-assign]
        await archive_log(one.stream, one.archive)
    assert entries_in(tmp_path, prefix) == log
    await archived(server_url, prefix, tmp_path)
    async with whole_log(server_url, prefix, tmp_path) as one:
        assert entries_in(tmp_path, prefix) == await one.stream.read_after(START, 1_000)


def test_what_an_interrupted_run_left_is_written_over(
    server_url: str, prefix: str, log: list[Entry], tmp_path: Path
) -> None:
    archive_now(server_url, prefix, tmp_path, log[8].position)
    folder = folder_of(tmp_path, prefix)
    for name in ("000003.parquet", "000003.parquet.part", f"{MANIFEST}.part"):
        (folder / name).write_bytes(b"half of it")
    archive_now(server_url, prefix, tmp_path)
    assert entries_in(tmp_path, prefix) == log
    assert_intact(tmp_path, prefix)
    assert not list(folder.glob("*.part"))


# What is not there


@pytest.mark.parametrize("taken", [[2], [0], [19], [9, 12]])
def test_entries_that_were_taken_out_before_they_were_archived_are_missed(
    server_url: str, prefix: str, client: redis.Redis, log: list[Entry], tmp_path: Path, taken: Sequence[int]
) -> None:
    client.xdel(f"{{{prefix}:SI}}:log", *(log[at].position for at in taken))
    with pytest.raises(DamagedLogError, match=r"has lost entries: \d+ are no longer in the stream.*restore the log"):
        archive_now(server_url, prefix, tmp_path)
    assert files(folder_of(tmp_path, prefix)) == {}


def test_entries_that_were_taken_out_afterwards_stay_in_the_archive_and_stop_nothing(
    server_url: str, prefix: str, client: redis.Redis, log: list[Entry], tmp_path: Path
) -> None:
    archive_now(server_url, prefix, tmp_path, log[12].position)
    client.xdel(f"{{{prefix}:SI}}:log", log[3].position, log[12].position)
    archive_now(server_url, prefix, tmp_path)
    assert entries_in(tmp_path, prefix) == whole(server_url, prefix, tmp_path) == log
    assert trim_now(server_url, prefix, tmp_path) == 18
    assert whole(server_url, prefix, tmp_path) == log


def test_entries_that_were_cut_off_by_hand_are_missed_unless_they_are_archived(
    server_url: str, prefix: str, client: redis.Redis, log: list[Entry], tmp_path: Path
) -> None:
    archive_now(server_url, prefix, tmp_path, log[8].position)
    client.xtrim(f"{{{prefix}:SI}}:log", maxlen=15, approximate=False)
    archive_now(server_url, prefix, tmp_path, log[10].position)
    client.xtrim(f"{{{prefix}:SI}}:log", maxlen=8, approximate=False)
    with pytest.raises(DamagedLogError, match="12 are no longer in the stream, and 11 are archived"):
        archive_now(server_url, prefix, tmp_path)
    assert entries_in(tmp_path, prefix) == log[:11]


@asynchronous
async def test_entries_that_are_taken_out_meanwhile_are_missed_before_a_segment_without_them_counts(
    server_url: str, prefix: str, client: redis.Redis, log: list[Entry], tmp_path: Path
) -> None:
    async with whole_log(server_url, prefix, tmp_path) as one:
        read = one.stream.read_after

        async def and_less(position: Position, count: int, *, block_ms: int | None = None) -> list[Entry]:
            client.xdel(f"{{{prefix}:SI}}:log", log[12].position)
            return await read(position, count, block_ms=block_ms)

        one.stream.read_after = and_less  # type: ignore[method-assign]
        with pytest.raises(DamagedLogError, match=r"took entries out .* while it was archived"):
            await archive_log(one.stream, one.archive)
    assert not (folder_of(tmp_path, prefix) / MANIFEST).exists()
    with pytest.raises(DamagedLogError, match="has lost entries"):
        await archived(server_url, prefix, tmp_path)


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize("new", [0, 1, 30])
def test_a_log_that_was_emptied_is_not_archived_behind_the_one_before(
    server_url: str, prefix: str, client: redis.Redis, tmp_path: Path, new: int
) -> None:
    archive_now(server_url, prefix, tmp_path)
    before = files(folder_of(tmp_path, prefix))
    client.delete(f"{{{prefix}:SI}}:log")
    for number in range(new):
        client.xadd(f"{{{prefix}:SI}}:log", {"event": apprehension(id=number)})
    with pytest.raises(DamagedLogError, match=r"20 entries up to .* the log of this server never held: restore"):
        archive_now(server_url, prefix, tmp_path)
    assert files(folder_of(tmp_path, prefix)) == before


# What keeps it from writing


def test_only_one_archives_at_a_time(server_url: str, prefix: str, log: list[Entry], tmp_path: Path) -> None:
    with (
        writing(folder_of(tmp_path, prefix), SI),
        pytest.raises(UsageError, match=r"somebody archives side SI in .* at this moment; try again later"),
    ):
        archive_now(server_url, prefix, tmp_path)
    archive_now(server_url, prefix, tmp_path)
    assert entries_in(tmp_path, prefix) == log


def test_two_that_archive_at_once_leave_one_archive(
    server_url: str, prefix: str, log: list[Entry], tmp_path: Path
) -> None:
    async def both() -> list[Any]:
        works = [asyncio.to_thread(archive_now, server_url, prefix, tmp_path) for _ in range(3)]
        return await asyncio.gather(*works, return_exceptions=True)

    outcomes = asyncio.run(both())
    assert {type(one) for one in outcomes} <= {list, UsageError}
    assert sum(bool(one) for one in outcomes if isinstance(one, list)) == 1
    assert entries_in(tmp_path, prefix) == log
    assert_intact(tmp_path, prefix)


@pytest.mark.usefixtures("log")
def test_a_file_where_the_folder_belongs_is_named(server_url: str, prefix: str, tmp_path: Path) -> None:
    (tmp_path / "archive").write_text("a file")
    with pytest.raises(UsageError, match=r"archive.*Not a directory"):
        archive_now(server_url, prefix, tmp_path / "archive")


def test_a_segment_that_does_not_read_back_is_never_named(
    server_url: str, prefix: str, log: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = writer.table_of
    monkeypatch.setattr(
        writer,
        "table_of",
        lambda entries: honest([Entry(one.position, {**one.fields, b"by": b"x"}) for one in entries]),
    )
    with pytest.raises(FaultError, match="does not read back"):
        archive_now(server_url, prefix, tmp_path)
    assert_intact(tmp_path, prefix)
    monkeypatch.undo()
    archive_now(server_url, prefix, tmp_path)
    assert entries_in(tmp_path, prefix) == log


@pytest.mark.parametrize("method", ["write", "flush"])
def test_a_manifest_that_cannot_be_written_leaves_the_archive_as_it_was(
    server_url: str, prefix: str, log: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    archive_now(server_url, prefix, tmp_path, log[8].position)
    writes: list[str] = []

    class Full:
        def __init__(self, file: Any) -> None:
            self._file = file

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def __getattr__(self, name: str) -> Any:
            if name == method:
                writes.append(name)
                raise OSError(28, "No space left on device")
            return getattr(self._file, name)

    honest = Path.open

    def on_a_full_disk(path: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        file = honest(path, mode, *more, **named)
        return Full(file) if mode == "wb" and path.name.startswith(MANIFEST) else file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", on_a_full_disk)
        with pytest.raises(UsageError, match="No space left on device; the archive is as before"):
            archive_now(server_url, prefix, tmp_path)
    assert writes
    assert entries_in(tmp_path, prefix) == log[:9]
    archive_now(server_url, prefix, tmp_path)
    assert entries_in(tmp_path, prefix) == log


def test_an_archive_is_made_for_the_log_alone(server_url: str, prefix: str, log: list[Entry], tmp_path: Path) -> None:
    archive_now(server_url, prefix, tmp_path)
    folder = folder_of(tmp_path, prefix)
    assert folder.stat().st_mode & 0o077 == 0, "nobody else may look in"
    archive = Archive(folder, SI)
    archive.refresh()
    assert archive.manifest.entries == len(log)
