"""Patrols for tests: an outbox that has joined, a unit without pauses, and a gateway that answers as it is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple, Self

import msgspec

from schemas.events import ApprehensionData, CitizenshipCount
from schemas.http import BATCH_TYPE, DeviceStanding, Problem, Result, Results
from schemas.vocabulary import Position, Side
from services.field import FieldUnit

SOURCE: Final = "/SI/SI-MP-07/9f3c2a"
TOKEN: Final = "t" * 43
ROOT: Final = Path(__file__).parents[3]
NOWHERE: Final = "http://127.0.0.1:9"


def link(address: str = NOWHERE, token: str = TOKEN, source: str = SOURCE) -> str:
    """Return an enrolment link."""
    return f"{address}/#token={token}&source={source}"


def joined(outbox: Path, address: str = NOWHERE, token: str = TOKEN, **more: Any) -> FieldUnit:
    """Join, and return a unit that does not pause, and does not send by itself."""
    FieldUnit.join(outbox, link(address, token))
    return FieldUnit(outbox, **{"pause": lambda *_: None, "jitter": lambda: 0.0, **more})


def persons(section: str = "koper", **count: int) -> ApprehensionData:
    """Return what an apprehension says."""
    return ApprehensionData(section, tuple(CitizenshipCount(*each) for each in (count or {"SYR": 1}).items()))


class Request(NamedTuple):
    """What a stub was asked."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def ids(self) -> list[str]:
        """The ids of the reports in it."""
        return [event["id"] for event in msgspec.json.decode(self.body)]


class Reply(NamedTuple):
    """What a stub answers."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}


def receipt(*results: Result) -> Reply:
    """Return an answer 202 with results."""
    return Reply(202, msgspec.json.encode(Results(results)), {"Content-Type": "application/json"})


def recorded(ident: str, **more: Any) -> Result:
    """Return that a report was recorded."""
    return Result(id=ident, **{"status": "recorded", "position": Position("1700000000000-0"), **more})


def all_recorded(request: Request) -> Reply:
    """Record whatever comes."""
    return receipt(*map(recorded, request.ids))


def refusal(problem: Problem, **headers: str) -> Reply:
    """Return a refusal of the request as a whole."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply(problem.status, msgspec.json.encode(problem), {"Content-Type": "application/problem+json", **named})


def standing(highest: int = 0, *missing: tuple[int, int], position: str = "1700000000000-0") -> Reply:
    """Return how a device stands."""
    body = DeviceStanding(role="unit", side=Side("SI"), unit="SI-MP-07", device="9f3c2a", highest=highest,
                          missing=missing, reused=0, position=Position(position))  # fmt: skip
    return Reply(200, msgspec.json.encode(body), {"Content-Type": "application/json"})


class Stub:
    """A gateway that answers what it is told: `answer` to reports, `stands` to who asks for its standing."""

    def __init__(self) -> None:
        self.answer: Callable[[Request], Reply] = all_recorded
        self.stands: Callable[[], Reply] = standing
        self.asked: list[Request] = []
        self.url = ""

    @property
    def posted(self) -> list[Request]:
        """The requests with reports; each must be one that the contract allows."""
        found = [request for request in self.asked if request.method == "POST"]
        for request in found:
            assert ("/v1/events", BATCH_TYPE) == (request.path, request.headers["content-type"])
            assert f"Bearer {TOKEN}" == request.headers["authorization"]
            assert datetime.fromisoformat(request.headers["fieldtally-sent"]).tzinfo is UTC
        return found

    @property
    def sent(self) -> list[list[str]]:
        """The ids of the reports of each such request."""
        return [request.ids for request in self.posted]


@contextmanager
def stub_gateway(port: int = 0) -> Iterator[Stub]:
    """Serve a stub in a thread, on a free port unless one is named."""
    stub = Stub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): text for name, text in self.headers.items()}
            request = Request(self.command, self.path, headers, body)
            stub.asked.append(request)
            reply = stub.stands() if self.command == "GET" else stub.answer(request)
            self.send_response(reply.status)
            for name, text in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST = _serve  # noqa: N815  # the names that the library looks for

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that leaves early is what some tests are about."""

    with Server(("127.0.0.1", port), Handler) as server:
        stub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield stub
        finally:
            server.shutdown()
            thread.join()


def patrol(outbox: Path, seed: int, told: Callable[[str], object]) -> None:
    """Report, amend and withdraw for ever, while a sender runs; tell each id once the call has returned."""
    random = Random(seed)
    with FieldUnit(outbox, pause=lambda wake, _: wake.wait(0.002)) as unit:
        mine: list[Any] = []
        while True:
            threading.Event().wait(random.random() * 0.003)  # the sender's turn: a patrol has other work too
            known = random.choice(mine) if mine and random.random() < 0.4 else None
            if known is None:
                mine.append(unit.report(persons(SYR=random.randint(1, 9))).id)
                told(str(mine[-1]))
            elif random.random() < 0.7:
                told(str(unit.amend(known, persons(AFG=random.randint(1, 9))).id))
            else:
                told(str(unit.withdraw(known, "did-not-occur").id))


_CRADLE: Final = """
import json, os, sys
from pathlib import Path
import httpx
from tests.services.field.patrols import patrol

for line in sys.stdin:
    outbox, seed = json.loads(line)
    pid = os.fork()
    if not pid:
        patrol(Path(outbox), seed, lambda ident: os.write(1, f"{ident}\\n".encode()))
    os.write(1, f"{pid}\\n".encode())
    os.waitpid(pid, 0)
    os.write(1, b"ended\\n")
"""


class Patrols:
    """Patrols in processes of their own, forked from one that has imported everything, and killed while they report."""

    def __enter__(self) -> Self:
        self._cradle = subprocess.Popen(
            [sys.executable, "-c", _CRADLE], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        with self._cradle:
            assert self._cradle.stdin is not None
            self._cradle.stdin.close()

    def killed_after(self, outbox: Path, seed: int, reports: int) -> list[str]:
        """Start a patrol and kill it when it has reported so often; return the ids that it was told were stored."""
        assert self._cradle.stdin is not None
        self._cradle.stdin.write(msgspec.json.encode((str(outbox), seed)).decode() + "\n")
        self._cradle.stdin.flush()
        pid, idents = 0, []
        while not pid or len(idents) < reports:
            line = self._line()
            if line.isdecimal():
                pid = int(line)
            else:
                idents.append(line)
        os.kill(pid, signal.SIGKILL)
        while (line := self._line()) != "ended":
            idents.append(line)
        return idents

    def _line(self) -> str:
        assert self._cradle.stdout is not None
        line = self._cradle.stdout.readline().strip()
        assert line, "the patrol has ended by itself"
        return line
