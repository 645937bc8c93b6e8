"""`replay --as-of` shows what the tallies were then: at a position, in the middle of one, or at a time of receipt."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
import redis

from tests import given
from tests.services.cli.conftest import Cli, assert_refused, told

AT = "cli-replay"
NOON = int(datetime(2024, 3, 14, 12, 0, tzinfo=UTC).timestamp() * 1000)
# Received at: just before noon, twice in noon's millisecond, just after.
POSITIONS = (f"{NOON - 1}-7", f"{NOON}-0", f"{NOON}-1", f"{NOON + 1}-0")


@pytest.fixture(scope="module", autouse=True)
def _log(server_url: str) -> Iterator[None]:
    with told(server_url, AT, {}, projected=False) as client:
        for number, position in enumerate(POSITIONS):
            event = given.apprehension(id=number + 1, persons={"SYR": 10**number})
            client.xadd(f"{{{AT}:SI}}:log", {b"event": event}, id=position)
        yield


def persons(cli: Cli, *args: str, command: str = "replay") -> int:
    rows = cli(command, "--by", "side", "--where", "measure=persons", *args, "--format", "json", at=AT).json
    return sum(row["count"] for row in rows)


@pytest.mark.parametrize(
    ("as_of", "expected"),
    [
        ("0-0", 0),
        (f"{NOON - 1}-6", 0),
        (f"{NOON - 1}-7", 1),
        (f"{NOON - 1}", 1),
        (f"{NOON}-0", 11),
        (f"{NOON}-1", 111),
        (f"{NOON}-2", 111),
        (f"{NOON}", 111),
        ("2024-03-14T11:59:59.998Z", 0),
        ("2024-03-14T11:59:59.999Z", 1),
        ("2024-03-14T12:00:00Z", 111),
        ("2024-03-14T12:00:00.000999Z", 111),
        ("2024-03-14T13:00:00+01:00", 111),
        ("2024-03-14 13:00:00.001+01:00", 1_111),
        ("2024-03-14T12:00:00+01:00", 0),
        ("1969-12-31T23:59:59Z", 0),
        ("9999-12-31T23:59:59Z", 1_111),
    ],
)
def test_as_of_includes_what_was_received_by_then(cli: Cli, as_of: str, expected: int) -> None:
    assert expected == persons(cli, "--as-of", as_of)
    assert expected == persons(cli, "--as-of", as_of, command="tallies")


def test_without_as_of_it_is_the_whole_log(cli: Cli) -> None:
    assert 1_111 == persons(cli)


def test_every_offset_means_the_same_moment(cli: Cli) -> None:
    noon = datetime(2024, 3, 14, 12, 0, tzinfo=UTC)
    for hours in (-11, 0, 5.5, 14):
        there = noon.astimezone(timezone(timedelta(hours=hours)))
        assert 111 == persons(cli, "--as-of", there.isoformat())


def test_the_position_reached_is_said(cli: Cli) -> None:
    assert f"as of SI {NOON}-0, HR 0-0;" in cli("replay", "--as-of", f"{NOON}-0", at=AT).err


def test_a_log_that_has_lost_entries_is_refused_with_exit_code_4(cli: Cli, client: redis.Redis, prefix: str) -> None:
    key = f"{{{prefix}:SI}}:log"
    for number in range(1, 4):
        client.xadd(key, {b"event": given.apprehension(id=number)})
    client.xtrim(key, maxlen=2, approximate=False)
    for command in ("replay", "audit"):
        assert_refused(cli(command), 4, "the log of side SI has lost entries", "1 of the 3", "restore the log")
