"""`fieldtally report`: what a hurried person types at a patrol car's computer, with and without a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from schemas.events import ApprehensionData, CitizenshipCount
from schemas.http import Result, problem
from services.field import FieldUnit
from tests import projectors
from tests.gateways import enrolled, recently, running_gateway
from tests.services.cli.conftest import Cli, Outcome, assert_refused
from tests.services.field.patrols import (
    NOWHERE,
    SOURCE,
    TOKEN,
    Reply,
    Stub,
    link,
    receipt,
    recorded,
    refusal,
    standing,
    stub_gateway,
)

APPREHENSION = ("apprehension", "--section", "koper", "--persons", "SYR=4,AFG=3")


@pytest.fixture
def report(cli: Cli, tmp_path: Path) -> Callable[..., Outcome]:
    """Run `report` with an outbox of this test's own."""

    def call(*args: str) -> Outcome:
        return cli("report", *args, DATA_DIR=str(tmp_path))

    return call


@pytest.fixture
def offline(report: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """`report` on a device that has joined, and has no network."""
    assert 0 == report("--join", link()).code
    return report


@pytest.fixture
def stub() -> Iterator[Stub]:
    with stub_gateway() as stub:
        yield stub


def stored(tmp_path: Path) -> list[dict[str, Any]]:
    """Return the events that wait in the outbox."""
    unit = FieldUnit(tmp_path / "outbox.db")
    events = [json.loads(found.raw) for found in unit.pending()]
    unit.close()
    return events


# offline


def test_joining_says_as_whom_and_shows_no_token(report: Callable[..., Outcome]) -> None:
    outcome = report("--join", link())
    assert (0, f"joined as {SOURCE}, reporting to {NOWHERE}\n", "") == outcome
    assert TOKEN not in report("--status").out
    assert TOKEN not in report("--status", "--format", "json").out


def test_before_joining_a_report_is_refused_and_says_how_to_join(report: Callable[..., Outcome]) -> None:
    for args in (APPREHENSION, ["--status"], ["--flush"]):
        assert_refused(report(*args), 2, "not joined", "fieldtally report --join LINK")
    assert_refused(report("--join", "hello"), 2, "no enrolment link")


def test_offline_a_report_is_on_the_disk_and_the_command_has_done_its_work(
    offline: Callable[..., Outcome], tmp_path: Path
) -> None:
    outcome = offline(*APPREHENSION, "--operation", "SI-HR-2024-03", "--time", "2024-03-14T03:12:09+01:00")
    assert 0 == outcome.code
    assert outcome.out.startswith("report 1 (")
    assert "on disk; 1 report waiting" in outcome.out
    assert "cannot be reached" in outcome.err
    (event,) = stored(tmp_path)
    assert ("SI-HR-2024-03", "2024-03-14T03:12:09+01:00") == (event["subject"], event["time"])
    assert {"SYR": 4, "AFG": 3} == {each["citizenship"]: each["count"] for each in event["data"]["persons"]}


KINDS: list[tuple[str, list[str], dict[str, Any]]] = [
    (
        "smuggler-arrest",
        ["--section", "koper", "--case", "K-1", "--opens-case", "--smugglers", "UKR=1", "--smuggled-persons", "SYR=5"],
        {"section": "koper", "case": "K-1", "opens_case": True, "smugglers": [{"citizenship": "UKR", "count": 1}],
         "smuggled_persons": [{"citizenship": "SYR", "count": 5}]},
    ),
    (
        "smuggler-arrest",
        ["--section", "koper", "--case", "K-1", "--smugglers", "UKR=1"],
        {"section": "koper", "case": "K-1", "opens_case": False, "smugglers": [{"citizenship": "UKR", "count": 1}],
         "smuggled_persons": []},
    ),
    (
        "custody",
        ["--case", "K-1", "--remanded", "UKR=1"],
        {"case": "K-1", "remanded": [{"citizenship": "UKR", "count": 1}]},
    ),
    (
        "nil-report",
        ["--section", "koper", "--from", "2024-03-14T00:00:00+01:00", "--to", "2024-03-14T06:00:00+01:00"],
        {"section": "koper", "period_from": "2024-03-14T00:00:00+01:00", "period_to": "2024-03-14T06:00:00+01:00"},
    ),
    (
        "operation-opened",
        ["--operation", "OP", "--name", "Joint", "--starts", "2024-03-13", "--ends", "2024-03-15",
         "--section", "koper:joint:Koper Police Administration", "--section", "rest:remaining:The rest"],
        {"name": "Joint", "starts": "2024-03-13", "ends": "2024-03-15", "sections": [
            {"section": "koper", "area": "Koper Police Administration", "coverage": "joint"},
            {"section": "rest", "area": "The rest", "coverage": "remaining"}]},
    ),
    ("operation-closed", ["--operation", "OP", "--closed", "2024-03-15"], {"closed": "2024-03-15"}),
    (
        "opening-balance",
        ["--from", "2024-01-01", "--to", "2024-03-12", "--total", "persons=7850,citizenship=syr", "--total",
         "remanded=12, section=koper"],
        {"period_from": "2024-01-01", "period_to": "2024-03-12", "totals": [
            {"measure": "persons", "count": 7850, "citizenship": "SYR"},
            {"measure": "remanded", "count": 12, "section": "koper"}]},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "args", "data"), KINDS)
def test_every_kind_can_be_reported(
    offline: Callable[..., Outcome], tmp_path: Path, kind: str, args: list[str], data: dict[str, Any]
) -> None:
    outcome = offline(kind, *args)
    assert 0 == outcome.code, outcome.err
    (event,) = stored(tmp_path)
    assert (f"org.fieldtally.{kind}.v1", data) == (event["type"], event["data"])


def test_amendments_and_withdrawals_name_the_original(offline: Callable[..., Outcome], tmp_path: Path) -> None:
    offline(*APPREHENSION, "--operation", "OP")
    (original,) = stored(tmp_path)
    assert 0 == offline(*APPREHENSION[:-1], "SYR=5", "--amends", original["id"]).code
    assert 0 == offline("withdrawal", "--amends", original["id"], "--reason", "did-not-occur").code
    _, amended, withdrawn = stored(tmp_path)
    assert [(original["id"], 1, "OP"), (original["id"], 2, "OP")] == [
        (event["amends"], event["revision"], event["subject"]) for event in (amended, withdrawn)
    ]
    assert {"reason": "did-not-occur"} == withdrawn["data"]


@pytest.mark.parametrize("typed", ["syr=4,afg=3", "SYR:4,AFG:3", " SYR = 4 , AFG = 3 ", "Syr 4, afg 3"])
def test_counts_typed_in_a_hurry_are_understood(offline: Callable[..., Outcome], tmp_path: Path, typed: str) -> None:
    assert 0 == offline("apprehension", "--section", "koper", "--persons", typed).code
    (event,) = stored(tmp_path)
    assert [{"citizenship": "SYR", "count": 4}, {"citizenship": "AFG", "count": 3}] == event["data"]["persons"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], ["say what to report: apprehension, smuggler-arrest"]),
        (["aprehension"], ["no kind of report 'aprehension'", "there are apprehension"]),
        (["--status", "--flush"], ["--status and --flush: one at a time"]),
        (["--flush", *APPREHENSION], ["--flush is a command of its own"]),
        (["apprehension", "--persons", "SYR=4"], ["Missing option '--section'"]),
        (["apprehension", "--section", "koper"], ["Missing option '--persons'"]),
        (["apprehension", "--section", "no pe", "--persons", "SYR=4"], ["`section` has 1 to 64 characters"]),
        ([*APPREHENSION[:-1], "SYR=0"], ["SYR: '0'", "a whole number from 1 to 10,000", "leave out who was not there"]),
        ([*APPREHENSION[:-1], "SYR=-1"], ["'-1'"]),
        ([*APPREHENSION[:-1], "SYR=10001"], ["from 1 to 10,000"]),
        ([*APPREHENSION[:-1], "SYR=four"], ["SYR: 'four'"]),
        ([*APPREHENSION[:-1], "SYR=٤"], ["SYR: '٤'"]),
        ([*APPREHENSION[:-1], "SY=1"], ["'SY' is no citizenship", "XXA for stateless"]),
        ([*APPREHENSION[:-1], "SYR"], ["'SYR': write citizenship and count"]),
        ([*APPREHENSION[:-1], "SYR=1,syr=2"], ["SYR stands there twice"]),
        ([*APPREHENSION[:-1], "SYR=1,"], ["a comma with nothing behind it"]),
        ([*APPREHENSION[:-1], "SYR=1,", "AFG=2"], ["a comma with nothing behind it"]),
        ([*APPREHENSION, "--time", "2024-03-14 03:12"], ["2024-03-14T03:12:09+01:00"]),
        ([*APPREHENSION, "--time", "now"], ["2024-03-14T03:12:09+01:00"]),
        ([*APPREHENSION, "--operation", "no pe"], ["`subject` has 1 to 64"]),
        ([*APPREHENSION, "--amends", "5"], ["no report of this outbox has the number 5"]),
        ([*APPREHENSION, "--amends", "x5"], ["'x5' is no id of a report"]),
        ([*APPREHENSION, "--time", "0202-03-14T03:12:09+01:00"], ["'0202-03-14T03:12:09+01:00'", "the year is 202"]),
        ([*APPREHENSION, "--time", "1999-12-31T23:59:59+01:00"], ["the year is 1999", "from 2000 to next year"]),
        ([*APPREHENSION, "--time", "2924-03-14T03:12:09+01:00"], ["the year is 2924"]),
        (["operation-closed", "--closed", "2924-03-15", "--operation", "OP"], ["the year is 2924"]),
        (["--all"], ["--all goes with --list"]),
        (["--list", "--dismiss"], ["--list and --dismiss: one at a time"]),
        (["--discard", "1"], ["no report of this outbox has the number 1"]),
        ([*APPREHENSION, "--amends", "018e3a2f-6a1c-7c3e-9f10-2b6d6c1f0a11"], ["is not in this outbox", "its time"]),
        (["operation-closed", "--closed", "2024-03-15"], ["Missing option '--operation'"]),
        (["operation-closed", "--closed", "15.3.", "--operation", "OP"], ["a date such as 2024-03-14"]),
        (["custody", "--case", "K-1"], ["Missing option '--remanded'"]),
        (
            ["nil-report", "--section", "koper", "--from", "2024-03-14T06:00:00Z", "--to", "2024-03-14T01:00:00Z"],
            ["`period_from` lies after `period_to`"],
        ),
        (["withdrawal", "--reason", "duplicate"], ["Missing option '--amends'"]),
        (["withdrawal", "--amends", "x", "--reason", "why"], ["'did-not-occur'"]),
        (["opening-balance", "--from", "2024-01-01", "--to", "2024-01-02", "--total", "x=1"], ["measures are"]),
        (["opening-balance", "--from", "2024-01-01", "--to", "2024-01-02", "--total", "persons=0"], ["persons: '0'"]),
        (["--discard", "018e3a2f-6a1c-7c3e-9f10-2b6d6c1f0a11"], ["no report of this outbox"]),
    ],
)  # fmt: skip
def test_wrong_input_is_named_and_nothing_is_stored(
    offline: Callable[..., Outcome], tmp_path: Path, args: list[str], said: list[str]
) -> None:
    assert_refused(offline(*args), 2, *said)
    assert [] == stored(tmp_path)


