"""The joint control of the Slovenian-Croatian border of 13-15 March 2024, so that the published figures can be audited.

The totals are those of the press release. It gives no split by section or hour, no citizenship of single groups, and
none at all for Croatia: the seed spreads the totals over these, and every unit, device and group here is simulated.
Where a citizenship would be a claim about one of few persons, the smugglers in Croatia, it is XXX, unspecified.

The log gets the first, second and late versions of what happened, as from a real fleet; only what is in force at its
end adds up to the release. Two of its statements it cannot bear out, because they contradict each other: four
smugglers, and "two Ukrainians, two Romanians and one Serbian". The log holds four, one of them Romanian.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from random import Random
from typing import Final, TypeAlias, TypeVar
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from schemas.codec import encode
from schemas.events import (
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
    SmugglerArrest,
    SmugglerArrestData,
    Withdrawal,
    WithdrawalData,
)
from schemas.vocabulary import Citizenship, Coverage, Side, WithdrawalReason, parse_source
from services.simulator.fleet import DESKS, HR, SECTIONS, SI, Submission, mint_id

OPERATION: Final = "SI-HR-2024-03"
FIRST_DAY: Final = date(2024, 3, 13)
LAST_DAY: Final = date(2024, 3, 15)

_LOCAL: Final = timezone(timedelta(hours=1))  # both sides, until the end of March
BEGINS: Final = datetime(2024, 3, 13, tzinfo=_LOCAL)
ENDS: Final = datetime(2024, 3, 16, tzinfo=_LOCAL)
"""The operation's first moment, and the one after its last."""


def joint_operation(seed: int = 2024) -> list[Submission]:
    """Return what both sides submitted, in the order of arrival; equal seeds give equal submissions, byte for byte.

    First come the openings of the operation, on its eve, and the opening balances; last its closings. Everything from
    the balances on arrives within the operation, 13 March 00:00 to 15 March 24:00 local time.
    """
    random = Random(f"joint operation {seed}")  # to be foreseen is the point
    devices = _devices(random)
    findings = _findings(random, devices)
    reports = [*_desk_reports(), *findings, *_nil_reports(random, devices, findings)]

    # So far it is what is true, and what is in force at the end. Now it is made as untidy as a real log is on the way.
    apprehended = [finding for finding in findings if isinstance(finding.data, ApprehensionData)]
    amendable = _shuffled(random, [report for report in apprehended if report.written < _LATEST_AMENDED])
    si = [report for report in amendable if _side_of(report.source) == SI]
    hr = [report for report in amendable if _side_of(report.source) == HR]
    reports += _corrections(random, [*si[:3], *hr[:3]])
    reports += _corrections(random, si[3:4], revisions=2)
    reports += _withdrawn(random, devices, [si[4], si[5], hr[4]])
    offline = _offline_around(random, [hr[5], si[6], si[7], hr[6]])
    reports += _corrections(random, [hr[5]], by_desk=True)  # arrives before the report that it amends
    return _submit(random, sorted(reports, key=lambda report: report.written), offline)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)
_SHIFT: Final = timedelta(hours=12)
_HAND_OVER: Final = timedelta(minutes=30)  # before the end of a shift, a unit that found nothing says so
_LAST_BACK: Final = ENDS - timedelta(minutes=40)  # when the last device is back online
_LATEST_AMENDED: Final = ENDS - timedelta(hours=6)  # what is found later is not amended any more

_Data: TypeAlias = (
    ApprehensionData
    | CustodyData
    | NilReportData
    | OpeningBalanceData
    | OperationClosedData
    | OperationOpenedData
    | SmugglerArrestData
    | WithdrawalData
)
_Counts: TypeAlias = tuple[CitizenshipCount, ...]
_T = TypeVar("_T")

