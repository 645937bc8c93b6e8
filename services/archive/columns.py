"""The columns of the log as a table: of a segment of the archive, and of what is still in the stream.

One row is one entry. The columns serve queries; `event`, `id`, `by` and `fields` hold the entry itself, byte for byte.
The id of an event is a column, so its text is left out of the bytes: where it stands in them once, in lower case, one
byte 0x00 stands in its place, which no JSON text holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Final, TypeAlias
from uuid import UUID

import msgspec
import pyarrow as pa  # type: ignore[import-untyped]  # it has none

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
from services.tally.fold import BY_FIELD, EVENT_FIELD, arrive

ID_MARK: Final = b"\x00"

_WORD: Final = pa.dictionary(pa.int32(), pa.string())
_COUNTS: Final = pa.list_(pa.struct([("citizenship", pa.string()), ("count", pa.int64())]))
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
        pa.field("persons", _COUNTS),
        pa.field("smugglers", _COUNTS),
        pa.field("smuggled_persons", _COUNTS),
        pa.field("remanded", _COUNTS),
        pa.field("totals", _TOTALS),
        pa.field("period_from", pa.date32()),
        pa.field("period_to", pa.date32()),
        pa.field("reason", _WORD),
    ]
)
"""The columns in their order. All after `fault` are null where the entry is no event."""

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


def entries_of(table: pa.Table) -> Iterator[Entry]:
    """Return the entries that a table was made of."""
    for batch in table.select(["ms", "seq", "event", "by", "fields", "id"]).to_batches():
        for ms, seq, event, by, fields, ident in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield Entry(Position(f"{ms}-{seq}"), _fields(event, by, fields, ident))


def exact_bytes(event: bytes, ident: UUID | None) -> bytes:
    """Return an event's own bytes from the columns `event` and `id`."""
    return event if ident is None else event.replace(ID_MARK, str(ident).encode())


def _fields(event: bytes | None, by: bytes | None, fields: bytes | None, ident: UUID | None) -> dict[bytes, bytes]:
    if fields is not None:
        return msgspec.msgpack.decode(fields, type=dict[bytes, bytes])
    found = {} if event is None else {EVENT_FIELD: exact_bytes(event, ident)}
    return found if by is None else found | {BY_FIELD: by}


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
_NONE: Final = (None,) * 10
_CONTENT: Final[dict[type, Callable[[Any], _Row]]] = {
    Apprehension: lambda data: (data.section, None, None, data.persons, *_NONE[:7]),
    SmugglerArrest: lambda data: (
        data.section, data.case, data.opens_case, None, data.smugglers, data.smuggled_persons, *_NONE[:5]
    ),
    NilReport: lambda data: (data.section, *_NONE),
    Custody: lambda data: ("", data.case, None, None, None, None, data.remanded, *_NONE[:4]),
    OpeningBalance: lambda data: ("", *_NONE[:6], data.totals, data.period_from, data.period_to, None),
    Withdrawal: lambda data: ("", *_NONE[:9], data.reason),
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


def _counts(column: Sequence[Sequence[CitizenshipCount] | None]) -> pa.Array:
    counts = [count for listed in column if listed for count in listed]
    parts = [
        pa.array([count.citizenship for count in counts], pa.string()),
        pa.array([count.count for count in counts], pa.int64()),
    ]
    return _lists(column, parts, _COUNTS)


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