def test_reports_are_listed_latest_first_and_named_by_number(offline: Callable[..., Outcome], tmp_path: Path) -> None:
    offline(*APPREHENSION, "--operation", "OP")
    offline("custody", "--case", "K-1", "--remanded", "UKR=1")
    assert 0 == offline("withdrawal", "--amends", "1", "--reason", "duplicate").code
    first, second, third = stored(tmp_path)
    assert first["id"] == third["amends"]

    listed = offline("--list", "--format", "json").json
    assert [third["id"], second["id"], first["id"]] == [row["id"] for row in listed]
    assert ["withdrawal, duplicate", "custody UKR=1, case K-1", "SYR=4,AFG=3, koper"] == [row["says"] for row in listed]
    assert [(3, "pending", "", first["id"])] == [
        (row["number"], row["state"], row["position"], row["amends"]) for row in listed[:1]
    ]
    lines = offline("--list").out.splitlines()
    assert [f"3  pending    {third['id']}  withdrawal, duplicate"] == lines[:1]
    assert "; OP" in lines[-1]


def test_a_report_may_not_be_amended_into_another_kind(offline: Callable[..., Outcome]) -> None:
    offline(*APPREHENSION)
    wrong = offline("custody", "--case", "K-1", "--remanded", "UKR=1", "--amends", "1")
    assert_refused(wrong, 2, "is of kind apprehension", "a withdrawal, not by custody")


