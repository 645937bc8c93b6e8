"""What the control room knows of each side now: loaded once, then kept current by the change feed and by looks.

The feed says what changed and what each change follows, so a gap is seen, whatever made it: then everything is loaded
anew. The looks are a second way to the same server: how far behind the projector is, and when the log was last written
to, is never concluded from the feed's silence.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

import msgspec
from msgspec import Struct

from schemas.screen import (
    AMENDMENTS_MAX,
    LATEST_MAX,
    AmendmentShown,
    AuditShown,
    ChangeMessage,
    DeviceShown,
    Hours,
    OperationShown,
    ReportShown,
    ResetReason,
    SideMessage,
    SideShown,
    SideStanding,
)
from schemas.tallies import Checkpoint, DeviceNumbers, Operation
from schemas.vocabulary import START, Position, order
from services.control_room.book import (
    HOUR_S,
    Book,
    Recorded,
    add_changes,
    apply_cells,
    joined_digest,
    received_at,
    show_amendment,
    show_report,
)
from services.runtime.errors import DamagedLogError, FieldtallyError
from services.runtime.settings import SideSettings
from services.store.contract import Entry
from services.store.glance import Glance, RedisGlance
from services.store.tally_store import RedisTallyStore
from services.store.whole_log import WholeLog
from services.tally.cells import cell_text
from services.tally.digest import state_digest
from services.tally.fold import Amendment, Key, State, arrive

BOOK_HOURS: Final = 25
CHUNK: Final = 2_000
DAYS_KEPT: Final = 8

_cells: Final = msgspec.json.Decoder(dict[str, int])


class Change(Struct, frozen=True):
    """One entry of the change feed."""

    position: Position
    after: Position
    generation: str
    cells: dict[str, int]


def read_change(entry: Entry) -> Change | None:
    """Read an entry of the change feed; None for what the projector did not write."""
    try:
        return Change(
            entry.position,
            Position(entry.fields[b"after"].decode()),
            entry.fields[b"generation"].decode(),
            _cells.decode(entry.fields[b"cells"]),
        )
    except (KeyError, ValueError, msgspec.MsgspecError):
        return None


class _Report(Struct, frozen=True, gc=False):
    """A report of the log: whether it is in force, and what it amended if it did."""

    recorded: Recorded
    in_force: bool
    amendment: Amendment | None


class RoomSide:
    """One side as the screens show it.

    `on_change` and `on_side` hear what is new, `on_reset` that everything is: whoever shows this side takes it anew.
    """

    def __init__(
        self,
        side: SideSettings,
        log: WholeLog,
        store: RedisTallyStore,
        glance: RedisGlance,
        now: Callable[[], datetime],
    ) -> None:
        self.side = side
        self.loaded = False
        self.position = START
        self.entries = 0
        self.generation = ""
        self.cells: dict[str, int] = {}
        self.seen: Glance | None = None
        self.looked: datetime | None = None
        self.failure: FieldtallyError | None = None
        self.on_change: Callable[[ChangeMessage, Position], None] = lambda _message, _after: None
        self.on_side: Callable[[SideMessage], None] = lambda _: None
        self.on_reset: Callable[[ResetReason], None] = lambda _: None
        self._log = log
        self._store = store
        self._glance = glance
        self._now = now
        self._operations: tuple[OperationShown, ...] = ()
        self._devices: tuple[DeviceShown, ...] = ()
        self._audit: AuditShown | None = None
        self._book = Book(side.zone)
        self._first: Position | None = None  # entry of the log
        self._latest: deque[ReportShown] = deque(maxlen=LATEST_MAX)
        self._amendments: deque[AmendmentShown] = deque(maxlen=AMENDMENTS_MAX)
        self._amended: dict[str, int] = {}
        self._digest = ""
        self._behind_at: Position | None = None
        self._days: dict[date, tuple[Book, Position]] = {}
        self._busy = asyncio.Lock()

    # Loading and following

    async def load(self) -> None:
        """Load everything anew, as it stands now."""
        async with self._busy:
            await self._load()

    async def follow(self, changes: Sequence[Change]) -> bool:
        """Take changes of the feed, in their order; where one does not follow what is held, load everything anew.

        Return whether they followed: else the reader goes on from the position that was loaded.
        """
        async with self._busy:
            left_over = ""
            for change in changes:
                if change.generation not in (self.generation, left_over):
                    if (await self._glance.take()).generation != self.generation:
                        await self._reload("generation")
                        return False
                    left_over = change.generation  # by a generation that is no longer live
                if change.generation == left_over:
                    continue
                if order(change.position) <= order(self.position):
                    continue  # what was loaded holds it already
                if change.after != self.position:
                    await self._reload("too-old")
                    return False
                await self._apply(change)
        return True

    async def _reload(self, reason: ResetReason) -> None:
        await self._load()
        self.on_reset(reason)

    async def _load(self) -> None:
        stored = await self._store.load()
        checkpoint = stored.checkpoint
        position = checkpoint.position if checkpoint else START
        since = _hours_before(self._now())
        book = Book(self.side.zone, _whole_hour(since))
        async for entries in self._between(since, position):
            book.take(one.recorded for one in await self._reports(stored.generation, entries) if one.in_force)
        latest = await self._latest_until(stored.generation, position)
        amendments, amended = await self._amendments_until(stored.generation, position)
        audit = await self._glance.audit()
        first = await self._log.read_after(START, 1)
        seen = await self._glance.take()
        misfit = await self._misfit(seen)
        # From here on nothing waits, so that whatever goes wrong leaves everything as it was.
        self.generation, self.position = stored.generation, position
        self.entries = checkpoint.entries if checkpoint else 0
        self.cells = {cell_text(cell): count for cell, count in stored.tallies.items()}
        self._operations = _show_operations(stored.operations)
        self._devices = _show_devices(stored.devices)
        self._audit = audit
        self._book = book
        self._days = {}
        self._first = first[0].position if first else None
        self._latest = deque(latest, LATEST_MAX)
        self._amendments = deque(amendments, AMENDMENTS_MAX)
        self._amended = amended
        self._digest = ""
        self._behind_at = None
        self._saw(seen, misfit)
        self.loaded = True

    async def _apply(self, change: Change) -> None:
        entries = [entry async for chunk in self._between(self.position, change.position) for entry in chunk]
        reports = await self._reports(self.generation, entries)
        latest = [show_report(one.recorded, self.side.zone) for one in reports[: -LATEST_MAX - 1 : -1]]
        amendments = await self._show_amendments(reports)
        # From here on nothing waits: a change is taken whole, or is to be taken once more.
        hours = self._book.take(one.recorded for one in reports if one.in_force)
        after, self.position = self.position, change.position
        self.entries += len(entries)
        self._first = self._first or (entries[0].position if entries else None)
        apply_cells(self.cells, change.cells)
        self._digest = ""
        self._latest.extendleft(latest[::-1])
        self._amendments.extendleft(amendments[::-1])
        amended = add_changes(self._amended, amendments)
        message = ChangeMessage(
            side=self.side.side,
            position=change.position,
            generation=change.generation,
            at=received_at(change.position),
            cells=change.cells,
            hours=hours,
            latest=tuple(latest),
            amendments=tuple(amendments[:AMENDMENTS_MAX]),
            amended=amended,
        )
        self.on_change(message, after)

    async def _between(self, after: Position, until: Position) -> AsyncIterator[list[Entry]]:
        """Read the log after a position and up to another, in pieces."""
        while order(after) < order(until) and (entries := await self._log.read_after(after, CHUNK)):
            yield _up_to(entries, until)
            after = entries[-1].position

    async def _reports(self, generation: str, entries: Sequence[Entry]) -> list[_Report]:
        """Return the reports among entries, without what was parked or only came again, as the derived state has it."""
        recorded = self._readable(entries)
        index = await self._glance.index(generation, list(dict.fromkeys(_key(one) for one in recorded)))
        known = await self._glance.amendments(generation, [_name(one) for one in recorded if one.event.revision])
        found = []
        for one in recorded:
            entry, amendment = index.get(_key(one)), known.get(_name(one)) if one.event.revision else None
            in_force = entry is not None and entry.position == one.position
            original = entry is not None and entry.original == one.position
            # One that came twice, or after a higher revision, stands where it was, and changed nothing.
            amends = amendment is not None and amendment.position == one.position != amendment.replaced
            if in_force or original or amends:
                found.append(_Report(one, in_force, amendment if amends else None))
        return found

    async def _latest_until(self, generation: str, position: Position) -> list[ReportShown]:
        """Return the newest reports up to a position, newest first, from as many entries as one can look through."""
        entries = await self._log.read_before(position, LATEST_MAX)
        reports = await self._reports(generation, entries)
        if len(reports) < LATEST_MAX <= len(entries):  # much of it was parked, or came twice
            reports = await self._reports(generation, await self._log.read_before(position, CHUNK))
        return [show_report(one.recorded, self.side.zone) for one in reports[:LATEST_MAX]]

    async def _amendments_until(
        self, generation: str, position: Position
    ) -> tuple[list[AmendmentShown], dict[str, int]]:
        """Return the newest amendments up to a position, newest first, and what all of them changed by cell."""
        limit = order(position)
        known = (await self._glance.amendments(generation)).values()
        places = sorted(
            (one.position for one in known if order(one.position) <= limit and one.replaced != one.position), key=order
        )
        newest: deque[AmendmentShown] = deque(maxlen=AMENDMENTS_MAX)
        amended: dict[str, int] = {}
        for first in range(0, len(places), CHUNK):
            entries = await self._log.read_at(places[first : first + CHUNK])
            shown = await self._show_amendments(await self._reports(generation, [entry for entry in entries if entry]))
            newest.extendleft(shown[::-1])
            add_changes(amended, shown)
        return list(newest), amended

    async def _show_amendments(self, reports: Sequence[_Report]) -> list[AmendmentShown]:
        """Return what the amendments among reports changed, newest first."""
        amendments = [(one.recorded, one.amendment) for one in reports if one.amendment]
        places = list(dict.fromkeys(amendment.replaced for _, amendment in amendments if amendment.replaced))
        replaced = {
            entry.position: arrive(entry.position, entry.fields).event
            for entry in await self._log.read_at(places)
            if entry
        }
        return [
            show_amendment(one, replaced.get(amendment.replaced) if amendment.replaced else None, self.side.zone)
            for one, amendment in reversed(amendments)
        ]

    def _readable(self, entries: Sequence[Entry]) -> list[Recorded]:
        """Return the events among entries that are of this side."""
        return [
            Recorded(event, entry.position)
            for entry in entries
            if (event := arrive(entry.position, entry.fields).event) and event.side == self.side.side
        ]

    async def reached(self, stop: Position) -> Position:
        """Return a position, or where the log ends if it has not come so far."""
        return min(stop, (await self._log.extent()).last, key=order)

    async def hours_of(self, day: date) -> Hours:
        """Return the hours of one local day, however long ago, read from the log; one at a time may ask.

        The last few days are kept: a screen that shows one asks again as long as reports come, and the log is long.
        """
        generation, position, days = self.generation, self.position, self._days
        book, after = days.pop(day) if day in days else self._new_day(day)
        async for entries in self._between(after, position):
            book.take(one.recorded for one in await self._reports(generation, entries) if one.in_force)
        days[day] = book, position
        while len(days) > DAYS_KEPT:
            del days[next(iter(days))]
        return Hours(self._known_since(book), dict(book.counts))

    def _known_since(self, book: Book) -> int:
        """Return from which hour on all that happened is known.

        Of what was before the log nobody has reported here, unless all of it was: then it was reported afterwards.
        """
        began = _whole_hour(self._first) if self._first else 0
        return began if book.since < began < book.until else book.since

    def _new_day(self, day: date) -> tuple[Book, Position]:
        first, end = (datetime.combine(one, time.min, self.side.zone) for one in (day, day + timedelta(days=1)))
        book = Book(self.side.zone, int(first.timestamp()) // HOUR_S * HOUR_S, end.timestamp())
        # Of what happens on a day the first may be received a day before, by a clock that is fast.
        return book, Position(f"{max(0, int((first - timedelta(days=1)).timestamp() * 1000))}-0")

    async def past(self, state: State) -> SideShown:
        """Return the side as a rebuilt state has it: what a screen would have shown then."""
        checkpoint = state.checkpoint
        position = checkpoint.position
        reached = received_at(position)
        since = _hours_before(reached)
        book = Book(self.side.zone, _whole_hour(since))
        generation = (await self._glance.take()).generation
        async for entries in self._between(since, position):
            # All that ever were in force: which was so then, their revisions say. What was parked counts in no hour.
            book.take(one.recorded for one in await self._reports(generation, entries))
        amendments, amended = await self._amendments_until(generation, position)
        return SideShown(
            side=self.side.side,
            zone=str(self.side.zone),
            citizenship=self.side.citizenship,
            position=position,
            entries=checkpoint.entries,
            generation="",
            digest=state_digest(state.tallies),
            lag=0,
            lag_s=0.0,
            heard=reached if position != START else None,
            parked=checkpoint.counters.parked,
            operations=_show_operations(state.operations),
            cells={cell_text(cell): count for cell, count in state.tallies.items()},
            devices=_show_devices(state.devices),
            hours=Hours(self._known_since(book), book.counts),
            latest=tuple(await self._latest_until(generation, position)),
            amendments=tuple(amendments),
            amended=amended,
            audit=None,
        )

    # Looking

    async def look(self) -> bool:
        """Look at the side's state on the server, past the feed; return whether everything had to be loaded anew."""
        async with self._busy:  # nothing is taken meanwhile, so the server cannot be behind what is held
            seen = await self._glance.take()
            devices = _show_devices(await self._glance.devices(seen.generation))
            self._audit = await self._glance.audit()
            self._saw(seen, await self._misfit(seen))
            if not self.loaded:
                return False
            self._book.forget_before(_whole_hour(_hours_before(self._now())))
            if reason := self._out_of_step(seen):
                await self._reload(reason)
                return True
        operations = _show_operations(seen.operations)
        if (operations, devices) != (self._operations, self._devices):
            known = set(self._devices)
            self._operations, self._devices = operations, devices
            changed = tuple(device for device in devices if device not in known)
            self.on_side(SideMessage(self.side.side, operations, changed))
        return False

    def _out_of_step(self, seen: Glance) -> ResetReason | None:
        """Return why what is held cannot be kept current by the feed."""
        if seen.generation != self.generation:
            return "generation"
        if order(seen.position) < order(self.position):  # the server was set back
            return "restarted"
        if order(seen.position) == order(self.position):
            self._behind_at = None
        elif self._behind_at == self.position:  # the feed has told nothing since the last look
            return "too-old"
        else:
            self._behind_at = self.position
        return None

    async def _misfit(self, seen: Glance) -> DamagedLogError | None:
        """Return why the projector cannot go on from here: it may have stopped, or have nothing to notice it by."""
        extent = await self._log.extent()
        lacking = extent.lacks(Checkpoint(position=seen.position, entries=seen.entries))
        if lacking:
            return DamagedLogError(f"the log of side {self.side.side} has lost entries: {lacking}; restore the log")
        return DamagedLogError(f"side {self.side.side}: {extent.foreign}") if extent.foreign else None

    def _saw(self, seen: Glance, misfit: DamagedLogError | None) -> None:
        self.seen, self.looked, self.failure = seen, self._now(), misfit

    # Showing

    @property
    def audit(self) -> AuditShown | None:
        """The last audit that agreed."""
        return self._audit

    @property
    def digest(self) -> str:
        """The state digest of the tallies held."""
        self._digest = self._digest or joined_digest([self.cells])
        return self._digest

    def standing(self) -> SideStanding:
        """Return how the side stands."""
        seen = self.seen
        return SideStanding(
            side=self.side.side,
            generation=self.generation,
            position=self.position,
            entries=self.entries,
            digest=self.digest,
            lag=seen.lag if seen else 0,
            lag_s=self.lag_s(),
            heard=received_at(seen.last) if seen and seen.last != START else None,
            parked=seen.parked if seen else 0,
            audit=self._audit,
        )

    def plans(self) -> SideMessage:
        """Return the operations and devices."""
        return SideMessage(self.side.side, self._operations, self._devices)

    def lag_s(self) -> float:
        """Return for how many seconds the oldest entry that is not counted has been in the log."""
        if self.seen is None or self.seen.next_entry is None:
            return 0.0
        return round(max(0.0, (self._now() - received_at(self.seen.next_entry)).total_seconds()), 1)

    def shown(self) -> SideShown:
        """Return all that a screen needs."""
        standing = self.standing()
        return SideShown(
            zone=str(self.side.zone),
            citizenship=self.side.citizenship,
            operations=self._operations,
            cells=dict(sorted(self.cells.items())),  # side by side, what is alike compresses by a fifth more
            devices=self._devices,
            hours=Hours(self._known_since(self._book), self._book.counts),
            latest=tuple(self._latest),
            amendments=tuple(self._amendments),
            amended=dict(sorted(self._amended.items())),
            **msgspec.structs.asdict(standing),
        )


