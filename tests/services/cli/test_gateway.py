"""`gateway` and `up`: they serve, end as they are told to, and say what keeps them from serving."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import redis

from services.runtime.embedded import embedded_server
from tests.gateways import Sender, enrolled, reported
from tests.servers import plain_client
from tests.services.cli.conftest import Cli, Outcome, environ, started
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
    env = environ(url, prefix, HTTP_PORT=str(port), **settings)
    address = f"http://127.0.0.1:{port}"
    with said.open("wb") as stderr, started([command], env, stderr=stderr) as process:

        def ready() -> bool:
            assert process.poll() is None, said.read_text()
            try:
                return httpx.get(f"{address}/health/ready").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(ready, within_s=20, what="the gateway to be ready")
        yield process, address


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_the_gateway_takes_reports_and_ends_as_it_is_told_to(
    client: redis.Redis, server_url: str, prefix: str, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    said = tmp_path / "said"
    with serving("gateway", server_url, prefix, said) as (process, address):
        with Sender(address, enrolled(client, prefix)) as sender:
            assert 201 == sender.one(reported(1)).status_code
        process.send_signal(number)
        assert code == process.wait(20)

    first, *lines = said.read_text().splitlines()
    assert first == f"gateway on {address}, described at {address}/docs; Ctrl-C ends"
    assert [json.loads(line)["event"] for line in lines] == ["gateway_started", "requests_answered", "gateway_stopped"]


def test_up_counts_what_it_takes_on_a_server_of_its_own(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with (
        embedded_server(data) as url,
        plain_client(url) as client,
        serving("up", "", "ft", tmp_path / "said", DATA_DIR=str(data)) as (process, address),
    ):
        with Sender(address, enrolled(client, "ft")) as sender:
            assert 201 == sender.one(reported(1)).status_code
        wait_for(lambda: client.hget("{ft:SI}:g1:checkpoint", "entries") == b"1", what="the report to be counted")
        process.send_signal(signal.SIGINT)
        assert 130 == process.wait(20)


def test_up_does_not_go_on_without_a_projector(server_url: str, prefix: str, tmp_path: Path) -> None:
    said = tmp_path / "said"
    with serving("up", server_url, prefix, said) as (process, _):
        (projector,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(projector), signal.SIGKILL)
        assert 1 == process.wait(20)

    assert "fieldtally: the projector has ended (exit -9): run `fieldtally doctor`" in said.read_text().splitlines()


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


def test_a_server_that_is_not_there_is_exit_code_3(process: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = process("gateway", url=f"unix://{tmp_path}/none", HTTP_PORT=str(free_port()))
    assert 3 == outcome.code
    assert outcome.err.splitlines()[-1] == (
        f"fieldtally: cannot reach unix://{tmp_path}/none: is it running, and is FIELDTALLY_REDIS_URL right?"
    )
