"""`make bench`: the figures of ARCHITECTURE.md, as ratios within one run, medians of several.

Every variant runs in a process of its own, in turn with what it is held against, on embedded servers with the
append-only file on and `appendfsync always`. A name as argument runs that measurement only; `--quick` shrinks the logs.
"""

from __future__ import annotations

import http.client
import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import archive
import asking
import redis
import screen
from figures import QUICK, ROUNDS, p99_ms, ratio, show, show_waits
from servers import ROOT, SIDES, catch_up_now, empty, filled, gateway, made_reports, projecting, served

from schemas.http import BATCH_TYPE, EVENT_TYPE
from schemas.vocabulary import Side
from services.simulator.fleet import FleetPlan, fleet
from services.store.keys import PartitionKeys

CATCH_UP = 30_000 if QUICK else 300_000
MILLION = 100_000 if QUICK else 1_000_000
TYPED = 2_000 if QUICK else 10_000
VARIANTS = Path(__file__).with_name("variants.py")
UVICORN = (
    "--port", "{port}", "--log-level", "critical", "--no-access-log", "--loop", "uvloop", "--http", "httptools",
)  # fmt: skip


def main() -> None:
    """Run what was asked for, or everything."""
    wanted = [name for name in sys.argv[1:] if not name.startswith("--")]
    unknown = set(wanted) - MEASUREMENTS.keys()
    if unknown:
        sys.exit(f"no measurement {', '.join(sorted(unknown))}; there are {', '.join(MEASUREMENTS)}")
    for name, measure in MEASUREMENTS.items():
        if not wanted or name in wanted:
            measure()


def catch_up() -> None:
    """The projector catching up, against a bare XREAD-and-decode loop, and against a typed handler per message."""
    with filled(CATCH_UP) as (url, _):
        print(f"\ncatching up on {CATCH_UP:,} events, both sides")
        bare, projector = in_turn(url, ("bare",), ("projector",))
        typed = [run(url, "typed_handler", str(TYPED))["per_s"] for _ in range(ROUNDS)]
        show("bare redis-py XREAD-and-decode loop", bare, "events/s")
        show("projector", projector, "events/s")
        show(f"FastStream, typed handler per message with HINCRBY ({TYPED:,} events)", typed, "events/s")
        ratio("projector against the bare loop", projector, bare)
        ratio("projector against the typed handler", projector, typed)


def replay() -> None:
    """Replay from the stream, against the eventsourcing library folding as many from its in-memory recorder."""
    with filled(MILLION) as (url, _):
        print(f"\nreplaying {MILLION:,} events")
        ours, library, mutate = in_turn(
            url, ("replay",), ("eventsourcing", str(MILLION)), ("eventsourcing_mutate", str(MILLION))
        )
        show("replay from the stream", ours, "events/s")
        show("eventsourcing: repository.get from the in-memory recorder", library, "events/s")
        show("eventsourcing: mutate() alone, on events already decoded", mutate, "events/s")
        ratio("replay against eventsourcing", ours, library)
        ratio("replay against its mutate() alone", ours, mutate)


def latency() -> None:
    """Append to tally: from before XADD until the change that brings the tallies to it is on the change feed."""
    with filled(1_000) as (url, _), projecting(url):
        seconds = 5 if QUICK else 20
        print(f"\nappend to tally at 200 reports/s for {seconds} s")
        plan = FleetPlan(seed=2, reports=200 * seconds)
        reports = [(submission.side, submission.event) for submission in fleet(plan)]
        client = redis.Redis.from_url(url, protocol=2)

        def append(side: Side, event: bytes) -> bytes:
            position: bytes = client.execute_command("XADD", PartitionKeys("ft", side).log, "*", "event", event)
            return position

        show_waits(tallied_after_s(url, reports, append, rate=200))


def memory() -> None:
    """Redis memory for log, index and tallies, against the payload bytes."""
    with filled(MILLION) as (url, payload):
        catch_up_now(url)
        client = redis.Redis.from_url(url, protocol=2)
        print(f"\nmemory for {MILLION:,} reports ({payload / MILLION:.0f} bytes each, canonical JSON)")
        total = 0
        for what in ("log", "index", "tallies"):
            used = 0
            for side in SIDES:
                keys = PartitionKeys("ft", side)
                key = keys.log if what == "log" else getattr(keys.generation("g1"), what)
                used += client.memory_usage(key, samples=0) or 0
            total += used
            print(f"  {what:8s} {used / MILLION:7.1f} bytes a report")
        print(f"  ratio: all three against the payload  {total / payload:.3f}")


