"""`gateway`: it serves, ends as it is told to, and says what keeps it from serving."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import redis

from tests.gateways import Sender, enrolled, reported
from tests.services.cli.conftest import Cli, Outcome, assert_refused, environ, started
from tests.waiting import wait_for


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@contextmanager
def serving(
    command: str, url: str, prefix: str, said: Path, **settings: str
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run `gateway` or `up`; yield the process and its address once it is ready. What it says is in a file."""
    port = free_port()
    own = {"HTTP_PORT": str(port), "SCREEN_PORT": str(free_port()), "DATA_DIR": str(said.parent / "data")}
    env = environ(url, prefix, **(own | settings))
    address = f"http://127.0.0.1:{port}"
    # A group of its own, as from a shell, so that a test can signal all that belongs to it.
    with said.open("wb") as stderr, started([command], env, stderr=stderr, start_new_session=True) as process:

        def ready() -> bool:
            assert process.poll() is None, said.read_text()
            try:
                return httpx.get(f"{address}/health/ready").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(ready, within_s=20, what="the gateway to be ready")
        yield process, address


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)])
def test_the_gateway_takes_reports_and_ends_as_it_is_told_to(
    client: redis.Redis, server_url: str, prefix: str, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    said = tmp_path / "said"
    with serving("gateway", server_url, prefix, said) as (process, address):
        with Sender(address, enrolled(client, prefix)) as sender:
            assert 201 == sender.one(reported(1)).status_code
        where = f"gateway on {address}, described at {address}/docs; Ctrl-C ends"
        wait_for(lambda: where in said.read_text().splitlines(), what="its address")
        process.send_signal(number)
        assert code == process.wait(20)

    lines = [line for line in said.read_text().splitlines() if line != where]
    assert [json.loads(line)["event"] for line in lines] == ["gateway_started", "requests_answered", "gateway_stopped"]


def test_a_port_that_is_taken_is_named_with_the_setting(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for command in ("gateway", "up"):
            outcome = cli(command, HTTP_PORT=str(port))
            assert (2, "") == (outcome.code, outcome.out)
            assert outcome.err == (
                f"fieldtally: cannot listen on 127.0.0.1 port {port}: Address already in use; "
                "set FIELDTALLY_HTTP_HOST or FIELDTALLY_HTTP_PORT\n"
            )


def test_a_host_that_is_none_of_ours_is_named(cli: Cli) -> None:
    outcome = cli("gateway", HTTP_HOST="192.0.2.1", HTTP_PORT=str(free_port()))
    assert 2 == outcome.code
    assert "cannot listen on 192.0.2.1" in outcome.err


@pytest.mark.parametrize("command", ["gateway", "up"])
def test_a_server_that_is_not_there_is_exit_code_3_and_one_line(
    process: Callable[..., Outcome], tmp_path: Path, command: str
) -> None:
    """Nor is an address told that nobody serves at."""
    outcome = process(command, url=f"unix://{tmp_path}/none", HTTP_PORT=str(free_port()))
    assert_refused(
        outcome,
        3,
        f"fieldtally: cannot reach unix://{tmp_path}/none: is it running, and is FIELDTALLY_REDIS_URL right?",
    )
