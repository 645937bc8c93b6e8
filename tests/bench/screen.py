"""The control room: how soon a report is on the page, what many streams cost, how soon a page stands, how large it is.

The log behind it is a month of a simulated fleet: several thousand cells, as at the end of a long operation.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import redis
from figures import QUICK, ROUNDS, p99_ms, show
from servers import ROOT, SIDES, control_room, filled, gateway, made_reports, projecting

from schemas.http import EVENT_TYPE
from schemas.vocabulary import Side
from services.store.keys import PartitionKeys

LOG = 2_000 if QUICK else 20_000
SECONDS = 4 if QUICK else 10
RATE = 50
STREAMS = 200
SAMPLES = 5 if QUICK else 15


def latency() -> None:
    """From before a POST until the frame with the changed digits has been drawn, in a real browser."""
    count = RATE * SECONDS
    reports = made_reports(count * ROUNDS, 0)
    middles, p99s, longest = [], [], []
    with filled(LOG) as (url, _), projecting(url), gateway(url) as (port, token), control_room(url) as (at, viewer, _):
        print(f"\nPOST to the digits on the page at {RATE} reports/s, {count} reports a round")
        for number in range(ROUNDS):
            chosen = reports[number * count : (number + 1) * count]
            with beside("pages.py", "watch", at, viewer) as page:
                shown = json.loads(said(page))
                sent = []
                for at_s, report in zip(post(port, token, chosen), chosen, strict=True):
                    shown += persons(report)
                    sent.append((at_s, shown))
                seen = json.loads(asked(page, str(shown)))
            waits = [next(seen_s for seen_s, digits in seen if digits >= goal) - at_s for at_s, goal in sent]
            middles.append(statistics.median(waits) * 1e3)
            p99s.append(p99_ms(waits))
            longest.append(max(waits) * 1e3)
    show("p50", middles, "ms", 1)
    show("p99", p99s, "ms", 1)
    show("longest", longest, "ms", 1)


def streams() -> None:
    """What the control room's process takes of one core, with one stream open and with many."""
    count = RATE * SECONDS
    reports = made_reports(count * ROUNDS * 2, 0)
    with (
        filled(LOG) as (url, _),
        redis.Redis.from_url(url, protocol=2) as client,
        projecting(url),
        gateway(url) as (port, token),
        control_room(url) as (at, viewer, process),
    ):
        print(f"\nCPU of the control room at {RATE} reports/s for {SECONDS} s")
        found: dict[int, list[float]] = {1: [], STREAMS: []}
        for _ in range(ROUNDS):
            for viewers, shares in found.items():
                chosen, reports = reports[:count], reports[count:]
                with beside("viewers.py", at, viewer, str(viewers)) as looking:
                    said(looking)
                    before = changes(client)
                    cpu, began = cpu_s(process), time.perf_counter()
                    for _ in post(port, token, chosen):
                        pass
                    shares.append((cpu_s(process) - cpu) / (time.perf_counter() - began) * 100)
                    told = settled(client, before, chosen)
                    heard = json.loads(asked(looking, str(told)))
                if set(heard) != {told}:
                    sys.exit(f"{told} changes were told; of {viewers} streams one got {min(heard)}, one {max(heard)}")
    for viewers, shares in found.items():
        show(f"{viewers} streams" if viewers > 1 else "1 stream", shares, "% of one core", 1)
    print("  every stream got every change")


def paint() -> None:
    """How soon a page stands on the wall, by a browser that has nothing of it yet."""
    with filled(LOG) as (url, _), projecting(url), control_room(url) as (at, viewer, _):
        print(f"\nopening the page on the wall, cold, {SAMPLES} times")
        with beside("pages.py", "paint", at, viewer, str(SAMPLES)) as page:
            found = json.loads(said(page))
    show("first contentful paint", [first for first, _ in found], "ms")
    show("the numbers stand", [numbers for _, numbers in found], "ms")


def size() -> None:
    """What the page loads, as it is transferred, headers and all."""
    for what, reports in (("an operation of three days, 1,000 reports", 1_000), (f"a month, {LOG:,} reports", LOG)):
        with filled(reports, 3 if reports == 1_000 else 30) as (url, _), projecting(url), control_room(url) as found:
            at, viewer, _ = found
            print(f"\nwhat the page loads, with {what} behind it")
            with beside("pages.py", "size", at, viewer) as page:
                sizes: dict[str, int] = json.loads(said(page))
        for name, length in sizes.items():
            print(f"  {name:22s} {length / 1e3:6.1f} kB")
        print(f"  {'everything':22s} {sum(sizes.values()) / 1e3:6.1f} kB", flush=True)


MEASUREMENTS: dict[str, Callable[[], None]] = {
    "screen-latency": latency,
    "screen-streams": streams,
    "screen-paint": paint,
    "screen-size": size,
}


@contextmanager
def beside(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run who looks at the screen, in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name(program)), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def said(process: subprocess.Popen[str]) -> str:
    """Return the next line that it says."""
    assert process.stdout
    return process.stdout.readline() or sys.exit("who looks at the screen has failed: see above")


def asked(process: subprocess.Popen[str], goal: str) -> str:
    """Tell it what it has to see in the end, and return what it saw."""
    assert process.stdin
    process.stdin.write(f"{goal}\n")
    process.stdin.flush()
    return said(process)


def post(port: int, token: str, reports: list[bytes]) -> Iterator[float]:
    """Post reports at the steady rate; yield when each was sent, in seconds since 1970."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": EVENT_TYPE}
    started = time.perf_counter()
    for number, report in enumerate(reports):
        time.sleep(max(0.0, started + number / RATE - time.perf_counter()))
        sent_s = time.time()
        connection.request("POST", "/v1/events", report, headers)
        answer = connection.getresponse()
        if answer.status != 201:
            sys.exit(f"the gateway answered {answer.status}: {answer.read().decode()}")
        answer.read()
        yield sent_s
    connection.close()


def persons(report: bytes) -> int:
    """Return how many persons a report of `made_reports` counts."""
    return sum(one["count"] for one in msgspec.json.decode(report)["data"]["persons"])


def cpu_s(process: int) -> float:
    """Return the CPU time that a process has used, of the user and of the system."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def changes(client: Any) -> int:
    """Return how many changes the feeds have had in all."""
    return sum(client.xinfo_stream(PartitionKeys("ft", side).changes)["entries-added"] for side in SIDES)


def settled(client: Any, before: int, reports: list[bytes]) -> int:
    """Wait until the reports are counted; return how many changes they have made."""
    keys = PartitionKeys("ft", Side("SI"))
    last = client.xrevrange(keys.log, count=1)[0][0]
    for _ in range(1_000):
        if client.hget(keys.generation("g1").checkpoint, "position") == last:
            return changes(client) - before
        time.sleep(0.01)
    sys.exit(f"{len(reports)} reports were not counted within 10 s after the last")
