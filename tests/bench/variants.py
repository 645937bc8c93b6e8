"""One measured run each, in a process of its own: `variants.py NAME URL [ARGUMENT]` prints one JSON line of figures."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import redis

from schemas import codec
from schemas.events import Event
from schemas.vocabulary import Position, Side
from services.archive.engine import Engine, second_opinion
from services.projector.app import Projector
from services.projector.processes import project
from services.replay.processes import replay_sides
from services.replay.replay import Replay
from services.runtime.collector import calm_collector
from services.runtime.forked import run_forked
from services.runtime.logging import set_up_logging
from services.runtime.settings import SideSettings, read_settings
from services.store.connection import connect
from services.store.keys import PartitionKeys
from services.store.log import RedisLog
from services.store.memory import MemoryLog
from services.store.segments import Archive, archive_folder
from services.store.whole_log import WholeLog
from services.tally.contributions import contributions

SETTINGS = read_settings({})
SIDES = [side.side for side in SETTINGS.sides]


def bare(url: str, count: str = "1000") -> dict[str, float]:
    """The yardstick: redis-py, XREAD and decode, nothing else."""
    client = redis.Redis.from_url(url, protocol=2)
    events = 0
    started = time.perf_counter()
    for side in SIDES:
        last: Any = "0"
        key = PartitionKeys("ft", side).log
        while answer := client.xread({key: last}, count=int(count)):
            entries = answer[0][1]
            for _, fields in entries:
                codec.decode(fields[b"event"])
            events += len(entries)
            last = entries[-1][0]
    return {"events": events, "per_s": events / (time.perf_counter() - started)}


def projector(url: str) -> dict[str, float]:
    """The projector as it runs, from no derived state to the log's end."""
    client = redis.Redis.from_url(url, protocol=2)
    for key in client.scan_iter("{ft:*}:g1:*"):
        client.delete(key)
    for side in SIDES:
        client.delete(PartitionKeys("ft", side).changes, PartitionKeys("ft", side).live)
    started = time.perf_counter()
    project(SETTINGS, url, until_caught_up=True)
    seconds = time.perf_counter() - started
    entries = sum(int(client.hget(PartitionKeys("ft", side).generation("g1").checkpoint, "entries")) for side in SIDES)
    return {"events": entries, "per_s": entries / seconds}


def typed_handler(url: str, limit: str) -> dict[str, float]:
    """FastStream as its tutorial has it: a typed handler per message, HINCRBY for what it adds."""
    import msgspec
    from faststream import FastStream
    from faststream.redis import RedisBroker, StreamSub

    most = int(limit)
    broker = RedisBroker(f"{url}?protocol=2", logger=None)
    app = FastStream(broker, logger=None)
    decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
    done = 0
    started = 0.0

    async def decode(message: Any) -> Any:
        raw = message.raw_message["data"][b"event"]
        return decoder.decode(raw)

    @broker.subscriber(
        stream=StreamSub(PartitionKeys("ft", Side("SI")).log, last_id="0", max_records=1000), decoder=decode
    )
    async def handle(event: Event) -> None:
        nonlocal done, started
        started = started or time.perf_counter()
        client = broker._connection
        for cell, count in contributions(event, SETTINGS.sides[0].zone):
            await client.hincrby("bench:typed", "|".join(cell), count)
        done += 1
        if done == most:
            figures["per_s"] = done / (time.perf_counter() - started)
            app.exit()

    figures: dict[str, float] = {"events": most}
    asyncio.run(app.run(sleep_time=0.01))
    redis.Redis.from_url(url).delete("bench:typed")
    return figures


def replay(url: str) -> dict[str, float]:
    """Replay from the stream, from the first entry, both sides, as `fieldtally replay` does."""

    async def ends() -> dict[Side, list[Position]]:
        client = connect(url)
        logs = {side: RedisLog(client, url, PartitionKeys("ft", side)) for side in SIDES}
        found = {side: [(await log.extent()).last] for side, log in logs.items()}
        await client.aclose()
        return found

    stops = asyncio.run(ends())
    started = time.perf_counter()
    states = replay_sides(SETTINGS, url, stops)
    seconds = time.perf_counter() - started
    entries = sum(state.checkpoint.entries for (state,) in states.values())
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"events": entries, "per_s": entries / seconds, "peak_bytes_a_side": peak}


def replay_archive(_url: str, folder: str) -> dict[str, float]:
    """Replay from an archive whose stream is empty, from the first entry, both sides, as `fieldtally replay` does."""
    started = time.perf_counter()
    works = {side.side: partial(_replay_archive, side, Path(folder) / "archive") for side in SETTINGS.sides}
    entries = sum(run_forked(works))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"events": entries, "per_s": entries / seconds, "peak_bytes_a_side": peak}


def _replay_archive(side: SideSettings, archive_dir: Path, advance: Callable[[int], None]) -> int:
    calm_collector()

    async def replayed() -> int:
        log = WholeLog(cast("RedisLog", MemoryLog()), Archive(archive_folder(archive_dir, "ft", side.side), side.side))
        last = (await log.extent()).last
        replaying = Replay(side, log, await log.recurring(last))
        await replaying.run(last, advance)
        return replaying.state.checkpoint.entries

    return asyncio.run(replayed())


def sql_archive(_url: str, folder: str) -> dict[str, float]:
    """The second engine as the audit uses it: opened on the segments, and every cell of both sides."""
    started = time.perf_counter()
    with Engine() as engine:
        for side in SETTINGS.sides:
            archive = Archive(archive_folder(Path(folder) / "archive", "ft", side.side), side.side)
            archive.refresh()
            engine.add_side(side, archive.paths())
        engine.complete()
        cells = _cells(engine)
        seconds = time.perf_counter() - started
        return {"events": _events(engine), "per_s": _events(engine) / seconds, "cells": cells}


