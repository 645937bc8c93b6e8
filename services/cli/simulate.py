"""`simulate`: a seeded fleet reports to the log, or into a file."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Final

import click

from schemas.vocabulary import Side
from services.cli.command import FileName, Number, Whole, command, run_async, settings
from services.cli.output import many, note, progress
from services.cli.server import SideStore, require_own_archives, side_stores
from services.runtime.errors import UsageError
from services.runtime.settings import Settings
from services.simulator.fleet import FleetPlan, Submission, fleet

CHUNK: Final = 500

SHARE: Final = Number(0, 1)


@command(
    "simulate",
    "simulate --reports 1000 --seed 7",
    "simulate --rate 20 --reports 2000",
    "simulate --reports 1000000 --out big.ndjson",
)
@click.option(
    "--reports", type=Whole(0, 10**12), metavar="N", default=1_000, show_default=True, help="How many are sent in all."
)
@click.option(
    "--units", type=Whole(1, 100_000), metavar="N", default=40, show_default=True, help="How many units report."
)
@click.option(
    "--rate",
    type=Number(min=0, min_open=True),
    metavar="N",
    help="Reports a second; as fast as the log takes them if left out.",
)
@click.option("--seed", type=Whole(), metavar="N", default=1, show_default=True, help="Equal seeds give equal reports.")
@click.option("--offline", type=SHARE, metavar="SHARE", default=0.1, show_default=True, help="Share that arrives late.")
@click.option(
    "--duplicates", type=SHARE, metavar="SHARE", default=0.02, show_default=True, help="Share that is sent twice."
)
@click.option(
    "--out", type=FileName(), metavar="FILE", help="Write NDJSON there instead (`-` is stdout); `import` reads it."
)
def simulate(
    reports: int, units: int, rate: float | None, seed: int, offline: float, duplicates: float, out: str | None
) -> None:
    """Let a simulated fleet of both sides report.

    Its units, sections and citizenships are made up by the seed; equal options give equal reports, byte for byte.
    """
    plan = FleetPlan(seed=seed, units=units, reports=reports, offline=offline, duplicates=duplicates)
    if out is not None:
        if rate is not None:
            raise UsageError("--rate is for reports to the log; a file is written as fast as it can be")
        with _opened(out) as file, progress("writing", reports, rows_meanwhile=out == "-") as on_progress:
            _write(fleet(plan), file, on_progress)
        return
    run_async(_report(settings(), plan, rate))


def _write(submissions: Iterable[Submission], file: IO[bytes], on_progress: Callable[[int], None]) -> None:
    for chunk in _chunks(submissions, CHUNK):
        file.writelines(submission.event + b"\n" for submission in chunk)
        on_progress(len(chunk))


async def _report(chosen: Settings, plan: FleetPlan, rate: float | None) -> None:
    async with side_stores(chosen) as stores:
        await require_own_archives(stores)
        by_side = {store.side.side: store for store in stores}
        loop = asyncio.get_running_loop()
        started = loop.time()
        sent = 0
        with progress("reporting", plan.reports) as on_progress:
            for chunk in _chunks(fleet(plan), CHUNK if rate is None else 1):
                if rate is not None:
                    await asyncio.sleep(max(0.0, started + sent / rate - loop.time()))
                await publish(by_side, chunk)
                sent += len(chunk)
                on_progress(len(chunk))
    note(f"{many(sent, 'report')} recorded")


async def publish(by_side: dict[Side, SideStore], submissions: Iterable[Submission]) -> None:
    """Append submissions to the logs of their sides; UsageError for a side that has none."""
    events: dict[Side, list[bytes]] = {}
    for submission in submissions:
        events.setdefault(submission.side, []).append(submission.event)
    for side, batch in events.items():
        if side not in by_side:
            raise UsageError(f"the fleet reports for {side}, which FIELDTALLY_SIDES does not name")
        await by_side[side].log.append(batch)


def _chunks(submissions: Iterable[Submission], size: int) -> Iterator[list[Submission]]:
    iterator = iter(submissions)
    while chunk := list(islice(iterator, size)):
        yield chunk


@contextmanager
def _opened(out: str) -> Iterator[IO[bytes]]:
    if out == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with Path(out).open("wb") as file:
            yield file
    except OSError as error:
        raise UsageError(f"--out {out!r}: {error.strerror or 'cannot be written'}") from error
