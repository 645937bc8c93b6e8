"""`up`: all of it runs together, ends together however it is told to, and outlives a server that is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
import redis

from services.cli import up as commands
from services.runtime.embedded import embedded_server
from tests import drills
from tests.gateways import Sender, enrolled, reported
from tests.servers import plain_client
from tests.services.cli.conftest import Cli, environ, started
from tests.services.cli.test_gateway import free_port, serving
from tests.services.runtime.test_embedded import is_free, process_in, wait_until_all_gone
from tests.waiting import wait_for

Running = subprocess.Popen[bytes]


def children_of(parent: int) -> list[int]:
    """Return the processes that a process has started; none once it has ended."""
    try:
        return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def runs(process: int, command: str) -> bool:
    """Tell whether a process is one of our commands."""
    return command.encode() in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")


def is_gone(process: int) -> bool:
    """Tell whether a process has ended, waited for or not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@contextmanager
def up(url: str, prefix: str, said: Path, **settings: str) -> Iterator[tuple[Running, str, int]]:
    """Run `up`; yield the process, its address, and its projector's process once that follows both sides."""
    with serving("up", url, prefix, said, **settings) as (process, address):
        wait_for(lambda: said.read_text().count("projector_started") == 2, within_s=20, what="the projector")
        [projector] = [child for child in children_of(process.pid) if runs(child, "project")]
        yield process, address, projector


def test_it_counts_what_it_takes_on_a_server_of_its_own(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with (
        embedded_server(data) as url,
        plain_client(url) as client,
        up("", "ft", tmp_path / "said", DATA_DIR=str(data)) as (process, address, _),
    ):
        with Sender(address, enrolled(client, "ft")) as sender:
            assert 201 == sender.one(reported(1)).status_code
        wait_for(lambda: client.hget("{ft:SI}:g1:checkpoint", "entries") == b"1", what="the report to be counted")
        process.send_signal(signal.SIGINT)
        assert 130 == process.wait(20)


# Told to end


def all_at_once(process: Running, _projector: int, number: signal.Signals) -> None:
    os.killpg(process.pid, number)


def projector_first(process: Running, projector: int, number: signal.Signals) -> None:
    os.kill(projector, number)
    wait_for(lambda: is_gone(projector), what="the projector's end")
    process.send_signal(number)


def projector_last(process: Running, projector: int, number: signal.Signals) -> None:
    process.send_signal(number)
    os.kill(projector, number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)])
