"""What the log's entries say beside the tallies: counts by hour, the latest reports, the amendments. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, tzinfo
from hashlib import sha256
from math import inf
from typing import Final

from msgspec import Struct

from schemas.events import Apprehension, Event, NilReport, OpeningBalance, SmugglerArrest, Withdrawal
from schemas.screen import AmendmentShown, ReportShown
from schemas.vocabulary import Position, parse_source
from services.tally.cells import SEPARATOR, cell_text, local_day
from services.tally.contributions import contributions
from services.tally.fold import Key

HOUR_S: Final = 3_600
_PREFIX: Final = "org.fieldtally."


class Recorded(Struct, frozen=True, gc=False):
    """An event of the log, and where it stands."""

    event: Event
    position: Position


class Book:
    """Counts by the hour of the event's time, for hours that begin at `since` or later and before `until`, in seconds.

    Of each report the highest revision counts, and of the same revision twice the first, as in the fold. An event
    happens before it is received, so whoever takes in all that was received from `since` on has these hours whole.
    """

    def __init__(self, zone: tzinfo, since: int = 0, until: float = inf) -> None:
        self.since = since
        self.until = until
        self.counts: dict[str, int] = {}
        self._zone = zone
        self._in_force: dict[Key, Event] = {}

    def take(self, recorded: Iterable[Recorded]) -> dict[str, int]:
        """Take in entries in their order; return the changed hours with their counts, 0 for what is gone."""
        changed: dict[str, int] = {}
        for one in recorded:
            event = one.event
            key = (event.amends or event.id).int.to_bytes(16, "big")
            before = self._in_force.get(key)
            if before is None and event.time.timestamp() >= self.until:
                continue  # an amendment of it may lie in these hours, and then it is the first that counts here
            if before is not None and event.revision <= before.revision:
                continue
            self._in_force[key] = event
            if before is not None:
                self._count(before, -1, changed)
            self._count(event, 1, changed)
        return changed

    def forget_before(self, since: int) -> None:
        """Let go of the hours that begin earlier, and of the reports that counted there."""
        if since > self.since:
            self.since = since
            self.counts = {
                name: count for name, count in self.counts.items() if int(name.partition(SEPARATOR)[0]) >= since
            }
            self._in_force = {key: event for key, event in self._in_force.items() if _hour(event) >= since}

    def _count(self, event: Event, sign: int, changed: dict[str, int]) -> None:
        hour = _hour(event)
        within = self.since <= hour and event.time.timestamp() < self.until
        if isinstance(event, OpeningBalance) or not within:  # a balance says nothing of an hour
            return
        for cell, count in contributions(event, self._zone):
            _, operation, section, _, measure, _ = cell
            name = SEPARATOR.join((str(hour), operation, section, measure))
            total = self.counts.get(name, 0) + sign * count
            if total:
                self.counts[name] = total
            else:
                self.counts.pop(name, None)
            changed[name] = total


def received_at(position: Position) -> datetime:
    """Return when an entry was received: the milliseconds of its position."""
    milliseconds = min(int(position.partition("-")[0]), 253_402_300_799_000)  # a calendar ends, a stream's IDs do not
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def show_report(one: Recorded, zone: tzinfo) -> ReportShown:
    """Return a report as the list of the latest has it."""
    event = one.event
    counts: dict[str, dict[str, int]] = {}
    for cell, count in contributions(event, zone):
        by_citizenship = counts.setdefault(cell[4], {})
        by_citizenship[cell[5]] = by_citizenship.get(cell[5], 0) + count
    return ReportShown(
        position=one.position,
        received=received_at(one.position),
        time=event.time.astimezone(UTC),
        type=_kind(event),
        unit=parse_source(event.source).unit,
        operation=event.subject,
        section=_section(event),
        revision=event.revision,
        reason=event.data.reason if isinstance(event, Withdrawal) else None,
        counts=counts,
    )


def show_amendment(one: Recorded, replaced: Event | None, zone: tzinfo) -> AmendmentShown:
    """Return an amendment with what it changed; `replaced` is the version that it took the place of."""
    event = one.event
    changes: dict[str, int] = {}
    for version, sign in ((replaced, -1), (event, 1)):
        for cell, count in contributions(version, zone) if version else ():
            name = cell_text(cell)
            changes[name] = changes.get(name, 0) + sign * count
    about = replaced if replaced and isinstance(event, Withdrawal) else event
    return AmendmentShown(
        position=one.position,
        received=received_at(one.position),
        type=_kind(event),
        of=_kind(replaced) if replaced else "",
        unit=parse_source(event.source).unit,
        operation=about.subject,
        section=_section(about),
        day=local_day(about.time, zone),
        reason=event.data.reason if isinstance(event, Withdrawal) else None,
        changes={name: change for name, change in changes.items() if change},
    )


def add_changes(amended: dict[str, int], amendments: Iterable[AmendmentShown]) -> dict[str, int]:
    """Add what amendments changed to what all before them did; return the cells concerned, as they are then."""
    touched: dict[str, int] = {}
    for one in amendments:
        for name, change in one.changes.items():
            touched[name] = amended[name] = amended.get(name, 0) + change
    return touched


def joined_digest(sides: Iterable[Mapping[str, int]]) -> str:
    """Return the state digest over the cells of several sides, or of one; no cell belongs to two of them."""
    lines = sorted(f"{name}={count}\n" for cells in sides for name, count in cells.items() if count)
    return sha256("".join(lines).encode()).hexdigest()


def apply_cells(cells: dict[str, int], changed: Mapping[str, int]) -> None:
    """Take absolute counts into cells; 0 is a cell that is gone."""
    for name, count in changed.items():
        if count:
            cells[name] = count
        else:
            cells.pop(name, None)


def _hour(event: Event) -> int:
    return int(event.time.timestamp() // HOUR_S) * HOUR_S


def _kind(event: Event) -> str:
    return str(event.__struct_config__.tag).removeprefix(_PREFIX).rpartition(".")[0]


def _section(event: Event) -> str:
    return event.data.section if isinstance(event, Apprehension | SmugglerArrest | NilReport) else ""
