"""`archive`, `archive verify`, `archive trim`, and every other command over a log of which a part is archived."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from services.archive.writer import writing
from services.runtime.embedded import embedded_server
from services.store.segments import MANIFEST
from tests import archives, oracle, projectors
from tests.archives import SI, folder_of, small_pieces
from tests.given import apprehension, entry, seeded_log
from tests.projectors import SI_ONLY, ZONES, feed, log_of
from tests.services.cli.conftest import PROGRAM, ROOT, Cli, Outcome, assert_refused, count, environ
from tests.waiting import wait_for

SEED = 20240313
LENGTH = 120
AWAY = "redis://127.0.0.1:1/0"


class Log:
    """A log of one side that is counted, and commands on it with an archive folder of its own."""

    def __init__(self, cli: Cli, client: redis.Redis, url: str, prefix: str, folder: Path) -> None:
        self.data = folder / "data"
        self.archives = self.data / "archive"
        self.client = client
        self.prefix = prefix
        self.key = f"{{{prefix}:SI}}:log"
        self._cli = cli
        feed(client, prefix, "SI", seeded_log(SEED, 300)["SI"][:LENGTH])
        self.entries = log_of(client, prefix, "SI")
        self.positions = [position for position, _ in self.entries]
        count(url, prefix)

    def run(self, *args: str, **settings: str) -> Outcome:
        """Run a command on it."""
        return self._cli(*args, **{"DATA_DIR": str(self.data), "SIDES": SI_ONLY, **settings})

    def done(self, *args: str, **settings: str) -> Outcome:
        """Run a command on it that succeeds."""
        outcome = self.run(*args, **settings)
        assert outcome.code == 0, outcome.err
        return outcome

    @property
    def folder(self) -> Path:
        """The folder of its archive."""
        return folder_of(self.archives, self.prefix)


@pytest.fixture
def log(
    cli: Cli, client: redis.Redis, server_url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Log:
    small_pieces(monkeypatch, segment=32, group=8, read=16, piece=16, rows=4)
    return Log(cli, client, server_url, prefix, tmp_path)


# The commands


def test_archive_says_what_it_wrote_and_the_head_to_keep(log: Log) -> None:
    [written] = log.done("archive", "--format", "json").json
    lines = (log.folder / MANIFEST).read_bytes().splitlines(keepends=True)
    head = hashlib.sha256(lines[-1]).hexdigest()
    assert written == {
        "side": "SI", "segments": 4, "entries": LENGTH, "to": log.positions[-1], "archived": LENGTH, "head": head
    }  # fmt: skip
    [again] = log.done("archive", "--format", "json").json
    assert again == written | {"segments": 0, "entries": 0}
    assert [one["file"] for one in log.done("archive", "list", "--format", "json").json] == [
        f"00000{number}.parquet" for number in (1, 2, 3, 4)
    ]
    assert [json.loads(line) for line in lines] == log.done("archive", "list", "--format", "json").json


def test_archive_until_a_position_or_a_time(log: Log) -> None:
    outcome = log.done("archive", "--until", log.positions[40], "--format", "json")
    [written] = outcome.json
    assert (written["archived"], written["to"]) == (41, log.positions[40])
    assert "before" not in outcome.err
    outcome = log.done("archive", "--until", "2024-03-14T12:00:00+01:00", "--format", "json")
    [written] = outcome.json
    assert written["entries"] == 0, "the log was received today"
    assert f"SI: archived to {log.positions[40]} before, beyond 2024-03-14T12:00:00+01:00" in outcome.err
    [written] = log.done("archive", "--until", "2100-01-01T00:00:00Z", "--format", "json").json
    assert written["archived"] == LENGTH


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("archive", "--until", "yesterday"), "--until"),
        (("archive", "--until", "1-0", "verify"), "--until belongs to `fieldtally archive` alone"),
        (("archive", "verify", "--head", "abc", "--side", "SI"), "--head takes the 64 digits"),
        (("archive", "verify", "--head", "abc"), "--head takes the 64 digits"),
        (("archive", "verify", "--head", "a" * 64), "--head is that of one side: name it with --side"),
        (("archive", "verify", "--side", "AT"), "no side 'AT'"),
        (("archive", "trim"), "--older-than"),
        (("archive", "trim", "--older-than", "soon"), "--older-than 'soon': a number of days or hours"),
        (("archive", "trim", "--older-than", "90d", "--side", "AT"), "no side 'AT'"),
    ],
)
def test_what_is_wrong_with_the_options_is_said(log: Log, args: tuple[str, ...], said: str) -> None:
    assert_refused(log.run(*args), 2, said)


def test_verify_names_what_is_not_as_written(log: Log) -> None:
    log.done("archive")
    clean = log.done("archive", "verify", "--format", "json")
    assert {one["verdict"] for one in clean.json} == {"as written"}
    assert f"{LENGTH} entries to {log.positions[-1]} as written; head " in clean.err
    content = bytearray((log.folder / "000002.parquet").read_bytes())
    content[1_000] ^= 1
    (log.folder / "000002.parquet").write_bytes(content)
    found = log.run("archive", "verify", "--format", "json")
    assert found.code == 4
    verdicts = {one["file"]: one["verdict"] for one in found.json}
    assert verdicts.pop("000002.parquet").startswith("altered")
    assert verdicts == dict.fromkeys(["000001.parquet", "000003.parquet", "000004.parquet"], "as written")
    assert "1 file not as written: restore from a copy" in found.err
    assert "altered" in log.run("archive", "verify").out


def test_verify_with_a_head_that_was_kept(log: Log) -> None:
    [early] = log.done("archive", "--until", log.positions[40], "--format", "json").json
    log.done("archive")
    for kept in (early["head"], early["head"].upper()):
        log.done("archive", "verify", "--side", "SI", "--head", kept)
    wrong = log.run("archive", "verify", "--side", "SI", "--head", "f" * 64)
    assert (wrong.code, "never ended with the hash" in wrong.out) == (4, True)
    assert "or this is the head of another side or archive" in wrong.out


def test_verify_needs_no_server(log: Log) -> None:
    log.done("archive")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (1, silent.getsockname()[1]):
            began = time.monotonic()
            outcome = log.run("archive", "verify", REDIS_URL=f"redis://127.0.0.1:{port}/0")
            assert outcome.code == 0, outcome.err
            assert "the server knows: `fieldtally doctor`" in outcome.err
            assert time.monotonic() - began < 5


def test_nothing_verified_is_not_as_written(log: Log) -> None:
    assert_refused(
        log.run("archive", "verify"), 2, "there is no archive of SI", str(log.archives), "FIELDTALLY_DATA_DIR"
    )
    log.folder.mkdir(parents=True)
    nothing = log.run("archive", "verify")
    assert (nothing.code, "there is no archive of SI" in nothing.err) == (2, True)
    log.done("archive")
    written = log.done("archive", "verify").err
    assert f"SI: {LENGTH} entries to {log.positions[-1]} as written" in written
    assert "the server was asked, too" in written
    both = log.run("archive", "verify", "--format", "json", SIDES="HR:Europe/Zagreb:HRV," + SI_ONLY)
    assert both.code == 2
    assert {"side": "HR", "file": MANIFEST, "verdict": "there is no archive of this side"} in both.json


@pytest.mark.parametrize("harm", ["flipped", "removed"])
def test_nothing_is_archived_behind_what_is_damaged(log: Log, harm: str) -> None:
    """The new head would vouch for it."""
    log.done("archive", "--until", log.positions[99])
    file, manifest = log.folder / "000001.parquet", log.folder / MANIFEST
    before = manifest.read_bytes()
    if harm == "removed":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    assert_refused(log.run("archive"), 4, str(file))
    assert manifest.read_bytes() == before


def test_a_side_of_which_nothing_is_here_is_named_and_not_taken_for_zero(log: Log) -> None:
    log.done("archive")
    sides = "HR:Europe/Zagreb:HRV," + SI_ONLY
    said = "no entry of side HR is here: its figures, and sums of all sides, may lack what was reported"
    for args in (("replay",), ("sql", "SELECT 1"), ("stats", "operations", "--format", "csv")):
        outcome = log.run(*args, SIDES=sides)
        assert (outcome.code, said in outcome.err) == (0, True), args
    looked = log.run("audit", "--format", "json", SIDES=sides).json["look_at"]
    assert {"kind": "no-entries", "side": "HR", "positions": [], "text": said} in looked
    assert said in " ".join(log.run("audit", SIDES=sides).out.split())
    for written in ("table", "markdown", "json"):
        assert said in log.run("stats", "operations", "--format", written, SIDES=sides).out
    assert said not in log.run("stats", "operations", SIDES=SI_ONLY).out


def test_trim_takes_out_what_is_old_and_says_how_much(log: Log) -> None:
    log.done("archive", "--until", log.positions[99])
    [kept] = log.done("archive", "trim", "--older-than", "1h", "--format", "json").json
    assert kept == {"side": "SI", "trimmed": 0, "left": LENGTH, "archived": 100}
    [gone] = log.done("archive", "trim", "--older-than", "0h", "--format", "json").json
    assert gone == {"side": "SI", "trimmed": 100, "left": 20, "archived": 100}


def test_trim_says_why_it_leaves_what_it_leaves(log: Log) -> None:
    trim = ("archive", "trim", "--older-than")
    assert f"SI: left in Redis: {LENGTH} not archived yet (`fieldtally archive`)\n" in log.done(*trim, "0h").err
    log.done("archive", "--until", log.positions[99])
    assert "SI: left in Redis: 20 not archived yet (`fieldtally archive`), 100 younger than 1h\n" in (
        log.done(*trim, "1h").err
    )
    feed(log.client, log.prefix, "SI", [entry(apprehension(id=number)) for number in range(8_001, 8_006)])
    log.done("archive")
    assert "SI: left in Redis: 5 not in the live tallies yet (is `fieldtally project` running?)\n" in (
        log.done(*trim, "0h").err
    )
    log.done("project", "--until-caught-up")
    assert "left in Redis" not in log.done(*trim, "0h").err
    assert "HR: nothing to trim: the log is empty" in log.run(*trim, "0h", SIDES="HR:Europe/Zagreb:HRV").err


def test_trim_takes_nothing_of_any_side_while_the_archive_of_one_is_not_as_written(log: Log) -> None:
    both = {"SIDES": "HR:Europe/Zagreb:HRV," + SI_ONLY}
    feed(log.client, log.prefix, "HR", [entry(apprehension(id=number, side="HR")) for number in range(1, 10)])
    assert log.run("project", "--until-caught-up", **both).code == 0
    assert log.run("archive", **both).code == 0
    segment = log.folder / "000001.parquet"
    written = segment.read_bytes()
    segment.write_bytes(written[:-9] + bytes([written[-9] ^ 1]) + written[-8:])
    refused = log.run("archive", "trim", "--older-than", "0h", **both)
    assert_refused(refused, 4, str(segment), "altered", "nothing is trimmed")
    assert (len(log_of(log.client, log.prefix, "HR")), len(log_of(log.client, log.prefix, "SI"))) == (9, LENGTH)
    segment.write_bytes(written)
    with writing(folder_of(log.archives, log.prefix), SI):
        busy = log.run("archive", "trim", "--older-than", "0h", "--format", "json", **both)
    assert busy.code == 2
    assert busy.json == [{"side": "HR", "trimmed": 9, "left": 0, "archived": 9}], "it says what it did before it ends"
    assert "somebody archives side SI" in busy.err


def test_trim_takes_out_nothing_that_the_projector_has_not_counted(log: Log) -> None:
    more = feed(log.client, log.prefix, "SI", [entry(apprehension(id=number)) for number in range(5)])
    log.done("archive")
    [gone] = log.done("archive", "trim", "--older-than", "0h", "--format", "json").json
    assert (gone["trimmed"], gone["left"]) == (LENGTH, 5)
    assert [position for position, _ in log_of(log.client, log.prefix, "SI")] == more


# What keeps it from working


def test_entries_that_are_gone_are_said_with_exit_code_4(log: Log) -> None:
    log.client.xdel(log.key, log.positions[50])
    assert_refused(log.run("archive"), 4, "has lost entries", "restore the log from a copy")
    assert_refused(log.run("replay"), 4, "incomplete")


def test_entries_that_go_after_they_were_archived_are_no_loss(log: Log) -> None:
    before = log.done("replay").err
    log.done("archive")
    log.client.xdel(log.key, log.positions[50], log.positions[-1])
    log.done("archive")
    assert log.done("replay").err == before
    log.done("audit")
    log.done("archive", "trim", "--older-than", "0h")
    assert log.done("replay").err == before


def test_a_folder_that_is_a_file_is_said_with_exit_code_2(log: Log) -> None:
    log.data.mkdir()
    log.archives.write_text("")
    for args in (("archive",), ("archive", "list"), ("replay",), ("archive", "trim", "--older-than", "0h")):
        assert_refused(log.run(*args), 2, str(log.archives), "Not a directory")
    assert log.run("archive", "verify").code == 4


def test_who_archives_second_is_told_with_exit_code_2(log: Log) -> None:
    with writing(log.folder, SI):
        assert_refused(log.run("archive"), 2, "somebody archives side SI", "try again later")


SMALL_DISK = """
set -e
mount -t tmpfs -o size=64k tmpfs "$1"
mkdir -p "$1/archive"
{more}
exec {program} archive
"""


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('dd if=/dev/zero of="$1/fill" bs=4k 2>/dev/null || true', "No space left on device"),
        ('dd if=/dev/zero of="$1/fill" bs=1k count=52 2>/dev/null', "No space left on device"),
        ('mount -o remount,ro tmpfs "$1"', "Read-only file system"),
    ],
    ids=["full", "filling up", "read-only"],
)
def test_a_disk_that_takes_no_more_is_said_with_exit_code_2(log: Log, tmp_path: Path, more: str, said: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    url = log.client.connection_pool.connection_kwargs["path"]
    script = SMALL_DISK.format(program=" ".join(PROGRAM), more=more)
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(disk)],
        cwd=ROOT, env=environ(f"unix://{url}", log.prefix, DATA_DIR=str(disk), SIDES=SI_ONLY), capture_output=True,
        text=True, check=False, timeout=60,
    )  # fmt: skip
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no disk of its own can be had here: {done.stderr.strip()}")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert said in done.stderr
    assert str(disk) in done.stderr
    assert len(done.stderr.splitlines()) == 1


# Everything else goes on as before


COMMANDS = (
    ("replay", "--by", "day,measure,citizenship", "--format", "json"),
    ("tallies", "--format", "json"),
    ("events", "--format", "ndjson"),
    ("events", "--format", "csv"),
    ("audit", "--format", "json"),
    ("parked", "list", "--format", "json"),
)


def seen(log: Log) -> list[Outcome]:
    """Return what every command that reads the log says, and at positions all over it."""
    said = [log.run(*args) for args in COMMANDS]
    said += [log.run("replay", "--as-of", position, "--format", "json") for position in log.positions[::17]]
    said += [log.run("events", "--after", position, "--limit", "7") for position in log.positions[::29]]
    parked = json.loads(said[5].out)
    said += [log.run("parked", "show", one["position"]) for one in parked[::7]]
    return said


def test_every_command_says_the_same_before_a_trim_and_after(log: Log) -> None:
    before = seen(log)
    counted = oracle.count("SI", ZONES["SI"], log.entries).tallies
    assert oracle.digest(counted) in before[0].err
    log.done("archive", "--until", log.positions[60])
    assert seen(log) == before
    log.done("archive", "trim", "--older-than", "0h")
    assert seen(log) == before
    log.done("archive")
    assert seen(log) == before
    log.done("archive", "trim", "--older-than", "0h")
    assert log.client.xlen(log.key) == 0
    assert seen(log) == before


def test_a_replay_ends_anywhere_in_the_archive(log: Log) -> None:
    log.done("archive", "--until", log.positions[100])
    log.done("archive", "trim", "--older-than", "0h")
    for at in range(0, LENGTH, 10):
        counted = oracle.count("SI", ZONES["SI"], log.entries[: at + 1]).tallies
        assert oracle.digest(counted) in log.done("replay", "--as-of", log.positions[at]).err, at


def test_the_events_of_two_sides_stay_in_the_order_of_receipt_over_the_border(
    cli: Cli, client: redis.Redis, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A side that ends a batch at the border of its archive has not come to its end there."""
    monkeypatch.setattr("services.cli.events.BATCH", 8)
    small_pieces(monkeypatch, segment=5, group=3)
    positions = []
    for number in range(60):
        side = "SI" if number % 3 else "HR"
        feed(client, prefix, side, [entry(apprehension(id=number, side=side))])
        positions.append(log_of(client, prefix, side)[-1][0])
    settings = {"DATA_DIR": str(tmp_path)}
    before = cli("events", "--format", "ndjson", **settings)
    for at in (13, 31, 50):
        assert cli("archive", "--until", positions[at], SIDES=SI_ONLY, **settings).code == 0
        assert cli("events", "--format", "ndjson", **settings).out == before.out, f"archived up to {at}"


