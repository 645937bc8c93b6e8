"""What a report adds to the tallies: the counting rules, and the only place that knows them (DESIGN section 3)."""

from __future__ import annotations

from datetime import tzinfo
from typing import TypeAlias, assert_never

from schemas.events import (
    Apprehension,
    Custody,
    Event,
    NilReport,
    OpeningBalance,
    OperationClosed,
    OperationOpened,
    SmugglerArrest,
    Withdrawal,
)
from services.tally.cells import Cell, local_day

Contribution: TypeAlias = tuple[Cell, int]


def contributions(event: Event, zone: tzinfo) -> list[Contribution]:
    """Return the cells that a report adds to, with its counts; `zone` is the zone of the event's side."""
    side = event.side
    operation = event.subject
    added: list[Contribution] = []
    match event:
        case Apprehension(data=data):
            # Persons are the persons of this incident only: those found with smugglers are another measure.
            section, day = data.section, local_day(event.time, zone)
            added.append(((side, operation, section, day, "apprehensions", ""), 1))
            for entry in data.persons:
                added.append(((side, operation, section, day, "persons", entry.citizenship), entry.count))
        case SmugglerArrest(data=data):
            section, day = data.section, local_day(event.time, zone)
            if data.opens_case:
                added.append(((side, operation, section, day, "smuggling_cases", ""), 1))
            for entry in data.smugglers:
                added.append(((side, operation, section, day, "smugglers", entry.citizenship), entry.count))
            for entry in data.smuggled_persons:
                added.append(((side, operation, section, day, "smuggled_persons", entry.citizenship), entry.count))
        case Custody(data=data):
            day = local_day(event.time, zone)
            for entry in data.remanded:
                added.append(((side, operation, "", day, "remanded", entry.citizenship), entry.count))
        case NilReport(data=data):
            added.append(((side, operation, data.section, local_day(event.time, zone), "nil_reports", ""), 1))
        case OpeningBalance(data=data):
            # Booked on the period's last day, whenever the desk reported it.
            day = data.period_to.isoformat()
            for total in data.totals:
                added.append(((side, operation, total.section, day, total.measure, total.citizenship), total.count))
        case OperationOpened() | OperationClosed() | Withdrawal():
            pass
        case _:
            assert_never(event)
    return added
