"""`make bench`: the figures of ARCHITECTURE.md, as ratios within one run, medians of several.

Every variant runs in a process of its own, in turn with what it is held against, on embedded servers with the
append-only file on and `appendfsync always`. A name as argument runs that measurement only; `--quick` shrinks the logs.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import redis

from schemas.vocabulary import Side
from services.runtime.embedded import embedded_server
from services.simulator.fleet import FleetPlan, fleet
from services.store.keys import PartitionKeys

QUICK = "--quick" in sys.argv
ROUNDS = 3 if QUICK else 5
CATCH_UP = 30_000 if QUICK else 300_000
MILLION = 100_000 if QUICK else 1_000_000
TYPED = 2_000 if QUICK else 10_000
SIDES = (Side("SI"), Side("HR"))
VARIANTS = Path(__file__).with_name("variants.py")
ROOT = Path(__file__).parents[2]
PROJECT = [sys.executable, "-m", "services.cli", "project"]


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
        print("\nappend to tally at 200 reports/s for 20 s")
        waits = tallied_after_s(url, rate=200, seconds=5 if QUICK else 20)
        cuts = statistics.quantiles(waits, n=1000, method="inclusive")
        p50, p99, p999 = (f"{cuts[at] * 1e3:.1f} ms" for at in (499, 989, 998))
        print(f"  {len(waits):,} reports: p50 {p50}, p99 {p99}, p99.9 {p999}")


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


MEASUREMENTS: dict[str, Callable[[], None]] = {
    "catch-up": catch_up,
    "replay": replay,
    "latency": latency,
    "memory": memory,
    "restart": restart,
}


@contextmanager
def filled(reports: int, days: int = 30) -> Iterator[tuple[str, int]]:
    """Yield the URL of a server whose logs hold a simulated fleet's reports, and the bytes of their payload."""
    with tempfile.TemporaryDirectory(prefix="fieldtally-bench-") as folder, embedded_server(Path(folder)) as url:
        client = redis.Redis.from_url(url, protocol=2)
        pipe = client.pipeline(transaction=False)
        payload = 0
        period = timedelta(days=days)
        for number, submission in enumerate(fleet(FleetPlan(seed=1, reports=reports, period=period)), 1):
            pipe.execute_command("XADD", PartitionKeys("ft", submission.side).log, "*", "event", submission.event)
            payload += len(submission.event)
            if number % 1_000 == 0:
                pipe.execute()
                if sys.stderr.isatty():
                    print(f"\r  filling a log: {number:,} of {reports:,}", end="", file=sys.stderr)
        pipe.execute()
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)
        yield url, payload


def catch_up_now(url: str) -> None:
    """Bring the tallies to the log's end."""
    environment = os.environ | {"FIELDTALLY_REDIS_URL": url, "FIELDTALLY_LOG_LEVEL": "warning"}
    subprocess.run([*PROJECT, "--until-caught-up"], env=environment, cwd=ROOT, check=True)


@contextmanager
def projecting(url: str) -> Iterator[None]:
    """Keep a projector running."""
    catch_up_now(url)
    environment = os.environ | {"FIELDTALLY_REDIS_URL": url}
    with subprocess.Popen(PROJECT, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        yield
        process.terminate()


def tallied_after_s(url: str, *, rate: int, seconds: int) -> list[float]:
    """Append to both sides at a steady rate; return how long each report took to show in the change feed."""
    sent: dict[tuple[Side, int, int], float] = {}
    seen: list[tuple[Side, int, int, float]] = []
    reports = list(fleet(FleetPlan(seed=2, reports=rate * seconds)))
    client = redis.Redis.from_url(url, protocol=2)
    watching = threading.Thread(target=_watch, args=(url, seen, len(reports)))
    watching.start()
    _wait_until_projecting(client, reports[0].event)
    started = time.perf_counter()
    for number, submission in enumerate(reports):
        time.sleep(max(0.0, started + number / rate - time.perf_counter()))
        before = time.perf_counter()
        position = client.execute_command(
            "XADD", PartitionKeys("ft", submission.side).log, "*", "event", submission.event
        )
        sent[(submission.side, *_order(position))] = before
    watching.join(30)
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


def _watch(url: str, seen: list[tuple[Side, int, int, float]], reports: int) -> None:
    client = redis.Redis.from_url(url, protocol=2)
    feeds = {PartitionKeys("ft", side).changes: side for side in SIDES}
    entries_before = _entries(client)
    last: dict[Any, Any] = {}
    for feed in feeds:
        newest = client.xrevrange(feed, count=1)
        last[feed] = newest[0][0] if newest else "0"
    stop_at = time.perf_counter() + 120
    while _entries(client) - entries_before < reports + 2 and time.perf_counter() < stop_at:
        for feed, changes in client.xread(last, block=500) or []:
            at = time.perf_counter()
            for entry_id, _ in changes:
                last[feed.decode()] = entry_id
                seen.append((feeds[feed.decode()], *_order(entry_id), at))


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


def show(what: str, rates: list[float], unit: str, digits: int = 0) -> None:
    """Print the median and the spread of one thing measured."""
    low, middle, high = (f"{rate:,.{digits}f}" for rate in (min(rates), statistics.median(rates), max(rates)))
    print(f"  {what}: {middle} {unit} ({low} to {high})")


def ratio(what: str, ours: list[float], theirs: list[float]) -> None:
    """Print the median of the ratios, round by round."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    print(f"  ratio: {what}  {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)


if __name__ == "__main__":
    main()
