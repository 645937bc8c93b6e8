"""Projectors as processes: killed at every step, frozen, doubled, and left by their server; each report counts once."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from random import Random

import pytest
import redis

from services.runtime.settings import Settings
from tests.faults import Action, Command, FaultProxy
from tests.given import apprehension, entry, seeded_log
from tests.projectors import (
    Cradle,
    Forked,
    Process,
    assert_counted,
    assert_sound,
    caught_up,
    environment,
    feed,
    log_of,
    project,
    stored,
)
from tests.servers import OwnServer
from tests.waiting import wait_for

SEED = 20240313
SIDES = "SI:Europe/Ljubljana:SVN,HR:Europe/Zagreb:HRV"
PROMPT_S = 8.0

NewProjector = Callable[..., Forked]
NewProcess = Callable[..., Process]


@pytest.fixture(scope="session")
def cradle() -> Iterator[Cradle]:
    with Cradle() as cradle:
        yield cradle


@pytest.fixture
def new_projector(cradle: Cradle, tmp_path: Path, prefix: str) -> Iterator[NewProjector]:
    """Start `fieldtally project` processes that end with the test."""
    started: list[Forked] = []

    def start(url: str, *options: str, prefix: str = prefix, sides: str = "SI:Europe/Ljubljana:SVN") -> Forked:
        said = tmp_path / f"projector{len(started)}"
        process = Forked(cradle, ["project", *options], said, environment(url, prefix, sides))
        started.append(process)
        return process

    yield start
    for process in started:
        process.end()


@pytest.fixture
def new_process(tmp_path: Path, prefix: str) -> Iterator[NewProcess]:
    """Start programs the way a process manager does."""
    started: list[Process] = []

    def start(url: str, *command: str) -> Process:
        process = Process(command, tmp_path / f"process{len(started)}", environment(url, prefix))
        started.append(process)
        return process

    yield start
    for process in started:
        process.end()


PROJECT = (sys.executable, "-m", "services.cli", "project")
FASTSTREAM = (str(Path(sys.executable).with_name("faststream")), "run", "services.projector.app:app")


def wait_until_started(process: Process) -> None:
    wait_for(lambda: process.named("projector_started") or process.poll() is not None, what="the start")
    assert process.poll() is None, process.text


# Killed at every step of a batch


class Killing:
    """Kills a projector when its k-th command since its first read passes; tells whether EXEC took effect."""

    def __init__(self, at: int, action: Action) -> None:
        self.victim: Future[Forked] = Future()
        self.recorded = False
        self.done = False
        self._at = at
        self._action = action
        self._passed = 0

    def __call__(self, command: Command) -> Action:
        """Decide about a command, as the proxy's rule."""
        if self.done:
            return Action.CUT_BEFORE
        if self._passed or command.name == "XREAD":
            self._passed += 1
        if not self._passed or self._passed < self._at:
            self.recorded |= self._passed > 0 and command.name == "EXEC"
            return Action.PASS
        self.done = True
        victim = self.victim.result(10)
        victim.send(signal.SIGKILL)
        victim.wait()
        self.recorded |= command.name == "EXEC" and self._action is Action.CUT_AFTER
        return self._action


@pytest.mark.parametrize("action", [Action.CUT_BEFORE, Action.CUT_AFTER], ids=lambda action: action.name)
def test_a_kill_at_any_step_of_a_batch_leaves_all_of_it_or_nothing(
    new_projector: NewProjector,
    settings_for: Callable[..., Settings],
    server_url: str,
    prefix: str,
    client: redis.Redis,
    action: Action,
) -> None:
    """Nothing until EXEC, everything from EXEC on; and whoever comes next ends at the tallies of the log."""
    entries = seeded_log(SEED, 60)["SI"]
    # The second half amends, repeats and withdraws what the first brought: so the turn reads the index and the log.
    half = len(entries) // 2
    with FaultProxy(server_url) as proxy:
        steps: list[str] = []
        at = 0
        while not at or at <= len(steps):
            name = f"{prefix}-{at}"
            feed(client, name, "SI", entries[:half])
            project(settings_for(server_url, PREFIX=name, SIDES="SI:Europe/Ljubljana:SVN"))
            before = stored(client, name, "SI").position
            last = feed(client, name, "SI", entries[half:])[-1]
            if at == 0:  # the first one lives, and shows which steps there are
                seen = len(proxy.commands)
                assert new_projector(proxy.url, "--until-caught-up", prefix=name).wait() == 0
                commands = proxy.commands[seen:]
                steps = commands[commands.index("XREAD") :]
                assert steps[:2] == ["XREAD", "UNWATCH"]
                assert steps.count("EXEC") == 1
                assert steps[-1] == "XREAD"
            else:
                killing = Killing(at, action)
                proxy.on_command = killing
                victim = new_projector(proxy.url, prefix=name)
                killing.victim.set_result(victim)
                assert victim.wait() == -signal.SIGKILL, f"at {at} of {steps}: {victim.text}"
                # What the dead one had sent is still on its way: until the proxy has served the last of it.
                wait_for(lambda: not any(one.thread.is_alive() for one in proxy._connections), what="the last command")
                assert killing.done
                proxy.on_command = None
                standing = assert_sound(client, name, "SI")
                assert standing.position == (last if killing.recorded else before), f"at {at} of {steps}"
                project(settings_for(server_url, PREFIX=name, SIDES="SI:Europe/Ljubljana:SVN"))
            assert_counted(client, name, "SI")
            at += 1
    assert {"WATCH", "XREVRANGE", "HMGET", "XRANGE", "MULTI", "HSET", "HDEL", "XADD", "EXEC"} <= set(steps)


