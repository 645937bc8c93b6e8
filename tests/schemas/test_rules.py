"""Whatever breaks a rule of an event is refused, and said with type, path and rule but without its values."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from schemas import codec
from schemas.codec import EventError
from schemas.events import TYPE_PREFIX
from schemas.vocabulary import BALANCE_MAX, COUNT_MAX, REPORTNO_MAX, REVISION_MAX, TEXT_MAX
from tests import given

GOLDEN: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_bytes()) for path in sorted((Path(__file__).parent / "golden").glob("*.json"))
}
REQUIRED = ("specversion", "type", "id", "source", "reportno", "side", "time", "data")
GONE = object()
TOO_LONG = "x" * 65
NAME = "has 1 to 64 characters of A-Z a-z 0-9 . _ / -"
SOURCE = "`source` is /side/unit/device: two capital letters, then parts of 1 to 64 of A-Z a-z 0-9 -"

TIMES = [("apprehension", ("time",)), ("nil-report", ("data", "period_from")), ("nil-report", ("data", "period_to"))]

Path_ = tuple[str | int, ...]


def with_value(kind: str, path: Path_, value: object) -> dict[str, Any]:
    """Return a golden document with another value at one place, or with the place gone."""
    document: Any = copy.deepcopy(GOLDEN[kind])
    inner = document
    for part in path[:-1]:
        inner = inner[part]
    if value is GONE:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return dict(document)


def paths(value: object, path: Path_ = ()) -> Iterator[Path_]:
    """Yield the path to every value, objects and lists included."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(inner, (*path, name))


def pointer(path: Path_) -> str:
    return "$" + "".join(f".{part}" if isinstance(part, str) else f"[{part}]" for part in path)


def refusal(raw: bytes) -> EventError:
    with pytest.raises(EventError) as caught:
        codec.decode(raw)
    return caught.value


EVERYWHERE = [(kind, path) for kind, document in GOLDEN.items() for path in paths(document)]


def at(document: Any, path: Path_) -> Any:
    for part in path:
        document = document[part]
    return document


OBJECTS = [
    (kind, path)
    for kind, document in GOLDEN.items()
    for path in ((), *paths(document))
    if isinstance(at(document, path), dict)
]


def _ids(case: object) -> str | None:
    return pointer(case) if isinstance(case, tuple) else None


# --- each rule, broken once: the type, the path to what is changed, its value, where it is seen, and what is said ---

PERSONS: Path_ = ("data", "persons")
COUNT: Path_ = (*PERSONS, 0, "count")
CITIZENSHIP: Path_ = (*PERSONS, 0, "citizenship")
SYR = {"citizenship": "SYR", "count": 1}
AN_ID = given.uid(1)
PLAN = {"section": "koper", "area": "Koper", "coverage": "joint"}
TOTAL = {"measure": "persons", "count": 1}
TOTALS: Path_ = ("data", "totals")
PLANS: Path_ = ("data", "sections")
ARREST, OPENED, BALANCE = "smuggler-arrest", "operation-opened", "opening-balance"
NOT_ALLOWED, BAD_DATE = "not one of the allowed values", "Invalid RFC3339 encoded date"

