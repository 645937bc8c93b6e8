"""Exports what other programs may rely on: the events as JSON Schema, the streams as an AsyncAPI document."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple, get_args

import msgspec
from msgspec import Meta, Struct

from schemas.events import Event
from schemas.examples import event_examples, operation_of
from schemas.vocabulary import BY_PATTERN, NAME_PATTERN, NAME_RULE, Measure, Side

SCHEMA_ID: Final = "urn:fieldtally:events:v1"
VERSION: Final = "1.0.0"
"""Of the contract that the documents describe; a changed meaning is a new major version."""

LICENSE: Final = "Apache-2.0"

POSITION_PATTERN: Final = "^[0-9]+-[0-9]+$"
DATE_PATTERN: Final = "^(?!0000)[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"
UUID_PATTERN: Final = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"
TIME_PATTERN: Final = (
    "^(?!0000|0001|9999)[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]"
    "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]+)?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
"""A time as RFC 3339 has it, in the years that have a local day in every zone, without a second 60."""

# Most validators take a format for a remark.
_PATTERNS: Final = {"date": DATE_PATTERN, "date-time": TIME_PATTERN, "uuid": UUID_PATTERN}

# What msgspec cannot know: the rules between fields that JSON Schema can state.
_ALSO_REQUIRED: Final = {
    "OperationOpened": ("subject",),
    "OperationClosed": ("subject",),
    "Withdrawal": ("amends", "revision"),
}
_EACH_ONCE: Final = ("sections", "persons", "smugglers", "smuggled_persons", "remanded", "totals")
_PRINTABLE: Final = r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]+$"

_MEANINGS: Final = {
    "specversion": "CloudEvents 1.0.",
    "id": "A UUID (version 7 advised), made on the device once: the report's identity for ever.",
    "source": "Who reports: /side/unit/device, with the event's `side`; parts of 1 to 64 letters, digits, hyphens.",
    "type": "The event type and its version.",
    "reportno": "The device's running number, from 1; it only serves to find what is missing.",
    "side": "The country whose authorities count the result (ISO 3166-1 alpha-2).",
    "subject": f"The operation; absent for work outside any operation. It {NAME_RULE}.",
    "time": "When it happened, with the offset from UTC that the device's clock shows; years 2 to 9998.",
    "amends": "The `id` of the original report, of which this is a later version; not the event's own `id`.",
    "revision": "Which later version this is: 1, 2, 3 and so on.",
    "name": "What the operation is called; printable characters.",
    "area": "Which stretch of border the section is; printable characters.",
    "starts": "The first day.",
    "ends": "The last day, included; not before the first.",
    "closed": "The last day of the operation.",
    "coverage": "By joint mixed patrols, or as one of the remaining areas.",
    "section": f"The stretch of border. It {NAME_RULE}.",
    "sections": "The sections of the side that opens the operation, each once.",
    "persons": "Persons apprehended, by citizenship, each once; the breakdown is the total.",
    "smugglers": "Smugglers arrested, by citizenship, each once.",
    "smuggled_persons": "Persons found with them, by citizenship, each once; not counted as apprehended.",
    "remanded": "Persons remanded in custody, by citizenship, each once.",
    "citizenship": "ISO 3166-1 alpha-3, or XXA stateless, XXB and XXC refugee, XXX unspecified, RKS Kosovo.",
    "count": "How many.",
    "case": f"The case that the persons belong to. It {NAME_RULE}.",
    "opens_case": "Whether this report is the first of its case.",
    "measure": "What was counted.",
    "totals": "The figures; each measure, section and citizenship once.",
    "period_from": "When the period begins.",
    "period_to": "When the period ends; not before it begins.",
    "reason": "Why the report no longer counts.",
}


class Streams(NamedTuple):
    """The names of one side's streams on Redis."""

    log: str
    changes: str


class LogEntry(Struct):
    """One entry of a side's log: the fields of a stream entry, whose ID is the report's position."""

    event: Annotated[str, Meta(description="The event as JSON text. What the gateway records is canonical.")]
    by: Annotated[
        str,
        Meta(
            description="Who was authenticated, as /side/unit/device; for an entry that was parked and put back, "
            "requeue/side:position/user with where it is parked; absent where a program wrote directly."
        ),
    ] = ""


