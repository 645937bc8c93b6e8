"""What only a real process shows: every command by itself, pipes that close, terminals, and Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import tempfile
import termios
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path

import pytest
import redis

from services.field import FieldUnit
from tests import given
from tests.services.cli.conftest import PROGRAM, ROOT, Outcome, count, environ, record, started
from tests.services.field.patrols import link, persons, standing, stub_gateway
from tests.waiting import wait_for


@pytest.fixture
def reports(client: redis.Redis, server_url: str, prefix: str) -> str:
    """Record and count some reports, and one that is none; return the prefix."""
    events = [given.apprehension(id=number, persons={"SYR": 400}) for number in range(1, 4)]
    others = [given.nil_report(id=4, side="HR", device="d1")]
    record(client, prefix, {"SI": [*events, b'{"type":"org.fieldtally.patrol.v1"}'], "HR": others})
    count(server_url, prefix)
    return prefix


@pytest.mark.parametrize(
    ("args", "begins"),
    [
        (["tallies"], "live tallies\n"),
        (["replay"], "rebuilt tallies\n"),
        (["audit"], "live equals rebuilt"),
        (["events"], "position "),
        (["parked", "list"], "parked entries\n"),
        (["doctor"], "doctor\n"),
        (["--version"], "fieldtally "),
        (["--help"], "Examples:\n"),
    ],
)
@pytest.mark.usefixtures("reports")
def test_every_command_runs_by_itself(process: Callable[..., Outcome], args: list[str], begins: str) -> None:
    outcome = process(*args)
    assert 0 == outcome.code, outcome.err
    assert outcome.out.startswith(begins)


def test_reports_go_from_a_file_to_the_tallies(process: Callable[..., Outcome], tmp_path: Path) -> None:
    """The whole way, on an embedded server that each command finds again."""
    embedded = {"url": "", "DATA_DIR": str(tmp_path / "data")}
    file = str(tmp_path / "reports.ndjson")
    assert 0 == process("simulate", "--reports", "100", "--out", file, **embedded).code
    assert 0 == process("import", file, **embedded).code
    projected = process("project", "--until-caught-up", **embedded)
    assert (0, "") == (projected.code, projected.out), projected.err
    assert 0 == process("audit", **embedded).code
    assert "persons" in process("tallies", **embedded).out


@pytest.mark.parametrize(
    "args",
    [
        ["tallies"],
        ["events", "--format", "json"],
        ["audit"],
        ["--help"],
        ["simulate", "--reports", "2000", "--out", "-"],
    ],
    ids=" ".join,
)
def test_a_reader_that_leaves_is_no_fault(server_url: str, reports: str, args: list[str]) -> None:
    """`fieldtally … | head -1`: here the reader has left before the first line."""
    reading, writing = os.pipe()
    os.close(reading)
    with started(args, environ(server_url, reports), stdout=writing, stderr=subprocess.PIPE) as running:
        os.close(writing)
        said = running.communicate(timeout=60)[1].decode()
    assert 0 == running.returncode, said
    # Positions and digest are said on stderr all the same.
    assert [] == [line for line in said.splitlines() if " as of " not in line]


@pytest.mark.parametrize("args", [["tallies"], ["events"], ["--version"]], ids=" ".join)
def test_a_full_disk_is_said_in_one_line(server_url: str, reports: str, args: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*PROGRAM, *args], cwd=ROOT, env=environ(server_url, reports), stdout=full, stderr=subprocess.PIPE,
            check=False, timeout=60,
        )  # fmt: skip
    said = [line for line in done.stderr.decode().splitlines() if " as of " not in line]
    assert (2, ["fieldtally: cannot read the input or write the output: No space left on device"]) == (
        done.returncode, said,
    )  # fmt: skip


def test_a_report_is_stored_though_nothing_can_be_said_on_stdout(server_url: str, prefix: str, tmp_path: Path) -> None:
    """Else a script would report it again."""
    env = environ(server_url, prefix, DATA_DIR=str(tmp_path))
    FieldUnit.join(tmp_path / "outbox.db", link())
    args = [*PROGRAM, "report", "apprehension", "--section", "koper", "--persons", "SYR=1"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(args, cwd=ROOT, env=env, stdout=full, stderr=subprocess.PIPE, check=False, timeout=60)
    reading, writing = os.pipe()
    os.close(reading)
    with started(args[len(PROGRAM) :], env, stdout=writing, stderr=subprocess.PIPE) as running:
        os.close(writing)
        said = running.communicate(timeout=60)[1].decode()
    for number, code, text in ((1, done.returncode, done.stderr.decode()), (2, running.returncode, said)):
        assert 0 == code, text
        assert f"report {number} (" in text
        assert "the report is stored all the same" in text
        assert "Traceback" not in text
    unit = FieldUnit(tmp_path / "outbox.db")
    assert [1, 2] == [report.number for report in unit.pending()]
    unit.close()


def test_a_closed_stdout_is_like_dev_null(server_url: str, reports: str) -> None:
    line = f"{' '.join(PROGRAM)} tallies >&-"
    done = subprocess.run(
        ["sh", "-c", line], cwd=ROOT, env=environ(server_url, reports), capture_output=True, check=False, timeout=60
    )
    assert 0 == done.returncode, done.stderr


# On a terminal


def on_terminal(
    args: Sequence[str], env: dict[str, str], columns: int = 80, stdout: int | None = None
) -> tuple[int, str]:
    """Run a command on a terminal of some width; return its exit code and what the terminal got."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = {name: text for name, text in env.items() if name not in ("COLUMNS", "NO_COLOR")} | {"TERM": "xterm"}
    running = subprocess.Popen(
        [*PROGRAM, *args], cwd=ROOT, env=env, stdin=theirs, stdout=theirs if stdout is None else stdout, stderr=theirs
    )
    os.close(theirs)
    seen = bytearray()
    try:
        while chunk := os.read(ours, 65_536):
            seen += chunk
    except OSError:  # so a terminal says that nobody has it open any more
        pass
    finally:
        os.close(ours)
    return running.wait(30), seen.decode()


