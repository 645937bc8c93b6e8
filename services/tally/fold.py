"""How an entry of the log is applied: the outcome table of DESIGN section 3. Pure, total, and order does not matter.

`arrive` reads one entry, `fold` takes a batch of them into the tallies. Neither raises, whatever the entry holds, and
neither changes the state it is given: `fold` returns what changed, and `State.take` takes that in once it is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import tzinfo
from hashlib import blake2b
from typing import Final, TypeAlias, cast

from msgspec import Struct, field
from msgspec.structs import asdict, replace

from schemas import codec
from schemas.events import Event, OperationClosed, OperationOpened
from schemas.tallies import Checkpoint, Counters, DeviceNumbers, Operation, Parked
from schemas.vocabulary import ParkedReason, Position, Side
from services.tally.cells import Tallies
from services.tally.contributions import contributions
from services.tally.numbers import take_number
from services.tally.operations import put_in, take_out

FOLD_VERSION: Final = 1
"""Raised by every change after which the same log gives other tallies; stored state of another version is refused."""

EVENT_FIELD: Final = b"event"
BY_FIELD: Final = b"by"

_SIDE_PART: Final = len("/SI/")  # within a partition a device is named `unit/device`

Key: TypeAlias = bytes
"""The identity of a report: 16 bytes, `amends` if present, else `id`."""


# gc=False on what a fold makes by the million: trees of events, never cycles.
class Arrival(Struct, frozen=True, gc=False):
    """One entry as read: an event with its key, or what keeps it from being one."""

    position: Position
    raw: bytes
    event: Event | None
    key: Key
    fault: codec.EventError | None = None


class Version(Struct, frozen=True, gc=False):
    """What is in force for a key: the event, its position, and whether the original (revision 0) is still awaited.

    `original` is where the original stands, if it is not the version in force and has come.
    """

    event: Event
    position: Position
    original_missing: bool
    original: Position | None = None


class State(Struct):
    """The derived state of one partition at a checkpoint; the index of keys stays in the store."""

    side: Side
    zone: tzinfo
    checkpoint: Checkpoint = Checkpoint(fold_version=FOLD_VERSION)
    tallies: Tallies = field(default_factory=dict)
    devices: dict[str, DeviceNumbers] = field(default_factory=dict)
    operations: dict[str, Operation] = field(default_factory=dict)

    def copy(self) -> State:
        """Return a state that stays as this one is now."""
        return State(
            self.side, self.zone, self.checkpoint, self.tallies.copy(), self.devices.copy(), self.operations.copy()
        )

    def take(self, changes: Changes) -> None:
        """Take in what a fold changed."""
        self.checkpoint = changes.checkpoint
        for cell, count in changes.cells.items():
            if count:
                self.tallies[cell] = count
            else:
                self.tallies.pop(cell, None)
        self.devices.update(changes.devices)
        self.operations.update(changes.operations)


class Amendment(Struct, frozen=True, gc=False):
    """Where an amendment stands, and where the version stood that it replaced.

    `replaced` is None if there was nothing to replace, and its own position if a higher revision had come before it.
    """

    position: Position
    replaced: Position | None = None


class Changes(Struct):
    """What a batch changed: absolute values, so that writing them twice does no harm.

    `amendments` are those of the batch, by their own ids; of one that is there already the first holds.
    """

    checkpoint: Checkpoint
    cells: Tallies
    index: dict[Key, Version]
    devices: dict[str, DeviceNumbers]
    operations: dict[str, Operation]
    parked: dict[Position, Parked]
    amendments: dict[Key, Amendment] = field(default_factory=dict)


def arrive(position: Position, fields: Mapping[bytes, bytes]) -> Arrival:
    """Read one entry of the log."""
    raw = fields.get(EVENT_FIELD)
    if raw is None:
        return _unreadable(position, b"", "the entry has no field `event`")
    if len(fields) > 1 and not fields.keys() <= {EVENT_FIELD, BY_FIELD}:
        return _unreadable(position, raw, "the entry has a field other than `event` and `by`")
    try:
        event = codec.decode(raw)
    except codec.EventError as fault:
        return Arrival(position, raw, None, b"", fault)
    return Arrival(position, raw, event, (event.amends or event.id).int.to_bytes(16, "big"))


def arrive_again(position: Position, raw: bytes, key: Key) -> Arrival:
    """Return the arrival of an event that was read before, and its key."""
    try:
        return Arrival(position, raw, codec.decode_again(raw), key)
    except codec.EventError as fault:
        return Arrival(position, raw, None, b"", fault)


def fold(state: State, arrivals: list[Arrival], known: Mapping[Key, Version]) -> Changes:
    """Apply a batch, in the order of the log; `known` holds each key of the batch that the log held before it."""
    batch = _Batch(state, known)
    for arrival in arrivals:
        batch.apply(arrival)
    return batch.changes(arrivals)


class _Batch:
    """A batch on its way into the tallies: the state before it, and what it has changed so far."""

    __slots__ = (
        "added", "amendments", "devices", "in_force", "known", "operations", "parked", "side", "state", "tally", "zone",
    )  # fmt: skip

    def __init__(self, state: State, known: Mapping[Key, Version]) -> None:
        self.state = state
        self.side = state.side
        self.zone = state.zone
        self.known = known
        self.in_force: dict[Key, Version] = {}
        self.amendments: dict[Key, Amendment] = {}
        self.added: Tallies = {}
        self.devices: dict[str, DeviceNumbers] = {}
        self.operations: dict[str, Operation] = {}
        self.parked: dict[Position, Parked] = {}
        self.tally = dict.fromkeys(asdict(state.checkpoint.counters), 0)

    def apply(self, arrival: Arrival) -> None:
        """Judge one entry: a report of this side is settled and its number noted; anything else is parked."""
        event = arrival.event
        if event is None:
            fault = cast("codec.EventError", arrival.fault)
            self._park(arrival, fault.reason, str(fault))
            return
        if event.side != self.side:
            self._park(arrival, "wrong-side", f"an event of side {event.side} in the log of {self.side}")
            return
        before = self.in_force.get(arrival.key) or self.known.get(arrival.key)
        if before is None:
            self._first(arrival, event)
        else:
            self._again(arrival, event, before)
        # A number used before is odd only on a report of its own: not on one that merely came once more.
        numbers = self._numbers(event)
        number_seen = take_number(numbers, event.reportno, arrival.position)
        if number_seen and (before is None or event.revision > before.event.revision):
            numbers.reused += 1
            self.tally["number_reused"] += 1

    def _first(self, arrival: Arrival, event: Event) -> None:
        """The log holds nothing for the key: the report counts; an amendment without its original is flagged."""
        original_missing = event.revision > 0
        self._count(arrival.key, event, 1)
        self.in_force[arrival.key] = Version(event, arrival.position, original_missing)
        self.tally["applied"] += 1
        if original_missing:
            self.tally["original_missing"] += 1
            self._amend(event, Amendment(arrival.position))

    def _again(self, arrival: Arrival, event: Event, before: Version) -> None:
        """The log holds a revision for the key: the higher one counts, and of two equal ones the first."""
        if event.revision > before.event.revision:
            self._count(arrival.key, before.event, -1)
            self._count(arrival.key, event, 1)
            original = before.original if before.event.revision else before.position
            self.in_force[arrival.key] = Version(event, arrival.position, before.original_missing, original)
            self.tally["replaced"] += 1
            self._amend(event, Amendment(arrival.position, before.position))
        elif event.revision < before.event.revision:
            self.tally["superseded"] += 1
            if event.revision:
                self._amend(event, Amendment(arrival.position, arrival.position))
            if event.revision == 0 and before.original_missing:
                self.in_force[arrival.key] = replace(before, original_missing=False, original=arrival.position)
                self.tally["original_missing"] -= 1
        elif codec.content_digest(event) == codec.content_digest(before.event):
            self.tally["duplicate"] += 1
            if event.revision:  # under an id of its own, if the same was written twice
                self._amend(event, Amendment(arrival.position, arrival.position))
        else:
            detail = f"revision {event.revision} of this report stands at {before.position} with other content"
            self._park(arrival, "conflict", detail)

    def _amend(self, event: Event, amendment: Amendment) -> None:
        self.amendments.setdefault(event.id.int.to_bytes(16, "big"), amendment)

    def _count(self, key: Key, event: Event, sign: int) -> None:
        added = self.added
        contributed = contributions(event, self.zone)
        for cell, count in contributed:
            added[cell] = added.get(cell, 0) + sign * count
        if not contributed and isinstance(event, OperationOpened | OperationClosed):
            name = event.subject
            operation = self.operations.get(name) or self.state.operations.get(name) or Operation()
            self.operations[name] = put_in(operation, key, event) if sign > 0 else take_out(operation, key)

    def _numbers(self, event: Event) -> DeviceNumbers:
        """Return the device's running numbers: they find what is missing, and never decide what counts."""
        device = event.source[_SIDE_PART:]
        numbers = self.devices.get(device)
        if numbers is None:
            before = self.state.devices.get(device)
            numbers = replace(before, missing=before.missing.copy()) if before else DeviceNumbers()
            self.devices[device] = numbers
        return numbers

    def _park(self, arrival: Arrival, reason: ParkedReason, detail: str) -> None:
        digest = blake2b(arrival.raw, digest_size=codec.DIGEST_BYTES).hexdigest()
        self.parked[arrival.position] = Parked(reason, detail, digest)
        self.tally[reason.replace("-", "_")] += 1

    def changes(self, arrivals: list[Arrival]) -> Changes:
        """Return what the batch changed, as absolute values."""
        before = self.state.checkpoint
        tallies = self.state.tallies
        counters = {name: count + self.tally[name] for name, count in asdict(before.counters).items()}
        return Changes(
            checkpoint=Checkpoint(
                position=arrivals[-1].position if arrivals else before.position,
                entries=before.entries + len(arrivals),
                fold_version=FOLD_VERSION,
                counters=Counters(**counters),
                zone=str(self.zone) if arrivals else before.zone,
            ),
            cells={cell: tallies.get(cell, 0) + added for cell, added in self.added.items() if added},
            index=self.in_force,
            amendments=self.amendments,
            devices=self.devices,
            operations=self.operations,
            parked=self.parked,
        )


def _unreadable(position: Position, raw: bytes, rule: str) -> Arrival:
    return Arrival(position, raw, None, b"", codec.EventError("malformed", "", "the entry", rule))
