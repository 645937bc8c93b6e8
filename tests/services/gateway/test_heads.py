"""What comes before a body has limits: length and time, without a token too; and a crowd is served in line."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from urllib.parse import urlsplit

import httpx
import pytest
import redis

from schemas.http import EVENT_TYPE
from services.gateway import protocol
from services.runtime.settings import Settings
from tests.asynchronous import asynchronous
from tests.gateways import Sender, enrolled, reported, running_gateway

PHONES = 150


def connected(address: str) -> socket.socket:
    """Return a connection to a gateway."""
    return socket.create_connection(("127.0.0.1", urlsplit(address).port or 0), timeout=20)


def test_a_head_that_grows_without_end_is_hung_up_on(settings: Settings) -> None:
    with running_gateway(settings) as address, connected(address) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nX-Long: ")
        with pytest.raises(ConnectionError):
            connection.sendall(b"x" * (1 << 26))


@pytest.mark.parametrize("begun", [b"", b"GET /health/live HTTP/1.1\r\nHost:"])
def test_a_connection_without_a_whole_head_is_ended(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_S", 0.2)
    with running_gateway(settings) as address, connected(address) as connection:
        connection.sendall(begun)
        assert connection.recv(100) == b""


def test_a_head_in_pieces_and_a_second_request_are_answered(settings: Settings) -> None:
    with running_gateway(settings) as address, connected(address) as connection:
        for _ in range(2):
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHo")
            connection.sendall(b"st: gateway\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(1_000)
            assert answer.startswith(b"HTTP/1.1 200 ")


@asynchronous
async def _crowd(address: str, tokens: list[str], seen: Counter[int]) -> None:
    limits = httpx.Limits(max_connections=PHONES)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits, verify=False) as phones:  # noqa: S501

        async def phone(number: int, token: str) -> None:
            headers = {"authorization": f"Bearer {token}", "content-type": EVENT_TYPE}
            seen[(await phones.get("/v1/devices/me", headers=headers)).status_code] += 1
            answer = await phones.post("/v1/events", content=reported(number), headers=headers)
            seen[answer.status_code] += 1

        await asyncio.gather(*(phone(number, token) for number, token in enumerate(tokens, 1)))


def test_hundreds_of_phones_that_come_back_at_once_are_served_in_line(
    settings: Settings, client: redis.Redis, prefix: str
) -> None:
    tokens = [enrolled(client, prefix, device=f"d{number}") for number in range(PHONES)]
    seen: Counter[int] = Counter()
    with running_gateway(settings) as address:
        _crowd(address, tokens, seen)
        with Sender(address, None) as sender:
            assert sender.ask("GET", "/health/ready").status_code == 200
    assert seen == {200: PHONES, 201: PHONES}
