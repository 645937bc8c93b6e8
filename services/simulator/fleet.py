"""A simulated fleet of both sides, so that everything else can be shown, tested and measured without a real one.

It does what makes field reports hard to count: devices lose the network and come back days later, receipts are lost
and the report is sent again, first counts are wrong. There is no clock in it, and only the randomness of its seed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from heapq import heappop, heappush
from random import Random
from typing import Final, TypeAlias, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from schemas.codec import encode
from schemas.events import (
    Apprehension,
    ApprehensionData,
    CitizenshipCount,
    Custody,
    CustodyData,
    Event,
    NilReport,
    NilReportData,
    OperationOpened,
    OperationOpenedData,
    SectionPlan,
    SmugglerArrest,
    SmugglerArrestData,
    Withdrawal,
    WithdrawalData,
)
from schemas.identity import RANDOM_BITS, uuid7
from schemas.vocabulary import Citizenship, Side, WithdrawalReason

SI: Final = Side("SI")
HR: Final = Side("HR")
DESKS: Final = {SI: "/SI/SI-DESK/hq1", HR: "/HR/HR-DESK/hq1"}
ZONES: Final = {SI: ZoneInfo("Europe/Ljubljana"), HR: ZoneInfo("Europe/Zagreb")}
SECTIONS: Final = {
    SI: (
        SectionPlan("novo-mesto", "Novo mesto Police Administration", "joint"),
        SectionPlan("koper", "Koper Police Administration", "joint"),
        SectionPlan("ljubljana", "Ljubljana Police Administration", "joint"),
    ),
    HR: (
        SectionPlan("joint-sections", "Border sections with Slovenia covered by joint mixed patrols", "joint"),
        SectionPlan("remaining-areas", "Remaining areas", "remaining"),
    ),
}
"""The sections of the joint operation, by side."""

OFFLINE_MIN: Final = timedelta(minutes=30)
OFFLINE_MAX: Final = timedelta(hours=72)
"""How long a device is offline."""


class Submission(Struct, frozen=True, gc=False):
    """One report on its way into the log: when it gets there, whose log it is, and the event in canonical bytes."""

    arrives: datetime
    side: Side
    event: bytes


class FleetPlan(Struct, frozen=True, kw_only=True):
    """What a fleet does. Equal plans give equal submissions, byte for byte; ValueError names what cannot be.

    `reports` is the number of submissions in all: the openings of the operation, amendments and what is sent twice
    included. So it is the number of lines in a file. They are written evenly over `period`; what a device wrote offline
    arrives up to 72 hours later, and the fleet ends when every device is back.

    `offline` is the share of the devices' reports that are written offline. `duplicates` is the share that is sent
    again, and `amendments` the share that amends an earlier report, as far as there is one to amend.
    """

    seed: int
    units: int = 40
    reports: int = 1_000
    starts: datetime = datetime(2024, 3, 13, tzinfo=timezone(timedelta(hours=1)))
    period: timedelta = timedelta(days=3)
    offline: float = 0.1
    duplicates: float = 0.02
    amendments: float = 0.02

    def __post_init__(self) -> None:
        if self.units < 1:
            raise ValueError("`units` is at least 1")
        if self.reports < 0:
            raise ValueError("`reports` is at least 0")
        if self.starts.tzinfo is None:
            raise ValueError("`starts` needs an offset")
        if self.period < timedelta(seconds=1):
            raise ValueError("`period` is at least one second")
        for name in ("offline", "duplicates", "amendments"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` is a share from 0 to 1")


def fleet(plan: FleetPlan) -> Iterator[Submission]:
    """Yield what the fleet of a plan submits, in the order of arrival.

    In memory is only what has not arrived yet: what offline devices hold, and the last seconds of the others.
    """
    return _Fleet(plan).submissions()


def mint_id(random: Random, written_ms: int) -> UUID:
    """Mint the UUIDv7 that a device gives a report, from its time in milliseconds since 1970 and seeded randomness."""
    return uuid7(written_ms, random.getrandbits(RANDOM_BITS))


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_OFFLINE_MIN_MS: Final = OFFLINE_MIN // _MS
_OFFLINE_SPAN_MS: Final = (OFFLINE_MAX - OFFLINE_MIN) // _MS

_Counts: TypeAlias = tuple[CitizenshipCount, ...]
_Post: TypeAlias = tuple[Side, str, str]
_Kind = TypeVar("_Kind", bound=Event)

# Where units are stationed, in turn, and what they are called there: mixed patrols, else border police.
_POSTS: Final[tuple[_Post, ...]] = (
    (SI, "novo-mesto", "MP"),
    (HR, "joint-sections", "MP"),
    (SI, "koper", "MP"),
    (HR, "remaining-areas", "BP"),
    (SI, "ljubljana", "MP"),
    (HR, "joint-sections", "MP"),
)
_TWO_DEVICES_EVERY: Final = 3

# Shares of what is reported first, as opposed to amended; the rest are apprehensions.
_NIL_REPORTS: Final = 0.12
_ARRESTS: Final = 0.08
_CUSTODY: Final = 0.05
_OUTSIDE_OPERATION: Final = 0.05
_SAME_CASE: Final = 0.1  # of arrests: one more in the case before

_SECOND_REVISIONS: Final = 0.12
_WITHDRAWALS: Final = 0.22  # of amended apprehensions, so that it is about one in five of all amendments
_BY_DESK: Final = 0.3
_REASONS: Final[tuple[WithdrawalReason, ...]] = ("duplicate", "did-not-occur", "out-of-scope", "data-entry-error")

# How many reports and cases are remembered to be amended or followed up: enough to vary, too few to fill the memory.
_REMEMBERED: Final = 512

_GROUP_MAX: Final = 9
_PERSONS: Final[tuple[tuple[Citizenship, int], ...]] = (
    ("SYR", 28), ("AFG", 20), ("MAR", 12), ("BGD", 8), ("TUR", 7), ("PAK", 6), ("IND", 5), ("IRQ", 3), ("CHN", 2),
    ("EGY", 2), ("DZA", 2), ("NPL", 2), ("RUS", 1), ("XXX", 1), ("XXA", 1),
)  # fmt: skip
_SMUGGLERS: Final[tuple[tuple[Citizenship, int], ...]] = (
    ("UKR", 18), ("ROU", 12), ("SRB", 12), ("MDA", 9), ("SVN", 8), ("HRV", 8), ("BIH", 7), ("TUR", 6), ("GEO", 5),
    ("POL", 3), ("SYR", 3), ("BGR", 3), ("HUN", 2), ("ITA", 2), ("DEU", 1), ("XXX", 1),
)  # fmt: skip


def _table(weights: tuple[tuple[Citizenship, int], ...]) -> tuple[_Counts, ...]:
    """Return a row for each hundredth of the weights: the counts of its citizenship from 1 to the largest group."""
    return tuple(
        tuple(CitizenshipCount(citizenship, count) for count in range(1, _GROUP_MAX + 1))
        for citizenship, weight in weights
        for _ in range(weight)
    )


_PERSONS_TABLE: Final = _table(_PERSONS)
_SMUGGLERS_TABLE: Final = _table(_SMUGGLERS)


class _Device(Struct, gc=False):
    """A device: where it is, the number of its last report, until when it is offline, and when its outbox is empty."""

    source: str
    side: Side
    unit: str
    section: str
    number: int = 0
    back_ms: int = 0
    empty_ms: int = 0


class _Case(Struct, gc=False):
    """A case that may still see another arrest, or custody."""

    device: _Device
    name: str
    subject: str
    smugglers: _Counts


class _Fleet:
    """A fleet at work. Only `Random.random` and `getrandbits` draw: they are the same on every Python version."""

    def __init__(self, plan: FleetPlan) -> None:
        self.plan = plan
        # Seeded with text: a number would be taken without its sign.
        self.seeded = Random(f"fleet {plan.seed}")  # to be foreseen is the point
        self.random = self.seeded.random
        self.starts_ms = (plan.starts - _EPOCH) // _MS
        self.operation = f"SI-HR-{plan.starts.astimezone(ZONES[SI]):%Y-%m}"
        self.desks = {side: _Device(source, side, source.split("/")[2], "") for side, source in DESKS.items()}
        self.devices = self._devices()
        self.waiting: list[tuple[int, int, Submission]] = []
        self.sent = 0
        self.written = 0
        self.written_offline = 0
        self.amendable: list[tuple[_Device, Apprehension | SmugglerArrest]] = []
        self.amended: deque[tuple[_Device, Apprehension | SmugglerArrest]] = deque(maxlen=_REMEMBERED)
        self.cases: deque[_Case] = deque(maxlen=_REMEMBERED)
        self.cases_by_unit: dict[str, int] = {}

    def submissions(self) -> Iterator[Submission]:
        """Let the fleet write report after report, and yield what arrives meanwhile."""
        reports = self.plan.reports
        period_ms = self.plan.period // _MS
        waiting = self.waiting
        self._open()
        while self.sent < reports:
            now_ms = self.starts_ms + int(period_ms * (self.sent + self.random()) / reports)
            # Whatever is written from now on arrives later than now.
            while waiting and waiting[0][0] <= now_ms:
                yield heappop(waiting)[2]
            if not (self.random() < self.plan.amendments and self._amend(now_ms)):
                self._report(now_ms)
        while waiting:
            yield heappop(waiting)[2]

    def _devices(self) -> list[_Device]:
        devices: list[_Device] = []
        units = dict.fromkeys(DESKS, 0)
        for number in range(self.plan.units):
            side, section, kind = _POSTS[number % len(_POSTS)]
            units[side] += 1
            unit = f"{side}-{kind}-{units[side]:02}"
            first = self.seeded.getrandbits(24)
            devices.append(_Device(f"/{side}/{unit}/{first:06x}", side, unit, section))
            if number % _TWO_DEVICES_EVERY == 0:
                second = first ^ (self.seeded.getrandbits(24) or 1)
                devices.append(_Device(f"/{side}/{unit}/{second:06x}", side, unit, section))
        return devices

    def _open(self) -> None:
        """Let both desks open the operation, before any unit reports."""
        ends = self.plan.starts + self.plan.period - _MS
        for side, desk in self.desks.items():
            if self.sent == self.plan.reports:
                return
            desk.number += 1
            event = OperationOpened(
                specversion="1.0",
                id=mint_id(self.seeded, self.starts_ms),
                source=desk.source,
                reportno=desk.number,
                side=side,
                subject=self.operation,
                time=self.plan.starts.astimezone(UTC),
                data=OperationOpenedData(
                    "Joint control of the Slovenian-Croatian border",
                    self.plan.starts.astimezone(ZONES[side]).date(),
                    ends.astimezone(ZONES[side]).date(),
                    SECTIONS[side],
                ),
            )
            self._send(event, side, self.starts_ms)

    def _report(self, now_ms: int) -> None:
        """Let one device report something new."""
        random = self.random
        kind = random()
        if kind < _CUSTODY and self.cases:
            self._custody(self.cases.popleft(), now_ms)
            return
        device = self.devices[int(random() * len(self.devices))]
        subject = "" if random() < _OUTSIDE_OPERATION else self.operation
        if kind < _CUSTODY + _ARRESTS:
            self._arrest(device, subject, now_ms)
        elif kind < _CUSTODY + _ARRESTS + _NIL_REPORTS:
            until_s = now_ms // 1000
            since_s = max(self.starts_ms // 1000, until_s - 3600 * (4 + int(random() * 8)))
            since, until = _EPOCH + timedelta(seconds=since_s), _EPOCH + timedelta(seconds=until_s)
            self._publish(NilReport, NilReportData(device.section, since, until), device, subject, now_ms, time=until)
        else:
            apprehension = ApprehensionData(device.section, self._group())
            self._remember(device, self._publish(Apprehension, apprehension, device, subject, now_ms))

    def _arrest(self, device: _Device, subject: str, now_ms: int) -> None:
        random = self.random
        row = _SMUGGLERS_TABLE[int(random() * 100)]
        smugglers: _Counts = (row[0],) if random() < 0.8 else (row[1],)
        smuggled = () if random() < 0.1 else self._group()
        opens_case = not self.cases or random() > _SAME_CASE
        if opens_case:
            number = self.cases_by_unit.get(device.unit, 0) + 1
            self.cases_by_unit[device.unit] = number
            case = _Case(device, f"{device.unit}-{number}", subject, smugglers)
            self.cases.append(case)
        else:
            case = self.cases[-1]
        arrest = SmugglerArrestData(case.device.section, case.name, opens_case, smugglers, smuggled)
        event = self._publish(SmugglerArrest, arrest, case.device, case.subject, now_ms)
        if smuggled:
            self._remember(case.device, event)

    def _custody(self, case: _Case, now_ms: int) -> None:
        # All whose arrest opened the case, or one of them: never more than were arrested.
        first = case.smugglers[0]
        remanded = first if self.random() < 0.8 else CitizenshipCount(first.citizenship, 1)
        self._publish(Custody, CustodyData(case.name, (remanded,)), case.device, case.subject, now_ms)

    def _group(self) -> _Counts:
        """One citizenship mostly, sometimes two or three; small groups are more frequent than large ones."""
        random, table = self.random, _PERSONS_TABLE
        size = random()
        first = table[int(random() * 100)][int(size * size * _GROUP_MAX)]
        more = random()
        if more < 0.6:
            return (first,)
        second = table[int(random() * 100)][int(more * 3)]
        if second.citizenship == first.citizenship:
            return (first,)
        if more < 0.9:
            return (first, second)
        third = table[int(random() * 100)][0]
        if third.citizenship in (first.citizenship, second.citizenship):
            return (first, second)
        return (first, second, third)

    def _amend(self, now_ms: int) -> bool:
        """Let a device or its desk amend an earlier report; return False if none is left to amend."""
        random = self.random
        if self.amended and random() < _SECOND_REVISIONS:
            device, before = self.amended.pop()
        elif self.amendable:
            at = int(random() * len(self.amendable))
            device, before = self.amendable[at]
            self.amendable[at] = self.amendable[-1]
            self.amendable.pop()
        else:
            return False
        # A desk is never offline: its amendment overtakes a report that still waits on its device.
        sender = self.desks[device.side] if random() < _BY_DESK else device
        publish = partial(
            self._publish,
            device=sender,
            subject=before.subject,
            now_ms=now_ms,
            time=before.time,
            amends=before.amends or before.id,
            revision=before.revision + 1,
        )
        event: Apprehension | SmugglerArrest
        if isinstance(before, SmugglerArrest):
            recounted = _recounted(before.data.smuggled_persons)
            event = publish(SmugglerArrest, replace(before.data, smuggled_persons=recounted))
        elif random() < _WITHDRAWALS:
            publish(Withdrawal, WithdrawalData(_REASONS[int(random() * len(_REASONS))]))
            return True
        else:
            event = publish(Apprehension, replace(before.data, persons=_recounted(before.data.persons)))
        if event.revision == 1:
            self.amended.append((device, event))
        return True

    def _publish(
        self,
        kind: Callable[..., _Kind],
        data: Struct,
        device: _Device,
        subject: str,
        now_ms: int,
        *,
        time: datetime | None = None,
        amends: UUID | UnsetType = UNSET,
        revision: int = 0,
    ) -> _Kind:
        """Write a report on a device and send it, at once or when the device is back."""
        if time is None:
            # A report is written up to a quarter of an hour after the fact, of whole seconds.
            happened_ms = max(self.starts_ms, now_ms - int(self.random() * 900_000))
            time = _EPOCH + timedelta(seconds=happened_ms // 1000)
        device.number += 1
        event = kind(
            specversion="1.0",
            id=mint_id(self.seeded, now_ms),
            source=device.source,
            reportno=device.number,
            side=device.side,
            subject=subject,
            time=time,
            amends=amends,
            revision=revision,
            data=data,
        )
        # From the network's round trip to a patrol that finishes what it is doing.
        arrives_ms = now_ms + 200 + int(self.random() * 4_000)
        if device.section:
            arrives_ms = max(arrives_ms, self._back(device, now_ms))
        # One after the other, in the order of their numbers.
        device.empty_ms = arrives_ms = max(arrives_ms, device.empty_ms + 1)
        self._send(event, device.side, arrives_ms)
        return event

    def _back(self, device: _Device, now_ms: int) -> int:
        """Return when the device is back online, or a time in the past.

        A device goes offline whenever too few reports have been written offline so far. So the share is kept whatever
        the number of devices and the rate, which it would not be if each went by chance.
        """
        if now_ms >= device.back_ms and self.written_offline < self.plan.offline * (self.written + 1):
            share = self.random()
            # To the fourth power, by multiplying: a median of five hours, and some of three days.
            device.back_ms = now_ms + _OFFLINE_MIN_MS + int(share * share * share * share * _OFFLINE_SPAN_MS)
        self.written += 1
        if now_ms < device.back_ms:
            self.written_offline += 1
        return device.back_ms

    def _send(self, event: Event, side: Side, arrives_ms: int) -> None:
        """Put a submission on its way, and once more where the receipt gets lost."""
        raw = encode(event)
        self.sent += 1
        heappush(self.waiting, (arrives_ms, self.sent, Submission(_EPOCH + arrives_ms * _MS, side, raw)))
        if self.random() < self.plan.duplicates and self.sent < self.plan.reports:
            self.sent += 1
            again_ms = arrives_ms + 2_000 + int(self.random() * 90_000)
            heappush(self.waiting, (again_ms, self.sent, Submission(_EPOCH + again_ms * _MS, side, raw)))

    def _remember(self, device: _Device, event: Apprehension | SmugglerArrest) -> None:
        """Keep a report that may be amended, in place of any other when there are many."""
        if len(self.amendable) < _REMEMBERED:
            self.amendable.append((device, event))
        else:
            self.amendable[int(self.random() * _REMEMBERED)] = (device, event)


def _recounted(counts: _Counts) -> _Counts:
    """Return the same persons, after counting the first citizenship again: one fewer, or one more."""
    first = counts[0]
    count = first.count - 1 if first.count > 1 else first.count + 1
    return (CitizenshipCount(first.citizenship, count), *counts[1:])