def _show_operations(operations: Mapping[str, Operation]) -> tuple[OperationShown, ...]:
    return tuple(
        OperationShown(name, plan.name, plan.starts, plan.ends, operation.closed, plan.sections)
        for name, operation in sorted(operations.items())
        if (plan := operation.plan)
    )


def _show_devices(devices: Mapping[str, DeviceNumbers]) -> tuple[DeviceShown, ...]:
    return tuple(
        DeviceShown(
            unit=name.partition("/")[0],
            device=name.partition("/")[2],
            highest=numbers.highest,
            missing=tuple(numbers.missing),
            reused=numbers.reused,
            heard=received_at(numbers.last_position) if numbers.last_position != START else None,
        )
        for name, numbers in sorted(devices.items())
    )


def _up_to(entries: Sequence[Entry], position: Position) -> list[Entry]:
    limit = order(position)
    return [entry for entry in entries if order(entry.position) <= limit]


def _name(one: Recorded) -> Key:
    return one.event.id.int.to_bytes(16, "big")


def _key(one: Recorded) -> Key:
    return (one.event.amends or one.event.id).int.to_bytes(16, "big")


def _hours_before(moment: datetime) -> Position:
    """Return the position from which on a book that shows a day before a moment has to be read."""
    return Position(f"{max(0, int(moment.timestamp() - BOOK_HOURS * HOUR_S)) * 1000}-0")


def _whole_hour(position: Position) -> int:
    """Return the first hour that lies behind a position in full."""
    return -(-int(received_at(position).astimezone(UTC).timestamp()) // HOUR_S) * HOUR_S
