"""Projectors to run and to harm, and the judgement of what they stored: read by a plain client, held to the oracle."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import redis
import structlog
from structlog.typing import EventDict, FilteringBoundLogger

from schemas.vocabulary import order
from services.projector.app import Projector
from services.runtime.settings import Settings
from tests import oracle
from tests.waiting import wait_for

ROOT = Path(__file__).parents[1]
ZONES = {"SI": "Europe/Ljubljana", "HR": "Europe/Zagreb"}
SI_ONLY = "SI:Europe/Ljubljana:SVN"


# The log, and what was made of it


class Standing(NamedTuple):
    """What is stored for one side, or ought to be."""

    position: str
    entries: int
    tallies: dict[str, int]
    outcomes: dict[str, int]
    parked: dict[str, str]


def feed(client: redis.Redis, prefix: str, side: str, entries: Iterable[Mapping[bytes, bytes]]) -> list[str]:
    """Append entries as any program with the right to XADD may; return their positions."""
    with client.pipeline(transaction=False) as pipe:
        for fields in entries:
            pipe.xadd(f"{{{prefix}:{side}}}:log", {**fields})
        return [position.decode() for position in pipe.execute()]


def log_of(client: redis.Redis, prefix: str, side: str) -> list[tuple[str, dict[bytes, bytes]]]:
    """Return the entries of a log with their positions."""
    entries: Any = client.xrange(f"{{{prefix}:{side}}}:log")
    return [(position.decode(), fields) for position, fields in entries]


def live(client: redis.Redis, prefix: str, side: str) -> str:
    """Return the name of the live generation."""
    name: Any = client.get(f"{{{prefix}:{side}}}:live")
    return name.decode() if name else "g1"


def stored(client: redis.Redis, prefix: str, side: str) -> Standing:
    """Return what is stored in the live generation, as it stands at one instant."""
    base = f"{{{prefix}:{side}}}:{live(client, prefix, side)}"
    with client.pipeline(transaction=True) as pipe:
        for name in ("checkpoint", "tallies", "parked"):
            pipe.hgetall(f"{base}:{name}")
        checkpoint, tallies, parked = pipe.execute()
    fields = {name.decode(): text.decode() for name, text in checkpoint.items()}
    return Standing(
        position=fields.pop("position", "0-0"),
        entries=int(fields.pop("entries", 0)),
        tallies={cell.decode(): int(number) for cell, number in tallies.items()},
        outcomes={name: int(n) for name, n in fields.items() if name not in ("fold_version", "zone") and n != "0"},
        parked={position.decode(): json.loads(row)["reason"] for position, row in parked.items()},
    )


def expected(entries: Sequence[tuple[str, Mapping[bytes, bytes]]], side: str, until: str | None = None) -> Standing:
    """Return what the oracle makes of a log, up to and with a position."""
    reached = [entry for entry in entries if until is None or order(entry[0]) <= order(until)]
    counted = oracle.count(side, ZONES[side], reached)
    position = reached[-1][0] if reached else "0-0"
    return Standing(position, len(reached), counted.tallies, counted.outcomes, counted.parked)


def assert_counted(client: redis.Redis, prefix: str, *sides: str) -> None:
    """Everything in the logs is counted, once."""
    for side in sides:
        assert expected(log_of(client, prefix, side), side) == stored(client, prefix, side)


def assert_sound(client: redis.Redis, prefix: str, side: str) -> Standing:
    """What is stored is what the log amounts to at the stored checkpoint, wherever that stands; return it."""
    standing = stored(client, prefix, side)
    assert expected(log_of(client, prefix, side), side, standing.position) == standing
    return standing


def caught_up(client: redis.Redis, prefix: str, *sides: str) -> bool:
    """Tell whether every side's tallies reach the end of its log."""
    return all(
        (log := client.xrevrange(f"{{{prefix}:{side}}}:log", count=1))
        and client.hget(f"{{{prefix}:{side}}}:{live(client, prefix, side)}:checkpoint", "position") == log[0][0]
        for side in sides
    )


# In this process


class Lines(list[EventDict]):
    """The log lines of a projector, as it said them."""

    def logger(self) -> FilteringBoundLogger:
        """Return a logger that puts its lines here."""

        def keep(_logger: object, _method: str, line: EventDict) -> EventDict:
            self.append(line)
            raise structlog.DropEvent

        wrapper = structlog.make_filtering_bound_logger(logging.INFO)
        logger: FilteringBoundLogger = structlog.wrap_logger(None, processors=[keep], wrapper_class=wrapper)
        return logger

    def named(self, event: str) -> list[EventDict]:
        """Return the lines about one kind of event."""
        return [line for line in self if line["event"] == event]


