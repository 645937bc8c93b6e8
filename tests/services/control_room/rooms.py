"""Control rooms for tests: one side on a real server, a whole room that is served, and those who look at it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from copy import deepcopy
from datetime import UTC, datetime
from itertools import count, repeat
from typing import Any, Final, NamedTuple, Self

import httpx
import redis
import uvloop

from schemas.screen import SideShown
from schemas.vocabulary import Position, Side
from services.control_room.app import SHUTDOWN_S, ControlRoomApp
from services.control_room.room import Change, RoomSide, read_change
from services.projector.partition import Partition
from services.replay.processes import rebuild_sides
from services.runtime import serving
from services.runtime.settings import Settings
from services.store.connection import connect
from services.store.contract import Entry
from services.store.glance import RedisGlance
from services.store.keys import PartitionKeys
from services.store.log import RedisLog
from services.store.tally_store import RedisTallyStore
from services.tally.fold import State
from tests import given, oracle
from tests.projectors import Lines, project
from tests.waiting import wait_for

BOTH: Final = (Side("SI"), Side("HR"))
AT_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""A time before which nothing was: a room that thinks it is now has the hours of all reports."""

# Nothing of one side occurs on the other.
WORDS: Final = {"SI": ("SI-MP", "koper", "SI-OP-1", "1111"), "HR": ("HR-PU", "rijeka", "HR-OP-2", "2222")}
Log = Sequence[tuple[str, Mapping[bytes, bytes]]]


# One side, step by step


class OneSide:
    """A side: its log to write to, a projection that counts when told to, and the room's view of it."""

    def __init__(self, settings: Settings, url: str, client: Any, side: str = "SI", now: datetime = AT_FIRST) -> None:
        (self.settings,) = [one for one in settings.sides if one.side == side]
        self.keys = PartitionKeys(settings.prefix, Side(side))
        self.client = client
        self.log = RedisLog(client, url, self.keys)
        self.store = RedisTallyStore(client, url, self.keys)
        self.glance = RedisGlance(client, url, self.keys)
        self.now = now
        self.room = self.new_room()
        self.told: list[Any] = []
        self.room.on_change = lambda message, _after: self.told.append(message)
        self.room.on_side = self.told.append
        self.room.on_reset = self.told.append
        self._partition = Partition(self.settings, self.log, self.store)

    def new_room(self) -> RoomSide:
        """Return another view of the same side."""
        return RoomSide(self.settings, self.log, self.store, self.glance, lambda: self.now)

    async def write(self, entries: Iterable[Mapping[bytes, bytes]], received: datetime | None = None) -> list[Position]:
        """Write entries to the log, counted or not; as received now, or at another time, one after the other."""
        ids = count(int(received.timestamp() * 1000)) if received else repeat("*")
        return [
            Position((await self.client.xadd(self.keys.log, {**fields}, str(ident))).decode())
            for fields, ident in zip(entries, ids, strict=False)
        ]

    async def count(self) -> None:
        """Count what is in the log, as one batch."""
        await self._partition.reload()
        if entries := await self.log.read_after(self._partition.checkpoint.position, 100_000):
            assert await self._partition.turn(entries)

    async def record(self, *events: bytes) -> Position:
        """Write events, and count them in one batch; return where the last one stands."""
        positions = await self.write([{b"event": event} for event in events])
        await self.count()
        return positions[-1]

    async def changes(self, after: str | None = None) -> list[Change]:
        """Return what the feed has after a position, or after that of the room."""
        found = await self.client.xrange(self.keys.changes, f"({after or self.room.position}", "+")
        entries = [Entry(Position(position.decode()), fields) for position, fields in found]
        return [change for entry in entries if (change := read_change(entry))]

    async def follow(self) -> bool:
        """Let the room take what the feed has for it."""
        return await self.room.follow(await self.changes())

    async def entries(self, until: str = "+") -> list[tuple[str, Mapping[bytes, bytes]]]:
        """Return the log."""
        return [(at.decode(), fields) for at, fields in await self.client.xrange(self.keys.log, "-", until)]


@asynccontextmanager
async def one_side(settings: Settings, url: str | None = None, **more: Any) -> AsyncIterator[OneSide]:
    """Yield a side of these settings; `url` is the server's, if not that of the settings."""
    address = url or settings.redis_url
    assert address
    client = connect(address)
    side = OneSide(settings, address, client, **more)
    try:
        yield side
    finally:
        await side.store.close()
        await client.aclose()


# What ought to be shown


def hours_of(log: Log, side: str) -> dict[str, int]:
    """Return the counts by the hour of the events in force, counted by the oracle."""
    hours: Counter[str] = Counter()
    for versions in _reports(log, side).values():
        _, event = max(versions, key=lambda one: one[1]["revision"])  # the first of them
        if event["type"] == "opening-balance":
            continue
        hour = event["time"][0].timestamp() // 3_600 * 3_600
        for cell, number in oracle._cells(event, oracle.ZoneInfo("UTC")).items():
            _, operation, section, _, measure, _ = cell.split("|")
            hours[f"{hour:.0f}|{operation}|{section}|{measure}"] += number
    return {name: number for name, number in hours.items() if number}


