"""`import` gives a result for every line, records the good ones whatever the others hold, and counts each once."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests import given, projectors
from tests.servers import OwnServer
from tests.services.cli.conftest import Cli, Outcome, assert_refused, count, environ, started
from tests.waiting import wait_for

FIRST = given.apprehension(id=1, persons={"SYR": 4})
SECOND = given.apprehension(side="HR", id=2, section="joint-sections", persons={"AFG": 3})
THIRD = given.nil_report(id=3)


def in_log(client: redis.Redis, prefix: str, side: str) -> list[tuple[str, bytes]]:
    return [(position, fields[b"event"]) for position, fields in projectors.log_of(client, prefix, side)]


@pytest.fixture
def written(tmp_path: Path) -> Callable[[bytes], str]:
    def write(content: bytes) -> str:
        (tmp_path / "reports.ndjson").write_bytes(content)
        return str(tmp_path / "reports.ndjson")

    return write


def test_each_line_goes_to_the_log_of_its_side(
    cli: Cli, client: redis.Redis, prefix: str, written: Callable[[bytes], str]
) -> None:
    outcome = cli("import", written(b"\n".join([FIRST, SECOND, THIRD])), "--format", "json")
    si, hr = in_log(client, prefix, "SI"), in_log(client, prefix, "HR")
    assert [FIRST, THIRD] == [event for _, event in si]
    assert [SECOND] == [event for _, event in hr]
    assert [
        {"line": 1, "status": "recorded", "position": si[0][0], "id": given.uid(1), "problem": ""},
        {"line": 2, "status": "recorded", "position": hr[0][0], "id": given.uid(2), "problem": ""},
        {"line": 3, "status": "recorded", "position": si[1][0], "id": given.uid(3), "problem": ""},
    ] == outcome.json
    assert (0, "3 lines: 3 recorded, 0 rejected\n") == (outcome.code, outcome.err)


BAD_LINES = [
    (b"not json", "JSON is malformed"),
    (b"{}", "missing required field `type`"),
    (b"[1, 2]", "Expected `object`, got `array`"),
    (b"null", "Expected `object`, got `null`"),
    (b"\xff\xfe\x00", "JSON is malformed"),
    (given.as_json({"type": "org.fieldtally.patrol.v1"}), "no event type of that name"),
    (FIRST.replace(b'"SYR"', b'"SYX"'), "not one of the allowed values"),
    (FIRST.replace(b'"count":4', b'"count":0'), "Expected `int` >= 1"),
    (FIRST.replace(b'"side":"SI"', b'"side":"HR"'), "`side` is not the side in `source`"),
    (FIRST.replace(b"SI", b"AT"), "side AT has no log here; there are HR, SI"),
    (FIRST[:-1] + b" " * 65_536 + b"}", "longer than 65,536 bytes"),
    (b"a" * 400_000, "longer than 65,536 bytes"),
    (b" " * 400_000 + FIRST, "longer than 65,536 bytes"),
]


@pytest.mark.parametrize(("line", "problem"), BAD_LINES, ids=[problem for _, problem in BAD_LINES])
def test_a_bad_line_is_rejected_by_its_number_and_the_others_are_recorded(
    cli: Cli, client: redis.Redis, prefix: str, written: Callable[[bytes], str], line: bytes, problem: str
) -> None:
    outcome = cli("import", written(b"\n".join([FIRST, line, THIRD]) + b"\n"), "--format", "ndjson")
    assert [(1, "recorded"), (2, "rejected"), (3, "recorded")] == [(r["line"], r["status"]) for r in outcome.ndjson]
    assert problem in outcome.ndjson[1]["problem"]
    assert (1, "3 lines: 2 recorded, 1 rejected\n") == (outcome.code, outcome.err)
    assert [FIRST, THIRD] == [event for _, event in in_log(client, prefix, "SI")]


def test_a_rejected_line_is_named_by_its_id_where_that_can_be_read(cli: Cli, written: Callable[[bytes], str]) -> None:
    outcome = cli("import", written(FIRST.replace(b'"SYR"', b'"SYX"')), "--format", "json")
    assert given.uid(1) == outcome.json[0]["id"]


@pytest.mark.parametrize(
    "content",
    [
        FIRST + b"\n" + THIRD,
        FIRST + b"\r\n" + THIRD + b"\r\n",
        b"\xef\xbb\xbf" + FIRST + b"\n" + THIRD + b"\n",
        b"\xef\xbb\xbf" + FIRST + b"\r\n" + THIRD + b"\r\n",
        b"\n\n  " + FIRST + b"  \n \t \n" + THIRD + b"\n\n",
    ],
    ids=["no newline at the end", "CRLF", "BOM", "BOM and CRLF", "blanks"],
)
def test_editors_may_end_lines_as_they_do(
    cli: Cli, client: redis.Redis, prefix: str, written: Callable[[bytes], str], content: bytes
) -> None:
    outcome = cli("import", written(content))
    assert 0 == outcome.code, outcome.out
    assert [FIRST, THIRD] == [event for _, event in in_log(client, prefix, "SI")]


def test_blank_lines_count_as_lines_and_have_no_result(cli: Cli, written: Callable[[bytes], str]) -> None:
    outcome = cli("import", written(b"\n \n" + FIRST + b"\n\n"), "--format", "json")
    assert [3] == [row["line"] for row in outcome.json]
    assert "4 lines: 1 recorded, 0 rejected, 3 blank\n" == outcome.err


def test_a_mark_of_the_byte_order_within_a_file_is_no_blank(cli: Cli, written: Callable[[bytes], str]) -> None:
    outcome = cli("import", written(FIRST + b"\n\xef\xbb\xbf" + THIRD), "--format", "json")
    assert ["recorded", "rejected"] == [row["status"] for row in outcome.json]


def test_an_empty_file_is_done_at_once(cli: Cli, written: Callable[[bytes], str]) -> None:
    outcome = cli("import", written(b""), "--format", "json")
    assert (0, []) == (outcome.code, outcome.json)
    assert "0 lines: 0 recorded, 0 rejected\n" == outcome.err


def test_a_binary_file_is_rejected_line_by_line(cli: Cli, written: Callable[[bytes], str]) -> None:
    outcome = cli("import", written(bytes(range(256)) * 40), "--format", "json")
    assert 1 == outcome.code
    assert {"rejected"} == {row["status"] for row in outcome.json}


def test_the_same_file_twice_counts_once(
    cli: Cli, server_url: str, prefix: str, client: redis.Redis, written: Callable[[bytes], str]
) -> None:
    file = written(b"\n".join([FIRST, SECOND, THIRD]))
    assert [0, 0] == [cli("import", file).code, cli("import", file).code]
    assert 4 == len(in_log(client, prefix, "SI"))
    count(server_url, prefix)
    rows = cli("tallies", "--by", "side,measure", "--format", "csv").csv
    assert [
        {"side": "HR", "measure": "apprehensions", "count": "1"},
        {"side": "HR", "measure": "persons", "count": "3"},
        {"side": "SI", "measure": "apprehensions", "count": "1"},
        {"side": "SI", "measure": "persons", "count": "4"},
        {"side": "SI", "measure": "nil_reports", "count": "1"},
    ] == rows


def test_all_formats_hold_the_same_results(cli: Cli, written: Callable[[bytes], str]) -> None:
    file = written(FIRST + b"\n\nnonsense\n" + FIRST.replace(b'"SYR"', b'"SYX"'))

    def without_position(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [{name: str(text) for name, text in row.items() if name != "position" and text} for row in rows]

    rows = without_position(cli("import", file, "--format", "json").json)
    assert ["1", "3", "4"] == [row["line"] for row in rows]
    assert rows == without_position(cli("import", file, "--format", "ndjson").ndjson)
    assert rows == without_position(cli("import", file, "--format", "csv").csv)
    table = cli("import", file).table
    assert ["line", "status", "position", "id", "problem"] == table[0]
    assert ["1", "recorded", given.uid(1)] == [part for at, part in enumerate(table[1]) if at != 2]
    assert ["3", "rejected", rows[1]["problem"]] == table[2]
    assert ["4", "rejected", given.uid(1), rows[2]["problem"]] == table[3]


def test_a_table_has_its_columns_below_each_other(cli: Cli, written: Callable[[bytes], str]) -> None:
    lines = cli("import", written(b"\n".join([b"nonsense"] * 10 + [FIRST]))).out.splitlines()
    assert {lines[0].index("status")} == {line.index("re") for line in lines[1:]}
    assert "     10  rejected" == lines[10][:17]


def test_many_chunks_keep_their_numbers(cli: Cli, written: Callable[[bytes], str]) -> None:
    outcome = cli("import", written(b"\n".join([FIRST] * 1_200 + [b"bad"])), "--format", "ndjson")
    assert list(range(1, 1_202)) == [row["line"] for row in outcome.ndjson]
    assert "1,201 lines: 1,200 recorded, 1 rejected\n" == outcome.err


def test_a_file_that_cannot_be_read_is_named(cli: Cli, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.ndjson")
    assert_refused(cli("import", missing), 2, repr(missing), "No such file or directory")
    assert_refused(cli("import", str(tmp_path)), 2, repr(str(tmp_path)), "Is a directory")
    assert_refused(cli("import", ""), 2, "'' is no name of a file")


def test_standard_input_is_a_dash(process: Callable[..., Outcome], client: redis.Redis, prefix: str) -> None:
    outcome = process("import", "-", "--format", "csv", stdin=FIRST + b"\n" + THIRD + b"\n")
    assert 0 == outcome.code, outcome.err
    assert [position for position, _ in in_log(client, prefix, "SI")] == [row["position"] for row in outcome.csv]


def test_a_server_that_fails_is_no_fault_of_the_lines(
    cli: Cli, fresh_server: OwnServer, written: Callable[[bytes], str]
) -> None:
    with fresh_server.client() as client:
        client.config_set("maxmemory", 1)
    outcome = cli("import", written(FIRST + b"\nbad\n" + SECOND), "--format", "json", url=fresh_server.url)
    assert 3 == outcome.code
    assert ["unconfirmed", "rejected", "unconfirmed"] == [row["status"] for row in outcome.json]
    assert "out of memory" in outcome.json[0]["problem"]
    assert "import the file again" in outcome.json[0]["problem"]
    summary, words = outcome.err.splitlines()
    assert "3 lines: 0 recorded, 1 rejected, 2 unconfirmed; the rest was not read" == summary
    assert "out of memory" in words


def test_a_log_of_another_kind_is_exit_code_4(
    cli: Cli, client: redis.Redis, prefix: str, written: Callable[[bytes], str]
) -> None:
    client.set(f"{{{prefix}:SI}}:log", "x")
    outcome = cli("import", written(FIRST), "--format", "json")
    assert (4, ["unconfirmed"]) == (outcome.code, [row["status"] for row in outcome.json])


def test_ctrl_c_leaves_no_line_without_a_result(
    client: redis.Redis, server_url: str, prefix: str, written: Callable[[bytes], str], tmp_path: Path
) -> None:
    file = written(b"\n".join(given.apprehension(id=number) for number in range(1, 40_001)))
    env = environ(server_url, prefix)
    with (tmp_path / "results").open("wb") as results, started(
        ["import", file, "--format", "ndjson"], env, stdout=results, stderr=subprocess.PIPE
    ) as running:  # fmt: skip
        wait_for(lambda: client.xlen(f"{{{prefix}:SI}}:log") > 1_000, what="some lines")
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=30)
    assert 130 == running.returncode, said
    rows = [json.loads(line) for line in (tmp_path / "results").read_bytes().splitlines()]
    assert [position for position, _ in in_log(client, prefix, "SI")] == [row["position"] for row in rows]
    assert "rejected; the rest was not read\ninterrupted: the lines with a result stand" in said.decode()
