"""The description of the gateway for other programs: one OpenAPI 3.1 document, made from the structs that it uses."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date
from typing import Any, Final, get_args

import msgspec

from schemas.events import Event, SectionPlan
from schemas.examples import DEVICE, event_examples, operation_of, unit_of
from schemas.export import (
    LICENSE,
    POSITION_PATTERN,
    TIME_PATTERN,
    UUID_PATTERN,
    VERSION,
    Streams,
    as_text,
    asyncapi,
    components,
)
from schemas.http import (
    BATCH_MAX,
    BATCH_TYPE,
    CLOCK_OFF_S,
    CODES,
    EVENT_BYTES_MAX,
    EVENT_TYPE,
    PROBLEM_TYPE,
    REQUEST_BYTES_MAX,
    SENT_HEADER,
    TITLES,
    Check,
    Code,
    DeviceStanding,
    Liveness,
    OpenOperation,
    OpenOperations,
    Problem,
    Readiness,
    Result,
    Results,
    Status,
    problem,
)
from schemas.principals import ROLES
from schemas.vocabulary import Position, Side
from services.gateway.intake import UNDER_WAY_MAX
from services.store.keys import PartitionKeys

JSON_TYPE: Final = "application/json"
HTML_TYPE: Final = "text/html"
CSS_TYPE: Final = "text/css"
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_REF: Final = "#/components/schemas/{name}"
_POSITION: Final = Position("1710385929000-0")
_CLOCK_OFF: Final = 3_600

# What an answer to one report has beside `id` and `status`; `clock_off_s` may be in any.
_ANSWERS: Final[dict[Status, tuple[str, tuple[str, ...], str]]] = {
    "recorded": ("Recorded", ("position",), "The report is in the log, at `position`."),
    "duplicate": ("Duplicate", ("position",), "The report was in the log already, at `position`; nothing was added."),
    "conflict": (
        "Conflict",
        ("position", "problem"),
        "The log holds this report at `position` with other content. The first one counts; to change it, amend it.",
    ),
    "rejected": ("Rejected", ("problem",), "The report was not recorded, and `problem` says why."),
}

# As `prefixItems` would have it, which fewer tools know.
_PAIR: Final = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2, "maxItems": 2}
_ID: Final = {"type": "string", "description": "The report's own `id`.", "pattern": UUID_PATTERN}
_ANY_ID: Final = {
    "type": "string",
    "description": "The report's own `id`; empty if it could not be read.",
    "pattern": f"^$|{UUID_PATTERN}",
}

_REPORT_PROBLEMS: Final[dict[Code, tuple[str, str]]] = {
    "malformed": ("/data/persons/0/count", "apprehension at $.data.persons[0].count: Expected `int` >= 1"),
    "unknown-type": ("/type", "at $.type: there is no such type"),
    "unknown-side": ("/side", "side AT has no log here; there are {sides}"),
    "not-your-side": ("/side", "this token reports for {side}, the report is of another side"),
    "not-your-unit": ("/source", "this token reports as {unit}: `source` begins with /{side}/{unit}/"),
    "not-your-report": (
        "/amends",
        "the report was made by another unit; that unit or your headquarters may amend it",
    ),
    "names-an-amendment": (
        "/amends",
        "that is an amendment itself: name the original, 018e3a2f-6a1c-7c3e-9f10-2b6d6c1f0a11, with the next revision",
    ),
    "desk-only": ("/type", "operations and opening balances come from the headquarters"),
    "unknown-operation": (
        "/subject",
        "X-2024 is not an operation of {side}; GET /v1/operations has those that are open",
    ),
    "unknown-section": ("/data/section", "{operation} has the sections koper, novo-mesto of {side}"),
    "outside-period": ("/time", "more than a day outside {operation}, 2024-03-13 to 2024-03-15"),
    "in-the-future": ("/time", "more than 24 hours ahead of 2024-03-14T03:12:10Z: is the device's clock right?"),
}

# The request as a whole: name, status, description, and a detail for each code.
_PROBLEMS: Final[dict[int, tuple[str, str, dict[Code, str]]]] = {
    400: (
        "BadRequest",
        (
            "The request cannot be read: a batch that is no JSON array, a header that breaks its rule, or what is no "
            "HTTP/1.1, such as a body with two lengths."
        ),
        {"malformed-request": "the body is not a JSON array of reports"},
    ),
    401: (
        "NotAuthenticated",
        "The token is missing, unknown, revoked or expired. Ask the headquarters for a new one; keep the reports.",
        {
            "not-authenticated": (
                "the token is unknown, revoked or expired; ask your headquarters for a new one, and keep the reports"
            )
        },
    ),
    403: (
        "NotAllowed",
        "The token is good, but its role may not do this.",
        {"not-allowed": "reports come from units and desks, not from a viewer"},
    ),
    404: (
        "NotFound",
        "There is nothing at this address; any address that is not described here answers so.",
        {"not-found": "/docs shows what there is"},
    ),
    405: (
        "MethodNotAllowed",
        "The address does not take this method; `Allow` names those that it takes.",
        {"method-not-allowed": "PUT is not among the methods in `Allow`; /docs shows what each address takes"},
    ),
    413: (
        "TooLarge",
        (
            f"Longer than {REQUEST_BYTES_MAX:,} bytes, a single report longer than {EVENT_BYTES_MAX:,}, or more than "
            f"{BATCH_MAX} in a batch. Send it in smaller parts."
        ),
        {
            "too-large": f"the body is longer than {REQUEST_BYTES_MAX:,} bytes",
            "too-many-events": f"612 reports; at most {BATCH_MAX} at once",
        },
    ),
    415: (
        "UnsupportedMediaType",
        "The content type is neither of the two that are taken, or the body is compressed.",
        {
            "unsupported-media-type": f"send {EVENT_TYPE} or {BATCH_TYPE}, in UTF-8",
            "compressed": "send the body as it is, without Content-Encoding",
        },
    ),
    429: (
        "RateLimited",
        (
            f"Too many reports in a short time, or more than {UNDER_WAY_MAX} requests of a token at once. Wait for as "
            "long as `Retry-After` says, then send the same again."
        ),
        {"rate-limited": "wait 2 s; what was sent before counts"},
    ),
    500: (
        "Fault",
        "A fault in Fieldtally itself. Keep the reports, and send them again later.",
        {"fault": "nothing of this request was confirmed; the operator's log has the kind of fault"},
    ),
    503: (
        "Unavailable",
        (
            "Nothing can be recorded at the moment. Wait for as long as `Retry-After` says, then send the same again: "
            "what was recorded all the same is answered as a duplicate."
        ),
        {
            "unavailable": "nothing of this request was confirmed; send it again later",
            "lagging": "nothing of this request was confirmed; send it again later",
        },
    ),
}
_RETRYABLE: Final = frozenset({429, 500, 503})

_RETRY_AFTER: Final = {
    "description": "Seconds to wait before the next try.",
    "required": True,
    "schema": {"type": "integer", "minimum": 1},
    "example": 2,
}
_HEADERS: Final[dict[int, dict[str, dict[str, Any]]]] = {
    401: {
        "WWW-Authenticate": {
            "description": "How to authenticate.",
            "required": True,
            "schema": {"type": "string", "pattern": "^Bearer"},
            "example": "Bearer",
        }
    },
    405: {
        "Allow": {
            "description": "The methods that the address takes.",
            "required": True,
            "schema": {"type": "string", "pattern": "^[A-Z]+(, ?[A-Z]+)*$"},
            "example": "GET, OPTIONS",
        }
    },
    415: {
        "Accept": {
            "description": "The content types that are taken; absent where only the compression is refused.",
            "required": False,
            "schema": {"type": "string"},
            "example": f"{EVENT_TYPE}, {BATCH_TYPE}",
        }
    },
    429: {"Retry-After": _RETRY_AFTER},
    503: {"Retry-After": _RETRY_AFTER},
}
_LIMITS: Final = {
    "Fieldtally-Event-Bytes-Max": ("The longest single report, in bytes.", EVENT_BYTES_MAX),
    "Fieldtally-Request-Bytes-Max": ("The longest request, in bytes.", REQUEST_BYTES_MAX),
    "Fieldtally-Batch-Max": ("The most reports in one batch.", BATCH_MAX),
}

_INTRODUCTION: Final = f"""\
Patrol apps publish through this what their units found. Each report counts exactly once, however often it is sent.

