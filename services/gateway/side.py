"""One side at the gateway: what is known of it now, and the turns in which its log is written.

Reports are recorded in turns: whatever has come in is recorded together, with one look at the index and one append, so
an fsync is shared by all who wait for it. A second turn may be under way while the first waits for the disk, but never
about the same reports: of two copies that come at the same moment, the second one finds the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from schemas.events import Event, OperationClosed, OperationOpened, Withdrawal
from schemas.http import DeviceStanding, OpenOperation, OpenOperations, Problem, Result
from schemas.principals import Principal
from schemas.tallies import DeviceNumbers, Operation
from schemas.vocabulary import Position, order
from services.gateway.admission import OF_SENDER, TOLERANCE, Admitted, Held, last_day, refuse
from services.gateway.tail import Tail, identity_of
from services.gateway.turn import NOTHING_AROUND, Around, Submitted, Turn, rejected
from services.runtime.errors import FaultError, FieldtallyError, UnreachableError
from services.runtime.settings import SideSettings
from services.store.contract import Entry
from services.store.door import Known, RedisDoor
from services.store.glance import Glance, RedisGlance
from services.store.index_entry import IndexEntry
from services.store.whole_log import WholeLog
from services.tally.fold import Key, arrive
from services.tally.numbers import take_number
from services.tally.operations import put_in, take_out

TAIL_CHUNK: Final = 2_000
TURN_MAX: Final = 2_000
LOOKS_MAX: Final = 8
"""Requests that look at the log's end at once; the others wait in line for a connection."""

