"""Exports the event types for other programs: one JSON Schema for all of them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from schemas.codec import RFC_3339_PATTERN
from schemas.events import Event

SCHEMA_ID: Final = "urn:fieldtally:events:v1"

# What msgspec cannot know: the rules between fields that JSON Schema can state.
_ALSO_REQUIRED: Final = {
    "OperationOpened": ("subject",),
    "OperationClosed": ("subject",),
    "Withdrawal": ("amends", "revision"),
}


def event_schema() -> str:
    """Return a JSON Schema (2020-12) of every event type, indented.

    Left to the codec are the rules that a schema cannot state: the side in `source` is `side`, a list of counts names
    each citizenship once, a period's end is not before its start, a day exists, a whole number is written without a
    point.
    """
    (root,), components = msgspec.json.schema_components([Event], ref_template="#/$defs/{name}")
    for name, component in components.items():
        if "amends" in component["properties"]:
            component["dependentRequired"] = {"amends": ["revision"], "revision": ["amends"]}
            component["required"] = [*component["required"], *_ALSO_REQUIRED.get(name, ())]
            # Absent is not the same as given with the value that stands for absent.
            for absent in ("subject", "revision"):
                component["properties"][absent].pop("default", None)
        for rule in component["properties"].values():
            if rule.get("format") == "date-time":  # which most validators take for a remark
                rule["pattern"] = RFC_3339_PATTERN
    section = components["BalanceTotal"]["properties"]["section"]
    section["pattern"] = f"^$|{section['pattern']}"  # given as empty, it is absent
    document: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "Fieldtally events: CloudEvents 1.0 in JSON",
        **root,
        "$defs": components,
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