def restart() -> None:
    """Restart to live with a long log behind, against a short one."""
    print(f"\nrestart to live: one new report tallied, with {MILLION:,} events in the log against 10,000")
    with filled(MILLION) as (long, _), filled(10_000) as (short, _):
        catch_up_now(long)
        catch_up_now(short)
        pass_one, pass_two = [], []
        for _ in range(ROUNDS):
            pass_one.append(run(long, "restart")["seconds"])
            pass_two.append(run(short, "restart")["seconds"])
        show(f"{MILLION:,}", pass_one, "s", 3)
        show("10,000", pass_two, "s", 3)
        ratio("long against short", pass_one, pass_two)


def batches() -> None:
    """Reports in batches of 50 through HTTP into the log, against a bare redis-py pipeline of the same bytes."""
    count = 5_000 if QUICK else 40_000
    print(f"\n{count:,} reports in batches of 50 through HTTP into the log, appendfsync always")
    for clients in (1, 8):
        ours, bare = [], []
        for number in range(ROUNDS):
            reports = made_reports(count, number)
            with empty() as url, gateway(url) as (port, token):
                batched = [b"[" + b",".join(reports[at : at + 50]) + b"]" for at in range(0, count, 50)]
                requests = [request(body, token, BATCH_TYPE) for body in batched]
                took = sent_s(port, [requests[at::clients] for at in range(clients)])[0]
                ours.append(count / took)
                bare.append(count / bare_pipeline_s(url, reports))
        show(f"through the gateway, {clients} at once", ours, "reports/s")
        show("bare redis-py, pipelined XADD", bare, "reports/s")
        ratio(f"batches of {clients} against the bare pipeline", ours, bare)


def single() -> None:
    """One report a request from 8 clients, against a bare Litestar route that answers 201."""
    count = 4_000 if QUICK else 24_000
    print(f"\n{count:,} single reports from 8 clients, appendfsync always")
    ours, bare, waits = [], [], []
    for number in range(ROUNDS):
        reports = made_reports(count, number)
        with empty() as url, gateway(url) as (port, token):
            requests = [request(body, token, EVENT_TYPE) for body in reports]
            took, each = sent_s(port, [requests[at::8] for at in range(8)])
            ours.append(count / took)
            waits.append(p99_ms(each))
        with served("-m", "uvicorn", "--app-dir", str(VARIANTS.parent), "bare_litestar:app", *UVICORN) as (port, _):
            bare.append(count / sent_s(port, [requests[at::8] for at in range(8)])[0])
    show("single POST through the gateway", ours, "reports/s")
    show("its p99", waits, "ms", 1)
    show("bare Litestar route that answers 201", bare, "requests/s")
    ratio("single POST against the bare route", ours, bare)


def post_to_tally() -> None:
    """From before a POST until the change that counts it is on the change feed."""
    seconds = 5 if QUICK else 20
    with empty() as url, projecting(url), gateway(url) as (port, token):
        print(f"\nPOST to tally at 100 reports/s for {seconds} s")
        connection = http.client.HTTPConnection("127.0.0.1", port)

        def post(_side: Side, event: bytes) -> bytes:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": EVENT_TYPE}
            connection.request("POST", "/v1/events", event, headers)
            position: str = json.loads(connection.getresponse().read())["position"]
            return position.encode()

        reports = [(Side("SI"), event) for event in made_reports(100 * seconds, 0)]
        waits = tallied_after_s(url, reports, post, rate=100)
        show_waits(waits)


MEASUREMENTS: dict[str, Callable[[], None]] = {
    "catch-up": catch_up,
    "replay": replay,
    "latency": latency,
    "memory": memory,
    "restart": restart,
    "batches": batches,
    "single": single,
    "post-to-tally": post_to_tally,
    "archive-replay": lambda: archive.replaying(run),
    "archive-room": lambda: archive.taking_room(run),
    "sql": lambda: asking.sql(run),
    **screen.MEASUREMENTS,
}


