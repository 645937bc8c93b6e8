"""The manifest and the segments that it chains: what follows what, and that nothing is read but what was archived."""

from __future__ import annotations

import gc
import hashlib
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import given as with_any
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from schemas.vocabulary import START, Position, Side
from services.archive.writer import write_manifest
from services.runtime.errors import FieldtallyError, UsageError
from services.store.contract import Entry
from services.store.segments import (
    MANIFEST,
    NO_LINE,
    Archive,
    DamagedArchiveError,
    Manifest,
    Segment,
    archive_folder,
    read_manifest,
)
from tests import archives
from tests.archives import SI, archive_now, folder_of, small_pieces
from tests.given import apprehension, entry, seeded_log

SEED = 20240313


def segment(number: int, before: Manifest, /, **changed: Any) -> Segment:
    """Return a segment that follows what is before it, but for what is changed."""
    follows = {
        "number": number, "file": f"{number:06}.parquet", "side": SI, "first": Position(f"{number * 10}-0"),
        "last": Position(f"{number * 10 + 5}-3"), "count": 4, "before": before.entries, "size": 100,
        "sha256": f"{number:064}", "previous": before.head,
    }  # fmt: skip
    return msgspec.convert(follows | changed, Segment)


def manifest_of(length: int) -> Manifest:
    manifest = Manifest()
    for number in range(1, length + 1):
        manifest = manifest.with_segment(segment(number, manifest))
    return manifest


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_manifest(tmp_path, SI) == Manifest()
    manifest = manifest_of(3)
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path, SI) == manifest
    assert (manifest.end, manifest.entries) == ("35-3", 12)


def test_each_line_carries_the_hash_of_the_one_before_with_its_line_feed(tmp_path: Path) -> None:
    write_manifest(tmp_path, manifest_of(3))
    lines = (tmp_path / MANIFEST).read_bytes().splitlines(keepends=True)
    carried = [msgspec.json.decode(line)["previous"] for line in lines]
    hashes = [hashlib.sha256(line).hexdigest() for line in lines]
    assert carried == [NO_LINE, *hashes[:-1]]
    assert read_manifest(tmp_path, SI).head == hashes[-1]


