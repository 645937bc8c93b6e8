"""The eight event types of DESIGN section 2: CloudEvents 1.0 whose rules hold for every instance that exists.

A rule that one field can state is in its type, and enforced on decoding. A rule between fields is in `__post_init__`,
so an event that breaks it cannot be constructed either. There is no field for a person, and free text only where a
desk names an operation and its areas.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

from schemas.vocabulary import (
    BALANCE_MAX,
    NAME_RULE,
    REPORTNO_MAX,
    REVISION_MAX,
    TEXT_MAX,
    Citizenship,
    Count,
    Coverage,
    Measure,
    Name,
    SideCode,
    SourcePath,
    WithdrawalReason,
    is_name,
    parse_source,
)

TYPE_PREFIX = "org.fieldtally."

Moment = Annotated[datetime, Meta(tz=True)]
Text = Annotated[str, Meta(min_length=1, max_length=TEXT_MAX)]


# gc=False throughout: events are trees, never cycles, and a million of them must not be walked by the collector.
class CitizenshipCount(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """How many persons of one citizenship."""

    citizenship: Citizenship
    count: Count


class SectionPlan(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """One section of an operation, for the side that opens it."""

    section: Name
    area: Text
    coverage: Coverage

    def __post_init__(self) -> None:
        _is_name(self.section, "section")
        _is_printable(self.area, "area")


class BalanceTotal(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One figure that was counted before this log began; an absent section or citizenship is the empty string."""

    measure: Measure
    count: Annotated[int, Meta(ge=1, le=BALANCE_MAX)]
    section: Name = ""
    citizenship: Citizenship | Literal[""] = ""

    def __post_init__(self) -> None:
        if self.section:
            _is_name(self.section, "section")


