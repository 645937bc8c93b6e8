"""Admission: the one place that decides whether a submitted report may become an event of the log. Pure.

In three steps, since they need to know more and more: `admit` looks at the report alone, `refuse` at who sends it, when
and for which operation, `settle` at what the log already holds of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Final, NamedTuple, assert_never

from msgspec import Struct

from schemas import codec
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
from schemas.http import BATCH_MAX, CLOCK_OFF_S, EVENT_BYTES_MAX, Code, Problem, problem
from schemas.principals import Principal
from schemas.tallies import Operation
from schemas.vocabulary import Position, Side, parse_source

__all__ = [
    "BATCH_MAX",
    "EVENT_BYTES_MAX",
    "OF_SENDER",
    "Admitted",
    "Held",
    "Rejected",
    "Repeated",
    "admit",
    "clock_off_s",
    "last_day",
    "refuse",
    "refuse_amendment",
    "settle",
    "settle_id",
]

REJECTED: Final = 422
CONFLICT: Final = 409
TOLERANCE: Final = timedelta(days=1)
"""How far a time may lie outside its operation, and in the future."""

OF_SENDER: Final[tuple[Code, ...]] = ("not-your-side", "not-your-unit", "desk-only")
"""What `refuse` says whatever the log holds; anything else may be said of a report that was recorded before."""

_FIRST_DAY: Final = date(2, 1, 1)
_LAST_DAY: Final = date(9998, 12, 31)
_STEP: Final = re.compile(r"[A-Za-z0-9_]+")
_NAMED_FIELD: Final = re.compile(r"(?:unknown field |Object missing required field )?`(?P<field>[A-Za-z_]{1,40})`")


class Admitted(NamedTuple):
    """A report that may be recorded: the event, and its canonical bytes."""

    event: Event
    canonical: bytes


class Rejected(NamedTuple):
    """A report that may not: the id if it could be read, and the problem."""

    id: str
    problem: Problem


class Held(Struct, frozen=True, gc=False):
    """A report that the log holds, and where."""

    event: Event
    position: Position


class Repeated(NamedTuple):
    """A report that the log holds already at `position`; with a problem if it holds it with other content."""

    position: Position
    problem: Problem | None


def admit(raw: bytes, sides: Collection[Side]) -> Admitted | Rejected:
    """Decide about the form of one submitted report; `sides` are those with a log here."""
    if len(raw) > EVENT_BYTES_MAX:
        return Rejected(
            codec.readable_id(raw), problem("too-large", REJECTED, f"longer than {EVENT_BYTES_MAX:,} bytes")
        )
    try:
        event = codec.decode(raw)
        canonical = codec.encode(event)
        if raw != canonical:
            codec.refuse_repeated_members(raw)
    except codec.EventError as error:
        code: Code = "unknown-type" if error.reason == "unknown-type" else "malformed"
        return Rejected(codec.readable_id(raw), problem(code, REJECTED, str(error), pointer=_pointer(error)))
    if event.side not in sides:
        detail = f"side {event.side} has no log here; there are {', '.join(sorted(sides))}"
        return Rejected(str(event.id), problem("unknown-side", REJECTED, detail, pointer="/side"))
    return Admitted(event, canonical)


def refuse(
    event: Event, principal: Principal, operations: Mapping[str, Operation], zone: tzinfo, received: datetime
) -> Problem | None:
    """Say why this principal may not report that now, or return None.

    Args:
        event: the report.
        principal: who sends it.
        operations: the operations of the event's side.
        zone: the zone of that side's days.
        received: now, as the server's clock has it.

    """
    return (
        _refuse_sender(event, principal) or _refuse_time(event, received) or _refuse_operation(event, operations, zone)
    )


def refuse_amendment(
    event: Event, principal: Principal, reporting_unit: str | None, amended: Event | None
) -> Problem | None:
    """Say why this principal may not amend that report, or return None.

    A report that has not come yet may be amended: the amendment waits for it, as the fold has it.

    Args:
        event: the report.
        principal: who sends it.
        reporting_unit: the unit that made the original, None if that is unknown.
        amended: the event that `amends` names, if that is an amendment itself: it would count beside the original.

    """
    if not event.revision:
        return None
    if principal.role == "unit" and reporting_unit not in (None, principal.unit):
        detail = "the report was made by another unit; that unit or your headquarters may amend it"
        return problem("not-your-report", REJECTED, detail, pointer="/amends")
    if amended:
        detail = f"that is an amendment itself: name the original, {amended.amends}, with the next revision"
        return problem("names-an-amendment", REJECTED, detail, pointer="/amends")
    return None


def settle(event: Event, held: Held | None) -> Repeated | None:
    """Compare a report with what the log holds under its key and revision; None if that is nothing."""
    if held is None:
        return None
    if codec.content_digest(event) == codec.content_digest(held.event):
        return Repeated(held.position, None)
    what = f"revision {event.revision} of this report" if event.revision else "this report"
    detail = f"{what} stands at {held.position} with other content, and the first one counts; to change it, amend it"
    return Repeated(held.position, problem("conflict", CONFLICT, detail, pointer="/id"))


def settle_id(held: Held) -> Repeated:
    """Say that the log holds another report under a report's id: the one that `held` is."""
    detail = f"another report has this id, and stands at {held.position}; each has an id of its own"
    return Repeated(held.position, problem("conflict", CONFLICT, detail, pointer="/id"))