def test_doctor_tells_how_much_is_archived_and_finds_nothing_wrong_after_a_trim(log: Log) -> None:
    log.done("archive", "--until", log.positions[99])
    log.done("archive", "trim", "--older-than", "0h")
    findings = {one["what"]: one for one in log.done("doctor", "--format", "json").json}
    assert findings["SI log"]["found"] == f"{LENGTH} entries to {log.positions[-1]}, 100 of them archived"
    assert {one["state"] for one in findings.values()} <= {"ok", "look"}
    shutil.rmtree(log.folder)
    broken = log.run("doctor", "--format", "json")
    assert broken.code == 4
    assert next(one["next_step"] for one in broken.json if one["state"] == "wrong").startswith("the log of side SI was")


@pytest.mark.parametrize(
    "args", [("replay",), ("audit",), ("events",), ("archive",), ("archive", "trim", "--older-than", "0h")]
)
def test_without_its_archive_a_trimmed_log_is_not_read(log: Log, args: tuple[str, ...]) -> None:
    log.done("archive", "--until", log.positions[99])
    log.done("archive", "trim", "--older-than", "0h")
    log.folder.rename(log.data / "elsewhere")
    assert_refused(log.run(*args), 4, f"was trimmed up to {log.positions[99]}", "FIELDTALLY_DATA_DIR")


