"""`parked requeue` puts entries back through admission once, with a trace; what cannot be counted yet stays parked."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from random import Random
from typing import Any

import pytest
import redis

from services.cli import requeue as module
from services.store import requeued as store_module
from tests import given
from tests.faults import Action, Command, FaultProxy
from tests.given import TYPE_PREFIX
from tests.projectors import Cradle, Forked, assert_counted, environment, feed, log_of
from tests.services.cli.conftest import Cli, assert_refused, count
from tests.services.cli.test_doctor import findings
from tests.waiting import wait_for

WHY = "0.2 knows it"
BOTH = "SI:Europe/Ljubljana:SVN,HR:Europe/Zagreb:HRV"
STRANGER = given.apprehension(side="HR", id=3, persons={"AFG": 2})
LATER = given.apprehension(id=4, persons={"TUR": 3})


def put(client: redis.Redis, prefix: str, *entries: bytes | dict[bytes, bytes], side: str = "SI") -> list[str]:
    return feed(client, prefix, side, [given.entry(one) if isinstance(one, bytes) else one for one in entries])


def as_unknown(event: bytes) -> bytes:
    """Return an event as a program wrote it that is newer than the one that reads it."""
    return given.as_json(json.loads(event) | {"type": f"{TYPE_PREFIX}apprehension.v9"})


@pytest.fixture
def upgraded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let admission understand the newer type, as it does after an upgrade."""
    admit = module.admit

    def newer(raw: bytes, sides: Any) -> Any:
        return admit(raw.replace(b"apprehension.v9", b"apprehension.v1"), sides)

    monkeypatch.setattr(module, "admit", newer)


def requeue(cli: Cli, *args: str, side: str = "SI", **settings: str) -> Any:
    return cli("parked", "requeue", *args, "--side", side, "--because", WHY, "--format", "json", **settings)


def statuses(outcome: Any) -> list[str]:
    return [row["status"] for row in outcome.json]


# What is put back


def test_an_entry_of_the_wrong_side_goes_to_the_log_of_its_own(
    cli: Cli, client: redis.Redis, prefix: str, server_url: str
) -> None:
    [position] = put(client, prefix, STRANGER)
    count(server_url, prefix)
    outcome = requeue(cli, position)
    [row] = outcome.json
    [(now, fields)] = log_of(client, prefix, "HR")
    assert 0 == outcome.code
    assert {
        "side": "SI", "position": position, "reason": "wrong-side", "status": "requeued", "now_side": "HR",
        "now_position": now, "problem": "",
    } == row  # fmt: skip
    assert STRANGER == fields[b"event"]
    assert re.fullmatch(rf"requeue/SI:{position}/[A-Za-z0-9._-]+", fields[b"by"].decode())
    assert 1 == len(log_of(client, prefix, "SI"))
    count(server_url, prefix)
    assert_counted(client, prefix, "SI", "HR")
    assert {"SI|": 0, "HR|": 2} == {
        side: sum(row["count"] for row in cli("tallies", "--format", "json", "--where", f"side={side[:2]}").json
                  if row["measure"] == "persons")
        for side in ("SI|", "HR|")
    }  # fmt: skip


@pytest.mark.usefixtures("upgraded")
def test_what_an_upgrade_understands_is_put_back_and_counts(
    cli: Cli, client: redis.Redis, prefix: str, server_url: str
) -> None:
    put(client, prefix, as_unknown(LATER), STRANGER, b"{", LATER.replace(b'"TUR"', b'"XYZ"'))
    count(server_url, prefix)
    outcome = requeue(cli, "--reason", "unknown-type")
    assert (0, ["requeued"]) == (outcome.code, statuses(outcome))
    assert "1 entry: 0 parked, 1 requeued" in outcome.err
    assert LATER == log_of(client, prefix, "SI")[-1][1][b"event"]
    count(server_url, prefix)
    assert_counted(client, prefix, "SI", "HR")
    assert b"3" == client.hget(f"{{{prefix}:SI}}:g1:tallies", "SI||koper|2024-03-14|persons|TUR")


def test_requeueing_twice_appends_once(cli: Cli, client: redis.Redis, prefix: str, server_url: str) -> None:
    [position] = put(client, prefix, STRANGER)
    count(server_url, prefix)
    first = requeue(cli, position).json[0]
    for args in ([position], [position, position], ["--reason", "wrong-side"], [position, "--dry-run"]):
        outcome = requeue(cli, *args)
        [row] = outcome.json
        assert (0, "already-requeued", "HR", first["now_position"]) == (
            outcome.code, row["status"], row["now_side"], row["now_position"],
        )  # fmt: skip
    assert 1 == len(log_of(client, prefix, "HR"))