@pytest.mark.parametrize("order", [all_at_once, projector_first, projector_last])
def test_told_to_end_is_no_fault_in_whatever_order_its_parts_end(
    server_url: str,
    prefix: str,
    tmp_path: Path,
    order: Callable[[Running, int, signal.Signals], None],
    number: signal.Signals,
    code: int,
) -> None:
    """A terminal that closes and a process manager tell all of them, and the gateway has a request to finish."""
    said = tmp_path / "said"
    with up(server_url, prefix, said) as (process, address, projector):
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as phone:
            phone.sendall(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 300\r\n\r\n{")
            order(process, projector, number)
            wait_for(lambda: is_gone(projector), what="the projector's end")
        assert code == process.wait(20)

    assert "the projector" not in said.read_text()
    assert "Traceback" not in said.read_text()


@pytest.mark.parametrize("moment", ["its server starts", "its projector starts", "its gateway starts", "it serves"])
def test_told_to_end_while_it_starts_is_no_fault(tmp_path: Path, moment: str) -> None:
    data, said = tmp_path / "data", tmp_path / "said"
    env = environ("", "ft", DATA_DIR=str(data), HTTP_PORT=str(free_port()))
    with said.open("wb") as stderr, started(["up"], env, stderr=stderr, start_new_session=True) as process:
        reached = {
            "its server starts": (data / "users.lock").exists,
            "its projector starts": lambda: children_of(process.pid) and (data / "valkey.sock").exists(),
            "its gateway starts": lambda: "gateway_started" in said.read_text(),
            "it serves": lambda: "gateway on" in said.read_text(),
        }[moment]
        wait_for(reached, within_s=20, what=moment)
        os.killpg(process.pid, signal.SIGTERM)
        assert 0 == process.wait(20), said.read_text()
    wait_until_all_gone(data)


# A part that fails


def test_a_port_of_the_screen_that_another_has_is_said_before_anything_starts(cli: Cli, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ports = {"HTTP_PORT": str(free_port()), "SCREEN_PORT": str(port)}
        outcome = cli("up", DATA_DIR=str(tmp_path / "data"), **ports)
    assert (2, "") == (outcome.code, outcome.out)
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use; set " in outcome.err
    assert "FIELDTALLY_SCREEN_PORT" in outcome.err
    assert not (tmp_path / "data").exists()


def test_it_does_not_go_on_without_a_projector(server_url: str, prefix: str, tmp_path: Path) -> None:
    said = tmp_path / "said"
    with up(server_url, prefix, said) as (process, _, projector):
        os.kill(projector, signal.SIGKILL)
        assert 1 == process.wait(20)

    last = said.read_text().splitlines()[-1]
    assert last == (
        "fieldtally: the projector was ended by SIGKILL: run `fieldtally doctor`, then `fieldtally up` again"
    )


def test_a_projector_that_fails_gives_its_reason_and_its_exit_code(
    client: redis.Redis, server_url: str, prefix: str, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    with up(server_url, prefix, said) as (process, address, _):
        with Sender(address, enrolled(client, prefix)) as sender:
            assert 201 == sender.one(reported(1)).status_code
        wait_for(lambda: client.hget(f"{{{prefix}:SI}}:g1:checkpoint", "entries"), what="the report to be counted")
        client.delete(f"{{{prefix}:SI}}:log")
        assert 4 == process.wait(20)

    reasons = [line for line in said.read_text().splitlines() if line.startswith("fieldtally: ")]
    assert 1 == len(reasons)
    assert "log" in reasons[0]
    assert "the projector has ended (exit 4)" in said.read_text()  # beside it the screen may say the same of the log


def test_a_projector_that_fails_before_the_gateway_serves_is_no_ordinary_end(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway is told to end then, and knows of nothing worse."""

    @contextmanager
    def failed(_command: str, _url: str, **_: str) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(["sh", "-c", "exit 4"], text=True) as process:
            process.wait()
            yield process

    def told_to_end(*_: object) -> bool:
        raise SystemExit(0)

    monkeypatch.setattr(commands, "program_beside", failed)
    monkeypatch.setattr(commands, "serve_and_say", told_to_end)
    outcome = cli("up", HTTP_PORT=str(free_port()))
    assert 4 == outcome.code
    assert "the projector has ended (exit 4)" in outcome.err


# The embedded server


def test_a_server_that_is_killed_is_started_again_and_each_report_counts_once(tmp_path: Path) -> None:
    """Killed itself, or its keeper, or both: what was acknowledged is there, and phones are told to try again."""
    data, said = tmp_path / "data", tmp_path / "said"
    with up("", "ft", said, DATA_DIR=str(data)) as (process, address, _):
        with plain_client(f"unix://{data}/valkey.sock") as client:
            token = enrolled(client, "ft")
        phone = drills.Device(Random(7), token, "/SI/SI-MP-07/9f3c2a")
        reports: list[bytes] = []
        for killed in (["server"], ["keeper"], ["server", "keeper"]):
            more = drills.reports_of(Random(7), len(reports) + 1, 20, "9f3c2a")
            reports += more
            phone.report(more)
            phone.deliver(address, batch=5)
            for name in killed:
                os.kill(process_in(data / f"{name}.lock"), signal.SIGKILL)
            wait_for(lambda: is_free(data / "server.lock"), what="the server's end")
            phone.repeat(3)
            phone.deliver(address)
        assert phone.unavailable
        with plain_client(f"unix://{data}/valkey.sock") as client:
            drills.assert_held(client, "ft", "SI", phone.receipts)
            wait_for(
                lambda: client.hget("{ft:SI}:g1:checkpoint", "entries") == b"%d" % client.xlen("{ft:SI}:log"),
                what="all reports to be counted",
            )
            drills.assert_all_counted_once(client, "ft", "SI", reports)
        assert process.poll() is None
        wait_for(lambda: said.read_text().count("server_restarted") == 3, what="the last line about it")
        process.terminate()
        assert 0 == process.wait(20)
    wait_until_all_gone(data)


def test_the_projector_alone_starts_its_server_again(tmp_path: Path) -> None:
    data, said = tmp_path / "data", tmp_path / "said"
    env = environ("", "ft", DATA_DIR=str(data), LOG_FORMAT="json")
    with said.open("wb") as stderr, started(["project"], env, stderr=stderr) as process:
        wait_for(lambda: said.read_text().count("projector_started") == 2, within_s=20, what="the projector")
        for number in range(1, 4):
            os.kill(process_in(data / "server.lock"), signal.SIGKILL)
            wait_for(lambda: said.read_text().count("server_restarted") == number, what="the server")  # noqa: B023
            with plain_client(f"unix://{data}/valkey.sock") as client:
                client.xadd("{ft:SI}:log", {"event": reported(number)})
                wait_for(
                    lambda: client.hget("{ft:SI}:g1:checkpoint", "entries") == b"%d" % number,  # noqa: B023
                    what="the report to be counted",
                )
        process.terminate()
        assert 0 == process.wait(20)
    wait_until_all_gone(data)


def test_killed_itself_it_leaves_nothing_running_and_nothing_lost(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with up("", "ft", tmp_path / "said", DATA_DIR=str(data)) as (process, address, projector):
        with plain_client(f"unix://{data}/valkey.sock") as client:
            token = enrolled(client, "ft")
        with Sender(address, token) as sender:
            positions = [sender.one(reported(number)).json()["position"] for number in range(1, 21)]
        family = [projector, *children_of(projector)]
        assert 3 == len(family)
        process.kill()
        wait_for(lambda: all(is_gone(one) for one in family), what="the projector's end")
        wait_until_all_gone(data)
    with embedded_server(data) as url, plain_client(url) as client:
        assert positions == [position.decode() for position, _ in client.xrange("{ft:SI}:log")]