def test_rewritten_with_all_its_hashes_an_archive_is_known_by_the_server_that_was_trimmed(
    log: Log, server_url: str, tmp_path: Path
) -> None:
    log.done("archive")
    log.done("archive", "trim", "--older-than", "0h")
    forged = [fields for _, fields in log.entries]
    forged[5] = entry(apprehension(persons={"SYR": 9_999}))
    for position, fields in zip(log.positions, forged, strict=True):
        log.client.xadd(f"{{{log.prefix}f:SI}}:log", {**fields}, id=position)
    archives.archive_now(server_url, f"{log.prefix}f", tmp_path / "forged")
    shutil.rmtree(log.folder)
    shutil.copytree(folder_of(tmp_path / "forged", f"{log.prefix}f"), log.folder)
    log.done("archive", "verify", REDIS_URL=AWAY)
    [flaw] = [one for one in log.run("archive", "verify", "--json").json if one["file"] == MANIFEST]
    assert flaw["verdict"].endswith("this one has another there: it was rewritten, or is of another log")
    assert_refused(log.run("replay"), 4, "was trimmed up to", "not the one in")


def doctor_on_archive(log: Log) -> str:
    """Return the state that `doctor` has of the archive."""
    found: str = next(one["state"] for one in log.run("doctor", "--json").json if one["what"] == "SI archive")
    return found