def clock_off_s(sent: datetime | None, happened: datetime, received: datetime) -> int | None:
    """Return by how many seconds a device's clock is fast, if that is more than two minutes either way.

    Without its own word, only a report from the future gives a fast clock away.
    """
    off = ((sent or max(happened, received)) - received).total_seconds()
    return round(off) if abs(off) > CLOCK_OFF_S else None


def last_day(operation: Operation) -> date | None:
    """Return the last day of an operation: when it was closed, else as planned; None without a plan in force."""
    return (operation.closed or operation.plan.ends) if operation.plan else None


def _refuse_sender(event: Event, principal: Principal) -> Problem | None:
    if event.side != principal.side and event.side not in principal.sides:
        detail = f"this token reports for {principal.side}, the report is of {event.side}"
        return problem("not-your-side", REJECTED, detail, pointer="/side")
    if principal.role != "unit":
        return None
    if parse_source(event.source).unit != principal.unit:
        detail = f"this token reports as {principal.unit}: `source` begins with /{principal.side}/{principal.unit}/"
        return problem("not-your-unit", REJECTED, detail, pointer="/source")
    if isinstance(event, OperationOpened | OperationClosed | OpeningBalance):
        return problem(
            "desk-only", REJECTED, "operations and opening balances come from the headquarters", pointer="/type"
        )
    return None


def _refuse_time(event: Event, received: datetime) -> Problem | None:
    if event.time - received > TOLERANCE:
        detail = f"more than 24 hours ahead of {received:%Y-%m-%dT%H:%M:%SZ}: is the device's clock right?"
        return problem("in-the-future", REJECTED, detail, pointer="/time")
    return None


def _refuse_operation(event: Event, operations: Mapping[str, Operation], zone: tzinfo) -> Problem | None:
    if not event.subject or isinstance(event, OperationOpened):
        return None
    operation = operations.get(event.subject)
    plan = operation.plan if operation else None
    if operation is None or plan is None:
        detail = f"{event.subject} is not an operation of {event.side}; GET /v1/operations has those that are open"
        return problem("unknown-operation", REJECTED, detail, pointer="/subject")
    sections = {plan.section for plan in plan.sections}
    for pointer, section in _sections(event):
        if section not in sections:
            detail = f"{event.subject} has the sections {', '.join(sorted(sections))} of {event.side}"
            return problem("unknown-section", REJECTED, detail, pointer=pointer)
    # When an operation was closed, a balance booked or a report taken back says nothing about when something happened.
    if isinstance(event, OperationClosed | OpeningBalance | Withdrawal):
        return None
    # A plan may reach to the calendar's ends, "9999-12-31" for one that stays open; no event does.
    first, last = max(plan.starts, _FIRST_DAY), min(operation.closed or plan.ends, _LAST_DAY)
    begins = datetime.combine(first - TOLERANCE, time.min, zone)
    ends = datetime.combine(last + timedelta(days=1) + TOLERANCE, time.min, zone)
    if not begins <= event.time <= ends:
        detail = f"more than a day outside {event.subject}, {plan.starts} to {operation.closed or plan.ends}"
        return problem("outside-period", REJECTED, detail, pointer="/time")
    return None


def _sections(event: Event) -> Iterator[tuple[str, str]]:
    """Yield the sections that a report names, with their places."""
    match event:
        case Apprehension() | SmugglerArrest() | NilReport():
            yield "/data/section", event.data.section
        case OpeningBalance():
            for at, total in enumerate(event.data.totals):
                if total.section:
                    yield f"/data/totals/{at}/section", total.section
        case OperationOpened() | OperationClosed() | Custody() | Withdrawal():
            return
        case _:
            assert_never(event)


def _pointer(error: codec.EventError) -> str:
    """Return the JSON Pointer (RFC 6901) of the field that an error is about."""
    steps = _STEP.findall(error.pointer)
    named = _NAMED_FIELD.match(error.rule)
    if named:
        steps.append(named["field"])
    return "".join(f"/{step}" for step in steps)
