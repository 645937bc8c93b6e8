"""The command line under test: in this process, where that is enough, or as a real one."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis

from services.cli.__main__ import fieldtally
from services.cli.command import run
from services.runtime.settings import read_settings
from tests import given, projectors
from tests.servers import plain_client

ROOT = Path(__file__).parents[3]
PROGRAM = (sys.executable, "-m", "services.cli")


class Outcome(NamedTuple):
    """How a command ended: its exit code, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it wrote, read as JSON."""
        return json.loads(self.out)

    @property
    def ndjson(self) -> list[Any]:
        """What it wrote, read as a JSON value per line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def csv(self) -> list[dict[str, str]]:
        """What it wrote, read as CSV with a heading."""
        return list(csv.DictReader(io.StringIO(self.out)))

    @property
    def table(self) -> list[list[str]]:
        """The lines that it wrote, each split where there are at least two blanks."""
        return [[part.strip() for part in line.split("  ") if part.strip()] for line in self.out.splitlines()]


Cli = Callable[..., Outcome]


def environ(url: str, prefix: str, **more: str) -> dict[str, str]:
    """Return the environment of a command, with the settings that lead to a server."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("FIELDTALLY_")}
    inherited.pop("PYTHONUNBUFFERED", None)  # it would hide what is not flushed
    given_here = {f"FIELDTALLY_{name}": text for name, text in {"REDIS_URL": url, "PREFIX": prefix, **more}.items()}
    return inherited | {"NO_COLOR": "1", "TERM": "dumb"} | given_here


@pytest.fixture
def cli(
    server_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Run a command in this process, under this test's prefix or another one; `SIDES=…` and so on are settings."""

    def call(*args: str, at: str = prefix, url: str = server_url, **settings: str) -> Outcome:
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("FIELDTALLY_")]:
                patch.delenv(name)
            for name, text in environ(url, at, **settings).items():
                patch.setenv(name, text)
            code = run(fieldtally, list(args))
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture
def process(server_url: str, prefix: str) -> Callable[..., Outcome]:
    """Run a command as a process of its own, as `cli` does in this one."""

    def call(*args: str, at: str = prefix, url: str = server_url, stdin: bytes = b"", **settings: str) -> Outcome:
        done = subprocess.run(
            [*PROGRAM, *args], cwd=ROOT, env=environ(url, at, **settings), input=stdin, capture_output=True,
            check=False, timeout=60,
        )  # fmt: skip
        return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())

    return call


@contextmanager
def started(args: Sequence[str], env: Mapping[str, str], **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command as a process that is ended with the block, and in time for a test that waits for it to fail."""
    with subprocess.Popen([*PROGRAM, *args], cwd=ROOT, env=dict(env), **more) as running:
        too_long = threading.Timer(30.0, running.kill)
        too_long.start()
        try:
            yield running
        finally:
            too_long.cancel()
            running.kill()


@contextmanager
def told(url: str, prefix: str, events: Mapping[str, Sequence[bytes]], *, projected: bool = True) -> Iterator[Any]:
    """Put events into the logs of their sides and count them; yield a plain client.

    A fixture of a module may be set up again in the same worker, where tests are moved between workers.
    """
    with plain_client(url) as client:
        for key in client.scan_iter(f"{{{prefix}:*"):
            client.delete(key)
        record(client, prefix, events)
        if projected:
            count(url, prefix)
        yield client


def record(client: redis.Redis, prefix: str, events: Mapping[str, Sequence[bytes]]) -> dict[str, list[str]]:
    """Put events into the logs of their sides; return their positions."""
    return {
        side: projectors.feed(client, prefix, side, [given.entry(event) for event in written])
        for side, written in events.items()
    }


def count(url: str, prefix: str) -> None:
    """Bring the live tallies up to the logs' ends."""
    projectors.project(read_settings({"FIELDTALLY_REDIS_URL": url, "FIELDTALLY_PREFIX": prefix}))


def assert_refused(outcome: Outcome, code: int, *said: str) -> None:
    """A wrong command ends with one line that names what is wrong, and with nothing on stdout."""
    assert (code, "") == (outcome.code, outcome.out), outcome.err
    assert 1 == len(outcome.err.splitlines()), outcome.err
    assert "Traceback" not in outcome.err
    for words in said:
        assert words in outcome.err