def cut_the_end(folder: Path) -> None:
    """Take away the last segment of an archive together with its line."""
    lines = (folder / MANIFEST).read_bytes().splitlines(keepends=True)
    (folder / MANIFEST).write_bytes(b"".join(lines[:-1]))
    (folder / f"{len(lines):06}.parquet").unlink()


def test_an_archive_shorter_than_the_one_a_log_was_trimmed_by_is_not_as_written(log: Log) -> None:
    log.done("archive")
    assert (doctor_on_archive(log), log.done("archive", "verify").code) == ("ok", 0)
    log.done("archive", "trim", "--older-than", "0h")
    assert (doctor_on_archive(log), log.done("archive", "verify").code) == ("ok", 0)
    cut_the_end(log.folder)
    verified = log.run("archive", "verify", "--json")
    assert verified.code == 4
    [flaw] = [one for one in verified.json if one["file"] == MANIFEST]
    assert f"trimmed up to {log.positions[-1]} by an archive with {LENGTH} entries and the hash" in flaw["verdict"]
    assert "this one ends after 96: it is older, or its last segments are gone with their lines" in flaw["verdict"]
    assert doctor_on_archive(log) == "wrong"
    away = log.done("archive", "verify", REDIS_URL=AWAY)
    assert "the server knows: `fieldtally doctor`" in away.err
    shutil.rmtree(log.folder)
    gone = log.run("archive", "verify", "--json")
    assert (gone.code, "this one ends after 0" in gone.json[0]["verdict"]) == (4, True)
    assert doctor_on_archive(log) == "wrong"


