"""The OpenAPI document is valid, its examples keep to it, and it describes the gateway that there is, no other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, get_args

import httpx
import pytest
import redis
from hypothesis import given as examples
from jsonschema import Draft202012Validator
from litestar import Litestar
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from schemas.events import TYPE_PREFIX
from schemas.http import BATCH_MAX, BATCH_TYPE, CODES, TITLES, Liveness, Status
from schemas.principals import Role
from schemas.vocabulary import Side
from services.gateway.app import GatewayApp
from services.gateway.docs import DOCS_CSS, docs_page
from services.gateway.openapi import METRICS_TYPE, asyncapi_bytes, openapi, openapi_bytes
from services.runtime.settings import Settings
from tests import given
from tests.gateways import Sender, enrolled, reported, running_gateway
from tests.projectors import Lines

SI, HR = Side("SI"), Side("HR")
DOCUMENT = openapi((SI, HR))
SCHEMAS = DOCUMENT["components"]["schemas"]
OPERATIONS = {
    (method.upper(), path): operation for path, item in DOCUMENT["paths"].items() for method, operation in item.items()
}


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator(schema | {"components": DOCUMENT["components"]})


def problems(schema: dict[str, Any], value: object) -> list[str]:
    return [error.message for error in validator(schema).iter_errors(value)]


def named(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def resolved(answer: dict[str, Any]) -> dict[str, Any]:
    name = answer.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = DOCUMENT["components"]["responses"][name] if name else answer
    return found


def bodies() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every content of a request or an answer, with its place."""
    for (method, path), operation in OPERATIONS.items():
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            yield f"{method} {path} takes {media_type}", content
        for status, answer in operation["responses"].items():
            for media_type, content in resolved(answer).get("content", {}).items():
                yield f"{method} {path} {status} {media_type}", content
    for name, answer in DOCUMENT["components"]["responses"].items():
        for media_type, content in answer["content"].items():
            yield f"{name} {media_type}", content


BODIES = dict(bodies())


# --- it is OpenAPI ---


@pytest.mark.parametrize("sides", [("SI",), ("SI", "HR"), ("AT", "IT", "SI")], ids="-".join)
def test_the_document_is_openapi_3_1(sides: tuple[Side, ...]) -> None:
    validate(openapi(sides), cls=OpenAPIV31SpecValidator)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_valid_json_schema(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])


def test_every_operation_has_an_id_of_its_own_a_tag_and_says_who_may_call_it() -> None:
    tags = {tag["name"] for tag in DOCUMENT["tags"]}

    assert len(OPERATIONS) == len({operation["operationId"] for operation in OPERATIONS.values()})
    for (_, path), operation in OPERATIONS.items():
        assert set(operation["tags"]) <= tags
        assert path.startswith("/v1/") == bool(operation["security"]) == bool(operation.get("x-roles"))
        assert set(operation.get("x-roles", ())) <= set(get_args(Role))


def test_every_component_is_used() -> None:
    text = json.dumps(DOCUMENT)

    assert [] == [name for name in SCHEMAS if f'"#/components/schemas/{name}"' not in text]


# --- its examples keep to it ---


@pytest.mark.parametrize("place", BODIES)
def test_every_example_keeps_to_its_schema(place: str) -> None:
    content = BODIES[place]
    for name, example in content.get("examples", {}).items():
        assert [] == problems(content["schema"], example["value"]), name


def test_every_json_body_but_the_documents_themselves_has_an_example() -> None:
    bare = [place for place, content in BODIES.items() if "json" in place.split()[-1] and "examples" not in content]

    assert ["GET /openapi.json 200 application/json", "GET /asyncapi.json 200 application/json"] == bare


@pytest.mark.parametrize("where", [("get", "/v1/operations"), ("post", "/v1/events")])
def test_every_header_and_parameter_has_an_example_that_keeps_to_its_rule(where: tuple[str, str]) -> None:
    operation = DOCUMENT["paths"][where[1]][where[0]]
    headers = [
        header for answer in operation["responses"].values() for header in resolved(answer).get("headers", {}).values()
    ]
    for described in [*headers, *operation.get("parameters", ())]:
        assert [] == problems(described["schema"], described["example"])


def test_every_event_type_has_an_example() -> None:
    (content,) = (content for place, content in BODIES.items() if place.endswith("takes application/cloudevents+json"))

    assert {f"{TYPE_PREFIX}{kind}.v1" for kind in given.KINDS} == {
        example["value"]["type"] for example in content["examples"].values()
    }