def test_the_head_as_it_was_is_known_for_each_end_that_the_archive_ever_had() -> None:
    manifest = manifest_of(3)
    expected = {0: NO_LINE, 4: manifest_of(1).head, 8: manifest_of(2).head, 12: manifest.head, 5: None, 16: None}
    assert {entries: manifest.hash_at(entries) for entries in expected} == expected


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"previous": "f" * 64}, "carries the hash ffff"),
        ({"number": 7}, "describes segment 7"),
        ({"file": "000002.parquet"}, "describes segment 3 in '000002.parquet'"),
        ({"file": "../../etc/passwd"}, "describes segment 3"),
        ({"side": "HR"}, "of side 'HR'"),
        ({"before": 7}, "says that 7 entries come before it, but there are 8"),
        ({"count": 0}, "says that it has 0 entries"),
        ({"first": "25-3"}, "reaches from 25-3"),
        ({"first": "40-0", "last": "39-9"}, "reaches from 40-0 to 39-9"),
        ({"first": "now"}, "no positions"),
        ({"last": "1_0-0"}, "no positions"),
        ({"last": "٣٩-0"}, "no positions"),
        ({"last": "99999999999999999999999-0"}, "no positions"),
    ],
)
def test_a_line_that_cannot_follow_is_named_whatever_hashes_it_carries(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    manifest = manifest_of(2)
    (tmp_path / MANIFEST).write_bytes(manifest.with_segment(segment(3, manifest, **changed)).encoded())
    with pytest.raises(DamagedArchiveError, match=f"{MANIFEST}, line 3: .*{said}.*; restore the file"):
        read_manifest(tmp_path, SI)


@pytest.mark.parametrize(
    "write",
    [
        lambda lines: [lines[0], lines[1][:-1]],  # the end of the last line is cut
        lambda lines: [lines[0], lines[1].replace(b":", b": ", 1)],  # the same in other bytes
        lambda lines: [lines[0], lines[0]],
        lambda lines: [lines[1], lines[0]],
        lambda lines: [lines[0], b"\n", lines[1]],
        lambda lines: [lines[0], b"[" * 100_000 + b"\n"],
        lambda lines: [lines[0], lines[1].replace(b'"number"', b'"nummer"')],
        lambda lines: [lines[0], b"\xff\xfe\n"],
    ],
)
def test_a_manifest_that_was_written_over_is_refused_with_the_line(tmp_path: Path, write: Any) -> None:
    lines = manifest_of(2).encoded().splitlines(keepends=True)
    (tmp_path / MANIFEST).write_bytes(b"".join(write(lines)))
    with pytest.raises(DamagedArchiveError, match=f"{tmp_path}/{MANIFEST}, line [12]"):
        read_manifest(tmp_path, SI)


@hypothesis(max_examples=100)
@with_any(st.data())
def test_no_bytes_of_a_manifest_make_it_crash(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    written = manifest_of(3).encoded()
    at = data.draw(st.integers(0, len(written)))
    instead = data.draw(st.binary(max_size=8) | st.sampled_from([b"-1", b"null", b'"', b"{", b"1e99", b"\n"]))
    changed = written[:at] + instead + written[at + data.draw(st.integers(0, 20)) :]
    folder = tmp_path_factory.getbasetemp()
    (folder / MANIFEST).write_bytes(changed)
    try:
        manifest = read_manifest(folder, SI)
    except FieldtallyError:
        return
    assert manifest.encoded() == changed, "what is taken is what is written there"


def test_a_manifest_that_cannot_be_read_is_a_matter_of_settings(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).mkdir()
    with pytest.raises(UsageError, match=f"{MANIFEST}: Is a directory"):
        read_manifest(tmp_path, SI)


def test_each_side_and_each_prefix_has_a_folder_of_its_own(tmp_path: Path) -> None:
    folders = {archive_folder(tmp_path, prefix, Side(side)) for prefix in ("ft", "ft.x") for side in ("SI", "HR")}
    assert {folder.name for folder in folders} == {"ft-SI", "ft-HR", "ft.x-SI", "ft.x-HR"}


# The archive


@pytest.mark.parametrize("side", ["SI", "HR"])
def test_every_entry_comes_back_byte_for_byte(
    server_url: str, prefix: str, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    small_pieces(monkeypatch, segment=300, group=64, read=50, rows=100)
    log = archives.write(client, prefix, seeded_log(SEED, 500)[side], side)
    archive_now(server_url, prefix, tmp_path, side=Side(side))
    assert archives.entries_in(tmp_path, prefix, Side(side)) == log


def test_whoever_reads_notices_what_is_archived_meanwhile_and_only_that(
    server_url: str, prefix: str, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_pieces(monkeypatch)
    log = archives.write(client, prefix, [entry(apprehension(id=number)) for number in range(20)])
    archive = Archive(folder_of(tmp_path, prefix), SI)
    assert not archive.refresh()
    assert (archive.end, archive.read_after(START, 5), archive.paths()) == (START, [], [])
    archive_now(server_url, prefix, tmp_path, log[8].position)
    assert (archive.refresh(), archive.refresh()) == (True, False)
    found = archive.read_after(START, 5)
    archive_now(server_url, prefix, tmp_path)
    found += archive.read_after(found[-1].position, 100)
    assert found == log[:9], "until it looks again"
    assert archive.refresh()
    assert archive.read_after(found[-1].position, 100) == log[9:]
    assert [path.name for path in archive.paths(log[6].position)] == ["000001.parquet"]
    assert [path.name for path in archive.paths(log[7].position)] == ["000001.parquet", "000002.parquet"]
    assert len(archive.paths()) == 4  # two that were ended where somebody stopped


@pytest.mark.parametrize("seed", range(3))
def test_from_other_bytes_than_the_archived_ones_nothing_is_ever_read(
    server_url: str, prefix: str, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    small_pieces(monkeypatch, segment=30, group=10)
    log = archives.write(client, prefix, seeded_log(SEED, 300)["SI"][:30])
    archive_now(server_url, prefix, tmp_path)
    path = folder_of(tmp_path, prefix) / "000001.parquet"
    whole, random = path.read_bytes(), Random(f"flip {seed}")
    for at in [0, len(whole) - 1, *random.sample(range(len(whole)), 30)]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << random.randrange(8)]) + whole[at + 1 :])
        _assert_refused(tmp_path, prefix, log[7], "is not the segment that was archived")
    path.write_bytes(whole[: len(whole) // 2])
    _assert_refused(tmp_path, prefix, log[7], "is not the segment that was archived")
    path.unlink()
    _assert_refused(tmp_path, prefix, log[7], "is missing from the archive")
    path.mkdir()
    _assert_refused(tmp_path, prefix, log[7], "000001.parquet")


def _assert_refused(tmp_path: Path, prefix: str, one: Entry, said: str) -> None:
    archive = Archive(folder_of(tmp_path, prefix), SI)
    archive.refresh()
    for read in (
        lambda: archive.read_after(START, 1),
        lambda: archive.read_before(one.position, 1),
        lambda: archive.read_at([one.position]),
    ):
        with pytest.raises(DamagedArchiveError, match=said):
            read()


def test_reading_on_holds_no_more_than_what_is_left_of_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten million entries are read through in counts that no piece is a multiple of."""

    class Read:
        def __init__(self, number: int) -> None:
            self.position = Position(f"{number}-0")
            held.add(self)

    def after(_: object, __: Position) -> Iterator[list[Any]]:
        for number in range(1, 1_000, 5):
            yield [Read(number + more) for more in range(5)]

    held: weakref.WeakSet[Read] = weakref.WeakSet()
    archive = Archive(tmp_path, SI)
    archive.manifest = Manifest().with_segment(segment(1, Manifest(), last=Position("1000-0")))
    monkeypatch.setattr(archive, "_open", lambda _: SimpleNamespace(after=partial(after, None)))
    position, numbers = START, []
    while entries := archive.read_after(position, 7):
        position = entries[-1].position
        numbers += [int(entry.position.removesuffix("-0")) for entry in entries]
        del entries
        assert len(held) < 5
    assert numbers == list(range(1, 1_001))


@pytest.mark.parametrize("read", ["read_after", "read_arrivals", "read_before"])
def test_an_archive_that_nobody_reads_any_more_has_no_file_open(
    server_url: str, prefix: str, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    """A control room that is asked for the past all day long does not run out of files."""
    small_pieces(monkeypatch)
    log = archives.write(client, prefix, [entry(apprehension(id=number)) for number in range(20)])
    archive_now(server_url, prefix, tmp_path)

    def opened() -> list[Path]:
        files = [Path(file) for file in Path("/proc/self/fd").iterdir()]
        return [file for file in files if file.exists() and file.resolve().is_relative_to(tmp_path)]

    gc.disable()
    try:
        archive = Archive(folder_of(tmp_path, prefix), SI)
        archive.refresh()
        getattr(archive, read)(log[3].position, 2)
        assert opened()
        del archive
        assert not opened()
    finally:
        gc.enable()
