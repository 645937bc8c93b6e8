"""One side at the gateway: what is known of it now, and the turns in which its log is written.

Reports are recorded in turns: whatever has come in is recorded together, with one look at the index and one append, so
an fsync is shared by all who wait for it. A second turn may be under way while the first waits for the disk, but never
about the same reports: of two copies that come at the same moment, the second one finds the first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, TypeAlias

from msgspec import Struct

from schemas.events import Event, OperationClosed, OperationOpened, Withdrawal
from schemas.http import DeviceStanding, OpenOperation, OpenOperations, Problem, Result, problem
from schemas.principals import Principal
from schemas.tallies import DeviceNumbers, Operation
from schemas.vocabulary import Position, parse_source
from services.gateway.admission import TOLERANCE, Held, last_day, refuse, refuse_amendment, settle
from services.runtime.errors import FaultError, FieldtallyError, UnreachableError
from services.runtime.settings import SideSettings
from services.store.contract import Entry
from services.store.door import RedisDoor
from services.store.glance import Glance, RedisGlance
from services.store.index_entry import IndexEntry
from services.store.log import RedisLog
from services.tally.fold import Key, arrive
from services.tally.numbers import take_number
from services.tally.operations import put_in, take_out

Identity: TypeAlias = tuple[Key, int]
"""A report's key and revision."""

RECENT_MAX: Final = 50_000
"""Reports that are remembered until the index surely has them."""
TAIL_CHUNK: Final = 2_000
TURN_MAX: Final = 2_000
LOOKS_MAX: Final = 8
"""Requests that look at the log's end at once; the others wait in line for a connection."""

UNAVAILABLE: Final = 503

_OF_OPERATIONS: Final = ("unknown-operation", "unknown-section", "outside-period")


class Submitted:
    """One admitted report, who sent it, and its identity: the key of the report that it is or amends, its revision.

    `refused` is why it may not be recorded now; if the log holds it already, it is a duplicate all the same.
    """

    __slots__ = ("canonical", "event", "identity", "key", "principal", "refused")

    def __init__(self, event: Event, canonical: bytes, principal: Principal, refused: Problem | None = None) -> None:
        self.event = event
        self.canonical = canonical
        self.principal = principal
        self.refused = refused
        self.key: Key = _key(event)
        self.identity: Identity = (self.key, event.revision)


class Recent(Struct, frozen=True, gc=False):
    """Where a report was recorded a moment ago, and by which unit."""

    position: Position
    unit: str


class _Request:
    """Reports that came together, and who waits for what becomes of them."""

    __slots__ = ("_done", "submitted")

    def __init__(self, submitted: Sequence[Submitted], done: asyncio.Future[list[Result]]) -> None:
        self.submitted = submitted
        self._done = done

    def succeed(self, results: list[Result]) -> None:
        """Say what became of them, if anybody still waits."""
        if not self._done.done():
            self._done.set_result(results)

    def fail(self, error: Exception) -> None:
        """Say that nothing is known of them, if anybody still waits."""
        if not self._done.done():
            self._done.set_exception(error)


class LaggingError(FieldtallyError):
    """The projector is too far behind. The caller waits."""