RULES: list[tuple[str, Path_, object, str, str]] = [
    ("apprehension", ("specversion",), "0.3", "$.specversion", NOT_ALLOWED),
    ("apprehension", ("specversion",), 1.0, "$.specversion", "Expected `str`, got `float`"),
    ("apprehension", ("id",), "118", "$.id", "Invalid UUID"),
    ("apprehension", ("id",), "{018e3a2f-6a1c-7c3e-9f10-2b6d6c1f0a11}", "$.id", "Invalid UUID"),
    ("apprehension", ("id",), "018e3a2f-6a1c-7c3e-9f10-2b6d6c1f0a11\n", "$.id", "Invalid UUID"),
    ("apprehension", ("id",), "", "$.id", "Invalid UUID"),
    ("apprehension", ("source",), "/SI/SI-MP-07", "$", SOURCE),
    ("apprehension", ("source",), "/SI/SI-MP-07/9f3c2a/1", "$", SOURCE),
    ("apprehension", ("source",), "SI/SI-MP-07/9f3c2a", "$", SOURCE),
    ("apprehension", ("source",), "/SI//9f3c2a", "$", SOURCE),
    ("apprehension", ("source",), "/SI/SI-MP-07/", "$", SOURCE),
    ("apprehension", ("source",), "/si/SI-MP-07/9f3c2a", "$", SOURCE),
    ("apprehension", ("source",), "/SVN/SI-MP-07/9f3c2a", "$", SOURCE),
    ("apprehension", ("source",), "/SI/SI_MP/9f3c2a", "$", SOURCE),
    ("apprehension", ("source",), f"/SI/{TOO_LONG}/9f3c2a", "$", SOURCE),
    ("apprehension", ("source",), f"/SI/SI-MP-07/{TOO_LONG}", "$", SOURCE),
    ("apprehension", ("source",), "/SI/SI-MP-07/9f3c2a\n", "$", SOURCE),
    ("apprehension", ("source",), "/SI/SI-MP-07/š", "$", SOURCE),
    ("apprehension", ("side",), "HR", "$", "`side` is not the side in `source`"),
    ("apprehension", ("side",), "si", "$", "`side` is not the side in `source`"),
    ("apprehension", ("side",), "SI\n", "$", "`side` is not the side in `source`"),
    ("apprehension", ("side",), "", "$", "`side` is not the side in `source`"),
    ("apprehension", ("reportno",), 0, "$.reportno", "Expected `int` >= 1"),
    ("apprehension", ("reportno",), -1, "$.reportno", "Expected `int` >= 1"),
    ("apprehension", ("reportno",), True, "$.reportno", "Expected `int`, got `bool`"),
    ("apprehension", ("reportno",), 1.0, "$.reportno", "Expected `int`, got `float`"),
    ("apprehension", ("reportno",), "1", "$.reportno", "Expected `int`, got `str`"),
    ("apprehension", ("reportno",), REPORTNO_MAX + 1, "$.reportno", f"Expected `int` <= {REPORTNO_MAX}"),
    ("apprehension", ("subject",), "", "$.subject", "Expected `str` of length >= 1"),
    ("apprehension", ("subject",), TOO_LONG, "$", f"`subject` {NAME}"),
    ("apprehension", ("subject",), "SI|HR", "$", f"`subject` {NAME}"),
    ("apprehension", ("subject",), "SI-HR-2024-03\n", "$", f"`subject` {NAME}"),
    ("apprehension", ("time",), "2024-03-14T03:12:09", "$.time", "Expected `datetime` with a timezone component"),
    ("apprehension", ("time",), "2024-03-14", "$.time", "Invalid RFC3339 encoded datetime"),
    ("apprehension", ("time",), "2024-02-30T03:12:09Z", "$.time", "Invalid RFC3339 encoded datetime"),
    ("apprehension", ("time",), "2024-03-14T24:00:00Z", "$.time", "Invalid RFC3339 encoded datetime"),
    ("apprehension", ("time",), "2024-03-14T03:12:60Z", "$.time", "Invalid RFC3339 encoded datetime"),
    ("apprehension", ("time",), "2024-03-14T03:12:09Z\n", "$.time", "Invalid RFC3339 encoded datetime"),
    ("apprehension", ("time",), "yesterday", "$.time", "Invalid RFC3339 encoded datetime"),
    ("apprehension", ("time",), 1_710_385_929, "$.time", "Expected `datetime`, got `int`"),
    ("apprehension", ("time",), "0001-01-01T00:00:00Z", "$", "`time` lies outside the years 2 to 9998"),
    ("apprehension", ("time",), "9999-12-31T00:00:00Z", "$", "`time` lies outside the years 2 to 9998"),
    ("apprehension", ("amends",), AN_ID, "$", "`amends` without `revision`"),
    ("apprehension", ("revision",), 1, "$", "`revision` without `amends`"),
    ("withdrawal", ("revision",), GONE, "$", "`amends` without `revision`"),
    ("withdrawal", ("amends",), GONE, "$", "`revision` without `amends`"),
    ("withdrawal", ("amends",), "x", "$.amends", "Invalid UUID"),
    ("withdrawal", ("amends",), GOLDEN["withdrawal"]["id"], "$", "`amends` is the event's own `id`"),
    ("withdrawal", ("revision",), 0, "$.revision", "Expected `int` >= 1"),
    ("withdrawal", ("revision",), True, "$.revision", "Expected `int`, got `bool`"),
    ("withdrawal", ("revision",), REVISION_MAX + 1, "$.revision", f"Expected `int` <= {REVISION_MAX}"),
    ("withdrawal", ("data", "reason"), "mistake", "$.data.reason", NOT_ALLOWED),
    ("apprehension", ("data",), [], "$.data", "Expected `object`, got `array`"),
    ("apprehension", ("data",), GOLDEN["custody"]["data"], "$.data", "unknown field `remanded`"),
    ("apprehension", ("data", "section"), "", "$.data", f"`section` {NAME}"),
    ("apprehension", ("data", "section"), "koper\n", "$.data", f"`section` {NAME}"),
    ("apprehension", ("data", "section"), TOO_LONG, "$.data", f"`section` {NAME}"),
    ("apprehension", ("data", "section"), "a|b", "$.data", f"`section` {NAME}"),
    ("apprehension", PERSONS, [], "$.data.persons", "Expected `array` of length >= 1"),
    ("apprehension", PERSONS, {"SYR": 1}, "$.data.persons", "Expected `array`, got `object`"),
    ("apprehension", PERSONS, [SYR, SYR], "$.data", "`persons` names a citizenship twice"),
    ("apprehension", COUNT, 0, "$.data.persons[0].count", "Expected `int` >= 1"),
    ("apprehension", COUNT, -3, "$.data.persons[0].count", "Expected `int` >= 1"),
    ("apprehension", COUNT, COUNT_MAX + 1, "$.data.persons[0].count", f"Expected `int` <= {COUNT_MAX}"),
    ("apprehension", COUNT, 10**40, "$.data.persons[0].count", "Expected `int` <= "),
    ("apprehension", COUNT, True, "$.data.persons[0].count", "Expected `int`, got `bool`"),
    ("apprehension", COUNT, 4.0, "$.data.persons[0].count", "Expected `int`, got `float`"),
    ("apprehension", COUNT, "4", "$.data.persons[0].count", "Expected `int`, got `str`"),
    ("apprehension", CITIZENSHIP, "ZZZ", "$.data.persons[0].citizenship", NOT_ALLOWED),
    ("apprehension", CITIZENSHIP, "syr", "$.data.persons[0].citizenship", NOT_ALLOWED),
    ("apprehension", CITIZENSHIP, "SYR\n", "$.data.persons[0].citizenship", NOT_ALLOWED),
    ("apprehension", CITIZENSHIP, "", "$.data.persons[0].citizenship", NOT_ALLOWED),
    ("apprehension", CITIZENSHIP, "SY", "$.data.persons[0].citizenship", NOT_ALLOWED),
    ("apprehension", CITIZENSHIP, 760, "$.data.persons[0].citizenship", "Expected `str`, got `int`"),
    (ARREST, ("data", "section"), "a b", "$.data", f"`section` {NAME}"),
    (ARREST, ("data", "case"), "K-1\n", "$.data", f"`case` {NAME}"),
    (ARREST, ("data", "opens_case"), 1, "$.data.opens_case", "Expected `bool`, got `int`"),
    (ARREST, ("data", "opens_case"), "true", "$.data.opens_case", "Expected `bool`, got `str`"),
    (ARREST, ("data", "smugglers"), [], "$.data.smugglers", "Expected `array` of length >= 1"),
    (ARREST, ("data", "smugglers"), [SYR, SYR], "$.data", "`smugglers` names a citizenship twice"),
    (ARREST, ("data", "smuggled_persons"), [SYR] * 2, "$.data", "`smuggled_persons` names a citizenship twice"),
    ("custody", ("data", "case"), "", "$.data", f"`case` {NAME}"),
    ("custody", ("data", "remanded"), [], "$.data.remanded", "Expected `array` of length >= 1"),
    ("custody", ("data", "remanded"), [SYR, SYR], "$.data", "`remanded` names a citizenship twice"),
    (BALANCE, ("data", "period_from"), "2024-01-01", "$.data", "`period_from` lies after"),
    (BALANCE, ("data", "period_to"), "2024-1-1", "$.data.period_to", BAD_DATE),
    (BALANCE, TOTALS, [], "$.data.totals", "Expected `array` of length >= 1"),
    (BALANCE, TOTALS, [TOTAL, TOTAL | {"count": 2}], "$.data", "`totals` names a measure, section"),
    (BALANCE, (*TOTALS, 0, "measure"), "people", "$.data.totals[0].measure", NOT_ALLOWED),
    (BALANCE, (*TOTALS, 1, "count"), BALANCE_MAX + 1, "$.data.totals[1].count", "Expected `int` <= "),
    (BALANCE, (*TOTALS, 1, "count"), 0, "$.data.totals[1].count", "Expected `int` >= 1"),
    (BALANCE, (*TOTALS, 1, "count"), False, "$.data.totals[1].count", "Expected `int`, got `bool`"),
    (BALANCE, (*TOTALS, 2, "section"), "a b", "$.data.totals[2]", f"`section` {NAME}"),
    (BALANCE, (*TOTALS, 1, "citizenship"), "svn", "$.data.totals[1].citizenship", NOT_ALLOWED),
    (OPENED, ("subject",), GONE, "$", "`subject` must name the operation"),
    (OPENED, ("data", "starts"), "2024-03-16", "$.data", "`starts` lies after `ends`"),
    (OPENED, ("data", "ends"), "2024-03-15T00:00:00Z", "$.data.ends", BAD_DATE),
    (OPENED, ("data", "name"), "", "$.data.name", "Expected `str` of length >= 1"),
    (OPENED, ("data", "name"), "x" * (TEXT_MAX + 1), "$.data.name", f"Expected `str` of length <= {TEXT_MAX}"),
    (OPENED, PLANS, [], "$.data.sections", "Expected `array` of length >= 1"),
    (OPENED, PLANS, [PLAN, PLAN], "$.data", "`sections` names a section twice"),
    (OPENED, (*PLANS, 0, "section"), "a b", "$.data.sections[0]", f"`section` {NAME}"),
    (OPENED, (*PLANS, 0, "area"), "", "$.data.sections[0].area", "Expected `str` of length >= 1"),
    (OPENED, (*PLANS, 1, "coverage"), "all", "$.data.sections[1].coverage", NOT_ALLOWED),
    ("operation-closed", ("subject",), GONE, "$", "`subject` must name the operation"),
    ("operation-closed", ("data", "closed"), "2024-02-30", "$.data.closed", BAD_DATE),
    ("nil-report", ("data", "section"), "a b", "$.data", f"`section` {NAME}"),
    ("nil-report", ("data", "period_from"), "2024-03-14T14:00:00+01:00", "$.data", "`period_from` lies after"),
    ("nil-report", ("data", "period_from"), "2024-03-14T04:00:00", "$.data.period_from", "with a timezone component"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "path", "value", "place", "rule"), RULES, ids=_ids)