def request(body: bytes, token: str, content_type: str) -> bytes:
    """Return the bytes of a POST."""
    head = (
        f"POST /v1/events HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def sent_s(port: int, clients: list[list[bytes]]) -> tuple[float, list[float]]:
    """Send requests from so many clients in a process of their own; return the seconds in all, and of each."""
    with tempfile.NamedTemporaryFile() as file, tempfile.NamedTemporaryFile() as found_in:
        pickle.dump(clients, file)
        file.flush()
        command = [sys.executable, str(VARIANTS.with_name("load.py")), str(port), file.name, found_in.name]
        subprocess.run(command, cwd=ROOT, check=True)
        found = json.load(found_in)
    return found["seconds"], found["waits_s"]


def bare_pipeline_s(url: str, reports: list[bytes]) -> float:
    """Return how long redis-py takes to append the same bytes, 50 a pipeline."""
    with redis.Redis.from_url(url, protocol=2) as client:
        began = time.perf_counter()
        for at in range(0, len(reports), 50):
            pipe = client.pipeline(transaction=False)
            for report in reports[at : at + 50]:
                pipe.execute_command("XADD", "bare", "*", "event", report)
            pipe.execute()
        return time.perf_counter() - began


def tallied_after_s(
    url: str, reports: list[tuple[Side, bytes]], send: Callable[[Side, bytes], bytes], *, rate: int
) -> list[float]:
    """Send all reports but the first at a steady rate; return how long each took to show in the change feed."""
    (_, first), *reports = reports
    sent: dict[tuple[Side, int, int], float] = {}
    seen: list[tuple[Side, int, int, float]] = []
    with redis.Redis.from_url(url, protocol=2) as client:
        _wait_until_projecting(client, first)
        # Noted here, before a report is sent: in the thread it would be a race with the first of them.
        goal = _entries(client) + len(reports)
        last = _ends_of_feeds(client)
        failed = threading.Event()
        watching = threading.Thread(target=_watch, args=(url, seen, last, goal, failed))
        watching.start()
        try:
            started = time.perf_counter()
            for number, (side, event) in enumerate(reports):
                time.sleep(max(0.0, started + number / rate - time.perf_counter()))
                before = time.perf_counter()
                sent[(side, *_order(send(side, event)))] = before
            watching.join(30)
        finally:  # before its server ends
            late = watching.is_alive()
            failed.set()
            watching.join()
        if late:
            sys.exit(f"of {goal:,} entries {goal - _entries(client):,} were not counted within 30 s after the last")
    waits = []
    for side in SIDES:
        changes = sorted((ms, sequence, at) for change_side, ms, sequence, at in seen if change_side == side)
        for (report_side, *position), before in sorted(sent.items(), key=lambda item: item[0]):
            if report_side == side:
                at = next(at for ms, sequence, at in changes if [ms, sequence] >= position)
                waits.append(at - before)
    return waits


def _wait_until_projecting(client: Any, event: bytes) -> None:
    """Append a report nobody times and wait until it is tallied: then the projector has started."""
    before = _entries(client)
    client.execute_command("XADD", PartitionKeys("ft", Side("SI")).log, "*", "event", event)
    client.execute_command("XADD", PartitionKeys("ft", Side("HR")).log, "*", "event", event)
    while _entries(client) < before + 2:
        time.sleep(0.01)


def _ends_of_feeds(client: Any) -> dict[str, bytes]:
    feeds = [PartitionKeys("ft", side).changes for side in SIDES]
    newest = {feed: client.xrevrange(feed, count=1) for feed in feeds}
    return {feed: found[0][0] if found else b"0" for feed, found in newest.items()}


def _watch(
    url: str,
    seen: list[tuple[Side, int, int, float]],
    last: dict[Any, Any],
    goal: int,
    failed: threading.Event,
) -> None:
    feeds = {PartitionKeys("ft", side).changes: side for side in SIDES}
    with redis.Redis.from_url(url, protocol=2) as client:
        while not failed.is_set():
            # Asked first: what was counted by then is in the feed that is read next.
            done = _entries(client) >= goal
            for feed, changes in client.xread(last, block=None if done else 500) or []:
                at = time.perf_counter()
                for entry_id, _ in changes:
                    last[feed.decode()] = entry_id
                    seen.append((feeds[feed.decode()], *_order(entry_id), at))
            if done:
                return


def _entries(client: Any) -> int:
    return sum(
        int(client.hget(PartitionKeys("ft", side).generation("g1").checkpoint, "entries") or 0) for side in SIDES
    )


def _order(position: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = position.partition(b"-")
    return int(milliseconds), int(sequence)


def in_turn(url: str, *variants: tuple[str, ...]) -> list[list[float]]:
    """Run variants one after the other, several rounds; return the rates of each."""
    rates: list[list[float]] = [[] for _ in variants]
    for _ in range(ROUNDS):
        for variant, found in zip(variants, rates, strict=True):
            found.append(run(url, *variant)["per_s"])
    return rates


def run(url: str, name: str, *arguments: str) -> dict[str, float]:
    """Run one variant in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(VARIANTS), name, url, *arguments]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


if __name__ == "__main__":
    main()
