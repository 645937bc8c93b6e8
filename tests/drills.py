"""Drills on the way in: a gateway that may be killed, devices that send again what has no receipt, and the judgement.

The judgement is what the product promises: whatever was acknowledged is in the log at the position that was told, in
canonical bytes and under its sender's name; and once all is sent, the log holds every report and the tallies count
each once.
"""

from __future__ import annotations

import http.client
import json
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from random import Random
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
import redis

from schemas import codec
from schemas.http import BATCH_TYPE, EVENT_TYPE, PROBLEM_TYPE, Problem, Result, Results
from tests import given
from tests.faults import Action, Command
from tests.gateways import recently
from tests.projectors import Cradle, Forked, assert_counted, log_of, stored
from tests.waiting import wait_for

RECEIPTS: Final = ("recorded", "duplicate")
BATCH_LARGEST: Final = 8
PAUSE_S: Final = 0.01
"""Between two attempts of a device. The contract asks for more, and a gateway has to bear the impatient too."""
LIMIT_S: Final = 30.0

_COMMANDS: Final = ("HMGET", "XRANGE", "XADD")

_result: Final = msgspec.json.Decoder(Result)
_results: Final = msgspec.json.Decoder(Results)
_problem: Final = msgspec.json.Decoder(Problem)


# A gateway


