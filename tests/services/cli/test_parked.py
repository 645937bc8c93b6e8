"""`parked` lists what was set aside, and shows each entry with its reason in words and its content made harmless."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from services.cli.parked import IN_WORDS
from tests import given
from tests.services.cli.conftest import Cli, count, told

AT = "cli-parked"
HOSTILE = b'{"note":"\x1b[2J' + "č".encode() + b'\xff"}'
FIRST = given.apprehension(id=1, persons={"SYR": 1})
CONFLICT = given.apprehension(id=1, persons={"SYR": 2})
UNKNOWN = given.as_json(given.document("apprehension", {}, id=2) | {"type": "org.fieldtally.apprehension.v9"})
STRANGER = given.apprehension(side="HR", id=3)

ENTRIES = [
    ("SI", "5-0", {b"event": FIRST}),
    ("SI", "6-0", {b"event": CONFLICT}),
    ("SI", "7-0", {b"event": HOSTILE, b"by": b"SI-MP-07\x1b[31m"}),
    ("SI", "10-0", {b"event": UNKNOWN}),
    ("SI", "11-0", {b"payload": b"x"}),
    ("HR", "7-0", {b"event": FIRST}),
    ("HR", "12-0", {b"event": STRANGER}),
]
EXPECTED = [
    ("SI", "6-0", "conflict", "revision 0 of this report stands at 5-0 with other content"),
    ("SI", "7-0", "malformed", "JSON is malformed"),
    ("SI", "10-0", "unknown-type", "knows `apprehension` up to v1"),
    ("SI", "11-0", "malformed", "the entry has no field `event`"),
    ("HR", "7-0", "wrong-side", "an event of side SI in the log of HR"),
]


@pytest.fixture(scope="module", autouse=True)
def _log(server_url: str) -> Iterator[None]:
    with told(server_url, AT, {}, projected=False) as client:
        if known := client.keys(f"{{{AT}:*"):  # set up here before: workers take tests from each other
            client.delete(*known)
        for side, position, fields in ENTRIES:
            client.xadd(f"{{{AT}:{side}}}:log", fields, id=position)
        count(server_url, AT)
        yield


def test_the_list_has_side_position_reason_and_detail_in_the_order_of_the_log(cli: Cli) -> None:
    rows = cli("parked", "list", "--format", "json", at=AT).json
    assert len(EXPECTED) == len(rows)
    for (side, position, reason, detail), row in zip(EXPECTED, rows, strict=True):
        assert ["side", "position", "reason", "detail"] == list(row)
        assert (side, position, reason) == (row["side"], row["position"], row["reason"])
        assert detail in row["detail"]


def test_all_formats_hold_the_same_rows(cli: Cli) -> None:
    rows = cli("parked", "list", "--format", "json", at=AT).json
    assert rows == cli("parked", "list", "--format", "ndjson", at=AT).ndjson
    assert rows == cli("parked", "list", "--format", "csv", at=AT).csv
    shown = cli("parked", "list", at=AT).table
    assert ["side", "position", "reason", "detail"] == shown[1]
    assert [list(row.values()) for row in rows] == shown[2:]


def test_nothing_parked_is_said(cli: Cli) -> None:
    assert (0, "parked entries: nothing\n", "") == cli("parked", "list")
    assert [] == cli("parked", "list", "--format", "json").json


@pytest.mark.parametrize(("side", "position", "reason", "detail"), EXPECTED)
def test_an_entry_is_shown_with_its_reason_in_words(
    cli: Cli, side: str, position: str, reason: str, detail: str
) -> None:
    outcome = cli("parked", "show", position, "--side", side, at=AT)
    assert (0, "") == (outcome.code, outcome.err)
    lines = outcome.out.splitlines()
    assert f"{side} {position}: {reason}" == lines[0]
    assert f"  {IN_WORDS[reason]}" == lines[1]  # type: ignore[index]  # one of the four
    assert detail in lines[2]
    assert "digest of its bytes (BLAKE2b-128): " in lines[3]


def test_the_words_for_the_reasons_are_these(cli: Cli) -> None:
    said = {
        reason: cli("parked", "show", position, "--side", side, at=AT).out for side, position, reason, _ in EXPECTED
    }
    assert "breaks a rule of its event type" in said["malformed"]
    assert "a type that this program does not know" in said["unknown-type"]
    assert "in the log of a side that it does not belong to" in said["wrong-side"]
    assert "at the same revision, with other content; the first one stands" in said["conflict"]


def test_the_content_cannot_steer_the_terminal(cli: Cli) -> None:
    shown = cli("parked", "show", "7-0", "--side", "SI", at=AT).out
    assert shown.replace("\n", "").isprintable()
    assert shown.isascii()
    assert r"""content: '{"note":"\x1b[2J\u010d\ufffd"}'""" in shown
    assert r"written by: 'SI-MP-07\x1b[31m'" in shown


def test_a_direct_write_is_called_that(cli: Cli) -> None:
    assert "written by: not recorded" in cli("parked", "show", "6-0", at=AT).out


def test_the_same_position_on_two_sides_is_shown_twice(cli: Cli) -> None:
    shown = cli("parked", "show", "7-0", at=AT).out
    assert ["SI 7-0: malformed", "HR 7-0: wrong-side"] == [line for line in shown.splitlines() if line[0] != " "]


def test_an_entry_that_was_counted_is_not_parked(cli: Cli) -> None:
    outcome = cli("parked", "show", "5-0", at=AT)
    assert (2, "") == (outcome.code, outcome.out)
    assert "no entry is parked at '5-0'" in outcome.err


def test_nothing_that_was_written_moves_the_cursor_of_a_terminal(cli: Cli, client: redis.Redis, prefix: str) -> None:
    """Also where somebody wrote to the derived state itself."""
    row = '{"reason":"malformed","detail":"\\u001b[31mred\\nline","digest":""}'
    client.hset(f"{{{prefix}:SI}}:g1:parked", "1-0", row)
    client.xadd(f"{{{prefix}:SI}}:log", {"event": b"x"}, id="1-0")
    for printed in (cli("parked", "list").out, cli("parked", "show", "1-0").out, cli("events").out):
        assert printed.replace("\n", "").isprintable()
    assert "\ufffd[31mred\ufffdline" in cli("parked", "list").out


def test_fields_that_do_not_belong_there_are_shown(cli: Cli, client: redis.Redis, server_url: str, prefix: str) -> None:
    client.xadd(f"{{{prefix}:SI}}:log", {b"event": FIRST, b"extra\n": b"1\x1b"}, id="1-0")
    client.xadd(f"{{{prefix}:SI}}:log", {b"foo": b"bar"}, id="2-0")
    count(server_url, prefix)
    assert r"  also a field 'extra\n': '1\x1b'" in cli("parked", "show", "1-0").out.splitlines()
    assert "  also a field 'foo': 'bar'" in cli("parked", "show", "2-0").out.splitlines()