A device keeps every report until an answer names the report's `id` with the status `recorded` or `duplicate`. Any \
other answer, above all a plain 200 from a portal that asks for a log-in, is no receipt: the report stays on the \
device and is sent again, byte for byte.

```
curl "$GATEWAY/v1/events" -H "Authorization: Bearer $TOKEN" \\
     -H "Content-Type: {EVENT_TYPE}" --data-binary @report.json
```

- A token is shown once, when a device is enrolled. It stands for a role: {", ".join(f"`{role}`" for role in ROLES)}.
- A `unit` reports as itself, for its own side, and amends what its own unit reported. A `desk` is a side's \
headquarters: it opens and closes operations, books opening balances, and amends any report of its side.
- A request that is refused is answered with a problem (RFC 9457): `code` for programs, `title` and `detail` for \
people, `pointer` to the field, and `retryable`, which says whether the same request may succeed later.
- Requests are never compressed.
"""


def openapi(sides: Collection[Side], server_url: str = "/") -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of a gateway for these sides, of which there is at least one.

    Answers are not closed with `additionalProperties`: a client must not break on a member that comes later.
    """
    sides = tuple(sides)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Fieldtally gateway",
            "version": VERSION,
            "summary": "The way in for reports from the field.",
            "description": _INTRODUCTION,
            "license": {"name": LICENSE, "identifier": LICENSE},
        },
        "servers": [{"url": server_url}],
        "tags": [
            {"name": "reports", "description": "Sending what was found."},
            {"name": "device", "description": "What a device may ask: where it stands, and what its lists offer."},
            {"name": "service", "description": "What the gateway says about itself; anyone may ask."},
        ],
        "paths": _paths(sides),
        "components": {
            "schemas": _schemas(sides),
            "responses": {name: _problem_response(status) for status, (name, _, _) in _PROBLEMS.items()},
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The token of an enrolled device or person; revoking it is in force within 10 s.",
                }
            },
        },
    }


