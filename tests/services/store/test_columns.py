"""The table of a log: every entry's fields come back exactly, and the columns say what the event says."""

from __future__ import annotations

import json

import given
import msgspec
import pyarrow as pa
import pytest
from hypothesis import given as over
from hypothesis import strategies as st

from schemas import codec
from schemas.vocabulary import Position
from services.store.columns import SCHEMA, entries_of, table_of
from services.store.contract import Entry
from services.tally.fold import arrive


def entries(*fields: given.Fields) -> list[Entry]:
    return [Entry(Position(f"{number}-{number % 3}"), one) for number, one in enumerate(fields, 1)]


def back(made: list[Entry]) -> list[Entry]:
    return entries_of(table_of(made))


_ID = given.uid(1)
_EVENT = given.apprehension()
_WEIRD = st.dictionaries(
    st.sampled_from((b"event", b"by", b"", b"id", b"\x00")) | st.binary(max_size=4),
    st.binary(max_size=40)
    | st.sampled_from((b"", b"\x00", _EVENT, _EVENT + b"\x00", _EVENT.replace(b"2024", b"\x00"))),
    max_size=4,
)


@over(st.lists(_WEIRD, max_size=8))
def test_any_fields_come_back(fields: list[given.Fields]) -> None:
    made = entries(*fields)
    assert made == back(made)


@over(given.logs("SI"))
def test_the_entries_of_any_log_come_back(log: list[given.Fields]) -> None:
    made = entries(*log)
    assert made == back(made)


@pytest.mark.parametrize(
    "raw",
    [
        _EVENT,
        b"",
        b"\x00",
        _EVENT.replace(_ID.encode(), _ID.upper().encode()),
        _EVENT.replace(_ID.encode(), _ID.replace("-", "").encode()),
        given.apprehension(section=_ID),  # the id's text twice
        given.apprehension(section=_ID, id=2),
        json.dumps(json.loads(_EVENT), indent=3).encode(),
        b" \n" + _EVENT,
        given.apprehension(amends=1),
    ],
)
def test_bytes_are_exact_however_the_id_is_written(raw: bytes) -> None:
    made = entries({b"event": raw}, {b"event": raw, b"by": b"\xff\x00"})
    assert made == back(made)


def test_the_id_is_stored_once() -> None:
    (event,) = table_of(entries({b"event": _EVENT})).column("event").to_pylist()
    assert _ID.encode() not in event
    assert len(_EVENT) - 35 == len(event)


def test_the_decoder_lets_no_zero_byte_pass() -> None:
    """Else it could not stand for the id; wherever one is put, the entry is no event."""
    for at in range(len(_EVENT) + 1):
        arrived = arrive(Position("1-0"), {b"event": _EVENT[:at] + b"\x00" + _EVENT[at:]})
        assert arrived.event is None


def test_no_entries_make_an_empty_table() -> None:
    assert table_of([]).schema == SCHEMA
    assert table_of([]).num_rows == 0


@over(st.lists(given.documents("SI").filter(lambda made: made["type"]), max_size=6))
def test_the_columns_say_what_the_event_says(documents: list[given.Document]) -> None:
    events = [codec.decode(given.as_json(made)) for made in documents]
    rows = table_of(entries(*({b"event": codec.encode(event)} for event in events))).to_pylist()
    for event, row in zip(events, rows, strict=True):
        data = json.loads(msgspec.json.encode(event.data))
        measures = ("persons", "smugglers", "smuggled_persons", "remanded")
        counts = [{"measure": name} | part for name in measures if name in data for part in data[name]]
        assert (row["counts"] is not None) == any(name in data for name in measures)
        assert counts == (row["counts"] or [])
        assert data.get("section", "") == row["section"]
        assert [data.get(name) for name in ("case", "opens_case", "reason")] == [
            row[name] for name in ("case", "opens_case", "reason")
        ]
        assert (event.id, event.amends or None, event.revision) == (row["id"], row["amends"], row["revision"])
        assert (event.time, event.subject, event.side) == (row["time"], row["operation"], row["side"])
        assert event.source == f"/{row['side']}/{row['unit']}/{row['device']}"
        assert row["fault"] is None
        totals = [{"section": "", "citizenship": ""} | total for total in data.get("totals", ())]
        assert totals == (row["totals"] or [])
        if row["type"] == "opening-balance":
            assert (event.data.period_from, event.data.period_to) == (row["period_from"], row["period_to"])


def test_what_is_no_event_says_why() -> None:
    made = entries(
        {b"event": b"{"}, {b"event": _EVENT.replace(b".v1", b".v9")}, {b"by": b"x"}, {b"event": _EVENT, b"x": b"y"}
    )
    table = table_of(made)
    assert ["malformed", "unknown-type", "malformed", "malformed"] == table.column("fault").to_pylist()
    assert pa.compute.all(pa.compute.is_null(table.column("id"))).as_py()
    assert made == back(made)