@pytest.mark.parametrize(
    ("args", "columns"),
    [
        (["tallies"], 80),
        (["doctor"], 80),
        (["events"], 80),
        (["parked", "list"], 80),
        (["audit", "--claims", "{release}"], 80),
        (["audit", "--claims", "{release}"], 120),
    ],
)
def test_a_table_fits_the_terminal(server_url: str, reports: str, args: list[str], columns: int) -> None:
    release = ROOT / "services/simulator/press_release.toml"
    code, seen = on_terminal([arg.format(release=release) for arg in args], environ(server_url, reports), columns)
    assert code in (0, 1)
    drawn = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen).splitlines()]
    heading = next(at for at, line in enumerate(drawn) if re.match(r"(side|state|position|verdict)  ", line))
    table = list(takewhile(lambda line: line and " as of " not in line, drawn[heading:]))
    assert 2 <= len(table)
    assert columns >= max(map(len, table))


def test_rows_reach_their_file_while_the_bar_is_on_the_terminal(server_url: str, prefix: str, tmp_path: Path) -> None:
    reports = tmp_path / "reports.ndjson"
    reports.write_bytes(b"\n".join(given.apprehension(id=number) for number in range(1, 2_001)))
    with (tmp_path / "results").open("wb") as results:
        code, seen = on_terminal(
            ["import", str(reports), "--format", "ndjson"], environ(server_url, prefix), stdout=results.fileno()
        )
    assert (0, 2_000) == (code, len((tmp_path / "results").read_bytes().splitlines()))
    assert "importing bytes" in seen
    assert "recorded" not in seen.replace("2,000 recorded, 0 rejected", "")


def test_rows_on_the_terminal_are_not_mixed_with_a_bar(server_url: str, prefix: str, tmp_path: Path) -> None:
    reports = tmp_path / "reports.ndjson"
    reports.write_bytes(given.apprehension(id=1) + b"\n" + given.apprehension(id=2))
    code, seen = on_terminal(["import", str(reports)], environ(server_url, prefix))
    assert 0 == code
    assert "importing bytes" not in seen
    assert ["   line  status  ", "      1  recorded", "      2  recorded", "2 lines: 2 record"] == [
        line[:17] for line in seen.splitlines()
    ]


