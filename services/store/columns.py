"""The columns of the log as a table: of a segment of the archive, and of what is still in the stream.

One row is one entry. The columns serve queries; `event`, `id`, `by` and `fields` hold the entry itself, byte for byte.
The id of an event is a column, so its text is left out of the bytes: where it stands in them once, in lower case, one
byte 0x00 stands in its place, which no JSON text holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa

from schemas.events import (
    TYPE_PREFIX,
    Apprehension,
    BalanceTotal,
    CitizenshipCount,
    Custody,
    Event,
    NilReport,
    OpeningBalance,
    OperationClosed,
    OperationOpened,
    SmugglerArrest,
    Withdrawal,
)
from schemas.vocabulary import Position, parse_source
from services.store.contract import Entry
from services.tally.fold import BY_FIELD, EVENT_FIELD, Arrival, arrive, arrive_again

ID_MARK: Final = b"\x00"
_DIGITS: Final = np.frombuffer(b"0123456789abcdef", np.uint8)

_WORD: Final = pa.dictionary(pa.int32(), pa.string())
_COUNTS: Final = pa.list_(pa.struct([("measure", pa.string()), ("citizenship", pa.string()), ("count", pa.int64())]))
_TOTALS: Final = pa.list_(
    pa.struct([("measure", pa.string()), ("section", pa.string()), ("citizenship", pa.string()), ("count", pa.int64())])
)

SCHEMA: Final = pa.schema(
    [
        pa.field("ms", pa.uint64(), nullable=False),
        pa.field("seq", pa.uint64(), nullable=False),
        pa.field("event", pa.binary()),
        pa.field("by", pa.dictionary(pa.int32(), pa.binary())),
        pa.field("fields", pa.binary()),
        pa.field("fault", _WORD),
        pa.field("id", pa.uuid()),
        pa.field("amends", pa.uuid()),
        pa.field("revision", pa.int32()),
        pa.field("type", _WORD),
        pa.field("side", _WORD),
        pa.field("unit", _WORD),
        pa.field("device", _WORD),
        pa.field("reportno", pa.int64()),
        pa.field("operation", _WORD),
        pa.field("time", pa.timestamp("us", tz="UTC")),
        pa.field("section", _WORD),
        pa.field("case", pa.string()),
        pa.field("opens_case", pa.bool_()),
        pa.field("counts", _COUNTS),
        pa.field("totals", _TOTALS),
        pa.field("period_from", pa.date32()),
        pa.field("period_to", pa.date32()),
        pa.field("reason", _WORD),
    ]
)
"""The columns in their order. All after `fault` are null where the entry is no event."""

WORD_COLUMNS: Final = (
    *(field.name for field in SCHEMA if pa.types.is_dictionary(field.type)),
    *(f"counts.list.element.{name}" for name in ("measure", "citizenship", "count")),
)
"""The columns of few different values, as Parquet calls them."""
ENCODINGS: Final = {
    "ms": "DELTA_BINARY_PACKED", "seq": "DELTA_BINARY_PACKED", "revision": "DELTA_BINARY_PACKED",
    "time": "BYTE_STREAM_SPLIT", "reportno": "BYTE_STREAM_SPLIT",
}  # fmt: skip
"""How the columns of numbers are written: whichever took less space."""
ENTRY_COLUMNS: Final = ("ms", "seq", "event", "by", "fields", "id")
"""The columns that hold the entry itself."""

ARRIVAL_COLUMNS: Final = ("ms", "seq", "event", "fields", "id", "amends")

_fields: Final = msgspec.msgpack.Decoder(dict[bytes, bytes])

_Row: TypeAlias = tuple[Any, ...]
_NO_EVENT: Final = (None,) * (len(SCHEMA) - SCHEMA.get_field_index("fault") - 1)
_SHORT: Final = {
    kind: str(kind.__struct_config__.tag).removeprefix(TYPE_PREFIX).removesuffix(".v1") for kind in Event.__args__
}


def table_of(entries: Iterable[Entry]) -> pa.Table:
    """Return entries of one side's log as a table with the columns of `SCHEMA`."""
    rows = [_row(entry) for entry in entries]
    columns: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(SCHEMA)
    return pa.table([_array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def entries_of(table: pa.Table | pa.RecordBatch) -> list[Entry]:
    """Return the entries that a table was made of, in their order; `ENTRY_COLUMNS` are enough."""
    entries = []
    for batch in table.to_batches() if isinstance(table, pa.Table) else [table]:
        ms, seq, event, by, packed, ident = (batch.column(name) for name in ENTRY_COLUMNS)
        if isinstance(by, pa.DictionaryArray):
            by = by.dictionary_decode()
        columns = (column.to_pylist() for column in (ms, seq, event, by, packed))
        for milliseconds, sequence, raw, sender, fields, text in zip(*columns, _texts(ident.storage), strict=True):
            if fields is not None:
                found = _fields.decode(fields)
            elif raw is None:
                found = {}
            else:
                found = {EVENT_FIELD: raw.replace(ID_MARK, text) if text else raw}
            if sender is not None:
                found[BY_FIELD] = sender
            entries.append(Entry(Position(f"{milliseconds}-{sequence}"), found))
    return entries


def arrivals_of(batch: pa.RecordBatch) -> list[Arrival]:
    """Return the entries that a table was made of as the fold takes them; `ARRIVAL_COLUMNS` are enough.

    What was an event when the table was made is read as one again; of everything else it is found out anew.
    """
    ms, seq, event, packed, ident, amends = (batch.column(name) for name in ARRIVAL_COLUMNS)
    keys, texts = _keys(ident.storage, amends.storage), _texts(ident.storage)
    columns = (column.to_pylist() for column in (ms, seq, event, packed))
    arrivals = []
    for milliseconds, sequence, raw, fields, key, text in zip(*columns, keys, texts, strict=True):
        position = Position(f"{milliseconds}-{sequence}")
        if text and fields is None:
            arrivals.append(arrive_again(position, raw.replace(ID_MARK, text), key))
        elif fields is None:
            arrivals.append(arrive(position, {} if raw is None else {EVENT_FIELD: raw}))
        else:
            arrivals.append(arrive(position, _fields.decode(fields)))
    return arrivals


def _keys(idents: pa.FixedSizeBinaryArray, amends: pa.FixedSizeBinaryArray) -> list[bytes]:
    """Return the key of each report; whatever stands there for what is none."""
    raw = idents.buffers()[1].to_pybytes() if len(idents) else b""
    first = idents.offset * 16
    keys = [raw[start : start + 16] for start in range(first, first + len(idents) * 16, 16)]
    if amends.null_count < len(amends):
        keys = [amended or own for amended, own in zip(amends.to_pylist(), keys, strict=True)]
    return keys


def _texts(idents: pa.FixedSizeBinaryArray) -> list[bytes]:
    """Return the text of each UUID, empty for none; all at once, since one by one takes longer than all the rest."""
    count = len(idents)
    if not count:
        return []
    raw = np.frombuffer(idents.buffers()[1], np.uint8)[idents.offset * 16 : (idents.offset + count) * 16]
    digits = np.empty((count, 32), np.uint8)
    digits[:, 0::2] = _DIGITS[raw >> 4].reshape(count, 16)
    digits[:, 1::2] = _DIGITS[raw & 15].reshape(count, 16)
    written = np.full((count, 36), ord("-"), np.uint8)
    for place, first, length in ((0, 0, 8), (9, 8, 4), (14, 12, 4), (19, 16, 4), (24, 20, 12)):
        written[:, place : place + length] = digits[:, first : first + length]
    text = written.tobytes()
    texts = [text[start : start + 36] for start in range(0, 36 * count, 36)]
    if idents.null_count:
        texts = [text if there else b"" for text, there in zip(texts, idents.is_valid().to_pylist(), strict=True)]
    return texts


def _row(entry: Entry) -> _Row:
    fields = entry.fields
    arrival = arrive(entry.position, fields)
    ms, _, seq = entry.position.partition("-")
    event, by, raw = arrival.event, fields.get(BY_FIELD), fields.get(EVENT_FIELD)
    if event is None or raw is None:
        fault = arrival.fault.reason if arrival.fault else None
        packed = None if fields.keys() <= {EVENT_FIELD, BY_FIELD} else msgspec.msgpack.encode(dict(fields))
        return (int(ms), int(seq), raw, by, packed, fault, *_NO_EVENT)
    # The decoder lets no 0x00 pass; if one did, the whole entry would be kept beside.
    packed = msgspec.msgpack.encode(dict(fields)) if ID_MARK in raw else None
    text = str(event.id).encode()
    _, unit, device = parse_source(event.source)
    amends = event.amends
    kind = type(event)
    return (
        int(ms), int(seq), raw.replace(text, ID_MARK) if raw.count(text) == 1 else raw, by, packed, None,
        event.id.int.to_bytes(16, "big"), amends.int.to_bytes(16, "big") if amends else None, event.revision,
        _SHORT[kind], event.side, unit, device, event.reportno, event.subject, event.time, *_CONTENT[kind](event.data),
    )  # fmt: skip


# The columns from `section` on, by the event's type; a table of functions, since a `match` takes several times as long.
_NONE: Final = (None,) * 7
_CONTENT: Final[dict[type, Callable[[Any], _Row]]] = {
    Apprehension: lambda data: (data.section, None, None, (("persons", data.persons),), *_NONE[:4]),
    SmugglerArrest: lambda data: (
        data.section, data.case, data.opens_case,
        (("smugglers", data.smugglers), ("smuggled_persons", data.smuggled_persons)), *_NONE[:4]
    ),
    NilReport: lambda data: (data.section, *_NONE),
    Custody: lambda data: ("", data.case, None, (("remanded", data.remanded),), *_NONE[:4]),
    OpeningBalance: lambda data: ("", *_NONE[:3], data.totals, data.period_from, data.period_to, None),
    Withdrawal: lambda data: ("", *_NONE[:6], data.reason),
    OperationOpened: lambda _: ("", *_NONE),
    OperationClosed: lambda _: ("", *_NONE),
}  # fmt: skip


def _array(column: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if kind == pa.uuid():
        return pa.ExtensionArray.from_storage(kind, pa.array(column, pa.binary(16)))
    if pa.types.is_dictionary(kind):
        return pa.array(column, kind.value_type).dictionary_encode().cast(kind)
    if kind == _COUNTS:
        return _counts(column)
    if kind == _TOTALS:
        return _totals(column)
    return pa.array(column, kind)


def _counts(column: Sequence[Sequence[tuple[str, Sequence[CitizenshipCount]]] | None]) -> pa.Array:
    lists = [
        None if members is None else [(measure, count) for measure, counts in members for count in counts]
        for members in column
    ]
    rows = [row for listed in lists if listed for row in listed]
    parts = [
        pa.array([measure for measure, _ in rows], pa.string()),
        pa.array([count.citizenship for _, count in rows], pa.string()),
        pa.array([count.count for _, count in rows], pa.int64()),
    ]
    return _lists(lists, parts, _COUNTS)


def _totals(column: Sequence[Sequence[BalanceTotal] | None]) -> pa.Array:
    totals = [total for listed in column if listed for total in listed]
    parts = [
        pa.array([total.measure for total in totals], pa.string()),
        pa.array([total.section for total in totals], pa.string()),
        pa.array([total.citizenship for total in totals], pa.string()),
        pa.array([total.count for total in totals], pa.int64()),
    ]
    return _lists(column, parts, _TOTALS)


def _lists(column: Sequence[Sequence[Any] | None], parts: list[pa.Array], kind: pa.ListType) -> pa.Array:
    offsets = pa.array([0, *accumulate(len(listed) if listed else 0 for listed in column)], pa.int32())
    values = pa.StructArray.from_arrays(parts, fields=list(kind.value_type))
    return pa.ListArray.from_arrays(
        offsets, values, type=kind, mask=pa.array([listed is None for listed in column], pa.bool_())
    )
