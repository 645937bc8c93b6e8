from __future__ import annotations

import json
import multiprocessing
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from uuid import UUID, uuid4

import pytest

from schemas import codec
from schemas.events import (
    ApprehensionData,
    CitizenshipCount,
    CustodyData,
    NilReportData,
    OperationClosedData,
    OperationOpenedData,
    SectionPlan,
    SmugglerArrestData,
    WithdrawalData,
)
from schemas.http import Code, Result, problem
from services.field import FieldUnit, NotJoinedError, OutboxError, RefusedError
from services.field.link import TOKEN_CHARACTERS
from services.runtime.entropy import new_token
from services.runtime.errors import UsageError
from tests import given
from tests.services.field.patrols import (
    NOWHERE,
    SOURCE,
    Reply,
    Stub,
    all_recorded,
    joined,
    link,
    persons,
    receipt,
    recorded,
    standing,
    stub_gateway,
)

MORNING = datetime(2024, 3, 14, 3, 12, 9, tzinfo=UTC)


NIGHT = NilReportData("koper", MORNING - timedelta(hours=3), MORNING)


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    return tmp_path / "field" / "outbox.db"


@pytest.fixture
def unit(outbox: Path) -> Iterator[FieldUnit]:
    """A unit without a network."""
    unit = joined(outbox)
    yield unit
    unit.close()


def rejecting(*idents: UUID, code: Code = "unknown-section") -> object:
    """Return how a stub answers that rejects these and records the rest."""
    refused = {str(ident) for ident in idents}
    status = "conflict" if code == "conflict" else "rejected"
    return lambda request: receipt(
        *(
            Result(id=ident, status=status, problem=problem(code, 422, "no")) if ident in refused else recorded(ident)
            for ident in request.ids
        )
    )


# joining


def test_an_outbox_alone_is_enough_after_joining(outbox: Path) -> None:
    FieldUnit.join(outbox, link())
    unit = FieldUnit(outbox)
    assert (SOURCE, NOWHERE, 0) == (unit.status().source, unit.status().address, unit.status().pending)
    unit.close()


