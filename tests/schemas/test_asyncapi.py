"""The AsyncAPI document is valid by an independent model of the format, and says what the log and the feed hold."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
from hypothesis import given as examples
from jsonschema import Draft7Validator

from schemas.events import TYPE_PREFIX
from schemas.export import Streams, asyncapi
from schemas.vocabulary import Position, Side
from services.tally.fold import arrive
from tests import given

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its fields have names that pydantic would rather keep for itself
    from asyncapi3 import AsyncAPI3

SI, HR = Side("SI"), Side("HR")
STREAMS = {SI: Streams("{ft:SI}:log", "{ft:SI}:changes"), HR: Streams("{ft:HR}:log", "{ft:HR}:changes")}
DOCUMENT = asyncapi(STREAMS)
SCHEMAS = DOCUMENT["components"]["schemas"]
LOG_ENTRIES = [example["payload"] for example in DOCUMENT["components"]["messages"]["LogEntry"]["examples"]]
CHANGES = [example["payload"] for example in DOCUMENT["components"]["messages"]["Change"]["examples"]]


def problems(name: str, value: object) -> list[str]:
    """Return what is wrong with a value by one of the document's schemas, and by the schemas of the texts in it."""
    validator = Draft7Validator({"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]})
    found = [error.message for error in validator.iter_errors(value)]
    if isinstance(value, dict) and not found:
        for field, rule in SCHEMAS[name].get("properties", {}).items():
            if "contentSchema" in rule and field in value:
                found += problems(rule["contentSchema"]["$ref"].rpartition("/")[2], json.loads(value[field]))
    return found


def test_the_document_is_asyncapi_3() -> None:
    AsyncAPI3.model_validate(DOCUMENT)

    assert "3.0.0" == DOCUMENT["asyncapi"]


@pytest.mark.parametrize("channel", ["log", "changes"])
def test_a_document_without_an_action_is_refused_by_the_model(channel: str) -> None:
    """So that a model that takes anything would be noticed."""
    broken = DOCUMENT | {"operations": {"read": {"channel": {"$ref": f"#/channels/{channel}"}}}}
    with pytest.raises(ValueError, match="action"):
        AsyncAPI3.model_validate(broken)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_valid_json_schema(name: str) -> None:
    Draft7Validator.check_schema(SCHEMAS[name])


def test_every_reference_leads_somewhere() -> None:
    for ref in references(DOCUMENT):
        node: Any = DOCUMENT
        for step in ref.removeprefix("#/").split("/"):
            node = node[step]


def test_the_channels_are_the_streams_of_every_side() -> None:
    """A key's braces are no parameter of an address, so the key as a whole is one."""
    channels = DOCUMENT["channels"]

    assert {"{key}"} == {channel["address"] for channel in channels.values()}
    assert [names.log for names in STREAMS.values()] == channels["log"]["parameters"]["key"]["enum"]
    assert [names.changes for names in STREAMS.values()] == channels["changes"]["parameters"]["key"]["enum"]


def test_programs_may_write_and_read_the_log_and_only_read_the_feed() -> None:
    operations = {
        (operation["action"], operation["channel"]["$ref"].rpartition("/")[2])
        for operation in DOCUMENT["operations"].values()
    }

    assert {("send", "log"), ("receive", "log"), ("receive", "changes")} == operations


def test_every_event_type_is_there_with_an_example() -> None:
    every = {f"{TYPE_PREFIX}{kind}.v1" for kind in given.KINDS}

    assert every == {
        SCHEMAS[alternative["$ref"].rpartition("/")[2]]["properties"]["type"]["enum"][0]
        for alternative in SCHEMAS["Event"]["anyOf"]
    }
    assert every == {json.loads(entry["event"])["type"] for entry in LOG_ENTRIES}


def test_every_example_keeps_to_the_document() -> None:
    assert [] == [problem for entry in LOG_ENTRIES for problem in problems("LogEntry", entry)]
    assert [] == [problem for change in CHANGES for problem in problems("Change", change)]


@pytest.mark.parametrize("entry", LOG_ENTRIES, ids=lambda entry: json.loads(entry["event"])["type"])
def test_the_fold_takes_the_examples_of_the_log(entry: dict[str, str]) -> None:
    fields = {name.encode(): text.encode() for name, text in entry.items()}
    folded = given.Folded(side=json.loads(entry["event"])["side"])
    folded.take_entries([fields])

    assert {} == folded.parked


@examples(given.documents("SI"))
def test_the_document_takes_whatever_the_codec_takes(document: dict[str, Any]) -> None:
    entry = {"event": given.canonical(document).decode(), "by": document["source"]}

    assert [] == problems("LogEntry", entry)


@examples(given.documents("SI"))
def test_the_document_takes_what_the_projector_writes_into_the_feed(document: dict[str, Any]) -> None:
    cells = given.Folded(given.canonical(document)).tallies

    assert [] == problems("Change", {"after": "0-0", "generation": "g1", "cells": json.dumps(cells)})


def test_the_document_takes_an_entry_that_was_put_back() -> None:
    assert [] == problems("LogEntry", LOG_ENTRIES[0] | {"by": "requeue/SI:1710385929000-0/ana.novak"})


EVENT = json.loads(LOG_ENTRIES[0]["event"])
BROKEN = {
    "no event": {"by": EVENT["source"]},
    "another field": LOG_ENTRIES[0] | {"priority": "1"},
    "a sender who is none": LOG_ENTRIES[0] | {"by": "SI-MP-07"},
    "put back by nobody": LOG_ENTRIES[0] | {"by": "requeue/SI:1710385929000-0/"},
    "put back from nowhere": LOG_ENTRIES[0] | {"by": "requeue/SI/ana"},
    "a side without a log": LOG_ENTRIES[0] | {"event": json.dumps(EVENT | {"side": "AT"})},
    "an unknown attribute": LOG_ENTRIES[0] | {"event": json.dumps(EVENT | {"officer": "x"})},
    "amends without revision": LOG_ENTRIES[0] | {"event": json.dumps(EVENT | {"amends": EVENT["id"]})},
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_document_refuses(name: str) -> None:
    assert problems("LogEntry", BROKEN[name])


def test_an_entry_with_another_field_is_parked_as_the_document_says() -> None:
    fields = {name.encode(): text.encode() for name, text in BROKEN["another field"].items()}

    assert arrive(Position("1-0"), fields).event is None


@pytest.mark.parametrize(
    "cell",
    [
        "SI|SI-HR-2024-03|koper|2024-03-14|persons",
        "AT|||2024-03-14|persons|SYR",
        "SI|||2024-03-14|people|SYR",
        "SI|a b||2024-03-14|persons|SYR",
    ],
)
def test_the_document_refuses_what_is_no_cell(cell: str) -> None:
    assert problems("Change", {"after": "0-0", "generation": "g1", "cells": json.dumps({cell: 1})})


def test_the_document_refuses_a_count_below_zero() -> None:
    cell = "SI|||2024-03-14|persons|SYR"

    assert [] == problems("Change", {"after": "0-0", "generation": "g1", "cells": json.dumps({cell: 0})})
    assert problems("Change", {"after": "0-0", "generation": "g1", "cells": json.dumps({cell: -1})})


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [ref for part in node for ref in references(part)]
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [ref for part in node.values() for ref in references(part)]
    return []
