"""`rebuild` fills a generation beside the live one, compares them, and swaps and removes generations when told to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import redis

from schemas.vocabulary import order
from services.runtime.errors import UnsoundTalliesError
from tests import given, oracle
from tests.projectors import expected, feed, live, log_of
from tests.services.cli.conftest import Cli, assert_refused, count, record
from tests.services.cli.test_doctor import findings

SEED = 20240313
CELL = "SI||koper|2024-03-14|persons|SYR"


def key(prefix: str, name: str, side: str = "SI") -> str:
    return f"{{{prefix}:{side}}}:{name}"


def cells(client: redis.Redis, prefix: str, side: str = "SI") -> dict[str, int]:
    """Return the live tallies, as they are stored."""
    rows: Any = client.hgetall(key(prefix, f"{live(client, prefix, side)}:tallies", side))
    return {cell.decode(): int(number) for cell, number in rows.items()}


def generations(client: redis.Redis, prefix: str, side: str = "SI") -> set[str]:
    """Return the names of all generations of which anything is there."""
    found: Any = client.keys(key(prefix, "g*", side))
    return {name.decode().split(":")[-2] for name in found}


def by_side(rows: list[dict[str, Any]]) -> Mapping[str, dict[str, Any]]:
    return {row["side"]: row for row in rows}


@pytest.fixture
def counted(client: redis.Redis, server_url: str, prefix: str) -> redis.Redis:
    """Give a client of a server with logs of every outcome, counted."""
    for side, entries in given.seeded_log(SEED, 300).items():
        feed(client, prefix, side, entries)
    count(server_url, prefix)
    return client


# What is filled


def test_the_new_generation_equals_the_live_one_and_the_oracle(cli: Cli, counted: redis.Redis, prefix: str) -> None:
    before = {name: counted.dump(name) for name in counted.keys(f"{{{prefix}:*")}
    outcome = cli("rebuild", "--format", "json")
    assert (0, "") == (outcome.code, outcome.err)
    for side, row in by_side(outcome.json).items():
        ought = expected(log_of(counted, prefix, side), side)
        assert (ought.position, ought.entries) == (row["position"], row["entries"])
        assert oracle.digest(ought.tallies) == row["digest"]
        assert ("g2", "g1", "equal", ought.position, "", [], False) == (
            row["generation"], row["live"], row["verdict"], row["compared_at"], row["problem"], row["differences"],
            row["swapped"],
        )  # fmt: skip
        for name in ("tallies", "index", "amendments", "devices", "operations", "parked", "checkpoint"):
            assert counted.hgetall(key(prefix, f"g1:{name}", side)) == counted.hgetall(key(prefix, f"g2:{name}", side))
    # Neither the live generation nor the feed was touched.
    assert before == {name: counted.dump(name) for name in before}


def test_the_table_says_the_same(cli: Cli, counted: redis.Redis, prefix: str) -> None:
    row = by_side(cli("rebuild", "--format", "json").json)["HR"]
    outcome = cli("rebuild")
    assert 0 == outcome.code
    assert ["side", "generation", "position", "entries", "verdict", "digest"] == outcome.table[1]
    assert ["HR", "g2", row["position"], str(row["entries"]), "equal", row["digest"]] == outcome.table[3]
    assert {"g1", "g2"} == generations(counted, prefix)  # the one that was there already


@pytest.mark.usefixtures("small_turns")
def test_it_goes_on_from_its_own_checkpoint(cli: Cli, counted: redis.Redis, prefix: str, server_url: str) -> None:
    assert 0 == cli("rebuild").code
    old = counted.hget(key(prefix, "g2:checkpoint"), "entries")
    numbers = next(iter(counted.hgetall(key(prefix, "g2:devices")).values()))
    counted.hset(key(prefix, "g2:devices"), "SI-MP-99/shows-that-it-is-the-same", numbers)
    record(counted, prefix, {"SI": [given.apprehension(id=number) for number in range(1, 100)]})
    count(server_url, prefix)
    outcome = cli("rebuild", "--format", "json")
    row = by_side(outcome.json)["SI"]
    assert ("g2", int(old or 0) + 99, "equal") == (row["generation"], row["entries"], row["verdict"])
    assert counted.hexists(key(prefix, "g2:devices"), "SI-MP-99/shows-that-it-is-the-same")


@pytest.mark.parametrize("swap", [(), ("--swap", "--drop")])
def test_what_an_earlier_run_left_is_not_believed_against_the_live_tallies(
    cli: Cli, counted: redis.Redis, prefix: str, swap: tuple[str, ...]
) -> None:
    """Somebody may have changed it since; what is in the log, only the log says."""
    assert 0 == cli("rebuild").code
    right = counted.hgetall(key(prefix, "g1:tallies"))
    counted.hincrby(key(prefix, "g2:tallies"), CELL, 33)
    outcome = cli("rebuild", *swap, "--format", "json")
    assert (0, "equal") == (outcome.code, by_side(outcome.json)["SI"]["verdict"])
    assert right == counted.hgetall(key(prefix, f"{by_side(outcome.json)['SI']['generation']}:tallies"))
    assert 0 == cli("audit").code


def test_a_side_that_cannot_be_rebuilt_has_a_row_too(cli: Cli, counted: redis.Redis, prefix: str) -> None:
    counted.xdel(key(prefix, "log"), counted.xrange(key(prefix, "log"), count=1)[0][0])
    outcome = cli("rebuild", "--format", "json")
    failed = by_side(outcome.json)["SI"]
    assert (4, "failed", False) == (outcome.code, failed["verdict"], failed["swapped"])
    assert "the log of side SI is incomplete" in failed["problem"]
    assert "equal" == by_side(outcome.json)["HR"]["verdict"]


def test_a_swap_goes_to_the_end_of_the_log(cli: Cli, counted: redis.Redis, prefix: str) -> None:
    """Though the live tallies are behind, or were set back by hand."""
    record(counted, prefix, {"SI": [given.apprehension(id=number) for number in (901, 902)]})
    end = counted.xrevrange(key(prefix, "log"), count=1)[0][0].decode()
    row = by_side(cli("rebuild", "--swap", "--format", "json").json)["SI"]
    assert (end, "equal") == (row["position"], row["verdict"])
    assert order(row["compared_at"]) < order(end)
    assert end == counted.hget(key(prefix, "g2:checkpoint"), "position").decode()


@pytest.mark.parametrize(
    ("field", "value"),
    [("fold_version", "99"), ("zone", "Europe/Zagreb"), ("unsound", "HSET failed"), ("entries", "x")],
)
def test_what_was_begun_otherwise_is_not_gone_on_with(
    cli: Cli, counted: redis.Redis, prefix: str, field: str, value: str
) -> None:
    assert 0 == cli("rebuild").code
    counted.hset(key(prefix, "g2:checkpoint"), field, value)
    row = by_side(cli("rebuild", "--format", "json").json)["SI"]
    assert ("g3", "equal") == (row["generation"], row["verdict"])


def test_what_was_live_once_is_not_gone_on_with(cli: Cli, counted: redis.Redis, prefix: str) -> None:
    counted.hincrby(key(prefix, "g1:tallies"), CELL, 7)
    assert 0 == cli("rebuild", "--swap").code
    row = by_side(cli("rebuild", "--format", "json").json)["SI"]
    assert ("g3", "g2", "equal") == (row["generation"], row["live"], row["verdict"])


def test_what_lies_beyond_the_live_checkpoint_is_begun_anew(cli: Cli, counted: redis.Redis, prefix: str) -> None:
    """It could not be compared: tallies are not folded backwards."""
    assert 0 == cli("rebuild").code
    record(counted, prefix, {"SI": [given.apprehension(id=1)]})
    [(beyond, _)] = log_of(counted, prefix, "SI")[-1:]
    counted.hset(key(prefix, "g2:checkpoint"), "position", beyond)
    counted.hincrby(key(prefix, "g2:checkpoint"), "entries", 1)
    row = by_side(cli("rebuild", "--format", "json").json)["SI"]
    assert ("g3", "equal") == (row["generation"], row["verdict"])


def test_it_is_compared_where_the_live_one_stands(cli: Cli, counted: redis.Redis, prefix: str) -> None:
    """Whatever the log holds beyond that."""
    position = counted.hget(key(prefix, "g1:checkpoint"), "position")
    record(counted, prefix, {"SI": [given.apprehension(id=1)]})
    row = by_side(cli("rebuild", "--format", "json").json)["SI"]
    assert position
    assert ("equal", position.decode()) == (row["verdict"], row["position"])


def test_where_nothing_was_recorded_nothing_is_rebuilt(cli: Cli) -> None:
    outcome = cli("rebuild", "--swap", "--drop", "--format", "json")
    assert (2, "") == (outcome.code, outcome.out)
    assert "there is no log or archive here, so nothing was rebuilt" in outcome.err


def test_a_log_that_nobody_has_counted_is_rebuilt_to_its_end(
    cli: Cli, client: redis.Redis, server_url: str, prefix: str
) -> None:
    """There is nothing to compare with, which is not the same as equal."""
    record(client, prefix, {"SI": [given.apprehension(id=number) for number in (1, 2, 3)]})
    outcome = cli("rebuild", "--swap", "--format", "json")
    assert 0 == outcome.code, outcome.err
    found = {row["side"]: (row["entries"], row["verdict"], row["swapped"]) for row in outcome.json}
    assert (3, "nothing to compare with", True) == found["SI"]
    record(client, prefix, {"SI": [given.apprehension(id=4)]})
    count(server_url, prefix)
    audited = cli("audit", "--format", "json")
    assert (0, True) == (audited.code, audited.json["live_equals_rebuilt"])


def test_tallies_that_have_lost_their_checkpoint_are_damaged_and_made_anew(
    cli: Cli, counted: redis.Redis, prefix: str
) -> None:
    """Counting on from the beginning would call every report a duplicate; an empty generation would be a lie."""
    before = counted.hgetall(key(prefix, "g1:tallies"))
    counted.delete(key(prefix, "g1:checkpoint"))
    for args in (("audit",), ("tallies",), ("project", "--until-caught-up")):
        refused = cli(*args)
        assert 4 == refused.code, args
        assert "the tallies of side SI (g1) have lost their checkpoint" in refused.err, args
        assert "fieldtally rebuild --swap" in refused.err
    assert before == counted.hgetall(key(prefix, "g1:tallies"))
    assert 0 == cli("rebuild", "--swap").code
    assert before == counted.hgetall(key(prefix, "g2:tallies"))
    assert 0 == cli("audit").code


# Differences


def test_a_difference_is_named_and_is_exit_code_1(cli: Cli, counted: redis.Redis, prefix: str) -> None:
    now = counted.hincrby(key(prefix, "g1:tallies"), CELL, 7)
    outcome = cli("rebuild", "--format", "json")
    assert 1 == outcome.code
    rows = by_side(outcome.json)
    assert ("different", "equal") == (rows["SI"]["verdict"], rows["HR"]["verdict"])
    [found] = rows["SI"]["differences"]
    assert {
        "side": "SI", "operation": "", "section": "koper", "day": "2024-03-14", "measure": "persons",
        "citizenship": "SYR", "live": now, "rebuilt": now - 7,
    } == found  # fmt: skip
    shown = cli("rebuild")
    assert 1 == shown.code
    assert "1 cell differs" in shown.out
    assert [CELL, str(now), str(now - 7)] in shown.table
    assert "`fieldtally rebuild --swap` makes what was rebuilt the live one" in shown.err


def test_a_swap_mends_it_tells_the_cells_and_is_exit_code_0(
    cli: Cli, counted: redis.Redis, prefix: str, server_url: str
) -> None:
    counted.hincrby(key(prefix, "g1:tallies"), CELL, 7)
    outcome = cli("rebuild", "--swap", "--drop")
    assert (0, "") == (outcome.code, outcome.err)
    assert "1 cell differs" in outcome.out
    assert "side SI: g2 is live, at " in outcome.out
    assert "side SI: removed g1" in outcome.out
    assert {"g2"} == generations(counted, prefix) == generations(counted, prefix, "HR")
    for side in ("SI", "HR"):
        assert expected(log_of(counted, prefix, side), side).tallies == cells(counted, prefix, side)
    record(counted, prefix, {"SI": [given.apprehension(id=1)]})
    count(server_url, prefix)
    assert expected(log_of(counted, prefix, "SI"), "SI").tallies == cells(counted, prefix)
    assert 0 == cli("audit").code


# Where there is nothing to compare with


def half_written(client: redis.Redis, prefix: str, server_url: str) -> None:
    """Let a projector meet an error inside EXEC."""
    client.rename(key(prefix, "g1:parked"), key(prefix, "kept"))
    client.set(key(prefix, "g1:parked"), "no hash")
    record(client, prefix, {"SI": [b"{}", given.apprehension(id=1)]})
    with pytest.raises(UnsoundTalliesError, match="`fieldtally rebuild --swap` makes them anew"):
        count(server_url, prefix)


def hash_damaged(client: redis.Redis, prefix: str, _: str) -> None:
    client.hset(key(prefix, "g1:tallies"), "SI|x", "many")


def tallies_of_another_kind(client: redis.Redis, prefix: str, _: str) -> None:
    client.set(key(prefix, "g1:tallies"), "no hash")


def checkpoint_of_another_kind(client: redis.Redis, prefix: str, _: str) -> None:
    client.set(key(prefix, "g1:checkpoint"), "no hash")


def index_of_another_kind(client: redis.Redis, prefix: str, server_url: str) -> None:
    """Whoever loads it does not see that; the projector's next turn does."""
    client.set(key(prefix, "g1:index"), "no hash")
    record(client, prefix, {"SI": [given.apprehension(id=1)]})
    with pytest.raises(UnsoundTalliesError, match="`fieldtally rebuild --swap` makes them anew"):
        count(server_url, prefix)


