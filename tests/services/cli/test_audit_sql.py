"""`audit` holds the fold against SQL: a fault planted in either is found, with its cells, beginning and events."""

from __future__ import annotations

from datetime import tzinfo
from pathlib import Path
from typing import Any

import duckdb
import pytest
import redis

from schemas.events import Event, NilReport
from services.archive import counting
from services.tally import contributions as rules
from services.tally import fold as folding
from services.tally.contributions import Contribution
from tests import given, projectors
from tests.services.cli.conftest import Cli, count, record

HEAD = 'title = "t"\npublished = 2024-03-15\nsource = "s"\n[[claim]]\ntext = "persons"\nmeasure = "persons"\n'


def _by_kind(found: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [one for one in found["differences"] if one["kind"] == kind]


def test_every_comparison_agrees_on_a_log_with_every_outcome(
    cli: Cli, client: redis.Redis, server_url: str, prefix: str
) -> None:
    for side, entries in given.seeded_log(11, 300).items():
        projectors.feed(client, prefix, side, entries)
    count(server_url, prefix)
    outcome = cli("audit", "--format", "json")
    assert (0, True, True, []) == (
        outcome.code, outcome.json["live_equals_rebuilt"], outcome.json["fold_equals_sql"], outcome.json["differences"],
    )  # fmt: skip
    assert {"parked", "missing-numbers"} <= {item["kind"] for item in outcome.json["look_at"]}
    assert "beside-the-tallies" not in {item["kind"] for item in outcome.json["look_at"]}
    assert "fold equals SQL: every cell agrees at SI " in cli("audit").out


def beside(cli: Cli, *args: str) -> list[dict[str, Any]]:
    """What an audit that finds nothing different says of what is live beside the tallies."""
    outcome = cli("audit", "--json", *args)
    assert (0, True) == (outcome.code, outcome.json["live_equals_rebuilt"])
    return [item for item in outcome.json["look_at"] if item["kind"] == "beside-the-tallies"]


def test_what_is_damaged_beside_the_tallies_deserves_a_look_and_changes_no_verdict(
    cli: Cli, client: redis.Redis, server_url: str, prefix: str
) -> None:
    log = [b"{}", given.operation_opened(id=9, reportno=1), given.apprehension(id=1, reportno=4)]
    positions = record(client, prefix, {"SI": log})["SI"]
    count(server_url, prefix)
    device = "SI-MP-07/9f3c2a"
    assert beside(cli) == []
    record(client, prefix, {"SI": [b"[]", given.apprehension(id=3, reportno=5)]})
    assert beside(cli) == [], "what is not counted yet is not damaged"

    keys = {what: f"{{{prefix}:SI}}:g1:{what}" for what in ("checkpoint", "devices", "operations", "parked")}
    kept = {name: client.dump(name) for name in keys.values()}
    client.hincrby(keys["checkpoint"], "duplicate", 7)
    client.delete(keys["devices"], keys["operations"], keys["parked"])
    mended = "; `fieldtally rebuild --swap` makes it anew"
    assert [(item["side"], item["positions"], item["text"]) for item in beside(cli, "--as-of", positions[1])] == [
        ("SI", [], f"checkpoint: duplicate 7, by the log 0{mended}"),
        ("SI", [f"SI:{positions[2]}"], f"device {device}: not there, though the log has reports of it{mended}"),
        ("SI", [], f"operation {given.OPERATION}: not there, though the log has it{mended}"),
        ("SI", [f"SI:{positions[0]}"], f"parked: 1 entry not set aside, though the log has it so{mended}"),
    ]
    for name, dumped in kept.items():
        client.restore(name, 0, dumped, replace=True)
    client.hset(keys["devices"], device, b'{"highest":9,"last_position":"%b"}' % positions[2].encode())
    client.hset(keys["devices"], "SI-MP-01/x", b'{"highest":9}')
    client.hset(keys["operations"], given.OPERATION, b"{}")
    told = b'{"reason":"conflict","detail":"","digest":""}'
    client.hset(keys["parked"], mapping={positions[0]: told, positions[1]: told})
    assert [item["text"].removesuffix(mended) for item in beside(cli)] == [
        "device SI-MP-01/x: there, though the log has no report of it",
        f"device {device}: highest 9, by the log 4, missing none, by the log 2–3",
        f"operation {given.OPERATION}: other openings and plan than by the log",
        "parked: 1 entry set aside, though it is not by the log",
        "parked: 1 entry set aside for another reason than by the log",
    ]


def test_a_fault_of_the_fold_is_found(
    cli: Cli, client: redis.Redis, server_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = [given.apprehension(id=number) for number in range(1, 10)]
    log[5] = given.nil_report(id=6)
    log[7] = given.nil_report(id=8)
    positions = record(client, prefix, {"SI": log})["SI"]
    count(server_url, prefix)

    def forgetful(event: Event, zone: tzinfo) -> list[Contribution]:
        return [] if isinstance(event, NilReport) else rules.contributions(event, zone)

    monkeypatch.setattr(folding, "contributions", forgetful)
    outcome = cli("audit", "--format", "json")
    found = outcome.json
    assert (1, False, False) == (outcome.code, found["live_equals_rebuilt"], found["fold_equals_sql"])
    [parted] = _by_kind(found, "sql")
    cell = {"side": "SI", "operation": "", "section": "koper", "day": "2024-03-14", "measure": "nil_reports"}
    begun = {"first_position": positions[5], "followed": True, "events_in_all": 1}
    text = f"from {positions[5]} on they differ: there the fold counts 0, SQL 1"
    assert [cell | {"citizenship": "", "fold": 0, "sql": 2} | begun | {"text": text}] == parted["cells"]
    assert positions[5] == parted["first_position"]
    assert [0] == [named["change"] for event in parted["events"] for named in event["cells"]]
    assert [("nil-report", given.uid(6), positions[5])] == [
        (event["type"], event["id"], event["position"]) for event in parted["events"]
    ]
    assert "fold and SQL differ" in cli("audit").out


def test_a_fault_of_sql_is_found(
    cli: Cli, client: redis.Redis, server_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = [given.apprehension(id=number, persons={"SYR": 1}) for number in range(1, 40)]
    log[16] = given.apprehension(id=17, persons={"SYR": 1, "AFG": 2})
    log[30] = given.apprehension(id=31, persons={"SYR": 1, "AFG": 4})
    positions = record(client, prefix, {"SI": log, "HR": [given.apprehension(id=50, side="HR")]})["SI"]
    count(server_url, prefix)
    cut = counting._REPORTED.replace("unnest(counts)", "unnest(counts[1:1])")
    monkeypatch.setattr(counting, "_REPORTED", cut)
    outcome = cli("audit", "--format", "json")
    assert (1, True, False) == (outcome.code, outcome.json["live_equals_rebuilt"], outcome.json["fold_equals_sql"])
    [parted] = outcome.json["differences"]
    assert ("sql", "SI", positions[16], 2) == (
        parted["kind"], parted["side"], parted["first_position"], parted["events_in_all"],
    )  # fmt: skip
    assert [(positions[16], 2)] == [(cell["first_position"], cell["events_in_all"]) for cell in parted["cells"]]
    assert [("AFG", 6, 0)] == [(cell["citizenship"], cell["fold"], cell["sql"]) for cell in parted["cells"]]
    assert [given.uid(17), given.uid(31)] == [event["id"] for event in parted["events"]]


def test_a_fault_that_shows_only_for_a_while_begins_where_the_last_difference_does(
    cli: Cli, client: redis.Redis, server_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of equal revisions the first counts; SQL that takes the last goes wrong with the second one."""
    first, other = given.apprehension(id=5, persons={"SYR": 1}), given.apprehension(id=5, persons={"SYR": 2})
    log = [given.apprehension(id=1), first, given.apprehension(id=2), other, given.apprehension(id=3)]
    positions = record(client, prefix, {"SI": log})["SI"]
    count(server_url, prefix)
    real = counting.replaced
    monkeypatch.setattr(
        counting,
        "replaced",
        lambda *given_: real(*given_).replace("revision DESC, ms, seq", "revision DESC, ms DESC, seq DESC"),
    )
    [parted] = cli("audit", "--format", "json").json["differences"]
    assert positions[3] == parted["first_position"]


def test_live_parts_where_the_log_last_gave_what_it_holds(
    cli: Cli, client: redis.Redis, server_url: str, prefix: str
) -> None:
    log = [given.apprehension(id=number, persons={"SYR": 1}) for number in range(1, 6)]
    positions = record(client, prefix, {"SI": log})["SI"]
    count(server_url, prefix)
    client.hset(f"{{{prefix}:SI}}:g1:tallies", "SI||koper|2024-03-14|persons|SYR", 3)
    [parted] = cli("audit", "--format", "json").json["differences"]
    assert positions[3] == parted["first_position"]
    assert [given.uid(4), given.uid(5)] == [event["id"] for event in parted["events"]]


def test_a_live_cell_that_no_entry_made_has_no_position(
    cli: Cli, client: redis.Redis, server_url: str, prefix: str
) -> None:
    record(client, prefix, {"SI": [given.apprehension(id=1)]})
    count(server_url, prefix)
    client.hset(f"{{{prefix}:SI}}:g1:tallies", "SI||ljubljana|2024-03-14|persons|SYR", 3)
    [parted] = cli("audit", "--format", "json").json["differences"]
    assert (None, []) == (parted["first_position"], parted["events"])
    [cell] = parted["cells"]
    text = "no event of the log ever added to it, live holds 3"
    assert (None, True, 0, text) == tuple(
        cell[name] for name in ("first_position", "followed", "events_in_all", "text")
    )
    shown = cli("audit")
    assert ["SI||ljubljana|2024-03-14|persons|SYR", "3", "0", "no event"] in shown.table
    assert f"  SI||ljubljana|2024-03-14|persons|SYR: {text}" in shown.out.splitlines()


def test_each_of_several_cells_leads_to_its_own_beginning_and_events(
    cli: Cli, client: redis.Redis, server_url: str, prefix: str
) -> None:
    """Many events of one cell hide no event of another, and an event says which cells it is listed for."""
    busy = [given.apprehension(id=number, persons={"SYR": 2}) for number in range(1, 31)]
    both = given.apprehension(id=40, persons={"SYR": 2, "AFG": 5}, time="2024-03-14T22:10:00Z")
    alone = given.apprehension(id=41, persons={"PAK": 7}, section="novo-mesto")
    positions = record(client, prefix, {"SI": [*busy, both, alone]})["SI"]
    count(server_url, prefix)
    key, day = f"{{{prefix}:SI}}:g1:tallies", "2024-03-14"
    client.hset(key, f"SI||koper|{day}|persons|SYR", 1)
    client.hset(key, f"SI||koper|{day}|persons|AFG", 12)
    client.hdel(key, f"SI||novo-mesto|{day}|persons|PAK")
    client.hset(key, f"SI||atlantis|{day}|persons|SYR", 3)
    found = cli("audit", "--format", "json").json
    [parted] = found["differences"]
    cells = {(cell["section"], cell["citizenship"]): cell for cell in parted["cells"]}
    begun = {
        ("koper", "SYR"): (positions[0], 31), ("koper", "AFG"): (positions[30], 1),
        ("novo-mesto", "PAK"): (positions[31], 1), ("atlantis", "SYR"): (None, 0),
    }  # fmt: skip
    assert begun == {name: (cell["first_position"], cell["events_in_all"]) for name, cell in cells.items()}
    listed: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for event in parted["events"]:
        for named in event["cells"]:
            listed.setdefault((named["section"], named["citizenship"]), []).append((event["position"], named["change"]))
    assert listed == {
        ("koper", "SYR"): [(position, 2) for position in positions[:20]],
        ("koper", "AFG"): [(positions[30], 5)],
        ("novo-mesto", "PAK"): [(positions[31], 7)],
    }
    assert 32 == parted["events_in_all"]
    [event] = [event for event in parted["events"] if event["position"] == positions[30]]
    assert ("2024-03-14T22:10:00Z", "koper") == (event["time"], event["section"])
    shown = cli("audit")
    assert [f"SI||koper|{day}|persons|AFG", "12", "5", positions[30]] in shown.table
    lines = shown.out.splitlines()
    begins = f"from {positions[30]} on the log never again gives the 12 that live holds"
    at = lines.index(f"  SI||koper|{day}|persons|AFG: {begins}")
    assert (
        f"    SI {positions[30]}  2024-03-14T22:10:00+00:00  koper  apprehension  +5  {given.uid(40)}" == lines[at + 1]
    )
    assert "    and 28 more events" in lines


def _claims(tmp_path: Path, claim: str) -> str:
    file = tmp_path / "claims.toml"
    file.write_text(HEAD + claim)
    return str(file)


def test_a_published_figure_was_right_until_an_event_parted_it(
    cli: Cli, client: redis.Redis, server_url: str, prefix: str, tmp_path: Path
) -> None:
    log = [given.apprehension(id=number, persons={"SYR": 2}) for number in (1, 2)]
    late = given.apprehension(amends=2, persons={"SYR": 7})
    positions = record(client, prefix, {"SI": [*log, late], "HR": [given.apprehension(id=9, side="HR")]})
    count(server_url, prefix)
    claims = _claims(tmp_path, 'where = { side = "SI" }\nequals = 4\n')
    found = cli("audit", "--claims", claims, "--format", "json").json
    [parted] = found["differences"]
    assert ("claim", "SI", positions["SI"][2]) == (parted["kind"], parted["side"], parted["first_position"])
    assert (
        f"right from SI {positions['SI'][1]} on until the apprehension at SI {positions['SI'][2]} parted it"
        in parted["text"]
    )
    assert [1] == [event["revision"] for event in parted["events"]]
    then = cli("audit", "--claims", claims, "--as-of", positions["SI"][1], "--format", "json")
    assert (0, ["confirmed"]) == (then.code, [claim["verdict"] for claim in then.json["claims"]])
    assert positions["SI"][1] == then.json["position"]["SI"]
    assert positions["SI"][2] == then.json["live_position"]["SI"]


def test_a_figure_that_never_was_right_has_the_events_behind_it(
    cli: Cli, client: redis.Redis, server_url: str, prefix: str, tmp_path: Path
) -> None:
    record(client, prefix, {"SI": [given.apprehension(id=number) for number in range(1, 31)]})
    count(server_url, prefix)
    claims = _claims(tmp_path, "equals = 31\nbreakdown = { citizenship = { SYR = 30, AFG = 1 } }\n")
    outcome = cli("audit", "--claims", claims, "--format", "json")
    total, member = outcome.json["differences"]
    assert (20, 30) == (len(total["events"]), total["events_in_all"])
    assert {1} == {sum(cell["change"] for cell in event["cells"]) for event in total["events"]}
    assert "at no position did the log give the published figure" in total["text"]
    assert "persons AFG: no event of the log ever added to it" == member["text"]
    assert ("AFG", 0, None) == (member["cells"][0]["key"], member["events_in_all"], member["first_position"])
    assert "    and 10 more events" in cli("audit", "--claims", claims).out


def test_as_of_is_refused_where_it_is_neither_position_nor_time(cli: Cli) -> None:
    outcome = cli("audit", "--as-of", "yesterday")
    assert (2, "") == (outcome.code, outcome.out)
    assert "--as-of 'yesterday'" in outcome.err


def test_archive_and_stream_are_asked_as_one_log(
    cli: Cli, client: redis.Redis, server_url: str, prefix: str, tmp_path: Path
) -> None:
    logs = given.seeded_log(12, 200)
    for side, entries in logs.items():
        projectors.feed(client, prefix, side, entries[:150])
    query = ("sql", "SELECT * FROM tallies ORDER BY ALL", "--format", "json")
    assert 0 == cli("archive", DATA_DIR=str(tmp_path)).code
    archived = list(tmp_path.rglob("*.parquet"))
    assert 2 == len(archived)
    for side, entries in logs.items():
        projectors.feed(client, prefix, side, entries[150:])
    count(server_url, prefix)
    outcome = cli("audit", "--format", "json", DATA_DIR=str(tmp_path))
    assert (0, True) == (outcome.code, outcome.json["fold_equals_sql"])
    assert cli(*query).json == cli(*query, DATA_DIR=str(tmp_path)).json
    early = cli("sql", "SELECT max(ms) AS ms FROM events WHERE seq < 90", "--format", "json").json[0]["ms"]
    then = ("--as-of", f"{early}-20")
    assert cli(*query, *then).json == cli(*query, *then, DATA_DIR=str(tmp_path)).json
    archived[0].write_bytes(archived[0].read_bytes()[:-100])
    broken = cli(*query, DATA_DIR=str(tmp_path))
    assert (4, "") == (broken.code, broken.out)
    assert "`fieldtally archive verify`" in broken.err


def test_no_figure_comes_from_a_segment_that_was_altered_or_swapped(
    cli: Cli, client: redis.Redis, server_url: str, prefix: str, tmp_path: Path
) -> None:
    """Both are good Parquet files, which only their hash tells from what was archived."""
    logs = given.seeded_log(12, 100)
    for side, entries in logs.items():
        projectors.feed(client, prefix, side, entries)
    count(server_url, prefix)
    assert 0 == cli("archive", DATA_DIR=str(tmp_path)).code
    [mine, other] = sorted(tmp_path.rglob("*.parquet"))
    whole = mine.read_bytes()
    with duckdb.connect() as connection:
        altered = f"SELECT * REPLACE (revision + 1 AS revision) FROM '{mine}'"  # noqa: S608  # our own file
        connection.execute(f"COPY ({altered}) TO '{tmp_path / 'forged'}' (FORMAT parquet)")
    for forged in ((tmp_path / "forged").read_bytes(), other.read_bytes(), whole[:-1] + b"x"):
        mine.write_bytes(forged)
        for asked in (("sql", "SELECT * FROM tallies"), ("audit",)):
            outcome = cli(*asked, DATA_DIR=str(tmp_path))
            assert (4, "") == (outcome.code, outcome.out)
            assert f"{mine} is not the segment that was archived" in outcome.err
    mine.write_bytes(whole)
    assert 0 == cli("audit", DATA_DIR=str(tmp_path)).code
