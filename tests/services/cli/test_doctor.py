"""`doctor` finds what is wrong with settings, server, logs and tallies, says what to do, and exits accordingly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import redis

from tests import given
from tests.servers import OwnServer
from tests.services.cli.conftest import Cli, Outcome, assert_refused, count, record


def findings(outcome: Outcome) -> Mapping[str, dict[str, Any]]:
    """What was looked at, by its name."""
    return {row["what"]: row for row in outcome.json}


@pytest.fixture
def two_reports(client: redis.Redis, server_url: str, prefix: str) -> redis.Redis:
    record(client, prefix, {"SI": [given.apprehension(id=1), given.apprehension(id=2)]})
    count(server_url, prefix)
    return client


@pytest.mark.usefixtures("two_reports")
def test_tallies_that_were_set_back_by_hand_are_wrong(cli: Cli, client: redis.Redis, prefix: str) -> None:
    client.hset(f"{{{prefix}:SI}}:g1:checkpoint", "position", "1-0")
    outcome = cli("doctor", "--format", "json")
    [found] = [one for one in outcome.json if one["what"] == "SI tallies"]
    assert (1, "wrong") == (outcome.code, found["state"])
    assert "the log goes on to" in found["found"]


@pytest.mark.usefixtures("two_reports")
def test_a_sound_system_is_exit_code_0_and_everything_is_ok(cli: Cli) -> None:
    outcome = cli("doctor", "--format", "json")
    assert (0, "") == (outcome.code, outcome.err)
    assert {"ok"} == {row["state"] for row in outcome.json}
    for row in outcome.json:
        assert ["state", "what", "found", "next_step"] == list(row)
    found = findings(outcome)
    assert "2 entries to " in found["SI log"]["found"]
    assert "0 entries to 0-0" == found["HR log"]["found"]
    assert "SI (Europe/Ljubljana), HR (Europe/Zagreb)" == found["sides"]["found"]
    assert "noeviction" == found["maxmemory-policy"]["found"]


@pytest.mark.usefixtures("two_reports")
def test_the_table_has_the_same_findings(cli: Cli) -> None:
    rows = cli("doctor", "--format", "json").json
    shown = cli("doctor").table
    assert ["state", "what", "found", "next_step"] == shown[1]
    assert [[part for part in row.values() if part] for row in rows] == shown[2:]
    assert rows == cli("doctor", "--format", "ndjson").ndjson == cli("doctor", "--format", "csv").csv


def test_entries_behind_are_worth_a_look(cli: Cli, two_reports: redis.Redis, prefix: str) -> None:
    record(two_reports, prefix, {"SI": [given.apprehension(id=3)]})
    outcome = cli("doctor", "--format", "json")
    row = findings(outcome)["SI tallies"]
    assert (0, "look", "1 entry behind the log") == (outcome.code, row["state"], row["found"])
    assert "fieldtally project" in row["next_step"]


def test_parked_missing_reused_and_orphaned_reports_are_worth_a_look(
    cli: Cli, client: redis.Redis, server_url: str, prefix: str
) -> None:
    record(
        client,
        prefix,
        {
            "SI": [
                b"{}",
                given.apprehension(id=1, reportno=10),
                given.apprehension(id=2, reportno=10),
                given.apprehension(amends=3, reportno=11),
            ]
        },
    )
    count(server_url, prefix)
    outcome = cli("doctor", "--format", "json")
    assert 0 == outcome.code
    looked = {what: row["found"] for what, row in findings(outcome).items() if row["state"] == "look"}
    assert {
        "SI parked": "1 entry",
        "SI missing reports": "9 numbers of 1 device, most of SI-MP-07/9f3c2a",
        "SI numbers": "1 report with a number used before, most by SI-MP-07/9f3c2a",
        "SI amendments": "1 amended report whose original has not come",
    } == looked


def test_no_server_is_exit_code_3_and_still_a_report(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> None:
    nowhere = f"unix://{tmp_path_factory.mktemp('none')}/s"
    outcome = cli("doctor", "--format", "json", url=nowhere)
    assert (3, "wrong") == (outcome.code, findings(outcome)["server"]["state"])
    assert f"cannot reach {nowhere}" in findings(outcome)["server"]["next_step"]


def test_a_trimmed_log_is_exit_code_4(cli: Cli, two_reports: redis.Redis, prefix: str) -> None:
    two_reports.xtrim(f"{{{prefix}:SI}}:log", maxlen=1, approximate=False)
    outcome = cli("doctor", "--format", "json")
    row = findings(outcome)["SI log"]
    assert (4, "wrong", "1 of 2 entries gone") == (outcome.code, row["state"], row["found"])
    assert "restore the log" in row["next_step"]
    assert "ok" == findings(outcome)["HR log"]["state"]


def test_a_log_that_ends_before_the_tallies_is_exit_code_4(cli: Cli, two_reports: redis.Redis, prefix: str) -> None:
    two_reports.delete(f"{{{prefix}:SI}}:log")
    outcome = cli("doctor", "--format", "json")
    row = findings(outcome)["SI log"]
    assert (4, "wrong") == (outcome.code, row["state"])
    assert row["found"].startswith("it ends at 0-0, but the tallies reach ")


def test_a_key_of_another_kind_is_exit_code_4(cli: Cli, two_reports: redis.Redis, prefix: str) -> None:
    two_reports.set(f"{{{prefix}:SI}}:log", "x")
    outcome = cli("doctor", "--format", "json")
    assert (4, "wrong") == (outcome.code, findings(outcome)["SI log"]["state"])


def test_tallies_of_other_counting_rules_are_exit_code_1(cli: Cli, two_reports: redis.Redis, prefix: str) -> None:
    two_reports.hset(f"{{{prefix}:SI}}:g1:checkpoint", "fold_version", 0)
    outcome = cli("doctor", "--format", "json")
    assert (1, "wrong") == (outcome.code, findings(outcome)["SI tallies"]["state"])


def test_a_policy_that_may_delete_reports_is_refused_by_every_command(cli: Cli, fresh_server: OwnServer) -> None:
    with fresh_server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    said = ("maxmemory-policy allkeys-lru", "set `maxmemory-policy noeviction`")
    for command in (["tallies"], ["replay"], ["import", "-"], ["project"], ["simulate", "--reports", "1"]):
        assert_refused(cli(*command, url=fresh_server.url), 3, *said)
    outcome = cli("doctor", "--format", "json", url=fresh_server.url)
    assert (3, "wrong") == (outcome.code, findings(outcome)["server"]["state"])
    assert said[0] in findings(outcome)["server"]["next_step"]


def test_a_password_is_never_printed(cli: Cli) -> None:
    outcome = cli("doctor", url="redis://desk:sesame@127.0.0.1:1")
    assert 3 == outcome.code
    assert "redis://desk:***@127.0.0.1:1" in outcome.out
    assert "sesame" not in outcome.out + outcome.err


def test_a_misspelt_setting_is_worth_a_look(cli: Cli) -> None:
    outcome = cli("doctor", "--format", "json", REDISURL="redis://elsewhere")
    [row] = [row for row in outcome.json if row["what"] == "settings"]
    assert ("look", "FIELDTALLY_REDISURL is set") == (row["state"], row["found"])


def test_what_an_audit_or_a_verification_would_find_is_not_ok(
    cli: Cli, two_reports: redis.Redis, prefix: str, tmp_path: Path
) -> None:
    here = {"DATA_DIR": str(tmp_path)}
    assert 0 == cli("archive", **here).code
    assert 0 == cli("audit", **here).code
    sound = cli("doctor", "--format", "json", **here)
    assert (0, {"ok"}) == (sound.code, {row["state"] for row in sound.json})
    assert "1 segment as written" == findings(sound)["SI archive"]["found"]
    assert "last found equal to the log at" in findings(sound)["SI audit"]["found"]
    two_reports.hincrby(f"{{{prefix}:SI}}:g1:tallies", two_reports.hkeys(f"{{{prefix}:SI}}:g1:tallies")[0], 7)
    changed = cli("doctor", "--format", "json", **here)
    assert (1, "wrong") == (changed.code, findings(changed)["SI audit"]["state"])
    [segment] = (tmp_path / "archive" / f"{prefix}-SI").glob("*.parquet")
    segment.write_bytes(segment.read_bytes()[:-1])
    altered = cli("doctor", "--format", "json", **here)
    assert (4, "wrong") == (altered.code, findings(altered)["SI archive"]["state"])
    assert "000001.parquet: cut" in findings(altered)["SI archive"]["found"]
