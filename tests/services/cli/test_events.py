"""`events` reads the log of all sides in the order of receipt, whole events in every format but the table."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from services.cli import events as reading
from tests import given
from tests.services.cli.conftest import Cli, environ, started, told

AT = "cli-events"
NOON = 1_710_417_600_000  # 2024-03-14T12:00:00Z
FIRST = given.apprehension(id=1, subject=given.OPERATION, reportno=1_118)
PRETTY = json.dumps(json.loads(given.nil_report(id=2)), indent=1).encode()
STRANGER = given.nil_report(side="HR", id=3, section="joint-sections")
HOSTILE = b"\x1b[2J\xff\n"

ENTRIES = [
    ("SI", f"{NOON}-0", {b"event": FIRST, b"by": b"SI-MP-07"}),
    ("HR", f"{NOON}-1", {b"event": STRANGER}),
    ("SI", f"{NOON}-1", {b"event": PRETTY}),
    ("HR", f"{NOON + 1}-0", {b"event": HOSTILE}),
    ("SI", f"{NOON + 1}-1", {b"event": FIRST, b"extra": b"x"}),
]
ORDER = [f"{NOON}-0", f"{NOON}-1", f"{NOON}-1", f"{NOON + 1}-0", f"{NOON + 1}-1"]


@pytest.fixture(scope="module", autouse=True)
def _log(server_url: str) -> Iterator[None]:
    with told(server_url, AT, {}, projected=False) as client:
        for side, position, fields in ENTRIES:
            client.xadd(f"{{{AT}:{side}}}:log", fields, id=position)
        yield


def rows(cli: Cli, *args: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cli("events", *args, "--format", "json", at=AT).json
    return found


def test_json_has_the_whole_events_in_the_order_of_receipt(cli: Cli) -> None:
    found = sorted(rows(cli), key=lambda row: (ORDER.index(row["position"]), row["side"]))
    assert ORDER == [row["position"] for row in rows(cli)]
    assert [
        {"position": f"{NOON}-0", "side": "SI", "by": "SI-MP-07", "event": json.loads(FIRST)},
        {"position": f"{NOON}-1", "side": "HR", "event": json.loads(STRANGER)},
        {"position": f"{NOON}-1", "side": "SI", "event": json.loads(PRETTY)},
    ] == found[:3]
    assert ["position", "side", "problem", "raw"] == list(found[3])
    assert "\x1b[2J\ufffd\n" == found[3]["raw"]
    assert "the entry has a field other than `event` and `by`" in found[4]["problem"]


def test_ndjson_has_one_line_for_an_entry_however_it_was_written(cli: Cli) -> None:
    outcome = cli("events", "--format", "ndjson", at=AT)
    assert (0, "") == (outcome.code, outcome.err)
    assert rows(cli) == outcome.ndjson


def test_csv_has_the_whole_events_too(cli: Cli) -> None:
    found = cli("events", "--format", "csv", at=AT).csv
    assert [
        "position", "side", "type", "operation", "source", "reportno", "id", "problem", "event",
    ] == list(found[0])  # fmt: skip
    assert {
        "position": f"{NOON}-0", "side": "SI", "type": "apprehension.v1", "operation": given.OPERATION,
        "source": "/SI/SI-MP-07/9f3c2a", "reportno": "1118", "id": given.uid(1), "problem": "",
        "event": FIRST.decode(),
    } == found[0]  # fmt: skip
    for row in found:
        assert bool(row["event"]) != bool(row["problem"])
        if row["event"]:
            assert row["id"] == json.loads(row["event"])["id"]


def test_the_table_is_aligned_and_fits_80_columns(cli: Cli) -> None:
    lines = cli("events", at=AT).out.splitlines()
    assert "position           side  type               operation      device             no" == lines[0]
    assert "1710417600000-0    SI    apprehension       SI-HR-2024-03  SI-MP-07/9f3c2a  1118" == lines[1]
    assert "1710417600001-0    HR    (malformed)" == lines[4]
    assert all(len(line) <= 80 for line in lines)


def test_what_is_no_event_cannot_steer_the_terminal(cli: Cli) -> None:
    for name in ("table", "csv", "json", "ndjson"):
        assert cli("events", "--format", name, at=AT).out.replace("\n", "").isprintable(), name


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--side", "SI"], [0, 2, 4]),
        (["--side", "HR"], [1, 3]),
        (["--limit", "2"], [0, 1]),
        (["--limit", "99"], [0, 1, 2, 3, 4]),
        (["--side", "SI", "--limit", "1"], [0]),
        (["--after", f"{NOON}-0"], [1, 2, 3, 4]),
        (["--after", f"{NOON}"], [3, 4]),
        (["--after", "2024-03-14T12:00:00Z"], [3, 4]),
        (["--after", "2024-03-14T13:00:00.001+01:00"], []),
        (["--after", f"{NOON}-0", "--limit", "1", "--side", "SI"], [2]),
        (["--after", f"{NOON + 1}-18446744073709551615"], []),
        (["--as-of", f"{NOON}-0"], [0]),
        (["--as-of", f"{NOON}"], [0, 1, 2]),
        (["--as-of", "2024-03-14T12:00:00Z"], [0, 1, 2]),
        (["--as-of", "2024-03-13T12:00:00Z"], []),
        (["--after", f"{NOON}-0", "--as-of", f"{NOON}", "--side", "SI"], [2]),
    ],
)  # fmt: skip
def test_side_limit_and_after_choose_entries(cli: Cli, args: list[str], expected: list[int]) -> None:
    assert [ORDER[at] for at in expected] == [row["position"] for row in rows(cli, *args)]


def test_sides_are_merged_beyond_the_first_batch(
    cli: Cli, client: redis.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BATCH", 3)
    with client.pipeline(transaction=False) as pipe:
        for number in range(1, 41):
            side = "SI" if number % 10 < 7 else "HR"
            pipe.xadd(f"{{{prefix}:{side}}}:log", {b"event": b"{}"}, id=f"{number}-0")
        pipe.execute()
    found = cli("events", "--format", "csv").csv
    assert [f"{number}-0" for number in range(1, 41)] == [row["position"] for row in found]


def test_an_empty_log_prints_nothing_that_is_not_there(cli: Cli) -> None:
    assert (0, "events: nothing\n", "") == cli("events")
    assert [] == cli("events", "--format", "json").json


@pytest.mark.parametrize("name", ["ndjson", "table", "csv"])
def test_follow_prints_what_comes_in_while_it_runs(
    client: redis.Redis, server_url: str, prefix: str, name: str
) -> None:
    client.xadd(f"{{{prefix}:SI}}:log", {b"event": FIRST}, id="5-0")
    command = ["events", "--follow", "--format", name, "--limit", "3"]
    with started(command, environ(server_url, prefix), stdout=subprocess.PIPE) as following:
        assert following.stdout
        lines = iter(following.stdout)
        if name != "ndjson":
            next(lines)  # the heading
        assert b"5-0" in next(lines)
        client.xadd(f"{{{prefix}:HR}}:log", {b"event": STRANGER}, id="6-0")
        assert b"6-0" in next(lines)
        assert following.poll() is None
        client.xadd(f"{{{prefix}:SI}}:log", {b"event": PRETTY}, id="7-0")
        assert b"7-0" in next(lines)
        assert 0 == following.wait(20)


def test_an_event_in_the_log_of_another_side_is_marked(cli: Cli, client: redis.Redis, prefix: str) -> None:
    client.xadd(f"{{{prefix}:HR}}:log", {b"event": FIRST}, id="5-0")
    assert "5-0                HR    (wrong-side)" == cli("events").out.splitlines()[1]
    [row] = cli("events", "--format", "json").json
    assert ("an event of side SI in the log of HR", json.loads(FIRST)) == (row["problem"], row["event"])
    [row] = cli("events", "--format", "csv").csv
    assert ("an event of side SI in the log of HR", FIRST.decode()) == (row["problem"], row["event"])
