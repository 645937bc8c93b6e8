"""The exported JSON Schema is a schema, takes every event, and refuses whatever a schema can see is broken."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as examples
from jsonschema import Draft202012Validator

from schemas.events import TYPE_PREFIX
from schemas.export import SCHEMA_ID, event_schema
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
    "null subject": GOLDEN["apprehension"] | {"subject": None},
    "data of another type": GOLDEN["apprehension"] | {"data": GOLDEN["custody"]["data"]},
    "a list": [GOLDEN["apprehension"]],
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_schema_refuses(name: str) -> None:
    assert not VALIDATOR.is_valid(BROKEN[name])


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
