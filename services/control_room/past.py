"""The past: what a position or a time means for each side, and the states rebuilt there."""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Final, Protocol, TypeAlias

from schemas.screen import SideShown
from schemas.vocabulary import LAST_SEQUENCE, Position, Side
from services.control_room.streams import Audience, read_positions
from services.runtime.errors import UsageError
from services.tally.fold import State

Rebuild: TypeAlias = Callable[[Mapping[Side, Position]], Awaitable[Mapping[Side, State]]]
"""Rebuilds sides from their logs, each up to a position."""

EXAMPLE_POSITION: Final = "1710385929000-0"
EXAMPLE_TIME: Final = "2024-03-14T12:00:00+01:00"
EXAMPLES_LOCAL: Final = ("12:00", "2024-03-14 12:00", "2024-03-14")
KEPT: Final = 8
AHEAD_MS: Final = 5_000
_position: Final = re.compile(r"[0-9]{1,19}-[0-9]{1,20}")
_of_side: Final = re.compile(r"([A-Z]{2}) ([0-9]{1,19}-[0-9]{1,20})")
_milliseconds: Final = re.compile(r"[0-9]{12,15}")
_local: Final = re.compile(r"(?:([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[ T]|$))?(?:([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?)?")


def read_at(text: str, audience: Audience, zone: tzinfo, now: datetime) -> dict[Side, Position]:
    """Read what a past view was asked for: positions, or a time, which may be local in `zone`.

    A position may be that of all sides, of each as a stream's id has them, or of one as the screen shows it: the others
    are then shown at its time. A bare number is the milliseconds of a position. A local time alone is today's; a local
    day means its end, or now if it is today. A local time that comes twice is the second of them; one that is skipped
    is read as if the clocks had not been changed yet.
    """
    text = text.strip(" ")
    if _position.fullmatch(text):
        return dict.fromkeys(audience, Position(text))
    if (found := read_positions(text)) and found.keys() >= set(audience):  # a link from one who sees more sides
        return {side: found[side] for side in audience}
    if (of_side := _of_side.fullmatch(text)) and of_side[1] in audience:
        others = _whole_ms(int(of_side[2].partition("-")[0]))
        return {side: Position(of_side[2]) if side == of_side[1] else others for side in audience}
    milliseconds = int(text) if _milliseconds.fullmatch(text) else _moment(text, zone, now)
    if milliseconds is None:
        raise UsageError(
            f"`at` is a position such as {EXAMPLE_POSITION}, or a time such as {EXAMPLE_TIME} or, in the zone of your "
            f"first side, {', '.join(EXAMPLES_LOCAL)}"
        )
    return dict.fromkeys(audience, _whole_ms(milliseconds))


def _whole_ms(milliseconds: int) -> Position:
    return Position(f"{max(0, milliseconds)}-{LAST_SEQUENCE}")


def _moment(text: str, zone: tzinfo, now: datetime) -> int | None:
    """Return the milliseconds since 1970 of a time, None if it is none."""
    try:
        if not text or not (local := _local.fullmatch(text)):
            moment = datetime.fromisoformat(text.replace(" ", "+"))  # as a form's plus comes out of an address
            return int(moment.timestamp() * 1000) if moment.tzinfo else None
        today = now.astimezone(zone).date()
        day = date.fromisoformat(local[1]) if local[1] else today
        if not local[2]:
            end = datetime.combine(day + timedelta(days=1), time.min, zone)
            return int((now if day == today else end).timestamp() * 1000) - (day != today)
        at = time(int(local[2]), int(local[3]), int(local[4] or 0))
        both = [datetime.combine(day, at.replace(fold=fold), zone).timestamp() for fold in (0, 1)]
        return int(max(both) * 1000)
    except (ValueError, OverflowError):
        return None


def lies_ahead(stops: Mapping[Side, Position], now: datetime) -> bool:
    """Tell whether what was asked for has not come yet; a server's clock may be a little ahead of this one."""
    latest = min(int(stop.partition("-")[0]) for stop in stops.values())
    return latest > int(now.timestamp() * 1000) + AHEAD_MS


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