def test_without_joining_there_is_nothing_to_report_with(outbox: Path) -> None:
    with pytest.raises(NotJoinedError, match="join first"):
        FieldUnit(outbox)
    assert not outbox.exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("", "http://HOST"),
        ("hello", "http://HOST"),
        ("ftp://host/#token=" + "t" * 43, "http://HOST"),
        ("http://host:port/#x", "cannot be read"),
        ("http://user:word@host/#token=" + "t" * 43, "a user"),
        ("http://host/", "no token"),
        ("http://host/#token=tttttttt&source=/SI/U/D", "8 characters instead of 43"),
        ("http://host/#token=" + "t" * 44 + "&source=/SI/U/D", "44 characters instead of 43"),
        ("http://host/#token=" + "t" * 42 + "%&source=/SI/U/D", "no token"),
        ("http://host/#token=" + "t" * 30 + "\n" + "t" * 13 + "&source=/SI/U/D", "line break"),
        ("Your link: http://host/#token=" + "t" * 43 + "&source=/SI/U/D", "no text around it"),
        ("http://host/#token=" + "t" * 43, "no source"),
        ("http://host/#token=" + "t" * 43 + "&source=/si/u/d", "two capital letters"),
    ],
)
def test_what_is_no_link_is_refused_in_words_that_hold_no_token(outbox: Path, wrong: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        FieldUnit.join(outbox, wrong)
    assert "ttttt" not in str(caught.value)
    assert not outbox.exists()


def test_a_link_holds_a_token_as_long_as_those_that_are_made() -> None:
    assert len(new_token()) == TOKEN_CHARACTERS


@pytest.mark.parametrize("around", ["  {}\n", "<{}>", "<{}>.", '"{}"', "'{}',", "„{}“", "({}).", "{};"])
def test_a_link_is_taken_out_of_what_a_mail_leaves_around_it(outbox: Path, around: str) -> None:
    FieldUnit.join(outbox, around.format(link()))
    unit = FieldUnit(outbox)
    assert (SOURCE, NOWHERE) == (unit.status().source, unit.status().address)
    unit.close()


def test_only_its_owner_can_read_an_outbox(outbox: Path, unit: FieldUnit) -> None:
    unit.report(persons())
    assert {0o600} == {path.stat().st_mode & 0o777 for path in outbox.parent.iterdir()}
    assert 3 <= len(list(outbox.parent.iterdir()))  # with what SQLite puts beside it


def test_the_disk_has_a_report_before_anybody_hears_so(unit: FieldUnit) -> None:
    db = unit._outbox._db
    assert ("wal", 2) == (
        db.execute("PRAGMA journal_mode").fetchone()[0],
        db.execute("PRAGMA synchronous").fetchone()[0],
    )


def test_another_unit_cannot_take_over_an_outbox_with_reports_in_it(outbox: Path, unit: FieldUnit) -> None:
    other = link(source="/SI/SI-MP-08/aaaaaa")
    unit.report(persons())
    with pytest.raises(RefusedError, match=r"undelivered reports of /SI/SI-MP-07/9f3c2a: send what waits \(1\) with"):
        FieldUnit.join(outbox, other)
    FieldUnit.join(outbox, link(source="/SI/SI-MP-07/bbbbbb"))  # the same unit's next device may
    assert 1 == unit.report(persons()).number
    assert ["/SI/SI-MP-07/9f3c2a", "/SI/SI-MP-07/bbbbbb"] == [report.event.source for report in unit.pending()]


def test_what_is_no_outbox_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("shopping " * 200)
    with pytest.raises(OutboxError, match=r"notes\.txt"):
        FieldUnit(path)
    assert "shopping " * 200 == path.read_text()


def test_an_outbox_of_a_later_format_is_left_alone(outbox: Path, unit: FieldUnit) -> None:
    unit.close()
    with sqlite3.connect(outbox) as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(OutboxError, match="another version"):
        FieldUnit(outbox)


# reporting


@pytest.mark.parametrize(
    "data",
    [
        ApprehensionData("koper", (CitizenshipCount("SYR", 4), CitizenshipCount("AFG", 3))),
        SmugglerArrestData("koper", "K-1", True, (CitizenshipCount("UKR", 1),), ()),
        CustodyData("K-1", (CitizenshipCount("UKR", 1),)),
        NilReportData("koper", MORNING - timedelta(hours=3), MORNING),
        OperationOpenedData("Joint", date(2024, 3, 13), date(2024, 3, 15), (SectionPlan("koper", "Koper", "joint"),)),
        OperationClosedData(date(2024, 3, 15)),
    ],
    ids=lambda data: type(data).__name__,
)
def test_a_report_is_an_event_in_canonical_bytes(unit: FieldUnit, data: object) -> None:
    report = unit.report(data, subject=given.OPERATION, time=MORNING)
    event = codec.decode(report.raw)
    assert report.raw == codec.encode(event)
    assert (data, report.id, SOURCE, 1, "SI", given.OPERATION, MORNING) == (
        event.data, event.id, event.source, event.reportno, event.side, event.subject, event.time,
    )  # fmt: skip
    assert ([report], 7, "pending") == (unit.pending(), event.id.version, report.state)


def test_the_time_of_a_report_is_now_unless_it_is_said(outbox: Path) -> None:
    unit = joined(outbox, now=lambda: MORNING.replace(microsecond=5))
    assert MORNING == unit.report(persons()).event.time
    unit.close()


@pytest.mark.parametrize(
    ("data", "options", "pointer", "said"),
    [
        (persons(SYR=0), {}, "$.data.persons[0].count", ">= 1"),
        (persons(XYZ=1), {}, "$.data.persons[0].citizenship", "three capital letters"),
        (ApprehensionData("koper", ()), {}, "$.data.persons", "length >= 1"),
        (persons(), {"subject": "no blanks"}, "$", "`subject`"),
        (persons(), {"time": datetime(2024, 3, 14)}, "$.time", "timezone"),  # noqa: DTZ001
        (WithdrawalData("duplicate"), {}, "$", "a withdrawal needs `amends`"),
        (OperationClosedData(date(2024, 3, 15)), {}, "$", "must name the operation"),
        (ApprehensionData("koper", ({"citizenship": "SYR", "count": 1, "x": 1},)), {}, "$.data.persons[0]", "unknown"),
        ({"section": "koper"}, {}, "$", "nothing that can be reported"),
        ("x", {}, "$", "str is nothing that can be reported"),
        (None, {}, "$", "NoneType is nothing that can be reported"),
        (persons(), {"time": "2024-03-14T03:12:09Z"}, "$.time", "a datetime with an offset, no str"),
        (persons(), {"time": date(2024, 3, 14)}, "$.time", "a datetime with an offset, no date"),
        (persons(), {"subject": 5}, "$.subject", "a text, empty for none, no int"),
        (ApprehensionData("koper", (object(),)), {}, "$", "of the wrong type"),
    ],
)
def test_what_breaks_a_rule_is_refused_before_it_is_stored(
    unit: FieldUnit, data: object, options: dict[str, object], pointer: str, said: str
) -> None:
    with pytest.raises(RefusedError, match=said.replace("(", r"\(")) as caught:
        unit.report(data, **options)
    assert pointer == caught.value.pointer
    assert 1 == unit.report(persons()).number  # no number is lost with it


def test_a_report_that_no_gateway_could_take_is_refused(unit: FieldUnit) -> None:
    sections = tuple(SectionPlan(f"s{number}", "x" * 200, "joint") for number in range(300))
    data = OperationOpenedData("Joint", date(2024, 3, 13), date(2024, 3, 15), sections)
    with pytest.raises(RefusedError, match="65,536"):
        unit.report(data, subject="op")
    assert [] == unit.pending()


def test_a_disk_that_takes_no_more_is_said_and_nothing_is_half_stored(unit: FieldUnit) -> None:
    first = unit.report(persons())
    pages = unit._outbox._db.execute("PRAGMA page_count").fetchone()[0]
    unit._outbox._db.execute(f"PRAGMA max_page_count = {pages}")
    stored = 1
    with pytest.raises(OutboxError, match="full"):  # noqa: PT012  # how many still fit is SQLite's business
        while stored < 100:
            unit.report(persons())
            stored += 1
    unit._outbox._db.execute("PRAGMA max_page_count = 100000")
    numbers = [report.number for report in unit.pending()]
    assert first.id == unit.pending()[0].id
    assert list(range(1, stored + 2)) == [*numbers, unit.report(persons()).number]


def test_a_reason_of_sqlites_is_said_with_the_file_and_the_next_step(outbox: Path, unit: FieldUnit) -> None:
    unit._outbox._db.execute("PRAGMA query_only = 1")  # what a file looks like that this user may not write
    with pytest.raises(OutboxError, match=r"outbox\.db cannot be used: this user may not write .* was not stored"):
        unit.report(persons())
    unit.close()
    outbox.unlink()
    outbox.mkdir()
    with pytest.raises(OutboxError, match="set the rights of the file and its folder"):
        FieldUnit(outbox)


# finding


def test_a_report_is_found_by_its_number_and_by_how_late_it_is(unit: FieldUnit) -> None:
    reports = [unit.report(persons(SYR=count)) for count in (1, 2, 3)]
    assert reports[1] == unit.numbered(2)
    assert reports[::-1] == unit.history()
    assert [reports[2]] == unit.history(1)
    with pytest.raises(RefusedError, match="no report of this outbox has the number 4"):
        unit.numbered(4)


def test_a_number_that_two_devices_have_used_is_not_guessed(outbox: Path, unit: FieldUnit) -> None:
    first = unit.report(persons())
    FieldUnit.join(outbox, link(source="/SI/SI-MP-07/bbbbbb"))
    second = unit.report(persons())
    with pytest.raises(RefusedError, match=f"say which by its id, {first.id} and {second.id}"):
        unit.numbered(1)


# amending


def test_an_amendment_names_the_original_and_the_next_revision(unit: FieldUnit) -> None:
    original = unit.report(persons(SYR=4), subject="op", time=MORNING)
    first = unit.amend(original.id, persons(SYR=5))
    second = unit.amend(str(first.id), persons(SYR=6), subject="")
    last = unit.withdraw(second.id, "did-not-occur")
    assert [(original.id, 1), (original.id, 2), (original.id, 3)] == [
        (report.event.amends, report.event.revision) for report in (first, second, last)
    ]
    assert [("op", MORNING), ("", MORNING), ("", MORNING)] == [
        (report.event.subject, report.event.time) for report in (first, second, last)
    ]
    assert persons(SYR=6) == second.event.data
    assert 4 == len({report.id for report in unit.pending()})


def test_a_report_of_another_outbox_is_amended_with_everything_said(unit: FieldUnit) -> None:
    other = uuid4()
    with pytest.raises(RefusedError, match="time"):
        unit.amend(other, persons())
    first = unit.amend(other, persons(), subject="", time=MORNING)
    assert (other, 1) == (first.event.amends, first.event.revision)
    assert (other, 2) == ((second := unit.amend(first.id, persons())).event.amends, second.event.revision)


@pytest.mark.parametrize("kind", [lambda: CustodyData("K-1", (CitizenshipCount("UKR", 1),)), lambda: NIGHT])
def test_a_report_is_amended_by_one_of_its_kind_or_withdrawn(unit: FieldUnit, kind: object) -> None:
    original = unit.report(persons())
    amended = unit.amend(original.id, persons(SYR=2))
    withdrawn = unit.withdraw(original.id, "did-not-occur")
    for ident in (original.id, amended.id, withdrawn.id):
        with pytest.raises(RefusedError, match="is of kind apprehension, so it is amended by another apprehension or"):
            unit.amend(ident, kind())
    assert 3 == len(unit.pending())
    assert 3 == unit.amend(withdrawn.id, persons(SYR=3)).revision


@pytest.mark.parametrize("wrong", [5, None, object()])
def test_what_is_not_even_a_text_is_no_id(unit: FieldUnit, wrong: object) -> None:
    with pytest.raises(RefusedError, match="is no id of a report"):
        unit.amend(wrong, persons())


@pytest.mark.parametrize("act", [lambda unit, ident: unit.amend(ident, persons()), FieldUnit.discard, FieldUnit.find])
def test_what_is_no_id_is_named(unit: FieldUnit, act: object) -> None:
    with pytest.raises(RefusedError, match="'no id' is no id"):
        act(unit, "no id")


def test_a_wrong_reason_for_a_withdrawal_is_refused(unit: FieldUnit) -> None:
    report = unit.report(persons())
    with pytest.raises(RefusedError, match="did-not-occur"):
        unit.withdraw(report.id, "because")


# rejected reports


@pytest.fixture
def online(outbox: Path, stub: Stub) -> Iterator[FieldUnit]:
    """A unit with a gateway."""
    unit = joined(outbox, stub.url)
    yield unit
    unit.close()


def test_what_corrects_a_rejected_report_is_a_new_one_under_its_number(online: FieldUnit, stub: Stub) -> None:
    """It is not in the log, so there is nothing to amend; and nobody shall miss its number for ever."""
    wrong = online.report(persons("kopr"), subject="op", time=MORNING)
    after = online.report(persons())
    stub.answer = rejecting(wrong.id)
    assert online.flush()
    assert ["unknown-section"] == [report.problem.code for report in online.rejected() if report.problem]
    right = online.amend(wrong.id, persons("koper"))
    assert (None, 0, 1, "op", MORNING) == (
        right.amends, right.revision, right.number, right.event.subject, right.event.time,
    )  # fmt: skip
    assert ("corrected", [], 3) == (online.find(wrong.id).state, online.rejected(), online.report(persons()).number)
    assert online.flush()
    assert ["delivered"] * 2 == [online.find(report.id).state for report in (after, right)]


def test_an_amendment_of_a_corrected_report_amends_its_correction(online: FieldUnit, stub: Stub) -> None:
    wrong = online.report(persons("kopr"))
    stub.answer = rejecting(wrong.id)
    online.flush()
    assert wrong.id == online.numbered(1).id
    right = online.amend(wrong.id, persons("koper"))
    assert right == online.numbered(1)
    again = online.amend(wrong.id, persons("koper", SYR=2))
    assert (right.id, 1) == (again.amends, again.revision)


def test_amendments_of_a_rejected_original_still_go_out(online: FieldUnit, stub: Stub) -> None:
    """They carry the whole content, so what was wrong may be right in them; then the chain is amended further."""
    wrong = online.report(persons("kopr"))
    amended = online.amend(wrong.id, persons("koper"))
    stub.answer = rejecting(wrong.id)
    online.flush()
    assert ("rejected", "delivered") == (online.find(wrong.id).state, online.find(amended.id).state)
    last = online.amend(wrong.id, persons("koper", SYR=3))
    assert (wrong.id, 2, "corrected") == (last.amends, last.revision, online.find(wrong.id).state)


def test_a_rejected_original_with_its_rejected_amendments_is_corrected_by_one_report(
    online: FieldUnit, stub: Stub
) -> None:
    wrong = online.report(persons("kopr"))
    worse = online.amend(wrong.id, persons("kper"))
    stub.answer = rejecting(wrong.id, worse.id)
    online.flush()
    right = online.amend(worse.id, persons("koper"))
    assert (None, 1, []) == (right.amends, right.number, online.rejected())


def test_a_conflicting_amendment_is_corrected_with_the_next_revision(online: FieldUnit, stub: Stub) -> None:
    """The log has another first amendment: from a lost copy of this outbox, or from the headquarters."""
    original = online.report(persons())
    mine = online.amend(original.id, persons(SYR=2))
    stub.answer = rejecting(mine.id, code="conflict")
    online.flush()
    assert "rejected" == online.find(mine.id).state
    again = online.amend(original.id, persons(SYR=2))
    assert (original.id, 2, 3) == (again.amends, again.revision, again.number)


def test_an_original_in_conflict_is_amended_since_the_log_has_something_under_its_id(
    online: FieldUnit, stub: Stub
) -> None:
    mine = online.report(persons())
    stub.answer = rejecting(mine.id, code="conflict")
    online.flush()
    again = online.amend(mine.id, persons(SYR=2))
    assert (mine.id, 1, 2) == (again.amends, again.revision, again.number)


def test_a_rejected_report_can_be_discarded_and_is_still_there(online: FieldUnit, stub: Stub) -> None:
    wrong = online.report(persons("kopr"))
    with pytest.raises(RefusedError, match="pending"):
        online.discard(wrong.id)
    stub.answer = rejecting(wrong.id)
    online.flush()
    with pytest.raises(RefusedError, match="nothing to withdraw"):
        online.withdraw(wrong.id, "did-not-occur")
    assert "discarded" == online.discard(wrong.id).state
    assert ([], [wrong.id]) == (online.rejected(), [report.id for report in online.discarded()])
    with pytest.raises(RefusedError, match="was discarded"):
        online.amend(wrong.id, persons())
    stub.answer = all_recorded


def test_a_report_that_was_sent_before_without_an_answer_is_amended_though_it_is_rejected(
    online: FieldUnit, stub: Stub
) -> None:
    """It was recorded then: a new report beside it would count twice, an amendment counts once."""
    wrong = online.report(persons("kopr"))
    lose_the_answer(online, stub)
    stub.stands = lambda: standing(1)
    stub.answer = rejecting(wrong.id)
    assert online.flush()
    assert online.find(wrong.id).in_doubt
    with pytest.raises(RefusedError, match="may be in the log, although it was rejected: withdraw it"):
        online.discard(wrong.id)
    right = online.amend(wrong.id, persons("koper"))
    last = online.withdraw(wrong.id, "did-not-occur")
    assert [(wrong.id, 1, 2), (wrong.id, 2, 3)] == [(made.amends, made.revision, made.number) for made in (right, last)]
    assert "corrected" == online.find(wrong.id).state


def lose_the_answer(unit: FieldUnit, stub: Stub) -> None:
    stub.answer = lambda _: Reply(200, b"lost")
    assert not unit.flush(0)


def looks(stub: Stub) -> int:
    return sum(request.method == "GET" for request in stub.asked)


@pytest.mark.parametrize(("highest", "missing"), [(0, ()), (9, ((1, 2), (4, 8)))], ids=("above", "missing"))
def test_what_the_log_has_not_got_is_not_in_doubt_once_it_was_asked_which_it_is_at_once(
    online: FieldUnit, stub: Stub, highest: int, missing: tuple[tuple[int, int], ...]
) -> None:
    first, second = (online.report(persons("kopr"), subject="none") for _ in range(2))
    lose_the_answer(online, stub)
    before = looks(stub)
    stub.stands = lambda: standing(highest, *missing)
    stub.answer = rejecting(first.id, second.id)
    assert online.flush()
    assert ([False, False], before + 1) == ([report.in_doubt for report in online.rejected()], looks(stub))
    right = online.amend(first.id, persons("koper"), subject="")
    assert (None, 0, 1) == (right.amends, right.revision, right.number)
    assert "discarded" == online.discard(second.id).state
    assert online.flush()
    assert before + 1 == looks(stub)


def test_what_is_in_doubt_stays_so_where_the_log_cannot_be_asked_and_the_next_process_asks(
    outbox: Path, online: FieldUnit, stub: Stub
) -> None:
    wrong = online.report(persons("kopr"))
    lose_the_answer(online, stub)
    stub.answer, stub.stands = rejecting(wrong.id), lambda: Reply(503)
    online.flush()
    assert online.find(wrong.id).in_doubt
    stub.stands = standing
    with closing(FieldUnit(outbox)) as unit:
        assert unit.flush(0)
        assert not unit.find(wrong.id).in_doubt


def test_a_conflict_is_in_doubt_whatever_the_log_says_of_its_number(online: FieldUnit, stub: Stub) -> None:
    wrong = online.report(persons())
    lose_the_answer(online, stub)
    stub.answer = rejecting(wrong.id, code="conflict")
    assert online.flush()
    assert online.find(wrong.id).in_doubt


def test_the_doubt_about_an_earlier_devices_report_stays_since_its_numbers_are_not_ours(
    outbox: Path, online: FieldUnit, stub: Stub
) -> None:
    wrong = online.report(persons("kopr"))
    lose_the_answer(online, stub)
    FieldUnit.join(outbox, link(stub.url, source="/SI/SI-MP-07/aaaaaa"))
    answer = standing()
    stub.stands = lambda: answer._replace(body=answer.body.replace(b"9f3c2a", b"aaaaaa"))
    stub.answer = rejecting(wrong.id)
    assert online.flush()
    assert online.find(wrong.id).in_doubt


def test_a_correction_that_is_rejected_too_goes_out_as_a_new_report_once_the_log_has_neither(
    online: FieldUnit, stub: Stub
) -> None:
    wrong = online.report(persons("kopr"))
    lose_the_answer(online, stub)
    stub.answer, stub.stands = rejecting(wrong.id), lambda: Reply(503)
    online.flush()
    worse = online.amend(wrong.id, persons("kper"))  # offline: nobody could be asked
    assert wrong.id == worse.amends
    stub.answer, stub.stands = rejecting(worse.id), standing
    assert online.flush()
    right = online.amend(worse.id, persons("koper"))
    assert (None, 2) == (right.amends, right.number)


def test_an_attempt_without_a_connection_is_none_so_what_is_rejected_then_is_not_in_doubt(outbox: Path) -> None:
    """Nothing had left the device. The log is not even asked: it has a report of this number, from who knows whom."""
    with stub_gateway() as stub:
        unit = joined(outbox, stub.url)
        stub.stands = lambda: standing()._replace(headers={"Connection": "close"})
        assert unit.flush(0)  # so that the reports are what the next attempt is about
    report = unit.report(persons("kopr"))
    for _ in range(3):
        assert not unit.flush(0)
        assert "cannot be reached" in unit.status().trouble
    with stub_gateway(int(stub.url.rpartition(":")[2])) as stub:
        stub.stands, stub.answer = lambda: standing(1), rejecting(report.id)
        assert unit.flush(0)
        assert (1, 0) == (len(stub.sent), looks(stub))
    assert "discarded" == unit.discard(report.id).state
    unit.close()


def test_an_attempt_without_a_connection_takes_back_no_earlier_one(outbox: Path) -> None:
    with stub_gateway() as stub:
        unit = joined(outbox, stub.url)
        report = unit.report(persons("kopr"))
        stub.answer = lambda _: Reply(200, b"lost", {"Connection": "close"})
        for _ in range(2):
            assert not unit.flush(0)
    for _ in range(3):
        assert not unit.flush(0)
    with stub_gateway(int(stub.url.rpartition(":")[2])) as stub:
        stub.stands, stub.answer = lambda: standing(1), rejecting(report.id)
        assert unit.flush(0)
    assert unit.find(report.id).in_doubt
    unit.close()


# several processes


def _mint(outbox: Path, seed: int, start: object) -> None:
    unit = FieldUnit(outbox)
    random = Random(seed)
    start.wait()
    for number in range(50):
        report = unit.report(persons(SYR=seed + 1))
        if random.random() < 0.3:
            unit.amend(report.id, persons(AFG=number + 1))
    unit.close()


def test_several_processes_at_once_give_no_number_and_no_id_twice_and_leave_none_out(outbox: Path) -> None:
    FieldUnit.join(outbox, link())
    context = multiprocessing.get_context("fork")
    start = context.Event()
    processes = [context.Process(target=_mint, args=(outbox, seed, start)) for seed in range(4)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join(60)
    assert [0] * 4 == [process.exitcode for process in processes]
    unit = FieldUnit(outbox)
    reports = unit.pending()
    unit.close()
    assert 200 <= len(reports)
    assert list(range(1, len(reports) + 1)) == [report.number for report in reports]
    assert len(reports) == len({report.id for report in reports})
    assert [report.number for report in reports] == [json.loads(report.raw)["reportno"] for report in reports]


def test_amendments_of_one_report_by_several_processes_have_revisions_of_their_own(outbox: Path) -> None:
    one, two = joined(outbox), FieldUnit(outbox)
    original = one.report(persons())
    made = [unit.amend(original.id, persons(SYR=2)).revision for unit in (one, two, two, one)]
    assert [1, 2, 3, 4] == made
    one.close()
    two.close()
