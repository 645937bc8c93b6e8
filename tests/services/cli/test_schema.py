"""`schema export` prints the schema that every event satisfies, without a server and without settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # it has no types of its own
import pytest

from schemas.export import event_schema
from tests import given
from tests.services.cli.conftest import Cli, Outcome

NOWHERE = "redis://127.0.0.1:1"


def test_it_prints_the_schema(cli: Cli) -> None:
    assert (0, event_schema() + "\n", "") == cli("schema", "export", url=NOWHERE, SIDES="nonsense")


def test_out_writes_the_same_into_a_file(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "events.schema.json"
    assert (0, "", f"wrote {file}\n") == cli("schema", "export", "--out", str(file), url=NOWHERE)
    assert cli("schema", "export").out == file.read_text(encoding="utf-8")


def test_an_event_satisfies_it_and_a_broken_one_does_not(process: Callable[..., Outcome]) -> None:
    exported = process("schema", "export", url=NOWHERE)
    assert (0, "") == (exported.code, exported.err)
    validator = jsonschema.Draft202012Validator(exported.json)
    event = json.loads(given.apprehension(persons={"SYR": 4}))
    validator.validate(event)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(event | {"officer": "x"})
