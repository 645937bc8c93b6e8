"""The second engine: DuckDB over the log of every side, its segments in Parquet and the rest that is still a stream.

It is opened in three steps: `add_side` for each side with its segments, `add` for the entries after them, then
`complete`, after which nothing but these tables can be read and nothing can be written. It lives in memory, reaches no
network and loads no extension.
"""

# ruff: noqa: S608  # what is put into a query is our own text, sides and positions

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Final, Self, TypeVar, cast

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.vocabulary import START, Position, Side, order
from services.archive import counting
from services.archive.views import definitions
from services.runtime.settings import SideSettings
from services.store.columns import SCHEMA, table_of
from services.store.contract import Entry
from services.tally.cells import Cell

Result = TypeVar("Result")

AGAIN_S: Final = 0.1

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_ONE: Final = datetime(1, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)
_DAY: Final = timedelta(days=1)
_SECOND: Final = timedelta(seconds=1)
_CONFIG: Final[dict[str, Any]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,
    "allow_persistent_secrets": False,
    "home_directory": "/nowhere",  # errors name the folders that it would look in
    "temp_directory": "",
}


class Engine:
    """A DuckDB with the tables of `views`; see the module."""

    def __init__(self) -> None:
        self.connection = duckdb.connect(":memory:", config=_CONFIG)
        self._worker = ThreadPoolExecutor(1, "sql")
        self._sides: list[SideSettings] = []
        self._files: list[str] = []
        self._run("SET TimeZone = 'UTC'")
        self._run("CREATE SCHEMA internal")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._settle()
        self._worker.shutdown()
        self.connection.close()

    def add_side(self, side: SideSettings, segments: Sequence[Path] = (), until: Position | None = None) -> None:
        """Add a side with its segments, of which only entries up to a position are read."""
        name = side.side
        files = [str(path.resolve()) for path in segments]
        self._sides.append(side)
        self._files += files
        self._register("none", SCHEMA.empty_table())
        self._run(f"CREATE TABLE internal.rest_{name} AS FROM none")
        self.connection.unregister("none")
        rest = f"FROM internal.rest_{name}"
        if files:
            archived = f"read_parquet([{', '.join(_quoted(file) for file in files)}]) WHERE {counting.until(until)}"
            self._read_again(name, archived)
            rest = f"FROM {archived} AND fault IS NULL UNION ALL {rest}"
        self._run(f"CREATE VIEW internal.log_{name} AS {rest}")

    def add(self, side: Side, table: pa.Table) -> None:
        """Add entries of a side that are in no segment."""
        self._register("more", table)
        self._run(f"INSERT INTO internal.rest_{side} FROM more")
        self.connection.unregister("more")

    def _read_again(self, side: Side, archived: str) -> None:
        """Take what was no event when it was archived as it is read now: this program may know more types."""
        rows = self.rows(f'SELECT ms, seq, event, "by", fields FROM {archived} AND fault IS NOT NULL')
        entries = []
        for ms, seq, event, by, packed in rows:
            there = {b"event": event, b"by": by} if packed is None else msgspec.msgpack.decode(packed)
            fields = {name: value for name, value in there.items() if value is not None}
            entries.append(Entry(Position(f"{ms}-{seq}"), fields))
        self.add(side, table_of(entries))

    def complete(self) -> None:
        """Find what stands there more than once, make the tables of `views`, and shut all doors."""
        for side in self._sides:
            self._complete(side)
        for name, sql in definitions([side.side for side in self._sides]).items():
            self._run(f"CREATE VIEW {name} AS {sql}")
        self._run(f"SET allowed_paths = [{', '.join(_quoted(file) for file in self._files)}]")
        self._run("SET enable_external_access = false")
        self._run("SET lock_configuration = true")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return self.interruptible(lambda: self.connection.execute(sql).fetchall())

    def count(self, side: Side) -> int:
        """Return how many entries of a side it holds."""
        [(count,)] = self.rows(f"SELECT count(*) FROM internal.log_{side}")
        return int(count)

    def end(self, side: Side) -> Position:
        """Return the position of the last entry of a side, the start if there is none."""
        sql = f"SELECT ms, seq FROM internal.log_{side} ORDER BY ms DESC, seq DESC LIMIT 1"
        return next((Position(f"{ms}-{seq}") for ms, seq in self.rows(sql)), START)

    def position_at(self, side: Side, place: int) -> Position:
        """Return the position of an entry by its place in the log, from 0."""
        [(ms, seq)] = self.rows(f"SELECT ms, seq FROM internal.log_{side} ORDER BY ms, seq LIMIT 1 OFFSET {place}")
        return Position(f"{ms}-{seq}")

    def event_at(self, side: Side, position: Position) -> tuple[str, str, int, datetime, str] | None:
        """Return id, type, revision, time and section of the event at a position, None if there is none."""
        ms, seq = order(position)
        found = self.rows(
            f"SELECT id::VARCHAR, type, revision, epoch_us(time), section FROM internal.log_{side} "
            f"WHERE ms = {ms} AND seq = {seq} AND fault IS NULL"
        )
        return next(((*event, _EPOCH + time * _US, section or "") for *event, time, section in found), None)

    def _complete(self, side: SideSettings) -> None:
        name = side.side
        self._register("days", _days(side.zone, self._utc_days(name)))
        self._run(f"CREATE TABLE internal.days_{name} AS FROM days")
        self.connection.unregister("days")
        self._register("versions", self._versions(name))
        self._run(f"CREATE TABLE internal.versions_{name} AS FROM versions")
        self.connection.unregister("versions")
        self._run(f"CREATE VIEW internal.counted_{name} AS {counting.events_of(name)}")
        self._run(f"CREATE TABLE internal.replaced_{name} AS {counting.replaced(name)}")

    def _utc_days(self, side: Side) -> list[int]:
        sql = f"SELECT DISTINCT {counting.UTC_DAY} FROM internal.log_{side} WHERE time IS NOT NULL ORDER BY 1"
        return [day for (day,) in self.rows(sql)]

    def _versions(self, side: Side) -> pa.Table:
        """Return the rows of `keys` whose key is there more than once.

        Found by half a key, since sorting these takes a tenth of grouping by whole keys. Two keys that share only the
        half do no harm.
        """
        keys = self.interruptible(lambda: self.connection.sql(counting.keys(side)).to_arrow_table())
        ordered = np.sort(keys.column("low").to_numpy())
        shared = ordered[1:][ordered[1:] == ordered[:-1]]
        return keys.filter(pc.is_in(keys.column("low"), pa.array(shared)))

    def _register(self, name: str, table: pa.Table) -> None:
        self.connection.register(name, table)

    def interruptible(self, work: Callable[[], Result]) -> Result:
        """Do some work with the connection in a thread, so that Ctrl-C ends the query that is running."""
        try:
            return self._worker.submit(work).result()
        except KeyboardInterrupt:  # which may come before it is known what is waited for
            self._settle()
            raise

    def _settle(self) -> None:
        """End whatever is under way. What has not begun would not be interrupted, so it is done again and again."""
        last = self._worker.submit(lambda: None)
        while not last.done():
            self.connection.interrupt()
            wait([last], AGAIN_S)

    def _run(self, sql: str) -> None:
        self.interruptible(lambda: self.connection.execute(sql))