class Change(Struct):
    """One entry of the change feed; its ID is the position of the log that it brings the tallies to."""

    after: Annotated[
        str,
        Meta(
            pattern="^[0-9]+-[0-9]+$",
            description="The position of the tallies before this change: if it is not the "
            "reader's own, the reader has missed something and takes a snapshot.",
        ),
    ]
    generation: Annotated[
        str, Meta(min_length=1, description="The set of tallies that changed; on another name, take a snapshot.")
    ]
    cells: Annotated[str, Meta(description="The changed cells with their absolute counts, as JSON text.")]


def components(
    types: Iterable[Any], ref_template: str, sides: Sequence[Side] = ()
) -> tuple[tuple[dict[str, Any], ...], dict[str, dict[str, Any]]]:
    """Return the schemas of types and of all that they refer to, with the rules of events that msgspec cannot know.

    With `sides`, an event's side is one of these.
    """
    roots, named = msgspec.json.schema_components(types, ref_template=ref_template)
    for name, component in named.items():
        component["description"] = _in_paragraphs(component["description"])
        rules = component["properties"]
        for field, rule in rules.items():
            if rule.get("format") in _PATTERNS:
                rule["pattern"] = _PATTERNS[rule["format"]]
            if component.get("additionalProperties") is False:  # so it is an event, or a part of one
                _refine(field, rule)
        if "amends" in rules:
            component["dependentRequired"] = {"amends": ["revision"], "revision": ["amends"]}
            component["required"] = [*component["required"], *_ALSO_REQUIRED.get(name, ())]
            # Absent is not the same as given with the value that stands for absent.
            for absent in ("subject", "revision"):
                rules[absent].pop("default", None)
            rules["subject"].pop("minLength")  # its pattern says as much
            if sides:
                rules["side"].pop("pattern")
                rules["side"]["enum"] = [*sides]
                rules["source"]["pattern"] = rules["source"]["pattern"].replace("[A-Z]{2}", f"({'|'.join(sides)})")
    if "BalanceTotal" in named:
        section = named["BalanceTotal"]["properties"]["section"]
        section["pattern"] = f"^$|{section['pattern']}"  # given as empty, it is absent
    return roots, named


def event_schema() -> str:
    """Return a JSON Schema (2020-12) of every event type, indented.

    Left to the codec are the rules that a schema cannot state: the side in `source` is `side`, a list of counts names
    each citizenship once, a period's end is not before its start, a day exists, a whole number is written without a
    point.
    """
    (root,), named = components([Event], "#/$defs/{name}")
    return as_text({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "Fieldtally events: CloudEvents 1.0 in JSON",
        **root,
        "$defs": named,
    })  # fmt: skip


def asyncapi(streams: Mapping[Side, Streams]) -> dict[str, Any]:
    """Return an AsyncAPI 3.0 document of the log and the change feed of each side, in the order given.

    The streams' names hold braces, which in an address would be read as a parameter's. So the name as a whole is a
    parameter, and its values are the names there are.
    """
    sides = tuple(streams)
    ref = "#/components/schemas/{name}"
    (event, *_), named = components([Event, LogEntry, Change], ref, sides)
    named["Event"] = {"title": "Event", "description": "A report, as recorded: one of the event types."} | event
    text = {"contentMediaType": "application/cloudevents+json", "contentSchema": {"$ref": ref.format(name="Event")}}
    named["LogEntry"]["properties"]["event"] |= text
    named["LogEntry"]["properties"]["by"] |= {"pattern": BY_PATTERN.replace(r"\Z", "$")}
    named["LogEntry"]["properties"]["by"].pop("default")
    named["LogEntry"]["additionalProperties"] = False  # an entry with another field is parked
    named["Cells"] = _cells(sides)
    named["Change"]["properties"]["cells"] |= {
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": ref.format(name="Cells")},
    }
    return {
        "asyncapi": "3.0.0",
        "id": "urn:fieldtally:streams:v1",
        "info": {
            "title": "Fieldtally streams",
            "version": VERSION,
            "description": (
                "The Redis streams that other programs may use: each side's log, and the feed of changed tallies. "
                "Operations are told from the side of such a program: it sends with `XADD` and receives with `XREAD`. "
                "A field of an entry is text; the JSON in it is described by its `contentSchema`."
            ),
            "license": {"name": LICENSE},
        },
        "defaultContentType": "application/json",
        "channels": {
            "log": _channel(
                "The log",
                "Every report of a side, in the order of receipt; append-only, never trimmed by MAXLEN.",
                [names.log for names in streams.values()],
                "LogEntry",
            ),
            "changes": _channel(
                "The change feed",
                "What each turn of the projector changed. It is capped: a reader whose last entry is gone takes a "
                "snapshot of the tallies and goes on from its position.",
                [names.changes for names in streams.values()],
                "Change",
            ),
        },
        "operations": {
            "appendToLog": _operation(
                "send", "log", "LogEntry", "Append an event",
                "`XADD` with the ID `*` and without MAXLEN. The projector is the judge of what is written here: what "
                "breaks a rule is parked with the reason. Patrol apps use the gateway, which answers for each report.",
            ),
            "readLog": _operation(
                "receive", "log", "LogEntry", "Read the log",
                "`XREAD` or `XRANGE` after the last position read; no consumer group is needed.",
            ),
            "followChanges": _operation(
                "receive", "changes", "Change", "Follow the tallies",
                "`XREAD BLOCK` after the position of a snapshot. Counts are absolute: taking an entry twice is "
                "harmless.",
            ),
        },
        "components": {
            "messages": {
                "LogEntry": _message(
                    "LogEntry",
                    "An event in the log",
                    [
                        (f"{name} event", {"event": msgspec.json.encode(event).decode(), "by": event.source})
                        for name, event in event_examples(sides).items()
                    ],
                ),
                "Change": _message("Change", "A change of the tallies", [("two cells", _change_example(sides))]),
            },
            "schemas": _in_draft_07(named),
        },
    }  # fmt: skip


