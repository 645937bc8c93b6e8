"""The exported JSON Schema is a schema, takes every event, and refuses whatever a schema can see is broken."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as examples
from jsonschema import Draft202012Validator

from schemas import codec
from schemas.events import TYPE_PREFIX, Event
from schemas.examples import event_examples
from schemas.export import SCHEMA_ID, components, event_schema
from schemas.vocabulary import Side
from tests import given

SCHEMA: dict[str, Any] = json.loads(event_schema())
VALIDATOR = Draft202012Validator(SCHEMA)
GOLDEN: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_bytes()) for path in sorted((Path(__file__).parent / "golden").glob("*.json"))
}


def without(document: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names}


def with_data(kind: str, **data: Any) -> dict[str, Any]:
    return GOLDEN[kind] | {"data": copy.deepcopy(GOLDEN[kind]["data"]) | data}


def test_the_schema_is_valid_json_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)

    assert (Draft202012Validator.META_SCHEMA["$id"], SCHEMA_ID) == (SCHEMA["$schema"], SCHEMA["$id"])


def test_the_schema_covers_the_eight_types() -> None:
    assert {f"{TYPE_PREFIX}{kind}.v1" for kind in given.KINDS} == set(SCHEMA["discriminator"]["mapping"])
    assert len(given.KINDS) == len(SCHEMA["anyOf"])


@pytest.mark.parametrize("kind", GOLDEN)
def test_the_schema_takes_the_golden_files(kind: str) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(GOLDEN[kind])] == []


@examples(given.documents("SI"))
def test_the_schema_takes_whatever_the_codec_takes(document: dict[str, Any]) -> None:
    assert VALIDATOR.is_valid(json.loads(given.canonical(document)))


BROKEN = {
    "unknown type": GOLDEN["apprehension"] | {"type": "org.fieldtally.apprehension.v2"},
    "other specversion": GOLDEN["apprehension"] | {"specversion": "0.3"},
    "no id": without(GOLDEN["apprehension"], "id"),
    "no data": without(GOLDEN["custody"], "data"),
    "source of two parts": GOLDEN["apprehension"] | {"source": "/SI/SI-MP-07"},
    "side in small letters": GOLDEN["apprehension"] | {"side": "si"},
    "number 0": GOLDEN["apprehension"] | {"reportno": 0},
    "revision 0": GOLDEN["withdrawal"] | {"revision": 0},
    "empty subject": GOLDEN["apprehension"] | {"subject": ""},
    "subject with a space": GOLDEN["apprehension"] | {"subject": "SI HR"},
    "unknown attribute": GOLDEN["apprehension"] | {"officer": "x"},
    "unknown data field": with_data("apprehension", note="x"),
    "empty breakdown": with_data("apprehension", persons=[]),
    "count 0": with_data("apprehension", persons=[{"citizenship": "SYR", "count": 0}]),
    "count 10,001": with_data("apprehension", persons=[{"citizenship": "SYR", "count": 10_001}]),
    "count true": with_data("apprehension", persons=[{"citizenship": "SYR", "count": True}]),
    "count 1.5": with_data("apprehension", persons=[{"citizenship": "SYR", "count": 1.5}]),
    "unknown citizenship": with_data("custody", remanded=[{"citizenship": "ZZZ", "count": 1}]),
    "opens_case 1": with_data("smuggler-arrest", opens_case=1),
    "unknown measure": with_data("opening-balance", totals=[{"measure": "people", "count": 1}]),
    "balance 10^9 + 1": with_data("opening-balance", totals=[{"measure": "persons", "count": 10**9 + 1}]),
    "unknown coverage": with_data("operation-opened", sections=[{"section": "a", "area": "a", "coverage": "all"}]),
    "unknown reason": with_data("withdrawal", reason="mistake"),
    "time without an offset": GOLDEN["apprehension"] | {"time": "2024-03-14T03:12:09"},
    "offset without a colon": with_data("nil-report", period_from="2024-03-14T03:12:09+0100"),
    "id of 32 digits": GOLDEN["apprehension"] | {"id": "018e3a2f6a1c7c3e9f102b6d6c1f0a11"},
    "a second 60": GOLDEN["apprehension"] | {"time": "2024-03-14T03:12:60Z"},
    "an hour 24": GOLDEN["apprehension"] | {"time": "2024-03-14T24:00:00Z"},
    "the year 9999": GOLDEN["apprehension"] | {"time": "9999-03-14T03:12:09Z"},
    "a day 32": with_data("operation-closed", closed="2024-03-32"),
    "a day without zeros": with_data("operation-closed", closed="2024-3-2"),
    "one count twice": with_data("custody", remanded=[{"citizenship": "SYR", "count": 1}] * 2),
    "a name that moves the cursor": with_data("operation-opened", name="\x1b[2J"),
    "null subject": GOLDEN["apprehension"] | {"subject": None},
    "data of another type": GOLDEN["apprehension"] | {"data": GOLDEN["custody"]["data"]},
    "a list": [GOLDEN["apprehension"]],
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_schema_refuses(name: str) -> None:
    assert not VALIDATOR.is_valid(BROKEN[name])


@pytest.mark.parametrize("kind", event_examples((Side("SI"), Side("HR"))))
@pytest.mark.parametrize("sides", [("SI",), ("SI", "HR"), ("AT", "IT", "SI")], ids="-".join)
def test_every_published_example_is_an_event_and_satisfies_the_schema(kind: str, sides: tuple[Side, ...]) -> None:
    event = event_examples(sides)[kind]

    assert event == codec.decode(codec.encode(event))
    assert event.side in sides
    assert [] == [error.message for error in VALIDATOR.iter_errors(json.loads(codec.encode(event)))]


def test_there_is_a_published_example_of_each_type() -> None:
    assert set(given.KINDS) == set(event_examples((Side("SI"),)))


@pytest.mark.parametrize("name", BROKEN)
def test_what_the_schema_refuses_the_codec_refuses_too(name: str) -> None:
    """But for the spelling of an id without hyphens, which the codec understands and a publisher has no need of."""
    if name == "id of 32 digits":
        given.canonical(BROKEN[name])
        return
    with pytest.raises(codec.EventError):
        codec.decode(given.as_json(BROKEN[name]))


def test_with_sides_an_event_is_of_one_of_them() -> None:
    (root,), named = components([Event], "#/$defs/{name}", (Side("SI"), Side("AT")))
    validator = Draft202012Validator(root | {"$defs": named})
    other = GOLDEN["custody"]

    assert validator.is_valid(GOLDEN["apprehension"])
    assert "HR" == other["side"] and not validator.is_valid(other)
    assert not validator.is_valid(GOLDEN["apprehension"] | {"source": other["source"]})


def test_every_member_of_an_event_is_described() -> None:
    bare = [
        f"{name}.{field}"
        for name, component in SCHEMA["$defs"].items()
        for field, rule in component["properties"].items()
        if "$ref" not in rule and "description" not in rule
    ]

    assert [] == bare


BROKEN_BETWEEN_FIELDS = {
    "a withdrawal that amends nothing": without(GOLDEN["withdrawal"], "amends", "revision"),
    "amends without revision": without(GOLDEN["withdrawal"], "revision"),
    "revision without amends": GOLDEN["apprehension"] | {"revision": 1},
    "an operation without subject": without(GOLDEN["operation-closed"], "subject"),
}


@pytest.mark.parametrize("name", BROKEN_BETWEEN_FIELDS)
def test_the_schema_states_which_fields_need_each_other(name: str) -> None:
    """A publisher that checks against the schema is not to learn of these from a rejection."""
    assert not VALIDATOR.is_valid(BROKEN_BETWEEN_FIELDS[name])


def test_the_schema_takes_a_section_that_is_given_as_empty() -> None:
    """As the codec does: an absent section is the empty string."""
    document = with_data(
        "opening-balance", totals=[{"measure": "persons", "count": 1, "section": "", "citizenship": ""}]
    )
    given.canonical(document)

    assert VALIDATOR.is_valid(document)