def test_the_embedded_server_is_asked_where_it_runs_and_never_started_for_it(log: Log, prefix: str) -> None:
    log.done("archive")
    log.done("archive", "trim", "--older-than", "0h")
    noted = log.client.hgetall(f"{{{prefix}:SI}}:trimmed")
    cut_the_end(log.folder)
    away = log.done("archive", "verify", url="")
    assert "the server knows: `fieldtally doctor`" in away.err
    assert [path.name for path in log.data.iterdir()] == ["archive"], "nothing was made"
    with embedded_server(log.data) as url:
        with redis.Redis.from_url(url) as server:
            server.hset(f"{{{prefix}:SI}}:trimmed", mapping=noted)
        assert log.run("archive", "verify", url="").code == 4
    wait_for(lambda: not (log.data / "valkey.sock").exists(), what="the end of the server")
    log.done("archive", "verify", url="")
    assert not (log.data / "valkey.sock").exists()


def test_a_server_that_was_emptied_goes_on_behind_its_archive(log: Log) -> None:
    """What a person does after a disk was lost, led from one step to the next by what the commands say."""
    counted = log.done("tallies", "--format", "json").json
    log.done("archive")
    log.client.delete(*log.client.keys(f"{{{log.prefix}:SI}}:*"))
    doctor = {one["what"]: one for one in log.run("doctor", "--format", "json").json}
    assert "`audit`, `replay`, `stats`, `events` and `sql` read the archive" in doctor["SI tallies"]["found"]
    assert_refused(log.run("project", "--until-caught-up"), 4, "`fieldtally archive restore`")
    outcome = log.done("archive", "restore", "--format", "json")
    [row] = outcome.json
    assert row == {"side": "SI", "restored": LENGTH, "to": log.positions[-1], "recorded_since": 0}
    assert f"SI: what had been recorded after {log.positions[-1]} and was lost is in no archive" in outcome.err
    doctor = {one["what"]: one for one in log.run("doctor", "--format", "json").json}
    assert "`fieldtally rebuild --swap`" in doctor["SI tallies"]["next_step"]
    assert_refused(log.run("project", "--until-caught-up"), 4, "`fieldtally rebuild --swap`")
    log.done("rebuild", "--swap")
    log.done("project", "--until-caught-up")
    assert log.done("tallies", "--format", "json").json == counted
    log.done("audit")
    again = log.done("archive", "restore", "--format", "json")
    assert (again.json[0]["restored"], "nothing to restore" in again.err) == (0, True)


