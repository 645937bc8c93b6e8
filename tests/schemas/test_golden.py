"""The golden files are what other programs write: they stay readable for ever, in one canonical form."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as examples

from schemas import codec
from schemas.events import TYPE_PREFIX
from tests import given

GOLDEN = {path.stem: path.read_bytes() for path in sorted((Path(__file__).parent / "golden").glob("*.json"))}
IDENTITY = {("id",), ("source",), ("reportno",)}

# Another value that the field may have as well.
ANOTHER: dict[str, Any] = {
    "id": given.uid(99),
    "amends": given.uid(99),
    "subject": "SI-HR-2025-01",
    "time": "2024-05-05T05:05:05+02:00",
    "name": "Another control",
    "area": "Another area",
    "starts": "2024-01-01",
    "ends": "2024-12-31",
    "closed": "2024-12-31",
    "section": "another-section",
    "case": "another-case",
    "citizenship": "IRQ",
    "measure": "remanded",
    "reason": "out-of-scope",
}
FIXED = {("specversion",), ("type",), ("side",)}  # the first two have one value; the side moves together with `source`


def paths(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path to each value that is no object or list."""
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(inner, (*path, name))
    else:
        yield path


def changed(document: Any, path: tuple[str | int, ...]) -> dict[str, Any]:
    """Return the document with another valid value at one place."""
    made = copy.deepcopy(document)
    inner = made
    for part in path[:-1]:
        inner = inner[part]
    name, value = path[-1], inner[path[-1]]
    match name:
        case "source":
            inner[name] = f"/{made['side']}/ANOTHER/device"
        case "reportno" | "count" | "revision":
            inner[name] = value - 1 if value > 1 else value + 1
        case "opens_case":
            inner[name] = not value
        case "coverage":
            inner[name] = {"joint": "remaining", "remaining": "joint"}[value]
        case "period_from":
            inner[name] = value.replace("2024-", "2023-").replace("2023-01-01", "2022-06-01")
        case "period_to":
            inner[name] = value.replace("2024-", "2025-").replace("2023-12-31", "2024-06-01")
        case _:
            inner[name] = ANOTHER[str(name)]
    assert inner[name] != value
    return dict(made)


def digest(document: dict[str, Any]) -> bytes:
    return codec.content_digest(codec.decode(given.as_json(document)))


CHANGES = [
    pytest.param(kind, path, id=f"{kind}-{'.'.join(str(part) for part in path)}")
    for kind, golden in GOLDEN.items()
    for path in paths(json.loads(golden))
    if path not in FIXED
]


def test_there_is_a_golden_file_for_each_event_type() -> None:
    assert sorted(given.KINDS) == sorted(GOLDEN)


@pytest.mark.parametrize("kind", GOLDEN)
def test_a_golden_file_decodes_as_its_type(kind: str) -> None:
    event = codec.decode(GOLDEN[kind])

    assert f"{TYPE_PREFIX}{kind}.v1" == event.__struct_config__.tag


@pytest.mark.parametrize("kind", GOLDEN)
def test_a_golden_file_is_not_canonical(kind: str) -> None:
    """Else it would show nothing about what other programs write."""
    assert GOLDEN[kind].strip() != codec.encode(codec.decode(GOLDEN[kind]))


@pytest.mark.parametrize("kind", GOLDEN)
def test_the_canonical_encoding_of_a_golden_file_is_stable(kind: str) -> None:
    once = codec.encode(codec.decode(GOLDEN[kind]))

    assert once == codec.encode(codec.decode(once))


@pytest.mark.parametrize("kind", GOLDEN)
def test_the_canonical_encoding_says_what_the_file_says(kind: str) -> None:
    """Times may be written otherwise, ids are in small letters, everything else is the same."""
    written, canonical = json.loads(GOLDEN[kind]), json.loads(codec.encode(codec.decode(GOLDEN[kind])))
    written["id"] = written["id"].lower()
    if kind == "operation-closed":
        written["time"] = written["time"].replace(".250", ".250000")

    assert written == canonical


@pytest.mark.parametrize("kind", GOLDEN)
def test_the_digest_is_blake2b_of_the_canonical_encoding_without_id_source_and_number(kind: str) -> None:
    event = codec.decode(GOLDEN[kind])
    content = json.loads(codec.encode(event))
    for name in ("id", "source", "reportno"):
        del content[name]
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)

    assert blake2b(text.encode(), digest_size=16).digest() == codec.content_digest(event)


@pytest.mark.parametrize(("kind", "path"), CHANGES)
def test_the_digest_ignores_id_source_and_number_and_nothing_else(kind: str, path: tuple[str | int, ...]) -> None:
    document = json.loads(GOLDEN[kind])

    assert (path in IDENTITY) == (digest(document) == digest(changed(document, path)))


@pytest.mark.parametrize("kind", GOLDEN)
def test_the_digest_does_not_ignore_the_side(kind: str) -> None:
    document = json.loads(GOLDEN[kind])

    assert digest(document) != digest(document | {"side": "AT", "source": "/AT/AT-MP-01/9f3c2a"})


def test_the_digest_does_not_ignore_the_type() -> None:
    """No two types have the same data, so the same attributes with other data stand for it."""
    opened, closed = (codec.decode(raw) for raw in (given.operation_opened(), given.operation_closed()))

    assert codec.content_digest(opened) != codec.content_digest(closed)
    assert b'"type"' in codec.encode(opened)


@examples(given.documents("SI"))
def test_the_canonical_encoding_of_any_event_is_stable(document: dict[str, Any]) -> None:
    once = codec.encode(codec.decode(given.as_json(document)))

    assert once == codec.encode(codec.decode(once))


@examples(given.documents("SI"))
def test_equal_content_has_one_digest_however_it_is_written(document: dict[str, Any]) -> None:
    turned = dict(reversed(document.items())) | {"id": given.uid(12_345), "source": "/SI/OTHER/x", "reportno": 77}

    assert digest(document) == digest(turned)