def test_what_breaks_a_rule_is_malformed_with_type_path_and_rule(
    kind: str, path: Path_, value: object, place: str, rule: str
) -> None:
    error = refusal(given.as_json(with_value(kind, path, value)))

    assert ("malformed", f"{kind}.v1", place) == (error.reason, error.type_name, error.pointer)
    assert rule in error.rule
    assert f"{kind}.v1 at {place}: {error.rule}" == str(error)


@pytest.mark.parametrize("kind", GOLDEN)
@pytest.mark.parametrize("attribute", REQUIRED)
def test_an_attribute_that_is_missing_is_named(kind: str, attribute: str) -> None:
    error = refusal(given.as_json(with_value(kind, (attribute,), GONE)))

    assert ("malformed", "$", f"Object missing required field `{attribute}`") == (
        error.reason,
        error.pointer,
        error.rule,
    )


OPTIONAL_DATA = {("totals", 1, "citizenship"), ("totals", 2, "section")}


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (kind, path)
        for kind, path in EVERYWHERE
        if path[0] == "data" and isinstance(path[-1], str) and path[1:] not in OPTIONAL_DATA
    ],
    ids=_ids,
)
def test_a_data_field_that_is_missing_is_named(kind: str, path: Path_) -> None:
    error = refusal(given.as_json(with_value(kind, path, GONE)))
    named = (f"missing required field `{path[-1]}`", pointer(path[:-1])) if len(path) > 1 else ("`data`", "$")

    assert named[1] == error.pointer
    assert named[0] in error.rule


