"""Requests as a whole: what is taken, what is refused before any report is looked at, and what a refusal holds."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest
import redis

from schemas.http import BATCH_MAX, BATCH_TYPE, CODES, EVENT_BYTES_MAX, EVENT_TYPE, REQUEST_BYTES_MAX, TITLES
from services.runtime.settings import Settings, read_settings
from tests.gateways import Sender, enrolled, recently, reported, running_gateway
from tests.projectors import log_of
from tests.servers import plain_client

ORIGIN = "https://patrol.example"
PROBLEM = {"type", "title", "status", "detail", "code", "pointer", "retryable"}

_prefixes = (f"requests{number}" for number in count())
_ids = count(1)


class House(NamedTuple):
    """A gateway that all tests here use, and what is needed to look behind it."""

    address: str
    token: str
    settings: Settings


@pytest.fixture(scope="module")
def house(server_url: str) -> Iterator[House]:
    environ = {"REDIS_URL": server_url, "PREFIX": next(_prefixes), "RATE_LIMIT": "1000000", "HTTP_ORIGINS": ORIGIN}
    settings = read_settings({f"FIELDTALLY_{name}": text for name, text in environ.items()})
    with plain_client(server_url) as client, running_gateway(settings) as address:
        yield House(address, enrolled(client, settings.prefix), settings)


@pytest.fixture
def unit(house: House) -> Iterator[Sender]:
    with Sender(house.address, house.token) as sender:
        yield sender


def report() -> bytes:
    """Return a report that has not been sent yet."""
    return reported(next(_ids))


def assert_refused(answer: httpx.Response, status: int, code: str) -> httpx.Response:
    """A refusal is a problem with all its members."""
    assert (status, "application/problem+json") == (answer.status_code, answer.headers["content-type"])
    found = answer.json()
    assert PROBLEM == set(found)
    assert (status, code, f"urn:fieldtally:problem:{code}") == (found["status"], found["code"], found["type"])
    assert code in CODES
    assert (TITLES[code], "") == (found["title"], found["pointer"])  # type: ignore[index]
    assert found["detail"]
    assert (status in (429, 500, 503)) == found["retryable"]
    return answer


def post(unit: Sender, body: bytes, content_type: str | None = EVENT_TYPE, **headers: str) -> httpx.Response:
    """Send a body under a content type, or none."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return unit.ask(
        "POST", "/v1/events", content=body, headers=named | ({"content-type": content_type} if content_type else {})
    )


# Media types


@pytest.mark.parametrize(
    "content_type",
    [
        EVENT_TYPE, f"{EVENT_TYPE}; charset=utf-8", f"{EVENT_TYPE};charset=UTF-8", f'{EVENT_TYPE} ; charset="utf-8"',
        EVENT_TYPE.upper(),
    ],
)  # fmt: skip
def test_the_content_type_of_a_report_is_taken_however_it_is_written(unit: Sender, content_type: str) -> None:
    assert 201 == post(unit, report(), content_type).status_code
    batch = (
        content_type.replace("json", "x").replace("+x", "-batch+json").replace("JSON", "x").replace("+x", "-BATCH+JSON")
    )
    assert 202 == post(unit, b"[%b]" % report(), batch).status_code


@pytest.mark.parametrize(
    "content_type",
    [
        None, "", "application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data",
        f"{EVENT_TYPE}; charset=iso-8859-2", f"{EVENT_TYPE}; charset=utf-16", f"{EVENT_TYPE}; profile=x",
        f"{EVENT_TYPE}, {EVENT_TYPE}", "application/cloudevents", "application/cloudevents+xml", "\xff", ";", "/",
    ],
)  # fmt: skip
def test_any_other_content_type_is_refused_and_the_two_are_named(unit: Sender, content_type: str | None) -> None:
    answer = unit.ask(
        "POST", "/v1/events", content=report(),
        headers=[] if content_type is None else [(b"content-type", content_type.encode("latin-1"))],
    )  # fmt: skip
    assert f"{EVENT_TYPE}, {BATCH_TYPE}" == assert_refused(answer, 415, "unsupported-media-type").headers["accept"]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "x", "Identity, gzip"])
