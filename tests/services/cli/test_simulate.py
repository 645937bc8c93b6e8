"""`simulate` gives equal reports for equal options, in a file or to the log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import redis

from services.simulator.fleet import FleetPlan, fleet
from tests.projectors import log_of
from tests.services.cli.conftest import Cli, Outcome, count

SEED = 7


def test_equal_options_give_equal_bytes(cli: Cli, tmp_path: Path) -> None:
    first, second, other = (tmp_path / name for name in ("first", "second", "other"))
    for file, seed in ((first, SEED), (second, SEED), (other, SEED + 1)):
        assert (0, "", "") == cli("simulate", "--reports", "1200", "--seed", str(seed), "--out", str(file))
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()
    assert 1_200 == len(first.read_bytes().splitlines())


def test_the_options_reach_the_fleet(cli: Cli, tmp_path: Path) -> None:
    options = ["--reports", "300", "--units", "3", "--seed", str(SEED), "--offline", "0.5", "--duplicates", "0.25"]
    cli("simulate", *options, "--out", str(tmp_path / "file"))
    plan = FleetPlan(seed=SEED, units=3, reports=300, offline=0.5, duplicates=0.25)
    assert [submission.event for submission in fleet(plan)] == (tmp_path / "file").read_bytes().splitlines()


def test_no_reports_are_an_empty_file(cli: Cli, tmp_path: Path) -> None:
    assert 0 == cli("simulate", "--reports", "0", "--out", str(tmp_path / "file")).code
    assert b"" == (tmp_path / "file").read_bytes()


def test_a_dash_is_stdout_and_needs_no_server(process: Callable[..., Outcome]) -> None:
    outcome = process("simulate", "--reports", "20", "--seed", str(SEED), "--out", "-", url="redis://127.0.0.1:1")
    assert (0, "") == (outcome.code, outcome.err)
    assert [s.event.decode() for s in fleet(FleetPlan(seed=SEED, reports=20))] == outcome.out.splitlines()


def test_to_the_log_and_through_a_file_give_the_same_tallies(
    cli: Cli, server_url: str, prefix: str, tmp_path: Path
) -> None:
    options = ["simulate", "--reports", "1500", "--seed", str(SEED)]
    assert (0, "", "1,500 reports recorded\n") == cli(*options)
    cli(*options, "--out", str(tmp_path / "file"))
    assert 0 == cli("import", str(tmp_path / "file"), at=f"{prefix}-file").code
    tables = []
    for at in (prefix, f"{prefix}-file"):
        count(server_url, at)
        tables.append(cli("tallies", "--by", "side,operation,section,day,measure,citizenship", at=at).out)
    assert tables[0] == tables[1]
    assert len(tables[0].splitlines()) > 100


def test_a_rate_spreads_the_reports_over_time(cli: Cli, client: redis.Redis, prefix: str) -> None:
    seconds, microseconds = client.time()
    before = seconds * 1_000 + microseconds // 1_000
    assert 0 == cli("simulate", "--reports", "9", "--rate", "40", "--seed", str(SEED)).code
    received = sorted(
        int(position.partition("-")[0]) for side in ("SI", "HR") for position, _ in log_of(client, prefix, side)
    )
    assert 9 == len(received)
    # Eight pauses of 25 ms lie before the last. From before the start: the first may have been held up on its way.
    assert 200 <= received[-1] - before