def test_a_dry_run_says_the_same_and_appends_nothing(
    cli: Cli, client: redis.Redis, prefix: str, server_url: str
) -> None:
    put(client, prefix, STRANGER, b"{")
    count(server_url, prefix)
    before = {key: client.dump(key) for key in client.keys(f"{{{prefix}:*")}
    outcome = requeue(cli, "--reason", "wrong-side", "--dry-run")
    assert (0, ["would-be-requeued"]) == (outcome.code, statuses(outcome))
    assert 1 == requeue(cli, "--reason", "malformed", "--dry-run").code
    assert before == {key: client.dump(key) for key in client.keys(f"{{{prefix}:*")}


# What stays parked


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({b"event": b"\xff\xfe"}, "JSON"),
        ({b"event": b"{"}, "at $: "),
        ({b"payload": LATER}, "the entry has no field `event`"),
        ({b"event": LATER, b"priority": b"1"}, "a field other than `event` and `by`"),
        ({b"event": as_unknown(LATER)}, "knows `apprehension` up to v1"),
        ({b"event": LATER.replace(b'"TUR"', b'"XYZ"')}, "citizenship"),
        ({b"event": given.apprehension(side="AT", id=5)}, "side AT has no log here"),
    ],
)
def test_what_is_still_not_admissible_stays_parked_and_is_told_why(
    cli: Cli, client: redis.Redis, prefix: str, server_url: str, fields: dict[bytes, bytes], problem: str
) -> None:
    [position] = put(client, prefix, fields)
    count(server_url, prefix)
    outcome = requeue(cli, position)
    [row] = outcome.json
    assert (1, "parked", "") == (outcome.code, row["status"], row["now_position"])
    assert problem in row["problem"]
    assert 1 == len(log_of(client, prefix, "SI"))
    assert not client.exists(f"{{{prefix}:SI}}:requeued")
    shown = cli("parked", "requeue", position, "--side", "SI", "--because", WHY)
    assert 1 == shown.code
    assert shown.out.replace("\n", "").isprintable()


def test_a_conflict_stays_parked_since_the_first_in_the_log_stands(
    cli: Cli, client: redis.Redis, prefix: str, server_url: str
) -> None:
    first, position = put(client, prefix, LATER, given.apprehension(id=4, persons={"TUR": 5}))
    count(server_url, prefix)
    outcome = requeue(cli, position)
    [row] = outcome.json
    assert (1, "parked") == (outcome.code, row["status"])
    assert f"this report stands at {first} with other content, and the first one counts" in row["problem"]
    # Nor after it was amended.
    put(client, prefix, given.apprehension(id=9, amends=4, revision=2, persons={"TUR": 1}))
    for counted in (False, True):
        if counted:
            count(server_url, prefix)
        assert "stands at" in requeue(cli, position).json[0]["problem"]
    amended = given.apprehension(id=10, amends=4, revision=2, persons={"TUR": 8})
    [position] = put(client, prefix, amended)
    put(client, prefix, given.apprehension(id=11, amends=4, revision=3, persons={"TUR": 1}))
    count(server_url, prefix)
    problem = requeue(cli, position).json[0]["problem"]
    assert "revision 2 of this report" in problem or "revision 3 of this report is in force" in problem
    assert 5 == len(log_of(client, prefix, "SI"))


def test_what_the_right_log_holds_already_is_not_appended(
    cli: Cli, client: redis.Redis, prefix: str, server_url: str
) -> None:
    """Counted or not yet: its end is read too."""
    [position] = put(client, prefix, STRANGER)
    count(server_url, prefix)
    [there] = put(client, prefix, STRANGER, side="HR")
    for counted in (False, True):
        if counted:
            count(server_url, prefix)
        outcome = requeue(cli, position)
        [row] = outcome.json
        assert (0, "duplicate", there) == (outcome.code, row["status"], row["now_position"])
    assert 1 == len(log_of(client, prefix, "HR"))


def test_what_would_be_a_conflict_there_stays_parked(
    cli: Cli, client: redis.Redis, prefix: str, server_url: str
) -> None:
    [position] = put(client, prefix, STRANGER)
    put(client, prefix, given.apprehension(side="HR", id=3, persons={"AFG": 9}), side="HR")
    count(server_url, prefix)
    outcome = requeue(cli, position)
    assert (1, ["parked"]) == (outcome.code, statuses(outcome))
    assert "stands at" in outcome.json[0]["problem"]