def openapi_bytes(sides: Collection[Side]) -> bytes:
    """Write the OpenAPI document as it is served and exported."""
    return _written(openapi(sides))


def asyncapi_bytes(sides: Collection[Side], prefix: str) -> bytes:
    """Write the AsyncAPI document of the streams under a prefix as it is served and exported."""
    keys = {side: PartitionKeys(prefix, side) for side in sides}
    return _written(asyncapi({side: Streams(names.log, names.changes) for side, names in keys.items()}))


def _written(document: dict[str, Any]) -> bytes:
    return f"{as_text(document)}\n".encode()


# --- routes ---


def _paths(sides: tuple[Side, ...]) -> dict[str, Any]:
    return {
        "/v1/events": {"post": _submit(sides), "head": _limits()},
        "/v1/devices/me": {
            "get": _asking(
                "deviceStanding",
                "Where a device stands",
                "The highest running number of the device in the log, and the ranges missing below it: what an outbox "
                "may forget, and whether an old copy of it was restored.",
                "DeviceStanding",
                {"a device with two numbers missing": _standing(sides)},
            )
        },
        "/v1/operations": {
            "get": _asking(
                "openOperations",
                "The open operations",
                "The operations of the token's side that take reports, with its sections: for pick lists.",
                "OpenOperations",
                {"one operation": _operations(sides)},
            )
        },
        "/": {
            "get": {
                "operationId": "root",
                "tags": ["service"],
                "summary": "The way to the documentation",
                "security": [],
                "responses": {
                    "307": {
                        "description": "This gateway has no page of its own here; its documentation is at `/docs`.",
                        "headers": {
                            "Location": {
                                "description": "Where the documentation is.",
                                "required": True,
                                "schema": {"const": "/docs"},
                                "example": "/docs",
                            }
                        },
                    },
                    **_problem_answers(400, 405),
                },
            }
        },
        "/openapi.json": {
            "get": _public("openapiDocument", "This document", _json_answer("OpenAPI 3.1.", {"type": "object"}))
        },
        "/asyncapi.json": {
            "get": _public(
                "asyncapiDocument",
                "The streams",
                _json_answer("AsyncAPI 3.0: the log and the change feed.", {"type": "object"}),
                "For programs that read the log or the tallies from Redis.",
            )
        },
        "/docs": {"get": _public("docs", "This document for people", _text_answer("A page.", HTML_TYPE))},
        "/docs.css": {"get": _public("docsStyle", "How that page looks", _text_answer("A style sheet.", CSS_TYPE))},
        "/health/live": {
            "get": _public(
                "live",
                "Whether the process answers",
                _json_answer("It does.", _ref("Liveness"), {"live": Liveness()}),
            )
        },
        "/health/ready": {
            "get": _public(
                "ready",
                "Whether reports are taken now",
                _json_answer("They are.", _ref("Readiness"), {"ready": _readiness(sides, ready=True)}),
                more={
                    "503": _json_answer(
                        "They are not; the checks say what stands in the way.",
                        _ref("Readiness"),
                        {"the counting is behind": _readiness(sides, ready=False)},
                    ),
                },
            )
        },
        "/metrics": {
            "get": _public(
                "metrics", "Figures for Prometheus", _text_answer("Prometheus' text format.", METRICS_TYPE)
            )
        },
    }  # fmt: skip


