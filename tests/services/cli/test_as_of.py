"""`--as-of` takes what every output prints as its position, and what the screen takes: equal places, equal digests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random
from typing import Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from schemas.vocabulary import LAST_SEQUENCE, Position, Side, order
from services.control_room.past import read_at
from services.control_room.streams import write_id
from services.runtime.stops import read_stops
from services.statistics.render import Stand
from tests import given
from tests.services.cli.conftest import Cli, assert_refused, count, told

AT = "cli-as-of"
SEED = 20240313
BOTH = (Side("SI"), Side("HR"))
FIRST_MS = 1_710_385_929_000
NOW = datetime(2024, 3, 14, 12, 30, tzinfo=UTC)
ZONE = ZoneInfo("Europe/Ljubljana")
NAMED = re.compile(r"SI (\d+-\d+), HR (\d+-\d+)")
DIGEST = re.compile(r"digest:? ([0-9a-f]{64})")

positions = st.builds("{}-{}".format, st.integers(0, LAST_SEQUENCE), st.integers(0, LAST_SEQUENCE)).map(Position)


@pytest.fixture(scope="module", autouse=True)
def _log(server_url: str) -> Iterator[None]:
    """Two logs of which neither position says where the other stands: entries close to one another, in bursts."""
    random = Random(SEED)
    with told(server_url, AT, {}, projected=False) as client:
        for side, entries in given.seeded_log(SEED, 60).items():
            at, sequence = FIRST_MS, 0
            for fields in entries:
                step = random.choice((0, 0, 1, 2, 5))
                at, sequence = at + step, 0 if step else sequence + 1
                client.xadd(f"{{{AT}:{side}}}:log", {**fields}, id=f"{at}-{sequence}")
        count(server_url, AT)
        yield


@for_all(positions, positions)
def test_every_way_to_print_positions_is_read_back(si: Position, hr: Position) -> None:
    at = dict(zip(BOTH, (si, hr), strict=True))
    as_commands = ", ".join(f"{side} {position}" for side, position in at.items())
    as_rows = ",".join(f"{side}:{position}" for side, position in reversed(at.items()))
    for text in (as_commands, as_rows, write_id(at, BOTH), Stand(at, "", 1).of("_T")):
        stops = read_stops(text, BOTH, ZONE, NOW)
        assert stops
        assert (at, "positions") == stops
        assert at == read_at(text, BOTH, ZONE, NOW), "the screen takes it as well"
    for side, position in at.items():
        for text in (f"{side}:{position}", f"{side} {position}"):
            stops = read_stops(text, BOTH, ZONE, NOW)
            assert stops
            assert stops.at[side] == position
            [other] = set(BOTH) - {side}
            assert stops.at[other] == f"{order(position)[0]}-{LAST_SEQUENCE}"
        assert ({side: position}, "positions") == read_stops(f"{side} {position}", (side,), ZONE, NOW)


@pytest.mark.parametrize("number", range(5))
def test_what_was_printed_with_a_digest_gives_that_digest(cli: Cli, number: int) -> None:
    random = Random(SEED + number)
    pair = [f"{FIRST_MS + random.randrange(80)}-{random.randrange(3)}" for _ in BOTH]
    first = cli("replay", "--as-of", f"SI:{pair[0]},HR:{pair[1]}", "--format", "csv", at=AT)
    (printed,), (digest,) = NAMED.finditer(first.err), DIGEST.findall(first.err)
    for text in (printed[0], f"SI:{printed[1]},HR:{printed[2]}"):
        for command in ("replay", "tallies"):
            again = cli(command, "--as-of", text, "--format", "csv", at=AT)
            assert (first.out, digest) == (again.out, DIGEST.findall(again.err)[0]), f"seed {SEED + number}"
            assert printed[0] in again.err
        assert digest == cli("audit", "--as-of", text, "--format", "json", at=AT).json["digest"]
        assert digest == cli("stats", "months", "--as-of", text, "--format", "json", at=AT).json["digest"]
        rows = cli("sql", "SELECT sum(count) AS n FROM tallies WHERE measure = 'persons'", "--as-of", text,
                   "--format", "json", at=AT).json  # fmt: skip
        persons = cli("replay", "--by", "measure", "--as-of", text, "--format", "json", at=AT).json
        assert (rows[0]["n"] or 0) == sum(row["count"] for row in persons if row["measure"] == "persons")


def test_the_live_position_gives_the_live_digest(cli: Cli) -> None:
    live = cli("tallies", at=AT).err
    ((si, hr),) = NAMED.findall(live)
    again = cli("tallies", "--as-of", f"SI {si}, HR {hr}", at=AT).err
    assert live.partition("as of")[2] == again.partition("as of")[2]


def test_events_end_where_each_side_does(cli: Cli) -> None:
    at = {"SI": f"{FIRST_MS + 20}-1", "HR": f"{FIRST_MS + 3}-0"}
    text = ",".join(f"{side}:{position}" for side, position in at.items())
    seen = cli("events", "--as-of", text, "--format", "ndjson", at=AT).ndjson
    everything = cli("events", "--format", "ndjson", at=AT).ndjson
    assert seen == [row for row in everything if order(row["position"]) <= order(at[row["side"]])]
    rest = cli("events", "--after", text, "--format", "ndjson", at=AT).ndjson
    assert rest == [row for row in everything if order(row["position"]) > order(at[row["side"]])]
    only = cli("events", "--side", "HR", "--as-of", text, "--format", "ndjson", at=AT).ndjson
    assert only == [row for row in seen if row["side"] == "HR"]


EARLY: Final = ("2001", "2024-02", f"{FIRST_MS - 9}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{FIRST_MS + 9}-0", "names no side: it is taken for each of SI, HR; one for each is SI:…,HR:…"),
        (
            f"SI {FIRST_MS + 9}-0",
            "names no other side: HR up to the end of that millisecond",
        ),
        ("2024-03-14 12:00", "is 2024-03-14T12:00:00+01:00, in Europe/Ljubljana"),
        ("2024-03-14", "is 2024-03-14T23:59:59+01:00, in Europe/Ljubljana"),
        ("2024-03", "is 2024-03-31T23:59:59+02:00, in Europe/Ljubljana"),
        (
            "2001-01-01T00:00:00Z",
            f"by 2001-01-01T01:00:00.000+01:00; its log begins at {FIRST_MS + 5}-0, 2024-03-14T04:12:09.005+01:00",
        ),
        ("2024-02", "side HR: nothing had been recorded by 2024-02-29T23:59:59.999+01:00; its log"),
        (f"{FIRST_MS - 9}-3", f"side SI: nothing had been recorded by {FIRST_MS - 9}-3; its log"),
        ("2099-01-01T00:00:00Z", "2099-01-01T00:00:00Z has not come yet: SI, HR as the log stands now"),
        (f"SI:{FIRST_MS}-9,HR:9999999999999-0", "has not come yet: HR as the log stands now"),
    ],
)
@pytest.mark.parametrize("command", ["replay", "audit", "stats", "events"])
def test_what_is_not_said_in_it_is_said_beside(cli: Cli, command: str, text: str, said: str) -> None:
    outcome = cli(command, "--as-of", text, at=AT)
    nothing_audited = command == "audit" and text.startswith(EARLY)
    assert (2 if nothing_audited else 0) == outcome.code, outcome.err
    assert not nothing_audited or "so nothing was audited" in outcome.err
    assert said in outcome.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("AT:1-0", "there is no side AT; there are SI, HR"),
        ("SI:1-0,AT:1-0", "there is no side AT; there are SI, HR"),
        ("SI:1-0,SI:2-0", "one for each side as printed (SI:…,HR:…)"),
    ],
)
def test_a_side_that_does_not_exist_is_named(cli: Cli, text: str, said: str) -> None:
    assert_refused(cli("replay", "--as-of", text, at=AT), 2, f"--as-of {text!r}", said)


def test_of_three_sides_two_are_too_few(cli: Cli) -> None:
    sides = "SI:Europe/Ljubljana:SVN,HR:Europe/Zagreb:HRV,AT:Europe/Vienna:AUT"
    outcome = cli("replay", "--as-of", "SI:1-0,HR:1-0", at=AT, SIDES=sides)
    assert_refused(outcome, 2, "name one side, or each of them: SI:…,HR:…,AT:…")