def test_no_compressed_body_is_taken_whatever_its_compression_is_called(unit: Sender, coding: str) -> None:
    assert_refused(post(unit, gzip.compress(report()), content_encoding=coding), 415, "compressed")


def test_a_body_that_says_it_is_not_compressed_is_taken(unit: Sender) -> None:
    assert 201 == post(unit, report(), content_encoding="Identity").status_code


# Sizes


def padded(event: bytes, length: int) -> bytes:
    """Return a report of that many bytes."""
    return event + b" " * (length - len(event))


def test_a_report_may_have_64_kib_and_not_a_byte_more(unit: Sender) -> None:
    assert 65_536 == EVENT_BYTES_MAX
    assert 201 == unit.one(padded(report(), EVENT_BYTES_MAX)).status_code
    assert_refused(unit.one(padded(report(), EVENT_BYTES_MAX + 1)), 413, "too-large")


def test_a_request_may_have_1_mib_and_not_a_byte_more(unit: Sender) -> None:
    assert 1_048_576 == REQUEST_BYTES_MAX
    body = b"[" + b",".join(report() for _ in range(BATCH_MAX)) + b"]"
    fits = post(unit, padded(body, REQUEST_BYTES_MAX), BATCH_TYPE)
    assert (202, BATCH_MAX) == (fits.status_code, len(fits.json()["results"]))
    assert_refused(post(unit, padded(body, REQUEST_BYTES_MAX + 1), BATCH_TYPE), 413, "too-large")


def test_in_a_batch_a_report_of_more_than_64_kib_is_rejected_alone(unit: Sender) -> None:
    event = report()
    longest = event[:-1] + b" " * (EVENT_BYTES_MAX - len(event)) + b"}"
    too_long = event[:-1] + b" " * (EVENT_BYTES_MAX - len(event) + 1) + b"}"
    first, second, third = unit.batch(too_long, longest, report()).json()["results"]
    ident = json.loads(event)["id"]
    assert (ident, "rejected", "too-large") == (first["id"], first["status"], first["problem"]["code"])
    assert ["recorded"] * 2 == [second["status"], third["status"]]


def test_a_batch_may_have_500_reports_and_not_one_more(unit: Sender, house: House) -> None:
    assert 500 == BATCH_MAX
    events = [report() for _ in range(BATCH_MAX + 1)]
    assert_refused(unit.batch(*events), 413, "too-many-events")
    assert_refused(unit.batch(*[b"0"] * 400_000), 413, "too-many-events")
    with plain_client(house.settings.redis_url or "") as client:
        ids = {json.loads(fields[b"event"])["id"] for _, fields in log_of(client, house.settings.prefix, "SI")}
    assert not ids & {json.loads(event)["id"] for event in events}
    assert 202 == unit.batch(*events[1:]).status_code


def test_a_body_without_a_length_is_taken_in_pieces_and_refused_as_soon_as_it_is_too_long(unit: Sender) -> None:
    def pieces(body: bytes, size: int) -> Iterator[bytes]:
        for at in range(0, len(body), size):
            yield body[at : at + size]

    def send(body: bytes, size: int, content_type: str = EVENT_TYPE) -> httpx.Response:
        return unit.ask("POST", "/v1/events", content=pieces(body, size), headers={"content-type": content_type})

    assert 201 == send(report(), 7).status_code
    assert 201 == send(padded(report(), EVENT_BYTES_MAX), 1000).status_code
    assert_refused(send(padded(report(), EVENT_BYTES_MAX + 1), 1000), 413, "too-large")
    assert 202 == send(padded(b"[%b]" % report(), REQUEST_BYTES_MAX), 9999, BATCH_TYPE).status_code
    assert_refused(send(padded(b"[%b]" % report(), REQUEST_BYTES_MAX + 1), 9999, BATCH_TYPE), 413, "too-large")


