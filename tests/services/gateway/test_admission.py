"""Admission: what may become an event of the log is its canonical bytes; anything else is rejected in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from schemas import codec
from schemas.events import OperationClosed, OperationOpened
from schemas.http import CODES
from schemas.principals import Principal, Role
from schemas.tallies import Operation
from schemas.vocabulary import Position, Side
from services.gateway.admission import (
    EVENT_BYTES_MAX,
    Admitted,
    Held,
    Rejected,
    Repeated,
    admit,
    clock_off_s,
    last_day,
    refuse,
    refuse_amendment,
    settle,
)
from services.tally.operations import put_in
from tests import given

SIDES = {Side("SI"), Side("HR")}
EVENT = given.apprehension(id=1, persons={"SYR": 4})


def test_an_event_is_admitted_in_its_canonical_bytes() -> None:
    written = json.dumps(dict(reversed(json.loads(EVENT).items())), indent=2).encode()
    assert written != EVENT
    assert Admitted(codec.decode(EVENT), EVENT) == admit(written, SIDES)


@examples(given.documents("SI"))
def test_every_event_of_every_type_is_admitted(document: given.Document) -> None:
    raw = given.as_json(document)
    decision = admit(raw, SIDES)
    assert isinstance(decision, Admitted)
    assert codec.decode(raw) == decision.event == codec.decode(decision.canonical)
    assert decision == admit(decision.canonical, SIDES)


@examples(st.binary() | st.text().map(str.encode) | st.recursive(st.none() | st.integers(), st.lists).map(
    lambda value: json.dumps(value).encode()
))  # fmt: skip
def test_nothing_makes_it_raise(raw: bytes) -> None:
    assert isinstance(admit(raw, SIDES), Rejected)


@pytest.mark.parametrize(
    ("changed", "pointer", "rule"),
    [
        ({"side": "HR"}, "$", "`side` is not the side in `source`"),
        ({"source": "SI-MP-07"}, "$", "`source` is /side/unit/device"),
        ({"time": "2024-03-14T03:12:09"}, "$.time", "timezone"),
        ({"reportno": 0}, "$.reportno", ">= 1"),
        ({"officer": "x"}, "$", "unknown field `officer`"),
        ({"amends": given.uid(2)}, "$", "`amends` without `revision`"),
        ({"data": {"section": "koper", "persons": []}}, "$.data.persons", "length >= 1"),
        ({"specversion": "0.3"}, "$.specversion", "not one of the allowed values"),
        ({"type": "org.fieldtally.patrol.v1"}, "$.type", "no event type of that name"),
    ],
)
def test_a_broken_rule_is_named_with_its_place(changed: given.Document, pointer: str, rule: str) -> None:
    decision = admit(given.as_json(json.loads(EVENT) | changed), SIDES)
    assert isinstance(decision, Rejected)
    assert given.uid(1) == decision.id
    assert f"at {pointer}: " in decision.problem.detail
    assert rule in decision.problem.detail


def test_an_event_without_a_readable_id_is_rejected_without_one() -> None:
    for raw in (b"", b"{", b"[]", b'{"id": "1"}', b"\xff"):
        decision = admit(raw, SIDES)
        assert isinstance(decision, Rejected)
        assert "" == decision.id
        assert decision.problem


def test_a_side_without_a_log_here_is_named_with_those_that_have_one() -> None:
    event = given.apprehension(side="HR", id=1)
    decision = admit(event, {Side("SI"), Side("AT")})
    assert isinstance(decision, Rejected)
    assert (given.uid(1), "unknown-side") == (decision.id, decision.problem.code)
    assert decision.problem.detail == "side HR has no log here; there are AT, SI"


def test_the_limit_of_bytes_is_to_the_byte() -> None:
    longest = EVENT[:-1] + b" " * (EVENT_BYTES_MAX - len(EVENT)) + b"}"
    assert EVENT_BYTES_MAX == len(longest)
    assert isinstance(admit(longest, SIDES), Admitted)
    refused = admit(longest + b" ", SIDES)
    assert isinstance(refused, Rejected)
    # Named, so that its sender knows which one it is.
    assert (given.uid(1), "too-large") == (refused.id, refused.problem.code)
    assert refused.problem.detail == "longer than 65,536 bytes"


def test_a_problem_repeats_no_value_of_the_event() -> None:
    name = "Janez-Novak"
    for changed in (
        {"source": f"/SI/{name}"},
        {"data": {"section": f"{name} 1", "persons": [{"citizenship": "SYR", "count": 1}]}},
        {"data": {"section": "koper", "persons": [{"citizenship": name, "count": 1}]}},
        {"time": name},
        {"specversion": name},
    ):
        decision = admit(given.as_json(json.loads(EVENT) | changed), SIDES)
        assert isinstance(decision, Rejected)
        assert name not in str(decision.problem)


@pytest.mark.parametrize(
    ("twice", "once"),
    [
        (b'"persons":[{"citizenship":"MAR","count":9}],"persons":', b'"persons":'),
        (b'"count":9,"count":', b'"count":'),
        (b'"side":"HR","side":', b'"side":'),
    ],
)
def test_what_stands_twice_in_one_object_is_rejected_since_one_of_the_two_would_be_lost(
    twice: bytes, once: bytes
) -> None:
    raw = given.apprehension(persons={"SYR": 4}).replace(once, twice, 1)
    decision = admit(raw, SIDES)
    assert isinstance(decision, Rejected)
    assert decision.id == given.uid(1)
    assert "a member of an object stands there twice" in decision.problem.detail


# --- where a problem points to ---


def test_a_pointer_leads_to_the_field_of_the_report_that_is_wrong_or_missing() -> None:
    def pointer(raw: given.Document) -> str:
        decision = admit(given.as_json(raw), SIDES)
        assert isinstance(decision, Rejected)
        return decision.problem.pointer

    event = json.loads(EVENT)
    persons = [*given.counts({"SYR": 4, "AFG": 3}), {"citizenship": "MAR", "count": 0}]
    assert "/data/persons/2/count" == pointer(event | {"data": {"section": "koper", "persons": persons}})
    assert "/data/persons" == pointer(event | {"data": {"section": "koper", "persons": persons[:1] * 2}})
    assert "/data/section" == pointer(event | {"data": {"persons": persons[:1]}})
    assert "/data/section" == pointer(event | {"data": {"section": "a b", "persons": persons[:1]}})
    assert "/data/officer" == pointer(event | {"data": {"section": "a", "persons": persons[:1], "officer": 1}})
    assert "/type" == pointer(event | {"type": "org.fieldtally.patrol.v1"})
    assert "/side" == pointer(event | {"side": "HR"})
    assert "/time" == pointer(event | {"time": "2024-03-14 03:12:09Z"})
    assert "/revision" == pointer(event | {"revision": 1})
    assert "/amends" == pointer(event | {"amends": given.uid(2)})


JUNK = "Janez Novak"
WRONG: tuple[Any, ...] = (JUNK, "", -1, 10**20, 0.5, True, None, [], {}, [JUNK], {"officer": JUNK})


def _places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, within in inner:
        yield from _places(within, (*path, step))


def _at(document: Any, steps: Sequence[str | int]) -> Any:
    """Walk as RFC 6901 has it; KeyError, IndexError or TypeError where there is nothing."""
    for step in steps:
        document = document[int(step)] if isinstance(document, list) else document[step]
    return document


@st.composite
def broken_documents(draw: st.DrawFn) -> Any:
    """Events with one thing wrong somewhere: a value replaced, a member taken away or put in."""
    document = json.loads(json.dumps(draw(given.documents("SI"))))
    *within, last = draw(st.sampled_from([path for path in _places(document) if path]))
    place = _at(document, within)
    match draw(st.sampled_from(("replaced", "replaced", "taken away", "put in"))):
        case "replaced":
            place[last] = draw(st.sampled_from(WRONG))
        case "taken away":
            del place[last]
        case _ if isinstance(place, dict):
            place["officer"] = JUNK
        case _:
            place.append(JUNK)
    return document


@examples(broken_documents())
def test_every_pointer_can_be_walked_and_no_problem_repeats_a_value(document: Any) -> None:
    decision = admit(given.as_json(document), SIDES)
    if isinstance(decision, Rejected):
        pointer, detail = decision.problem.pointer, decision.problem.detail
        assert pointer == "" or pointer.startswith("/")
        *within, last = pointer.split("/")[1:] or [""]
        if last and f"missing required field `{last}`" in detail:
            assert last not in _at(document, within)
        elif last and isinstance(_at(document, within), dict) and last not in _at(document, within):
            # A rule between two fields names the one that is not there: an operation without its `subject`.
            assert f"`{last}` " in detail
        else:
            _at(document, pointer.split("/")[1:])
        assert JUNK not in str(decision)


# --- who may say what ---

RECEIVED = datetime(2024, 3, 14, 12, tzinfo=UTC)
UNIT = Principal(role="unit", side="SI", unit="SI-MP-07", device="9f3c2a", enrolled=RECEIVED)
DESK = Principal(role="desk", side="SI", unit="SI-DESK", device="d", enrolled=RECEIVED)
LJUBLJANA = given.ZONES["SI"]
Plans = Mapping[str, Operation]


def plans(*events: bytes) -> Plans:
    """Return the operation that these events make."""
    operation = Operation()
    for event in map(codec.decode, events):
        assert isinstance(event, OperationOpened | OperationClosed)
        operation = put_in(operation, event.id.bytes, event)
    return {given.OPERATION: operation}


PLANS = plans(given.operation_opened())


def code(
    raw: bytes,
    principal: Principal = DESK,
    operations: Plans = PLANS,
    zone: ZoneInfo = LJUBLJANA,
    received: datetime = RECEIVED,
) -> str | None:
    """Return the code with which a report is refused, if it is; its pointer is held to the report."""
    refused = refuse(codec.decode(raw), principal, operations, zone, received)
    if refused:
        assert (422, False) == (refused.status, refused.retryable)
        assert _at(json.loads(raw), refused.pointer.split("/")[1:]) is not None
    return refused.code if refused else None


def test_a_unit_reports_as_itself_from_any_of_its_devices() -> None:
    assert code(given.apprehension(device="0a11f0"), UNIT) is None
    assert "not-your-unit" == code(given.apprehension(unit="SI-MP-08"), UNIT)
    assert "not-your-unit" == code(given.apprehension(unit="SI-MP-071"), UNIT)
    assert "not-your-unit" == code(given.apprehension(unit="si-mp-07"), UNIT)
    assert code(given.apprehension(unit="SI-MP-08"), DESK) is None


EXTREME = (
    PLANS,
    {},
    {given.OPERATION: Operation()},
    plans(given.operation_opened(starts="9999-12-31", ends="9999-12-31")),
    plans(
        given.operation_opened(id=1, starts="0001-01-01", ends="9999-12-31"),
        given.operation_closed(id=2, closed="0001-01-01"),
    ),
)
MOMENTS = st.datetimes(datetime(2, 1, 2), datetime(9998, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001  # bounds


@examples(
    given.documents("SI"),
    st.sampled_from(("SI", "HR", "AT")),
    st.sampled_from(("unit", "desk")),
    MOMENTS,
    st.sampled_from(EXTREME),
)
def test_nothing_makes_the_rules_raise(
    document: given.Document, side: str, role: Role, received: datetime, operations: Plans
) -> None:
    event = codec.decode(given.as_json(document))
    who = Principal(role=role, side=side, unit="SI-MP-07", device="d", enrolled=RECEIVED)
    refused = refuse(event, who, operations, LJUBLJANA, received)
    if refused:
        assert refused.code in CODES
    else:
        assert event.side == side
    for unit in (None, who.unit, "SI-MP-08"):
        amendment = refuse_amendment(event, who, unit, None)
        assert (bool(event.revision) and role == "unit" and unit == "SI-MP-08") == (amendment is not None)
        assert bool(event.revision) == (refuse_amendment(event, who, unit, event) is not None)
    same = settle(event, Held(event, Position("1-0")))
    assert same is not None and same.problem is None
    assert settle(event, None) is None
    for sent in (None, event.time, received):
        off = clock_off_s(sent, event.time, received)
        assert off is None or abs(off) >= 120


# --- when ---


@pytest.mark.parametrize(
    ("starts", "ends", "first", "last"),
    [
        ("2024-03-13", "2024-03-15", "2024-03-11T23:00:00Z", "2024-03-16T23:00:00Z"),
        ("2024-03-30", "2024-03-31", "2024-03-28T23:00:00Z", "2024-04-01T22:00:00Z"),  # the last day has 23 hours
        ("2024-04-01", "2024-04-01", "2024-03-30T23:00:00Z", "2024-04-02T22:00:00Z"),  # the day before has 23 hours
        ("2024-10-26", "2024-10-26", "2024-10-24T22:00:00Z", "2024-10-27T23:00:00Z"),  # the day after has 25 hours
    ],
)
def test_an_operation_takes_what_happened_within_a_day_of_it_in_the_sides_zone_to_the_second(
    starts: str, ends: str, first: str, last: str
) -> None:
    operations = plans(given.operation_opened(starts=starts, ends=ends))
    at = partial(_of_operation, operations=operations)
    assert "outside-period" == at(_later(first, -1))
    assert at(first) is None
    assert at(last) is None
    assert "outside-period" == at(_later(last, 1))
    # The same moment with another offset is the same moment.
    assert at(datetime.fromisoformat(last).astimezone(timezone(timedelta(hours=-11))).isoformat()) is None


def _later(moment: str, seconds: int) -> str:
    return (datetime.fromisoformat(moment) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _of_operation(time: str, operations: Plans, **more: Any) -> str | None:
    event = given.apprehension(subject=given.OPERATION, time=time)
    return code(event, operations=operations, received=datetime(2030, 1, 1, tzinfo=UTC), **more)


def test_the_zone_is_the_sides_own() -> None:
    auckland = ZoneInfo("Pacific/Auckland")
    assert "outside-period" == _of_operation("2024-03-11T10:59:59Z", PLANS, zone=auckland)
    assert _of_operation("2024-03-11T11:00:00Z", PLANS, zone=auckland) is None
    assert _of_operation("2024-03-16T11:00:00Z", PLANS, zone=auckland) is None
    assert "outside-period" == _of_operation("2024-03-16T11:00:01Z", PLANS, zone=auckland)


def test_an_operation_ends_on_the_day_it_was_closed_be_that_earlier_or_later_than_planned() -> None:
    earlier = plans(given.operation_opened(id=1), given.operation_closed(id=2, closed="2024-03-14"))
    assert _of_operation("2024-03-15T23:00:00Z", earlier) is None
    assert "outside-period" == _of_operation("2024-03-15T23:00:01Z", earlier)
    later = plans(given.operation_opened(id=1), given.operation_closed(id=2, closed="2024-03-20"))
    assert _of_operation("2024-03-21T23:00:00Z", later) is None
    assert "outside-period" == _of_operation("2024-03-21T23:00:01Z", later)


def test_an_operation_may_be_planned_to_the_calendars_ends() -> None:
    always = plans(given.operation_opened(starts="0001-01-01", ends="9999-12-31"))
    for time in ("0002-01-01T00:00:00Z", "2024-03-14T03:12:09Z"):
        assert _of_operation(time, always) is None
    last_second = given.apprehension(subject=given.OPERATION, time="9998-12-31T23:59:59Z")
    assert code(last_second, operations=always, received=datetime(9998, 12, 31, tzinfo=UTC)) is None


def test_a_closing_without_a_plan_in_force_is_no_operation() -> None:
    operations = plans(given.operation_closed(closed="2024-03-20"))
    assert "unknown-operation" == _of_operation("2024-03-14T03:12:09Z", operations)
    assert last_day(operations[given.OPERATION]) is None


def test_a_time_may_lie_24_hours_in_the_future_and_not_a_second_more() -> None:
    assert code(given.apprehension(time="2024-03-15T12:00:00Z")) is None
    assert "in-the-future" == code(given.apprehension(time="2024-03-15T12:00:01Z"))
    assert "in-the-future" == code(given.apprehension(time="2024-03-15T12:00:00.000001Z"))
    assert code(given.apprehension(time="2024-03-15T14:00:00+02:00")) is None
    for event in (
        given.withdrawal(amends=1, time="2024-03-15T12:00:01Z"),
        given.operation_opened(time="2024-03-15T12:00:01Z"),
        given.opening_balance(totals=[{"measure": "persons", "count": 1}], time="2024-03-15T12:00:01Z"),
    ):
        assert "in-the-future" == code(event)


def test_what_is_no_finding_of_the_operation_may_come_at_any_time() -> None:
    head: given.Head = {"subject": given.OPERATION, "time": "2023-01-01T00:00:00Z"}
    totals = [{"measure": "persons", "count": 1, "section": "koper"}]
    assert code(given.withdrawal(amends=1, **head)) is None
    assert code(given.opening_balance(totals=totals, **head)) is None
    assert code(given.operation_closed(closed="2024-03-14", **head)) is None
    assert code(given.operation_opened(**head)) is None
    for event in (given.apprehension(**head), given.smuggler_arrest(**head), given.custody(**head)):
        assert "outside-period" == code(event)
    assert "outside-period" == code(given.nil_report(**head))


def test_an_operation_must_be_known_by_all_that_name_it_but_its_own_opening() -> None:
    head: given.Head = {"subject": "SI-2025"}
    totals = [{"measure": "persons", "count": 1}]
    for event in (
        given.apprehension(**head), given.smuggler_arrest(**head), given.custody(**head), given.nil_report(**head),
        given.operation_closed(**head), given.opening_balance(totals=totals, **head),
        given.withdrawal(amends=1, **head),
    ):  # fmt: skip
        assert "unknown-operation" == code(event)
    assert code(given.operation_opened(**head)) is None


def test_a_section_must_be_in_the_plan_of_the_operation_and_may_be_any_outside_of_one() -> None:
    subject = given.OPERATION
    elsewhere = [{"measure": "persons", "count": 1}, {"measure": "persons", "count": 1, "section": "lendava"}]
    for event, pointer in (
        (given.apprehension(section="lendava", subject=subject), "/data/section"),
        (given.smuggler_arrest(section="lendava", subject=subject), "/data/section"),
        (given.nil_report(section="lendava", subject=subject), "/data/section"),
        (given.opening_balance(totals=elsewhere, subject=subject), "/data/totals/1/section"),
    ):
        refused = refuse(codec.decode(event), DESK, PLANS, LJUBLJANA, RECEIVED)
        assert refused
        assert ("unknown-section", pointer) == (refused.code, refused.pointer)
    assert code(given.custody(subject=subject)) is None
    assert code(given.apprehension(section="lendava")) is None


def test_no_refusal_repeats_what_no_rule_has_looked_at() -> None:
    """A section's name is a code, but one that nobody planned: it may still be a person's."""
    refused = refuse(
        codec.decode(given.apprehension(section="Janez-Novak", subject=given.OPERATION)),
        DESK, PLANS, LJUBLJANA, RECEIVED,
    )  # fmt: skip
    assert refused
    assert "Novak" not in str(refused)
    for event in (given.apprehension(unit="Janez-Novak"), given.apprehension(side="HR", unit="Janez-Novak")):
        refused = refuse(codec.decode(event), UNIT, PLANS, LJUBLJANA, RECEIVED)
        assert refused
        assert "Novak" not in str(refused)


# --- what the log holds, and the clock ---


def test_a_report_is_the_same_whoever_sends_it_under_whichever_number_and_a_conflict_if_it_says_something_else() -> (
    None
):
    held = Held(codec.decode(given.apprehension(id=7, persons={"SYR": 4})), Position("5-1"))
    again = given.apprehension(id=7, persons={"SYR": 4}, device="0a11f0", reportno=9)
    assert Repeated(Position("5-1"), None) == settle(codec.decode(again), held)
    other = settle(codec.decode(given.apprehension(id=7, persons={"SYR": 5})), held)
    assert other and other.problem
    assert (Position("5-1"), "conflict", 409, "/id") == (
        other.position, other.problem.code, other.problem.status, other.problem.pointer
    )  # fmt: skip
    assert not other.problem.retryable


@pytest.mark.parametrize(
    ("sent", "off"), [(-121, -121), (-120, None), (0, None), (120, None), (121, 121), (3600, 3600)]
)
def test_a_clock_is_off_from_two_minutes_on_either_way(sent: int, off: int | None) -> None:
    assert off == clock_off_s(RECEIVED + timedelta(seconds=sent), RECEIVED, RECEIVED)


def test_without_its_own_word_only_a_report_from_the_future_gives_a_clock_away() -> None:
    assert clock_off_s(None, RECEIVED - timedelta(days=9), RECEIVED) is None
    assert clock_off_s(None, RECEIVED + timedelta(seconds=120), RECEIVED) is None
    assert 121 == clock_off_s(None, RECEIVED + timedelta(seconds=121), RECEIVED)
    assert clock_off_s(RECEIVED, RECEIVED + timedelta(hours=1), RECEIVED) is None
