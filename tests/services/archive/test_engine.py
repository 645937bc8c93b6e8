"""The second engine counts every log as the fold does, at any position, and its tables say what became of it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import given
import pyarrow.parquet as pq
import pytest
from hypothesis import given as over
from hypothesis import settings as hypothesis_settings

from schemas.vocabulary import Position, Side
from services.archive.engine import Engine, second_opinion
from services.archive.views import VIEWS, documentation
from services.runtime.settings import SideSettings
from services.store import columns
from services.store.columns import table_of
from services.tally.cells import local_day
from services.tally.fold import arrive
from services.tally.operations import coverage_by_section
from tests.services.archive import engines
from tests.waiting import wait_for

SIDES = ("SI", "HR")


def rows(engine: Engine, sql: str) -> list[tuple[Any, ...]]:
    return engine.rows(sql)


@pytest.mark.parametrize("seed", [3, 4])
def test_fold_and_sql_agree_on_every_cell_at_every_tenth_position(seed: int) -> None:
    logs = given.seeded_log(seed, 400)
    with engines.opened(logs) as engine:
        for side in SIDES:
            made = engines.entries(logs[side])
            state = given.Folded(side=side).state
            for stop in range(0, len(made) + 10, 10):
                state = engines.folded(side, made, stop).state
                at = made[min(stop, len(made)) - 1].position if stop else Position("0-0")
                assert state.tallies == second_opinion(engine, Side(side), at), f"seed {seed}, {side} at {at}"
            assert state.tallies == second_opinion(engine, Side(side))
            assert {"applied", "replaced", "duplicate", "superseded", "conflict"} <= {
                name for name, of in rows(engine, "SELECT DISTINCT outcome, side FROM outcomes") if of == side
            }


@hypothesis_settings(max_examples=15)
@over(given.logs("SI"))
def test_any_log_is_counted_as_the_fold_counts_it(log: list[given.Fields]) -> None:
    fold = engines.folded("SI", engines.entries(log))
    with engines.opened({"SI": log}) as engine:
        assert fold.state.tallies == second_opinion(engine, Side("SI"))
        parked = dict(rows(engine, "SELECT position, reason FROM parked"))
        assert {str(position): one.reason for position, one in fold.parked.items()} == parked
        outcomes = Counter(name.replace("-", "_") for (name,) in rows(engine, "SELECT outcome FROM outcomes"))
        read = ("applied", "replaced", "duplicate", "superseded", "conflict", "wrong_side")
        assert {name: count for name, count in fold.outcomes.items() if name in read} == outcomes


@hypothesis_settings(max_examples=10)
@over(given.st.lists(given.documents("HR"), max_size=12))
def test_events_of_every_content_are_counted_as_the_fold_counts_them(documents: list[given.Document]) -> None:
    log = [given.entry(given.as_json(made)) for made in documents]
    fold = engines.folded("HR", engines.entries(log))
    with engines.opened({"HR": log}) as engine:
        assert fold.state.tallies == second_opinion(engine, Side("HR"))
        plans = rows(engine, "SELECT operation, section, coverage FROM plans")
        expected = coverage_by_section(fold.state.operations)
        assert expected == {(operation, section): coverage for operation, section, coverage in plans}


def _times(seed: int) -> list[datetime]:
    """Times of all years, and many about the days on which clocks were changed or a day began."""
    random = Random(f"times {seed}")
    first, last = datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    times = [first, last]
    times += [
        first + timedelta(microseconds=random.randrange((last - first) // timedelta(microseconds=1)))
        for _ in range(500)
    ]
    for year in (2, 1800, *range(1880, 1996, 3), *range(1970, 2041), 2500, 9998):
        for month, day in ((1, 1), (3, 31), (10, 27), (12, 31)):
            midnight = datetime(year, month, day, tzinfo=UTC)
            for seconds in (-7200, -3600, -3484, -3483, 0, 3600):
                times.append(midnight + timedelta(seconds=seconds, microseconds=random.choice((-1, 0, 0, 1))))
    return [time for time in times if first <= time <= last]


@pytest.mark.parametrize("zone", ["Europe/Ljubljana", "Europe/Zagreb", "America/St_Johns", "Africa/Monrovia"])
def test_a_day_is_the_one_that_the_zone_database_has_from_the_year_2_to_9998(zone: str) -> None:
    times = _times(1)
    log = [
        given.entry(given.apprehension(id=number, time=time.isoformat().replace("+00:00", "Z")))
        for number, time in enumerate(times, 1)
    ]
    with Engine() as engine:
        engine.add_side(SideSettings(Side("SI"), ZoneInfo(zone), "SVN"))
        engine.add(Side("SI"), table_of(engines.entries(log)))
        engine.complete()
        days = [day for (day,) in rows(engine, "SELECT day::VARCHAR FROM events ORDER BY ms, seq")]
    assert [local_day(time, ZoneInfo(zone)) for time in times] == days


def test_segments_and_stream_are_one_log(tmp_path: Path) -> None:
    log = given.seeded_log(5, 300)["SI"]
    made = engines.entries(log)
    paths = []
    for number, (first, last) in enumerate(((0, 90), (90, 180))):
        paths.append(tmp_path / f"segment '{number}'.parquet")
        pq.write_table(table_of(made[first:last]), paths[-1], compression="zstd")
    for stop in (50, 90, 120, 180, 200, len(made)):
        with Engine() as engine:
            at = made[stop - 1].position
            engine.add_side(engines.settings_of("SI"), paths, at)
            engine.add(Side("SI"), table_of(made[180 : max(stop, 180)]))
            engine.complete()
            assert engines.folded("SI", made, stop).state.tallies == second_opinion(engine, Side("SI")), stop
            assert at == engine.position_at(Side("SI"), engine.count(Side("SI")) - 1)


def test_what_could_not_be_read_when_it_was_archived_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = [given.entry(given.apprehension(id=1), by="x"), given.entry(b"{"), {b"event": b"{}", b"other": b"1"}]
    made = engines.entries(log)
    with monkeypatch.context() as older:
        older.setattr(columns, "arrive", lambda position, _: arrive(position, {b"event": b""}))
        table = table_of(made)
    assert ["malformed"] * 3 == table.column("fault").to_pylist()
    pq.write_table(table, tmp_path / "segment.parquet")
    with Engine() as engine:
        engine.add_side(engines.settings_of("SI"), [tmp_path / "segment.parquet"], made[-1].position)
        engine.complete()
        assert engines.folded("SI", made).state.tallies == second_opinion(engine, Side("SI"))
        assert [(made[1].position,), (made[2].position,)] == rows(
            engine, "SELECT position FROM parked ORDER BY ms, seq"
        )


def test_two_ids_that_share_a_half_are_two_reports() -> None:
    same_half = ["00000000-0000-7000-8000-000000000001", "11111111-0000-7000-8000-000000000001"]
    log = [given.entry(given.apprehension(id=ident, reportno=number)) for number, ident in enumerate(same_half, 1)]
    with engines.opened({"SI": log}) as engine:
        assert [("applied", True)] * 2 == rows(engine, "SELECT outcome, in_force FROM outcomes")
        assert [(2,)] == rows(engine, "SELECT count FROM tallies WHERE measure = 'apprehensions'")


def test_an_event_stands_in_the_table_as_it_stands_in_the_log() -> None:
    raw = given.apprehension(id=3, section=given.uid(3), persons={"SYR": 4})
    log = [given.entry(raw, by="SI/SI-MP-07/9f3c2a"), {b"event": given.apprehension(id=4), b"by": b"\xff"}]
    with engines.opened({"SI": log}) as engine:
        found = rows(
            engine, "SELECT event, \"by\", event->>'$.data.persons[0].count', received FROM events ORDER BY ms, seq"
        )
    assert (raw.decode(), "SI/SI-MP-07/9f3c2a", "4") == found[0][:3]
    assert "\\xFF" == found[1][1]
    assert datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC) == found[0][3]


def test_a_position_beyond_every_date_has_no_time_of_receipt() -> None:
    far = engines.Entry(Position("18446744073709551615-18446744073709551615"), given.entry(given.apprehension()))
    with Engine() as engine:
        engine.add_side(engines.settings_of("SI"))
        engine.add(Side("SI"), table_of([far]))
        engine.complete()
        assert [(far.position, None)] == rows(engine, "SELECT position, received FROM events")
        assert second_opinion(engine, Side("SI"), far.position)


def test_the_tables_have_the_columns_that_are_documented() -> None:
    with engines.opened({}) as engine:
        for view in VIEWS:
            described = [tuple(row[:2]) for row in rows(engine, f"DESCRIBE {view.name}")]
            assert [(column.name, column.type) for column in view.columns] == described, view.name


def test_the_page_about_sql_has_all_tables() -> None:
    page = (Path(__file__).parents[3] / "docs/sql.md").read_text()
    assert page.endswith(documentation()), "write docs/sql.md anew: its tables are those of services/archive/views.py"


def test_the_local_days_of_opening_balances_are_their_last_days() -> None:
    balance = given.opening_balance(totals=[{"measure": "persons", "count": 5}], time="2024-01-05T00:00:00Z")
    with engines.opened({"SI": [given.entry(balance)]}) as engine:
        assert [(date(2023, 12, 31), 5)] == rows(engine, "SELECT day, count FROM tallies")
        assert [date(2024, 1, 5)] == [day for (day,) in rows(engine, "SELECT day FROM events")]
    assert "opening-balance" in json.loads(balance)["type"]


@pytest.mark.parametrize("leaves", ["the query", "the engine"])
def test_ctrl_c_before_it_is_known_what_is_waited_for_ends_the_query(leaves: str) -> None:
    """Between handing a query over and waiting for it, or on the way out: it ends all the same."""
    ended = threading.Event()

    def interrupted() -> None:
        with suppress(KeyboardInterrupt), Engine() as engine:
            submit = engine._worker.submit

            def hand_over(work: Any) -> Any:
                engine._worker.submit = submit  # type: ignore[method-assign]
                submit(work)
                raise KeyboardInterrupt

            if leaves == "the query":
                engine._worker.submit = hand_over  # type: ignore[method-assign, assignment]
                engine.rows(_ENDLESS)
            submit(lambda: engine.connection.execute(_ENDLESS).fetchall())
            raise KeyboardInterrupt
        ended.set()

    threading.Thread(target=interrupted, daemon=True).start()
    wait_for(ended.is_set, what="the engine to be left")


_ENDLESS = "SELECT sum(a.range * b.range) FROM range(10_000_000) a, range(10_000_000) b"
