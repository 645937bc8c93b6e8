"""What the control room knows of each side now: loaded once, then kept current by the change feed and by looks.

The feed says what changed and what each change follows, so a gap is seen, whatever made it: then everything is loaded
anew. The looks are a second way to the same server: how far behind the projector is, and when the log was last written
to, is never concluded from the feed's silence.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from heapq import nlargest
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
from schemas.tallies import DeviceNumbers, Operation
from schemas.vocabulary import START, Position, order
from services.control_room.book import HOUR_S, Book, Recorded, apply_cells, received_at, show_amendment, show_report
from services.runtime.errors import FieldtallyError
from services.runtime.settings import SideSettings
from services.store.contract import Entry
from services.store.glance import Glance, RedisGlance
from services.store.log import RedisLog
from services.store.tally_store import RedisTallyStore
from services.tally.cells import cell_text, parse_cell
from services.tally.digest import state_digest
from services.tally.fold import Key, State, arrive

BOOK_HOURS: Final = 25
CHUNK: Final = 2_000
LOOKED_UP: Final = 1_000

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


class RoomSide:
    """One side as the screens show it.

    `on_change` and `on_side` hear what is new, `on_reset` that everything is: whoever shows this side takes it anew.
    """

    def __init__(
        self,
        side: SideSettings,
        log: RedisLog,
        store: RedisTallyStore,
        glance: RedisGlance,
        now: Callable[[], datetime],
    ) -> None:
        self.side = side
        self.loaded = False
        self.position = START
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
        self._book_since = START
        self._latest: deque[ReportShown] = deque(maxlen=LATEST_MAX)
        self._amendments: deque[AmendmentShown] = deque(maxlen=AMENDMENTS_MAX)
        self._digest = ("", "")
        self._stood_at = START
        self._busy = asyncio.Lock()

    # Loading and following

    async def load(self) -> None:
        """Load everything anew, as it stands now."""
        async with self._busy:
            await self._load()

    async def follow(self, changes: Sequence[Change]) -> None:
        """Take changes of the feed, in their order; where one does not follow what is held, load everything anew."""
        async with self._busy:
            for change in changes:
                if order(change.position) <= order(self.position) and change.generation == self.generation:
                    continue  # what was loaded holds it already
                if change.generation != self.generation or change.after != self.position:
                    await self._reload("generation" if change.generation != self.generation else "too-old")
                    return
                await self._apply(change)

    async def _reload(self, reason: ResetReason) -> None:
        await self._load()
        self.on_reset(reason)

    async def _load(self) -> None:
        stored = await self._store.load()
        checkpoint = stored.checkpoint
        position = checkpoint.position if checkpoint else START
        book_since = _hours_before(self._now())
        book = Book(self.side.zone)
        at = book_since
        while order(at) < order(position) and (entries := await self._log.read_after(at, CHUNK)):
            book.take(await self._in_force(stored.generation, _up_to(entries, position)))
            at = entries[-1].position
        latest = [show_report(one, self.side.zone) for one in await self._newest(position)]
        amendments = await self._newest_amendments(stored.generation, position)
        seen = await self._glance.take()
        self.generation, self.position = stored.generation, position
        self.cells = {cell_text(cell): count for cell, count in stored.tallies.items()}
        self._operations = _show_operations(stored.operations)
        self._devices = _show_devices(stored.devices)
        self._audit = await self._glance.audit()
        self._book, self._book_since = book, book_since
        self._latest = deque(latest, LATEST_MAX)
        self._amendments = deque(amendments, AMENDMENTS_MAX)
        self._digest = ("", "")
        self._saw(seen)
        self.loaded = True

    async def _apply(self, change: Change) -> None:
        entries: list[Entry] = []
        at = self.position
        while order(at) < order(change.position) and (chunk := await self._log.read_after(at, CHUNK)):
            entries += _up_to(chunk, change.position)
            at = chunk[-1].position
        recorded = _readable(entries)
        hours = self._book.take(await self._in_force(self.generation, entries))
        latest = [show_report(one, self.side.zone) for one in recorded[-LATEST_MAX:]][::-1]
        amendments = await self._amendments_among(self.generation, recorded)
        after, self.position = self.position, change.position
        apply_cells(self.cells, change.cells)
        self._latest.extendleft(latest[::-1])
        self._amendments.extendleft(amendments[::-1])
        message = ChangeMessage(
            side=self.side.side,
            position=change.position,
            generation=change.generation,
            at=received_at(change.position),
            cells=change.cells,
            hours=hours,
            latest=tuple(latest),
            amendments=tuple(amendments),
        )
        self.on_change(message, after)

    async def _in_force(self, generation: str, entries: Sequence[Entry]) -> list[Recorded]:
        """Return those of these entries that count, as the index has it."""
        found: list[Recorded] = []
        recorded = _readable(entries)
        for start in range(0, len(recorded), LOOKED_UP):
            part = recorded[start : start + LOOKED_UP]
            keys = [(one.event.amends or one.event.id).int.to_bytes(16, "big") for one in part]
            index = await self._glance.index(generation, list(dict.fromkeys(keys)))
            found += [
                one
                for one, key in zip(part, keys, strict=True)
                if (entry := index.get(key)) and entry.position == one.position
            ]
        return found

    async def _newest(self, position: Position) -> list[Recorded]:
        """Return the newest reports up to a position, newest first."""
        return _readable(await self._log.read_before(position, LATEST_MAX))

    async def _newest_amendments(self, generation: str, position: Position) -> list[AmendmentShown]:
        """Return the newest amendments up to a position, newest first."""
        known = [
            one
            for one in (await self._glance.amendments(generation)).values()
            if order(one.position) <= order(position)
        ]
        newest = nlargest(AMENDMENTS_MAX, known, key=lambda one: order(one.position))
        entries = await self._log.read_at([one.position for one in newest])
        return await self._amendments_among(generation, _readable([entry for entry in entries if entry]), limit=False)

    async def _amendments_among(
        self, generation: str, recorded: Sequence[Recorded], *, limit: bool = True
    ) -> list[AmendmentShown]:
        """Return what the amendments among these reports changed, newest first."""
        amendments = [one for one in recorded if one.event.revision]
        if limit:
            amendments = amendments[-AMENDMENTS_MAX:]
        known = await self._glance.amendments(generation, [_name(one) for one in amendments])
        places = {one.position: known[_name(one)].replaced for one in amendments if _name(one) in known}
        wanted = list(dict.fromkeys(place for at, place in places.items() if place and place != at))
        replaced = {
            entry.position: arrive(entry.position, entry.fields).event
            for entry in await self._log.read_at(wanted)
            if entry
        }
        shown = []
        for one in amendments:
            name = _name(one)
            # One that came twice, or after a higher revision, changed nothing.
            if name not in known or known[name].position != one.position or places[one.position] == one.position:
                continue
            before = places[one.position]
            shown.append(show_amendment(one, replaced.get(before) if before else None, self.side.zone))
        return sorted(shown, key=lambda each: order(each.position), reverse=True)

    async def past(self, state: State) -> SideShown:
        """Return the side as a rebuilt state has it: what a screen would have shown then."""
        checkpoint = state.checkpoint
        position = checkpoint.position
        reached = received_at(position)
        since = _hours_before(reached)
        book, at = Book(self.side.zone), since
        while order(at) < order(position) and (entries := await self._log.read_after(at, CHUNK)):
            book.take(_readable(_up_to(entries, position)))
            at = entries[-1].position
        generation = (await self._glance.take()).generation
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
            hours=Hours(_whole_hour(since), book.counts),
            latest=tuple(show_report(one, self.side.zone) for one in await self._newest(position)),
            amendments=tuple(await self._newest_amendments(generation, position)),
            audit=None,
        )

    # Looking

    async def look(self) -> None:
        """Look at the side's state on the server, past the feed; what keeps us from it is held as `failure`."""
        try:
            seen = await self._glance.take()
            operations = _show_operations(seen.operations)
            devices = _show_devices(await self._glance.devices(seen.generation))
            self._audit = await self._glance.audit()
        except FieldtallyError as error:
            self.failure = error
            return
        self._saw(seen)
        async with self._busy:
            if not self.loaded:
                return
            if seen.generation != self.generation:
                await self._reload("generation")
                return
            if order(seen.position) < order(self.position):  # the server was set back
                await self._reload("restarted")
                return
            if order(seen.position) > order(self.position) and self._stood_at == self.position:
                await self._reload("too-old")  # the tallies went on, and the feed has told nothing since the last look
                return
            self._stood_at = self.position
        if (operations, devices) != (self._operations, self._devices):
            self._operations, self._devices = operations, devices
            self.on_side(SideMessage(self.side.side, operations, devices))

    def _saw(self, seen: Glance) -> None:
        self.seen, self.looked, self.failure = seen, self._now(), None

    # Showing

    @property
    def digest(self) -> str:
        """The state digest of the tallies held."""
        if self._digest[0] != self.position:
            tallies = {parse_cell(name): count for name, count in self.cells.items()}
            self._digest = (self.position, state_digest(tallies))
        return self._digest[1]

    def standing(self) -> SideStanding:
        """Return how the side stands."""
        seen = self.seen
        return SideStanding(
            side=self.side.side,
            position=self.position,
            entries=seen.entries if seen else 0,
            digest=self.digest,
            lag=seen.lag if seen else 0,
            lag_s=self.lag_s(),
            heard=received_at(seen.last) if seen and seen.last != START else None,
            parked=seen.parked if seen else 0,
            audit=self._audit,
        )

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
            generation=self.generation,
            operations=self._operations,
            cells=self.cells,
            devices=self._devices,
            hours=Hours(_whole_hour(self._book_since), self._book.counts),
            latest=tuple(self._latest),
            amendments=tuple(self._amendments),
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


def _readable(entries: Sequence[Entry]) -> list[Recorded]:
    return [
        Recorded(event, entry.position) for entry in entries if (event := arrive(entry.position, entry.fields).event)
    ]


def _up_to(entries: Sequence[Entry], position: Position) -> list[Entry]:
    limit = order(position)
    return [entry for entry in entries if order(entry.position) <= limit]


def _name(one: Recorded) -> Key:
    return one.event.id.int.to_bytes(16, "big")


def _hours_before(moment: datetime) -> Position:
    """Return the position from which on a book that shows a day before a moment has to be read."""
    return Position(f"{max(0, int(moment.timestamp() - BOOK_HOURS * HOUR_S)) * 1000}-0")


def _whole_hour(position: Position) -> int:
    """Return the first hour that lies behind a position in full."""
    return -(-int(received_at(position).astimezone(UTC).timestamp()) // HOUR_S) * HOUR_S
