"""Rebuilds as processes: killed at every step, doubled, and beside a projector that works; each report counts once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import redis

from services.runtime.settings import Settings
from tests.faults import Action, Command, FaultProxy
from tests.given import apprehension, entry, seeded_log
from tests.projectors import (
    Cradle,
    Forked,
    assert_counted,
    assert_sound,
    caught_up,
    environment,
    feed,
    live,
    log_of,
    project,
)
from tests.waiting import wait_for

SEED = 20240313
SEEDS_EACH = 5

NewProcess = Callable[..., Forked]


@pytest.fixture(scope="module")
def cradle() -> Iterator[Cradle]:
    with Cradle("services.cli.rebuild", "tests.small_turns") as cradle:
        yield cradle


@pytest.fixture
def start(cradle: Cradle, tmp_path: Path, prefix: str) -> Iterator[NewProcess]:
    """Start `fieldtally` processes that end with the test."""
    started: list[Forked] = []

    def call(url: str, *args: str) -> Forked:
        started.append(Forked(cradle, args, tmp_path / f"process{len(started)}", environment(url, prefix)))
        return started[-1]

    yield call
    for process in started:
        process.end()


@pytest.fixture
def si_only(settings_for: Callable[..., Settings], server_url: str) -> Settings:
    return settings_for(server_url, SIDES="SI:Europe/Ljubljana:SVN")


def generations(client: redis.Redis, prefix: str) -> set[str]:
    found: Any = client.keys(f"{{{prefix}:SI}}:g*")
    return {name.decode().split(":")[-2] for name in found}


def harm(client: redis.Redis, prefix: str) -> None:
    """Make the live tallies wrong: only a swap mends that."""
    client.hincrby(f"{{{prefix}:SI}}:{live(client, prefix, 'SI')}:tallies", "SI||koper|2024-03-14|persons|SYR", 1)


class Killing:
    """Kills a process when its k-th command passes."""

    def __init__(self, at: int, action: Action) -> None:
        self.victim: Future[Forked] = Future()
        self.done = False
        self._at = at
        self._action = action
        self._passed = 0

    def __call__(self, _: Command) -> Action:
        """Decide about a command, as the proxy's rule."""
        if self.done:
            return Action.CUT_BEFORE
        self._passed += 1
        if self._passed < self._at:
            return Action.PASS
        self.done = True
        victim = self.victim.result(10)
        victim.send(signal.SIGKILL)
        victim.wait()
        return self._action


@pytest.mark.parametrize("tenth", range(10))
def test_a_kill_at_any_step_loses_nothing_and_the_next_run_completes(
    start: NewProcess, si_only: Settings, server_url: str, prefix: str, client: redis.Redis, tenth: int
) -> None:
    """Of filling, swapping and removing. The live tallies are sound or as wrong as before, never something between."""
    with FaultProxy(server_url) as proxy:
        log = iter(seeded_log(SEED + tenth, 400)["SI"])
        feed(client, prefix, "SI", islice(log, 100))
        project(si_only)
        assert start(proxy.url, "rebuild", "--swap", "--drop").wait() == 0
        steps = len(proxy.commands) + 10
        for seed in range(SEEDS_EACH):
            random = Random(f"{SEED} {tenth} {seed}")
            feed(client, prefix, "SI", islice(log, 40))
            project(si_only)
            harm(client, prefix)
            before = live(client, prefix, "SI")
            feed(client, prefix, "SI", islice(log, 10))
            killing = Killing(random.randrange(1, steps), random.choice([Action.CUT_BEFORE, Action.CUT_AFTER]))
            proxy.on_command = killing
            victim = start(proxy.url, "rebuild", "--swap", "--drop")
            killing.victim.set_result(victim)
            code = victim.wait()
            assert code == (-signal.SIGKILL if killing.done else 0), victim.text
            wait_for(lambda: not any(one.thread.is_alive() for one in proxy._connections), what="the last command")
            proxy.on_command = None
            if live(client, prefix, "SI") != before:
                assert_sound(client, prefix, "SI")
            else:
                assert before in generations(client, prefix)
            again = start(server_url, "rebuild", "--swap", "--drop")
            assert again.wait() == 0, (tenth, seed, again.text)
            assert_sound(client, prefix, "SI")
            assert {live(client, prefix, "SI")} == generations(client, prefix)
            project(si_only)
            assert_counted(client, prefix, "SI")