@pytest.mark.usefixtures("upgraded")
def test_the_same_report_parked_twice_is_appended_once(
    cli: Cli, client: redis.Redis, prefix: str, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within what is looked up at once, and beyond."""
    put(client, prefix, *[as_unknown(LATER)] * 3, as_unknown(given.apprehension(id=4, persons={"TUR": 9})))
    count(server_url, prefix)
    monkeypatch.setattr(module, "CHUNK", 2)
    outcome = requeue(cli, "--reason", "unknown-type")
    assert (1, ["requeued", "duplicate", "duplicate", "parked"]) == (outcome.code, statuses(outcome))
    assert 5 == len(log_of(client, prefix, "SI"))


# The trace


def test_the_list_and_the_entry_say_who_put_it_back_why_and_where(
    cli: Cli, client: redis.Redis, prefix: str, server_url: str
) -> None:
    position, _ = put(client, prefix, STRANGER, b"{")
    count(server_url, prefix)
    [now] = [row["now_position"] for row in requeue(cli, position).json]
    back, left = cli("parked", "list", "--format", "json").json
    assert ["side", "position", "reason", "detail"] == list(left)
    assert ["side", "position", "reason", "detail", "requeued"] == list(back)
    noted = back["requeued"]
    assert (WHY, "HR", now, f"requeue/SI:{position}/{module.user()}") == (
        noted["because"], noted["side"], noted["position"], noted["by"],
    )  # fmt: skip
    words = f"HR {now}, {noted['at'][:19]}Z by {module.user()}: {WHY}"
    assert [words, ""] == [row["requeued"] for row in cli("parked", "list", "--format", "csv").csv]
    assert words in cli("parked", "list").out
    row = findings(cli("doctor", "--format", "json"))["SI parked"]
    assert ("look", "2 entries, 1 of them requeued") == (row["state"], row["found"])
    assert f"  requeued: {words}" in cli("parked", "show", position).out.splitlines()
    assert [f"requeue/SI:{position}/{module.user()}"] == [
        row["by"] for row in cli("events", "--side", "HR", "--format", "json").json
    ]


def test_the_user_is_named_in_characters_that_separate_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Named:
        pw_name = "CORP\\ana:novak/x y" + "z" * 99

    monkeypatch.setattr(module.pwd, "getpwuid", lambda _: Named)
    assert "CORP-ana-novak-x-y" + "z" * 46 == module.user()

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(module.pwd, "getpwuid", unknown)
    assert module.user().startswith("uid-")


# Usage


@pytest.mark.parametrize("because", ["", "  ", "x" * 201, "a\nb", "\x1b[2J"])
def test_a_reason_is_short_and_printable(cli: Cli, because: str) -> None:
    outcome = cli("parked", "requeue", "--reason", "malformed", "--side", "SI", "--because", because)
    assert_refused(outcome, 2, "--because: say why in 1 to 200 printable characters")


def test_what_to_requeue_is_named_in_one_way(cli: Cli) -> None:
    for args in ([], ["1-0", "--reason", "malformed"]):
        outcome = cli("parked", "requeue", *args, "--side", "SI", "--because", WHY)
        assert_refused(outcome, 2, "name the positions to requeue, or a --reason")
    assert_refused(cli("parked", "requeue", "1-0", "--because", WHY), 2, "--side")
    assert_refused(cli("parked", "requeue", "1-0", "--side", "AT", "--because", WHY), 2, "AT")
    assert_refused(cli("parked", "requeue", "1-0", "--side", "SI"), 2, "--because")


def test_a_position_where_nothing_is_parked_is_refused_before_anything_is_appended(
    cli: Cli, client: redis.Redis, prefix: str, server_url: str
) -> None:
    [position] = put(client, prefix, STRANGER)
    count(server_url, prefix)
    outcome = cli("parked", "requeue", position, "5-5\x1b", "--side", "SI", "--because", WHY)
    assert_refused(outcome, 2, r"no entry is parked at '5-5\x1b' of side SI")
    assert [] == log_of(client, prefix, "HR")


# Killed, and doubled


@pytest.fixture(scope="module")
def cradle() -> Iterator[Cradle]:
    with Cradle("services.cli.parked") as cradle:
        yield cradle


@pytest.fixture
def start(cradle: Cradle, tmp_path: Path, prefix: str) -> Iterator[Callable[..., Forked]]:
    """Start `fieldtally parked requeue` processes that end with the test."""
    started: list[Forked] = []

    def call(url: str, *args: str) -> Forked:
        words = ["parked", "requeue", *args, "--side", "SI", "--because", WHY]
        started.append(Forked(cradle, words, tmp_path / f"process{len(started)}", environment(url, prefix, BOTH)))
        return started[-1]

    yield call
    for process in started:
        process.end()


@pytest.mark.parametrize("fifth", range(5))
def test_a_kill_at_any_step_leaves_entry_and_note_or_neither(
    start: Callable[..., Forked], client: redis.Redis, prefix: str, server_url: str, cli: Cli, fifth: int
) -> None:
    random = Random(f"requeue {fifth}")
    with FaultProxy(server_url) as proxy:
        put(client, prefix, given.apprehension(side="HR", id=1_000))
        count(server_url, prefix)
        assert start(proxy.url, "--reason", "wrong-side").wait() == 0
        steps = len(proxy.commands) + 8
        for number in range(1, 6):
            strangers = [given.apprehension(side="HR", id=10 * number + at) for at in range(3)]
            put(client, prefix, *strangers)
            count(server_url, prefix)
            victim: Future[Forked] = Future()
            left = random.randrange(1, steps)
            action = random.choice([Action.CUT_BEFORE, Action.CUT_AFTER])
            done = threading.Event()

            def kill(_: Command, victim: Future[Forked] = victim, action: Action = action, done: Any = done) -> Action:
                nonlocal left
                left -= 1
                if left > 0:
                    return Action.PASS
                if done.is_set():
                    return Action.CUT_BEFORE
                done.set()
                victim.result(10).send(signal.SIGKILL)
                victim.result().wait()
                return action

            proxy.on_command = kill
            running = start(proxy.url, "--reason", "wrong-side")
            victim.set_result(running)
            assert running.wait() == (-signal.SIGKILL if done.is_set() else 0), running.text
            wait_for(lambda: not any(one.thread.is_alive() for one in proxy._connections), what="the last command")
            proxy.on_command = None
            outcome = requeue(cli, "--reason", "wrong-side")
            assert 0 == outcome.code
            assert {"requeued", "already-requeued"} >= set(statuses(outcome)), (fifth, number)
            there = {position for position, _ in log_of(client, prefix, "HR")}
            assert there == {row["now_position"] for row in outcome.json}
            assert 1 + 3 * number == len(there) == len(outcome.json)
        count(server_url, prefix)
        assert_counted(client, prefix, "SI", "HR")


def test_two_at_once_append_once_and_say_so_once(
    start: Callable[..., Forked], client: redis.Redis, prefix: str, server_url: str
) -> None:
    [position] = put(client, prefix, STRANGER)
    count(server_url, prefix)
    overtaken = threading.Event()

    def overtake(command: Command) -> Action:
        if command.name == "XADD" and not overtaken.is_set():
            overtaken.set()
            first = start(server_url, position)
            assert first.wait() == 0
            assert "1 entry: 0 parked, 1 requeued" in first.text
        return Action.PASS

    with FaultProxy(server_url) as proxy:
        proxy.on_command = overtake
        slow = start(proxy.url, position)
        assert slow.wait() == 0, slow.text
    assert overtaken.is_set()
    assert "1 entry: 0 parked, 1 already-requeued" in slow.text
    assert 1 == len(log_of(client, prefix, "HR"))


def test_a_position_that_was_not_noted_any_more_is_found_in_the_log(
    cli: Cli, client: redis.Redis, prefix: str, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [position] = put(client, prefix, STRANGER)
    count(server_url, prefix)
    put(client, prefix, *[given.apprehension(side="HR", id=number) for number in range(50, 55)], side="HR")

    async def nothing(_store: Any, _at: Any, note: Any) -> Any:
        return note

    with monkeypatch.context() as patch:
        patch.setattr(store_module.RedisRequeued, "_place", nothing)
        [there] = [row["now_position"] for row in requeue(cli, position).json]
    assert "HR after " in cli("parked", "list").out
    put(client, prefix, given.apprehension(side="HR", id=60), side="HR")
    [row] = requeue(cli, position).json
    assert ("already-requeued", there) == (row["status"], row["now_position"])
    assert there == cli("parked", "list", "--format", "json").json[0]["requeued"]["position"]


def test_that_nothing_is_parked_is_said(cli: Cli) -> None:
    outcome = cli("parked", "requeue", "--side", "SI", "--reason", "unknown-type", "--because", "x")
    assert (0, "nothing is parked for unknown-type on side SI, so nothing was requeued\n") == (
        outcome.code,
        outcome.err,
    )