def test_kills_at_random_moments_of_a_growing_log_lose_nothing(
    new_projector: NewProjector, server_url: str, prefix: str, client: redis.Redis
) -> None:
    random = Random(SEED)
    entries = seeded_log(SEED + 1, 300)["SI"]
    kills = 5
    size = -(-len(entries) // kills)
    for start in range(0, len(entries), size):
        feed(client, prefix, "SI", entries[start : start + size])
        with FaultProxy(server_url) as proxy:
            limit = random.randrange(30, 130)
            victim = new_projector(proxy.url)
            wait_for(lambda: len(proxy.commands) >= limit or caught_up(client, prefix, "SI"), what="some work")  # noqa: B023
            victim.send(signal.SIGKILL)
            victim.wait()
        assert_sound(client, prefix, "SI")
    assert new_projector(server_url, "--until-caught-up").wait() == 0
    assert_counted(client, prefix, "SI")


# Doubled, and frozen


def test_two_projectors_at_once_count_each_entry_once(
    new_projector: NewProjector, server_url: str, prefix: str, client: redis.Redis
) -> None:
    random = Random(SEED)
    log = seeded_log(SEED + 2, 1_500)
    pair = [new_projector(server_url, sides=SIDES) for _ in range(2)]
    for projector in pair:
        wait_until_started(projector)
    fed = dict.fromkeys(log, 0)

    def refused() -> int:
        return sum(len(projector.named("turn_refused")) for projector in pair)

    def grow() -> bool:
        for side, entries in log.items():
            size = random.randrange(1, 40)
            feed(client, prefix, side, entries[fed[side] : fed[side] + size])
            fed[side] = min(fed[side] + size, len(entries))
        # Until the two have got in each other's way often enough for the test to mean something.
        return refused() >= 5 or fed == {side: len(entries) for side, entries in log.items()}

    wait_for(grow, within_s=30, what="the two to meet")
    wait_for(lambda: caught_up(client, prefix, "SI", "HR"), within_s=30, what="both sides to be caught up with")
    for projector in pair:
        projector.send(signal.SIGTERM)
    assert [projector.wait() for projector in pair] == [0, 0]
    assert refused() >= 5
    assert_counted(client, prefix, "SI", "HR")
    applied = sum(line["entries"] for projector in pair for line in projector.named("batch_applied"))
    assert applied == sum(fed.values())


@pytest.mark.parametrize("name", ["UNWATCH", "GET", "XREVRANGE", "MULTI", "EXEC"])
def test_a_projector_that_was_frozen_in_a_turn_and_overtaken_does_no_harm(
    new_projector: NewProjector,
    settings_for: Callable[..., Settings],
    server_url: str,
    prefix: str,
    client: redis.Redis,
    name: str,
) -> None:
    """It wakes up in the middle of its turn, with what it read long ago."""
    entries = seeded_log(SEED + 3, 90)["SI"]
    third = len(entries) // 3
    settings = settings_for(server_url, SIDES="SI:Europe/Ljubljana:SVN")
    sleeper: Future[Forked] = Future()
    frozen, overtaken = threading.Event(), threading.Event()

    def rule(command: Command) -> Action:
        # A turn has begun: what comes before is the loading at the start.
        if "UNWATCH" in proxy.commands and command.name == name and not frozen.is_set():
            sleeper.result(10).send(signal.SIGSTOP)
            frozen.set()
            overtaken.wait(30)
        return Action.PASS

    # Something is counted already: the very first turn is guarded twice, since it also names the live generation.
    feed(client, prefix, "SI", [entry(apprehension())])
    project(settings)
    feed(client, prefix, "SI", entries[:third])
    with FaultProxy(server_url) as proxy:
        proxy.on_command = rule
        projector = new_projector(proxy.url)
        sleeper.set_result(projector)
        wait_for(frozen.is_set, what=f"the turn's {name}")
        feed(client, prefix, "SI", entries[third : 2 * third])
        project(settings)
        assert_counted(client, prefix, "SI")
        overtaken.set()
        projector.send(signal.SIGCONT)
        wait_for(lambda: projector.named("turn_refused"), what="the refusal")
        assert_counted(client, prefix, "SI")
        feed(client, prefix, "SI", entries[2 * third :])
        wait_for(lambda: caught_up(client, prefix, "SI"), what="the one that was frozen")
        projector.send(signal.SIGTERM)
        assert projector.wait() == 0
    assert_counted(client, prefix, "SI")


# A server in trouble


def assert_waited_in_words(projector: Process, since: float) -> None:
    """It said each wait in one line, fewer and fewer as time went on, and nothing else was said."""
    waits = [line["wait_s"] for line in projector.named("waiting")]
    assert waits[0] == 0.1
    # The reader and the turn wait each for themselves, doubling from a tenth of a second.
    assert len(waits) <= 2 * (3 + math.log2((time.monotonic() - since) / 0.1)), waits
    assert projector.words == []


def wait_until_waiting(projector: Process, wait_s: float = 0.4) -> None:
    """Return when it has said that it waits so long; so it has waited several times before."""
    wait_for(
        lambda: any(line["wait_s"] >= wait_s for line in projector.named("waiting")) or projector.poll() is not None,
        what=f"a wait in {projector.text}",
    )
    assert projector.poll() is None, projector.text


def test_a_server_that_was_killed_is_waited_for(
    fresh_server: OwnServer, new_projector: NewProjector, prefix: str
) -> None:
    entries = seeded_log(SEED + 4, 100)["SI"]
    with fresh_server.client() as client:
        feed(client, prefix, "SI", entries[:40])
        projector = new_projector(fresh_server.url)
        wait_for(lambda: caught_up(client, prefix, "SI"), what="the first part")
    since = time.monotonic()
    fresh_server.kill()
    wait_until_waiting(projector)
    fresh_server.start()
    with fresh_server.client() as client:
        feed(client, prefix, "SI", entries[40:])
        wait_for(lambda: caught_up(client, prefix, "SI"), what="the second part")
        assert_counted(client, prefix, "SI")
    assert_waited_in_words(projector, since)
    # It went on from the checkpoint: nothing was counted a second time, nor from the start.
    assert sum(line["entries"] for line in projector.named("batch_applied")) == len(entries)


def test_a_server_killed_again_and_again_loses_nothing(
    fresh_server: OwnServer, new_projector: NewProjector, prefix: str
) -> None:
    entries = seeded_log(SEED + 5, 120)["SI"]
    projector = new_projector(fresh_server.url)
    wait_until_started(projector)
    for start in range(0, len(entries), 30):
        with fresh_server.client() as client:
            feed(client, prefix, "SI", entries[start : start + 30])
        fresh_server.kill()  # in the middle of the turn, or before it, or after
        fresh_server.start()
        with fresh_server.client() as client:
            assert_sound(client, prefix, "SI")
    with fresh_server.client() as client:
        wait_for(lambda: caught_up(client, prefix, "SI"), what="everything")
        assert_counted(client, prefix, "SI")
    assert projector.words == []


@pytest.mark.parametrize("trouble", ["read-only", "out of memory"])
def test_a_server_that_takes_no_writes_is_waited_for(
    fresh_server: OwnServer, new_projector: NewProjector, prefix: str, trouble: str
) -> None:
    entries = seeded_log(SEED + 6, 100)["SI"]
    with fresh_server.client() as client:
        feed(client, prefix, "SI", entries[:40])
        projector = new_projector(fresh_server.url)
        wait_for(lambda: caught_up(client, prefix, "SI"), what="the first part")
        # Frozen meanwhile, so that its turn falls into the trouble.
        projector.send(signal.SIGSTOP)
        feed(client, prefix, "SI", entries[40:])
        if trouble == "read-only":
            client.replicaof("127.0.0.1", "1")
        else:
            client.config_set("maxmemory", 1)
        since = time.monotonic()
        projector.send(signal.SIGCONT)
        wait_until_waiting(projector)
        assert any(trouble in line["reason"] for line in projector.named("waiting"))
        assert assert_sound(client, prefix, "SI").entries == 40
        if trouble == "read-only":
            client.replicaof("NO", "ONE")
        else:
            client.config_set("maxmemory", 0)
        wait_for(lambda: caught_up(client, prefix, "SI"), what="the second part")
        assert_counted(client, prefix, "SI")
    assert_waited_in_words(projector, since)
    assert sum(line["entries"] for line in projector.named("batch_applied")) == len(entries)


@pytest.mark.parametrize("noticed", [False, True], ids=["before-it-notices", "after-it-noticed"])
def test_a_server_that_was_emptied_is_followed_from_its_new_beginning(
    fresh_server: OwnServer,
    new_projector: NewProjector,
    prefix: str,
    noticed: bool,  # noqa: FBT001
) -> None:
    entries = seeded_log(SEED + 7, 100)["SI"]
    with fresh_server.client() as client:
        feed(client, prefix, "SI", entries[:40])
        projector = new_projector(fresh_server.url)
        wait_for(lambda: caught_up(client, prefix, "SI"), what="the first part")
        client.flushall()
        if noticed:
            wait_for(lambda: projector.named("state_gone"), what="the notice")
        feed(client, prefix, "SI", entries[40:])
        wait_for(lambda: caught_up(client, prefix, "SI"), what="the second part")
        assert_counted(client, prefix, "SI")
        feed(client, prefix, "SI", entries[:40])  # what the devices send again
        wait_for(lambda: caught_up(client, prefix, "SI"), what="what was sent again")
        assert_counted(client, prefix, "SI")
    assert [line["position"] for line in projector.named("state_gone")] == ["0-0"]
    assert projector.words == []


# A log that has lost entries


def lose_everything(client: redis.Redis, prefix: str) -> None:
    client.delete(f"{{{prefix}:SI}}:log")


def restore_half(client: redis.Redis, prefix: str) -> None:
    entries = log_of(client, prefix, "SI")
    with client.pipeline(transaction=True) as pipe:
        pipe.delete(f"{{{prefix}:SI}}:log")
        for position, fields in entries[: len(entries) // 2]:
            pipe.xadd(f"{{{prefix}:SI}}:log", {**fields}, id=position)
        pipe.execute()


@pytest.mark.parametrize("lose", [lose_everything, restore_half])
@pytest.mark.parametrize("running", [False, True], ids=["at-the-start", "while-running"])
def test_a_log_that_lost_entries_ends_the_projector_with_4_and_one_line_of_words(
    new_projector: NewProjector,
    server_url: str,
    prefix: str,
    client: redis.Redis,
    lose: Callable[[redis.Redis, str], None],
    running: bool,  # noqa: FBT001
) -> None:
    feed(client, prefix, "SI", seeded_log(SEED + 8, 40)["SI"])
    projector = new_projector(server_url, *(() if running else ["--until-caught-up"]))
    if running:
        wait_for(lambda: caught_up(client, prefix, "SI"), what="the first part")
    else:
        assert projector.wait() == 0
    before = stored(client, prefix, "SI")
    lose(client, prefix)
    if not running:
        projector = new_projector(server_url)
    assert projector.wait() == 4
    [words] = projector.words
    assert words.startswith("fieldtally: the log of side SI has lost entries: ")
    assert before.position in words
    assert stored(client, prefix, "SI") == before


def test_a_shorter_log_that_grows_again_is_not_followed(
    new_projector: NewProjector, server_url: str, prefix: str, client: redis.Redis
) -> None:
    """Its new entries lie before the checkpoint, so nothing is ever delivered: it must be looked for."""
    positions = feed(client, prefix, "SI", [entry(apprehension(id=number)) for number in range(1, 21)])
    projector = new_projector(server_url)
    wait_for(lambda: caught_up(client, prefix, "SI"), what="the first part")
    restore_half(client, prefix)
    client.xadd(f"{{{prefix}:SI}}:log", {**entry(apprehension(id=99))}, id=positions[12])
    assert projector.wait() == 4
    assert len(projector.words) == 1


def test_an_amendment_of_a_lost_entry_ends_the_projector_with_4(
    new_projector: NewProjector, server_url: str, prefix: str, client: redis.Redis
) -> None:
    first, _ = feed(client, prefix, "SI", [entry(apprehension(id=number)) for number in (1, 2)])
    projector = new_projector(server_url)
    wait_for(lambda: caught_up(client, prefix, "SI"), what="the first part")
    before = stored(client, prefix, "SI")
    client.xdel(f"{{{prefix}:SI}}:log", first)
    feed(client, prefix, "SI", [entry(apprehension(amends=1))])
    assert projector.wait() == 4
    [words] = projector.words
    assert words.startswith(f"fieldtally: the log has lost the entry at {first}")
    assert stored(client, prefix, "SI") == before


# How it is started and stopped


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("server", ["there", "away"])
def test_ctrl_c_ends_it_with_130_and_sigterm_with_0_at_once(
    fresh_server: OwnServer, new_process: NewProcess, prefix: str, number: signal.Signals, code: int, server: str
) -> None:
    with fresh_server.client() as client:
        feed(client, prefix, "SI", [entry(apprehension())])
        process = new_process(fresh_server.url, *PROJECT)
        wait_for(lambda: caught_up(client, prefix, "SI"), what="its work")
    if server == "away":
        fresh_server.kill()
        wait_until_waiting(process)
    process.send(number)
    assert process.wait(PROMPT_S) == code
    assert process.words == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)], ids=["SIGINT", "SIGTERM"])