def test_it_goes_on_after_a_kill_instead_of_beginning_anew(
    start: NewProcess, si_only: Settings, server_url: str, prefix: str, client: redis.Redis
) -> None:
    entries = feed(client, prefix, "SI", seeded_log(SEED, 300)["SI"])
    project(si_only)
    executed = 0

    def kill_after_three_turns(command: Command) -> Action:
        nonlocal executed
        executed += command.name == "EXEC" and bool(client.exists(f"{{{prefix}:SI}}:g2:checkpoint"))
        if executed == 3:
            victim.send(signal.SIGKILL)
            victim.wait()
            return Action.CUT_BEFORE
        return Action.PASS

    with FaultProxy(server_url) as proxy:
        proxy.on_command = kill_after_three_turns
        victim = start(proxy.url, "rebuild", "--swap")
        assert victim.wait() == -signal.SIGKILL
        wait_for(lambda: not any(one.thread.is_alive() for one in proxy._connections), what="the last command")
        filled = int(client.hget(f"{{{prefix}:SI}}:g2:checkpoint", "entries") or 0)
        assert 0 < filled < len(entries)
        read: list[str] = []

        def note_reading(command: Command) -> Action:
            if command.name == "XREAD":
                read.append(command.args[-1].decode())
            return Action.PASS

        proxy.on_command = note_reading
        assert start(proxy.url, "rebuild", "--swap").wait() == 0
    assert read[0] == entries[filled - 1]
    assert "g2" == live(client, prefix, "SI")
    assert_counted(client, prefix, "SI")


def test_ctrl_c_ends_it_with_130_and_the_next_run_goes_on(
    start: NewProcess, si_only: Settings, server_url: str, prefix: str, client: redis.Redis
) -> None:
    feed(client, prefix, "SI", seeded_log(SEED + 5, 200)["SI"])
    project(si_only)

    def interrupt(command: Command) -> Action:
        if command.name == "MULTI" and client.exists(f"{{{prefix}:SI}}:g2:checkpoint"):
            proxy.on_command = None
            rebuilding.send(signal.SIGINT)
            wait_for(lambda: rebuilding.poll() is not None, what="the end")
        return Action.PASS

    with FaultProxy(server_url) as proxy:
        proxy.on_command = interrupt
        rebuilding = start(proxy.url, "rebuild", "--swap")
        assert rebuilding.wait() == 130
    assert "Traceback" not in rebuilding.text
    assert start(server_url, "rebuild", "--swap").wait() == 0
    assert "g2" == live(client, prefix, "SI")
    assert_counted(client, prefix, "SI")


def test_of_two_rebuilds_at_once_one_is_ended_in_words(
    start: NewProcess, si_only: Settings, server_url: str, prefix: str, client: redis.Redis
) -> None:
    """Whichever records first: the other finds a checkpoint that is not the one it holds."""
    feed(client, prefix, "SI", seeded_log(SEED + 1, 200)["SI"])
    project(si_only)
    overtaken = threading.Event()

    def overtake(command: Command) -> Action:
        if command.name == "MULTI" and client.exists(f"{{{prefix}:SI}}:g2:checkpoint") and not overtaken.is_set():
            overtaken.set()
            assert start(server_url, "rebuild").wait() == 0
        return Action.PASS

    with FaultProxy(server_url) as proxy:
        proxy.on_command = overtake
        slow = start(proxy.url, "rebuild", "--swap")
        assert slow.wait() == 2
    assert overtaken.is_set()
    [words] = slow.words
    assert "generation g2 of side SI was changed meanwhile, by another `fieldtally rebuild`" in words
    assert "g1" == live(client, prefix, "SI")
    assert start(server_url, "rebuild", "--swap").wait() == 0
    assert "g2" == live(client, prefix, "SI")
    assert_counted(client, prefix, "SI")