def as_text(document: Mapping[str, Any]) -> str:
    """Write a document as it is published: indented, in the order in which it was made."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def _refine(field: str, rule: dict[str, Any]) -> None:
    """State of a field of an event what its type does not."""
    if "$ref" not in rule and field in _MEANINGS:
        rule["description"] = _MEANINGS[field]
    if field in _EACH_ONCE:
        rule["uniqueItems"] = True
    if field in {"name", "area"}:
        rule["pattern"] = _PRINTABLE


def _channel(title: str, description: str, names: list[str], message: str) -> dict[str, Any]:
    return {
        "address": "{key}",
        "title": title,
        "description": description,
        "parameters": {"key": {"enum": names, "description": "The stream's key on Redis, one for each side."}},
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
        "bindings": {"redis": {}},
    }


def _operation(action: str, channel: str, message: str, title: str, description: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "title": title,
        "description": description,
        "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"}],
        "bindings": {"redis": {}},
    }


def _message(name: str, title: str, examples: list[tuple[str, dict[str, str]]]) -> dict[str, Any]:
    return {
        "name": name,
        "title": title,
        "contentType": "application/json",
        "payload": {"$ref": f"#/components/schemas/{name}"},
        "bindings": {"redis": {}},
        "examples": [{"name": example, "payload": payload} for example, payload in examples],
    }


def _cells(sides: Sequence[Side]) -> dict[str, Any]:
    name = NAME_PATTERN.removeprefix("^").removesuffix(r"\Z")
    parts = (
        f"({'|'.join(sides)})", f"({name})?", f"({name})?", "[0-9]{4}-[0-9]{2}-[0-9]{2}",
        f"({'|'.join(get_args(Measure))})", "([A-Z]{3})?",
    )  # fmt: skip
    return {
        "title": "Cells",
        "description": (
            "Cells with their absolute counts. A cell is side|operation|section|day|measure|citizenship; an absent "
            "operation, section or citizenship is empty; a count of 0 says that the cell is gone."
        ),
        "type": "object",
        "propertyNames": {"pattern": rf"^{'[|]'.join(parts)}$"},
        "additionalProperties": {"type": "integer", "minimum": 0},
    }


def _change_example(sides: Sequence[Side]) -> dict[str, str]:
    base = (sides[0], operation_of(sides), "novo-mesto", "2024-03-14")
    cells = {"|".join((*base, "apprehensions", "")): 12, "|".join((*base, "persons", "SYR")): 31}
    return {
        "after": "1710385925000-2",
        "generation": "g1",
        "cells": json.dumps(cells, separators=(",", ":")),
    }


def _in_draft_07(schema: Any) -> Any:
    """Spell in the JSON Schema of AsyncAPI (draft 7) what has another name in 2020-12.

    Nested schemas are the values of mappings whose keys may be names of ours; none of ours is a keyword's.
    """
    if isinstance(schema, list):
        return [_in_draft_07(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        {"dependentRequired": "dependencies"}.get(key, key): _in_draft_07(value)
        for key, value in schema.items()
        if key != "discriminator"  # which is a schema's own property here, and `type` of each event says as much
    }


def _in_paragraphs(text: str) -> str:
    """Undo the line breaks of a docstring."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