def test_every_code_has_an_example() -> None:
    assert set(CODES) == {
        problem["code"]
        for content in BODIES.values()
        for example in content.get("examples", {}).values()
        for problem in found_problems(example["value"])
    }


def found_problems(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return [found for part in value for found in found_problems(part)]
    if not isinstance(value, dict):
        return []
    return ([value] if "code" in value else []) + [found for part in value.values() for found in found_problems(part)]


# --- it says what the product says ---


def test_the_codes_are_those_of_the_product_with_their_titles() -> None:
    code = SCHEMAS["Problem"]["properties"]["code"]

    assert list(CODES) == code["enum"]
    assert [TITLES[code] for code in CODES] == code["x-enum-descriptions"]


def test_the_statuses_are_those_of_the_product() -> None:
    statuses = [
        SCHEMAS[part["$ref"].rpartition("/")[2]]["properties"]["status"]["const"] for part in SCHEMAS["Result"]["oneOf"]
    ]

    assert list(get_args(Status)) == statuses


def test_every_event_type_is_one_that_may_be_sent() -> None:
    assert {f"{TYPE_PREFIX}{kind}.v1" for kind in given.KINDS} == set(SCHEMAS["Event"]["discriminator"]["mapping"])


@examples(given.documents("SI"))
def test_the_document_takes_whatever_the_codec_takes(document: dict[str, Any]) -> None:
    assert [] == problems(named("Event"), json.loads(given.canonical(document)))


WRONG_ANSWERS = {
    "recorded without position": ("Recorded", {"id": given.uid(1), "status": "recorded"}),
    "recorded without id": ("Recorded", {"id": "", "status": "recorded", "position": "1-0"}),
    "a duplicate that is called recorded": ("Duplicate", {"id": given.uid(1), "status": "recorded", "position": "1-0"}),
    "a position that is none": ("Recorded", {"id": given.uid(1), "status": "recorded", "position": "1"}),
    "rejected without problem": ("Rejected", {"id": "", "status": "rejected"}),
    "rejected without id": ("Rejected", {"status": "rejected", "problem": {}}),
    "an unknown status": ("Result", {"id": given.uid(1), "status": "seen", "position": "1-0"}),
    "a range of three": ("DeviceStanding", {"role": "unit", "side": "SI", "unit": "a", "device": "b", "highest": 9,
                                            "missing": [[1, 2, 3]], "reused": 0, "position": "1-0"}),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_ANSWERS)
def test_the_document_refuses_an_answer(name: str) -> None:
    schema, answer = WRONG_ANSWERS[name]

    assert problems(named(schema), answer)


# --- it describes the gateway that there is ---


def paths(application: Litestar) -> set[str]:
    """Return the paths that an application serves."""
    return {route.path for route in application.routes}


def methods(address: str, path: str) -> set[str]:
    """Return the methods that a path takes, by its own word, but for what every path takes."""
    refused = httpx.delete(f"{address}{path}")
    assert 405 == refused.status_code
    return {method.strip() for method in refused.headers["allow"].split(",")} - {"OPTIONS"}


def test_its_paths_and_methods_are_exactly_those_that_are_served(settings: Settings, address: str) -> None:
    assert settings.redis_url
    served = paths(GatewayApp(settings, settings.redis_url, Lines().logger()).litestar)

    assert served == set(DOCUMENT["paths"])
    assert set(OPERATIONS) == {(method, path) for path in served for method in methods(address, path)}


@pytest.fixture
def address(settings: Settings) -> Iterator[str]:
    with running_gateway(settings) as address:
        yield address


def test_what_is_served_is_what_is_exported(address: str, prefix: str) -> None:
    assert openapi_bytes((SI, HR)) == httpx.get(f"{address}/openapi.json").content
    assert asyncapi_bytes((SI, HR), prefix) == httpx.get(f"{address}/asyncapi.json").content
    assert docs_page(DOCUMENT) == httpx.get(f"{address}/docs").content
    assert DOCS_CSS == httpx.get(f"{address}/docs.css").content


def assert_described(answer: httpx.Response) -> None:
    """Hold an answer to the document: status, content type, headers and body."""
    operation = OPERATIONS.get((answer.request.method, answer.request.url.path))
    described = (
        resolved(operation["responses"][str(answer.status_code)])
        if operation
        else next(
            found
            for found in DOCUMENT["components"]["responses"].values()
            if any(
                example["value"]["status"] == answer.status_code
                for example in found["content"]["application/problem+json"]["examples"].values()
            )
        )
    )
    for name, header in described.get("headers", {}).items():
        assert name in answer.headers or not header["required"], name
        if name in answer.headers:
            text = answer.headers[name]
            number = header["schema"].get("type") == "integer"
            assert [] == problems(header["schema"], int(text) if number else text)
    if "content" not in described:
        assert b"" == answer.content
        return
    ((media_type, content),) = described["content"].items()
    assert media_type == answer.headers["content-type"].removesuffix(
        "" if "charset" in media_type else "; charset=utf-8"
    )
    if "json" in media_type:
        assert [] == problems(content["schema"], answer.json())


def _tries(sender: Sender, nobody: Sender, viewer: Sender) -> list[tuple[int, Callable[[], httpx.Response]]]:
    report, other = reported(1), reported(1, time="2024-03-14T03:12:09Z")
    ask = sender.ask
    return [
        (201, lambda: sender.one(report)),
        (200, lambda: sender.one(report)),
        (409, lambda: sender.one(other)),
        (422, lambda: sender.one(b"{")),
        (422, lambda: sender.one(reported(2, side="HR"))),
        (202, lambda: sender.batch(report, other, b"7", reported(3))),
        (202, sender.batch),
        (201, lambda: sender.one(reported(4), **{"fieldtally-sent": "2024-03-14T03:12:09Z"})),
        (400, lambda: sender.one(report, **{"fieldtally-sent": "yesterday"})),
        (400, lambda: ask("POST", "/v1/events", content=b"{}", headers={"content-type": BATCH_TYPE})),
        (401, lambda: nobody.one(report)),
        (403, lambda: viewer.one(report)),
        (413, lambda: sender.batch(*[b"1"] * (BATCH_MAX + 1))),
        (413, lambda: sender.one(b" " * 70_000)),
        (415, lambda: ask("POST", "/v1/events", content=b"{}")),
        (415, lambda: sender.one(report, **{"content-encoding": "gzip"})),
        (405, lambda: ask("PUT", "/v1/events")),
        (404, lambda: ask("GET", "/v2/events")),
        (204, lambda: ask("HEAD", "/v1/events")),
        (401, lambda: nobody.ask("HEAD", "/v1/events")),
        (403, lambda: viewer.ask("HEAD", "/v1/events")),
        (200, lambda: ask("GET", "/v1/devices/me")),
        (403, lambda: viewer.ask("GET", "/v1/devices/me")),
        (200, lambda: ask("GET", "/v1/operations")),
        (401, lambda: nobody.ask("GET", "/v1/operations")),
        (307, lambda: nobody.ask("GET", "/")),
        *(
            (200, lambda path=path: nobody.ask("GET", path))
            for _, path in OPERATIONS
            if path != "/" and not path.startswith("/v1/")
        ),
    ]  # fmt: skip


def test_every_answer_of_a_real_gateway_is_described(address: str, client: redis.Redis, prefix: str) -> None:
    with (
        Sender(address, enrolled(client, prefix)) as sender,
        Sender(address, None) as nobody,
        Sender(address, enrolled(client, prefix, "viewer")) as viewer,
    ):
        for expected, attempt in _tries(sender, nobody, viewer):
            answer = attempt()
            assert expected == answer.status_code, (answer.request, answer.text)
            assert_described(answer)


def test_too_many_and_too_far_behind_are_described(
    client: redis.Redis, prefix: str, server_url: str, settings_for: Callable[..., Settings]
) -> None:
    limited = settings_for(server_url, RATE_LIMIT="1", LAG_LIMIT="1")
    with running_gateway(limited) as address, Sender(address, enrolled(client, prefix)) as sender:
        sender.batch(*[reported(number) for number in range(1, 13)])
        limited_answer = sender.one(reported(13))
        token = enrolled(client, prefix, device="another")
        behind = sender.ask("GET", "/v1/devices/me", headers={"authorization": f"Bearer {token}"})

    assert (429, 503) == (limited_answer.status_code, behind.status_code)
    assert_described(limited_answer)
    assert_described(behind)


def test_the_content_type_of_the_metrics_is_that_of_the_answer(address: str) -> None:
    assert METRICS_TYPE == httpx.get(f"{address}/metrics").headers["content-type"]


def test_liveness_is_always_the_same() -> None:
    assert [] == problems(named("Liveness"), {"status": Liveness().status})
    assert problems(named("Liveness"), {"status": "dead"})
