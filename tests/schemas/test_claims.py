"""A claims file says one thing per claim, and what is wrong with it is said with its place."""

from __future__ import annotations

from datetime import date
from typing import Any

import msgspec
import pytest

from schemas.claims import RELATIONS, Claims, decode_claims

CLAIM: dict[str, Any] = {"text": "four smugglers", "measure": "smugglers", "equals": 4}


def claims(*claim: dict[str, Any], **head: Any) -> Claims:
    file = {"title": "t", "published": date(2024, 3, 15), "source": "s", "claim": list(claim)} | head
    return decode_claims(_toml(file).encode())


def _toml(file: dict[str, Any]) -> str:
    """Write the little TOML that is needed here."""
    lines = [f"{name} = {_value(value)}" for name, value in file.items() if name != "claim"]
    for claim in file["claim"]:
        lines += ["[[claim]]", *(f"{name} = {_value(value)}" for name, value in claim.items())]
    return "\n".join(lines)


def _value(value: Any) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{name} = {_value(inner)}" for name, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(_value(inner) for inner in value) + "]"
        case date():
            return value.isoformat()
        case str():
            return f'"{value}"'
        case bool():
            return str(value).lower()
        case _:
            return str(value)


def test_a_file_holds_a_publication_and_its_claims() -> None:
    read = claims(CLAIM, CLAIM | {"equals": 5})

    assert ("t", date(2024, 3, 15), "s") == (read.title, read.published, read.source)
    assert [claim.published for claim in read.claims] == [4, 5]


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_claim_knows_its_relation_and_figure(relation: str) -> None:
    (claim,) = claims({"text": "x", "measure": "persons", relation: 7}).claims

    assert (relation, 7) == (claim.relation, claim.published)


def test_a_figure_may_be_zero() -> None:
    (claim,) = claims(CLAIM | {"equals": 0}).claims

    assert (claim.relation, claim.published) == ("equals", 0)


def test_the_period_is_written_from_and_to() -> None:
    (claim,) = claims(CLAIM | {"from": date(2024, 3, 13), "to": date(2024, 3, 13)}).claims

    assert (date(2024, 3, 13), date(2024, 3, 13)) == (claim.first_day, claim.last_day)


def test_a_list_in_where_means_any_of_its_values() -> None:
    (claim,) = claims(CLAIM | {"where": {"side": "SI", "citizenship": ["SYR", "AFG"]}}).claims

    assert claim.where == {"side": "SI", "citizenship": ("SYR", "AFG")}


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ({"year": 2024}, {"year": "2024"}),
        ({"year": [2024, "2023"]}, {"year": ("2024", "2023")}),
        ({"day": date(2024, 2, 29)}, {"day": "2024-02-29"}),
        ({"day": [date(2024, 2, 29), "2024-03-01"]}, {"day": ("2024-02-29", "2024-03-01")}),
    ],
)
def test_a_year_may_be_a_number_and_a_day_a_date(written: dict[str, Any], text: dict[str, Any]) -> None:
    (claim,) = claims(CLAIM | {"where": written}).claims

    assert text == claim.where


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("year = 2024.5", 'year is written as 2024 or "2024", or as a list of such, not as a number with a point'),
        ("year = true", "year is written as .*, not as true or false"),
        ("year = 2024-01-01", "year is written as .*, not as a date without quotes"),
        ("year = [[2024]]", "year is written as .*, not as lists in a list"),
        ("day = 2024-02-29T00:00:00Z", "day is written as 2024-02-29 or .*, not as a date with a time"),
        ("day = 20240229", "day is written as .*, not as a number"),
        ("day = 12:00:00", "day is written as .*, not as a time"),
        ("month = 202402", 'month is written as "2024-02", or as a list of such, not as a number'),
        ("side = 1", "side is written as a text in quotes, or as a list of such, not as a number"),
        ("citizenship = ['SYR', 1]", "citizenship is written as .*, not as a number"),
        ("section = { name = 'x' }", "section is written as .*, not as a table"),
    ],
)
def test_another_type_in_where_is_refused_with_the_dimension_and_what_may_be_written(where: str, said: str) -> None:
    text = 'title="t"\npublished=2024-03-15\nsource="s"\n[[claim]]\ntext="x"\nmeasure="persons"\nequals=1\n'

    with pytest.raises(ValueError, match=rf"{said} - at `\$\.claim\[0\]\.where\.{where.split(maxsplit=1)[0]}`"):
        decode_claims(f"{text}where = {{ {where} }}".encode())


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        ({"equals": None}, "exactly one of equals, more_than, at_least, less_than, at_most; this has none"),
        ({"at_least": 4}, "exactly one of .*; this has equals, at_least"),
        ({"equals": -1}, r"Expected `int` >= 0 - at `\$\.claim\[0\]\.equals`"),
        ({"equals": 1.5}, r"Expected `int \| null`, got `float`"),
        ({"equals": True}, r"Expected `int \| null`, got `bool`"),
        ({"measure": "people"}, r"Invalid enum value 'people' - at `\$\.claim\[0\]\.measure`"),
        ({"text": ""}, r"length >= 1 - at `\$\.claim\[0\]\.text`"),
        ({"from": date(2024, 3, 15), "to": date(2024, 3, 14)}, "`from` lies after `to`"),
        ({"breakdown": {"citizenship": {"UKR": 2}, "origin": {"foreign": 2}}}, "`breakdown` is by one dimension"),
        ({"breakdown": {"citizenship": {}}}, "`breakdown` has no member"),
        ({"where": {"measure": "persons"}}, "the measure is named by `measure`"),
        ({"breakdown": {"measure": {"persons": 2}}}, "the measure is named by `measure`"),
        ({"breakdown": {"citizenship": {"UKR": -2}}}, "Expected `int` >= 0"),
        ({"equal": 4}, "unknown field `equal`"),
    ],
)
def test_a_broken_claim_is_refused_with_the_rule(broken: dict[str, Any], rule: str) -> None:
    claim = {name: value for name, value in (CLAIM | broken).items() if value is not None}

    with pytest.raises(ValueError, match=rule):
        claims(claim)


def test_a_file_without_claims_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"claim"):
        decode_claims(b'title = "t"\npublished = 2024-03-15\nsource = "s"\nclaim = []')


@pytest.mark.parametrize("name", ["title", "published", "source"])
def test_a_publication_names_its_title_day_and_source(name: str) -> None:
    lines = {"title": '"t"', "published": "2024-03-15", "source": '"s"'}
    del lines[name]
    text = "\n".join(f"{key} = {value}" for key, value in lines.items())

    with pytest.raises(msgspec.ValidationError, match=f"missing required field `{name}`"):
        decode_claims(f'{text}\n[[claim]]\ntext = "x"\nmeasure = "persons"\nequals = 1'.encode())


@pytest.mark.parametrize("text", [b"\xff", b"title = ", b"]", b"{}"])
def test_what_is_no_toml_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_claims(text)
