"""The read models: what is derived from the log, as it is stored, printed and compared."""

from __future__ import annotations

from datetime import date, datetime

from msgspec import Struct, field

from schemas.events import OperationOpenedData
from schemas.vocabulary import START, ParkedReason, Position, Side


class Counters(Struct, frozen=True):
    """How many log entries met which outcome; `original_missing` is how many amended reports still lack an original."""

    applied: int = 0
    replaced: int = 0
    duplicate: int = 0
    superseded: int = 0
    conflict: int = 0
    malformed: int = 0
    unknown_type: int = 0
    wrong_side: int = 0
    number_reused: int = 0
    original_missing: int = 0

    @property
    def parked(self) -> int:
        """Entries set aside."""
        return self.conflict + self.malformed + self.unknown_type + self.wrong_side


class Checkpoint(Struct, frozen=True):
    """How far the stored tallies reach, to the entry; entries are those consumed, parked ones included.

    `zone` is the IANA zone by which their days were counted, empty before the first entry.
    """

    position: Position = START
    entries: int = 0
    fold_version: int = 0
    counters: Counters = Counters()
    zone: str = ""


class DeviceNumbers(Struct):
    """The report numbers received from one device: the highest, the ranges below it that are missing, those used twice.

    `reused` is how many came with a number that another report had brought; not counted are reports that came after a
    higher revision of themselves, since nothing tells whether these had come before.
    """

    highest: int = 0
    missing: list[tuple[int, int]] = field(default_factory=list)
    last_position: Position = START
    reused: int = 0


class Opening(Struct, frozen=True):
    """One report that opened an operation."""

    time: datetime
    plan: OperationOpenedData


class Closing(Struct, frozen=True):
    """One report that closed an operation."""

    time: datetime
    closed: date


class Operation(Struct, frozen=True):
    """An operation as one side knows it: the plan in force, and the reports it rests on, by key in hexadecimal."""

    plan: OperationOpenedData | None = None
    closed: date | None = None
    openings: dict[str, Opening] = {}
    closings: dict[str, Closing] = {}


class Parked(Struct, frozen=True):
    """An entry that was set aside: why, in a word and in a sentence, and the BLAKE2b-128 of its bytes."""

    reason: ParkedReason
    detail: str
    digest: str


class Requeued(Struct, frozen=True):
    """A parked entry that was appended again: by whom, why, when, to which side's log, and where it stands now.

    `by` is the new entry's field of that name. `after` is where the log ended before; `position` is empty if it could
    not be noted any more.
    """

    by: str
    because: str
    at: datetime
    side: Side
    after: Position = START
    position: Position = Position("")
