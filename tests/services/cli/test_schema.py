"""`schema export` prints what other programs rely on, without a server; for the events it needs no settings either."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # it has no types of its own
import pytest

from schemas.export import event_schema
from schemas.vocabulary import Side
from services.gateway.openapi import asyncapi_bytes, openapi_bytes
from tests import given
from tests.services.cli.conftest import Cli, Outcome, assert_refused

NOWHERE = "redis://127.0.0.1:1"
BOTH = (Side("SI"), Side("HR"))


@pytest.mark.parametrize("named", [(), ("events",)])
def test_it_prints_the_schema_of_the_events(cli: Cli, named: tuple[str, ...]) -> None:
    assert (0, event_schema() + "\n", "") == cli("schema", "export", *named, url=NOWHERE, SIDES="nonsense")


def test_it_prints_the_document_of_the_gateway(cli: Cli) -> None:
    assert (0, openapi_bytes(BOTH).decode(), "") == cli("schema", "export", "openapi", url=NOWHERE)


def test_it_prints_the_document_of_the_streams(cli: Cli) -> None:
    assert (0, asyncapi_bytes(BOTH, "p1").decode(), "") == cli("schema", "export", "asyncapi", at="p1", url=NOWHERE)


def test_the_documents_are_of_the_sides_and_the_prefix_that_are_set(cli: Cli) -> None:
    gateway = cli("schema", "export", "openapi", SIDES="AT:Europe/Vienna:AUT", url=NOWHERE).json
    streams = cli("schema", "export", "asyncapi", at="p2", SIDES="AT:Europe/Vienna:AUT", url=NOWHERE).json

    assert ["AT"] == gateway["components"]["schemas"]["Apprehension"]["properties"]["side"]["enum"]
    assert ["{p2:AT}:log"] == streams["channels"]["log"]["parameters"]["key"]["enum"]
    assert ["{p2:AT}:changes"] == streams["channels"]["changes"]["parameters"]["key"]["enum"]


@pytest.mark.parametrize("document", ["events", "openapi", "asyncapi"])
def test_out_writes_the_same_into_a_file(cli: Cli, tmp_path: Path, document: str) -> None:
    file = tmp_path / "document.json"
    assert (0, "", f"wrote {file}\n") == cli("schema", "export", document, "--out", str(file), url=NOWHERE)
    assert cli("schema", "export", document).out == file.read_text(encoding="utf-8")


def test_what_cannot_be_exported_is_refused(cli: Cli, tmp_path: Path) -> None:
    assert_refused(cli("schema", "export", "tallies"), 2, "tallies", "events", "openapi", "asyncapi")
    assert_refused(cli("schema", "export", "openapi", SIDES="nonsense"), 2, "FIELDTALLY_SIDES")
    assert_refused(cli("schema", "export", "openapi", "--out", str(tmp_path)), 2, str(tmp_path), "Is a directory")
    assert_refused(cli("schema", "export", "--out", ""), 2, "--out")


def test_an_event_satisfies_it_and_a_broken_one_does_not(process: Callable[..., Outcome]) -> None:
    exported = process("schema", "export", url=NOWHERE)
    assert (0, "") == (exported.code, exported.err)
    validator = jsonschema.Draft202012Validator(exported.json)
    event = json.loads(given.apprehension(persons={"SYR": 4}))
    validator.validate(event)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(event | {"officer": "x"})