def position_damaged(client: redis.Redis, prefix: str, _: str) -> None:
    client.hset(key(prefix, "g1:checkpoint"), "position", "yesterday")


def other_rules(client: redis.Redis, prefix: str, _: str) -> None:
    client.hset(key(prefix, "g1:checkpoint"), "fold_version", 99)


def other_zone(client: redis.Redis, prefix: str, _: str) -> None:
    client.hset(key(prefix, "g1:checkpoint"), "zone", "Europe/London")


@pytest.mark.parametrize(
    "harm",
    [
        half_written, hash_damaged, tallies_of_another_kind, checkpoint_of_another_kind, position_damaged, other_rules,
        other_zone,
    ],
)  # fmt: skip
def test_a_live_generation_that_cannot_be_used_is_replaced(
    cli: Cli, counted: redis.Redis, prefix: str, server_url: str, harm: Any
) -> None:
    harm(counted, prefix, server_url)
    outcome = cli("rebuild", "--format", "json")
    row = by_side(outcome.json)["SI"]
    assert (0, "nothing to compare with", "", []) == (
        outcome.code, row["verdict"], row["compared_at"], row["differences"],
    )  # fmt: skip
    assert row["problem"]
    swapped = cli("rebuild", "--swap", "--drop")
    assert 0 == swapped.code, swapped.err
    assert "nothing to compare with: " in swapped.err
    count(server_url, prefix)  # a projector goes on, after whatever it was
    for side in ("SI", "HR"):
        assert expected(log_of(counted, prefix, side), side).tallies == cells(counted, prefix, side)
    assert {"g2"} == generations(counted, prefix)
    assert 0 == cli("audit").code
    assert 0 == cli("doctor").code