# "predominantly migrants from Syria, Afghanistan, Morocco and Bangladesh": 95 of 127. The rest, and all of Croatia's
# breakdown, is simulated.
_SI_PERSONS: Final[dict[Citizenship, int]] = {
    "SYR": 37, "AFG": 28, "MAR": 18, "BGD": 12, "TUR": 10, "PAK": 7, "IND": 6, "IRQ": 4, "EGY": 3, "NPL": 2,
}  # fmt: skip
_HR_PERSONS: Final[dict[Citizenship, int]] = {
    "SYR": 46, "AFG": 37, "TUR": 24, "MAR": 19, "BGD": 15, "PAK": 11, "IND": 8, "IRQ": 5, "CHN": 4, "EGY": 3,
}  # fmt: skip

# Arrests by case: what each report of the case says, the first of them opening it.
_SI_CASES: Final[tuple[tuple[_Counts, ...], ...]] = (
    ((CitizenshipCount("UKR", 1),), (CitizenshipCount("UKR", 1),)),
    ((CitizenshipCount("ROU", 1),),),
    ((CitizenshipCount("SRB", 1),),),
)
_HR_JOINT_CASES: Final = (((CitizenshipCount("XXX", 2),),), ((CitizenshipCount("XXX", 1),),))
_HR_REMAINING_CASES: Final = (
    ((CitizenshipCount("XXX", 2),),),
    ((CitizenshipCount("XXX", 1),), (CitizenshipCount("XXX", 1),)),
    ((CitizenshipCount("XXX", 1),),),
    ((CitizenshipCount("XXX", 1),),),
)

_UNITS: Final = {"novo-mesto": 4, "koper": 3, "ljubljana": 3, "joint-sections": 7, "remaining-areas": 3}
_HOURS: Final = (*range(24), *range(7), *range(7), 20, 21, 22, 23)
_TOO_LATE: Final = 22  # on the last day: what is found must be written and sent before the operation ends
_SENT_TWICE: Final = 9

# What Slovenia had counted before. A figure that the release gives for a part of a year and for the whole is booked in
# two balances, so that both sums come out. Foreign citizens without a stated citizenship are XXX; those remanded were
# foreign and Slovenian, so theirs is left open. Cases of 2 to 12 March are in no published figure, so not here either.
_BALANCES: Final = (
    OpeningBalanceData(date(2022, 1, 1), date(2022, 12, 31), (BalanceTotal("smuggling_cases", 242),)),
    OpeningBalanceData(date(2023, 1, 1), date(2023, 3, 1), (BalanceTotal("smuggling_cases", 27),)),
    OpeningBalanceData(date(2023, 3, 2), date(2023, 12, 31), (BalanceTotal("smuggling_cases", 479 - 27),)),
    OpeningBalanceData(
        date(2023, 1, 1),
        date(2023, 12, 31),
        (
            BalanceTotal("smugglers", 548, citizenship="XXX"),
            BalanceTotal("smugglers", 9, citizenship="SVN"),
            BalanceTotal("smuggled_persons", 3_280, citizenship="XXX"),
            BalanceTotal("remanded", 514),
        ),
    ),
    OpeningBalanceData(
        date(2024, 1, 1),
        date(2024, 3, 1),
        (
            BalanceTotal("smuggling_cases", 121),
            BalanceTotal("smugglers", 135, citizenship="XXX"),
            BalanceTotal("smugglers", 2, citizenship="SVN"),
            BalanceTotal("smuggled_persons", 757, citizenship="XXX"),
        ),
    ),
    # "more than 7,850" with the operation's 127: the smallest balance with which that is true.
    OpeningBalanceData(date(2024, 1, 1), date(2024, 3, 12), (BalanceTotal("persons", 7_851 - 127, citizenship="XXX"),)),
)


class _Device(Struct, frozen=True):
    """A device of a unit, stationed in a section."""

    source: str
    side: Side
    unit: str
    section: str
    coverage: Coverage


class _Scene(Struct, frozen=True):
    """Where and when a unit met a group."""

    device: _Device
    time: datetime
    persons: _Counts


class _Report(Struct, eq=False):
    """A report as written, before it has a number; it gets its identity on sending, an amendment after its original."""

    source: str
    written: datetime
    time: datetime
    data: _Data
    subject: str = OPERATION
    amends: _Report | None = None
    revision: int = 0
    identity: UUID | UnsetType = UNSET


