"""What each answer of a gateway, or of what stands in its place, does to the reports that were sent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from schemas.events import OperationOpenedData, SectionPlan
from schemas.http import Code, Result, problem
from services.field import FieldUnit, sender
from services.field.sender import Answer, Pauses, Trouble, read_retry_after, trouble_of
from tests.http_faults import LOGIN_PAGE, NO_FAULT, Fault, HttpFaults
from tests.services.field.patrols import (
    NOWHERE,
    TOKEN,
    Reply,
    Request,
    Stub,
    all_recorded,
    joined,
    link,
    persons,
    receipt,
    recorded,
    refusal,
    standing,
    stub_gateway,
)
from tests.waiting import wait_for

OTHER = "018e3a2f-6a1c-7c3e-9f10-2b6d6c1f0a11"
NOON = datetime(2024, 3, 14, 12, tzinfo=UTC)
Answering = Callable[[Request], Reply]


@pytest.fixture
def unit(tmp_path: Path, stub: Stub) -> Iterator[FieldUnit]:
    unit = joined(tmp_path / "outbox.db", stub.url)
    yield unit
    unit.close()


def states(unit: FieldUnit, *reports: Any) -> list[str]:
    return [unit.find(report.id).state for report in reports]


def refused(code: Code, status: int, **headers: str) -> Reply:
    return refusal(problem(code, status, "why", retryable=status in (429, 503)), **headers)


def result(ident: str, status: Any, *, code: Code = "unknown-section", retryable: bool = False, **more: Any) -> Result:
    return Result(id=ident, status=status, problem=problem(code, 422, "why", retryable=retryable), **more)


# what settles a report


def test_a_receipt_with_its_id_delivers_a_report(unit: FieldUnit, stub: Stub) -> None:
    report = unit.report(persons())
    stub.answer = lambda request: receipt(recorded(request.ids[0], position="1700000000000-7"))
    assert unit.flush(0)
    found = unit.find(report.id)
    assert ("delivered", "1700000000000-7", report.raw) == (found.state, found.position, found.raw)
    assert (b"[" + report.raw + b"]") == stub.posted[0].body


def test_a_duplicate_is_delivered_where_the_log_has_it(unit: FieldUnit, stub: Stub) -> None:
    report = unit.report(persons())
    stub.answer = lambda request: receipt(recorded(request.ids[0], status="duplicate", position="1600000000000-0"))
    assert unit.flush(0)
    assert "1600000000000-0" == unit.find(report.id).position


@pytest.mark.parametrize("status", ["rejected", "conflict"])
def test_what_will_never_be_taken_is_kept_with_its_problem_and_the_rest_goes_on(
    unit: FieldUnit, stub: Stub, status: str
) -> None:
    reports = [unit.report(persons()) for _ in range(3)]
    stub.answer = lambda request: receipt(
        recorded(request.ids[0]), result(request.ids[1], status), recorded(request.ids[2])
    )
    assert unit.flush(0)
    assert ["delivered", "rejected", "delivered"] == states(unit, *reports)
    (rejected,) = unit.rejected()
    assert rejected.problem is not None
    assert ("unknown-section", "why") == (rejected.problem.code, rejected.problem.detail)


def test_a_strangers_word_that_a_report_is_too_long_settles_nothing(unit: FieldUnit, stub: Stub) -> None:
    reports = [unit.report(persons()) for _ in range(3)]
    stub.answer = lambda _: Reply(413, b"<html>", {"Content-Type": "text/html"})
    assert not unit.flush(0)
    assert ["pending"] * 3 == states(unit, *reports)
    stub.answer = all_recorded
    wait_for(lambda: unit.flush(0), what="what was passed over to be sent too")
    assert ["delivered"] * 3 == states(unit, *reports)


def test_a_code_from_a_later_gateway_settles_a_report_all_the_same(unit: FieldUnit, stub: Stub) -> None:
    """An app in the field is older than the gateway sooner or later."""
    report = unit.report(persons())
    later = replace(problem("conflict", 422, "why"), code="not-on-sundays")
    stub.answer = lambda request: receipt(Result(id=request.ids[0], status="rejected", problem=later))
    assert unit.flush(0)
    assert ["rejected"] == states(unit, report)


def test_what_failed_for_a_passing_reason_is_sent_again(unit: FieldUnit, stub: Stub) -> None:
    reports = [unit.report(persons()) for _ in range(2)]
    stub.answer = lambda request: receipt(
        recorded(request.ids[0]), result(request.ids[1], "rejected", code="unavailable", retryable=True)
    )
    assert not unit.flush(0)
    assert ["delivered", "pending"] == states(unit, *reports)
    stub.answer = all_recorded
    assert unit.flush(0)
    assert [[str(report.id) for report in reports], [str(reports[1].id)]] == stub.sent


NO_RECEIPT: dict[str, Answering] = {
    "200 with a login page": lambda _: Reply(200, LOGIN_PAGE.partition(b"\r\n\r\n")[2], {"Content-Type": "text/html"}),
    "202 with a login page": lambda _: Reply(202, b"<html>"),
    "202 with nothing": lambda _: Reply(202),
    "202 with half a body": lambda request: Reply(202, all_recorded(request).body[:-9]),
    "202 with another id": lambda request: receipt(
        recorded(request.ids[0]), recorded("018e3a2f-6a1c-7c3e-9f10-2b6d6c1f0a11")
    ),
    "202 with one id twice": lambda request: receipt(*[recorded(request.ids[0])] * 2),
    "202 with one id too few": lambda request: receipt(recorded(request.ids[0])),
    "202 with one too many": lambda request: receipt(*map(recorded, [*request.ids, ""])),
    "202 without ids": lambda request: receipt(*[recorded("")] * len(request.ids)),
    "202 without positions": lambda request: receipt(*(Result(id=i, status="recorded") for i in request.ids)),
    "202 with empty positions": lambda request: receipt(*(recorded(i, position="") for i in request.ids)),
    "202 rejecting without a reason": lambda request: receipt(*(Result(id=i, status="rejected") for i in request.ids)),
    "200 with results": lambda request: all_recorded(request)._replace(status=200),
    "201 with results": lambda request: all_recorded(request)._replace(status=201),
    "204": lambda _: Reply(204),
    "302": lambda _: Reply(302, headers={"Location": "/elsewhere"}),
    "308 to where receipts are": lambda _: Reply(308, headers={"Location": "/v1/events"}),
    "400": lambda _: refused("malformed-request", 400),
    "401": lambda _: refused("not-authenticated", 401),
    "401 from who knows whom": lambda _: Reply(401, b"<html>"),
    "403": lambda _: refused("not-allowed", 403),
    "404": lambda _: refused("not-found", 404),
    "404 from who knows whom": lambda _: Reply(404, b"nothing here"),
    "405": lambda _: refused("method-not-allowed", 405),
    "415": lambda _: refused("unsupported-media-type", 415),
    "429": lambda _: refused("rate-limited", 429, Retry_After="3"),
    "500": lambda _: refused("fault", 500),
    "502": lambda _: Reply(502),
    "503": lambda _: refused("unavailable", 503, Retry_After="3"),
    "511": lambda _: Reply(511, b"<html>"),
    "too long": lambda _: Reply(202, b" " * (sender.ANSWER_BYTES_MAX + 1)),
}


@pytest.mark.parametrize("answer", NO_RECEIPT.values(), ids=NO_RECEIPT)
def test_what_is_no_receipt_leaves_everything_pending_and_is_said(
    unit: FieldUnit, stub: Stub, answer: Answering
) -> None:
    reports = [unit.report(persons()) for _ in range(2)]
    stub.answer = answer
    assert not unit.flush(0)
    assert (["pending"] * 2, 1) == (states(unit, *reports), len(stub.sent))
    assert "wait" in unit.status().trouble
    assert {"GET /v1/devices/me", "POST /v1/events"} == {f"{asked.method} {asked.path}" for asked in stub.asked}

    stub.answer = all_recorded
    unit._sender._not_before = 0.0
    assert unit.flush(10)
    assert (["delivered"] * 2, "") == (states(unit, *reports), unit.status().trouble)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("200 with a login page", "log in to the network"),
        ("302", "log in to the network"),
        ("401", "no longer valid: join again"),
        ("403", "may not report"),
        ("404", "does not take reports here"),
        ("429", "asks for a pause"),
        ("503", "at the moment"),
    ],
)
def test_the_status_says_what_to_do(unit: FieldUnit, stub: Stub, answer: str, words: str) -> None:
    unit.report(persons())
    stub.answer = NO_RECEIPT[answer]
    unit.flush(0)
    assert words in unit.status().trouble


def test_without_a_network_everything_waits_and_the_status_says_so(tmp_path: Path) -> None:
    unit = joined(tmp_path / "outbox.db", NOWHERE)
    unit.report(persons())
    assert not unit.flush(0)
    assert "cannot be reached" in unit.status().trouble
    unit.close()


def test_joining_again_delivers_what_an_old_token_could_not(unit: FieldUnit, stub: Stub, tmp_path: Path) -> None:
    report = unit.report(persons())
    stub.answer = lambda request: (
        all_recorded(request)
        if request.headers["authorization"] == f"Bearer {TOKEN}"
        else refused("not-authenticated", 401)
    )
    FieldUnit.join(tmp_path / "outbox.db", link(stub.url, "o" * len(TOKEN)))
    assert not unit.flush(0)
    FieldUnit.join(tmp_path / "outbox.db", link(stub.url))
    assert "" == unit.status().trouble
    assert unit.flush(0)
    assert ["delivered"] == states(unit, report)


def test_a_clock_that_is_off_is_in_the_status(unit: FieldUnit, stub: Stub) -> None:
    unit.report(persons())
    stub.answer = lambda request: receipt(recorded(request.ids[0], clock_off_s=-300))
    unit.flush(0)
    assert -300 == unit.status().clock_off_s
    unit.report(persons())
    stub.answer = all_recorded
    unit.flush(0)
    assert 0 == unit.status().clock_off_s


# batches


def test_reports_go_in_order_in_batches_by_count(unit: FieldUnit, stub: Stub) -> None:
    reports = [str(unit.report(persons()).id) for _ in range(120)]
    assert unit.flush(0)
    assert [reports[:50], reports[50:100], reports[100:]] == stub.sent


def test_batches_are_limited_in_bytes_too(unit: FieldUnit, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    reports = [unit.report(persons()) for _ in range(5)]
    monkeypatch.setattr(sender, "BATCH_BYTES", 2 * len(reports[0].raw) + 3)
    assert unit.flush(0)
    assert [2, 2, 1] == list(map(len, stub.sent))
    assert 2 * len(reports[0].raw) + 3 == len(stub.posted[0].body)


def test_a_batch_that_is_too_long_is_halved_and_a_single_report_that_is_too_long_is_kept_as_rejected(
    unit: FieldUnit, stub: Stub
) -> None:
    reports = [unit.report(persons()) for _ in range(5)]
    wrong = str(reports[3].id)
    stub.stands = lambda: standing(5, (4, 4)) if stub.sent else standing()
    stub.answer = lambda request: (
        refused("too-large", 413) if len(request.ids) > 2 or wrong in request.ids else all_recorded(request)
    )
    assert unit.flush(0)
    assert [5, 2, 2, 1, 1, 1] == list(map(len, stub.sent))
    assert ["delivered"] * 3 + ["rejected", "delivered"] == states(unit, *reports)
    (rejected,) = unit.rejected()
    assert rejected.problem is not None
    assert ("too-large", False) == (rejected.problem.code, rejected.in_doubt)


@pytest.mark.parametrize("status", [400, 500])
def test_a_report_that_the_gateway_chokes_on_does_not_hold_up_the_others(
    unit: FieldUnit, stub: Stub, status: int
) -> None:
    reports = [unit.report(persons()) for _ in range(9)]
    wrong = str(reports[4].id)
    stub.answer = lambda request: refused("fault", status) if wrong in request.ids else all_recorded(request)
    assert not unit.flush(10)
    assert [reports[4].id] == [report.id for report in unit.pending()]
    assert "cannot make out" in unit.status().trouble


def test_batches_grow_again_after_a_fault(unit: FieldUnit, stub: Stub) -> None:
    for _ in range(100):
        unit.report(persons())
    stub.answer = lambda request: refused("fault", 500) if len(stub.sent) == 1 else all_recorded(request)
    assert unit.flush(10)
    assert [50, 25, 50, 25] == list(map(len, stub.sent))


def test_a_way_that_breaks_behind_some_bytes_gets_fewer_reports_at_a_time_until_it_does_not(
    tmp_path: Path, stub: Stub
) -> None:
    arrived: list[int] = []

    def record(request: Request) -> Reply:
        reply = all_recorded(request)  # raises where it is only a part
        arrived.append(len(request.ids))
        return reply

    stub.answer = record
    with HttpFaults(stub.url) as way:
        unit = joined(tmp_path / "outbox.db", way.url)
        assert unit.flush(0)
        way.sever()
        way.fault = Fault(request_bytes=4_096)
        for _ in range(30):
            unit.report(persons())
        assert unit.flush(10), unit.status().trouble
        assert 30 == sum(arrived)
        way.fault = NO_FAULT
        way.sever()
        for _ in range(100):
            unit.report(persons())
        assert unit.flush(10)
        assert 50 == max(arrived)
        unit.close()


def test_a_report_that_does_not_get_through_alone_lets_the_others_pass_and_waits(tmp_path: Path, stub: Stub) -> None:
    today = NOON.date()
    plan = tuple(SectionPlan(f"s{number}", "x" * 200, "joint") for number in range(30))
    with HttpFaults(stub.url) as way:
        unit = joined(tmp_path / "outbox.db", way.url)
        assert unit.flush(0)
        way.sever()
        way.fault = Fault(request_bytes=4_096)
        long = unit.report(OperationOpenedData("Joint", today, today, plan), subject="OP")
        others = [unit.report(persons()) for _ in range(5)]
        wait_for(lambda: unit.flush(0) or len(unit.pending()) == 1, what="the others to pass")
        assert ["pending"] + ["delivered"] * 5 == states(unit, long, *others)
        for _ in range(3):  # whatever turn it is in the round
            assert not unit.flush(0)
            assert "did not answer" in unit.status().trouble
        way.fault = NO_FAULT
        wait_for(lambda: unit.flush(0), what="the long one to be sent")
        unit.close()


def test_one_attempt_that_breaks_is_repeated_as_it_was(tmp_path: Path, stub: Stub) -> None:
    with HttpFaults(stub.url) as way:
        unit = joined(tmp_path / "outbox.db", way.url)
        assert unit.flush(0)
        for _ in range(3):
            for _ in range(4):
                unit.report(persons())
            way.sever()
            way.fault = Fault(reply_bytes=0)
            assert not unit.flush(0)
            way.fault = NO_FAULT
            assert unit.flush(0)
        assert [4] * 6 == list(map(len, stub.sent))
        unit.close()


def test_where_there_is_no_connection_as_many_go_together_as_before(tmp_path: Path) -> None:
    with stub_gateway() as stub:
        unit = joined(tmp_path / "outbox.db", stub.url)
        stub.stands = lambda: standing()._replace(headers={"Connection": "close"})
        assert unit.flush(0)
    for _ in range(40):
        unit.report(persons())
    for _ in range(4):
        assert not unit.flush(0)
    with stub_gateway(int(stub.url.rpartition(":")[2])) as stub:
        assert unit.flush(0)
        assert [40] == list(map(len, stub.sent))
    unit.close()


# pauses


def test_pauses_begin_again_when_something_went_through_before_it_failed(tmp_path: Path, stub: Stub) -> None:
    pauses: list[float] = []
    unit = joined(tmp_path / "outbox.db", stub.url, pause=lambda _, seconds: pauses.append(seconds))
    for _ in range(12):
        unit.report(persons())
    stub.answer = lambda request: all_recorded(request) if len(request.ids) == 3 else refused("fault", 500)
    assert unit.flush(20)
    assert ([12, 6, 3, 6], [0.5, 1, 0.5]) == (list(map(len, stub.sent))[:4], pauses[:3])
    unit.close()


def test_pauses_grow_with_jitter_up_to_a_limit_and_begin_again_after_success() -> None:
    lowest, highest = Pauses(lambda: 0.0), Pauses(lambda: 1.0)
    assert [0.5, 1, 2, 4, 8, 16, 32, 64, 128, 150, 150] == [lowest.next(Trouble("")) for _ in range(11)]
    assert [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] == [highest.next(Trouble("")) for _ in range(11)]
    lowest.reset()
    assert 0.5 == lowest.next(Trouble(""))
    assert 900 == lowest.next(Trouble("", long=True))
    assert 900 <= Pauses(lambda: 0.0).next(Trouble("", 900.0))


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_the_least_pause_for_a_flush_too(tmp_path: Path, stub: Stub, status: int) -> None:
    clock = [1_000.0]
    pauses: list[float] = []

    def pause(_: threading.Event, seconds: float) -> None:
        pauses.append(seconds)
        clock[0] += seconds

    unit = joined(tmp_path / "outbox.db", stub.url, pause=pause, monotonic=lambda: clock[0])
    unit.report(persons())
    stub.answer = lambda _: refused("unavailable", status, Retry_After="7")
    assert not unit.flush(0)
    assert (1, []) == (len(stub.sent), pauses)
    stub.answer = all_recorded
    assert not unit.flush(0)
    assert 1 == len(stub.sent)  # too early
    assert unit.flush(8)
    assert ([7.0], 2) == (pauses, len(stub.sent))
    unit.close()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        ("0", 0),
        (" 12 ", 12),
        (format_datetime(NOON + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOON - timedelta(seconds=90), usegmt=True), 0),
        ("999999999999999999999", sender.RETRY_AFTER_S_MAX),
        ("Thu, 14 Mar 2999 12:00:00 GMT", sender.RETRY_AFTER_S_MAX),
        ("", 0),
        ("-5", 0),
        ("soon", 0),
        ("٣", 0),
        ("Thu, 99 Mar 2024 12:00:00 GMT", 0),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date_and_has_a_limit(text: str, seconds: float) -> None:
    assert seconds == read_retry_after(text, NOON)


def test_any_answer_at_all_is_a_trouble_in_words() -> None:
    random = Random(20240314)
    for status in range(100, 600):
        body = random.choice([b"", b"{", random.randbytes(40), msgspec.json.encode(problem("fault", 500, "why"))])
        media_type = random.choice(["", "application/problem+json"])
        assert trouble_of(Answer(status, random.choice(["", "1", "x"]), media_type, body), NOON).text


# in the background


def test_the_background_sender_delivers_what_is_reported(tmp_path: Path, stub: Stub) -> None:
    with joined(tmp_path / "outbox.db", stub.url, pause=threading.Event.wait) as unit:
        reports = [unit.report(persons()) for _ in range(3)]
        wait_for(lambda: not unit.pending(), what="delivery")
        assert ["delivered"] * 3 == states(unit, *reports)


def test_a_new_report_and_a_close_end_a_pause(tmp_path: Path, stub: Stub) -> None:
    stub.answer = NO_RECEIPT["401"]  # a pause of minutes
    with joined(tmp_path / "outbox.db", stub.url, pause=threading.Event.wait) as unit:
        unit.report(persons())
        wait_for(lambda: unit.status().trouble, what="the first attempt")
        stub.answer = all_recorded
        unit.report(persons())
        wait_for(lambda: not unit.pending(), what="delivery")
    assert unit._thread is not None
    assert not unit._thread.is_alive()


def test_a_flush_waits_for_who_is_sending_and_only_one_sends(tmp_path: Path, stub: Stub) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def slowly(request: Request) -> Reply:
        arrived.set()
        assert go_on.wait(10)
        return all_recorded(request)

    stub.answer = slowly
    one = joined(tmp_path / "outbox.db", stub.url)
    other = FieldUnit(tmp_path / "outbox.db", pause=lambda *_: go_on.set())
    one.report(persons())
    with one:
        assert arrived.wait(10)
        assert not other.flush(0)
        assert other.flush(10)
    other.close()
    assert 1 == len(stub.sent)


def test_the_sender_survives_a_fault(tmp_path: Path, stub: Stub) -> None:
    told = []

    def faulty(text: str) -> None:
        told.append(text)
        if len(told) == 1:
            raise RuntimeError

    stub.stands = lambda: standing(7)
    with joined(tmp_path / "outbox.db", stub.url, on_notice=faulty, pause=lambda wake, _: wake.wait(0.01)) as unit:
        unit.report(persons())
        wait_for(lambda: not unit.pending(), what="delivery")
    assert 1 == len(told)


# looking for what the log has lost


def looks(stub: Stub) -> int:
    return sum(request.method == "GET" for request in stub.asked)


def test_the_log_is_looked_at_once_an_hour_whatever_is_pending(tmp_path: Path, stub: Stub) -> None:
    clock = [0.0]
    with_clock = {"now": lambda: NOON + timedelta(seconds=clock[0]), "monotonic": lambda: clock[0]}
    unit = joined(tmp_path / "outbox.db", stub.url, **with_clock)
    for at, expected in ((0, 1), (1, 1), (3_599, 1), (3_601, 2), (3_700, 2), (7_300, 3)):
        clock[0] = at
        assert unit.flush(0)
        assert expected == looks(stub), at
    unit.close()

    unit = FieldUnit(tmp_path / "outbox.db", **with_clock)
    assert unit.flush(0)
    assert 3 == looks(stub)  # another process has looked a moment ago
    unit.report(persons())
    assert unit.flush(0)
    assert 4 == looks(stub)  # an old copy of an outbox must learn so before it sends
    unit.close()


def test_a_sender_in_the_background_looks_with_nothing_pending(tmp_path: Path, stub: Stub) -> None:
    with joined(tmp_path / "outbox.db", stub.url, pause=lambda wake, _: wake.wait(0.01)):
        wait_for(lambda: looks(stub), what="a look")


def test_a_look_that_fails_is_no_trouble_once_the_next_one_succeeds(unit: FieldUnit, stub: Stub) -> None:
    stub.stands = lambda: Reply(200, b"<html>")
    assert unit.flush(0)  # nothing is pending
    assert "login page" in unit.status().trouble
    stub.stands = standing
    assert unit.flush(0)
    assert "" == unit.status().trouble


# what outlives a process


def test_a_pause_that_the_gateway_asked_for_binds_the_next_process_too(tmp_path: Path, stub: Stub) -> None:
    now = [NOON]
    stub.answer = lambda _: refused("rate-limited", 429, Retry_After="100")

    def flushed() -> bool:
        unit = joined_before(tmp_path, now=lambda: now[0])
        done = unit.flush(0)
        unit.close()
        return done

    joined(tmp_path / "outbox.db", stub.url).close()
    unit = joined_before(tmp_path)
    unit.report(persons())
    unit.close()
    assert not flushed()
    stub.answer = all_recorded
    for later_s, sent in ((99, 1), (-3_600, 2)):
        now[0] = NOON + timedelta(seconds=later_s)
        assert (later_s < 0) == flushed()  # a clock that was set back ends it
        assert sent == len(stub.sent)


def test_a_pause_that_is_over_binds_nobody_and_joining_again_ends_one(tmp_path: Path, stub: Stub) -> None:
    stub.answer = lambda _: refused("rate-limited", 429, Retry_After="100")
    unit = joined(tmp_path / "outbox.db", stub.url, now=lambda: NOON)
    unit.report(persons())
    assert not unit.flush(0)
    unit.close()
    unit = joined_before(tmp_path, now=lambda: NOON + timedelta(seconds=101))
    assert not unit.flush(0)
    assert 2 == len(stub.sent)
    stub.answer = all_recorded
    unit.close()
    unit = joined(tmp_path / "outbox.db", stub.url, now=lambda: NOON + timedelta(seconds=102))
    assert unit.flush(0)
    unit.close()


def joined_before(tmp_path: Path, **more: Any) -> FieldUnit:
    return FieldUnit(tmp_path / "outbox.db", **{"pause": lambda *_: None, "jitter": lambda: 0.0, **more})


# what cannot be reached


@contextmanager
def trickling(start: bytes) -> Iterator[tuple[str, threading.Event]]:
    """Answer with a start and then byte by byte for ever; tell of who has hung up."""
    hung_up, over = threading.Event(), threading.Event()

    def serve(listener: socket.socket) -> None:
        with suppress(OSError), listener:
            client, _ = listener.accept()
            with client:
                client.recv(65_536)
                client.sendall(start)
                while not over.wait(0.02):
                    try:
                        client.sendall(b"a")
                    except OSError:
                        hung_up.set()
                        return

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, args=(listener,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", hung_up
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"],
                         ids=("headers", "body"))  # fmt: skip
def test_an_answer_that_trickles_is_broken_off_wherever_it_is(
    tmp_path: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    """No single wait is long, so only a limit on the whole ends it; nobody else may send meanwhile."""
    monkeypatch.setattr(sender, "ANSWER_S_MAX", 0.3)
    with trickling(start) as (address, hung_up):
        unit = joined(tmp_path / "outbox.db", address)
        unit.report(persons())
        flushing = threading.Thread(target=unit.flush, args=(0,), daemon=True)
        flushing.start()
        assert hung_up.wait(10)
        flushing.join(10)
        assert not flushing.is_alive()
    assert "did not answer" in unit.status().trouble
    FieldUnit.join(tmp_path / "outbox.db", link(stub.url))
    assert unit.flush(0)
    unit.close()


def test_a_gateway_that_speaks_no_tls_is_told_from_one_that_is_away(tmp_path: Path, stub: Stub) -> None:
    unit = joined(tmp_path / "outbox.db", stub.url.replace("http:", "https:"))
    unit.report(persons())
    assert not unit.flush(0)
    assert "plain http" in unit.status().trouble
    unit.close()