def test_what_keeps_a_side_from_being_restored_is_one_line(log: Log) -> None:
    assert_refused(log.run("archive", "restore"), 2, "there is no archive in", "FIELDTALLY_DATA_DIR")
    log.done("archive", "--until", log.positions[60])
    log.client.delete(*log.client.keys(f"{{{log.prefix}:SI}}:*"))
    feed(log.client, log.prefix, "SI", [entry(apprehension(id=9_999))])
    assert_refused(log.run("archive", "restore"), 2, "side SI", "with 1 more", "--went-on")
    assert log.done("archive", "restore", "--went-on", "--format", "json").json[0]["recorded_since"] == 1


# The archive elsewhere


def test_an_auditor_with_a_copy_of_the_folder_gets_the_same_replay_from_an_empty_server(
    log: Log, cli: Cli, prefix: str, tmp_path: Path
) -> None:
    before = [log.run(*args) for args in COMMANDS if args[0] in ("replay", "events")]
    log.done("archive")
    copy = tmp_path / "auditor"
    shutil.copytree(log.archives, copy / "archive")

    def there(*args: str) -> Outcome:
        return cli(*args, at=prefix, url="", DATA_DIR=str(copy), SIDES=SI_ONLY)  # with an embedded server

    assert [there(*args)[:2] for args in COMMANDS if args[0] in ("replay", "events")] == [one[:2] for one in before]
    assert there("archive", "verify").code == 0
    live = there("tallies", "--format", "json")
    assert (live.code, live.json) == (0, [])
    assert "live tallies as of SI 0-0" in live.err
    audited = there("audit", "--format", "json")
    assert audited.code == 0, audited.err
    assert audited.json["position"] == {"SI": log.positions[-1]}
    assert audited.json["live_equals_rebuilt"] is None
    in_words = there("audit")
    assert "SI: this server has an archive and no log" in in_words.err
    assert "live not compared: of SI nothing is live here" in in_words.out
    assert "live equals rebuilt" not in in_words.out
    doctor = {one["what"]: one for one in there("doctor", "--format", "json").json}
    assert "none: this server has an archive and no log" in doctor["SI tallies"]["found"]
    assert "SI audit" not in doctor
    watched = " ".join(there("watch", "--once").out.split())
    assert "DELAYED" in watched, "zeros that nobody has counted are no quiet border"
    assert "the log of this server never held" in watched
    parked = there("parked", "list", "--format", "json")
    assert (parked.json, "SELECT * FROM parked" in parked.err) == ([], True)
    assert_refused(there("rebuild"), 4, "the log of this server never held")
    assert "projector" not in there("audit").err
    refused = there("project", "--until-caught-up")
    assert refused.code == 4
    assert f"has {LENGTH} entries up to {log.positions[-1]}" in refused.err
    assert_refused(there("archive"), 4, "the log of this server never held")
    (tmp_path / "more.ndjson").write_bytes(apprehension(id=9_001) + b"\n")
    for adding in (("import", str(tmp_path / "more.ndjson")), ("simulate", "--reports", "1")):
        assert_refused(there(*adding), 4, str(copy), "the log of this server never held", "FIELDTALLY_DATA_DIR")
    assert there("audit", "--format", "json").json == audited.json, "nothing was added"