def test_what_is_being_filled_may_be_dropped_by_another(
    start: NewProcess, si_only: Settings, server_url: str, prefix: str, client: redis.Redis
) -> None:
    feed(client, prefix, "SI", seeded_log(SEED + 2, 200)["SI"])
    project(si_only)

    def drop(command: Command) -> Action:
        if command.name == "MULTI" and client.exists(f"{{{prefix}:SI}}:g2:checkpoint"):
            assert start(server_url, "rebuild", "--drop").wait() == 0
        return Action.PASS

    with FaultProxy(server_url) as proxy:
        proxy.on_command = drop
        slow = start(proxy.url, "rebuild", "--swap")
        assert slow.wait() == 2
    assert "was changed meanwhile" in slow.text
    assert {"g1"} == generations(client, prefix)
    assert_counted(client, prefix, "SI")


def test_a_projector_that_has_just_named_the_live_generation_ends_nothing(
    start: NewProcess, server_url: str, prefix: str, client: redis.Redis
) -> None:
    """Its name is watched too, and written by the first turn of the first projector."""
    feed(client, prefix, "SI", seeded_log(SEED + 3, 100)["SI"])
    named = False

    def name_it(command: Command) -> Action:
        nonlocal named
        if command.name == "MULTI" and not named and client.exists(f"{{{prefix}:SI}}:g2:checkpoint"):
            named = True
            client.set(f"{{{prefix}:SI}}:live", "g1")
        return Action.PASS

    with FaultProxy(server_url) as proxy:
        proxy.on_command = name_it
        client.hset(f"{{{prefix}:SI}}:g1:checkpoint", "unsound", "HSET failed")  # so that all of the log is folded
        rebuilt = start(proxy.url, "rebuild", "--swap")
        assert rebuilt.wait() == 0, rebuilt.text
    assert named
    assert "g2" == live(client, prefix, "SI")
    assert_counted(client, prefix, "SI")


def test_a_projector_goes_on_in_the_generation_that_was_swapped_in(
    start: NewProcess, server_url: str, prefix: str, client: redis.Redis
) -> None:
    """By itself, while reports keep coming: none is lost, none counts twice, and its feed has no gap but the swap's."""
    log = iter(seeded_log(SEED + 4, 3_000)["SI"])
    feed(client, prefix, "SI", islice(log, 300))
    projector = start(server_url, "project")
    wait_for(lambda: caught_up(client, prefix, "SI"), what="the projector to work")
    harm(client, prefix)
    done = threading.Event()

    def report() -> None:
        with redis.Redis.from_url(server_url) as reporting:
            while not done.wait(0.002) and feed(reporting, prefix, "SI", islice(log, 1)):
                pass

    reporting = threading.Thread(target=report)
    reporting.start()
    try:
        for number in (2, 3, 4):
            rebuilt = start(server_url, "rebuild", "--swap", "--drop")
            assert rebuilt.wait() == 0, rebuilt.text
            assert f"g{number}" == live(client, prefix, "SI")
            applied = len(projector.named("batch_applied"))
            wait_for(
                lambda n=applied: len(projector.named("batch_applied")) > n + 3, what="turns in the new generation"
            )  # type: ignore[misc]
            assert_sound(client, prefix, "SI")
            assert {f"g{number}"} == generations(client, prefix)
    finally:
        done.set()
        reporting.join()
    feed(client, prefix, "SI", [entry(apprehension(id=999_999))])
    wait_for(lambda: caught_up(client, prefix, "SI"), what="the projector to be caught up")
    assert_counted(client, prefix, "SI")
    assert projector.poll() is None
    assert len(projector.named("turn_refused")) >= 3
    assert [] == projector.named("waiting") + projector.named("state_gone")
    changes: Any = client.xrange(f"{{{prefix}:SI}}:changes")
    positions = [position for position, _ in changes]
    assert positions[-1].decode() == log_of(client, prefix, "SI")[-1][0]
    gaps = [(before, fields) for (before, _), (_, fields) in pairwise(changes) if fields[b"after"] != before]
    assert len(gaps) <= 3