def _submit(sides: tuple[Side, ...]) -> dict[str, Any]:
    events = event_examples(sides)
    return {
        "operationId": "submitEvents",
        "tags": ["reports"],
        "summary": "Send one report, or a batch",
        "description": (
            "One event is answered with one result, and the status says what became of it: 201 recorded, 200 "
            "duplicate, 409 conflict, 422 rejected.\n\n"
            "A batch is answered with 202 and a result for each item, in the order sent. Items are judged one by one: "
            "a bad one never sinks the others. An item that could not be recorded for a passing reason is `rejected` "
            "with `retryable` true in its problem: send it again. Sending a report again is always safe."
        ),
        "security": [{"token": []}],
        "x-roles": ["unit", "desk"],
        "parameters": [
            {
                "name": SENT_HEADER,
                "in": "header",
                "required": False,
                "description": (
                    "What the device's clock shows when it sends. Reports of a clock that is more than "
                    f"{CLOCK_OFF_S // 60} minutes off are taken, and the answer tells by how much."
                ),
                "schema": {"type": "string", "format": "date-time", "pattern": TIME_PATTERN},
                "example": "2024-03-14T04:13:00+01:00",
            }
        ],
        "requestBody": {
            "required": True,
            "description": (
                f"At most {EVENT_BYTES_MAX:,} bytes for one event and {REQUEST_BYTES_MAX:,} for a batch, uncompressed."
            ),
            "content": {
                EVENT_TYPE: {
                    "schema": _ref("Event"),
                    "examples": {name: {"value": _plain(event)} for name, event in events.items()},
                },
                BATCH_TYPE: {
                    "schema": _ref("Batch"),
                    "examples": {
                        "two reports": {
                            "value": [
                                _plain(events[name]) for name in ("apprehension", "smuggler-arrest")
                            ]
                        }
                    },
                },
            },
        },
        "responses": {
            "200": _json_answer(
                "Duplicate: the report was in the log already.",
                _ref("Duplicate"),
                {"sent again": _result(sides, "duplicate")},
            ),
            "201": _json_answer(
                "Recorded: the report is in the log.",
                _ref("Recorded"),
                {
                    "recorded": _result(sides, "recorded"),
                    "recorded, with the clock an hour fast": _result(sides, "recorded", clock_off_s=_CLOCK_OFF),
                },
            ),
            "202": _json_answer(
                "A batch: what became of each item.", _ref("Results"), {"one of each": _results(sides)}
            ),
            "409": _json_answer(
                "Conflict: the log holds this report with other content.",
                _ref("Conflict"),
                {"conflict": _result(sides, "conflict")},
            ),
            "422": _json_answer(
                "Rejected: the report breaks a rule, or the token may not say it. Correct it and send it again.",
                _ref("Rejected"),
                {code: _result(sides, "rejected", code=code) for code in _REPORT_PROBLEMS},
            ),
            **_problem_answers(400, 401, 403, 405, 413, 415, 429, 500, 503),
        },
    }  # fmt: skip