def sql_json_read(_url: str, folder: str) -> dict[str, float]:
    """DuckDB reading every field of NDJSON, and nothing else."""
    import duckdb

    started = time.perf_counter()
    events = 0
    for path in sorted(Path(folder).glob("*.ndjson")):
        sql = f"SELECT count(COLUMNS(*)) FROM read_json('{path}', format = 'newline_delimited')"  # noqa: S608  # our path
        events += max(duckdb.execute(sql).fetchone() or ())
    return {"events": events, "per_s": events / (time.perf_counter() - started)}


def sql_json_sums(_url: str, folder: str) -> dict[str, float]:
    """The same SQL as the second engine's over the columns that DuckDB reads from NDJSON."""
    started = time.perf_counter()
    part = "list_transform(data.{0}, lambda c: {{'measure': '{0}', 'citizenship': c.citizenship, 'count': c.count}})"
    counts = f"""CASE split_part(type, '.', 3) WHEN 'apprehension' THEN {part.format("persons")}
        WHEN 'custody' THEN {part.format("remanded")}
        WHEN 'smuggler-arrest' THEN {part.format("smugglers")} || {part.format("smuggled_persons")} END"""
    with Engine() as engine:
        for side in SETTINGS.sides:
            engine.add_side(side)
            engine.connection.execute(
                f"""
                INSERT INTO internal.rest_{side.side}
                SELECT row_number() OVER () AS ms, 0 AS seq, NULL, NULL, NULL, NULL, id, amends, coalesce(revision, 0),
                    split_part(type, '.', 3), side, split_part(source, '/', 3), split_part(source, '/', 4), reportno,
                    coalesce(subject, ''), time, coalesce(data.section, ''), data."case", data.opens_case,
                    {counts}, NULL, NULL, NULL, data.reason
                FROM read_json('{folder}/{side.side}.ndjson', format = 'newline_delimited')"""  # noqa: S608  # our path
            )
        engine.complete()
        cells = _cells(engine)
        seconds = time.perf_counter() - started
        return {"events": _events(engine), "per_s": _events(engine) / seconds, "cells": cells}


def _cells(engine: Engine) -> int:
    return sum(len(second_opinion(engine, side)) for side in SIDES)


def _events(engine: Engine) -> int:
    return sum(engine.count(side) for side in SIDES)


def eventsourcing(_url: str, reports: str) -> dict[str, float]:
    """The eventsourcing library folding aggregates from its in-memory recorder, the way its documentation has it."""
    from eventsourcing.application import Application

    application: Application[Any] = Application()
    tallies = _aggregates(int(reports))
    application.save(*tallies)
    ids = [tally.id for tally in tallies]
    del tallies
    calm_collector()
    started = time.perf_counter()
    for aggregate_id in ids:
        application.repository.get(aggregate_id)
    return {"events": int(reports), "per_s": int(reports) / (time.perf_counter() - started)}


def eventsourcing_mutate(_url: str, reports: str) -> dict[str, float]:
    """The same without its recorder and its decoding: only mutate(), on event objects that are already there."""
    recorded = [tally.collect_events() for tally in _aggregates(int(reports))]
    calm_collector()
    started = time.perf_counter()
    for events in recorded:
        rebuilt = None
        for one in events:
            rebuilt = one.mutate(rebuilt)
    return {"events": int(reports), "per_s": int(reports) / (time.perf_counter() - started)}


def _aggregates(reports: int, aggregates: int = 100) -> list[Any]:
    """Return aggregates with so many events in all; each event carries two counts, as a report does."""
    from eventsourcing.domain import Aggregate, event

    class Tally(Aggregate):
        def __init__(self) -> None:
            self.counts: dict[str, int] = {}

        @event("Reported")
        def report(self, section: str, persons: dict[str, int]) -> None:
            for citizenship, count in persons.items():
                cell = f"{section}|{citizenship}"
                self.counts[cell] = self.counts.get(cell, 0) + count

    tallies = []
    for _ in range(aggregates):
        tally = Tally()
        for number in range(reports // aggregates - 1):
            tally.report("koper", {"SYR": 1 + number % 4, "AFG": 1 + number % 3})
        tallies.append(tally)
    return tallies


def restart(url: str) -> dict[str, float]:
    """From the start of the projector to the first new report tallied, with the whole log behind it."""
    side = Side("SI")
    client = redis.Redis.from_url(url, protocol=2)
    key = PartitionKeys("ft", side).log
    last = client.xrevrange(key, count=1)[0][1][b"event"]
    client.xadd(key, {"event": last})
    started = time.perf_counter()
    running = Projector(SETTINGS, url, set_up_logging("json", "warning"), until_caught_up=True)
    asyncio.run(running.run())
    return {"seconds": time.perf_counter() - started, "events": running.entries_applied}


VARIANTS: dict[str, Callable[..., dict[str, float]]] = {
    "bare": bare,
    "projector": projector,
    "typed_handler": typed_handler,
    "replay": replay,
    "replay_archive": replay_archive,
    "sql_archive": sql_archive,
    "sql_json_read": sql_json_read,
    "sql_json_sums": sql_json_sums,
    "eventsourcing": eventsourcing,
    "eventsourcing_mutate": eventsourcing_mutate,
    "restart": restart,
}

if __name__ == "__main__":
    before_s = time.process_time()
    figures = VARIANTS[sys.argv[1]](*sys.argv[2:])
    print(json.dumps(figures | {"cpu_s": time.process_time() - before_s}))