class OwnGateway:
    """A `fieldtally gateway` process that may be killed; its address stays the same over restarts."""

    def __init__(self, cradle: Cradle, folder: Path, environ: Mapping[str, str]) -> None:
        self._cradle = cradle
        self._folder = folder
        self._environ = environ
        self._said = count()
        self._port = _unused_port()
        self._has_served = False
        self.start()

    @property
    def address(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, or start it again; return when it serves."""
        wait_for(self._serves, within_s=30, what="a gateway that serves")
        self._has_served = True

    def _serves(self) -> bool:
        said = self._folder / f"gateway-{self._port}-{next(self._said)}"
        environ = {**self._environ, "FIELDTALLY_HTTP_PORT": str(self._port)}
        self.process = Forked(self._cradle, ["gateway"], said, environ)
        wait_for(
            lambda: self.process.poll() is not None or self.process.named("gateway_started"),
            what="the gateway to serve",
        )
        if self.process.poll() is None:
            return True
        assert "cannot listen" in self.process.text, self.process.text
        # Somebody was faster. Once it has served, it is only somebody who looks for a port, as below.
        if not self._has_served:
            self._port = _unused_port()
        return False

    def kill(self) -> None:
        """End it as the kernel does; return when it is gone."""
        self.process.send(signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        """End it, if it still runs."""
        self.process.end()


def _unused_port() -> int:
    """Return a free port outside the range from which the system gives out ports to others meanwhile."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue


# Devices


class Receipt(NamedTuple):
    """That a report is in the log: what was told of it, and what ought to stand there."""

    status: str
    position: str
    canonical: bytes
    by: str


class Answer(NamedTuple):
    """An answer to a request that came whole."""

    status: int
    media_type: str
    retry_after: str | None
    body: bytes


class Device:
    """A patrol app as the contract has it: it keeps what has no receipt naming its id, and sends the same bytes again.

    `receipts` are all that it was ever given, `unavailable` how often it was answered 503. `sent` and `answered` are
    called when a request is out and when an answer is in.
    """

    def __init__(self, random: Random, token: str, source: str) -> None:
        self.receipts: list[Receipt] = []
        self.unavailable = 0
        self.sent: Callable[[], None] = _nothing
        self.answered: Callable[[], None] = _nothing
        self._random = random
        self._headers = {"authorization": f"Bearer {token}"}
        self._source = source
        self._outbox: dict[str, bytes] = {}
        self._reported: dict[str, bytes] = {}
        self._connection: http.client.HTTPConnection | None = None

    def report(self, reports: Iterable[bytes]) -> None:
        """Put reports into the outbox, each in a spelling of its own that stays the same however often it is sent."""
        for canonical in reports:
            document = json.loads(canonical)
            spelled = self._random.choice((canonical, json.dumps(document, indent=1).encode()))
            self._outbox[document["id"]] = spelled
            self._reported[document["id"]] = spelled

    def repeat(self, quantity: int | None = None) -> None:
        """Put a few of those that it has receipts for into the outbox once more, or all of them."""
        few = list(self._reported)
        if quantity is not None:
            few = self._random.sample(few, min(quantity, len(few)))
        self._outbox |= {ident: self._reported[ident] for ident in few}

    def deliver(self, address: str, batch: int | None = None) -> None:
        """Send what is in the outbox, so many at once or as it comes, until there is a receipt for all of it."""
        deadline = time.monotonic() + LIMIT_S
        while self._outbox:
            assert time.monotonic() < deadline, f"{len(self._outbox)} reports without a receipt after {LIMIT_S:g} s"
            size = batch or self._random.choice((1, self._random.randint(2, BATCH_LARGEST)))
            if not self._send(address, list(self._outbox.items())[:size]):
                time.sleep(PAUSE_S)
        self.hang_up()

    def hang_up(self) -> None:
        """Give up the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _send(self, address: str, some: Sequence[tuple[str, bytes]]) -> bool:
        """Send one request and take the receipts; return whether all of it is acknowledged."""
        single = len(some) == 1
        answer = self._exchange(address, single=single, events=[spelled for _, spelled in some])
        if answer is None:
            return False
        if answer.status == 503:
            assert_unavailable(answer)
            self.unavailable += 1
            return False
        assert answer.status in ((200, 201) if single else (202,)), answer
        results = (_result.decode(answer.body),) if single else _results.decode(answer.body).results
        assert [ident for ident, _ in some] == [result.id for result in results]
        for (ident, spelled), result in zip(some, results, strict=True):
            if result.status in RECEIPTS:
                canonical = codec.encode(codec.decode(spelled))
                self.receipts.append(Receipt(result.status, str(result.position), canonical, self._source))
                del self._outbox[ident]
            else:
                # Redis went away in the middle of a batch: nothing else may keep one of these from being recorded.
                assert result.problem
                assert (result.status, result.problem.retryable) == ("rejected", True), result
        return all(ident not in self._outbox for ident, _ in some)

    def _exchange(self, address: str, *, single: bool, events: Sequence[bytes]) -> Answer | None:
        """Send a request; return the answer, or None if it did not come, or not all of it."""
        body = events[0] if single else b"[" + b",".join(events) + b"]"
        headers = {**self._headers, "content-type": EVENT_TYPE if single else BATCH_TYPE}
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=LIMIT_S)
            self._connection.request("POST", "/v1/events", body, headers)
            self.sent()
            response = self._connection.getresponse()
            answer = Answer(
                response.status,
                response.headers.get("content-type", ""),
                response.headers.get("retry-after"),
                response.read(),
            )
        except (OSError, http.client.HTTPException):
            self.hang_up()
            return None
        self.answered()
        return answer


def reports_of(random: Random, first: int, quantity: int, device: str) -> list[bytes]:
    """Return the canonical reports of a device, every fourth an amendment of one before; ids count from `first`."""
    made: list[bytes] = []
    for number in range(first, first + quantity):
        head: given.Head = {"id": number, "device": device, "reportno": number, "time": recently(minutes=1)}
        if number % 4 == 3 and number - first >= 1:
            head |= {"amends": number - 1, "revision": 1}
        made.append(given.apprehension(persons={"SYR": random.randint(1, 9)}, **head))
    return made


def _nothing() -> None:
    return


# The moment of a kill


class Killing:
    """Kills something once, at a moment that a seed has drawn.

    That is: before or after the k-th command of the gateway on the log or the index, or when the k-th request of the
    devices is out, or when the k-th answer is in.
    """

    def __init__(self, random: Random, kill: Callable[[], None], at_most: int) -> None:
        self.moment = random.choice(("before", "after", "sent", "answered"))
        self.at = random.randint(1, at_most if self.moment in ("before", "after") else max(1, at_most // 4))
        self.done = threading.Event()
        self.reached = False
        self._kill = kill
        self._passed = 0
        self._guard = threading.Lock()

    def __str__(self) -> str:
        return f"killed {'' if self.reached else 'too late for '}{self.moment} {self.at}"

    def command(self, command: Command) -> Action:
        """Decide about a command, as the proxy's rule."""
        if command.name not in _COMMANDS or self.moment not in ("before", "after") or not self._reached():
            return Action.PASS
        if self.moment == "before":
            self.now()
            return Action.CUT_BEFORE
        # Dead before it can hear the answer to a command that takes effect; a server dies of this in another thread.
        threading.Thread(target=self.now).start()
        return Action.CUT_AFTER

    def sent(self) -> None:
        """A request is out."""
        if self.moment == "sent" and self._reached():
            self.now()

    def answered(self) -> None:
        """An answer is in."""
        if self.moment == "answered" and self._reached():
            self.now()

    def now(self) -> None:
        """Kill, unless that is done; return when it is."""
        with self._guard:
            if not self.done.is_set():
                self._kill()
                self.done.set()

    def _reached(self) -> bool:
        with self._guard:
            self._passed += 1
            here = self._passed == self.at
            self.reached |= here
            return here


# The judgement


def assert_unavailable(answer: Answer) -> None:
    """A 503 says that the same may be sent again, and when."""
    assert (503, PROBLEM_TYPE) == (answer.status, answer.media_type), answer
    problem = _problem.decode(answer.body)
    assert (503, "unavailable", True) == (problem.status, problem.code, problem.retryable), answer
    assert answer.retry_after, answer
    assert int(answer.retry_after) >= 1, answer


def assert_held(client: redis.Redis, prefix: str, side: str, receipts: Sequence[Receipt]) -> None:
    """Every receipt's position holds the report that it names: canonical bytes under the sender's name."""
    with client.pipeline(transaction=False) as pipe:
        for receipt in receipts:
            pipe.xrange(f"{{{prefix}:{side}}}:log", receipt.position, receipt.position)
        found = pipe.execute()
    for receipt, entries in zip(receipts, found, strict=True):
        told = [(receipt.position.encode(), {b"event": receipt.canonical, b"by": receipt.by.encode()})]
        assert told == entries, f"told {told}, but there is {entries}"


def assert_all_counted_once(client: redis.Redis, prefix: str, side: str, reports: Iterable[bytes]) -> None:
    """The log holds these reports and no other, and the tallies count each once; `reports` are apprehensions."""
    reports = set(reports)
    found = {fields[b"event"] for _, fields in log_of(client, prefix, side)}
    assert reports == found, f"not in the log: {reports - found}; nobody's: {found - reports}"
    assert_counted(client, prefix, side)
    tallies = stored(client, prefix, side).tallies
    originals = {given.uid(json.loads(report).get("amends") or json.loads(report)["id"]) for report in reports}
    assert len(originals) == sum(number for cell, number in tallies.items() if "|apprehensions|" in cell)