def project(settings: Settings, url: str | None = None) -> Lines:
    """Run a projector until it has caught up; return what it said."""
    lines = Lines()
    address = url or settings.redis_url
    assert address
    projector = Projector(settings, address, lines.logger(), until_caught_up=True)
    asyncio.run(asyncio.wait_for(projector.run(), 60))
    assert projector.caught_up
    return lines


# In a process of its own


class Process:
    """A program of ours that runs by itself; what it says on stderr is in a file."""

    def __init__(self, command: Sequence[str], said: Path, environ: Mapping[str, str]) -> None:
        inherited = {name: text for name, text in os.environ.items() if not name.startswith("FIELDTALLY_")}
        self._said = said
        with said.open("w") as stderr:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**inherited, "PYTHONFAULTHANDLER": "1", **environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return its exit code, negative if a signal ended it, or None while it runs."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; it must not have been waited for yet."""
        os.kill(self.pid, number)

    def wait(self, within_s: float = 20.0) -> int:
        """Return its exit code once it has ended."""
        try:
            wait_for(lambda: self.poll() is not None, within_s=within_s, what="the end of a process")
        except AssertionError as late:
            self.send(signal.SIGABRT)  # it says where each of its threads is
            wait_for(lambda: self.poll() is not None, what="the end of a process that was aborted")
            raise AssertionError(f"{late}; it said {self.text}") from None
        code = self.poll()
        assert code is not None
        return code

    def end(self) -> None:
        """End it, if it still runs."""
        if self.poll() is None:
            self.send(signal.SIGKILL)
            self.wait()

    @property
    def text(self) -> str:
        """Everything it said."""
        return self._said.read_text()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Its log lines, as far as they are complete."""
        return [json.loads(line) for line in self.text.splitlines(keepends=True) if line[0] == "{" and line[-1] == "\n"]

    @property
    def words(self) -> list[str]:
        """What it said apart from log lines."""
        return [line for line in self.text.splitlines() if not line.startswith("{")]

    def named(self, event: str) -> list[dict[str, Any]]:
        """Return its log lines about one kind of event."""
        return [line for line in self.lines if line["event"] == event]


def environment(url: str, prefix: str, sides: str = SI_ONLY) -> dict[str, str]:
    """Return the settings of a process."""
    return {
        "FIELDTALLY_REDIS_URL": url,
        "FIELDTALLY_PREFIX": prefix,
        "FIELDTALLY_SIDES": sides,
        "FIELDTALLY_LOG_FORMAT": "json",
    }


_CRADLE = """
import faulthandler, json, os, sys
import services.cli.__main__, services.cli.project, services.projector.app, services.projector.processes

ended = {}
for line in sys.stdin:
    order = json.loads(line)
    if "poll" in order:
        wanted = order["poll"]
        pid, status = (0, 0) if wanted in ended else os.waitpid(wanted, os.WNOHANG)
        if pid:
            ended[pid] = os.waitstatus_to_exitcode(status)
        answer = ended.get(wanted)
    else:
        answer = os.fork()
        if not answer:
            for name, wanted in (("/dev/null", 0), ("/dev/null", 1), (order["said"], 2)):
                os.dup2(os.open(name, os.O_RDWR), wanted)
            faulthandler.enable()
            os.environ.update(order["environ"])
            sys.argv[1:] = order["args"]
            services.cli.__main__.main()
    print(json.dumps(answer), flush=True)
"""


class Cradle:
    """Starts `fieldtally` processes in no time: each is forked from one that has imported everything already.

    `modules` are what a command needs beyond the projector's.
    """

    def __init__(self, *modules: str) -> None:
        script = "".join(f"import {module}\n" for module in modules) + _CRADLE
        self._process = subprocess.Popen(
            [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._guard = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()

    def ask(self, order: Mapping[str, Any]) -> int | None:
        """Pass an order on and return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._guard:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            answer: int | None = json.loads(self._process.stdout.readline())
        return answer


class Forked(Process):
    """A `fieldtally` process from the cradle."""

    def __init__(self, cradle: Cradle, args: Sequence[str], said: Path, environ: Mapping[str, str]) -> None:
        self._said = said
        said.touch()
        self._cradle = cradle
        pid = cradle.ask({"args": list(args), "said": str(said), "environ": dict(environ)})
        assert pid
        self.pid = pid

    def poll(self) -> int | None:
        """Return its exit code, negative if a signal ended it, or None while it runs."""
        return self._cradle.ask({"poll": self.pid})
