"""Admission: the one place that decides whether a submitted report may become an event of the log. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from schemas import codec
from schemas.events import Event
from schemas.vocabulary import Side

EVENT_BYTES_MAX: Final = 65_536


class Admitted(NamedTuple):
    """A report that may be recorded: the event, and its canonical bytes."""

    event: Event
    canonical: bytes


class Rejected(NamedTuple):
    """A report that may not: the id if it could be read, and the problem in words."""

    id: str
    problem: str


def admit(raw: bytes, sides: Collection[Side]) -> Admitted | Rejected:
    """Decide about one submitted report; `sides` are those with a log here."""
    if len(raw) > EVENT_BYTES_MAX:
        return Rejected("", f"longer than {EVENT_BYTES_MAX:,} bytes")
    try:
        event = codec.decode(raw)
        canonical = codec.encode(event)
        if raw != canonical:
            codec.refuse_repeated_members(raw)
    except codec.EventError as error:
        return Rejected(codec.readable_id(raw), str(error))
    if event.side not in sides:
        return Rejected(str(event.id), f"side {event.side} has no log here; there are {', '.join(sorted(sides))}")
    return Admitted(event, canonical)
