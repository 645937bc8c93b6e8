"""Nobody holds a connection open for nothing: a body that does not come is not waited for."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest
import redis

from schemas.http import EVENT_TYPE
from services.gateway import routes
from services.runtime.settings import Settings
from tests.gateways import Sender, enrolled, reported, running_gateway


def test_a_body_that_does_not_come_is_refused_and_the_connection_ended(
    settings: Settings, client: redis.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "BODY_S", 0.2)
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