def test_a_list_is_short_unless_all_is_asked_for(
    offline: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.cli.report.LISTED", 2)
    assert "no reports yet\n" == offline("--list").out
    for _ in range(2):
        offline(*APPREHENSION)
    assert "" == offline("--list").err
    offline(*APPREHENSION)
    outcome = offline("--list", "--format", "json")
    assert ([3, 2], "these are the latest 2; --all lists the others too\n") == (
        [row["number"] for row in outcome.json], outcome.err,
    )  # fmt: skip
    assert [3, 2, 1] == [row["number"] for row in offline("--list", "--all", "--format", "json").json]


def test_what_cannot_be_flushed_ends_with_3_and_the_reason(
    offline: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.cli.report.FLUSH_S", 0.0)
    offline(*APPREHENSION)
    outcome = offline("--flush")
    assert (3, "0 reports sent, 0 rejected, 1 waiting\n") == outcome[:2]
    assert 1 == outcome.err.count("cannot be reached")


def test_the_status_lists_what_waits(offline: Callable[..., Outcome]) -> None:
    assert ["waiting", "0"] in offline("--status").table
    offline(*APPREHENSION)
    outcome = offline("--status")
    assert ["waiting", "1"] in outcome.table
    assert "in the way  " in outcome.out
    found = offline("--status", "--format", "json").json
    assert (SOURCE, 1, 0, 1) == (found["source"], found["pending"], found["rejected"], found["last_number"])
    assert [(1, "apprehension", "pending")] == [(row["number"], row["kind"], row["state"]) for row in found["reports"]]


# online


def test_online_a_report_is_recorded_and_counted(
    report: Callable[..., Outcome], settings: Any, client: redis.Redis, prefix: str
) -> None:
    with running_gateway(settings) as address:
        assert 0 == report("--join", link(address, enrolled(client, prefix))).code
        outcome = report(*APPREHENSION)
        (entry,) = projectors.log_of(client, prefix, "SI")
        assert (0, f"recorded at {entry[0]}") == (outcome.code, outcome.out.strip().partition("): ")[2])
        assert "" == outcome.err

        wrong = report(*APPREHENSION, "--operation", "NONE", "--time", recently(minutes=5))
        assert 1 == wrong.code
        assert "rejected: There is no such operation" in wrong.out
        assert "it is kept" in wrong.out
        ident = wrong.out.partition("(")[2].partition(")")[0]
        assert "not corrected yet" in report(*APPREHENSION).err

        assert 0 == report(*APPREHENSION, "--amends", ident, "--operation", "").code
        assert "" == report(*APPREHENSION).err
    assert 1 == report(*APPREHENSION).out.count("1 report waiting")
    with running_gateway(settings) as address:
        assert 0 == report("--join", link(address, enrolled(client, prefix))).code
        assert (0, "1 report sent, 0 rejected, 0 waiting\n", "") == report("--flush")
        assert (0, "0 reports sent, 0 rejected, 0 waiting\n", "") == report("--flush")
    projectors.project(settings)
    projectors.assert_counted(client, prefix, "SI")
    assert 5 == projectors.stored(client, prefix, "SI").outcomes["applied"]


def test_a_rejected_report_can_be_discarded(report: Callable[..., Outcome], stub: Stub) -> None:
    why = problem("unknown-section", 422, "koper?")
    stub.answer = lambda request: receipt(Result(id=request.ids[0], status="rejected", problem=why))
    report("--join", link(stub.url))
    ident = report(*APPREHENSION).out.partition("(")[2].partition(")")[0]
    assert ["rejected", "1"] in report("--status").table
    assert ident in report("--status").out
    assert 0 == report("--discard", "1").code
    assert [("discarded", f"{why.title}: koper?")] == [
        (row["state"], row["problem"]) for row in report("--status", "--format", "json").json["reports"]
    ]


def test_a_way_out_is_advised_only_where_it_works(report: Callable[..., Outcome], stub: Stub) -> None:
    """What may be in the log cannot be discarded: it is withdrawn."""
    why, conflict = problem("unknown-section", 422, "koper?"), problem("conflict", 409, "other content")
    report("--join", link(stub.url))
    stub.answer = lambda request: receipt(Result(id=request.ids[0], status="rejected", problem=why))
    assert "--discard 1`" in report(*APPREHENSION).out
    assert 0 == report("--discard", "1").code
    stub.answer = lambda request: receipt(Result(id=request.ids[0], status="conflict", problem=conflict))
    said = report(*APPREHENSION)
    assert (1, False) == (said.code, "--discard" in said.out)
    assert "report withdrawal --amends 2 --reason did-not-occur`" in said.out
    assert_refused(report("--discard", "2"), 2, "may be in the log", "withdraw it")
    stub.answer = lambda request: receipt(recorded(request.ids[0]))
    assert 0 == report("withdrawal", "--amends", "2", "--reason", "did-not-occur").code


def test_a_clock_that_is_off_and_a_restored_outbox_are_told(report: Callable[..., Outcome], stub: Stub) -> None:
    stub.answer = lambda request: receipt(recorded(request.ids[0], clock_off_s=300))
    stub.stands = lambda: Reply(
        200,
        b'{"role":"unit","side":"SI","unit":"SI-MP-07","device":"9f3c2a","highest":7,"missing":[],"reused":0,'
        b'"position":"1-0"}',
    )
    report("--join", link(stub.url))
    outcome = report(*APPREHENSION)
    assert 0 == outcome.code
    assert "300 seconds fast" in outcome.err
    assert "up to number 7" in outcome.err
    assert "up to number 7" in report("--status").out
    assert "1 notice put away\n" == report("--dismiss").out
    assert "up to number 7" not in report("--status").out


def test_a_pause_that_the_gateway_asked_for_binds_the_next_command(report: Callable[..., Outcome], stub: Stub) -> None:
    stub.answer = lambda _: refusal(problem("rate-limited", 429, "why", retryable=True), Retry_After="100")
    report("--join", link(stub.url))
    assert "asks for a pause" in report(*APPREHENSION).err
    assert "asked to be left alone" in report(*APPREHENSION).err
    assert 1 == len(stub.sent)


def test_a_flush_that_meets_a_rejection_ends_with_1(report: Callable[..., Outcome], stub: Stub, tmp_path: Path) -> None:
    report("--join", link(stub.url))
    unit = FieldUnit(tmp_path / "outbox.db")
    unit.report(ApprehensionData("koper", (CitizenshipCount("SYR", 1),)))
    unit.close()
    why = problem("unknown-section", 422, "koper?")
    stub.answer = lambda request: receipt(Result(id=request.ids[0], status="rejected", problem=why))
    outcome = report("--flush")
    assert (1, "0 reports sent, 1 rejected, 0 waiting\n") == outcome[:2]


def test_a_flush_counts_what_it_has_sent_itself(
    report: Callable[..., Outcome], stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the log has lost is waiting again, and so no longer among what was sent."""
    monkeypatch.setattr("services.cli.report.FLUSH_S", 0.0)
    stub.stands = lambda: standing(len(stub.sent))
    report("--join", link(stub.url))
    for _ in range(3):
        assert 0 == report(*APPREHENSION).code
    stub.stands = standing
    report("--join", link(stub.url))  # so that the next command asks what the log has: nothing
    stub.answer = lambda _: refusal(problem("unavailable", 503, "why", retryable=True))
    outcome = report("--flush")
    assert (3, "0 reports sent, 0 rejected, 3 waiting\n") == outcome[:2]
    assert "has lost reports" in outcome.err
    why = problem("unknown-section", 422, "koper?")
    stub.answer = lambda request: receipt(
        *map(recorded, request.ids[:2]), Result(id=request.ids[2], status="rejected", problem=why)
    )
    assert (1, "2 reports sent, 1 rejected, 0 waiting\n") == report("--flush")[:2]


def test_report_runs_by_itself(process: Callable[..., Outcome], tmp_path: Path) -> None:
    assert 0 == process("report", "--join", link(), DATA_DIR=str(tmp_path)).code
    outcome = process("report", *APPREHENSION, DATA_DIR=str(tmp_path))
    assert (0, 1) == (outcome.code, len(outcome.out.splitlines()))