READINGS = (
    ("replay",), ("tallies", "--as-of", "2099-01-01"), ("audit",), ("stats",), ("events",), ("events", "--limit", "1"),
    ("sql", "SELECT 1"), ("archive",), ("archive", "trim", "--older-than", "0h"), ("project", "--until-caught-up"),
    ("rebuild",),
)  # fmt: skip


@pytest.mark.parametrize("own", [3, LENGTH + 30])
def test_an_archive_that_is_not_that_of_the_log_is_not_read_as_a_part_of_it(
    log: Log, client: redis.Redis, tmp_path: Path, own: int
) -> None:
    log.done("archive")
    client.delete(log.key, *client.keys(f"{{{log.prefix}:SI}}:g1:*"))
    feed(client, log.prefix, "SI", [entry(apprehension(id=number)) for number in range(1, own + 1)])
    for args in READINGS:
        refused = log.run(*args)
        assert (refused.code, refused.out) == (4, ""), args
        assert "some of which the log of this server never held: restore the server from a copy, or" in (refused.err), (
            args
        )
        assert str(log.folder) in refused.err, args
    doctor = log.run("doctor", "--format", "json")
    assert doctor.code == 4
    [found] = [one for one in doctor.json if one["what"] == "SI log"]
    assert found["state"] == "wrong"
    assert str(log.folder) in found["next_step"]
    (tmp_path / "more.ndjson").write_bytes(apprehension(id=9_001) + b"\n")
    assert_refused(log.run("import", str(tmp_path / "more.ndjson")), 4, "never held")
    assert len(log_of(client, log.prefix, "SI")) == own
    shutil.rmtree(log.archives)
    assert log.run("replay").code == 0