def test_an_index_that_is_damaged_is_made_anew_too(
    cli: Cli, counted: redis.Redis, prefix: str, server_url: str
) -> None:
    """The tallies themselves are equal then."""
    index_of_another_kind(counted, prefix, server_url)
    outcome = cli("rebuild", "--swap", "--drop", "--format", "json")
    assert (0, "equal") == (outcome.code, by_side(outcome.json)["SI"]["verdict"])
    count(server_url, prefix)
    assert expected(log_of(counted, prefix, "SI"), "SI").tallies == cells(counted, prefix)


def test_a_log_that_lost_entries_is_exit_code_4_and_the_other_side_is_rebuilt(
    cli: Cli, counted: redis.Redis, prefix: str
) -> None:
    counted.xtrim(key(prefix, "log"), maxlen=10, approximate=False)
    outcome = cli("rebuild", "--swap", "--drop", "--format", "json")
    assert 4 == outcome.code
    assert "the log of side SI is incomplete" in outcome.err
    assert {"SI": "failed", "HR": "equal"} == {row["side"]: row["verdict"] for row in outcome.json}
    assert ("g1", "g2") == (live(counted, prefix, "SI"), live(counted, prefix, "HR"))
    assert {"g1"} == generations(counted, prefix)


@pytest.mark.parametrize("damaged", [False, True], ids=["sound", "half written"])
def test_a_log_that_ends_before_the_tallies_is_exit_code_4(
    cli: Cli,
    counted: redis.Redis,
    prefix: str,
    damaged: bool,  # noqa: FBT001  # a parameter of the test
) -> None:
    """They may be the only trace of what it has lost."""
    if damaged:
        counted.hset(key(prefix, "g1:checkpoint"), "unsound", "HSET failed")
    counted.delete(key(prefix, "log"))
    outcome = cli("rebuild", "--swap", "--drop")
    assert 4 == outcome.code
    assert "restore the log" in outcome.err
    assert "g1" == live(counted, prefix, "SI")
    assert {"g1"} == generations(counted, prefix)