def outcomes_of(log: Log, side: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return what became of each report that was not parked, with its event, by position in the order of the log."""
    judged: dict[str, str] = {}
    for versions in _reports(log, side).values():
        judged |= oracle._judged(versions)
    events = {at: event for at, fields in log if (event := oracle.event_of(fields, side))}
    return {at: (judged[at], event) for at, event in events.items() if judged[at] != "conflict"}


def latest_of(log: Log, side: str) -> list[str]:
    """Return the positions of the newest reports that are neither parked nor have only come again."""
    seen: set[str] = set()
    found = []
    for at, (outcome, event) in outcomes_of(log, side).items():
        original_came = event["id"] in seen
        if not event["revision"]:
            seen.add(event["id"])
        late = outcome == "superseded" and not event["revision"] and not original_came
        if late or outcome in ("applied", "replaced"):
            found.append(at)
    return found[:-31:-1]


def amendments_of(log: Log, side: str, zone: str) -> dict[str, dict[str, int]]:
    """Return by how much each amendment changed the tallies: what they were after it, less what they were before.

    The newest come first.
    """
    found: dict[str, dict[str, int]] = {}
    positions = [at for at, _ in log]
    for at, (outcome, event) in reversed(outcomes_of(log, side).items()):
        if event["revision"] and outcome in ("applied", "replaced"):
            place = positions.index(at)
            after = Counter(oracle.count(side, zone, log[: place + 1]).tallies)
            after.subtract(oracle.count(side, zone, log[:place]).tallies)
            found[at] = {cell: number for cell, number in after.items() if number}
    return found


def amended_of(amendments: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Return by how much amendments changed each cell together, 0 where they cancel out."""
    found: Counter[str] = Counter()
    for changes in amendments.values():
        for cell, change in changes.items():
            found[cell] += change
    return dict(found)


def _reports(log: Log, side: str) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    reports: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for position, fields in log:
        if event := oracle.event_of(fields, side):
            reports.setdefault(event.get("amends", event["id"]), []).append((position, event))
    return reports


# A whole room, served


class Served(NamedTuple):
    """A control room that serves: where, what it holds, and what it said."""

    address: str
    app: ControlRoomApp
    lines: Lines

    def side(self, side: str = "SI") -> RoomSide:
        """Return a side as the room has it."""
        return self.app.room.sides[Side(side)]

    @property
    def trouble(self) -> str:
        """What a heartbeat would say now."""
        return self.app.room.heartbeat(tuple(self.app.room.sides)).trouble


class _InThread(serving._Server):
    """Signals are for the main thread."""

    def capture_signals(self) -> Any:
        return nullcontext()


@contextmanager
def running_room(settings: Settings, url: str | None = None) -> Iterator[Served]:
    """Serve in a thread of this process, as `fieldtally control-room` does; `url` is the server's, if another."""
    address = url or settings.redis_url
    assert address
    lines = Lines()
    apps: list[ControlRoomApp] = []
    servers: list[_InThread] = []

    async def rebuild(stops: Mapping[Side, Position]) -> Mapping[Side, State]:
        return await asyncio.to_thread(rebuild_sides, settings, address, stops)

    async def serve(listener: socket.socket) -> None:
        apps.append(ControlRoomApp(settings, address, lines.logger(), rebuild))
        servers.append(_InThread(apps[0], timeout_graceful_shutdown=SHUTDOWN_S, proxy_headers=True))
        with suppress(SystemExit):  # what uvicorn makes of an application that did not start
            await servers[0].serve(sockets=[listener])

    def run(listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as the product does
            runner.run(serve(listener))

    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        thread = threading.Thread(target=run, args=(listener,))
        thread.start()
        try:
            wait_for(lambda: (servers and servers[0].started) or not thread.is_alive(), what="the room to serve")
            if apps[0].failure:
                raise apps[0].failure
            yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", apps[0], lines)
        finally:
            servers[0].should_exit = True
            thread.join(20)
            assert not thread.is_alive()


class Message(NamedTuple):
    """One message of a stream."""

    event: str
    id: str
    data: Any


class Browser:
    """Somebody who looks: a client with a cookie, or without."""

    def __init__(self, address: str, token: str | None = None) -> None:
        self.token = token
        # Without certificates, which take longer to read than most tests.
        self._client = httpx.Client(base_url=address, timeout=20, verify=False, cookies=_cookies(token))  # noqa: S501

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **headers: str) -> httpx.Response:
        """Ask for something; underscores in names of headers stand for hyphens."""
        return self._client.get(path, headers={name.replace("_", "-"): text for name, text in headers.items()})

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send any request."""
        return self._client.request(method, path, **options)

    def snapshot(self, query: str = "") -> dict[str, Any]:
        """Return the snapshot."""
        answer = self.get(f"/api/tallies{query}")
        assert answer.status_code == 200, answer.text
        snapshot: dict[str, Any] = answer.json()
        return snapshot

    @contextmanager
    def listening(self, since: str = "", **headers: str) -> Iterator[Listener]:
        """Listen to a stream in a thread."""
        query = f"?since={since}" if since else ""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        with self._client.stream("GET", f"/api/stream{query}", headers=named) as answer:
            assert answer.status_code == 200, answer.read()
            listener = Listener(answer)
            try:
                yield listener
            finally:
                listener.leave()


class Listener:
    """What has come on a stream."""

    def __init__(self, answer: httpx.Response) -> None:
        self.headers = answer.headers
        self.messages: list[Message] = []
        self.text = ""
        self.ended = False
        self._answer = answer
        self._socket: socket.socket = answer.extensions["network_stream"].get_extra_info("socket")
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def named(self, *events: str) -> list[Message]:
        """Return the messages of some kinds."""
        return [message for message in list(self.messages) if message.event in events]

    def leave(self) -> None:
        """Close the connection."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _listen(self) -> None:
        with suppress(httpx.HTTPError):
            rest = ""
            for text in self._answer.iter_text():
                self.text += text
                *whole, rest = (rest + text).split("\n\n")
                self.messages += [read for block in whole if (read := _read(block))]
            self.ended = True


def read_messages(text: str) -> list[Message]:
    """Read the messages of a stream."""
    return [read for block in text.split("\n\n") if (read := _read(block))]


def _read(block: str) -> Message | None:
    fields = dict(line.split(": ", 1) for line in block.splitlines())
    return Message(fields["event"], fields.get("id", ""), json.loads(fields["data"])) if "event" in fields else None


def _cookies(token: str | None) -> dict[str, str]:
    return {"fieldtally_session": token} if token else {}


def told(side: str) -> list[bytes]:
    """Return reports that say the words of a side."""
    unit, section, operation, count = WORDS[side]
    head: dict[str, Any] = {"side": side, "unit": f"{unit}-07", "device": unit.lower(), "subject": operation}
    return [
        given.operation_opened(id=1, sections={section: "joint"}, name=f"Plan of {operation}", **head),
        given.apprehension(id=2, section=section, persons={"SYR": int(count)}, **head),
        given.apprehension(id=3, section=section, persons={"SYR": 7}, **head),
        given.apprehension(id=4, amends=3, section=section, persons={"SYR": 8}, **head),
        given.nil_report(id=5, section=section, **head),
    ]


def tell(client: redis.Redis, settings: Settings) -> None:
    """Let each side report its own, and count it."""
    for number, side in enumerate(WORDS):
        at = int(time.time() * 1_000) - 1_000 * number  # so that no position occurs on both sides
        for raw in told(side):
            fields: Any = given.entry(raw, by=f"/{WORDS[side][0]}-07/x")
            client.xadd(f"{{{settings.prefix}:{side}}}:log", fields, f"{at}-*")
    project(settings)


def holds(content: bytes, word: str) -> bool:
    """Tell whether a word is in there; a count only as a number of its own, not in a digest or a time."""
    if word.isdecimal():
        return re.search(rb"(?<![\w.])%b(?!\w)" % word.encode(), content) is not None
    return word.encode() in content


def cells_of(client: redis.Redis, prefix: str, side: str = "SI", generation: str = "g1") -> dict[str, int]:
    """Return the stored tallies, read by a plain client."""
    rows: Any = client.hgetall(f"{{{prefix}:{side}}}:{generation}:tallies")
    return {cell.decode(): int(count) for cell, count in rows.items()}


def shows(served: Served, client: redis.Redis, prefix: str, *sides: str) -> bool:
    """Tell whether the room has the stored tallies and is at their position."""
    for side in sides or ("SI",):
        live = (client.get(f"{{{prefix}:{side}}}:live") or b"g1").decode()
        position = client.hget(f"{{{prefix}:{side}}}:{live}:checkpoint", "position") or b"0-0"
        room = served.side(side)
        if room.position != position.decode() or room.cells != cells_of(client, prefix, side, live):
            return False
    return True


def add_up(snapshot: Mapping[str, Any], messages: Iterable[Message]) -> dict[str, dict[str, int]]:
    """Return the cells of each side as a page has them: a snapshot, and what the stream said after it."""
    cells = {side["side"]: dict(side["cells"]) for side in snapshot["sides"]}
    for message in messages:
        if message.event == "change":
            held = cells[message.data["side"]]
            held |= message.data["cells"]
            for cell in [cell for cell, count in held.items() if not count]:
                del held[cell]
    return cells


def about(shown: SideShown) -> dict[str, Any]:
    """Return what a side shows of its log, without when it was looked at."""
    names = ("position", "entries", "generation", "digest", "operations", "cells", "devices", "hours", "latest",
             "amendments", "parked")  # fmt: skip
    return {name: deepcopy(getattr(shown, name)) for name in names}  # the room's own dictionaries go on changing
