"""The room as a process: many streams at once, an end that is clean, and a start that fails in words."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis

from services.control_room.app import SHUTDOWN_S
from services.runtime.errors import UnreachableError
from services.runtime.settings import Settings
from tests import given
from tests.asynchronous import asynchronous
from tests.gateways import enrolled
from tests.projectors import Cradle, Forked, environment, feed, project
from tests.services.control_room.rooms import Browser, Served, one_side, running_room, shows
from tests.waiting import wait_for

STREAMS = 200
SIDES = "SI:Europe/Ljubljana:SVN,HR:Europe/Zagreb:HRV"


# Many streams


@asynchronous
async def test_two_hundred_streams_get_each_change(served: Served, client: redis.Redis, settings: Settings) -> None:
    """Over real connections, of three audiences, with nobody left out and nothing twice."""
    tokens = [enrolled(client, settings.prefix, "viewer", sides, unit="wall") for sides in ("SI", "HR", "SI,HR")]
    changes = 20
    seen: list[list[str]] = []

    async def listen(token: str) -> None:
        host, _, port = served.address.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET /api/stream HTTP/1.1\r\nHost: x\r\nCookie: fieldtally_session={token}\r\n\r\n".encode())
        positions: list[str] = []
        seen.append(positions)
        try:
            while line := await reader.readline():
                if line.startswith(b'data: {"side":') and b'"cells"' in line:
                    change = json.loads(line[6:])
                    positions.append(f"{change['side']}:{change['position']}")
        finally:
            writer.close()
            await writer.wait_closed()

    listening = [asyncio.create_task(listen(tokens[number % 3])) for number in range(STREAMS)]
    try:
        async with asyncio.timeout(20):
            while len(served.app.streams) < STREAMS:  # noqa: ASYNC110  # it is another thread's
                await asyncio.sleep(0.01)
            told = {"SI": list[str](), "HR": list[str]()}
            for number in range(changes):
                side = ("SI", "HR")[number % 2]
                event = given.apprehension(id=number, side=side)
                told[side] += feed(client, settings.prefix, side, [given.entry(event)])
                await _count(settings)
            everyone = sum(changes // 2 * (1, 1, 2)[number % 3] for number in range(STREAMS))
            while sum(map(len, seen)) < everyone:  # noqa: ASYNC110  # the same
                await asyncio.sleep(0.01)
    finally:
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
    # Sides are told apart from one another, so only the order within each is one.
    kinds = Counter(tuple(sorted(positions, key=lambda at: at.partition(":")[0])) for positions in seen)
    si, hr = ([f"{side}:{at}" for at in told[side]] for side in told)
    assert Counter({tuple(si): 67, tuple(hr): 67, tuple(hr + si): 66}) == kinds


async def _count(settings: Settings) -> None:
    """Count in this loop: a projector wants a main thread of its own."""
    for name in ("SI", "HR"):
        async with one_side(settings, side=name) as side:
            await side.count()


# The process


@pytest.fixture(scope="module")
def cradle() -> Iterator[Cradle]:
    with Cradle("services.cli.control_room", "services.control_room.app") as cradle:
        yield cradle


NewRoom = Callable[..., tuple[Forked, str]]


@pytest.fixture
def new_room(cradle: Cradle, tmp_path: Path, prefix: str) -> Iterator[NewRoom]:
    """Start `fieldtally control-room`; give the process and its address."""
    started: list[Forked] = []

    def start(url: str, **environ: str) -> tuple[Forked, str]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        named = {f"FIELDTALLY_{name}": text for name, text in environ.items()}
        environs = environment(url, prefix, SIDES) | {"FIELDTALLY_SCREEN_PORT": str(port)} | named
        process = Forked(cradle, ["control-room"], tmp_path / f"room{len(started)}", environs)
        started.append(process)
        return process, f"http://127.0.0.1:{port}"

    yield start
    for process in started:
        process.end()


def wait_until_serving(process: Forked, address: str) -> None:
    def serves() -> bool:
        try:
            return httpx.get(f"{address}/health/live", verify=False).is_success  # noqa: S501  # no TLS
        except httpx.TransportError:
            return process.poll() is not None

    wait_for(serves, what="the room to serve")
    assert process.poll() is None, process.text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_ends_at_once_with_streams_open(
    server_url: str, client: redis.Redis, prefix: str, new_room: NewRoom, number: signal.Signals, code: int
) -> None:
    """Not at the limit: streams end by themselves, with their last byte, when serving does."""
    token = enrolled(client, prefix, "viewer")
    process, address = new_room(server_url)
    wait_until_serving(process, address)
    with Browser(address, token) as browser, browser.listening() as one, browser.listening() as other:
        wait_for(lambda: one.named("heartbeat") and other.named("heartbeat"), what="the streams")
        began = time.monotonic()
        process.send(number)
        assert code == process.wait()
        assert time.monotonic() - began < SHUTDOWN_S - 1
        wait_for(lambda: one.ended and other.ended, what="the streams to end in order")
    assert process.named("control_room_stopped")
    assert "Traceback" not in process.text
    assert [] == [line for line in process.lines if line["level"] in ("error", "critical")]
    assert token not in process.text


def test_the_past_is_rebuilt_beside_the_screens(
    server_url: str, client: redis.Redis, settings: Settings, prefix: str, new_room: NewRoom
) -> None:
    token = enrolled(client, prefix, "viewer")
    first, _ = feed(client, prefix, "SI", [given.entry(given.apprehension(id=number)) for number in (1, 2)])
    project(settings)
    process, address = new_room(server_url)
    wait_until_serving(process, address)
    with Browser(address, token) as browser:
        (then,) = browser.snapshot(f"?at={first}")["sides"]
        (now,) = browser.snapshot()["sides"]
    assert [1, 2] == [side["cells"]["SI||koper|2024-03-14|apprehensions|"] for side in (then, now)]
    process.send(signal.SIGTERM)
    assert 0 == process.wait()


def test_without_a_server_it_does_not_start(tmp_path: Path, new_room: NewRoom) -> None:
    process, _ = new_room(f"unix://{tmp_path}/none")
    assert 3 == process.wait()
    (said,) = [line for line in process.words if line.startswith("fieldtally: ")]
    assert "cannot reach" in said
    assert "Traceback" not in process.text


def test_a_room_on_a_server_that_is_not_there_says_so(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="cannot reach"), running_room(settings, f"unix://{tmp_path}/none"):
        pass


def test_it_says_when_it_starts_and_when_it_stops(settings: Settings, client: redis.Redis) -> None:
    with running_room(settings) as served:
        feed(client, settings.prefix, "SI", [given.entry(given.apprehension(id=1))])
        project(settings)
        wait_for(lambda: shows(served, client, settings.prefix), what="the change")
    assert ["control_room_started", "control_room_stopped"] == [line["event"] for line in served.lines]