class GatewaySide:
    """What the gateway holds of one side."""

    def __init__(
        self, side: SideSettings, log: RedisLog, doors: Sequence[RedisDoor], glance: RedisGlance, lag_limit: int
    ) -> None:
        self.side = side
        self.seen: Glance | None = None
        self.failure: FieldtallyError | None = None
        self._log = log
        self._doors = list(doors)
        self._glance = glance
        self._lag_limit = lag_limit
        self._waiting: list[_Request] = []
        self._turning: set[asyncio.Task[None]] = set()
        self._in_hand: set[Key] = set()
        self._recent: OrderedDict[Identity, Recent] = OrderedDict()
        self._operations: Mapping[str, Operation] = {}
        self._looking = asyncio.Semaphore(LOOKS_MAX)

    # What is known

    async def look(self) -> None:
        """Look at the side anew; what keeps us from it is held as `failure`."""
        try:
            self.seen = await self._glance.take()
            self._operations = self.seen.operations
            self.failure = None
        except FieldtallyError as error:
            self.failure = error
        except Exception as fault:  # noqa: BLE001  # who looks must go on looking, and nobody believes what is old
            self.failure = FaultError(f"a fault in Fieldtally itself ({type(fault).__name__}) hides {self.side.side}")

    def ready(self) -> None:
        """Raise what keeps this side from taking reports, if anything does."""
        if self.failure:
            raise self.failure
        if self.lag > self._lag_limit:
            raise LaggingError(f"{self.lag:,} reports of {self.side.side} wait to be counted")

    @property
    def lag(self) -> int:
        """Entries of the log that are not counted yet."""
        return self.seen.lag if self.seen else 0

    def lag_s(self, now: datetime) -> float:
        """Return for how many seconds the oldest entry that is not counted has been in the log."""
        if self.seen is None or self.seen.next_entry is None:
            return 0.0
        return max(0.0, now.timestamp() - int(self.seen.next_entry.partition("-")[0]) / 1000)

    async def refusals(self, events: Sequence[Event], principal: Principal, received: datetime) -> list[Problem | None]:
        """Say of each report why this principal may not send it now, or None.

        An operation that is opened by one of them is known to those after it, and one that the projector has not come
        to yet is looked for in the log before a report of it is refused.
        """
        found = self._refusals(events, principal, received)
        if any(refused and refused.code in _OF_OPERATIONS for refused in found):
            seen, tail = await self._with_tail()
            self._operations = _with_operations(seen.operations, tail)
            found = self._refusals(events, principal, received)
        return found

    def _refusals(self, events: Sequence[Event], principal: Principal, received: datetime) -> list[Problem | None]:
        operations = self._operations
        found = []
        for event in events:
            refused = refuse(event, principal, operations, self.side.zone, received)
            if refused is None and isinstance(event, OperationOpened | OperationClosed):
                operations = _with_operation(operations, event)
            found.append(refused)
        return found

    async def standing(self, principal: Principal) -> DeviceStanding:
        """Return which numbers of a principal's device are in the log, to its end."""
        seen, tail = await self._with_tail()
        name = f"{principal.unit}/{principal.device}"
        async with self._looking:
            numbers = await self._glance.device(seen.generation, name) or DeviceNumbers()
        position = seen.position
        for entry in tail:
            event = arrive(entry.position, entry.fields).event
            if event and event.source == principal.source:
                take_number(numbers, event.reportno, entry.position)
            position = entry.position
        return DeviceStanding(
            role=principal.role,
            side=self.side.side,
            unit=principal.unit,
            device=principal.device,
            highest=numbers.highest,
            missing=tuple(numbers.missing),
            reused=numbers.reused,
            position=position,
        )

    async def open_operations(self, now: datetime) -> OpenOperations:
        """Return the operations that take reports now, or will."""
        seen, tail = await self._with_tail()
        today = now.astimezone(self.side.zone).date()
        listed = []
        for name, operation in sorted(_with_operations(seen.operations, tail).items()):
            ends = last_day(operation)
            if operation.plan and ends and today - TOLERANCE <= ends:
                plan = operation.plan
                listed.append(
                    OpenOperation(operation=name, name=plan.name, starts=plan.starts, ends=ends, sections=plan.sections)
                )
        position = tail[-1].position if tail else seen.position
        return OpenOperations(side=self.side.side, position=position, operations=tuple(listed))

    async def devices(self) -> dict[str, DeviceNumbers]:
        """Return the numbers of all devices, as counted."""
        return await self._glance.devices(self.seen.generation) if self.seen else {}

    async def _with_tail(self) -> tuple[Glance, list[Entry]]:
        """Look at the side, and at what its tallies do not include yet."""
        async with self._looking:
            seen = await self._glance.take()
            if seen.lag > self._lag_limit:
                raise LaggingError(f"{seen.lag:,} reports of {self.side.side} wait to be counted")
            tail: list[Entry] = []
            position = seen.position
            while seen.lag and (chunk := await self._log.read_after(position, TAIL_CHUNK)):
                tail += chunk
                position = chunk[-1].position
                if len(chunk) < TAIL_CHUNK:
                    break
        self.seen, self.failure = seen, None
        return seen, tail

    # What is written

    async def record(self, submitted: Sequence[Submitted]) -> list[Result]:
        """Record reports in their order, in the next turn; return what became of each.

        Raises:
            UnreachableError: nothing is known of any of them. The caller sends them again.

        """
        if not submitted:
            return []
        done: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(submitted, done))
        if self._doors:
            task = asyncio.create_task(self._turns(self._doors.pop()))
            self._turning.add(task)
            task.add_done_callback(self._turning.discard)
        # The turn goes on when the one who asked has hung up: others wait for it too.
        return await done

    async def close(self) -> None:
        """Let the turns under way come to their end, and give up the connections."""
        if self._turning:
            await asyncio.wait(self._turning)
        for door in self._doors:
            await door.close()

    async def _turns(self, door: RedisDoor) -> None:
        """Take turns at a door as long as there is something to record."""
        try:
            while self._waiting:
                if not (taken := self._take()):
                    return  # what waits is about reports that the other turn has in hand, and it takes them next
                keys = {one.key for request in taken for one in request.submitted}
                self._in_hand |= keys
                try:
                    results = await self._turn(door, [one for request in taken for one in request.submitted])
                except Exception as error:  # noqa: BLE001  # each of those who wait is told, and the next turn goes on
                    for request in taken:
                        request.fail(error)
                else:
                    for request in taken:
                        theirs, results = results[: len(request.submitted)], results[len(request.submitted) :]
                        request.succeed(theirs)
                finally:
                    self._in_hand -= keys
        finally:
            self._doors.append(door)

    def _take(self) -> list[_Request]:
        """Take what a turn is to record, in the order it came; not what is about reports that another turn has."""
        taken: list[_Request] = []
        left: list[_Request] = []
        room = TURN_MAX
        for request in self._waiting:
            size = len(request.submitted)
            if (taken and size > room) or any(one.key in self._in_hand for one in request.submitted):
                left.append(request)
            else:
                taken.append(request)
                room -= size
        self._waiting = left
        return taken

    async def _turn(self, door: RedisDoor, submitted: Sequence[Submitted]) -> list[Result]:
        held, units = await self._held(door, submitted)
        results: list[Result | None] = [None] * len(submitted)
        to_append: list[int] = []
        first: dict[Identity, int] = {}
        for at, one in enumerate(submitted):
            # A plan may have changed since a report was recorded: who lost its receipt is told that it is a duplicate.
            repeated = settle(one.event, held.get(one.identity))
            refused = one.refused or refuse_amendment(one.event, one.principal, units.get(one.key))
            if repeated and not repeated.problem:
                results[at] = _repeated(one, repeated.position, None)
            elif refused:
                results[at] = Result(id=str(one.event.id), status="rejected", problem=refused)
            elif repeated:
                results[at] = _repeated(one, repeated.position, repeated.problem)
            elif one.identity not in first:
                first[one.identity] = at
                to_append.append(at)
                if not one.event.revision:
                    units.setdefault(one.key, parse_source(one.event.source).unit)
        positions = await self._append(door, [submitted[at] for at in to_append])
        failed = problem("unavailable", UNAVAILABLE, "the server took a part of this batch only", retryable=True)
        for at, position in zip(to_append, positions, strict=True):
            one = submitted[at]
            if position is None:
                results[at] = Result(id=str(one.event.id), status="rejected", problem=failed)
            else:
                results[at] = Result(id=str(one.event.id), status="recorded", position=position)
        for at, one in enumerate(submitted):
            if results[at] is None:  # the same report came twice in this turn
                original = submitted[first[one.identity]]
                recorded = results[first[one.identity]]
                if recorded is None or not recorded.position:
                    results[at] = Result(id=str(one.event.id), status="rejected", problem=failed)
                elif repeated := settle(one.event, Held(original.event, recorded.position)):
                    results[at] = _repeated(one, repeated.position, repeated.problem)
        return [result for result in results if result]

    async def _append(self, door: RedisDoor, submitted: Sequence[Submitted]) -> list[Position | None]:
        """Append, each under its sender's name; None for what did not get there, an error if nothing did."""
        positions = await door.append([(one.canonical, one.principal.source) for one in submitted])
        for one, position in zip(submitted, positions, strict=True):
            if position:
                self._recent[one.identity] = Recent(position, parse_source(one.event.source).unit)
        while len(self._recent) > RECENT_MAX:
            self._recent.popitem(last=False)
        return positions

    async def _held(
        self, door: RedisDoor, submitted: Sequence[Submitted]
    ) -> tuple[dict[Identity, Held], dict[Key, str]]:
        """Return what the log holds of these reports, and which unit made each that is amended.

        The index is the projector's and may lag; what was recorded here is remembered meanwhile. Either is only where
        to look: what counts is what stands in the log there, so a server that was set back is never believed to have
        what it lost.
        """
        if self.seen is None:
            await self.look()
        if self.seen is None:
            raise self.failure or UnreachableError("the server has not answered yet")
        keys = list(dict.fromkeys(one.key for one in submitted))
        indexed = dict(zip(keys, await door.index(self.seen.generation, keys), strict=True))
        where: dict[Identity, Position] = {}
        originals: dict[Key, Position] = {}
        for one in submitted:
            found = indexed[one.key]
            recent = self._recent.get(one.identity)
            position = recent.position if recent else _position(found, one.event.revision)
            if position:
                where[one.identity] = position
            if one.event.revision and one.principal.role == "unit":
                original = self._recent.get((one.key, 0))
                if original:
                    originals[one.key] = original.position
                elif indexed_at := _position(found, 0):  # of an original that has not come nobody knows who made it
                    originals[one.key] = indexed_at
        wanted = list(dict.fromkeys([*where.values(), *originals.values()]))
        events = {
            position: arrive(position, entry.fields).event
            for position, entry in zip(wanted, await door.read(wanted), strict=True)
            if entry
        }
        held = {
            identity: Held(event, position)
            for identity, position in where.items()
            if (event := events.get(position)) and (_key(event), event.revision) == identity
        }
        units = {
            key: parse_source(event.source).unit
            for key, position in originals.items()
            if (event := events.get(position)) and _key(event) == key
        }
        return held, units