def test_a_bar_has_rate_and_time_left(server_url: str, prefix: str, client: redis.Redis) -> None:
    record(client, prefix, {"SI": [given.apprehension(id=number) for number in range(1, 6_001)]})
    code, seen = on_terminal(["replay"], environ(server_url, prefix), 120)
    assert 0 == code
    assert re.search(r"replaying.*━.*6,000 of 6,000", seen)
    assert re.search(r"[0-9,]+/s", seen)
    assert "0:00:0" in seen
    assert "\x1b[2K" in seen  # it is wiped away at the end


def test_off_a_terminal_there_is_no_bar(process: Callable[..., Outcome], reports: str) -> None:
    for args in (["replay"], ["audit"], ["simulate", "--reports", "10"]):
        outcome = process(*args, at=reports)
        assert "━" not in outcome.out + outcome.err
        assert "\x1b" not in outcome.out + outcome.err


# Ctrl-C


def assert_interrupted(running: subprocess.Popen[bytes]) -> None:
    _, said = running.communicate(timeout=30)
    assert (130, b"") == (running.returncode, said)


def test_ctrl_c_ends_what_follows_with_130(server_url: str, reports: str) -> None:
    command = ["events", "--follow", "--format", "ndjson"]
    env = environ(server_url, reports)
    with started(command, env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout
        assert running.stdout.readline()
        running.send_signal(signal.SIGINT)
        assert_interrupted(running)


def test_ctrl_c_is_heard_by_a_command_that_waits_for_its_reader(
    server_url: str, prefix: str, client: redis.Redis
) -> None:
    record(client, prefix, {"SI": [given.apprehension(id=number) for number in range(1, 1_501)]})
    command = ["events", "--follow", "--format", "ndjson"]
    reading, writing = os.pipe()
    takes_more = select.poll()
    takes_more.register(writing, select.POLLOUT)
    with started(command, environ(server_url, prefix), stdout=writing, stderr=subprocess.PIPE) as running:
        wait_for(lambda: not takes_more.poll(0), what="the pipe to be full")
        running.send_signal(signal.SIGINT)
        os.close(writing)
        with os.fdopen(reading, "rb") as rest:
            rest.read()
        assert_interrupted(running)


def test_ctrl_c_between_two_reports_ends_with_130(server_url: str, prefix: str, client: redis.Redis) -> None:
    env = environ(server_url, prefix)
    command = ["simulate", "--rate", "1", "--reports", "100"]
    with started(command, env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        wait_for(lambda: client.exists(f"{{{prefix}:SI}}:log", f"{{{prefix}:HR}}:log"), what="the first report")
        running.send_signal(signal.SIGINT)
        assert_interrupted(running)


def test_ctrl_c_ends_the_projector_with_130(server_url: str, reports: str, tmp_path: Path) -> None:
    env = environ(server_url, reports, LOG_FORMAT="json")
    said = tmp_path / "said"
    with said.open("wb") as stderr, started(["project"], env, stdout=subprocess.PIPE, stderr=stderr) as running:
        wait_for(lambda: said.read_bytes().count(b"projector_started") >= 1, what="the projector to start")
        running.send_signal(signal.SIGINT)
        assert b"" == running.communicate(timeout=30)[0]
        assert 130 == running.returncode
    assert "Traceback" not in said.read_text()


def test_ctrl_c_ends_the_demo_with_130_and_leaves_nothing_behind(prefix: str) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="ft-") as folder,  # short, for the sake of the server's socket
        started(["demo"], environ("", prefix) | {"TMPDIR": folder},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as running,
    ):  # fmt: skip
        assert running.stdout
        assert running.stdout.readline()
        os.killpg(running.pid, signal.SIGINT)  # a terminal sends it to the projector too
        _, said = running.communicate(timeout=30)
        assert 130 == running.returncode, said
        assert b"Traceback" not in said
        wait_for(lambda: not list(Path(folder).glob("fieldtally-demo-*")), what="the demo's folder to be gone")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_whatever_ends_the_demo_ends_its_projector(prefix: str, number: signal.Signals) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="ft-", ignore_cleanup_errors=True) as folder,
        started(["demo"], environ("", prefix) | {"TMPDIR": folder}, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE) as running,
    ):  # fmt: skip
        assert running.stdout
        assert running.stdout.readline()
        wait_for(lambda: children_of(running.pid), what="the projector")
        children = children_of(running.pid)
        running.send_signal(number)
        _, said = running.communicate(timeout=30)  # to the end: the projector has the same stderr
        assert (-9 if number == signal.SIGKILL else 130) == running.returncode
        assert b"Traceback" not in said
        wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children), what="the projector's end")
        if number != signal.SIGKILL:
            wait_for(lambda: not list(Path(folder).glob("fieldtally-demo-*")), what="the demo's folder to be gone")


