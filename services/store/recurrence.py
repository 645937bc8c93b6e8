"""Which reports come more than once in a log: only these does a replay have to remember, and only until the last time.

A replay of ten million reports would otherwise hold ten million keys, of which one in thirty ever comes again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias
from uuid import UUID

import msgspec
import numpy as np
from msgspec import UNSET, Struct, UnsetType

from schemas.vocabulary import Position
from services.store.contract import Entry
from services.tally.fold import EVENT_FIELD, Key

PASS_REPORTS: Final = 1 << 20
"""How many reports are looked at at once."""

Marks: TypeAlias = "np.ndarray[Any, np.dtype[np.uint64]]"
"""A number for each report, equal for equal keys; hardly ever for others, which would only be remembered in vain."""

_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)
_NOTHING: Final = np.empty(0, np.uint64)


class _Named(Struct):
    id: UUID
    amends: UUID | UnsetType = UNSET


_named: Final = msgspec.json.Decoder(_Named)


class Recurring:
    """Which keys come again in a log up to `last`, and how often still."""

    def __init__(self, marks: Marks, counts: np.ndarray[Any, np.dtype[np.int64]], last: Position) -> None:
        self.last = last
        self._marks = marks
        self._left = counts

    def take(self, keys: Sequence[Key]) -> dict[Key, int]:
        """Take in the keys of reports as they stand in the log; return how often those come again that do."""
        if not keys or not len(self._marks):
            return {}
        marks = marks_of(b"".join(keys))
        places = np.searchsorted(self._marks, marks)
        places[places == len(self._marks)] = 0
        found = np.flatnonzero(self._marks[places] == marks)
        np.subtract.at(self._left, places[found], 1)
        left = self._left[places[found]].tolist()
        return {keys[index]: count for index, count in zip(found.tolist(), left, strict=True) if count > 0}


def marks_of(keys: bytes) -> Marks:
    """Return the marks of keys, 16 bytes each."""
    halves = np.frombuffer(keys, dtype="<u8").reshape(-1, 2)
    marks: Marks = halves[:, 0] * _SPREAD ^ halves[:, 1]
    return marks


def marks_of_entries(entries: Sequence[Entry]) -> Marks:
    """Return the marks of the reports among entries."""
    return marks_of(b"".join(key for entry in entries if (key := _key(entry))))


def find_recurring(read: Callable[[], Iterator[Marks]], reports: int, last: Position) -> Recurring:
    """Find what comes again among the marks that `read` yields, which is called several times for many reports."""
    passes = np.uint64(max(1, 1 << (reports // PASS_REPORTS).bit_length()))
    found, counted = [], []
    for number in range(int(passes)):
        pieces = [marks[marks % passes == number] for marks in read()]
        several, counts = np.unique(np.concatenate([*pieces, _NOTHING]), return_counts=True)
        found.append(several[counts > 1])
        counted.append(counts[counts > 1])
    marks, counts = np.concatenate(found), np.concatenate(counted)
    order = np.argsort(marks)
    return Recurring(marks[order], counts[order], last)


def _key(entry: Entry) -> Key | None:
    try:
        named = _named.decode(entry.fields.get(EVENT_FIELD, b""))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return (named.amends or named.id).bytes
