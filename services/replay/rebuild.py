"""Fills a new generation beside the live one, compares the two, and makes it the live one when told to.

It takes the projector's turns, on a checkpoint of its own. So it may be killed at any moment and goes on from there,
and nobody else notices it until the swap.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, NamedTuple

from msgspec import Struct

from schemas.tallies import Checkpoint
from schemas.vocabulary import START, Position, Side, order
from services.runtime.ending import end
from services.runtime.errors import DamagedLogError, UsageError
from services.runtime.settings import SideSettings
from services.store.contract import Entry, Log, LogExtent
from services.store.generations import RedisGenerations, moved_on, number
from services.store.loading import load_fitting, require_zone
from services.store.tally_store import RedisTallyStore
from services.store.turn import take_turn
from services.tally.cells import Tallies
from services.tally.compare import Difference, differences
from services.tally.digest import state_digest
from services.tally.fold import FOLD_VERSION, State

BATCH: Final = 4_000
REFUSALS_MAX: Final = 20
"""Turns refused in a row although nothing has moved: then what is read is not what the log holds."""


class Rebuildable(NamedTuple):
    """One side to rebuild."""

    side: SideSettings
    log: Log
    store: RedisTallyStore
    generations: RedisGenerations


class Rebuilt(Struct, frozen=True):
    """One side's new generation as it stands, and how it compares.

    `compared_at` is where the live generation stood when the two were compared; None if that could not be, and then
    `problem` says why. `live` is the generation that was live before.
    """

    side: Side
    generation: str
    position: Position
    entries: int
    digest: str
    live: str
    compared_at: Position | None
    problem: str
    differences: list[Difference]
    swapped: bool


class _Live(NamedTuple):
    """The live generation: its tallies, or why they cannot be compared with; where it stands, if that can be read."""

    generation: str
    position: Position | None
    tallies: Tallies
    problem: str


class _Begun(NamedTuple):
    """The generation to fill, and what it holds already."""

    name: str
    state: State
    resumed: bool = False


async def entries_left(one: Rebuildable) -> int:
    """Return how many entries a rebuild has still to fold, about."""
    extent = await one.log.extent()
    begun = await _begun(one, await _read_live(one), extent)
    return max(0, extent.entries - begun.state.checkpoint.entries)


async def rebuild(one: Rebuildable, *, swap: bool, on_progress: Callable[[int], None] = lambda _: None) -> Rebuilt:
    """Fill a generation up to where the live one stands, and compare them there; with `swap`, make it the live one.

    Raises:
        DamagedLogError: the log is not whole; no figure can be rebuilt from it.
        UsageError: another rebuild fills the same generation.

    """
    live = await _read_live(one)
    extent = await one.log.extent()
    _require_whole(one.side.side, extent)
    begun = await _begun(one, live, extent)
    filling = _Filling(one, begun, on_progress)
    try:
        await filling.fill(live.position or extent.last)
        found = [] if live.problem else differences(live.tallies, begun.state.tallies)
        if found and begun.resumed:  # what an earlier run left may have been changed since: only the log says
            await filling.store.close()
            await one.generations.drop(begun.name)
            begun = _Begun(f"g{number(begun.name) + 1}", State(one.side.side, one.side.zone, _beginning()))
            filling = _Filling(one, begun, on_progress)
            await filling.fill(live.position or extent.last)
            found = differences(live.tallies, begun.state.tallies)
        if swap:
            await filling.swap()
    finally:
        await filling.store.close()
    state = begun.state
    return Rebuilt(
        side=one.side.side,
        generation=begun.name,
        position=state.checkpoint.position,
        entries=state.checkpoint.entries,
        digest=state_digest(state.tallies),
        live=live.generation,
        compared_at=None if live.problem else live.position,
        problem=live.problem,
        differences=found,
        swapped=swap,
    )


class _Filling:
    """A generation on its way."""

    def __init__(self, one: Rebuildable, begun: _Begun, on_progress: Callable[[int], None]) -> None:
        self.store = one.generations.store(begun.name)
        self._one = one
        self._name = begun.name
        self._state = begun.state
        self._on_progress = on_progress

    async def fill(self, until: Position) -> None:
        """Fold every entry up to and with a position."""
        async for entries in _batches(self._one.log, self._state.checkpoint.position, until):
            refused = 0
            while await take_turn(self._one.log, self.store, self._name, self._state, entries) is None:
                await self._require_held(refused)
                refused += 1
            self._on_progress(len(entries))

    async def swap(self) -> None:
        """Make it the live one as soon as it is not behind, neither the live one nor the log as it ends now."""
        await self.fill((await self._one.log.extent()).last)
        while behind := await self._one.generations.swap(self._name, self._state.checkpoint):
            end = (await self._one.log.extent()).last
            if order(end) < order(behind):
                raise DamagedLogError(
                    f"the log of side {self._one.side.side} has lost entries: it ends at {end}, but the live tallies "
                    f"reach {behind}; restore the log, then start again"
                )
            await self.fill(end)

    async def _require_held(self, refused: int) -> None:
        """A turn is refused too when only the name of the live generation was written; anything else ends this."""
        stored = await self.store.load()
        if (stored.checkpoint or _beginning()) != self._state.checkpoint or await self._is_live():
            raise UsageError(moved_on(self._one.side.side, self._name))
        if refused == REFUSALS_MAX:
            raise DamagedLogError(
                f"the log of side {self._one.side.side} holds entries after {self._state.checkpoint.position} that "
                "reading it does not give: `fieldtally doctor`"
            )

    async def _is_live(self) -> bool:
        return await self._one.generations.live() == self._name


async def _batches(log: Log, position: Position, until: Position) -> AsyncIterator[Sequence[Entry]]:
    """Yield the entries after a position, up to and with another one; the next ones are on their way meanwhile."""
    limit = order(until)
    if order(position) >= limit:
        return
    reading = asyncio.create_task(log.read_after(position, BATCH))
    try:
        while entries := await reading:
            last = entries[-1].position
            done = order(last) >= limit
            if done:
                entries = [entry for entry in entries if order(entry.position) <= limit]
            else:
                reading = asyncio.create_task(log.read_after(last, BATCH))
            if entries:
                yield entries
            if done:
                return
    finally:
        await end(reading)


async def _read_live(one: Rebuildable) -> _Live:
    """Read the live generation, damaged as it may be; DamagedLogError if the log no longer reaches what it holds."""
    try:
        await one.store.load()
    except DamagedLogError as error:
        found = await one.generations.look(await one.generations.live())
        if found.position and order((await one.log.extent()).last) < order(found.position):
            raise DamagedLogError(
                f"the log of side {one.side.side} ends before {found.position}, which the live tallies reach: restore "
                "the log, then start again"
            ) from error
        return _Live(found.name, found.position, {}, str(error).partition(";")[0])
    stored, checkpoint, _ = await load_fitting(one.side, one.log, one.store)
    if stored.checkpoint is None:
        return _Live(stored.generation, None, {}, "there are no live tallies yet")
    problem = ""
    if checkpoint.fold_version != FOLD_VERSION:
        problem = f"counted by rules version {checkpoint.fold_version}, this program has version {FOLD_VERSION}"
    try:
        require_zone(one.side, checkpoint)
    except UsageError:
        problem = f"days counted in {checkpoint.zone}, FIELDTALLY_SIDES says {one.side.zone}"
    return _Live(stored.generation, checkpoint.position, {} if problem else stored.tallies, problem)


async def _begun(one: Rebuildable, live: _Live, extent: LogExtent) -> _Begun:
    """Return the generation to go on with, or a new one.

    Their numbers only go up, so what has a higher one than the live generation was begun by a rebuild and never live.
    It is gone on with if it was counted as we count, and does not reach beyond the live one: it could not be compared.
    """
    found = await one.generations.found()
    newest = max([number(live.generation), *(number(each.name) for each in found)])
    reach = live.position or extent.last
    for each in reversed(found):
        if number(each.name) <= number(live.generation):
            break
        try:
            stored = await one.generations.store(each.name).load()
        except DamagedLogError:
            continue
        checkpoint = stored.checkpoint
        if checkpoint is None or checkpoint.fold_version != FOLD_VERSION or checkpoint.zone != str(one.side.zone):
            continue
        if order(checkpoint.position) <= order(reach) and not extent.lacks(checkpoint):
            state = State(one.side.side, one.side.zone, checkpoint, stored.tallies, stored.devices, stored.operations)
            return _Begun(each.name, state, resumed=checkpoint.entries > 0)
    return _Begun(f"g{newest + 1}", State(one.side.side, one.side.zone, _beginning()))


def _beginning() -> Checkpoint:
    return Checkpoint(position=START, fold_version=FOLD_VERSION)


def _require_whole(side: Side, extent: LogExtent) -> None:
    if extent.foreign:  # whatever is written here would be of a log that this server does not have
        raise DamagedLogError(f"side {side}: {extent.foreign}")
    if extent.lost:
        raise DamagedLogError(
            f"the log of side {side} is incomplete: it holds {extent.length} of the {extent.appended} entries ever "
            "appended, so no figure can be rebuilt from it; restore the log first"
        )