def children_of(parent: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


# What a program may be started with


@pytest.mark.parametrize("redirection", ["<&-", "2>&-", "<&- 2>&-", "<&- >&- 2>&-", "2>/dev/full", "</dev/null 2>&-"])
@pytest.mark.parametrize("command", ["project --until-caught-up", "replay", "import -"])
def test_descriptors_that_are_closed_or_full_are_no_fault(
    tmp_path: Path, prefix: str, command: str, redirection: str
) -> None:
    """On an embedded server that each starts: what is closed must not become a lock, a log or a socket."""
    (tmp_path / "data").mkdir()  # what only reads makes none
    line = f"{' '.join(PROGRAM)} {command} {redirection}"
    env = environ("", prefix, DATA_DIR=str(tmp_path / "data"))
    done = subprocess.run(
        ["sh", "-c", line], cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60
    )
    assert 0 == done.returncode, done
    assert b"did not come up" not in done.stdout + done.stderr


def test_a_full_disk_under_its_log_lines_does_not_stop_the_projector(
    server_url: str, prefix: str, client: redis.Redis
) -> None:
    record(client, prefix, {"SI": [given.apprehension(id=number) for number in range(1, 4)]})
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*PROGRAM, "project", "--until-caught-up"], cwd=ROOT, env=environ(server_url, prefix), stderr=full,
            check=False, timeout=60,
        )  # fmt: skip
    assert 0 == done.returncode
    assert b"3" == client.hget(f"{{{prefix}:SI}}:g1:checkpoint", "entries")


def test_a_terminal_without_the_letters_gets_others(server_url: str, reports: str) -> None:
    release = ROOT / "services/simulator/press_release.toml"
    env = environ(server_url, reports) | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [*PROGRAM, "audit", "--claims", str(release)], cwd=ROOT, env=env, capture_output=True, check=False, timeout=60
    )
    assert (1, b"") == (done.returncode, done.stderr)
    assert rb"172 migrants \u2026 on the border" in done.stdout


def test_a_flush_shows_how_far_it_is_on_a_terminal_only(server_url: str, prefix: str, tmp_path: Path) -> None:
    env = environ(server_url, prefix, DATA_DIR=str(tmp_path))
    with stub_gateway() as stub:
        FieldUnit.join(tmp_path / "outbox.db", link(stub.url))
        unit = FieldUnit(tmp_path / "outbox.db")
        unit.report(persons())
        code, seen = on_terminal(["report", "--flush"], env)
        assert (0, 1) == (code, len(stub.sent)), seen
        assert "sending" in seen
        assert "1 of 1" in seen
        assert "1 report sent" in seen
        stub.stands = lambda: standing(1)
        unit.report(persons())
        unit.close()
        done = subprocess.run([*PROGRAM, "report", "--flush"], cwd=ROOT, env=env, capture_output=True, check=True)
    assert (b"1 report sent, 0 rejected, 0 waiting\n", b"") == (done.stdout, done.stderr)


def test_an_id_is_in_one_piece_on_a_narrow_terminal(prefix: str, tmp_path: Path) -> None:
    FieldUnit.join(tmp_path / "outbox.db", link())
    unit = FieldUnit(tmp_path / "outbox.db")
    report = unit.report(persons(SYR=1, AFG=2, IRQ=3, IRN=4, PAK=5, BGD=6))
    unit.close()
    for flag in ("--status", "--list"):
        assert str(report.id) in on_terminal(["report", flag], environ("", prefix, DATA_DIR=str(tmp_path)), 80)[1]
