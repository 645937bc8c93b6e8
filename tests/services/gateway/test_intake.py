"""What is under way is bounded: requests of a token, large bodies of all; and nobody outruns its rate in parallel."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
import redis

from schemas.http import BATCH_TYPE, EVENT_BYTES_MAX, EVENT_TYPE
from services.gateway import intake
from services.runtime.settings import Settings
from tests.gateways import Sender, enrolled, reported, running_gateway
from tests.projectors import log_of
from tests.waiting import wait_for


class Sending:
    """A request whose body is still to come; entered, the gateway has begun with it, or has answered already."""

    def __init__(self, address: str, token: str, body: bytes, content_type: str = BATCH_TYPE) -> None:
        self._body = body
        self.connection = socket.create_connection(("127.0.0.1", urlsplit(address).port or 0), timeout=20)
        head = (
            f"POST /v1/events HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"
            f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
        )
        self.connection.sendall(head.encode())

    def begun(self) -> bool:
        """Wait for the gateway to ask for the body; tell whether it does."""
        return self.connection.recv(25).startswith(b"HTTP/1.1 100 ")

    def asked_for_yet(self) -> bool:
        """Tell whether the gateway has said anything."""
        self.connection.setblocking(False)
        try:
            return bool(self.connection.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False
        finally:
            self.connection.settimeout(20)

    def finish(self) -> int:
        """Send the body; return the status of the answer."""
        self.connection.sendall(self._body)
        return self.status()

    def status(self) -> int:
        """Return the status of the answer."""
        received = b""
        while part := self.connection.recv(65_536):
            received += part
        self.connection.close()
        return int(received.split(b" ")[1])


def batch(*numbers: int) -> bytes:
    """Return a batch of so many reports."""
    return b"[" + b",".join(reported(number) for number in numbers) + b"]"


def large(number: int) -> bytes:
    """Return a batch that is longer than any single report may be."""
    return b"[" + reported(number) + b" " * EVENT_BYTES_MAX + b"]"


def test_a_token_has_so_many_requests_under_way_and_the_next_is_put_off(
    settings: Settings, client: redis.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "UNDER_WAY_MAX", 2)
    token, other = enrolled(client, prefix), enrolled(client, prefix, device="0a11f0")
    with running_gateway(settings) as address, Sender(address, token) as unit, Sender(address, other) as neighbour:
        first, second = (Sending(address, token, reported(number), EVENT_TYPE) for number in (1, 2))
        assert first.begun() and second.begun()
        put_off = unit.one(reported(3))
        assert (429, "rate-limited", True) == (
            put_off.status_code, put_off.json()["code"], put_off.json()["retryable"],
        )  # fmt: skip
        assert int(put_off.headers["retry-after"]) >= 1
        assert 201 == neighbour.one(reported(4, device="0a11f0")).status_code
        assert 201 == first.finish()
        assert 201 == unit.one(reported(3)).status_code
        assert 201 == second.finish()


def test_who_breaks_off_has_nothing_under_way(
    settings: Settings, client: redis.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "UNDER_WAY_MAX", 1)
    token = enrolled(client, prefix)
    with running_gateway(settings) as address, Sender(address, token) as unit:
        sending = Sending(address, token, reported(1), EVENT_TYPE)
        assert sending.begun()
        assert 429 == unit.one(reported(2)).status_code
        sending.connection.close()
        wait_for(lambda: unit.one(reported(2)).is_success, what="the broken-off request to be forgotten")


def test_nothing_is_remembered_of_a_token_that_has_nothing_under_way() -> None:
    bodies = intake.Intake(lambda: 0.0)
    for token in ("one", "one", "other"):
        bodies.begin(token)
    assert {"one": 2, "other": 1} == bodies._under_way
    for token in ("one", "one", "other"):
        bodies.end(token)
    assert {} == bodies._under_way


def test_large_bodies_are_read_in_line_and_small_ones_beside_them(
    settings: Settings, client: redis.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "LARGE_MAX", 1)
    token = enrolled(client, prefix)
    with running_gateway(settings) as address, Sender(address, token) as unit:
        first = Sending(address, token, large(1))
        assert first.begun()
        second = Sending(address, token, large(2))
        assert 202 == unit.batch(reported(3)).status_code
        assert 201 == unit.one(reported(4)).status_code
        assert not second.asked_for_yet()
        assert 202 == first.finish()
        assert second.begun()
        assert 202 == second.finish()
    assert [3, 4, 1, 2] == [json.loads(fields[b"event"])["reportno"] for _, fields in log_of(client, prefix, "SI")]


def test_one_token_has_a_few_of_the_places_for_large_bodies_and_others_theirs(
    settings: Settings, client: redis.Redis, prefix: str
) -> None:
    token, other = enrolled(client, prefix), enrolled(client, prefix, device="other")
    headers = {"content-type": BATCH_TYPE}
    with running_gateway(settings) as address, Sender(address, token) as unit, Sender(address, other) as phone:
        sending = [Sending(address, token, large(number)) for number in range(1, intake.LARGE_OF_TOKEN_MAX + 1)]
        assert all(one.begun() for one in sending)
        answer = unit.ask("POST", "/v1/events", content=large(8), headers=headers)
        assert (429, "rate-limited", True) == (answer.status_code, answer.json()["code"], answer.json()["retryable"])
        assert int(answer.headers["retry-after"]) >= 1
        assert 201 == unit.one(reported(9)).status_code
        assert 202 == phone.ask("POST", "/v1/events", content=large(7), headers=headers).status_code
        assert [202] * len(sending) == [one.finish() for one in sending]
        assert 202 == unit.ask("POST", "/v1/events", content=large(8), headers=headers).status_code


def test_who_stands_in_line_for_too_long_is_told_to_come_again(
    settings: Settings, client: redis.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "LARGE_MAX", 1)
    monkeypatch.setattr(intake, "LINE_S", 0.1)
    token = enrolled(client, prefix)
    with running_gateway(settings) as address, Sender(address, token) as unit:
        first = Sending(address, token, large(1))
        assert first.begun()
        answer = unit.ask("POST", "/v1/events", content=large(2), headers={"content-type": BATCH_TYPE})
        assert (503, "unavailable", True) == (answer.status_code, answer.json()["code"], answer.json()["retryable"])
        assert int(answer.headers["retry-after"]) >= 1
        assert 202 == first.finish()
        assert 202 == unit.ask("POST", "/v1/events", content=large(2), headers={"content-type": BATCH_TYPE}).status_code


def test_batches_that_are_sent_at_once_get_no_more_than_the_rate_allows(
    settings_for: Callable[..., Settings], server_url: str, client: redis.Redis, prefix: str
) -> None:
    settings = settings_for(server_url, RATE_LIMIT="1")
    token = enrolled(client, prefix)
    with running_gateway(settings) as address:
        sending = [Sending(address, token, batch(*range(at, at + 20))) for at in (1, 21, 41)]
        assert all(one.begun() for one in sending)
        assert [202, 429, 429] == [one.finish() for one in sending]
    assert 20 == len(log_of(client, prefix, "SI"))