@pytest.mark.parametrize(("kind", "path"), EVERYWHERE, ids=_ids)
def test_null_stands_for_nothing(kind: str, path: Path_) -> None:
    """What is absent is left out: also an optional field is never null."""
    error = refusal(given.as_json(with_value(kind, path, None)))

    assert ("malformed", pointer(path)) == (error.reason, error.pointer)


@pytest.mark.parametrize("attribute", ["subject", "amends", "revision"])
def test_an_optional_attribute_is_never_null(attribute: str) -> None:
    error = refusal(given.as_json(GOLDEN["apprehension"] | {attribute: None}))

    assert f"$.{attribute}" == error.pointer


@pytest.mark.parametrize(("kind", "path"), OBJECTS, ids=_ids)
def test_an_unknown_field_is_refused_at_every_level(kind: str, path: Path_) -> None:
    error = refusal(given.as_json(with_value(kind, (*path, "remark"), "x")))

    assert ("malformed", f"{kind}.v1", pointer(path)) == (error.reason, error.type_name, error.pointer)
    assert "unknown field" in error.rule


@pytest.mark.parametrize("kind", [kind for kind in GOLDEN if kind != "withdrawal"])
def test_every_type_may_be_amended(kind: str) -> None:
    amended = codec.decode(given.as_json(GOLDEN[kind] | {"amends": given.uid(1), "revision": 1}))

    assert given.uid(1) == str(amended.amends)


