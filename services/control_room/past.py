"""The past: what a position or a time means for each side, and the states rebuilt there."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, tzinfo
from typing import Final, Protocol, TypeAlias

from schemas.screen import SideShown
from schemas.vocabulary import Position, Side
from services.control_room.streams import Audience
from services.runtime.errors import UsageError
from services.runtime.stops import EXAMPLE_POSITION, EXAMPLE_TIME, EXAMPLES_LOCAL, ahead, read_stops
from services.tally.fold import State

Rebuild: TypeAlias = Callable[[Mapping[Side, Position]], Awaitable[Mapping[Side, State]]]
"""Rebuilds sides from their logs, each up to a position."""

KEPT: Final = 8


def read_at(text: str, audience: Audience, zone: tzinfo, now: datetime) -> dict[Side, Position]:
    """Read where each side stops in the past view that was asked for; UsageError says what may be written."""
    if stops := read_stops(text, audience, zone, now):
        return stops.at
    raise UsageError(
        f"`at` is a position such as {EXAMPLE_POSITION}, or a time such as {EXAMPLE_TIME} or, in the zone of your "
        f"first side, {', '.join(EXAMPLES_LOCAL)}"
    )


def lies_ahead(stops: Mapping[Side, Position], now: datetime) -> bool:
    """Tell whether what was asked for has come of no side yet."""
    return len(ahead(stops, now)) == len(stops)


class PastSide(Protocol):
    """What is asked of a side about its past."""

    async def reached(self, stop: Position) -> Position:
        """Return a position, or where the log ends if it has not come so far."""

    async def past(self, state: State) -> SideShown:
        """Return the side as a rebuilt state has it."""


class Past:
    """Rebuilds one at a time, and keeps the last few: a link to the past is opened by many at once."""

    def __init__(self, rebuild: Rebuild, sides: Mapping[Side, PastSide]) -> None:
        self._rebuild = rebuild
        self._sides = sides
        self._one = asyncio.Lock()
        self._kept: OrderedDict[tuple[tuple[Side, Position], ...], list[SideShown]] = OrderedDict()

    def forget(self) -> None:
        """Forget what was rebuilt: the server was set back, and its log may be another one."""
        self._kept.clear()

    async def shown(self, stops: Mapping[Side, Position]) -> list[SideShown]:
        """Return the sides as they were at these positions."""
        async with self._one:
            # What was asked for in the future is kept under where the logs end now: it would not grow with them.
            reached = {side: await self._sides[side].reached(stop) for side, stop in stops.items()}
            name = tuple(reached.items())
            if name not in self._kept:
                states = await self._rebuild(reached)
                self._kept[name] = [await self._sides[side].past(states[side]) for side in reached]
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(name)
            return self._kept[name]