def test_it_stops_at_once_also_where_a_turn_waits(
    fresh_server: OwnServer, new_projector: NewProjector, prefix: str, number: signal.Signals, code: int
) -> None:
    with fresh_server.client() as client:
        feed(client, prefix, "SI", [entry(apprehension())])
        client.config_set("maxmemory", 1)
        projector = new_projector(fresh_server.url)
        wait_until_waiting(projector, 3.2)
        projector.send(number)
        assert projector.wait(2.5) == code
        assert stored(client, prefix, "SI").entries == 0
    assert projector.words == []


def test_a_server_that_is_away_at_the_start_ends_it_with_3(new_projector: NewProjector) -> None:
    projector = new_projector("unix:///nowhere/valkey.sock")
    assert projector.wait() == 3
    assert len(projector.words) == 1
    assert "unix:///nowhere/valkey.sock" in projector.words[0]


def test_a_server_that_may_evict_ends_it_with_3(
    fresh_server: OwnServer, new_projector: NewProjector, prefix: str
) -> None:
    with fresh_server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        feed(client, prefix, "SI", [entry(apprehension())])
        projector = new_projector(fresh_server.url)
        assert projector.wait() == 3
        assert stored(client, prefix, "SI").entries == 0
    assert len(projector.words) == 1
    assert "noeviction" in projector.words[0]


