"""The second engine as commands use it: opened on the logs of every side, up to a position."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import duckdb
from msgspec.structs import replace

from schemas.vocabulary import Position, Side
from services.archive.engine import Engine
from services.archive.sources import read_into, unreadable
from services.cli.command import run_async
from services.cli.output import progress
from services.cli.server import side_stores
from services.runtime.forked import Advance
from services.runtime.settings import Settings


@contextmanager
def second_engine(chosen: Settings, url: str, stops: Mapping[Side, Position], entries: int) -> Iterator[Engine]:
    """Yield an engine that holds each side's log up to its stop; reading it shows a bar over so many entries."""
    with Engine() as engine:
        with progress("reading for SQL", entries) as advance:
            run_async(_read(replace(chosen, redis_url=url), engine, stops, advance))
        try:
            engine.complete()
        except duckdb.Error as error:
            raise unreadable(error) from error
        yield engine


async def _read(chosen: Settings, engine: Engine, stops: Mapping[Side, Position], advance: Advance) -> None:
    async with side_stores(chosen) as stores:
        for store in stores:
            await read_into(engine, store.side, store.log, stops[store.side.side], advance)
