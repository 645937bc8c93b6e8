"""Nobody holds a connection open for nothing: a body that does not come is not waited for."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest
import redis

from schemas.http import EVENT_TYPE
from services.gateway import intake, routes, tokens
from services.runtime.settings import Settings
from tests.gateways import Sender, enrolled, reported, running_gateway


def test_a_body_that_does_not_come_is_refused_and_the_connection_ended(
    settings: Settings, client: redis.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "BODY_S", 0.2)
    token = enrolled(client, prefix)
    with running_gateway(settings) as address, Sender(address, token) as sender:
        port = urlsplit(address).port
        with socket.create_connection(("127.0.0.1", port), timeout=20) as slow:
            head = f"POST /v1/events HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n"
            slow.sendall(f"{head}Content-Type: {EVENT_TYPE}\r\nContent-Length: 100\r\n\r\n{{".encode())
            answer = b""
            while part := slow.recv(65_536):
                answer += part

        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b'"code":"malformed-request"' in answer
        assert b'"retryable":true' in answer
        assert sender.one(reported(1)).status_code == 201


def test_a_token_that_ends_while_a_body_comes_records_nothing(
    settings: Settings, client: redis.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "BELIEVED_S", 0.0)
    monkeypatch.setattr(tokens, "BELIEVED_S", 0.0)
    token, body = enrolled(client, prefix), reported(1)
    head = (
        f"POST /v1/events HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\nExpect: 100-continue\r\n"
        f"Content-Type: {EVENT_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with (
        running_gateway(settings) as address,
        socket.create_connection(("127.0.0.1", urlsplit(address).port), timeout=20) as slow,
    ):
        slow.sendall(head.encode())
        assert slow.recv(1_000).startswith(b"HTTP/1.1 100 ")  # the token was good, and the body is waited for
        client.delete(f"{prefix}:principals")
        slow.sendall(body)
        assert slow.recv(65_536).startswith(b"HTTP/1.1 401 ")
    assert 0 == client.exists(f"{{{prefix}:SI}}:log")
