"""`kill -9` at any step of archiving and trimming: nothing is lost, the next run goes on, and the archive is sound."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import pytest
import redis
from redis.asyncio.connection import AbstractConnection

from schemas.vocabulary import Position
from services.replay.replay import Replay
from services.runtime.settings import Settings
from services.store.contract import Entry
from services.store.segments import MANIFEST
from services.tally.digest import state_digest
from tests import archives, oracle
from tests.archives import archive_now, assert_intact, folder_of, small_pieces, trim_now, whole, whole_log
from tests.given import seeded_log
from tests.projectors import ZONES
from tests.waiting import wait_for

LENGTH = 20
SEEDS_AT_ONCE = 5
KILLED = -signal.SIGKILL


class Steps:
    """Counts the steps of a process, before and after each thing that it does to disk or server; ends it at one."""

    def __init__(self, last: int) -> None:
        self.taken = 0
        self._last = last

    def take(self) -> None:
        """Take a step, which may be the last one."""
        self.taken += 1
        if self.taken == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str) -> None:
        """Take a step before and after each call of a function."""
        honest = getattr(owner, name)

        def stepped(*args: Any, **named: Any) -> Any:
            self.take()
            answer = honest(*args, **named)
            self.take()
            return answer

        async def stepped_later(*args: Any, **named: Any) -> Any:
            self.take()
            answer = await honest(*args, **named)
            self.take()
            return answer

        setattr(owner, name, stepped_later if asyncio.iscoroutinefunction(honest) else stepped)


def run_until(step: int, work: Callable[[], Any], taken: Path) -> int:
    """Do a piece of work in a process of its own that is killed at a step; return how it ended.

    It is forked, so that it need not import anything. What steps it took, if it came to its end, is written.
    """
    pid = os.fork()
    if not pid:
        code = 1
        try:
            steps = Steps(step)
            for owner, name in (
                (os, "fsync"), (Path, "replace"), (Path, "open"), (Path, "unlink"), (Path, "mkdir"),
                (pq.ParquetWriter, "write_table"), (pq.ParquetWriter, "close"),
                (AbstractConnection, "send_packed_command"), (AbstractConnection, "read_response"),
            ):  # fmt: skip
                steps.around(owner, name)
            work()
            counted, steps = steps.taken, Steps(-1)
            taken.write_text(str(counted))
            code = 0
        finally:
            os._exit(code)
    ended: list[int] = []

    def has_ended() -> bool:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            ended.append(os.waitstatus_to_exitcode(status))
        return bool(found)

    try:
        wait_for(has_ended, what=f"the end of a process that is killed at step {step}")
    except AssertionError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    return ended[0]


def digest_of(settings: Settings, prefix: str, folder: Path) -> str:
    """Return the digest of a replay over archive and stream."""
    assert settings.redis_url
    url = settings.redis_url

    async def run() -> str:
        async with whole_log(url, prefix, folder) as log:
            replay = Replay(settings.side("SI"), log)
            await replay.run((await log.extent()).last)
            return state_digest(replay.state.tallies)

    return asyncio.run(run())


def counted(log: list[Entry]) -> str:
    """Return the digest that the oracle comes to."""
    entries = [(entry.position, entry.fields) for entry in log]
    return oracle.digest(oracle.count("SI", ZONES["SI"], entries).tallies)


@pytest.mark.parametrize("first_seed", range(0, 50, SEEDS_AT_ONCE))
def test_killed_at_any_step_nothing_is_lost_and_the_next_run_goes_on(
    settings: Settings,
    server_url: str,
    prefix: str,
    client: redis.Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first_seed: int,
) -> None:
    small_pieces(monkeypatch)
    pool = seeded_log(first_seed, 300)["SI"]
    for seed in range(first_seed, first_seed + SEEDS_AT_ONCE):
        random = Random(f"kills {seed}")
        here, folder = f"{prefix}.{seed}", tmp_path / str(seed)
        log = archives.write(client, here, random.sample(pool, LENGTH))
        digest = counted(log)
        until = log[random.randrange(8, LENGTH)].position
        archive_now(server_url, here, folder, log[random.randrange(3, 6)].position)
        trim_now(server_url, here, folder, log[random.randrange(3)].position)

        def archive(here: str = here, folder: Path = folder) -> None:
            archive_now(server_url, here, folder)

        def trim(here: str = here, folder: Path = folder, until: Position = until) -> None:
            trim_now(server_url, here, folder, until)

        for work, furthest in ((archive, 150), (trim, 150)):
            # The first one anywhere, the next ones from where it left.
            for last in (furthest, furthest // 3):
                step = random.randrange(1, last)
                ended = run_until(step, work, tmp_path / "taken")
                where = f"seed {seed}, {work.__name__} killed at step {step}"
                assert ended in (KILLED, 0), where
                assert whole(server_url, here, folder) == log, where
            assert digest_of(settings, here, folder) == digest, where
            work()
            assert whole(server_url, here, folder) == log, where
            assert_intact(folder, here)
        assert client.xlen(f"{{{here}:SI}}:log") == LENGTH - 1 - [entry.position for entry in log].index(until)
        assert digest_of(settings, here, folder) == digest
        assert not list(folder_of(folder, here).glob("*.part"))


@pytest.mark.parametrize("what", ["archive", "trim"])
def test_killed_at_each_step_in_turn_it_comes_to_its_end(
    server_url: str, prefix: str, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Each run is killed a step later than the one before, on an archive as that one left it."""
    small_pieces(monkeypatch)
    log = archives.write(client, prefix, seeded_log(1, 300)["SI"][:LENGTH])
    if what == "trim":
        archive_now(server_url, prefix, tmp_path)
    work = {"archive": archive_now, "trim": trim_now}[what]
    step, sizes = 0, set()
    while run_until(step := step + 5, lambda: work(server_url, prefix, tmp_path), tmp_path / "taken") == KILLED:
        manifest = folder_of(tmp_path, prefix) / MANIFEST
        sizes.add((manifest.stat().st_size if manifest.exists() else 0, client.xlen(f"{{{prefix}:SI}}:log")))
        assert whole(server_url, prefix, tmp_path) == log, f"killed at step {step}"
    assert len(sizes) > 2, "it was killed before, between and after what it writes"
    assert whole(server_url, prefix, tmp_path) == log
    assert_intact(tmp_path, prefix)
    assert int((tmp_path / "taken").read_text()) < step
    assert client.xlen(f"{{{prefix}:SI}}:log") == (LENGTH if what == "archive" else 0)
