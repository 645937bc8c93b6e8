"""What a position or a time means for each side: where a look at the past stops. Commands and screens read it alike.

A position may be that of every side, of each as whatever prints positions writes them, or of one alone: the others are
then taken at its millisecond of receipt. A time may be a local one. The clock is the caller's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final, Literal, NamedTuple

from schemas.vocabulary import LAST_SEQUENCE, Position, Side, order

EXAMPLE_POSITION: Final = "1710385929000-0"
EXAMPLE_TIME: Final = "2024-03-14T12:00:00+01:00"
EXAMPLES_LOCAL: Final = ("12:00", "2024-03-14 12:00", "2024-03-14", "2024-03")
AHEAD_MS: Final = 5_000
"""A server's clock may be so far ahead of this one."""
_position: Final = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
_of_side: Final = re.compile(r" *([A-Z]{2})[: ]([0-9]{1,20}-[0-9]{1,20}) *")
_milliseconds: Final = re.compile(r"[0-9]{11,15}")
_month: Final = re.compile(r"(?:19|20)[0-9]{2}-(?:0[1-9]|1[0-2])")
_like_a_month: Final = re.compile(r"(?:19|20)[0-9]{2}-[0-9]{1,2}")
"""Such as 2024-13 or 2024-3: nobody means two seconds of the year 1970."""
_local: Final = re.compile(r"(?:([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[ T]|$))?(?:([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?)?")


class Stops(NamedTuple):
    """Where each side stops, and what said so: positions of each side, of one, of none in particular, or a time."""

    at: dict[Side, Position]
    said: Literal["positions", "one-position", "position", "time", "local-time"]


def read_stops(text: str, sides: Sequence[Side], zone: tzinfo, now: datetime) -> Stops | None:
    """Read a position or a time, which may be local in `zone`; None for anything else.

    Positions of more sides than these are taken, of fewer only if it is one. A bare number is the milliseconds of a
    position; what could be a month (2024-03) is one, and no position of 1970. A local time alone is today's; a local
    day or month means its end, or now if it has begun and not ended. A local time that comes twice is the second of
    them; one that is skipped is read as if the clocks had not been changed yet.
    """
    text = text.strip(" ")
    if _month.fullmatch(text):
        first = date.fromisoformat(f"{text}-01")
        end = _end_of_days(first, (first + timedelta(days=31)).replace(day=1), zone, now)
        return Stops(dict.fromkeys(sides, _whole_ms(end)), "local-time")
    if _like_a_month.fullmatch(text):
        return None
    if position := _read_position(text):
        return Stops(dict.fromkeys(sides, position), "position")
    if found := read_positions(text):
        if found.keys() >= set(sides):  # a link from one who sees more sides
            return Stops({side: found[side] for side in sides}, "positions")
        [(named, position), *more] = found.items()
        if more or named not in sides:
            return None
        others = _whole_ms(order(position)[0])
        return Stops({side: position if side == named else others for side in sides}, "one-position")
    if _milliseconds.fullmatch(text):
        return Stops(dict.fromkeys(sides, _whole_ms(int(text))), "time")
    local = bool(text) and _local.fullmatch(text)
    moment = _local_moment(local, zone, now) if local else _moment(text)
    if moment is None:
        return None
    return Stops(dict.fromkeys(sides, _whole_ms(moment)), "local-time" if local else "time")


def read_positions(text: str) -> dict[Side, Position] | None:
    """Read positions that each have the name of their side, `SI:…,HR:…` or `SI …, HR …`; None for anything else."""
    found: dict[Side, Position] = {}
    for part in text.split(","):
        named = _of_side.fullmatch(part)
        position = _read_position(named[2]) if named else None
        if not named or not position or named[1] in found:
            return None
        found[Side(named[1])] = position
    return found


def ahead(stops: Mapping[Side, Position], now: datetime) -> list[Side]:
    """Return the sides for which a stop has not come yet."""
    latest = int(now.timestamp() * 1000) + AHEAD_MS
    return [side for side, stop in stops.items() if order(stop)[0] > latest]


def readable(stop: Position, zone: tzinfo) -> str:
    """Return a stop as a person reads it: one that was read from a time as a time, any other as it is."""
    milliseconds, sequence = order(stop)
    return time_of(milliseconds, zone) or stop if sequence == LAST_SEQUENCE else stop


def time_of(milliseconds: int, zone: tzinfo) -> str:
    """Return a time of receipt as text, to the millisecond; the empty text if no calendar goes that far."""
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
        return moment.astimezone(zone).isoformat(timespec="milliseconds")
    except OverflowError:
        return ""


def _read_position(text: str) -> Position | None:
    if not _position.fullmatch(text) or max(order(text)) > LAST_SEQUENCE:
        return None
    return Position(text)


def _whole_ms(milliseconds: int) -> Position:
    return Position(f"{max(0, milliseconds)}-{LAST_SEQUENCE}")


def _moment(text: str) -> int | None:
    """Return the milliseconds since 1970 of a time with an offset, None if it is none."""
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))  # as a form's plus comes out of an address
        return _since_1970(moment) if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _local_moment(local: re.Match[str], zone: tzinfo, now: datetime) -> int | None:
    """Return the milliseconds since 1970 of a local day or time, None if the calendar has none such."""
    try:
        today = now.astimezone(zone).date()
        day = date.fromisoformat(local[1]) if local[1] else today
        if not local[2]:
            return _end_of_days(day, day + timedelta(days=1), zone, now)
        at = time(int(local[2]), int(local[3]), int(local[4] or 0))
        return max(_since_1970(datetime.combine(day, at.replace(fold=fold), zone)) for fold in (0, 1))
    except (ValueError, OverflowError):
        return None


def _end_of_days(first: date, after: date, zone: tzinfo, now: datetime) -> int:
    """Return the milliseconds since 1970 of the end of local days, up to but not `after`; now while they last."""
    if first <= now.astimezone(zone).date() < after:
        return _since_1970(now)
    return _since_1970(datetime.combine(after, time.min, zone)) - 1


def _since_1970(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