# What is no JSON


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"[", b"]", b"{}", b"null", b'"[]"', b"[1,]", b"[1 2]", b"nonsense", b"\xff\xfe[\x00]\x00",
        b"\xef\xbb\xbf[]", b"[]x", b"[" * 100_000, b"[" * 1_000_000, b'[{"a":' * 100_000, b"\x00",
        b"[" + report() + b"," + report()[:-1] + b"]", b'["\xff"]',
    ],
)  # fmt: skip
def test_a_batch_that_is_no_json_array_is_refused(unit: Sender, body: bytes) -> None:
    if body == b'["\xff"]':  # an array with one item that cannot be read
        (result,) = post(unit, body, BATCH_TYPE).json()["results"]
        assert ("", "malformed") == (result["id"], result["problem"]["code"])
    else:
        assert_refused(post(unit, body, BATCH_TYPE), 400, "malformed-request")


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"{", b"[]", b"null", b"1", b'"x"', b"\xff", b"\x00", b"\xef\xbb\xbf" + report(), report() + b"x",
        report() + report(), b"[" * 60_000, b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b'{"data":' + b"[" * 60_000,
        report().replace(b'"reportno":', b'"reportno":1,"reportno":'),
        report().replace(b'"count":', b'"count":1,"count":'),
        report().replace(b'"section":', b'"section":"a","section":'), b"{}", report().decode().encode("utf-16"),
    ],
)  # fmt: skip
def test_a_body_that_is_no_report_is_rejected_with_a_result(unit: Sender, body: bytes) -> None:
    answer = unit.one(body)
    assert (422, "application/json") == (answer.status_code, answer.headers["content-type"])
    result = answer.json()
    assert {"id", "status", "problem"} == set(result)
    assert ("rejected", "malformed", PROBLEM) == (result["status"], result["problem"]["code"], set(result["problem"]))


MISTAKES = [
    (b"", "the body is empty"),
    (b" \r\n", "the body is empty"),
    (b"\xef\xbb\xbf{}", "without one"),
    ("{}".encode("utf-16"), "save it as UTF-8"),
    (b"report.json", "--data-binary @"),
    (b"@./of patrol/report-1.json\n", "--data-binary @"),
    (rb"C:\Users\patrol\report.json", "--data-binary @"),
]


@pytest.mark.parametrize(("body", "said"), [*MISTAKES, (b"[]", BATCH_TYPE)])
def test_what_was_probably_meant_by_no_report_is_said_with_the_next_step(unit: Sender, body: bytes, said: str) -> None:
    found = unit.one(body).json()["problem"]
    assert "malformed" == found["code"]
    assert said in found["detail"]


@pytest.mark.parametrize(("body", "said"), [*MISTAKES, (b"{}", EVENT_TYPE)])
def test_what_was_probably_meant_by_no_batch_is_said_with_the_next_step(unit: Sender, body: bytes, said: str) -> None:
    answer = assert_refused(post(unit, body, BATCH_TYPE), 400, "malformed-request")
    assert said in answer.json()["detail"]


@pytest.mark.parametrize(
    "body", [b"{", b'{"a":1}', b"nonsense", b"Janez Novak, Koper", b"1.5x, 2", b"a" * 500 + b".txt"]
)
def test_of_a_body_that_is_simply_wrong_nothing_is_guessed_and_nothing_repeated(unit: Sender, body: bytes) -> None:
    detail = unit.one(body).json()["problem"]["detail"]
    assert not [said for _, said in MISTAKES if said in detail]
    assert "Janez" not in detail


def test_a_form_as_curl_sends_it_is_told_what_curl_needs(unit: Sender) -> None:
    answer = post(unit, report(), "application/x-www-form-urlencoded")
    assert "--data-binary @" in assert_refused(answer, 415, "unsupported-media-type").json()["detail"]


def test_nesting_without_end_in_one_item_of_a_batch_sinks_no_other(unit: Sender) -> None:
    bomb = b"[" * 900 + b"]" * 900
    inside = report()[:-1] + b',"x":' + bomb + b"}"
    statuses = [result["status"] for result in unit.batch(report(), bomb, inside, report()).json()["results"]]
    assert ["recorded", "rejected", "rejected", "recorded"] == statuses


# Who asks, and when


