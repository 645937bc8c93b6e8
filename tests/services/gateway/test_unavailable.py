"""When nothing can be recorded: 503 with the time to wait, readiness that says why, and no loss when it is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from schemas.http import BATCH_TYPE
from services.gateway import app
from services.gateway.app import serve
from services.gateway.tokens import BURST_S
from services.runtime.errors import UnreachableError
from services.runtime.serving import listen
from services.runtime.settings import Settings
from services.store.connection import TIMEOUT_S, connect
from tests import gateways
from tests.faults import Action, Command, FaultProxy
from tests.gateways import Sender, enrolled, recently, running_gateway
from tests.projectors import Lines, assert_counted, log_of, project, stored
from tests.servers import OwnServer
from tests.waiting import wait_for

A_MINUTE_AGO = recently(minutes=1)
LIMIT_S = 0.4
Settle = Callable[..., Settings]


def reported(number: int, **head: Any) -> bytes:
    """Return a report that says the same whenever it is built."""
    return gateways.reported(number, **{"time": A_MINUTE_AGO, **head})


def assert_put_off(answer: httpx.Response, code: str, status: int = 503) -> int:
    """The request may be sent again later; return after how many seconds."""
    assert (status, "application/problem+json") == (answer.status_code, answer.headers["content-type"])
    found = answer.json()
    assert (code, status, True) == (found["code"], found["status"], found["retryable"])
    wait_s = answer.headers["retry-after"]
    assert wait_s.isdigit() and int(wait_s) >= 1
    return int(wait_s)


def readiness(sender: Sender) -> tuple[int, dict[str, Any]]:
    """Return the status of /health/ready, and of the side SI which checks pass; liveness holds always."""
    assert (200, {"status": "live"}) == ((live := sender.ask("GET", "/health/live")).status_code, live.json())
    answer = sender.ask("GET", "/health/ready")
    found = answer.json()
    assert ("ready" if answer.status_code == 200 else "not-ready") == found["status"]
    assert (answer.status_code == 200) == all(check["ok"] for check in found["checks"])
    return answer.status_code, {check["check"]: check["ok"] for check in found["checks"] if check["side"] == "SI"}


def writes(sender: Sender) -> tuple[int, bool, str]:
    """Return the status of /health/ready, and what it says of writes."""
    answer = sender.ask("GET", "/health/ready")
    (check,) = [check for check in answer.json()["checks"] if check["check"] == "writes"]
    assert "" == check["side"]
    return answer.status_code, check["ok"], check["detail"]


READY = (200, {"redis": True, "lag": True})
AWAY = (503, {"redis": False, "lag": False})


# The server


def test_a_server_that_dies_is_503_until_it_is_back_and_what_was_recorded_is_known(
    fresh_server: OwnServer, settings_for: Settle, prefix: str
) -> None:
    with fresh_server.client() as client:
        token = enrolled(client, prefix)
    lines = Lines()
    with running_gateway(settings_for(fresh_server.url), lines) as address, Sender(address, token) as unit:
        assert 201 == unit.one(reported(1)).status_code
        assert READY == readiness(unit)
        fresh_server.kill()
        assert 2 == assert_put_off(unit.one(reported(2)), "unavailable")
        assert_put_off(unit.batch(reported(1), reported(2)), "unavailable")
        wait_for(lambda: readiness(unit) == AWAY, what="the gateway to notice")
        assert_put_off(unit.one(reported(2)), "unavailable")
        for path in ("/v1/devices/me", "/v1/operations"):
            assert_put_off(unit.ask("GET", path), "unavailable")
        assert [200] * 3 == [unit.ask("GET", path).status_code for path in ("/metrics", "/docs", "/openapi.json")]
        fresh_server.start()
        wait_for(lambda: readiness(unit) == READY, what="the gateway to notice that it is back")
        assert ["duplicate", "recorded"] == [
            result["status"] for result in unit.batch(reported(1), reported(2)).json()["results"]
        ]
    with fresh_server.client() as client:
        assert [reported(1), reported(2)] == [fields[b"event"] for _, fields in log_of(client, prefix, "SI")]
    assert ["server_away", "server_back"] == [
        line["event"] for line in lines if line["event"] in ("server_away", "server_back")
    ]


def test_a_gateway_does_not_start_without_its_server(tmp_path: Path, settings_for: Settle) -> None:
    settings = settings_for(f"unix://{tmp_path}/nobody")
    with pytest.raises(UnreachableError, match="cannot reach"), running_gateway(settings):
        pass
    with listen("127.0.0.1", 0, "HTTP_PORT") as listener, pytest.raises(UnreachableError, match="cannot reach"):
        serve(settings, settings.redis_url or "", Lines().logger(), listener)


@pytest.mark.parametrize(
    ("hinder", "relieve"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    ],
    ids=["out of memory", "read-only"],
)
def test_a_server_that_takes_no_writes_is_503_for_longer_and_nothing_is_lost(
    fresh_server: OwnServer, settings_for: Settle, prefix: str, hinder: tuple[str, ...], relieve: tuple[str, ...]
) -> None:
    with (
        fresh_server.client() as client,
        running_gateway(settings_for(fresh_server.url)) as address,
        Sender(address, enrolled(client, prefix)) as unit,
    ):
        assert 201 == unit.one(reported(1)).status_code
        assert (200, True, "are taken") == writes(unit)
        client.execute_command(*hinder)
        _, taken, said = wait_for(lambda: (found := writes(unit))[0] == 503 and found, what="it to be noticed")
        assert not taken and "unix:" in said
        assert 30 == assert_put_off(unit.one(reported(2)), "unavailable")
        assert_put_off(unit.batch(reported(2), reported(3)), "unavailable")
        # What is there already is a duplicate all the same: nothing needs to be written for it.
        assert 200 == unit.one(reported(1)).status_code
        client.execute_command(*relieve)
        wait_for(lambda: writes(unit) == (200, True, "are taken"), what="it to be noticed that it is over")
        assert 201 == wait_for(lambda: (one := unit.one(reported(2))).is_success and one, what="writes").status_code
        assert [reported(1), reported(2)] == [fields[b"event"] for _, fields in log_of(client, prefix, "SI")]


def test_a_server_whose_snapshots_fail_is_not_ready_until_one_succeeds_if_it_takes_no_writes_for_that(
    fresh_server: OwnServer, settings_for: Settle, prefix: str
) -> None:
    with (
        fresh_server.client() as client,
        running_gateway(settings_for(fresh_server.url)) as address,
        Sender(address, enrolled(client, prefix)) as unit,
    ):
        config: Any = client.config_get("dir", "dbfilename")
        in_the_way = Path(config["dir"], config["dbfilename"])
        in_the_way.mkdir()
        client.config_set("save", "3600 1")
        client.bgsave()
        wait_for(lambda: writes(unit)[0] == 503, what="the failure to be noticed")
        assert "its disk" in writes(unit)[2]
        assert 30 == assert_put_off(unit.one(reported(1)), "unavailable")
        client.config_set("stop-writes-on-bgsave-error", "no")
        wait_for(lambda: writes(unit)[0] == 200, what="writes to be taken all the same")
        assert 201 == unit.one(reported(1)).status_code
        client.config_set("stop-writes-on-bgsave-error", "yes")
        wait_for(lambda: writes(unit)[0] == 503, what="writes to be refused again")
        in_the_way.rmdir()
        client.bgsave()
        wait_for(lambda: writes(unit)[0] == 200, what="the success to be noticed")
        assert 201 == unit.one(reported(2)).status_code


# A server that is there, and does not answer


@pytest.fixture
def proxy(server_url: str) -> Iterator[FaultProxy]:
    with FaultProxy(server_url) as proxy:
        yield proxy


@pytest.mark.parametrize("hung", ["XADD", "HMGET", "everything"])
def test_a_server_that_hangs_is_503_within_the_limit(
    client: redis.Redis,
    proxy: FaultProxy,
    settings_for: Settle,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    hung: str,
) -> None:
    assert TIMEOUT_S <= 5
    monkeypatch.setattr(app, "connect", partial(connect, timeout_s=LIMIT_S))

    def swallow(command: Command) -> Action:
        return Action.SWALLOW_REPLY if hung in ("everything", command.name) else Action.PASS

    with (
        running_gateway(settings_for(server_url := proxy.url), url=server_url) as address,
        Sender(address, enrolled(client, prefix)) as unit,
    ):
        assert 201 == unit.one(reported(1)).status_code
        proxy.on_command = swallow
        begun = time.monotonic()
        assert_put_off(unit.one(reported(2)), "unavailable")
        assert time.monotonic() - begun < LIMIT_S * 4
        if hung == "everything":
            wait_for(lambda: readiness(unit) == AWAY, what="the gateway to notice")
            begun = time.monotonic()
            assert_put_off(unit.one(reported(2)), "unavailable")
            assert time.monotonic() - begun < LIMIT_S * 4
        proxy.on_command = None
        wait_for(lambda: readiness(unit) == READY, what="the gateway to notice that it answers")
        assert unit.one(reported(2)).is_success
        assert 200 == unit.one(reported(1)).status_code
    project(settings_for(proxy.url))
    assert_counted(client, prefix, "SI")
    # A reply that was lost may leave a second copy in the log. It counts once.
    assert {"apprehensions": 2} == {
        "apprehensions": sum(n for cell, n in stored(client, prefix, "SI").tallies.items() if "|apprehensions|" in cell)
    }


@pytest.mark.parametrize("action", [Action.CUT_BEFORE, Action.CUT_AFTER])
def test_a_connection_that_breaks_while_reports_are_recorded_is_503_and_they_count_once(
    client: redis.Redis, proxy: FaultProxy, settings_for: Settle, prefix: str, action: Action
) -> None:
    appends = count(1)

    def cut(command: Command) -> Action:
        return action if command.name == "XADD" and next(appends) == 3 else Action.PASS

    settings = settings_for(proxy.url)
    with running_gateway(settings) as address, Sender(address, enrolled(client, prefix)) as unit:
        events = [reported(number) for number in range(1, 6)]
        proxy.on_command = cut
        assert_put_off(unit.batch(*events), "unavailable")
        answer = wait_for(lambda: (a := unit.batch(*events)).status_code == 202 and a, what="the gateway to go on")
        # What got there without being confirmed is found in the log when it comes again.
        there = 2 if action is Action.CUT_BEFORE else 3
        expected = ["duplicate"] * there + ["recorded"] * (5 - there)
        assert expected == [result["status"] for result in answer.json()["results"]]
        assert {"duplicate"} == {result["status"] for result in unit.batch(*events).json()["results"]}
    project(settings)
    assert_counted(client, prefix, "SI")
    assert events == [fields[b"event"] for _, fields in log_of(client, prefix, "SI")]
    assert 5 == stored(client, prefix, "SI").outcomes["applied"]


# The projector


def test_a_projector_too_far_behind_is_503_until_it_has_caught_up(
    client: redis.Redis, settings_for: Settle, server_url: str, prefix: str
) -> None:
    settings = settings_for(server_url, LAG_LIMIT="3")
    with (
        running_gateway(settings) as address,
        Sender(address, enrolled(client, prefix)) as unit,
        Sender(address, enrolled(client, prefix, side="HR")) as neighbour,
    ):
        assert 202 == unit.batch(*[reported(number) for number in range(1, 4)]).status_code
        assert READY == readiness(unit)
        assert 201 == unit.one(reported(4)).status_code
        wait_for(lambda: readiness(unit) == (503, {"redis": True, "lag": False}), what="the gateway to notice")
        assert 5 == assert_put_off(unit.one(reported(5)), "lagging")
        assert_put_off(unit.one(reported(1)), "lagging")
        for path in ("/v1/devices/me", "/v1/operations"):
            assert_put_off(unit.ask("GET", path), "lagging")
        # Sides share nothing.
        assert 201 == neighbour.one(reported(1, side="HR")).status_code
        project(settings)
        wait_for(lambda: readiness(unit) == READY, what="the gateway to notice that all is counted")
        assert 201 == unit.one(reported(5)).status_code
    assert 5 == len(log_of(client, prefix, "SI"))


# Too fast


def test_a_token_that_sends_too_fast_is_429_and_no_other_token_is(
    client: redis.Redis, settings_for: Settle, server_url: str, prefix: str
) -> None:
    settings = settings_for(server_url, RATE_LIMIT="2")
    with (
        running_gateway(settings) as address,
        Sender(address, enrolled(client, prefix)) as unit,
        Sender(address, enrolled(client, prefix, device="0a11f0")) as other,
    ):
        assert 202 == unit.batch(*[reported(number) for number in range(1, 21)]).status_code
        assert 1 == assert_put_off(unit.one(reported(21)), "rate-limited", 429)
        assert_put_off(unit.batch(reported(21)), "rate-limited", 429)
        assert 201 == other.one(reported(22, device="0a11f0")).status_code
        # What only asks is not limited.
        assert 204 == unit.ask("HEAD", "/v1/events").status_code
        assert 201 == wait_for(lambda: (one := unit.one(reported(21))).is_success and one, what="a turn").status_code
        assert 22 == len(log_of(client, prefix, "SI"))


def test_a_request_that_cannot_be_read_and_one_that_brings_nothing_cost_one_report(
    settings_for: Callable[..., Settings], server_url: str, client: redis.Redis, prefix: str
) -> None:
    """Else a token could send rubbish without end."""
    settings = settings_for(server_url, RATE_LIMIT="1")
    for body in (b"[", b"[]"):
        token = enrolled(client, prefix)
        with running_gateway(settings) as address, Sender(address, token) as sender:
            headers = {"content-type": BATCH_TYPE}
            answers = [
                sender.ask("POST", "/v1/events", content=body, headers=headers).status_code for _ in range(BURST_S + 1)
            ]
        assert answers[-1] == 429
        assert 429 not in answers[:-1]
