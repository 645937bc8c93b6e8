"""What costs no token has limits, in length and time: heads, trailers, bodies that nobody reads; and a crowd waits."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from urllib.parse import urlsplit

import httpx
import pytest
import redis

from schemas.http import EVENT_TYPE
from services.gateway import protocol
from services.gateway.protocol import LINGER_BYTES_MAX, LINGER_S, PIPELINED_MAX
from services.runtime.settings import Settings
from tests.asynchronous import asynchronous
from tests.gateways import Sender, enrolled, reported, running_gateway
from tests.projectors import log_of
from tests.waiting import wait_for

PHONES = 150
LIVE = b"GET /health/live HTTP/1.1\r\nHost: gateway\r\n\r\n"
NOBODY = b"POST /v1/events HTTP/1.1\r\nHost: gateway\r\n"


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


def answered(connection: socket.socket) -> tuple[int, bytes]:
    """Read one answer that says its length; return status and body."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(1)
        assert part, received
        received += part
    length = int(received.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    body = b""
    while len(body) < length:
        body += connection.recv(length - len(body))
    return int(received.split(b" ")[1]), body


def rest(connection: socket.socket) -> bytes:
    """Read whatever still comes, until the other end closes."""
    received = b""
    while part := connection.recv(65_536):
        received += part
    return received


def ends_while_sending(connection: socket.socket, piece: bytes) -> Callable[[], bool]:
    """Return what sends a piece each time it is asked, and tells whether the other end is gone."""
    connection.setblocking(False)

    def ended() -> bool:
        try:
            connection.sendall(piece)
            return connection.recv(1_000) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    return ended


# Trailers


@pytest.mark.parametrize("reader", ["a unit", "nobody"])
@pytest.mark.parametrize("piece", [b"x" * 12_000, b"X: y\r\n" * 2_000], ids=["one", "many"])
def test_trailers_that_grow_without_end_are_hung_up_on(
    settings: Settings, client: redis.Redis, prefix: str, piece: bytes, reader: str
) -> None:
    with running_gateway(settings) as address, connected(address) as connection:
        connection.sendall(NOBODY)
        if reader == "a unit":
            named = f"Content-Type: {EVENT_TYPE}\r\nAuthorization: Bearer {enrolled(client, prefix)}\r\n"
            connection.sendall(named.encode())
        connection.sendall(b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
        if reader == "a unit":
            connection.sendall(b"X: y")
        else:
            assert 401 == answered(connection)[0]
        ended = ends_while_sending(connection, piece)
        pieces = count()
        wait_for(lambda: next(pieces) >= 0 and ended(), what="the connection to be ended")
        assert next(pieces) * len(piece) < LINGER_BYTES_MAX / 4


def test_trailers_are_no_headers(settings: Settings, client: redis.Redis, prefix: str) -> None:
    body = reported(1)
    chunked = b"%x\r\n%b\r\n0\r\n" % (len(body), body)
    token = enrolled(client, prefix).encode()
    named = b"Content-Type: %b\r\nTransfer-Encoding: chunked\r\n" % EVENT_TYPE.encode()
    with running_gateway(settings) as address, connected(address) as connection:
        connection.sendall(NOBODY + named + b"\r\n" + chunked + b"Authorization: Bearer %b\r\n\r\n" % token)
        assert 401 == answered(connection)[0]
        connection.sendall(
            NOBODY + named + b"Authorization: Bearer %b\r\n\r\n" % token + chunked + b"Content-Type: text/plain\r\n\r\n"
        )
        assert 201 == answered(connection)[0]


# Two readings of where a body ends


@pytest.mark.parametrize(
    "framing",
    [
        b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 4", b"Content-Length: 4\r\nTransfer-Encoding: chunked",
        b"Content-Length: 4\r\nContent-Length: 5", b"Content-Length : 4", b"Transfer-Encoding : chunked",
    ],
)  # fmt: skip
def test_a_body_whose_end_can_be_read_in_two_ways_is_refused_as_a_problem_and_the_connection_ended(
    settings: Settings, client: redis.Redis, prefix: str, framing: bytes
) -> None:
    body = reported(1)
    head = b"%bAuthorization: Bearer %b\r\nContent-Type: %b\r\n%b\r\n\r\n" % (
        NOBODY, enrolled(client, prefix).encode(), EVENT_TYPE.encode(), framing,
    )  # fmt: skip
    with running_gateway(settings) as address, connected(address) as connection:
        connection.sendall(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) + LIVE)
        status, refused = answered(connection)
        assert (400, "malformed-request") == (status, json.loads(refused)["code"])
        assert b"" == rest(connection)
    assert [] == log_of(client, prefix, "SI")


def test_pieces_are_refused_of_a_client_that_does_not_know_them(settings: Settings) -> None:
    with running_gateway(settings) as address, connected(address) as connection:
        connection.sendall(NOBODY.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        assert 400 == answered(connection)[0]


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked", b"  chunked  "])
def test_pieces_are_taken_however_that_is_written(settings: Settings, coding: bytes) -> None:
    with running_gateway(settings) as address, connected(address) as connection:
        for _ in range(2):
            connection.sendall(NOBODY + b"Transfer-Encoding:%b\r\n\r\n1\r\nx\r\n0\r\n\r\n" % coding)
            assert 401 == answered(connection)[0]


def test_what_came_whole_is_answered_before_a_connection_ends_for_what_follows(settings: Settings) -> None:
    with running_gateway(settings) as address, connected(address) as connection:
        connection.sendall(LIVE + b"this is no HTTP\r\n\r\n")
        assert 200 == answered(connection)[0]
        assert b"" == rest(connection)


# Bodies that nobody reads


def test_who_sends_the_rest_of_a_body_after_the_answer_is_served_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "LINGER_S", 1)
    with running_gateway(settings) as address, connected(address) as connection, connected(address) as late:
        connection.sendall(NOBODY + b"Content-Length: 200000\r\n\r\n")
        assert 401 == answered(connection)[0]
        connection.sendall(b"x" * 200_000)
        late.sendall(NOBODY + b"Content-Length: 200000\r\n\r\n")
        assert 401 == answered(late)[0]
        assert b"" == rest(late)  # so the time is over
        connection.sendall(LIVE)
        assert 200 == answered(connection)[0]


def test_a_client_that_is_still_sending_when_the_connection_is_to_end_gets_to_read_the_answer(
    settings: Settings,
) -> None:
    with running_gateway(settings) as address, connected(address) as connection:
        connection.sendall(NOBODY + b"Connection: close\r\nContent-Length: 1000000000\r\n\r\n")
        for _ in range(LINGER_BYTES_MAX // 200_000):
            connection.sendall(b"x" * 100_000)
        assert 401 == answered(connection)[0]
        assert b"" == rest(connection)


def test_an_unread_body_is_not_let_pass_without_end(settings: Settings) -> None:
    with running_gateway(settings) as address, connected(address) as connection:
        connection.sendall(NOBODY + b"Content-Length: 1000000000\r\n\r\n")
        assert 401 == answered(connection)[0]
        with pytest.raises(ConnectionError):
            connection.sendall(b"x" * (LINGER_BYTES_MAX * 8))


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"])
def test_a_byte_of_an_unread_body_now_and_then_holds_no_connection(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, more: bytes
) -> None:
    monkeypatch.setattr(protocol, "LINGER_S", 0.3)
    with running_gateway(settings) as address, connected(address) as connection:
        connection.sendall(NOBODY + more + b"Content-Length: 1000000000\r\n\r\n")
        assert 401 == answered(connection)[0]
        wait_for(ends_while_sending(connection, b"x"), what="the connection to be ended")


@pytest.mark.parametrize("before", [LIVE, NOBODY + b"Content-Length: 1\r\n\r\n"], ids=["whole", "with a byte to come"])
def test_a_blank_line_now_and_then_holds_no_connection(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_S", 0.5)
    with running_gateway(settings) as address, connected(address) as connection:
        connection.sendall(before)
        assert answered(connection)[0] in (200, 401)
        connection.sendall(b"\n")
        wait_for(ends_while_sending(connection, b"\n"), within_s=LINGER_S / 2, what="the connection to be ended")


def test_a_gateway_that_stops_waits_for_nobody_who_lingers(
    settings: Settings, client: redis.Redis, prefix: str
) -> None:
    token = enrolled(client, prefix).encode()
    head = NOBODY + b"Content-Type: %b\r\nAuthorization: Bearer %b\r\n" % (EVENT_TYPE.encode(), token)
    with running_gateway(settings) as address:
        slow, answered_already = connected(address), connected(address)
        slow.sendall(head + b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n")
        assert slow.recv(1_000).startswith(b"HTTP/1.1 100 ")
        answered_already.sendall(NOBODY + b"Connection: close\r\nContent-Length: 100\r\n\r\n")
        assert 401 == answered(answered_already)[0]
        began = time.monotonic()
    assert time.monotonic() - began < LINGER_S / 2
    for connection in (slow, answered_already):
        connection.close()


# Many requests in a row, and many clients


def test_a_few_requests_may_be_sent_without_waiting_and_are_answered_in_order(settings: Settings) -> None:
    with running_gateway(settings) as address, connected(address) as connection:
        connection.sendall((LIVE + LIVE.replace(b"live", b"dead")) * (PIPELINED_MAX // 2))
        assert [200, 404] * (PIPELINED_MAX // 2) == [answered(connection)[0] for _ in range(PIPELINED_MAX)]


def test_requests_without_end_and_without_waiting_are_hung_up_on(settings: Settings) -> None:
    with running_gateway(settings) as address, connected(address) as connection:
        with suppress(ConnectionError):
            connection.sendall(LIVE * 2_000)
        assert 1 <= rest(connection).count(b"HTTP/1.1 200 ") <= PIPELINED_MAX + 1


class Wire(list[bytes]):
    """A transport that keeps each write."""

    write = list.append

    def is_closing(self) -> bool:
        """Tell whether it was closed."""
        return bool(self) and self[-1] == b"closed"

    def close(self) -> None:
        """Close."""
        self.append(b"closed")


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ([b"HTTP/1.1 201 Created\r\n\r\n", b"{}"], [b"HTTP/1.1 201 Created\r\n\r\n{}"]),
        ([b"HTTP/1.1 204 No Content\r\n\r\n", b""], [b"HTTP/1.1 204 No Content\r\n\r\n"]),
        ([b"HTTP/1.1 200 OK\r\n\r\n", b"one", b"HTTP/1.1 two"], [b"HTTP/1.1 200 OK\r\n\r\none", b"HTTP/1.1 two"]),
        (
            [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"one"],
            [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\none"],
        ),
        ([b"HTTP/1.1 500 Fault\r\n\r\n"], [b"HTTP/1.1 500 Fault\r\n\r\n"]),
    ],
    ids=["head-and-body", "no-body", "more", "continue", "broken-off"],
)
def test_an_answer_goes_out_in_one_piece_and_whole(written: list[bytes], sent: list[bytes]) -> None:
    wire = Wire()
    answer = protocol.InOnePiece(wire)
    for piece in written:
        answer.write(piece)
    answer.close()
    assert [*sent, b"closed"] == wire
    assert answer.is_closing()


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