def _limits() -> dict[str, Any]:
    return {
        "operationId": "readLimits",
        "tags": ["reports"],
        "summary": "What a request may hold, and whether the token is good",
        "description": "The answers have no body.",
        "security": [{"token": []}],
        "x-roles": ["unit", "desk"],
        "responses": {
            "204": {
                "description": "The token is good.",
                "headers": {
                    name: {
                        "description": description,
                        "required": True,
                        "schema": {"type": "integer", "const": limit},
                        "example": limit,
                    }
                    for name, (description, limit) in _LIMITS.items()
                },
            },
            **{
                str(status): {"description": _PROBLEMS[status][1]}
                | ({"headers": _HEADERS[status]} if status in _HEADERS else {})
                for status in (400, 401, 403, 500, 503)
            },
        },
    }


def _asking(
    operation_id: str, summary: str, description: str, schema: str, examples: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "operationId": operation_id,
        "tags": ["device"],
        "summary": summary,
        "description": description,
        "security": [{"token": []}],
        "x-roles": ["unit", "desk"],
        "responses": {
            "200": _json_answer("The answer.", _ref(schema), examples),
            **_problem_answers(400, 401, 403, 405, 429, 500, 503),
        },
    }


def _public(
    operation_id: str,
    summary: str,
    answer: dict[str, Any],
    description: str = "",
    more: Mapping[str, dict[str, Any]] = {},
) -> dict[str, Any]:
    return {
        "operationId": operation_id,
        "tags": ["service"],
        "summary": summary,
        **({"description": description} if description else {}),
        "security": [],
        "responses": {"200": answer, **_problem_answers(400, 405), **more},
    }


def _json_answer(description: str, schema: dict[str, Any], examples: Mapping[str, Any] = {}) -> dict[str, Any]:
    content = {"schema": schema} | _examples(examples)
    return {"description": description, "content": {JSON_TYPE: content}}


def _text_answer(description: str, media_type: str) -> dict[str, Any]:
    return {"description": description, "content": {media_type: {"schema": {"type": "string"}}}}