def _position(found: IndexEntry | None, revision: int) -> Position | None:
    """Return where the index has a revision of a report, if it has it."""
    if found is None:
        return None
    if found.revision == revision:
        return found.position
    return found.original if revision == 0 else None


def _key(event: Event) -> Key:
    return (event.amends or event.id).int.to_bytes(16, "big")


def _repeated(one: Submitted, position: Position, conflict: Problem | None) -> Result:
    if conflict:
        return Result(id=str(one.event.id), status="conflict", position=position, problem=conflict)
    return Result(id=str(one.event.id), status="duplicate", position=position)


def _with_operations(operations: Mapping[str, Operation], tail: Sequence[Entry]) -> Mapping[str, Operation]:
    """Return operations with what the end of the log says of them, in whichever order revisions came."""
    newest: dict[Key, int] = {}
    for entry in tail:
        event = arrive(entry.position, entry.fields).event
        if not isinstance(event, OperationOpened | OperationClosed | Withdrawal):
            continue
        key = _key(event)
        if event.revision <= newest.get(key, -1):
            continue
        newest[key] = event.revision
        operations = _without(operations, key) if isinstance(event, Withdrawal) else _with_operation(operations, event)
    return operations


def _with_operation(
    operations: Mapping[str, Operation], event: OperationOpened | OperationClosed
) -> Mapping[str, Operation]:
    key = _key(event)
    others = _without(operations, key)  # an amendment may say that it was about another operation
    return {**others, event.subject: put_in(others.get(event.subject) or Operation(), key, event)}


def _without(operations: Mapping[str, Operation], key: Key) -> Mapping[str, Operation]:
    return {name: take_out(operation, key) for name, operation in operations.items()}