_OF_OPERATIONS: Final = ("unknown-operation", "unknown-section", "outside-period")


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
        self, side: SideSettings, log: WholeLog, doors: Sequence[RedisDoor], glance: RedisGlance, lag_limit: int
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
        self._tail = Tail()
        self._under_way = 0
        self._asked = 0
        self._answered = 0
        self._operations: Mapping[str, Operation] = {}
        self._looking = asyncio.Semaphore(LOOKS_MAX)

    # What is known

    async def look(self) -> None:
        """Look at the side anew; what keeps us from it is held as `failure`."""
        try:
            await self._take_glance()
            self._operations = self.seen.operations if self.seen else {}
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

    async def _take_glance(self) -> Glance:
        """Look, and hold what was seen; unless somebody who asked later was answered before."""
        self._asked += 1
        asked = self._asked
        seen = await self._glance.take()
        if asked > self._answered:
            self._answered = asked
            self._saw(seen)
        return seen

    def _saw(self, seen: Glance) -> None:
        before, self.seen, self.failure = self.seen, seen, None
        same = (
            before is not None and order(before.position) <= order(seen.position) and before.appended <= seen.appended
        )
        if same:
            self._tail.is_indexed(seen.position)
        else:
            self._tail.start_at(seen.position)

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
        for name, operation in sorted((await self._operations_of(seen, tail)).items()):
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
            seen = await self._take_glance()
            if seen.lag > self._lag_limit:
                raise LaggingError(f"{seen.lag:,} reports of {self.side.side} wait to be counted")
            tail: list[Entry] = []
            position = seen.position
            while seen.lag and (chunk := await self._log.read_after(position, TAIL_CHUNK)):
                tail += chunk
                position = chunk[-1].position
                if len(chunk) < TAIL_CHUNK:
                    break
        return seen, tail

    async def _operations_of(self, seen: Glance, tail: Sequence[Entry]) -> Mapping[str, Operation]:
        """Return the operations with what the end of the log says of them, in whichever order revisions came."""
        events = [event for entry in tail if (event := arrive(entry.position, entry.fields).event)]
        about = [event for event in events if isinstance(event, OperationOpened | OperationClosed | Withdrawal)]
        keys = list(dict.fromkeys(identity_of(event)[0] for event in about))
        async with self._looking:
            indexed = await self._glance.index(seen.generation, keys)
        newest = {key: entry.revision for key, entry in indexed.items()}
        operations: Mapping[str, Operation] = seen.operations
        for event in about:
            key, revision = identity_of(event)
            if revision <= newest.get(key, -1):
                continue
            newest[key] = revision
            operations = _without(operations, key)  # an amendment may say that it was about another operation
            if not isinstance(event, Withdrawal):
                before = operations.get(event.subject) or Operation()
                operations = {**operations, event.subject: put_in(before, key, event)}
        return operations

    # What is written

    async def take(self, admitted: Sequence[Admitted], principal: Principal, received: datetime) -> list[Result]:
        """Record what this principal may report now, in its order; return what became of each.

        Raises:
            UnreachableError: nothing is known of some of them. The caller sends all of them again.

        """
        results: list[Result] = []
        for part in _parts(admitted):
            refusals = await self._refusals([one.event for one in part], principal, received)
            submitted = [
                Submitted(one.event, one.canonical, principal, refused)
                for one, refused in zip(part, refusals, strict=True)
            ]
            if not any(refusals):
                results += await self.record(submitted)
                continue
            recorded = iter(await self.record([one for one in submitted if not _is_of_sender(one.refused)]))
            results += [
                rejected(one, one.refused) if one.refused and _is_of_sender(one.refused) else next(recorded)
                for one in submitted
            ]
        return results

    async def _refusals(
        self, events: Sequence[Event], principal: Principal, received: datetime
    ) -> list[Problem | None]:
        """Say of each report why this principal may not send it now, or None.

        An operation that the projector has not come to yet is looked for in the log before a report of it is refused.
        """
        refused = [refuse(event, principal, self._operations, self.side.zone, received) for event in events]
        if any(one and one.code in _OF_OPERATIONS for one in refused):
            self._operations = await self._operations_of(*await self._with_tail())
            refused = [refuse(event, principal, self._operations, self.side.zone, received) for event in events]
        return refused

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
                keys = {name for request in taken for one in request.submitted for name in (one.key, one.name)}
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
            if (taken and size > room) or any(
                one.key in self._in_hand or one.name in self._in_hand for one in request.submitted
            ):
                left.append(request)
            else:
                taken.append(request)
                room -= size
        self._waiting = left
        return taken

    async def _turn(self, door: RedisDoor, submitted: Sequence[Submitted]) -> list[Result]:
        held = await self._held(door, submitted)
        turn = Turn()
        for one in submitted:
            turn.judge(one, held)
        positions = await self._append(door, turn.to_append)
        return turn.results(positions)

    async def _append(self, door: RedisDoor, submitted: Sequence[Submitted]) -> list[Position | None]:
        """Append, each under its sender's name; None for what did not get there, an error if nothing did."""
        self._under_way += len(submitted)
        try:
            positions = await door.append([(one.canonical, one.principal.source) for one in submitted])
        except BaseException:
            self._tail.is_unsure()
            raise
        finally:
            self._under_way -= len(submitted)
        for one, position in zip(submitted, positions, strict=True):
            if position:
                self._tail.append(one.identity, one.name, position)
        return positions

    async def _held(self, door: RedisDoor, submitted: Sequence[Submitted]) -> Around:
        """Return what the log holds that these reports may be, be about, or be named like.

        Index and tail are only where to look: what counts is what stands in the log there, so a server that was set
        back is never believed to have what it lost.
        """
        if self.seen is None:
            await self.look()
        if self.seen is None:
            raise self.failure or UnreachableError("the server has not answered yet")
        names = list({name: None for one in submitted for name in (one.key, one.name)})
        while True:
            changes = self._tail.changes
            known = await door.look(self.seen.generation, names)
            if known is None:
                await self._take_glance()
                continue
            if self._tail.lacks(known.length, known.trimmed, self._under_way):
                await self._read_tail(door, known)
            if changes == self._tail.changes:
                break
            # What the tail has forgotten meanwhile, because the index has it, the index had not when it was asked.
        wanted = list({position: None for one in submitted for position in self._places(one, known)})
        if not wanted:
            return NOTHING_AROUND
        found = await door.read(wanted)
        if not all(found):  # some may have been archived, and trimmed
            gone = [position for position, entry in zip(wanted, found, strict=True) if entry is None]
            archived = iter(await self._log.read_at(gone))
            found = [entry or next(archived) for entry in found]
        return Around(
            Held(event, position)
            for position, entry in zip(wanted, found, strict=True)
            if entry and (event := arrive(position, entry.fields).event)
        )

    async def _read_tail(self, door: RedisDoor, known: Known) -> None:
        """Note what the log holds behind what is known of it."""
        while True:
            changes = self._tail.changes
            entries = await door.read_after(self._tail.read_to, TAIL_CHUNK)
            if changes != self._tail.changes:
                return  # it begins elsewhere now, and whoever reads here asks again
            for entry in entries:
                self._tail.read(arrive(entry.position, entry.fields).event, entry.position)
            if len(entries) < TAIL_CHUNK:
                break
        # As it was before: whatever came since is read once more, by whoever looks next.
        self._tail.is_read(known.length, known.trimmed)

    def _places(self, one: Submitted, known: Known) -> list[Position]:
        """Return where this report may stand, what it amends, and another one of its name."""
        indexed = known.index.get(one.key)
        places = [_position(indexed, one.event.revision), self._tail.report(one.identity)]
        # What is amended may be an amendment, and so may what has the same name.
        places += [known.amendments.get(one.key), self._tail.amendment(one.key)]
        if one.event.revision:
            places += [known.amendments.get(one.name), self._tail.amendment(one.name)]
            places += [_position(known.index.get(one.name), 0), self._tail.report((one.name, 0))]
            if one.principal.role == "unit":  # of an original that has not come nobody knows who made it
                places += [_position(indexed, 0), self._tail.report((one.key, 0))]
        return [place for place in places if place]


def _parts(admitted: Sequence[Admitted]) -> Iterator[Sequence[Admitted]]:
    """Yield reports in parts: what a plan lets in is decided when it is known whether the plan was recorded."""
    start = 0
    for at in range(1, len(admitted)):
        if _is_plan(admitted[at - 1].event) and not _is_plan(admitted[at].event):
            yield admitted[start:at]
            start = at
    yield admitted[start:]


def _is_plan(event: Event) -> bool:
    return isinstance(event, OperationOpened | OperationClosed)


def _is_of_sender(refused: Problem | None) -> bool:
    return refused is not None and refused.code in OF_SENDER


def _position(found: IndexEntry | None, revision: int) -> Position | None:
    """Return where the index has a revision of a report, if it has it."""
    if found is None:
        return None
    if found.revision == revision:
        return found.position
    return found.original if revision == 0 else None


def _without(operations: Mapping[str, Operation], key: Key) -> Mapping[str, Operation]:
    return {name: take_out(operation, key) for name, operation in operations.items()}