def test_faststream_runs_it_and_sigterm_ends_it(
    new_process: NewProcess, server_url: str, prefix: str, client: redis.Redis
) -> None:
    entries = seeded_log(SEED + 9, 60)["SI"]
    feed(client, prefix, "SI", entries[:20])
    process = new_process(server_url, *FASTSTREAM)
    wait_for(lambda: caught_up(client, prefix, "SI"), what="the first part")
    feed(client, prefix, "SI", entries[20:])
    wait_for(lambda: caught_up(client, prefix, "SI"), what="the second part")
    process.send(signal.SIGTERM)
    assert process.wait(PROMPT_S) == 0
    assert process.words == []
    assert_counted(client, prefix, "SI")


@pytest.mark.parametrize("running", [False, True], ids=["at-the-start", "while-running"])
def test_faststream_ends_with_words_on_a_log_that_lost_entries(
    new_process: NewProcess,
    server_url: str,
    prefix: str,
    client: redis.Redis,
    running: bool,  # noqa: FBT001
) -> None:
    feed(client, prefix, "SI", [entry(apprehension())])
    if running:
        process = new_process(server_url, *FASTSTREAM)
        wait_for(lambda: caught_up(client, prefix, "SI"), what="the first part")
        lose_everything(client, prefix)
    else:
        client.hset(f"{{{prefix}:SI}}:g1:checkpoint", mapping={"position": "99999999999999-0", "fold_version": 1})
        process = new_process(server_url, *FASTSTREAM)
    code = process.wait()
    assert "Traceback" not in process.text
    assert [line.partition(":")[0] for line in process.words] == ["fieldtally"], (code, process.text)
    assert code == 4


def test_the_environment_of_a_process_is_read_once_and_named_in_words(new_process: NewProcess) -> None:
    process = new_process("nonsense://", *FASTSTREAM)
    assert process.wait() == 2
    [words] = process.words
    assert words.startswith("fieldtally: FIELDTALLY_REDIS_URL")
