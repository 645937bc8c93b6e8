"""`watch`: on a terminal it is the screen, off one a line per change; it is never silently old, and leaves no mess."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from unittest.mock import Mock

import msgspec
import pytest
import redis

from schemas.screen import Snapshot
from schemas.vocabulary import START, Position
from services.cli.picture import Health, Look, State
from services.cli.watch import _follow, _Lines, _Room
from services.control_room.export import Filters
from services.control_room.room import RoomSide
from services.runtime.ending import end
from services.runtime.settings import read_settings
from tests import given, projectors
from tests.servers import OwnServer
from tests.services.cli.conftest import Cli, Outcome, assert_refused, count, environ, record, started
from tests.waiting import wait_for

HOME = b"\x1b[H"
NOON = datetime(2024, 3, 14, 12, tzinfo=UTC)
RESTORED = b"\x1b[?25h\x1b[?1049l"  # the cursor is shown again, and what was there before the picture


class Terminal:
    """A terminal with `watch` on it, and what it has got so far."""

    def __init__(self, ours: int, running: subprocess.Popen[bytes], columns: int, rows: int) -> None:
        self._ours = ours
        self._has_more = select.poll()
        self._has_more.register(ours, select.POLLIN)
        self.running = running
        self.got = b""
        self._size = columns, rows

    def resize(self, columns: int, rows: int) -> None:
        """Give it another size, as somebody who drags its corner."""
        self._size = columns, rows
        _resize(self._ours, columns, rows)

    def read(self) -> bytes:
        """Take in what has come; return all of it."""
        while self._has_more.poll(0):
            try:
                some = os.read(self._ours, 65_536)
            except OSError:  # so a terminal says that nobody has it open any more
                break
            if not some:
                break
            self.got += some
        return self.got

    def picture(self) -> list[str]:
        """Return the lines of the last picture that is whole and has the terminal's size, if there is one."""
        columns, rows = self._size
        for drawn in reversed(self.read().split(HOME)[1:]):
            lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.decode(errors="replace")).replace("\r", "").split("\n")
            if rows == len(lines) and columns == len(lines[-1]):
                return [line.rstrip() for line in lines]
        return []

    def shows(self, *texts: str) -> list[str]:
        """Wait for a picture with all these texts in it, whatever blanks are between words; return it."""

        def shown() -> list[str]:
            lines = self.picture()
            whole = " ".join(" ".join(lines).split())
            return lines if all(text in whole for text in texts) else []

        try:
            return wait_for(shown, within_s=25, what=f"a picture with {texts}")
        except AssertionError:
            raise AssertionError(f"no {texts} in\n" + "\n".join(self.picture())) from None

    def figures(self, measure: str) -> list[int]:
        """Return the numbers beside a measure in the last picture."""
        line = next((line for line in self.picture() if line.startswith(f"{measure} ")), "")
        return [int(word.replace(",", "")) for word in line.split() if word[0].isdigit()]

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """End it; return its exit code."""
        self.running.send_signal(number)
        wait_for(lambda: (self.read(), self.running.poll())[1] is not None, what="the end")
        self.read()
        code = self.running.poll()
        assert code is not None
        return code