@pytest.mark.parametrize(
    "authorization",
    [
        "", "Bearer", "bearer", "Basic dXNlcjpwYXNz", "Token {token}", "{token}", "Bearer{token}",
        "Bearer {token}x", "Bearer x{token}", "Bearer {token} {token}", "Bearer " + "x" * 5000, "Bearer \xff\xfe",
        "Bearer {token},", "Basic Bearer {token}", "Bearer\t{token}", "Bearer 0", "Bearer null",
    ],
)  # fmt: skip
def test_an_authorization_that_is_not_a_valid_token_is_refused_everywhere(house: House, authorization: str) -> None:
    value = authorization.format(token=house.token).encode("latin-1")
    with Sender(house.address, None) as nobody:
        for method, path in (("POST", "/v1/events"), ("GET", "/v1/devices/me"), ("GET", "/v1/operations")):
            answer = nobody.ask(
                method, path, headers=[(b"authorization", value), (b"content-type", EVENT_TYPE.encode())]
            )
            assert "Bearer" == assert_refused(answer, 401, "not-authenticated").headers["www-authenticate"]
        head = nobody.ask("HEAD", "/v1/events", headers=[(b"authorization", value)])
        assert (401, b"", "Bearer") == (head.status_code, head.content, head.headers["www-authenticate"])


@pytest.mark.parametrize("authorization", ["bearer {token}", "BEARER {token}", "Bearer   {token}"])
def test_the_scheme_is_taken_in_any_case_and_with_more_blanks(house: House, authorization: str) -> None:
    with Sender(house.address, None) as sender:
        answer = sender.ask("HEAD", "/v1/events", headers={"authorization": authorization.format(token=house.token)})
        assert 204 == answer.status_code


@pytest.mark.parametrize(
    "sent",
    [
        "", "now", "1710385929", "2024-03-14", "2024-03-14T03:12:09", "2024-03-14 03:12:09Z", "2024-03-14T03:12:60Z",
        "2024-02-30T03:12:09Z", "2024-03-14T25:12:09Z", "0000-03-14T03:12:09Z", '2024-03-14T03:12:09Z"',
        "2024-03-14T03:12:09+0100", "Thu, 14 Mar 2024 03:12:09 GMT", "2024-03-14T03:12:09Z, 2024-03-14T03:12:09Z",
        "\xff",
        "2024-03-14T03:12:09+99:00",
    ],
)  # fmt: skip
def test_a_sending_time_that_is_none_is_refused_with_an_example(unit: Sender, sent: str) -> None:
    answer = unit.ask(
        "POST", "/v1/events", content=report(),
        headers=[(b"content-type", EVENT_TYPE.encode()), (b"fieldtally-sent", sent.encode("latin-1"))],
    )  # fmt: skip
    assert "2024-03-14T04:12:09+01:00" in assert_refused(answer, 400, "malformed-request").json()["detail"]


@pytest.mark.parametrize(
    "sent",
    ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "2024-03-14t03:12:09.123456789z"],
)
def test_a_sending_time_of_any_year_is_taken(unit: Sender, sent: str) -> None:
    answer = unit.one(report(), **{"fieldtally-sent": sent})
    assert 201 == answer.status_code
    assert abs(answer.json()["clock_off_s"]) > 120
    assert "clock_off_s" not in unit.one(report(), **{"fieldtally-sent": recently()}).json()


# Addresses and methods

READ = frozenset({"GET", "OPTIONS"})
ADDRESSES = {
    "/v1/events": {"POST", "HEAD", "OPTIONS"},
    "/v1/devices/me": READ,
    "/v1/operations": READ,
    "/": READ,
    "/openapi.json": READ,
    "/docs": READ,
    "/asyncapi.json": READ,
    "/health/live": READ,
    "/health/ready": READ,
    "/metrics": READ,
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "QUERY")


