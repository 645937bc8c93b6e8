"""What the control room tells a screen: the snapshot and the messages of the stream. Times are UTC.

Counts are absolute everywhere, so that whatever comes twice does no harm.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Final, Literal

from msgspec import Struct

from schemas.events import SectionPlan
from schemas.vocabulary import Position, Side, WithdrawalReason

HEARTBEAT_S: Final = 5
LATEST_MAX: Final = 30
AMENDMENTS_MAX: Final = 50

Trouble = Literal["", "server-away", "damaged", "projector-behind"]
ResetReason = Literal["too-old", "generation", "restarted", "slow"]


class OperationShown(Struct, frozen=True):
    """An operation as planned; `closed` is its last day if it was closed otherwise than planned."""

    operation: str
    name: str
    starts: date
    ends: date
    closed: date | None
    sections: tuple[SectionPlan, ...]


class DeviceShown(Struct, frozen=True):
    """A device: the numbers received and missing, and when it was last heard."""

    unit: str
    device: str
    highest: int
    missing: tuple[tuple[int, int], ...]
    reused: int
    heard: datetime | None


class ReportShown(Struct, frozen=True, kw_only=True):
    """One report of the log; `counts` by measure and citizenship, `type` as in "apprehension"."""

    position: Position
    received: datetime
    time: datetime
    type: str
    unit: str
    operation: str
    section: str
    revision: int
    reason: WithdrawalReason | None
    counts: dict[str, dict[str, int]]


class AmendmentShown(Struct, frozen=True, kw_only=True):
    """One amendment: by how much it changed each cell, and why if it took a report back.

    `of` is the type of the version that it took the place of, empty if it came before any.
    """

    position: Position
    received: datetime
    type: str
    unit: str
    operation: str
    section: str
    day: str
    reason: WithdrawalReason | None
    changes: dict[str, int]
    of: str = ""


class Hours(Struct, frozen=True):
    """Counts by hour of the event's own time: `epoch seconds|operation|section|measure`.

    Hours that begin before `since` are not fully known.
    """

    since: int
    counts: dict[str, int]


class AuditShown(Struct, frozen=True):
    """The last audit that found live and rebuilt tallies equal: where, with which digest, when."""

    position: Position
    digest: str
    at: datetime


class SideShown(Struct, frozen=True, kw_only=True):
    """All that a screen needs of one side.

    `amendments` are the newest; `amended` says by how much all of them together changed each cell, 0 where they cancel
    out.
    """

    side: Side
    zone: str
    citizenship: str
    position: Position
    entries: int
    generation: str
    digest: str
    lag: int
    lag_s: float
    heard: datetime | None
    parked: int
    operations: tuple[OperationShown, ...]
    cells: dict[str, int]
    devices: tuple[DeviceShown, ...]
    hours: Hours
    latest: tuple[ReportShown, ...]
    amendments: tuple[AmendmentShown, ...]
    amended: dict[str, int]
    audit: AuditShown | None


class Snapshot(Struct, frozen=True, kw_only=True):
    """The tallies of the visible sides; `id` is where a stream goes on from, `at` what a past view was asked for.

    `ahead` says that what was asked for has not come yet: it is then a view of now that does not move.
    """

    view: Literal["live", "past"]
    now: datetime
    id: str
    digest: str
    fold_version: int
    sides: tuple[SideShown, ...]
    at: str = ""
    ahead: bool = False


class ChangeMessage(Struct, frozen=True, kw_only=True):
    """What brought one side's tallies to a position; a count of 0 is a cell that is gone.

    `amended` has the cells that amendments among it changed, with what all amendments so far changed there.
    """

    side: Side
    position: Position
    generation: str
    at: datetime
    cells: dict[str, int]
    hours: dict[str, int]
    latest: tuple[ReportShown, ...]
    amendments: tuple[AmendmentShown, ...]
    amended: dict[str, int]


class SideStanding(Struct, frozen=True, kw_only=True):
    """How one side stands, as a heartbeat says it; another generation has other tallies at the same position."""

    side: Side
    generation: str
    position: Position
    entries: int
    digest: str
    lag: int
    lag_s: float
    heard: datetime | None
    parked: int
    audit: AuditShown | None


class HeartbeatMessage(Struct, frozen=True, kw_only=True):
    """That the control room lives, when it last saw the server, and how the sides stand."""

    now: datetime
    looked: datetime | None
    trouble: Trouble
    digest: str
    sides: tuple[SideStanding, ...]


class SideMessage(Struct, frozen=True):
    """A side's operations, and those of its devices that have changed; a stream begins with all of them."""

    side: Side
    operations: tuple[OperationShown, ...]
    devices: tuple[DeviceShown, ...]


class ResetMessage(Struct, frozen=True):
    """The stream cannot go on from where the reader is: it takes a snapshot."""

    reason: ResetReason