@contextmanager
def terminal(env: Mapping[str, str], *args: str, columns: int = 80, rows: int = 24, **more: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    _resize(theirs, columns, rows)
    own = {name: text for name, text in env.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    own |= {"TERM": "xterm-256color"} | more
    try:
        with started(["watch", *args], own, stdin=theirs, stdout=theirs, stderr=theirs) as running:
            os.close(theirs)
            yield Terminal(ours, running, columns, rows)
    finally:
        os.close(ours)


def _resize(descriptor: int, columns: int, rows: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@pytest.fixture
def counted(client: redis.Redis, server_url: str, prefix: str) -> dict[str, str]:
    """Have some reports of both sides counted; return the environment of who watches."""
    record(
        client,
        prefix,
        {
            "SI": [
                given.operation_opened(id=1),
                given.apprehension(id=2, subject=given.OPERATION, persons={"SYR": 400}),
                given.smuggler_arrest(id=3, smugglers={"UKR": 2}),
            ],
            "HR": [given.apprehension(id=4, side="HR", persons={"AFG": 3})],
        },
    )
    count(server_url, prefix)
    return environ(server_url, prefix)


def report_another(client: redis.Redis, url: str, prefix: str, persons: int = 30) -> None:
    record(client, prefix, {"SI": [given.apprehension(id=9, persons={"SYR": persons})]})
    count(url, prefix)


# On a terminal


def test_a_change_appears_in_the_picture(
    counted: dict[str, str], client: redis.Redis, server_url: str, prefix: str
) -> None:
    with terminal(counted) as screen:
        screen.shows("● LIVE", "403 400 3 persons apprehended")
        assert [2, 2, 0] == screen.figures("smugglers")
        report_another(client, server_url, prefix)
        wait_for(lambda: [433, 430, 3] == screen.figures("persons"), what="the new sum")
        standing = projectors.stored(client, prefix, "SI")
        screen.shows(f"SI as of {standing.position} at ")


def test_an_age_grows_without_any_change(counted: dict[str, str]) -> None:
    with terminal(counted) as screen:
        first = re.findall(r"heard (\d+) s ago", "\n".join(screen.shows(" s ago · projector", "heard ")))[0]
        wait_for(
            lambda: int(re.findall(r"heard (\d+) s ago", "\n".join(screen.picture()))[0]) >= int(first) + 2,
            what="an age that grows",
        )


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (60, 20), (200, 50)])
def test_the_picture_fills_terminals_of_any_size(counted: dict[str, str], columns: int, rows: int) -> None:
    with terminal(counted, columns=columns, rows=rows) as screen:
        lines = screen.shows("● LIVE", "SYR Syria", "persons arrested")
        assert "digest" == lines[-1].split()[0]
        screen.resize(100, 30)
        assert "digest" == screen.shows("● LIVE", "SYR Syria")[-1].split()[0]
        assert 130 == screen.end()


def test_it_says_that_the_server_is_away_and_goes_on_when_it_is_back(fresh_server: OwnServer, prefix: str) -> None:
    """The picture stays, with its age, and no log line gets into it."""
    with fresh_server.client() as client:
        record(client, prefix, {"SI": [given.apprehension(id=1, persons={"SYR": 400})]})
        count(fresh_server.url, prefix)
        with terminal(environ(fresh_server.url, prefix)) as screen:
            screen.shows("● LIVE", "400 400 0")
            fresh_server.kill()
            screen.shows("● LIVE", "△ cannot reach", "400 400 0")
            screen.shows("◐ DELAYED", "the server was last seen at", "projector not known", "400 400 0")
            fresh_server.start()
            assert "△" not in "\n".join(screen.shows("● LIVE", "0 entries behind"))
            record(client, prefix, {"SI": [given.apprehension(id=2, persons={"SYR": 30})]})
            count(fresh_server.url, prefix)
            screen.shows("430 430 0")
            assert 130 == screen.end()
            assert b"server_away" not in screen.got
            assert b"waiting" not in screen.got


def test_the_projector_that_is_behind_is_seen(counted: dict[str, str], client: redis.Redis, prefix: str) -> None:
    with terminal(counted) as screen:
        screen.shows("projector 0 entries behind")
        record(client, prefix, {"HR": [given.apprehension(id=9, side="HR")]})
        screen.shows("projector 1 entry behind, ", "403 400 3")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0), (signal.SIGHUP, 0)], ids=str)
def test_it_leaves_the_terminal_as_it_was(counted: dict[str, str], number: signal.Signals, code: int) -> None:
    with terminal(counted) as screen:
        screen.shows("● LIVE")
        assert code == screen.end(number)
        _, restored, after = screen.got.rpartition(RESTORED)
        assert (RESTORED, b"") == (restored, after.strip())


def test_ctrl_c_is_heard_while_the_server_is_away(fresh_server: OwnServer, prefix: str) -> None:
    with terminal(environ(fresh_server.url, prefix)) as screen:
        screen.shows("● LIVE", "nothing counted yet")
        fresh_server.kill()
        screen.shows("△ cannot reach")
        assert 130 == screen.end()
        assert b"" == screen.got.rpartition(RESTORED)[2].strip()


def test_without_colours_everything_is_said_in_words(counted: dict[str, str]) -> None:
    with terminal(counted, NO_COLOR="1") as screen:
        screen.shows("● LIVE")
        assert 130 == screen.end()
        codes = {code for found in re.findall(rb"\x1b\[([0-9;]*)m", screen.got) for code in found.split(b";")}
        assert codes <= {b"", b"0", b"1", b"2", b"4"}, codes


def test_a_terminal_that_cannot_draw_gets_lines(counted: dict[str, str]) -> None:
    with terminal(counted, TERM="dumb") as screen:
        wait_for(lambda: b"persons 400 " in screen.read(), what="a line")
        assert 130 == screen.end()
        assert b"\x1b" not in screen.got