def with_time(kind: str, path: Path_, text: str) -> dict[str, Any]:
    """Return a document with a time of 14 March 2024 at one place; a period goes from before it to after it."""
    document = with_value(kind, path, text)
    if kind == "nil-report":
        period = {"period_from": "2024-03-12T00:00:00Z", "period_to": "2024-03-16T00:00:00Z"}
        document["data"] |= {name: at for name, at in period.items() if name != path[-1]}
    return document


@pytest.mark.parametrize(("kind", "path"), TIMES, ids=_ids)
@pytest.mark.parametrize(
    "text",
    [
        "2024-03-14T03:12:09+0100",
        "2024-03-14t03:12:09+0100",
        "2024-03-14 03:12:09+01:00",
        "2024-03-14 03:12:09Z",
        "2024-03-14T03:12:09-0000",
        "2024-03-14T03:12:09+01",
        "2024-03-14T03:12Z",
        "2024-03-14T03:12:09",
        "2024-03-14T23:59:60Z",
    ],
)
def test_a_time_is_written_as_rfc_3339_has_it(kind: str, path: Path_, text: str) -> None:
    """Other readers of the log, such as a database, refuse anything else or read something else."""
    error = refusal(given.as_json(with_time(kind, path, text)))

    assert (f"{kind}.v1", pointer(path)) == (error.type_name, error.pointer)


