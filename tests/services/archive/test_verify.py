"""Verification: what was altered, dropped, doubled, swapped or cut is found and named, and nothing makes it crash."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from hypothesis import given as with_any
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.vocabulary import START, Side
from services.archive import verify
from services.archive.verify import Flaw, archive_size, verify_archive
from services.archive.writer import write_manifest, writing
from services.store.contract import Entry
from services.store.segment_file import sha256_of
from services.store.segments import MANIFEST, NO_LINE, Archive, DamagedArchiveError, Manifest, read_manifest
from tests import archives
from tests.archives import SI, archive_now, assert_intact, folder_of, small_pieces
from tests.given import apprehension, entry, seeded_log

SEED = 20240313
SEGMENTS = ("000001.parquet", "000002.parquet", "000003.parquet")


@pytest.fixture(scope="module")
def made(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of an archive of three segments; it is never changed."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch, redis.Redis.from_url(server_url) as client:
        small_pieces(patch, segment=30, group=10, read=10)
        archives.write(client, "verified", seeded_log(SEED, 300)["SI"][:80])
        archives.write(client, "verified", seeded_log(SEED, 300)["HR"][:80], "HR")
        archives.write(client, "other", seeded_log(SEED + 1, 300)["SI"][:80])
        archive_now(server_url, "verified", folder)
        archive_now(server_url, "verified", folder, side=Side("HR"))
        archive_now(server_url, "other", folder)
    assert_intact(folder, "verified")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """Give a copy of the archive, to be damaged."""
    shutil.copytree(folder_of(made, "verified"), tmp_path / "copy")
    return tmp_path / "copy"


def flaws(folder: Path, head: str | None = None) -> list[Flaw]:
    return verify_archive(folder, SI, head).flaws


def only(folder: Path, head: str | None = None) -> tuple[str, str]:
    """Return the file and the words of the one flaw."""
    [flaw] = flaws(folder, head)
    return flaw.file, flaw.wrong


def flip(path: Path, at: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


def test_an_untouched_archive_has_no_flaw_with_any_head_that_it_ever_had(folder: Path) -> None:
    manifest = read_manifest(folder, SI)
    for head in (None, NO_LINE, manifest.head, *(one.previous for one in manifest.segments)):
        assert flaws(folder, head) == []
    assert verify_archive(folder, SI).manifest == manifest
    told: list[int] = []
    verify_archive(folder, SI, None, told.append)
    assert sum(told) == archive_size(folder) == sum(one.size for one in manifest.segments)


def test_where_there_is_no_archive_there_is_no_flaw(tmp_path: Path) -> None:
    assert flaws(tmp_path / "nothing") == []
    assert archive_size(tmp_path / "nothing") == 0


@pytest.mark.parametrize("name", SEGMENTS)
def test_each_byte_of_a_segment_counts(folder: Path, name: str) -> None:
    path, random = folder / name, Random(f"{SEED} {name}")
    size = path.stat().st_size
    for at in [0, 3, 4, size - 5, size - 1, *random.sample(range(size), 25)]:
        bit = random.randrange(8)
        flip(path, at, bit)
        file, wrong = only(folder)
        assert file == name, f"byte {at}"
        assert wrong.startswith("altered: its SHA-256 is not the one in the manifest"), f"byte {at}: {wrong}"
        flip(path, at, bit)
    assert flaws(folder) == []


def test_each_byte_of_the_manifest_counts(folder: Path) -> None:
    path, random = folder / MANIFEST, Random(f"{SEED} manifest")
    lines = path.read_bytes().splitlines(keepends=True)
    size = sum(map(len, lines))
    last = size - len(lines[-1])
    ends = (len(lines[0]), last, size)
    sha256 = path.read_bytes().rindex(b'"sha256":"') + 10
    for at in [*range(last, size), *random.sample(range(last), 60)]:
        bit = random.randrange(7)
        flip(path, at, bit)
        found = flaws(folder)
        about = next(name for name, end in zip(SEGMENTS, ends, strict=True) if at < end)
        said = [flaw.wrong for flaw in found if MANIFEST in flaw.file + flaw.wrong]
        # Of the last line's own hash nobody can tell whether the line was altered or the file.
        assert said or sha256 <= at < sha256 + 64, f"byte {at}, bit {bit}"
        assert any(about in flaw.file + flaw.wrong for flaw in found), f"byte {at}, bit {bit}: {found}"
        if at < last:
            line = next(n for n in range(1, 4) if at < sum(map(len, lines[:n])))
            assert any(f"line {near}:" in said[0] for near in (line, line + 1)), f"byte {at}, bit {bit}: {said}"
        flip(path, at, bit)
    assert flaws(folder) == []


@pytest.mark.parametrize("sixteenths", range(16))
def test_a_segment_that_was_cut_is_named_with_how_much_is_left(folder: Path, sixteenths: int) -> None:
    for name in SEGMENTS:
        content = (folder / name).read_bytes()
        left = len(content) * sixteenths // 16
        (folder / name).write_bytes(content[:left])
        assert only(folder) == (name, f"cut: {left:,} of {len(content):,} bytes are left")
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("sixteenths", range(16))
def test_a_manifest_that_was_cut_is_named(folder: Path, sixteenths: int) -> None:
    content = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(content[: len(content) * sixteenths // 16])
    named = {flaw.file: flaw.wrong for flaw in flaws(folder)}
    assert MANIFEST in named
    assert SEGMENTS[-1] in named, "its line is gone"


def test_what_is_longer_than_it_was_is_altered(folder: Path) -> None:
    with (folder / SEGMENTS[1]).open("ab") as file:
        file.write(b"more")
    assert only(folder) == (SEGMENTS[1], "altered: 4 bytes longer than it was")


@pytest.mark.parametrize("name", SEGMENTS)
def test_a_segment_that_is_missing_is_named(folder: Path, name: str) -> None:
    (folder / name).rename(folder.parent / name)
    assert only(folder) == (name, "missing")
    (folder.parent / name).rename(folder / "000009.parquet")
    assert {flaw.file: flaw.wrong for flaw in flaws(folder)} == {
        name: "missing; 000009.parquet holds its content",
        "000009.parquet": f"in no line of the manifest: a second copy of {name}",
    }


@pytest.mark.parametrize("name", SEGMENTS)
def test_a_segment_that_was_doubled_is_named(folder: Path, name: str) -> None:
    shutil.copy(folder / name, folder / "000004.parquet")
    assert only(folder) == ("000004.parquet", f"in no line of the manifest: a second copy of {name}")


def test_segments_that_were_swapped_are_named(folder: Path) -> None:
    (folder / SEGMENTS[0]).rename(folder / "aside")
    (folder / SEGMENTS[2]).rename(folder / SEGMENTS[0])
    (folder / "aside").rename(folder / SEGMENTS[2])
    assert [(flaw.file, flaw.wrong) for flaw in flaws(folder)] == [
        (SEGMENTS[0], f"swapped: it holds what belongs in {SEGMENTS[2]}"),
        (SEGMENTS[2], f"swapped: it holds what belongs in {SEGMENTS[0]}"),
    ]


@pytest.mark.parametrize("of", ["verified-HR", "other-SI"])
def test_a_segment_of_the_other_side_or_of_another_log_is_named(made: Path, folder: Path, of: str) -> None:
    shutil.copy(made / of / SEGMENTS[1], folder / SEGMENTS[1])
    [flaw] = flaws(folder)
    assert flaw.file == SEGMENTS[1]
    assert flaw.wrong.startswith(("altered", "cut"))


ONE, TWO, THREE = ALL = [*SEGMENTS]
SWAPPED = [TWO, THREE]


@pytest.mark.parametrize(
    ("write", "said", "of"),
    [
        (lambda one, two, three: [one, two, two, three], f"line 3: doubled: describes {TWO} again, as line 2", [TWO]),
        (lambda one, two, three: [one, one, two, three], f"line 2: doubled: describes {ONE} again, as line 1", [ONE]),
        (lambda one, two, three: [one, two, three, one], f"line 4: doubled: describes {ONE} again, as line 1", [ONE]),
        (lambda one, two, three: [one, three, two], f"line 2: swapped: describes {THREE}, and line 3 {TWO}", SWAPPED),
        (lambda one, two, three: [two, one, three], f"line 1: swapped: describes {TWO}, and line 2 {ONE}", [ONE, TWO]),
        (lambda one, two, three: [three, two, one], f"line 1: swapped: describes {THREE}, and line 3 {ONE}", ALL),
        (lambda _, two, three: [two, three], f"line 1: dropped: describes {TWO}; no line describes {ONE}", [ONE]),
        (lambda one, _, three: [one, three], f"line 2: dropped: describes {THREE}; no line describes {TWO}", [TWO]),
        (lambda *lines: [lines[2]], f"line 1: dropped: describes {THREE}; no line describes {ONE} to {TWO}", ALL[:2]),
        (lambda one, two, three: [one, two, three, b"{}\n"], "line 4: not what Fieldtally writes", ["000004.parquet"]),
        (lambda one, _, three: [one, b"{}\n", three], f"line 2: not what Fieldtally writes; the line of {TWO}", [TWO]),
    ],
    ids=[
        "doubled", "first doubled", "doubled at the end", "swapped", "first swapped", "turned round", "first dropped",
        "middle dropped", "two dropped", "added", "written over",
    ],
)  # fmt: skip
@pytest.mark.parametrize("with_files", [False, True])
def test_lines_of_the_manifest_in_disorder_are_named_with_their_segments(
    folder: Path, write: Callable[..., list[bytes]], said: str, of: list[str], *, with_files: bool
) -> None:
    path = folder / MANIFEST
    lines = path.read_bytes().splitlines(keepends=True)
    left = write(*lines)
    path.write_bytes(b"".join(left))
    for name, line in zip(SEGMENTS, lines, strict=True):
        if with_files and line not in left:
            (folder / name).unlink()
    found = flaws(folder)
    assert found[0].file == MANIFEST
    assert f"{path}, {said}" in found[0].wrong
    assert [flaw.file for flaw in found[1:]] == of
    if with_files and "dropped" in said:
        assert all("missing" in flaw.wrong for flaw in found[1:])


@pytest.mark.parametrize("line", [1, 2, 3])
@pytest.mark.parametrize(
    "changed",
    [
        {"previous": "f" * 64}, {"sha256": "f" * 64}, {"count": 29}, {"before": 7}, {"size": 7}, {"side": "HR"},
        {"first": "1-0"}, {"last": "1710385939999-0"}, {"number": 7}, {"file": "000007.parquet"},
        {"file": "000001.parquet", "number": 1}, {"file": "000002.parquet"}, {"file": "000003.parquet", "number": 3},
    ],
    ids=str,
)  # fmt: skip
def test_each_member_of_a_line_that_was_changed_leads_to_its_segment(
    folder: Path, line: int, changed: dict[str, Any]
) -> None:
    segments = list(read_manifest(folder, SI).segments)
    honest = segments[line - 1]
    segments[line - 1] = replace(honest, **changed)
    if segments[line - 1] == honest:
        return
    (folder / MANIFEST).write_bytes(b"".join(segment.line() for segment in segments))
    found = flaws(folder)
    if changed == {"previous": "f" * 64} and line == 3:  # nobody knows of the last line what it carried
        [flaw] = found
        assert f"the line of {THREE}, or that of {TWO} before it: it carries the hash ffffffffffff…" in flaw.wrong
    else:
        assert honest.file in [flaw.file for flaw in found], found
    for other in {*SEGMENTS} - {honest.file, changed.get("file")}:
        assert other not in [flaw.file for flaw in found], found


@pytest.mark.parametrize("lines", [0, 1, 2])
def test_lines_cut_off_the_end_of_the_manifest_show_by_the_segments_they_were_about(folder: Path, lines: int) -> None:
    manifest = read_manifest(folder, SI)
    path = folder / MANIFEST
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:lines]))
    named = [flaw.file for flaw in flaws(folder)]
    assert named == [*([] if lines else [MANIFEST]), *SEGMENTS[lines:]]
    for name in SEGMENTS[lines:]:
        (folder / name).unlink()
    if lines:
        assert flaws(folder) == [], "cut off with its segments it looks like an archive of an earlier day"
    [flaw] = flaws(folder, manifest.head)
    assert flaw.file == MANIFEST
    assert "never ended with the hash" in flaw.wrong


@pytest.mark.parametrize("gone", [True, False])
def test_a_manifest_that_is_gone_or_empty_comes_first_where_there_are_segments(folder: Path, *, gone: bool) -> None:
    if gone:
        (folder / MANIFEST).unlink()
    else:
        (folder / MANIFEST).write_bytes(b"")
    state = "missing" if gone else "empty"
    assert [(flaw.file, flaw.wrong) for flaw in flaws(folder)] == [
        (MANIFEST, f"{state}, but there are segments: restore the file"),
        *((name, "in no line of the manifest") for name in SEGMENTS),
    ]
    for name in SEGMENTS[1:]:
        (folder / name).unlink()
    assert "if the first run of `fieldtally archive` was interrupted, run it again" in flaws(folder)[0].wrong


@pytest.mark.parametrize("changed", [{"count": 29}, {"first": "1-0"}, {"last": "1710385929001-9"}, {"size": 7}])
def test_a_line_that_misdescribes_its_segment_is_found_though_all_hashes_fit(
    folder: Path, changed: dict[str, Any]
) -> None:
    """Whoever writes the whole chain anew can make the hashes fit, not the content."""
    manifest = Manifest()
    for segment in read_manifest(folder, SI).segments:
        altered = replace(segment, **(changed if segment.number == 1 else {}))
        manifest = manifest.with_segment(replace(altered, before=manifest.entries, previous=manifest.head))
    write_manifest(folder, manifest)
    file, wrong = only(folder)
    assert file == SEGMENTS[0]
    assert f"{MANIFEST}, line 1: altered: 30 entries from {archives.FIRST_MS}-0 to" in wrong


@pytest.mark.parametrize("content", [b"", b"no Parquet", "other columns", "no rows"])
def test_a_segment_that_is_none_is_found_though_all_hashes_fit(folder: Path, content: bytes | str) -> None:
    path = folder / SEGMENTS[0]
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        pq.write_table(pa.table({"x" if content == "other columns" else "ms": pa.array([], pa.int64())}), path)
    manifest = Manifest()
    for segment in read_manifest(folder, SI).segments:
        changed = {"size": path.stat().st_size, "sha256": sha256_of(path)} if segment.number == 1 else {}
        manifest = manifest.with_segment(replace(segment, **changed, previous=manifest.head))
    write_manifest(folder, manifest)
    assert "line 1: altered: 000001.parquet is no segment, though it has the hash" in only(folder)[1]
    archive = Archive(folder, SI)
    archive.refresh()
    with pytest.raises(DamagedArchiveError, match="is not the segment that was archived"):
        archive.read_after(START, 5)


def test_a_segment_rewritten_with_the_whole_chain_after_it_is_found_by_a_head_that_was_kept(
    server_url: str, prefix: str, client: redis.Redis, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_pieces(monkeypatch, segment=30, group=10, read=10)
    kept = read_manifest(folder, SI).head
    forged = seeded_log(SEED, 300)["SI"][:80]
    forged[5] = entry(apprehension(persons={"SYR": 9_999}))
    archives.write(client, prefix, forged)
    archive_now(server_url, prefix, tmp_path)
    forgery = folder_of(tmp_path, prefix)
    assert flaws(forgery) == []
    assert "was rewritten" in only(forgery, kept)[1]


# Nothing makes it crash


def test_what_is_no_file_or_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SEGMENTS:
        (folder / name).unlink()
    (folder / SEGMENTS[0]).mkdir()
    (folder / SEGMENTS[1]).symlink_to(folder / "nowhere")
    (folder / SEGMENTS[2]).symlink_to(folder / SEGMENTS[2])
    assert [flaw.file for flaw in flaws(folder)] == [*SEGMENTS]
    assert [flaw.wrong for flaw in flaws(folder)] == [
        "cannot be read: Is a directory",
        "cannot be read: No such file or directory",
        "cannot be read: Too many levels of symbolic links",
    ]
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).mkdir()
    assert MANIFEST in [flaw.file for flaw in flaws(folder)]

    def vanish(_folder: Path) -> dict[str, Path]:
        return {"000001.parquet": folder / "gone.parquet"}

    monkeypatch.setattr(verify, "_files", vanish)
    assert "000001.parquet" in [flaw.file for flaw in flaws(folder)]


@hypothesis(max_examples=60)
@with_any(st.data())
def test_no_bytes_make_it_crash(made: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(folder_of(made, "verified"), folder)
    name = data.draw(st.sampled_from([MANIFEST, *SEGMENTS]))
    written = (folder / name).read_bytes()
    altered = written
    for _ in range(data.draw(st.integers(1, 3))):
        # Parquet's own description stands at the end.
        at = data.draw(st.integers(0, len(altered)) | st.integers(max(0, len(altered) - 600), len(altered)))
        altered = altered[:at] + data.draw(st.binary(max_size=6)) + altered[at + data.draw(st.integers(0, 6)) :]
    (folder / name).write_bytes(altered)
    found = {flaw.file for flaw in flaws(folder)}
    assert bool(found) == (altered != written)
    if name != MANIFEST:
        assert found <= {name}


# While somebody archives


def test_who_archives_meanwhile_is_no_flaw(
    server_url: str, prefix: str, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_pieces(monkeypatch)
    log: list[Entry] = archives.write(client, prefix, seeded_log(SEED, 300)["SI"][:20])
    archive_now(server_url, prefix, tmp_path, log[6].position)
    folder = folder_of(tmp_path, prefix)
    honest = verify._files

    def and_archive(of: Path) -> dict[str, Path]:
        archive_now(server_url, prefix, tmp_path)
        return honest(of)

    with monkeypatch.context() as patch:
        patch.setattr(verify, "_files", and_archive)  # between a look at the manifest and one at the files
        assert flaws(folder) == []
    shutil.copy(folder / SEGMENTS[0], folder / "000004.parquet")
    with writing(folder, SI):
        assert flaws(folder) == [], "a segment is there a moment before its line"
    assert [flaw.file for flaw in flaws(folder)] == ["000004.parquet"]
    archive = Archive(folder, SI)
    archive.refresh()
    assert archive.read_after(START, 100) == log