def second_opinion(engine: Engine, side: Side, stop: Position | None = None) -> dict[Cell, int]:
    """Return a side's cells at a position, or at the end of what the engine holds, as SQL counts them."""
    sql = f"SELECT operation, section, day::VARCHAR, measure, citizenship, count FROM ({counting.cells(side, stop)})"
    return {cast("Cell", (side, *cell)): count for *cell, count in engine.rows(sql)}


def _days(zone: tzinfo, utc_days: Iterable[int]) -> pa.Table:
    """Return the zone's offset on each UTC day, in microseconds: before it changes, the moment it does, and after.

    The offsets are those of the zone database that everything else here uses; a zone changes its offset at most once on
    a day.
    """
    rows: dict[str, list[int]] = {"utc_day": [], "before": [], "changes": [], "after": []}
    for day in utc_days:
        first = _YEAR_ONE + day * _DAY
        last = first + _DAY - _SECOND
        before, after = _offset(zone, first), _offset(zone, last)
        while first + _SECOND < last and before != after:
            middle = first + (last - first) // (2 * _SECOND) * _SECOND
            if _offset(zone, middle) == before:
                first = middle
            else:
                last = middle
        for name, value in (("utc_day", day), ("before", before // _US), ("changes", (last - _EPOCH) // _US),
                            ("after", after // _US)):  # fmt: skip
            rows[name].append(value)
    return pa.table(rows, schema=pa.schema([(name, pa.int64()) for name in rows]))


def _offset(zone: tzinfo, time: datetime) -> timedelta:
    return cast("timedelta", time.astimezone(zone).utcoffset())


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
