"""The proxy does what it says: every proof of the projector's safety leans on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.runtime.embedded import embedded_server
from tests.faults import Action, Command, FaultProxy
from tests.waiting import wait_for


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[str]:
    with embedded_server(tmp_path / "data") as url:
        yield url


@pytest.fixture
def behind(upstream: str) -> Iterator[redis.Redis]:
    """Give a client of the server itself, to see what took effect."""
    with redis.Redis.from_url(upstream) as client:
        yield client


@pytest.fixture
def proxy(upstream: str) -> Iterator[FaultProxy]:
    with FaultProxy(upstream) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[redis.Redis]:
    with _client(proxy) as client:
        yield client


def _client(proxy: FaultProxy, *, socket_timeout: float | None = None) -> redis.Redis:
    # No retries: a test that asks for a fault wants to see it.
    return redis.Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 0), socket_timeout=socket_timeout)


def _at(name: str, action: Action) -> Callable[[Command], Action]:
    return lambda command: action if command.name == name else Action.PASS


def test_without_a_rule_everything_passes(proxy: FaultProxy, client: redis.Redis, behind: redis.Redis) -> None:
    """Any bytes go through in both directions, and the names are noted in order."""
    value = bytes(range(256)) * 1000
    with client.pipeline() as pipeline:
        pipeline.set("key", value)
        pipeline.get("key")
        pipeline.hgetall("none")
        pipeline.xadd("log", {"body": value}, id="1-1")
        answers = pipeline.execute()
    assert answers == [True, value, {}, b"1-1"]
    assert behind.get("key") == value
    assert proxy.commands[-6:] == ["MULTI", "SET", "GET", "HGETALL", "XADD", "EXEC"]


def test_an_error_reply_passes_as_such(client: redis.Redis) -> None:
    """What the server refuses is refused through the proxy as well."""
    client.set("key", "word")
    with pytest.raises(redis.ResponseError, match="not an integer"):
        client.incr("key")


def test_tcp_serves_as_upstream(upstream: str) -> None:
    """A proxy stands before another address as well as before a socket."""
    with redis.Redis.from_url(upstream) as server:
        server.config_set("bind", "127.0.0.1")
        for port in range(20000 + os.getpid() % 20000, 65535):
            try:
                server.config_set("port", port)
            except redis.ResponseError:
                continue  # taken by somebody else
            break
    with FaultProxy(f"redis://127.0.0.1:{port}") as proxy, _client(proxy) as client:
        assert client.ping()


def test_the_rule_sees_connection_number_name_and_arguments(proxy: FaultProxy) -> None:
    """Connections count from 1, and commands count over all of them."""
    seen: list[Command] = []

    def note(command: Command) -> Action:
        seen.append(command)
        return Action.PASS

    proxy.on_command = note
    with _client(proxy) as first, _client(proxy) as second:
        first.set("a", "1")
        second.set("b", "2")
    sets = [command for command in seen if command.name == "SET"]
    assert [(command.connection, command.args) for command in sets] == [(1, (b"a", b"1")), (2, (b"b", b"2"))]
    assert [command.number for command in seen] == list(range(1, len(seen) + 1))


def test_cut_before_leaves_no_effect(proxy: FaultProxy, client: redis.Redis, behind: redis.Redis) -> None:
    """The client loses its connection and the server never hears the command."""
    proxy.on_command = _at("SET", Action.CUT_BEFORE)
    with pytest.raises(redis.ConnectionError):
        client.set("key", "value")
    assert behind.get("key") is None


def test_cut_after_leaves_the_effect_without_the_answer(
    proxy: FaultProxy, client: redis.Redis, behind: redis.Redis
) -> None:
    """When the client sees the loss, the command has already taken effect: no waiting is needed."""
    proxy.on_command = _at("SET", Action.CUT_AFTER)
    for number in range(50):
        with pytest.raises(redis.ConnectionError):
            client.set("key", number)
        assert behind.get("key") == b"%d" % number


def test_a_pipeline_is_cut_between_its_commands(proxy: FaultProxy, client: redis.Redis, behind: redis.Redis) -> None:
    """Commands of one send are judged one by one: those before the cut took effect, those after did not."""
    proxy.on_command = lambda command: Action.CUT_BEFORE if command.args[:1] == (b"third",) else Action.PASS
    with client.pipeline(transaction=False) as pipeline:
        pipeline.set("first", 1)
        pipeline.set("second", 2)
        pipeline.set("third", 3)
        pipeline.set("fourth", 4)
        with pytest.raises(redis.ConnectionError):
            pipeline.execute()
    assert behind.mget("first", "second", "third", "fourth") == [b"1", b"2", None, None]


def test_a_transaction_cut_at_exec_has_no_effect(proxy: FaultProxy, client: redis.Redis, behind: redis.Redis) -> None:
    """What was queued dies with the connection."""
    proxy.on_command = _at("EXEC", Action.CUT_BEFORE)
    with client.pipeline() as pipeline:
        pipeline.set("first", 1)
        pipeline.set("second", 2)
        with pytest.raises(redis.ConnectionError):
            pipeline.execute()
    assert behind.exists("first", "second") == 0


def test_a_swallowed_reply_lets_the_client_time_out(proxy: FaultProxy, behind: redis.Redis) -> None:
    """The command took effect, the connection stays open, and nothing more comes through it."""
    with _client(proxy, socket_timeout=0.2) as client:
        client.ping()
        proxy.on_command = _at("SET", Action.SWALLOW_REPLY)
        with client.pipeline(transaction=False) as pipeline:
            pipeline.set("key", "value")
            pipeline.get("key")
            with pytest.raises(redis.TimeoutError):
                pipeline.execute()
        assert behind.get("key") == b"value"
        assert client.get("key") == b"value"  # on a new connection


def test_a_limited_reply_breaks_off(proxy: FaultProxy, client: redis.Redis) -> None:
    """The client gets the first bytes and then the end; the following reply is whole again."""
    client.set("key", "x" * 100_000)
    proxy.limit_reply_bytes(50_000)
    with pytest.raises(redis.ConnectionError):
        client.get("key")
    assert client.get("key") == b"x" * 100_000


def test_severed_connections_are_gone_and_new_ones_come(proxy: FaultProxy, behind: redis.Redis) -> None:
    """A read that waits ends at once, on both sides, and the proxy goes on serving."""
    with _client(proxy) as client:
        client.ping()
        before = len(behind.client_list())

        def sever(command: Command) -> Action:
            if command.name == "SET":
                proxy.sever()
            return Action.PASS

        proxy.on_command = sever
        with pytest.raises(redis.ConnectionError):
            client.set("key", "value")
        assert behind.get("key") is None
        wait_for(lambda: len(behind.client_list()) == before - 1, what="the server to lose the severed connection")
        assert client.ping()


def test_a_refusing_proxy_is_a_server_that_is_down(proxy: FaultProxy, client: redis.Redis) -> None:
    """Present connections go on, new ones fail, until it accepts again."""
    client.ping()
    proxy.refuse()
    with _client(proxy) as late:
        with pytest.raises(redis.ConnectionError):
            late.ping()
        assert client.ping()
        proxy.accept()
        assert late.ping()


def test_a_server_that_is_down_behind_the_proxy_is_a_lost_connection(tmp_path: Path) -> None:
    """The proxy outlives what it stands before."""
    with FaultProxy(tmp_path / "nobody.sock") as proxy, _client(proxy) as client, pytest.raises(redis.ConnectionError):
        client.ping()


def test_a_waiting_read_ends_with_its_client(proxy: FaultProxy, behind: redis.Redis) -> None:
    """The server does not keep a reader for a client that has left."""
    before = len(behind.client_list())
    reader = subprocess.Popen(
        [sys.executable, "-c", f"import redis; redis.Redis.from_url({proxy.url!r}).xread({{'log': '$'}}, block=0)"]
    )
    wait_for(lambda: "XREAD" in proxy.commands, what="the read")
    reader.send_signal(signal.SIGKILL)
    reader.wait()
    wait_for(lambda: len(behind.client_list()) == before, what="the server to lose the reader")


def test_a_client_killed_at_a_command_leaves_exactly_what_the_rule_says(proxy: FaultProxy, behind: redis.Redis) -> None:
    """A process that dies at its fifth write has written four, or five when the fifth was on its way."""
    for action, written in ((Action.CUT_BEFORE, 4), (Action.CUT_AFTER, 5), (Action.PASS, 5)):
        behind.delete("list")
        code = "import redis, sys\nr = redis.Redis.from_url(sys.stdin.read())\nwhile True: r.rpush('list', 1)"
        writer = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
        proxy.on_command = _kill_at_fifth_write(writer, action)
        writer.communicate(proxy.url.encode(), timeout=10)
        assert writer.returncode == -signal.SIGKILL
        wait_for(lambda: len(behind.client_list()) == 1, what="the server to lose the writer")
        assert behind.llen("list") == written


def _kill_at_fifth_write(writer: subprocess.Popen[bytes], action: Action) -> Callable[[Command], Action]:
    written = 0

    def rule(command: Command) -> Action:
        nonlocal written
        written += command.name == "RPUSH"
        if written < 5:
            return Action.PASS
        writer.kill()
        return action

    return rule