# Off a terminal


def test_off_a_terminal_each_change_is_a_line(
    counted: dict[str, str], client: redis.Redis, server_url: str, prefix: str
) -> None:
    with started(["watch"], counted, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout
        first = running.stdout.readline().decode().split("   ")
        report_another(client, server_url, prefix)
        second = running.stdout.readline().decode().split("   ")
        running.send_signal(signal.SIGINT)
        rest, said = running.communicate(timeout=30)
        assert (130, b"", b"") == (running.returncode, rest, said)
    assert ["LIVE", "LIVE"] == [first[1], second[1]]
    assert "SI persons 400 smugglers 2 smuggling_cases 1 smuggled_persons 0 remanded 0 at " in first[2]
    assert "SI persons 430 smugglers 2 " in second[2]
    assert first[3] == second[3]
    assert datetime.fromisoformat(first[0]) <= datetime.fromisoformat(second[0])


def test_as_json_each_change_is_a_snapshot(
    counted: dict[str, str], client: redis.Redis, server_url: str, prefix: str
) -> None:
    with started(["watch", "--format", "json"], counted, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout

        first = msgspec.json.decode(running.stdout.readline(), type=Snapshot)
        assert [400, 3] == [
            sum(count for name, count in side.cells.items() if "|persons|" in name) for side in first.sides
        ]
        report_another(client, server_url, prefix)
        standing = projectors.stored(client, prefix, "SI")
        for line in running.stdout:  # the tallies come at once, what a look at the server tells within a second
            snapshot = msgspec.json.decode(line, type=Snapshot)
            si = snapshot.sides[0]
            known = (si.position, si.entries, si.lag, max(device.highest for device in si.devices))
            if known == (standing.position, standing.entries, 0, 9):
                break
        assert standing.tallies == si.cells
        assert first.sides[1].cells == snapshot.sides[1].cells
        assert f"digest {snapshot.digest}" in cli_tallies(counted)
        record(client, prefix, {"HR": [given.apprehension(id=9, side="HR")]})
        uncounted = msgspec.json.decode(running.stdout.readline(), type=Snapshot).sides[1]
        assert (1, first.sides[1].cells) == (uncounted.lag, uncounted.cells)


def cli_tallies(env: dict[str, str]) -> str:
    with started(["tallies"], env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
        return running.communicate(timeout=30)[1].decode()


def test_a_reader_that_has_enough_ends_it(
    counted: dict[str, str], client: redis.Redis, server_url: str, prefix: str
) -> None:
    with started(["watch"], counted, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout
        assert running.stderr
        assert running.stdout.readline()
        running.stdout.close()
        report_another(client, server_url, prefix)
        assert (0, b"") == (running.wait(30), running.stderr.read())


def test_a_change_is_not_left_to_the_next_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.cli.watch.TICK_S", 3_600.0)
    sides = [room_side(0), room_side(0)]
    rooms = _Room(sides, Filters())

    async def follow() -> int:
        shown = asyncio.Queue[Look]()
        following = asyncio.create_task(_follow(rooms, shown.put_nowait))
        await asyncio.wait_for(shown.get(), 10)
        told = [
            tell
            for side in sides
            for tell in (
                partial(side.on_change, Mock(), START), partial(side.on_side, Mock()), partial(side.on_reset, "too-old")
            )
        ]  # fmt: skip
        for tell in told:
            tell()
            await asyncio.wait_for(shown.get(), 10)
        await end(following)
        return len(told)

    assert 6 == asyncio.run(follow())


def test_the_side_that_was_seen_longest_ago_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.cli.watch.now", lambda: NOON)
    assert "LIVE" == _Room([room_side(1), room_side(1)], Filters()).look().health.state
    for ages in ((12, 1), (1, 12)):
        assert "DELAYED" == _Room([room_side(age) for age in ages], Filters()).look().health.state


def room_side(unseen_s: float) -> RoomSide:
    """Return a side that was seen so long before noon."""
    settings = read_settings({}).sides[0]
    side = RoomSide(settings, Mock(), Mock(), Mock(), lambda: NOON)
    side.looked = NOON - timedelta(seconds=unseen_s)
    return side


def test_a_state_is_said_once_beside_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A snapshot has no place for it."""
    snapshot = Snapshot(view="live", now=datetime(2024, 3, 14, tzinfo=UTC), id="", digest="", fold_version=1, sides=())
    states: list[tuple[State, tuple[str, ...]]] = [
        ("LIVE", ()),
        ("LIVE", ("cannot reach it",)),
        ("DELAYED", ("old", "cannot reach it")),
        ("DELAYED", ("older", "cannot reach it")),
        ("LIVE", ()),
    ]
    lines = _Lines(lambda look: f"{look.snapshot.now}", lambda _: 1)
    for seconds, (state, causes) in enumerate(states):
        at = snapshot.now + timedelta(seconds=seconds)
        lines(Look(msgspec.structs.replace(snapshot, now=at), {}, Health(state, 0.0, causes)))
    outcome = capsys.readouterr()
    assert f"{snapshot.now}\n" == outcome.out
    assert ["DELAYED: old; cannot reach it", "LIVE"] == outcome.err.splitlines()


# Once


def once(cli: Cli, *args: str, **settings: str) -> Outcome:
    outcome = cli("watch", "--once", *args, **settings)
    assert (0, "") == (outcome.code, outcome.err)
    return outcome


@pytest.mark.usefixtures("counted")
def test_once_it_prints_the_picture_in_full_length(cli: Cli) -> None:
    lines = once(cli).out.splitlines()
    assert lines[0].startswith(" ● LIVE  server seen 0 s ago · projector 0 entries behind")
    assert any("persons 403 400 3 persons apprehended" == " ".join(line.split()) for line in lines)
    assert any(line.startswith("SYR Syria") for line in lines)
    assert any("1 case, 2 smugglers (2 UKR)" in line for line in lines)
    assert lines[-1].startswith("digest ")
    assert not any("\x1b" in line or line != line.rstrip() for line in lines)


@pytest.mark.usefixtures("counted")
def test_the_selectors_choose_what_is_shown(cli: Cli) -> None:
    def persons(*args: str) -> list[str]:
        found = next(line for line in once(cli, *args).out.splitlines() if line.startswith("persons "))
        return found.split()[1:-2]

    assert ["403", "400", "3"] == persons()
    assert ["3"] == persons("--side", "HR")
    assert ["403", "400", "3"] == persons("--side", "HR", "--side", "SI", "--side", "HR")
    assert ["400", "400", "0"] == persons("--operation", given.OPERATION)
    assert ["3", "0", "3"] == persons("--operation", "")
    assert ["403", "400", "3"] == persons("--from", "2024-03-14", "--to", "2024-03-14")
    assert ["0", "0", "0"] == persons("--from", "2024-03-15")


@pytest.mark.usefixtures("counted")
def test_once_as_json_it_is_one_snapshot(cli: Cli, client: redis.Redis, prefix: str) -> None:
    (line,) = once(cli, "--format", "json", "--side", "SI").out.splitlines()
    snapshot = msgspec.json.decode(line, type=Snapshot)
    standing = projectors.stored(client, prefix, "SI")
    (side,) = snapshot.sides
    assert (standing.tallies, standing.position) == (side.cells, side.position)
    assert (Position(standing.position), side.digest) == (snapshot.id, snapshot.digest)
    chosen = msgspec.json.decode(once(cli, "--format", "json", "--operation", given.OPERATION).out, type=Snapshot)
    assert ["2024-03-14"] == sorted({name.split("|")[3] for name in chosen.sides[0].cells})
    assert {given.OPERATION} == {name.split("|")[1] for one in chosen.sides for name in one.cells}


# What is wrong


@pytest.mark.parametrize("args", [[], ["--once"], ["--format", "json"]])
def test_a_server_that_cannot_be_reached_at_the_start_is_code_3(cli: Cli, args: list[str]) -> None:
    assert_refused(cli("watch", *args, url="unix:///nowhere/valkey.sock"), 3, "cannot reach unix:///nowhere")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--side", "XX"], ["no side 'XX'", "SI, HR"]),
        (["--operation", "a b"], ["--operation=a b", "1 to 64 characters"]),
        (["--from", "yesterday"], ["--from 'yesterday'", "a date such as"]),
        (["--from", "2024-03-15", "--to", "2024-03-14"], ["--from 2024-03-15 lies after --to 2024-03-14"]),
        (["--format", "csv"], ["'--format': 'csv'", "'table', 'json'"]),
    ],
)
def test_a_wrong_option_is_named(cli: Cli, args: list[str], said: list[str]) -> None:
    assert_refused(cli("watch", *args), 2, *said)