def test_an_escape_does_not_hide_how_a_time_is_written() -> None:
    raw = given.as_json(GOLDEN["apprehension"] | {"time": "2024-03-14T03:12:09X0100"}).replace(b"X", rb"\u002b")

    assert "$.time" == refusal(raw).pointer


@pytest.mark.parametrize(("kind", "path"), TIMES, ids=_ids)
@pytest.mark.parametrize(
    "text",
    [
        "2024-03-14T03:12:09Z",
        "2024-03-14t03:12:09z",
        "2024-03-14T03:12:09+00:00",
        "2024-03-14T03:12:09-00:00",
        "2024-03-14T03:12:09.5+01:00",
        "2024-03-14T03:12:09.123456789-11:30",
    ],
)
def test_whatever_rfc_3339_has_is_taken(kind: str, path: Path_, text: str) -> None:
    codec.decode(given.as_json(with_time(kind, path, text)))


@pytest.mark.parametrize("time", ["2024-03-14T03:12:09Z", "2024-03-14T04:12:09+01:00", "2024-03-14T03:12:09.5Z"])
@pytest.mark.parametrize(
    ("kind", "path", "name"),
    [
        ("apprehension", ("subject",), "OPT1-2024"),
        ("apprehension", ("data", "section"), "KT12-2024"),
        ("custody", ("data", "case"), "KPT3-2024"),
        ("apprehension", ("source",), "/SI/T1-0100/PAT1-0001"),
        ("operation-opened", ("data", "sections", 0, "area"), "grid T1+0100"),
    ],
    ids=_ids,
)
def test_a_name_may_look_like_the_end_of_a_time(kind: str, path: Path_, name: str, time: str) -> None:
    codec.decode(given.as_json(with_value(kind, path, name) | {"time": time}))


def test_a_withdrawal_must_be_an_amendment() -> None:
    document = {name: value for name, value in GOLDEN["withdrawal"].items() if name not in {"amends", "revision"}}

    assert refusal(given.as_json(document)).rule == "a withdrawal needs `amends` and `revision`"


def test_smuggled_persons_may_be_empty() -> None:
    event = codec.decode(given.as_json(with_value("smuggler-arrest", ("data", "smuggled_persons"), [])))

    assert event.data.smuggled_persons == ()  # type: ignore[union-attr]  # a smuggler arrest


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("apprehension", COUNT, COUNT_MAX),
        ("opening-balance", ("data", "totals", 1, "count"), BALANCE_MAX),
        ("apprehension", ("reportno",), REPORTNO_MAX),
        ("withdrawal", ("revision",), REVISION_MAX),
        ("apprehension", ("subject",), "x" * 64),
        ("apprehension", ("data", "section"), "a/b.c_d-9"),
        ("apprehension", ("time",), "0002-01-01T00:00:00+23:59"),
        ("apprehension", ("time",), "9998-12-31T23:59:59.999999-23:59"),
        ("nil-report", ("data", "period_from"), "2024-03-14T13:00:00+01:00"),
        ("opening-balance", ("data", "period_from"), "2023-12-31"),
        ("operation-opened", ("data", "starts"), "2024-03-15"),
        ("apprehension", CITIZENSHIP, "RKS"),
    ],
    ids=_ids,
)
def test_the_limits_themselves_are_allowed(kind: str, path: Path_, value: object) -> None:
    codec.decode(given.as_json(with_value(kind, path, value)))


# --- types that are not known ---