@pytest.mark.parametrize("path", ADDRESSES)
def test_a_method_that_an_address_does_not_take_is_refused_with_those_it_takes(unit: Sender, path: str) -> None:
    for method in METHODS:
        answer = unit.ask(method, path)
        if method == "OPTIONS":
            assert 204 == answer.status_code
        elif method in ADDRESSES[path]:
            assert answer.status_code != 405
        elif method == "HEAD":
            assert (405, b"") == (answer.status_code, answer.content)
        else:
            assert_refused(answer, 405, "method-not-allowed")
        if method == "OPTIONS" or method not in ADDRESSES[path]:
            assert ADDRESSES[path] == {name.strip() for name in answer.headers["allow"].split(",")}, method


@pytest.mark.parametrize(
    "path",
    ["/v1", "/v1/", "/v1/event", "/v2/events", "/v1/events/1", "/health", "/favicon.ico", "/docs/x", "/%ff",
     "/v1/devices/you", "/.env", "/v1/events/../../etc/passwd", "/schema", "/openapi.yaml"],
)  # fmt: skip
def test_there_is_nothing_at_any_other_address(unit: Sender, path: str) -> None:
    for method in ("GET", "POST"):
        assert_refused(unit.ask(method, path), 404, "not-found")


def test_the_root_leads_to_the_documentation(unit: Sender) -> None:
    answer = unit.ask("GET", "/")
    assert (307, "/docs", b"") == (answer.status_code, answer.headers["location"], answer.content)


def test_who_asks_for_reports_is_told_what_the_address_is_for(unit: Sender) -> None:
    assert "with POST" in assert_refused(unit.ask("GET", "/v1/events"), 405, "method-not-allowed").json()["detail"]


def test_pages_of_the_configured_origins_may_use_it_and_no_others(unit: Sender) -> None:
    def preflight(origin: str, method: str = "POST") -> httpx.Response:
        asked = {
            "access-control-request-method": method,
            "access-control-request-headers": "authorization,content-type",
        }
        return unit.ask("OPTIONS", "/v1/events", headers={"origin": origin} | asked)

    allowed = preflight(ORIGIN)
    assert (204, ORIGIN) == (allowed.status_code, allowed.headers["access-control-allow-origin"])
    names = {name.strip().lower() for name in allowed.headers["access-control-allow-headers"].split(",")}
    assert {"authorization", "content-type", "fieldtally-sent"} <= names
    assert "POST" in allowed.headers["access-control-allow-methods"]
    assert ORIGIN == unit.one(report(), origin=ORIGIN).headers["access-control-allow-origin"]
    # A page must be able to read a refusal, too.
    refused = unit.one(b"", origin=ORIGIN)
    assert (422, ORIGIN) == (refused.status_code, refused.headers["access-control-allow-origin"])
    whole = assert_refused(post(unit, b"", "text/plain", origin=ORIGIN), 415, "unsupported-media-type")
    assert ORIGIN == whole.headers["access-control-allow-origin"]
    for origin in ("https://evil.example", f"{ORIGIN}.evil.example", "http://patrol.example", "null"):
        for answer in (preflight(origin), unit.one(report(), origin=origin)):
            assert origin != answer.headers.get("access-control-allow-origin")
            assert "*" != answer.headers.get("access-control-allow-origin")
            assert "access-control-allow-credentials" not in answer.headers


def test_without_configured_origins_no_page_may_use_it(client: redis.Redis, settings: Settings) -> None:
    with running_gateway(settings) as address, Sender(address, enrolled(client, settings.prefix)) as unit:
        answer = unit.ask("OPTIONS", "/v1/events", headers={"origin": ORIGIN, "access-control-request-method": "POST"})
        for each in (answer, unit.one(report(), origin=ORIGIN)):
            assert not [name for name in each.headers if name.startswith("access-control")]


# On the wire


def exchange(house: House, *parts: bytes, half_close: bool = False) -> bytes:
    """Send bytes as they are, and return everything that comes back until the other end closes."""
    where = urlsplit(house.address)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=10) as wire:
        with suppress(ConnectionError):
            for part in parts:
                wire.sendall(part)
        if half_close:
            with suppress(OSError):
                wire.shutdown(socket.SHUT_WR)
        received = b""
        with suppress(ConnectionError):
            while chunk := wire.recv(65_536):
                received += chunk
        return received