_Offline: TypeAlias = dict[str, tuple[datetime, datetime]]
_KINDS: Final[dict[type[_Data], Callable[..., Event]]] = {
    ApprehensionData: Apprehension,
    CustodyData: Custody,
    NilReportData: NilReport,
    OpeningBalanceData: OpeningBalance,
    OperationClosedData: OperationClosed,
    OperationOpenedData: OperationOpened,
    SmugglerArrestData: SmugglerArrest,
    WithdrawalData: Withdrawal,
}


def _devices(random: Random) -> list[_Device]:
    """Station units in the sections, each with one device."""
    devices: list[_Device] = []
    for side, sections in SECTIONS.items():
        for plan in sections:
            # Mixed patrols cover the joint sections, border police the remaining areas.
            kind = "MP" if plan.coverage == "joint" else "BP"
            for _ in range(_UNITS[plan.section]):
                number = 1 + sum(device.unit.startswith(f"{side}-{kind}-") for device in devices)
                unit = f"{side}-{kind}-{number:02}"
                source = f"/{side}/{unit}/{random.getrandbits(24):06x}"
                devices.append(_Device(source, side, unit, plan.section, plan.coverage))
    return devices


def _desk_reports() -> list[_Report]:
    """Open the operation on its eve and close it in its last minutes; book the balances as it begins."""
    eve = BEGINS - timedelta(hours=6)
    opened = OperationOpenedData("Joint control of the Slovenian-Croatian border", FIRST_DAY, LAST_DAY, SECTIONS[SI])
    closed = OperationClosedData(LAST_DAY)
    reports = [
        _Report(DESKS[SI], eve, eve, opened),
        _Report(DESKS[HR], eve + _MINUTE, eve + _MINUTE, replace(opened, sections=SECTIONS[HR])),
        _Report(DESKS[SI], ENDS - 9 * _MINUTE, ENDS - 9 * _MINUTE, closed),
        _Report(DESKS[HR], ENDS - 8 * _MINUTE, ENDS - 8 * _MINUTE, closed),
    ]
    for number, balance in enumerate(_BALANCES):
        booked = BEGINS + timedelta(seconds=5 * number)
        reports.append(_Report(DESKS[SI], booked, booked, balance, subject=""))
    return reports


def _findings(random: Random, devices: Sequence[_Device]) -> list[_Report]:
    """Return what the units found, with exactly the published totals."""
    days = [FIRST_DAY + timedelta(days=day) for day in range(3)]
    # Croatia's figures are those of "the past two days", as the release says on the 15th; on the 13th its units find
    # nothing. So they are the same over two days and over the whole operation.
    last_two = days[1:]
    si = [device for device in devices if device.side == SI]
    hr = [device for device in devices if device.side == HR and device.coverage == "joint"]
    remaining = [device for device in devices if device.coverage == "remaining"]
    si_scenes = _scenes(random, si, days, _SI_PERSONS)
    hr_scenes = _scenes(random, hr, last_two, _HR_PERSONS)
    # The release counts no migrants in the remaining areas, so these smugglers are arrested without any.
    alone = [_Scene(device, _moment(random, last_two), ()) for device in _shuffled(random, remaining * 2)]
    return [
        *(_apprehended(random, scene) for scene in (*si_scenes, *hr_scenes)),
        *_arrests(random, _SI_CASES, _shuffled(random, si_scenes)),
        *_arrests(random, _HR_JOINT_CASES, _shuffled(random, hr_scenes)),
        *_arrests(random, _HR_REMAINING_CASES, alone),
    ]


