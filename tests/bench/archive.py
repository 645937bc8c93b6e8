"""Measurements of the archive: what a replay from it costs, in time and memory, and what it takes on disk."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from pathlib import Path

from figures import QUICK, ROUNDS, ratio, show
from servers import SIDES, filled

from schemas.vocabulary import Position, Side
from services.archive.writer import archive_log
from services.simulator.fleet import FleetPlan, fleet
from services.store.contract import Entry, LogExtent
from services.store.segments import Archive, archive_folder

Run = Callable[..., dict[str, float]]

MILLION = 100_000 if QUICK else 1_000_000
MANY, FEW = (500_000, 50_000) if QUICK else (5_000_000, 500_000)


def replaying(run: Run) -> None:
    """Replay from the archive, against replay from the stream that has the same entries; both sides at once."""
    with filled(MILLION) as (url, _), archived(MILLION) as folder:
        print(f"\nreplaying {MILLION:,} events, both sides")
        stream, archive = [], []
        for _ in range(ROUNDS):
            stream.append(run(url, "replay")["per_s"])
            archive.append(run("", "replay_archive", str(folder))["per_s"])
        show("replay from the stream", stream, "events/s")
        show("replay from the archive", archive, "events/s")
        ratio("from the archive against from the stream", archive, stream)


def taking_room(run: Run) -> None:
    """Bytes on disk for each event, against its JSON; and the memory of a replay of many events, against few."""
    print(f"\nan archive of {MANY:,} events, against one of {FEW:,}")
    with archived(MANY) as many, archived(FEW) as few:
        on_disk = sum(path.stat().st_size for path in many.rglob("*.parquet"))
        payload = sum(len(submission.event) for submission in fleet(_plan(MANY)))
        print(f"  on disk: {on_disk / MANY:.1f} of {payload / MANY:.1f} bytes an event")
        ratio("on disk against JSON", [on_disk], [payload])
        rounds = [(run("", "replay_archive", str(many)), run("", "replay_archive", str(few))) for _ in range(3)]
        peaks = [[figures["peak_bytes_a_side"] / 1e6 for figures in both] for both in zip(*rounds, strict=True)]
        show(f"peak memory of a side's replay, {MANY:,} events in all", peaks[0], "MB")
        show(f"the same, {FEW:,} events", peaks[1], "MB")
        ratio("peak memory, many events against few", *peaks)


@contextmanager
def archived(reports: int) -> Iterator[Path]:
    """Yield a data folder with the archive of a simulated fleet's logs, the same that `filled` puts into streams."""
    with tempfile.TemporaryDirectory(prefix="fieldtally-bench-") as folder:
        for side in SIDES:
            archive = Archive(archive_folder(Path(folder) / "archive", "ft", side), side)
            asyncio.run(archive_log(_Made(side, reports), archive))
        yield Path(folder)


def written_as_json(reports: int, folder: Path) -> None:
    """Write the events of `archived` as NDJSON, a file for each side."""
    files = {side: (folder / f"{side}.ndjson").open("wb") for side in SIDES}
    for submission in fleet(_plan(reports)):
        files[submission.side].write(submission.event + b"\n")
    for file in files.values():
        file.close()


def _plan(reports: int) -> FleetPlan:
    return FleetPlan(seed=1, reports=reports, period=timedelta(days=30))


class _Made:
    """A stream that makes its entries up while it is read, once, from its beginning."""

    def __init__(self, side: Side, reports: int) -> None:
        self._reports = reports
        self._entries = (
            Entry(Position(f"{int(submission.arrives.timestamp() * 1_000)}-{number}"), {b"event": submission.event})
            for number, submission in enumerate(fleet(_plan(reports)))
            if submission.side == side
        )

    async def extent(self) -> LogExtent:
        return LogExtent(Position("9999999999999-0"), self._reports, self._reports)

    async def trimmed(self) -> None:
        return

    async def read_at(self, positions: Sequence[Position]) -> list[None]:
        return [None for _ in positions]

    async def read_after(self, _position: Position, count: int) -> list[Entry]:
        return list(islice(self._entries, count))