def test_where_the_tallies_are_gone_after_a_trim_a_replay_has_them_and_the_projector_says_what_to_do(log: Log) -> None:
    before = log.run("replay", "--format", "json")
    log.done("archive", "--until", log.positions[99])
    log.done("archive", "trim", "--older-than", "0h")
    for key in log.client.scan_iter(f"{{{log.prefix}:SI}}:*"):
        if not key.endswith((b":log", b":trimmed")):
            log.client.delete(key)
    assert log.run("replay", "--format", "json") == before
    refused = log.run("project", "--until-caught-up")
    assert refused.code == 4
    assert "only the archive has some: `fieldtally rebuild --swap`" in refused.err


def test_a_report_amended_and_repeated_after_its_trim_is_counted_right(log: Log) -> None:
    log.done("archive")
    log.done("archive", "trim", "--older-than", "0h")
    original: Any = next(
        json.loads(fields[b"event"])
        for _, fields in log.entries
        if b'"type":"org.fieldtally.apprehension.v1"' in fields.get(b"event", b"")
        and b'"amends"' not in fields[b"event"]
    )
    late = [
        entry(json.dumps(original).encode()),  # a duplicate
        entry(json.dumps(original | {"time": "2024-03-13T00:00:00Z"}).encode()),  # a conflict
        entry(apprehension(id=7_001, amends=original["id"], revision=40, reportno=9_001, persons={"TUR": 77})),
        entry(apprehension(id=7_002, amends=original["id"], revision=39, reportno=9_002, persons={"TUR": 78})),
    ]
    feed(log.client, log.prefix, "SI", late)
    done = log.run("project", "--until-caught-up")
    assert done.code == 0, done.err
    whole = log.entries + log_of(log.client, log.prefix, "SI")
    standing = projectors.stored(log.client, log.prefix, "SI")
    assert standing == projectors.expected(whole, "SI")
    assert log.run("audit").code == 0
    log.done("archive")
    log.done("archive", "trim", "--older-than", "0h")
    assert oracle.digest(standing.tallies) in log.done("replay").err
    assert log.run("audit").code == 0


def test_a_projector_that_needs_the_archive_stops_without_it(log: Log) -> None:
    log.done("archive")
    log.done("archive", "trim", "--older-than", "0h")
    log.folder.rename(log.data / "elsewhere")
    feed(log.client, log.prefix, "SI", [entry(apprehension(amends=1, revision=1))])
    refused = log.run("project", "--until-caught-up")
    assert (refused.code, "was trimmed up to" in refused.err) == (4, True)
    (log.data / "elsewhere").rename(log.folder)
    assert log.run("project", "--until-caught-up").code == 0


def test_help_begins_with_examples(cli: Cli) -> None:
    for args in (("archive",), ("archive", "verify"), ("archive", "trim"), ("archive", "list")):
        assert "fieldtally archive" in cli(*args, "--help").out
