"""What is measured: embedded servers, logs made up by a seed, and the product's own processes beside them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import redis

from schemas.codec import encode
from schemas.events import Apprehension, ApprehensionData, CitizenshipCount
from schemas.identity import RANDOM_BITS, uuid7
from schemas.vocabulary import Side
from services.runtime.embedded import embedded_server
from services.simulator.fleet import FleetPlan, fleet
from services.store.keys import PartitionKeys

SIDES = (Side("SI"), Side("HR"))
ROOT = Path(__file__).parents[2]
PROJECT = [sys.executable, "-m", "services.cli", "project"]


@contextmanager
def empty() -> Iterator[str]:
    """Yield the URL of a server that holds nothing."""
    with (
        tempfile.TemporaryDirectory(
            prefix="fieldtally-bench-",
            ignore_cleanup_errors=True,  # what keeps the server may be on its way out
        ) as folder,
        embedded_server(Path(folder)) as url,
    ):
        yield url


@contextmanager
def gateway(url: str) -> Iterator[tuple[int, str]]:
    """Run a gateway; yield its port, and a token for it."""
    limits = {"FIELDTALLY_RATE_LIMIT": "1000000000", "FIELDTALLY_LAG_LIMIT": "1000000000"}
    token = enrolled(url, "SI-MP-07")
    with served("-m", "services.cli", "gateway", **_on(url), **limits) as (port, _):
        yield port, token


@contextmanager
def control_room(url: str) -> Iterator[tuple[str, str, int]]:
    """Run a control room; yield its address, a token that sees both sides, and the process."""
    token = enrolled(url, "wall", "--role", "viewer", "--side", "SI", "--side", "HR")
    with served("-m", "services.cli", "control-room", **_on(url)) as (port, process):
        yield f"http://127.0.0.1:{port}", token, process


def enrolled(url: str, *arguments: str) -> str:
    """Return the token of somebody who is enrolled for this."""
    command = [sys.executable, "-m", "services.cli", "devices", "enrol", *arguments, "--format", "json"]
    done = subprocess.run(
        command, env=os.environ | _on(url), cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    token: str = json.loads(done.stdout)["token"]
    return token


@contextmanager
def served(*arguments: str, **environment: str) -> Iterator[tuple[int, int]]:
    """Run a server of ours on a free port; yield the port when it answers, and the process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, *(argument.format(port=port) for argument in arguments)]
    ports = {"FIELDTALLY_HTTP_PORT": str(port), "FIELDTALLY_SCREEN_PORT": str(port)}
    with subprocess.Popen(
        command, env=os.environ | ports | environment, cwd=ROOT, stderr=subprocess.DEVNULL
    ) as process:
        try:
            for _ in range(1_000):
                with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.01)
            yield port, process.pid
        finally:
            process.terminate()


def _on(url: str) -> dict[str, str]:
    return {"FIELDTALLY_REDIS_URL": url, "FIELDTALLY_LOG_FORMAT": "json"}


def made_reports(count: int, number: int) -> list[bytes]:
    """Return apprehensions of one unit's devices, outside any operation, made up by a seed."""
    random = Random(number)
    now = datetime.now(UTC).replace(microsecond=0)
    citizenships = [("SYR", "AFG"), ("MAR", "BGD"), ("TUR", "PAK")]
    return [
        encode(
            Apprehension(
                specversion="1.0",
                id=uuid7(int(now.timestamp() * 1000) + at, random.getrandbits(RANDOM_BITS)),
                source=f"/SI/SI-MP-07/d{at % 8}",
                reportno=1 + at // 8,
                side=Side("SI"),
                time=now - timedelta(seconds=random.randrange(86_400)),
                data=ApprehensionData(
                    section=random.choice(("koper", "novo-mesto", "ljubljana")),
                    persons=tuple(
                        CitizenshipCount(name, random.randint(1, 9))  # type: ignore[arg-type]
                        for name in random.choice(citizenships)
                    ),
                ),
            )
        )
        for at in range(count)
    ]


@contextmanager
def filled(reports: int, days: int = 30) -> Iterator[tuple[str, int]]:
    """Yield the URL of a server whose logs hold a simulated fleet's reports, and the bytes of their payload."""
    with empty() as url:
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
        try:
            yield
        finally:
            process.terminate()