# Removing


def test_drop_alone_removes_what_is_not_live_and_rebuilds_nothing(cli: Cli, counted: redis.Redis, prefix: str) -> None:
    for name in ("g2:tallies", "g3:checkpoint", "g3:something-later", "g10:index"):
        counted.hset(key(prefix, name), "a", "b")
    others = {key(prefix, name) for name in ("gx:tallies", "log", "changes", "live")}
    counted.set(key(prefix, "gx:tallies"), "not ours")
    outcome = cli("rebuild", "--drop", "--format", "json")
    assert 0 == outcome.code
    assert [("SI", ["g2", "g3", "g10"]), ("HR", [])] == [tuple(row.values()) for row in outcome.json]
    assert {"g1", "gx"} == generations(counted, prefix)
    assert len(others) == counted.exists(*others)
    assert "side SI: removed nothing" in cli("rebuild", "--drop").out


def test_a_generation_that_becomes_live_meanwhile_is_not_removed(
    cli: Cli, counted: redis.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the name of the live one and the removal, which WATCH decides."""
    assert 0 == cli("rebuild").code
    multi = redis.asyncio.client.Pipeline.multi

    def swap_first(pipe: Any) -> None:
        counted.set(key(prefix, "live"), "g2")
        multi(pipe)

    monkeypatch.setattr(redis.asyncio.client.Pipeline, "multi", swap_first)
    outcome = cli("rebuild", "--drop", "--format", "json", SIDES="SI:Europe/Ljubljana:SVN")
    assert [{"side": "SI", "removed": []}] == outcome.json
    assert "g2" == live(counted, prefix, "SI")
    assert "g2" in generations(counted, prefix)


# What others say of it


def test_the_doctor_names_what_is_left_over(cli: Cli, counted: redis.Redis, prefix: str) -> None:
    assert 0 == cli("rebuild").code
    row = findings(cli("doctor", "--format", "json"))["SI generations"]
    entries = expected(log_of(counted, prefix, "SI"), "SI").entries
    assert ("look", f"beside g1: g2 ({entries} entries)") == (row["state"], row["found"])
    assert "`fieldtally rebuild --drop`" in row["next_step"]
    assert "goes on with g2" in row["next_step"]
    assert 0 == cli("rebuild", "--swap").code
    row = findings(cli("doctor", "--format", "json"))["SI generations"]
    assert row["found"].startswith("beside g2: g1 (")
    assert "goes on" not in row["next_step"]


@pytest.mark.parametrize("command", ["tallies", "audit"])
def test_whoever_meets_damage_is_told_to_rebuild(cli: Cli, counted: redis.Redis, prefix: str, command: str) -> None:
    counted.hset(key(prefix, "g1:checkpoint"), "unsound", "HSET on a key failed")
    assert_refused(cli(command), 4, "`fieldtally rebuild --swap` makes them anew from the log")


def test_the_doctor_tells_damaged_tallies_from_a_damaged_log(cli: Cli, counted: redis.Redis, prefix: str) -> None:
    counted.hset(key(prefix, "g1:checkpoint"), "unsound", "HSET on a key failed")
    outcome = cli("doctor", "--format", "json")
    found = findings(outcome)
    assert (4, "ok", "wrong", "damaged") == (
        outcome.code, found["SI log"]["state"], found["SI tallies"]["state"], found["SI tallies"]["found"],
    )  # fmt: skip
    assert "`fieldtally rebuild --swap`" in found["SI tallies"]["next_step"]


@pytest.fixture
def small_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.replay.rebuild.BATCH", 40)