def _examples(examples: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: {"value": _plain(value)} for name, value in examples.items()}
    return {"examples": shown} if shown else {}


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it."""
    return msgspec.json.decode(msgspec.json.encode(value))


def _problem_answers(*statuses: int) -> dict[str, dict[str, Any]]:
    return {str(status): {"$ref": f"#/components/responses/{_PROBLEMS[status][0]}"} for status in statuses}


def _problem_response(status: int) -> dict[str, Any]:
    _, description, details = _PROBLEMS[status]
    retryable = status in _RETRYABLE
    examples = {str(code): problem(code, status, detail, retryable=retryable) for code, detail in details.items()}
    headers = {"headers": _HEADERS[status]} if status in _HEADERS else {}
    content = {PROBLEM_TYPE: {"schema": _ref("Problem")} | _examples(examples)}
    return {"description": description, **headers, "content": content}


def _ref(schema: str) -> dict[str, Any]:
    return {"$ref": _REF.format(name=schema)}


# --- schemas ---


def _schemas(sides: tuple[Side, ...]) -> dict[str, Any]:
    types = (Event, Problem, Result, Results, DeviceStanding, OpenOperations, Liveness, Readiness)
    (event, *_), named = components(types, _REF, sides)
    _state_rules(named)
    results = _by_status(named)
    batch = {
        "title": "Batch",
        "description": (
            "Events, each judged by itself. So an item may be any JSON value here; one that is no `Event` is answered "
            "as rejected, in its place."
        ),
        "type": "array",
        "maxItems": BATCH_MAX,
        "items": {},
    }
    event = {"title": "Event", "description": "One report: `type` says of which kind."} | event
    return {"Event": event, "Batch": batch, **named, **results}


def _state_rules(named: dict[str, dict[str, Any]]) -> None:
    """State of the answers what their structs do not: an answer has every member that it may have."""
    for name in ("Problem", "Liveness", "Check", "Readiness"):
        rules = named[name]["properties"]
        named[name]["required"] = [*rules]
        for rule in rules.values():
            rule.pop("default", None)
    _describe(
        named["Problem"],
        type=("The kind of problem, as a URN.", {"pattern": "^urn:fieldtally:problem:[a-z-]+$"}),
        title=("What is wrong, for a person.", {}),
        status=("The status of the answer, or of the item's own.", {"minimum": 400, "maximum": 599}),
        detail=("What is wrong in this case; it repeats nothing of the report but names.", {}),
        code=("What is wrong, for a program.", {"enum": [*CODES], "x-enum-descriptions": [TITLES[c] for c in CODES]}),
        pointer=(
            "JSON Pointer (RFC 6901) to the field, from the report's own root; empty for the whole.",
            {"pattern": "^(/([^/~]|~[01])*)*$"},
        ),
        retryable=("Whether the same may succeed later.", {}),
    )
    _describe(
        named["DeviceStanding"],
        role=("What the token may do.", {"enum": ["unit", "desk"]}),
        side=("The token's side.", {"pattern": "^[A-Z]{2}$"}),
        unit=("The token's unit.", {}),
        device=("The token's device.", {}),
        highest=("The highest running number in the log; 0 for none.", {"minimum": 0}),
        missing=("The ranges of numbers missing below it, both ends included.", {"items": _PAIR}),
        reused=("How many reports brought a number that another one had.", {"minimum": 0}),
        position=("The position of the log at which this is true.", {"pattern": POSITION_PATTERN}),
    )
    _describe(
        named["OpenOperations"],
        side=("The token's side.", {"pattern": "^[A-Z]{2}$"}),
        position=("The position of the log at which this is true.", {"pattern": POSITION_PATTERN}),
        operations=("The operations.", {}),
    )
    _describe(
        named["OpenOperation"],
        operation=("The operation: what `subject` of a report names.", {}),
        name=("What it is called.", {}),
        starts=("The first day.", {}),
        ends=("The last day, included.", {}),
        sections=("The sections of the token's side.", {}),
    )
    _describe(
        named["Check"],
        check=("What was looked at: whether Redis answers, takes writes, or how far the counting is behind.", {}),
        side=("The side concerned; empty where it concerns all.", {}),
        ok=("Whether it is in order.", {}),
        detail=("What was found, in words.", {}),
    )


def _by_status(named: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return a schema for each status of a result, and make of `Result` any of them."""
    whole = named["Result"]
    _describe(
        whole,
        position=("Where the log holds the report.", {"pattern": POSITION_PATTERN}),
        clock_off_s=("By how many seconds the device's clock is fast, or slow if below zero.", {}),
    )
    made = {}
    for status in get_args(Status):
        name, more, description = _ANSWERS[status]
        fields = ("id", "status", *more)
        ident = _ANY_ID if status == "rejected" else _ID
        made[name] = {
            "title": name,
            "description": description,
            "type": "object",
            "properties": {field: whole["properties"][field] for field in (*fields, "clock_off_s")}
            | {"id": ident, "status": {"const": status, "description": "What became of the report."}},
            "required": [*fields],
        }
    named["Result"] = {
        "title": "Result",
        "description": "What became of one report of a batch.",
        "oneOf": [_ref(name) for name in made],
        "discriminator": {
            "propertyName": "status",
            "mapping": {status: _REF.format(name=name) for status, (name, _, _) in _ANSWERS.items()},
        },
    }
    return made