@pytest.mark.parametrize(
    ("type_name", "words"),
    [
        (f"{TYPE_PREFIX}apprehension.v2", "this program knows `apprehension` up to v1: upgrade it, then rebuild"),
        (f"{TYPE_PREFIX}nil-report.v99999", "this program knows `nil-report` up to v1"),
        (f"{TYPE_PREFIX}arrest.v1", "no event type of that name"),
        (f"{TYPE_PREFIX}apprehension", "no event type of that name"),
        (f"{TYPE_PREFIX}apprehension.v01", "no event type of that name"),
        (f"{TYPE_PREFIX}apprehension.v1\n", "no event type of that name"),
        ("apprehension.v1", "no event type of that name"),
        ("com.example.patrol", "no event type of that name"),
    ],
)
def test_another_type_is_unknown_and_a_newer_one_asks_for_an_upgrade(type_name: str, words: str) -> None:
    error = refusal(given.as_json(GOLDEN["apprehension"] | {"type": type_name}))

    assert (error.reason, error.pointer) == ("unknown-type", "$.type")
    assert error.rule.startswith(words)


def test_a_type_that_could_be_none_is_not_repeated() -> None:
    for name in ("\x1b[31m", "š", "x" * 81, "Janez Novak"):
        assert refusal(given.as_json({"type": name})).type_name == "(a type of unreadable name)"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"type":"Zaupno-Ime-4711\\n\\u001b[31m","x":',
        b'{"type":"Zaupno-Ime-4711","type":"org.fieldtally.apprehension.v1"}',
        b'{"type":"org.fieldtally.apprehension.v1","x - at `Zaupno-Ime-4711\\n\\u001b[31m":1}',
        b'{"type":"org.fieldtally.apprehension.v1","x - at `$.Zaupno-Ime-4711`":1}',
        b'{"type":"org.fieldtally.apprehension.v1","x` - at `$.data.Zaupno-Ime-4711":1}',
        b'{"specversion":"1.0","type":"' + b"Zaupno-Ime-4711" * 300 + b'","x":',
    ],
)
def test_bytes_that_steer_the_decoder_s_words_do_not_get_into_ours(raw: bytes) -> None:
    error = refusal(raw)

    assert MARKER not in said(error)
    assert re.fullmatch(r"[ -~]{1,200}", str(error))


def test_a_known_type_that_is_named_twice_is_not_unknown() -> None:
    """An upgrade would not help: the event contradicts itself."""
    raw = given.as_json(GOLDEN["apprehension"])[:-1] + b', "type": "org.fieldtally.custody.v1"}'

    assert refusal(raw).reason == "malformed"


# --- bytes that are no JSON object ---

A_REPORT = given.as_json(GOLDEN["apprehension"])


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b"1",
        b'"event"',
        b"{}",
        b"{",
        A_REPORT[:-1],
        A_REPORT + b"x",
        A_REPORT + A_REPORT,
        b"\xef\xbb\xbf" + A_REPORT,
        A_REPORT.decode().encode("utf-16"),
        b"\xff" + A_REPORT,
        A_REPORT.replace(b"novo-mesto", b"novo\xffmesto"),
        A_REPORT.replace(b"novo-mesto", b"novo\\ud800mesto"),
        A_REPORT.replace(b"novo-mesto", b"novo\nmesto"),
        A_REPORT.replace(b": 4", b": NaN"),
        A_REPORT.replace(b": 4", b": Infinity"),
        A_REPORT.replace(b": 4", b": 04"),
        A_REPORT.replace(b": 4", b": +4"),
        A_REPORT.replace(b": 4", b": 4e0"),
        A_REPORT.replace(b": 4", b": -0"),
        A_REPORT.replace(b": 4", b": " + b"9" * 5_000),
        A_REPORT.replace(b": 118", b": 1e400"),
        A_REPORT.replace(b'"side"', b"'side'"),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        A_REPORT[:-1] + b', "more": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        A_REPORT.replace(b'"SYR"', b"[" * 5_000 + b"]" * 5_000),
        b'{"type": 1}',
        b'{"type": null}',
        b'{"type": ["org.fieldtally.apprehension.v1"]}',
    ],
    ids=lambda raw: repr(raw[:12] + b".." + raw[-12:]),
)
def test_bytes_that_are_no_event_are_malformed(raw: bytes) -> None:
    assert refusal(raw).reason == "malformed"


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.sampled_from(REQUIRED), inner, max_size=4)
    ),
    max_leaves=12,
)