def head(house: House, *more: str, content_type: str = EVENT_TYPE) -> bytes:
    """Return the head of a request, with a Connection that ends after the answer."""
    lines = (
        "POST /v1/events HTTP/1.1", "Host: x", f"Authorization: Bearer {house.token}", f"Content-Type: {content_type}",
        "Connection: close", *more,
    )  # fmt: skip
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"


def status(received: bytes) -> int:
    """Return the status of an answer as it came, 0 if there is none."""
    return int(received.split(b" ", 2)[1]) if received.startswith(b"HTTP/") else 0


def recorded(house: House) -> int:
    """Return how many reports the log holds."""
    with plain_client(house.settings.redis_url or "") as client:
        return client.xlen(f"{{{house.settings.prefix}:SI}}:log")


def test_a_length_that_is_too_large_is_refused_before_a_byte_of_the_body_comes(house: House) -> None:
    for length in (EVENT_BYTES_MAX + 1, 10**12, 10**18):
        answer = exchange(house, head(house, f"Content-Length: {length}"))
        assert 413 == status(answer)
        assert b"application/problem+json" in answer


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "0x10", "9" * 40, "5, 6", ""])
def test_a_length_that_is_no_number_is_refused(house: House, length: str) -> None:
    before = recorded(house)
    assert status(exchange(house, head(house, f"Content-Length: {length}"), report(), half_close=True)) in (
        0,
        400,
        413,
        422,
    )
    assert before == recorded(house)


def test_a_length_and_pieces_at_once_are_refused(house: House) -> None:
    before = recorded(house)
    event = report()
    both = head(house, f"Content-Length: {len(event)}", "Transfer-Encoding: chunked")
    assert status(exchange(house, both, event, half_close=True)) in (0, 400)
    assert before == recorded(house)


def test_a_request_that_is_broken_off_at_any_byte_leaves_nothing_and_the_next_is_served(
    house: House, unit: Sender
) -> None:
    event = report()
    whole = head(house, f"Content-Length: {len(event)}") + event
    before = recorded(house)
    for at in range(1, len(whole), 7):
        assert status(exchange(house, whole[:at], half_close=True)) in (0, 400)
    assert status(exchange(house, whole[:-1], half_close=True)) in (0, 400)
    assert before == recorded(house)
    assert 201 == status(exchange(house, whole[:40], whole[40:80], whole[80:]))
    assert 200 == unit.one(event).status_code


def test_what_comes_after_the_announced_length_is_no_part_of_the_report(house: House) -> None:
    event = report()
    answer = exchange(house, head(house, f"Content-Length: {len(event)}"), event + b"GET / HTTP/1.1\r\n\r\n")
    assert 201 == status(answer)
    assert 1 == answer.count(b"HTTP/1.1 ")


@pytest.mark.parametrize(
    "raw",
    [b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00", b"POST /v1/events\r\n\r\n",
     b"GET / HTTP/1.1\r\nA b: c\r\n\r\n", b"A" * 100_000, b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_http_is_answered_with_no_5xx_and_the_next_is_served(house: House, unit: Sender, raw: bytes) -> None:
    assert status(exchange(house, raw, half_close=True)) < 500
    assert 201 == unit.one(report()).status_code


def test_no_answer_names_the_server_or_repeats_the_token(house: House) -> None:
    event = report()
    for answer in (
        exchange(house, head(house, f"Content-Length: {len(event)}"), event),
        exchange(house, head(house, "Content-Length: 1"), b"x"),
        exchange(house, head(house, "Content-Length: 1", content_type="text/plain"), b"x"),
    ):
        assert house.token.encode() not in answer
        assert b"HTTP/1.1 " in answer
        assert b"server:" not in answer.lower()


def test_every_problem_has_a_title() -> None:
    assert set(CODES) == set(TITLES)


def test_a_page_that_a_browser_shows_brings_nothing_from_elsewhere(unit: Sender) -> None:
    for path in ("/docs", "/docs.css"):
        answer: Any = unit.ask("GET", path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "nosniff" == answer.headers["x-content-type-options"]
