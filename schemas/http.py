"""What the gateway answers: results, problems, a device's standing, open operations; the client reads the same."""

from __future__ import annotations

from datetime import date
from typing import Final, Literal, get_args

from msgspec import UNSET, Struct, UnsetType

from schemas.events import SectionPlan
from schemas.principals import Role
from schemas.vocabulary import Position, Side

EVENT_TYPE: Final = "application/cloudevents+json"
BATCH_TYPE: Final = "application/cloudevents-batch+json"
PROBLEM_TYPE: Final = "application/problem+json"
SENT_HEADER: Final = "Fieldtally-Sent"
"""What the device's clock showed when it sent the request, RFC 3339; so a clock that is off can be told."""

EVENT_BYTES_MAX: Final = 65_536
REQUEST_BYTES_MAX: Final = 1_048_576
BATCH_MAX: Final = 500
CLOCK_OFF_S: Final = 120

Status = Literal["recorded", "duplicate", "conflict", "rejected"]
"""What became of one report; only the first two say that it is in the log."""

Code = Literal[
    "malformed", "unknown-type", "too-large", "unknown-side", "not-your-side", "not-your-unit", "not-your-report",
    "names-an-amendment", "desk-only", "unknown-operation", "unknown-section", "outside-period", "in-the-future",
    "conflict", "malformed-request", "not-authenticated", "not-allowed", "not-found", "method-not-allowed",
    "too-many-events", "unsupported-media-type", "compressed", "rate-limited", "unavailable", "lagging", "fault",
]  # fmt: skip
"""Why something was refused, in a word that a program can go by."""

CODES: Final[tuple[Code, ...]] = get_args(Code)

TITLES: Final[dict[Code, str]] = {
    "malformed": "The report breaks a rule of its event type",
    "unknown-type": "There is no report of this type",
    "too-large": "Too long to be taken",
    "unknown-side": "Nothing is recorded here for this side",
    "not-your-side": "This token may not report for this side",
    "not-your-unit": "This token may report as its own unit only",
    "not-your-report": "Only the unit that made a report, or its headquarters, may amend it",
    "names-an-amendment": "An amendment names the original, not another amendment",
    "desk-only": "Only a headquarters may report this",
    "unknown-operation": "There is no such operation",
    "unknown-section": "The operation has no such section on this side",
    "outside-period": "The time lies outside the operation",
    "in-the-future": "The time lies in the future",
    "conflict": "This report is in the log with other content",
    "malformed-request": "The request cannot be read",
    "not-authenticated": "The token is missing, unknown or no longer valid",
    "not-allowed": "This token may not do that",
    "not-found": "There is nothing at this address",
    "method-not-allowed": "This address does not take that method",
    "too-many-events": "Too many reports in one request",
    "unsupported-media-type": "The content type is not one that is taken here",
    "compressed": "Compressed requests are not taken",
    "rate-limited": "Too many reports in a short time, or requests at once",
    "unavailable": "Nothing can be recorded at the moment",
    "lagging": "The counting is too far behind to take more",
    "fault": "A fault in Fieldtally itself",
}
"""A title for people, for every code."""


class Problem(Struct, frozen=True, kw_only=True):
    """RFC 9457: `type` names the kind, `title` says it to a person, `detail` this case; nothing repeats the report.

    `pointer` is the JSON Pointer (RFC 6901) of the field, empty for the whole; `retryable` says whether the same
    request may succeed later. `code` is one of `Code`; a client that is older than the gateway takes others too.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    pointer: str = ""
    retryable: bool = False


class Result(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one report. `id` is empty if it could not be read; `position` is where the log holds the report.

    `clock_off_s` is there when the device's clock is more than two minutes off: by how many seconds it is fast.
    """

    id: str
    status: Status
    position: Position | UnsetType = UNSET
    problem: Problem | UnsetType = UNSET
    clock_off_s: int | UnsetType = UNSET


class Results(Struct, frozen=True):
    """What became of a batch, in its order."""

    results: tuple[Result, ...]


class DeviceStanding(Struct, frozen=True, kw_only=True):
    """Who a token is, and which numbers of its device are in the log, at `position`.

    `missing` are ranges below `highest`, both ends included; `reused` is how many of the reports that are counted
    brought a used number.
    """

    role: Role
    side: Side
    unit: str
    device: str
    highest: int
    missing: tuple[tuple[int, int], ...]
    reused: int
    position: Position


class OpenOperation(Struct, frozen=True, kw_only=True):
    """An operation that takes reports, with the sections of one side; both days included."""

    operation: str
    name: str
    starts: date
    ends: date
    sections: tuple[SectionPlan, ...]


class OpenOperations(Struct, frozen=True, kw_only=True):
    """The open operations of a side, at a position of its log."""

    side: Side
    position: Position
    operations: tuple[OpenOperation, ...]


class Liveness(Struct, frozen=True):
    """The process answers."""

    status: Literal["live"] = "live"


class Check(Struct, frozen=True, kw_only=True):
    """One thing that must be in order before reports are taken; `side` is empty where it concerns all."""

    check: Literal["redis", "lag", "writes"]
    side: str = ""
    ok: bool
    detail: str


class Readiness(Struct, frozen=True, kw_only=True):
    """Whether reports are taken now, and what stands in the way."""

    status: Literal["ready", "not-ready"]
    checks: tuple[Check, ...]


def problem(code: Code, status: int, detail: str, *, pointer: str = "", retryable: bool = False) -> Problem:
    """Return a problem of a code."""
    return Problem(
        type=f"urn:fieldtally:problem:{code}",
        title=TITLES[code],
        status=status,
        detail=detail,
        code=code,
        pointer=pointer,
        retryable=retryable,
    )