@examples(st.binary() | JUNK.map(given.as_json))
def test_only_an_event_error_comes_of_any_bytes(raw: bytes) -> None:
    assert refusal(raw).reason in {"malformed", "unknown-type"}


@examples(
    given.documents("SI"),
    st.data(),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just([]) | st.just({}),
)
def test_an_event_with_any_value_anywhere_decodes_or_is_an_event_error(
    document: dict[str, Any], data: st.DataObject, value: object
) -> None:
    *path, last = data.draw(st.sampled_from([*paths(document)]))
    inner: Any = document
    for part in path:
        inner = inner[part]
    inner[last] = value
    try:
        event = codec.decode(given.as_json(document))
    except EventError:
        return
    assert codec.encode(event) == codec.encode(codec.decode(codec.encode(event)))


# --- an error repeats nothing ---

MARKER = "Zaupno-Ime-4711"
MARKED_NUMBER = 47_114_711_471_147_114_711


def said(error: EventError) -> str:
    return f"{error} {error.type_name} {error.pointer} {error.rule}"


@pytest.mark.parametrize(("kind", "path"), [(kind, path) for kind, path in EVERYWHERE if path != ("type",)], ids=_ids)
def test_an_error_repeats_no_text_of_the_event(kind: str, path: Path_) -> None:
    """Whatever field it stands in, and whichever rule that breaks. Only the type is named."""
    for value in (f"{MARKER} |", [MARKER], {"a": MARKER}):
        assert MARKER not in said(refusal_or_none(with_value(kind, path, value)))


@pytest.mark.parametrize(("kind", "path"), EVERYWHERE, ids=_ids)
def test_an_error_repeats_no_number_of_the_event(kind: str, path: Path_) -> None:
    assert "4711" not in said(refusal(given.as_json(with_value(kind, path, MARKED_NUMBER))))


@pytest.mark.parametrize(("kind", "path"), OBJECTS, ids=_ids)
def test_an_error_repeats_no_value_of_an_unknown_field(kind: str, path: Path_) -> None:
    for value in (MARKER, {"name": MARKER}, [MARKER]):
        assert MARKER not in said(refusal(given.as_json(with_value(kind, (*path, "remark"), value))))


def refusal_or_none(document: dict[str, Any]) -> EventError:
    """Return the refusal; free text such as an area takes any value and has none."""
    try:
        codec.decode(given.as_json(document))
    except EventError as error:
        return error
    return EventError("malformed", "", "", "")


@pytest.mark.parametrize(
    "name",
    ["\x1b[31mred", "two\nlines", "x" * 1_000, "Janez Novak, 1. 1. 1970", ""],
    ids=["escape", "newline", "long", "person", "empty"],
)
def test_an_error_is_one_short_printable_line_whatever_an_unknown_field_is_called(name: str) -> None:
    """It is stored with a parked entry and printed on terminals; and a field's name may hold what no value may."""
    error = refusal(given.as_json(GOLDEN["apprehension"] | {name: 1}))

    assert re.fullmatch(r"[ -~]{1,160}", str(error))
    assert not name or name not in str(error)


# --- what the gateway answers with ---


@pytest.mark.parametrize(
    ("raw", "ident"),
    [
        (A_REPORT, GOLDEN["apprehension"]["id"]),
        (b'{"id": "018E3A2F-6A1C-7C3E-9F10-2B6D6C1F0A11"}', GOLDEN["apprehension"]["id"]),
        (b'{"id": 7}', ""),
        (b"{}", ""),
        (b"\xff", ""),
        (b"[" * 100_000, ""),
    ],
)
def test_the_id_of_what_is_no_event_is_read_where_it_can_be(raw: bytes, ident: str) -> None:
    assert ident == codec.readable_id(raw)