def _scenes(
    random: Random, devices: Sequence[_Device], days: Sequence[date], persons: Mapping[Citizenship, int]
) -> list[_Scene]:
    """Spread persons over groups, and the groups over units and hours."""
    parts: list[CitizenshipCount] = []
    for citizenship, total in persons.items():
        left = total
        while left:
            share = random.random()
            count = min(left, 1 + int(share * share * 8))
            parts.append(CitizenshipCount(citizenship, count))
            left -= count
    groups: list[_Counts] = []
    for part in _shuffled(random, parts):
        latest = groups[-1] if groups else ()
        if len(latest) == 1 and latest[0].citizenship != part.citizenship and random.random() < 0.4:
            groups[-1] = (*latest, part)
        else:
            groups.append((part,))
    return [_Scene(_pick(random, devices), _moment(random, days), group) for group in groups]


def _apprehended(random: Random, scene: _Scene) -> _Report:
    data = ApprehensionData(scene.device.section, scene.persons)
    return _Report(scene.device.source, scene.time + _minutes(random, 3, 25), scene.time, data)


def _arrests(random: Random, cases: Sequence[Sequence[_Counts]], scenes: Sequence[_Scene]) -> list[_Report]:
    """Put each case at a scene: its arrests, and custody for most of them within the day."""
    reports: list[_Report] = []
    opened = dict.fromkeys((scene.device.unit for scene in scenes), 0)
    in_order = sorted(scenes[: len(cases)], key=lambda scene: scene.time)
    for smugglers_by_arrest, scene in zip(cases, in_order, strict=True):
        unit, section, source = scene.device.unit, scene.device.section, scene.device.source
        opened[unit] += 1
        case = f"{unit}-{opened[unit]}"
        time = scene.time
        for number, smugglers in enumerate(smugglers_by_arrest):
            # The persons found with them are at the first arrest; the patrol has reported them as apprehended as well.
            smuggled = scene.persons if number == 0 else ()
            data = SmugglerArrestData(section, case, number == 0, smugglers, smuggled)
            reports.append(_Report(source, time + _minutes(random, 26, 40), time, data))
            time += _minutes(random, 15, 45)
        remanded = time + _minutes(random, 4 * 60, 20 * 60)
        if remanded < _LAST_BACK:
            reports.append(_Report(source, remanded, remanded, CustodyData(case, smugglers_by_arrest[0])))
    return reports


def _nil_reports(random: Random, devices: Iterable[_Device], findings: Sequence[_Report]) -> list[_Report]:
    """Let each unit that found nothing in a shift say so."""
    reports: list[_Report] = []
    for device in devices:
        times = [finding.time for finding in findings if finding.source == device.source]
        begins = BEGINS
        while begins < ENDS:
            ends = begins + _SHIFT
            if not any(begins <= time < ends for time in times):
                written = ends - _HAND_OVER - _minutes(random, 0, 10)
                nil = NilReportData(device.section, begins.astimezone(UTC), written.astimezone(UTC))
                reports.append(_Report(device.source, written, written, nil))
            begins = ends
    return reports


def _corrections(
    random: Random, reports: Iterable[_Report], *, revisions: int = 1, by_desk: bool = False
) -> list[_Report]:
    """Make the first count of some apprehensions wrong, and return the amendments; the last has the right one."""
    amendments: list[_Report] = []
    for original in reports:
        right = original.data
        if not isinstance(right, ApprehensionData):
            raise TypeError("only counts of apprehended persons are corrected")
        written = original.written
        source = _desk_of(original.source) if by_desk else original.source
        for revision in range(1, revisions + 1):
            written += _minutes(random, 20, 90)
            data = right if revision == revisions else _miscounted(right, revision + 1)
            amendments.append(_Report(source, written, original.time, data, amends=original, revision=revision))
        original.data = _miscounted(right, 1)
    return amendments


