"""Admission: what may become an event of the log is its canonical bytes; anything else is rejected in words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from schemas import codec
from schemas.vocabulary import Side
from services.gateway.admission import EVENT_BYTES_MAX, Admitted, Rejected, admit
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
    assert ("", "too-large", "longer than 65,536 bytes") == (refused.id, refused.problem.code, refused.problem.detail)


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
