"""One example of every event type, for the descriptions that are published."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Final
from uuid import UUID

from schemas.events import (
    TYPE_PREFIX,
    Apprehension,
    ApprehensionData,
    BalanceTotal,
    CitizenshipCount,
    Custody,
    CustodyData,
    Event,
    NilReport,
    NilReportData,
    OpeningBalance,
    OpeningBalanceData,
    OperationClosed,
    OperationClosedData,
    OperationOpened,
    OperationOpenedData,
    SectionPlan,
    SmugglerArrest,
    SmugglerArrestData,
    Withdrawal,
    WithdrawalData,
)
from schemas.vocabulary import Side

DEVICE: Final = "9f3c2a"
_LOCAL: Final = timezone(timedelta(hours=1))


def unit_of(side: Side) -> str:
    """Return the unit that the examples of a side come from."""
    return f"{side}-MP-07"


def operation_of(sides: Sequence[Side]) -> str:
    """Return the operation that the examples are about."""
    return f"{'-'.join(sides[:2])}-2024-03"


def event_examples(sides: Sequence[Side]) -> dict[str, Event]:
    """Return an example of every event type, by the type's short name; at least one side is needed.

    Most are of the first side. Custody and the nil report are of the second, if there is one.
    """
    side, other = sides[0], sides[min(1, len(sides) - 1)]
    operation = operation_of(sides)
    unit, desk, other_unit = (
        f"/{side}/{unit_of(side)}/{DEVICE}",
        f"/{side}/{side}-DESK/hq1",
        f"/{other}/{unit_of(other)}/77aa01",
    )
    apprehension = UUID("018e3a2f-6a1c-7c3e-9f10-2b6d6c1f0a11")
    events: tuple[Event, ...] = (
        Apprehension(
            specversion="1.0",
            id=apprehension,
            source=unit,
            reportno=118,
            side=side,
            subject=operation,
            time=_at(14, 4, 12),
            data=ApprehensionData("novo-mesto", (CitizenshipCount("SYR", 4), CitizenshipCount("AFG", 3))),
        ),
        SmugglerArrest(
            specversion="1.0",
            id=UUID("018e3b10-22aa-7d4f-8c33-5b2a7f4e3d03"),
            source=unit,
            reportno=119,
            side=side,
            subject=operation,
            time=_at(14, 5, 40),
            data=SmugglerArrestData(
                section="koper",
                case=f"{unit_of(side)}/2024.11",
                opens_case=True,
                smugglers=(CitizenshipCount("UKR", 1),),
                smuggled_persons=(CitizenshipCount("TUR", 6), CitizenshipCount("XXA", 1)),
            ),
        ),
        Custody(
            specversion="1.0",
            id=UUID("018e3f00-0000-7e50-8d44-6c3b805f4e04"),
            source=other_unit,
            reportno=30,
            side=other,
            time=_at(15, 10, 0),
            data=CustodyData(f"{unit_of(other)}-1", (CitizenshipCount("XXX", 2),)),
        ),
        NilReport(
            specversion="1.0",
            id=UUID("018e3c00-1111-7170-8f66-8e5da27b6006"),
            source=other_unit,
            reportno=31,
            side=other,
            subject=operation,
            time=_at(14, 13, 0),
            data=NilReportData("koper", _at(14, 5, 0), _at(14, 13, 0)),
        ),
        Withdrawal(
            specversion="1.0",
            id=UUID("018e3d00-2222-7280-8077-9f6eb38c7107"),
            source=desk,
            reportno=3,
            side=side,
            subject=operation,
            time=_at(14, 16, 20),
            amends=apprehension,
            revision=1,
            data=WithdrawalData("data-entry-error"),
        ),
        OperationOpened(
            specversion="1.0",
            id=UUID("018e3497-7d40-7a10-8a01-3f0e5d2c1b01"),
            source=desk,
            reportno=1,
            side=side,
            subject=operation,
            time=_at(12, 12, 0),
            data=OperationOpenedData(
                name="Joint control of the border",
                starts=date(2024, 3, 13),
                ends=date(2024, 3, 15),
                sections=(
                    SectionPlan("novo-mesto", "Novo mesto Police Administration", "joint"),
                    SectionPlan("koper", "Koper Police Administration", "remaining"),
                ),
            ),
        ),
        OperationClosed(
            specversion="1.0",
            id=UUID("018e4423-9c00-7b20-9b02-4a1f6e3d2c02"),
            source=desk,
            reportno=4,
            side=side,
            subject=operation,
            time=_at(15, 23, 30),
            data=OperationClosedData(date(2024, 3, 15)),
        ),
        OpeningBalance(
            specversion="1.0",
            id=UUID("018e3498-0000-7f60-8e55-7d4c916a5f05"),
            source=desk,
            reportno=2,
            side=side,
            time=_at(12, 12, 5),
            data=OpeningBalanceData(
                period_from=date(2023, 1, 1),
                period_to=date(2023, 12, 31),
                totals=(
                    BalanceTotal("smuggled_persons", 3_280),
                    BalanceTotal("smugglers", 9, citizenship="SVN"),
                    BalanceTotal("apprehensions", 1_204, section="koper"),
                ),
            ),
        ),
    )
    return {short_name(event): event for event in events}


def short_name(event: Event) -> str:
    """Return the name of an event's type without what all types share: `apprehension` of `….apprehension.v1`."""
    return str(event.__struct_config__.tag).removeprefix(TYPE_PREFIX).rpartition(".")[0]


def _at(day: int, hour: int, minute: int) -> datetime:
    """Return a time in March 2024, an hour ahead of UTC."""
    return datetime(2024, 3, day, hour, minute, tzinfo=_LOCAL)