def _describe(component: dict[str, Any], **fields: tuple[str, dict[str, Any]]) -> None:
    for field, (description, rules) in fields.items():
        component["properties"][field] |= {"description": description, **rules}


# --- examples ---


def _result(sides: tuple[Side, ...], status: Status, *, code: Code = "malformed", clock_off_s: int = 0) -> Result:
    events = event_examples(sides)
    of_report = (
        _conflict()
        if status == "conflict"
        else problem(code, 422, _in_words(code, sides), pointer=_REPORT_PROBLEMS[code][0])
    )
    return Result(
        id=str(events["apprehension"].id),
        status=status,
        position=msgspec.UNSET if status == "rejected" else _POSITION,
        problem=of_report if status in {"conflict", "rejected"} else msgspec.UNSET,
        clock_off_s=clock_off_s or msgspec.UNSET,
    )


def _results(sides: tuple[Side, ...]) -> Results:
    ids = [str(event.id) for event in event_examples(sides).values()]
    passing = problem("unavailable", 503, "the server took a part of this batch only", retryable=True)
    return Results((
        Result(id=ids[0], status="recorded", position=Position("1710385929000-0")),
        Result(id=ids[1], status="duplicate", position=Position("1710385801417-2")),
        Result(id=ids[2], status="conflict", position=Position("1710385801417-3"), problem=_conflict()),
        Result(
            id="",
            status="rejected",
            problem=problem("malformed", 422, "at $: Expected `object`, got `int`"),
        ),
        Result(id=ids[3], status="rejected", problem=passing),
    ))  # fmt: skip


def _conflict() -> Problem:
    detail = f"this report stands at {_POSITION} with other content, and the first one counts; to change it, amend it"
    return problem("conflict", 409, detail, pointer="/id")


def _in_words(code: Code, sides: tuple[Side, ...]) -> str:
    side = sides[0]
    names = {"side": side, "unit": unit_of(side), "operation": operation_of(sides), "sides": ", ".join(sorted(sides))}
    return _REPORT_PROBLEMS[code][1].format(**names)


def _standing(sides: tuple[Side, ...]) -> DeviceStanding:
    return DeviceStanding(
        role="unit",
        side=sides[0],
        unit=unit_of(sides[0]),
        device=DEVICE,
        highest=118,
        missing=((103, 104),),
        reused=0,
        position=_POSITION,
    )


def _operations(sides: tuple[Side, ...]) -> OpenOperations:
    plan = (
        SectionPlan("novo-mesto", "Novo mesto Police Administration", "joint"),
        SectionPlan("koper", "Koper Police Administration", "remaining"),
    )
    operation = OpenOperation(
        operation=operation_of(sides),
        name="Joint control of the border",
        starts=date(2024, 3, 13),
        ends=date(2024, 3, 15),
        sections=plan,
    )
    return OpenOperations(side=sides[0], position=_POSITION, operations=(operation,))


def _readiness(sides: tuple[Side, ...], *, ready: bool) -> Readiness:
    def of(side: Side, entries: int) -> tuple[Check, Check]:
        lagging = f"{entries:,} reports of {side} wait to be counted"
        ok = entries <= 10_000
        return (
            Check(check="redis", side=side, ok=True, detail="answers"),
            Check(check="lag", side=side, ok=ok, detail=f"{entries:,} entries to be counted" if ok else lagging),
        )

    checks = tuple(check for at, side in enumerate(sides) for check in of(side, 3 if ready or at else 12_480))
    checks += (Check(check="writes", ok=True, detail="are taken"),)
    return Readiness(status="ready" if ready else "not-ready", checks=checks)