def _withdrawn(random: Random, devices: Sequence[_Device], reports: Iterable[_Report]) -> list[_Report]:
    """Return reports of apprehensions that must not count, and their withdrawals.

    Each is made by a second unit of the section, about a group that the first has reported: the first reports stand.
    """
    pairs: list[_Report] = []
    reasons: tuple[WithdrawalReason, ...] = ("duplicate", "did-not-occur", "duplicate")
    for report, reason in zip(reports, reasons, strict=True):
        at = next(number for number, device in enumerate(devices) if device.source == report.source)
        # The unit next to it; each section has several.
        section = [device for device in devices if device.section == devices[at].section]
        second = section[(section.index(devices[at]) + 1) % len(section)]
        written = report.written + _minutes(random, 1, 10)
        extra = _Report(second.source, written, report.time, report.data)
        written += _minutes(random, 30, 120)
        taken_back = WithdrawalData(reason)
        desk = _desk_of(second.source)
        pairs += [extra, _Report(desk, written, report.time, taken_back, amends=extra, revision=1)]
    return pairs


def _offline_around(random: Random, reports: Iterable[_Report]) -> _Offline:
    """Take the devices of some reports offline shortly before these are written, for hours."""
    offline: _Offline = {}
    for report in reports:
        back = min(report.written + _minutes(random, 2 * 60, 9 * 60), _LAST_BACK)
        offline.setdefault(report.source, (report.written - 5 * _MINUTE, back))
    return offline


def _submit(random: Random, reports: Sequence[_Report], offline: _Offline) -> list[Submission]:
    """Give each report its number and identity, and send it; some twice, because the receipt got lost."""
    numbers: dict[str, int] = {}
    emptied: dict[str, datetime] = {}
    submissions: list[Submission] = []
    for report in reports:
        source = report.source
        numbers[source] = numbers.get(source, 0) + 1
        report.identity = mint_id(random, (report.written - _EPOCH) // timedelta(milliseconds=1))
        event = _KINDS[type(report.data)](
            specversion="1.0",
            id=report.identity,
            source=source,
            reportno=numbers[source],
            side=_side_of(source),
            subject=report.subject,
            time=report.time.astimezone(UTC),
            amends=report.amends.identity if report.amends else UNSET,
            revision=report.revision,
            data=report.data,
        )
        arrives = report.written + timedelta(milliseconds=200 + int(random.random() * 4_000))
        since, back = offline.get(source, (ENDS, ENDS))
        if since <= report.written < back:
            arrives = back + timedelta(milliseconds=500)
        # One after the other, in the order of their numbers.
        if source in emptied:
            arrives = max(arrives, emptied[source] + timedelta(milliseconds=40))
        emptied[source] = arrives
        submissions.append(Submission(arrives.astimezone(UTC), _side_of(source), encode(event)))
    again = [submission for submission in submissions if BEGINS + _HOUR < submission.arrives < _LAST_BACK]
    for submission in _shuffled(random, again)[:_SENT_TWICE]:
        later = submission.arrives + timedelta(seconds=5 + int(random.random() * 90))
        submissions.append(Submission(later, submission.side, submission.event))
    return sorted(submissions, key=lambda submission: submission.arrives)


def _miscounted(data: ApprehensionData, off_by: int) -> ApprehensionData:
    last = data.persons[-1]
    return replace(data, persons=(*data.persons[:-1], CitizenshipCount(last.citizenship, last.count + off_by)))


def _side_of(source: str) -> Side:
    return parse_source(source).side


def _desk_of(source: str) -> str:
    return DESKS[_side_of(source)]


# Drawn with `Random.random` alone: only that is promised to be the same on every Python version.


def _moment(random: Random, days: Sequence[date]) -> datetime:
    """Return a minute on one of the days, more often by night."""
    day, hour = _pick(random, days), _pick(random, _HOURS)
    if day == LAST_DAY and hour >= _TOO_LATE:
        hour -= 20
    return datetime(day.year, day.month, day.day, hour, int(random.random() * 60), tzinfo=_LOCAL)


def _minutes(random: Random, least: int, below: int) -> timedelta:
    """Return a duration in whole seconds."""
    return timedelta(seconds=60 * least + int(random.random() * 60 * (below - least)))


def _pick(random: Random, among: Sequence[_T]) -> _T:
    return among[int(random.random() * len(among))]


def _shuffled(random: Random, items: Iterable[_T]) -> list[_T]:
    return sorted(items, key=lambda _: random.random())
