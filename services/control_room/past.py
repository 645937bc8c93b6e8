"""The past: what a position or a time means for each side, and the states rebuilt there."""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Final, Protocol, TypeAlias

from schemas.screen import SideShown
from schemas.vocabulary import Position, Side
from services.control_room.streams import Audience, read_positions
from services.runtime.errors import UsageError
from services.tally.fold import State

Rebuild: TypeAlias = Callable[[Mapping[Side, Position]], Awaitable[Mapping[Side, State]]]
"""Rebuilds sides from their logs, each up to a position."""

EXAMPLE_POSITION: Final = "1710385929000-0"
EXAMPLE_TIME: Final = "2024-03-14T12:00:00+01:00"
KEPT: Final = 8
_LAST_OF_MS: Final = 2**64 - 1
_position: Final = re.compile(r"[0-9]{1,19}-[0-9]{1,20}")


def read_at(text: str, audience: Audience) -> dict[Side, Position]:
    """Read a position, a position for each side as a stream's id has them, or an RFC 3339 time."""
    if _position.fullmatch(text):
        return dict.fromkeys(audience, Position(text))
    if (found := read_positions(text)) and found.keys() >= set(audience):  # a link from one who sees more sides
        return {side: found[side] for side in audience}
    try:
        moment = datetime.fromisoformat(text.strip().replace(" ", "+"))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise UsageError(
            f"`at` is a position such as {EXAMPLE_POSITION}, or a time with an offset such as {EXAMPLE_TIME}"
        )
    return dict.fromkeys(audience, Position(f"{max(0, int(moment.timestamp() * 1000))}-{_LAST_OF_MS}"))


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