class OperationOpenedData(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The plan of an operation for one side; both days included."""

    name: Text
    starts: date
    ends: date
    sections: Annotated[tuple[SectionPlan, ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        _is_printable(self.name, "name")
        _in_order(self.starts, self.ends, "`starts` lies after `ends`")
        if len({plan.section for plan in self.sections}) != len(self.sections):
            raise ValueError("`sections` names a section twice")


class OperationClosedData(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The last day of an operation."""

    closed: date


class ApprehensionData(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Persons apprehended in one incident; the breakdown is the total."""

    section: Name
    persons: Annotated[tuple[CitizenshipCount, ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        _is_name(self.section, "section")
        _each_citizenship_once(self.persons, "persons")


class SmugglerArrestData(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Smugglers arrested, and the persons found with them, who are not counted as apprehended here."""

    section: Name
    case: Name
    opens_case: bool
    smugglers: Annotated[tuple[CitizenshipCount, ...], Meta(min_length=1)]
    smuggled_persons: tuple[CitizenshipCount, ...]

    def __post_init__(self) -> None:
        _is_name(self.section, "section")
        _is_name(self.case, "case")
        _each_citizenship_once(self.smugglers, "smugglers")
        _each_citizenship_once(self.smuggled_persons, "smuggled_persons")


class CustodyData(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Persons of a case remanded in custody."""

    case: Name
    remanded: Annotated[tuple[CitizenshipCount, ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        _is_name(self.case, "case")
        _each_citizenship_once(self.remanded, "remanded")


class OpeningBalanceData(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What was counted before this log began, booked on `period_to`; both days included."""

    period_from: date
    period_to: date
    totals: Annotated[tuple[BalanceTotal, ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        _in_order(self.period_from, self.period_to, "`period_from` lies after `period_to`")
        if len({(total.measure, total.section, total.citizenship) for total in self.totals}) != len(self.totals):
            raise ValueError("`totals` names a measure, section and citizenship twice")


class NilReportData(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Nothing found in a section over a period: silence is not zero."""

    section: Name
    period_from: Moment
    period_to: Moment

    def __post_init__(self) -> None:
        _is_name(self.section, "section")
        _in_order(self.period_from, self.period_to, "`period_from` lies after `period_to`")


class WithdrawalData(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The report that is amended no longer counts, and why."""

    reason: WithdrawalReason


class EventBase(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type", gc=False
):
    """The attributes that every event has; an absent `subject` is the empty string, an absent `revision` 0."""

    specversion: Literal["1.0"]
    id: UUID
    source: SourcePath
    reportno: Annotated[int, Meta(ge=1, le=REPORTNO_MAX)]
    side: SideCode
    subject: Annotated[Name, Meta(min_length=1)] = ""
    time: Moment
    amends: UUID | UnsetType = UNSET
    revision: Annotated[int, Meta(ge=1, le=REVISION_MAX)] = 0

    def __post_init__(self) -> None:
        if parse_source(self.source).side != self.side:
            raise ValueError("`side` is not the side in `source`")
        if self.subject:
            _is_name(self.subject, "subject")
        if self.revision:
            if self.amends is UNSET:
                raise ValueError("`revision` without `amends`")
            if self.amends == self.id:
                raise ValueError("`amends` is the event's own `id`: an amendment has an id of its own")
        elif self.amends is not UNSET:
            raise ValueError("`amends` without `revision`")
        if not 2 <= self.time.year <= 9998:  # so that every time has a local day in every zone
            raise ValueError("`time` lies outside the years 2 to 9998")


class OperationOpened(EventBase, frozen=True, tag=TYPE_PREFIX + "operation-opened.v1"):
    """A desk opens an operation for its side."""

    data: OperationOpenedData

    def __post_init__(self) -> None:
        super().__post_init__()
        _operation_named(self)


class OperationClosed(EventBase, frozen=True, tag=TYPE_PREFIX + "operation-closed.v1"):
    """A desk closes an operation for its side."""

    data: OperationClosedData

    def __post_init__(self) -> None:
        super().__post_init__()
        _operation_named(self)


class Apprehension(EventBase, frozen=True, tag=TYPE_PREFIX + "apprehension.v1"):
    """A unit apprehended persons who had crossed the border illegally."""

    data: ApprehensionData


class SmugglerArrest(EventBase, frozen=True, tag=TYPE_PREFIX + "smuggler-arrest.v1"):
    """A unit arrested smugglers."""

    data: SmugglerArrestData


class Custody(EventBase, frozen=True, tag=TYPE_PREFIX + "custody.v1"):
    """Persons of a case were remanded in custody."""

    data: CustodyData


class OpeningBalance(EventBase, frozen=True, tag=TYPE_PREFIX + "opening-balance.v1"):
    """A desk books what was counted before this log began."""

    data: OpeningBalanceData


class NilReport(EventBase, frozen=True, tag=TYPE_PREFIX + "nil-report.v1"):
    """A unit found nothing."""

    data: NilReportData


class Withdrawal(EventBase, frozen=True, tag=TYPE_PREFIX + "withdrawal.v1"):
    """A report is taken back; always an amendment."""

    data: WithdrawalData

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.amends is UNSET:
            raise ValueError("a withdrawal needs `amends` and `revision`")


Event = (
    OperationOpened
    | OperationClosed
    | Apprehension
    | SmugglerArrest
    | Custody
    | OpeningBalance
    | NilReport
    | Withdrawal
)


def _is_name(text: str, field: str) -> None:
    if not is_name(text):
        raise ValueError(f"`{field}` {NAME_RULE}")


def _is_printable(text: str, field: str) -> None:
    if not text.isprintable():
        raise ValueError(f"`{field}` holds a character that cannot be printed")


def _each_citizenship_once(counts: tuple[CitizenshipCount, ...], field: str) -> None:
    if len(counts) > 1 and len({entry.citizenship for entry in counts}) < len(counts):
        raise ValueError(f"`{field}` names a citizenship twice")


def _in_order(first: date, last: date, rule: str) -> None:
    if first > last:
        raise ValueError(rule)


def _operation_named(event: EventBase) -> None:
    if not event.subject:
        raise ValueError("`subject` must name the operation")
