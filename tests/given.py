"""What tests are given: events by their content alone, whole logs with every outcome, and a fold to put them in.

The builders return canonical bytes. An id may be a small number: 7 stands for the same UUID everywhere. Where a
report's own id or number does not matter, leave it out: the id is 1, or one derived from `amends` and `revision`; the
number is that of the id.

Importing this module loads the Hypothesis profile of this project.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from random import Random
from typing import Any, Final, TypeAlias, TypedDict, Unpack
from uuid import UUID
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from schemas import codec
from schemas.events import TYPE_PREFIX
from schemas.tallies import Parked
from schemas.vocabulary import Position, Side
from services.simulator.fleet import FleetPlan, fleet
from services.tally.cells import cell_text
from services.tally.fold import Changes, Key, State, Version, arrive, fold

settings.register_profile(
    "fieldtally",
    print_blob=True,
    derandomize=False,
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],  # a busy machine is no fault of the test
)
settings.load_profile("fieldtally")

Ident: TypeAlias = int | str
Document: TypeAlias = dict[str, Any]
Fields: TypeAlias = dict[bytes, bytes]

ZONES: Final = {"SI": ZoneInfo("Europe/Ljubljana"), "HR": ZoneInfo("Europe/Zagreb")}
OPERATION: Final = "SI-HR-2024-03"
KINDS: Final = (
    "operation-opened", "operation-closed", "apprehension", "smuggler-arrest", "custody", "opening-balance",
    "nil-report", "withdrawal",
)  # fmt: skip


class Head(TypedDict, total=False):
    """The attributes that any event may be given; those left out get a default."""

    id: Ident
    side: str
    unit: str
    device: str
    source: str
    reportno: int
    subject: str
    time: str
    amends: Ident
    revision: int


# --- one event ---


def uid(number: Ident) -> str:
    """Return the id that a small number stands for; a text stands for itself."""
    return str(UUID(int=7 << 76 | 2 << 62 | number)) if isinstance(number, int) else number


def key(number: Ident) -> Key:
    """Return the 16 bytes of the report with this id."""
    return UUID(uid(number)).bytes


def document(kind: str, data: Document, **head: Unpack[Head]) -> Document:
    """Return an event as JSON would hold it, with nothing checked."""
    side = head.get("side", "SI")
    amends = head.get("amends")
    revision = head.get("revision", None if amends is None else 1)
    ident = head.get("id", 1 if not isinstance(amends, int) else amends * 1_000 + (revision or 0))
    made: Document = {
        "specversion": "1.0",
        "type": f"{TYPE_PREFIX}{kind}.v1",
        "id": uid(ident),
        "source": head.get("source", f"/{side}/{head.get('unit', f'{side}-MP-07')}/{head.get('device', '9f3c2a')}"),
        "reportno": head.get("reportno", max(1, ident) if isinstance(ident, int) else 1),
        "side": side,
        "time": head.get("time", "2024-03-14T03:12:09Z"),
        "data": data,
    }
    if "subject" in head:
        made["subject"] = head["subject"]
    if amends is not None:
        made["amends"] = uid(amends)
    if revision is not None:
        made["revision"] = revision
    return made


def as_json(made: object) -> bytes:
    """Write a document, or any other JSON, as some other program would: not canonically."""
    return json.dumps(made).encode()


def canonical(made: Document) -> bytes:
    """Write a document as the log holds it; raises if it is no event."""
    return codec.encode(codec.decode(as_json(made)))


def counts(persons: Mapping[str, int]) -> list[Document]:
    """Return a list of counts by citizenship."""
    return [{"citizenship": citizenship, "count": count} for citizenship, count in persons.items()]


def operation_opened(
    *,
    starts: str = "2024-03-13",
    ends: str = "2024-03-15",
    sections: Mapping[str, str] | None = None,
    name: str = "Joint control",
    **head: Unpack[Head],
) -> bytes:
    """An operation with sections by their coverage."""
    plans = [
        {"section": section, "area": section.title(), "coverage": coverage}
        for section, coverage in (sections or {"koper": "joint"}).items()
    ]
    data = {"name": name, "starts": starts, "ends": ends, "sections": plans}
    head.setdefault("subject", OPERATION)
    return canonical(document("operation-opened", data, **head))


def operation_closed(*, closed: str = "2024-03-15", **head: Unpack[Head]) -> bytes:
    """The end of an operation."""
    head.setdefault("subject", OPERATION)
    return canonical(document("operation-closed", {"closed": closed}, **head))


def apprehension(*, section: str = "koper", persons: Mapping[str, int] | None = None, **head: Unpack[Head]) -> bytes:
    """Persons apprehended, by citizenship."""
    return canonical(document("apprehension", {"section": section, "persons": counts(persons or {"SYR": 1})}, **head))


def smuggler_arrest(
    *,
    section: str = "koper",
    case: str = "K-1",
    opens_case: bool = True,
    smugglers: Mapping[str, int] | None = None,
    smuggled_persons: Mapping[str, int] | None = None,
    **head: Unpack[Head],
) -> bytes:
    """Smugglers arrested, and the persons found with them."""
    data = {
        "section": section,
        "case": case,
        "opens_case": opens_case,
        "smugglers": counts(smugglers or {"UKR": 1}),
        "smuggled_persons": counts(smuggled_persons or {}),
    }
    return canonical(document("smuggler-arrest", data, **head))


def custody(*, case: str = "K-1", remanded: Mapping[str, int] | None = None, **head: Unpack[Head]) -> bytes:
    """Persons remanded in custody."""
    return canonical(document("custody", {"case": case, "remanded": counts(remanded or {"UKR": 1})}, **head))


def opening_balance(
    *,
    totals: Sequence[Document],
    period_from: str = "2023-01-01",
    period_to: str = "2023-12-31",
    **head: Unpack[Head],
) -> bytes:
    """What was counted before."""
    data = {"period_from": period_from, "period_to": period_to, "totals": list(totals)}
    return canonical(document("opening-balance", data, **head))


def nil_report(
    *,
    section: str = "koper",
    period_from: str = "2024-03-14T00:00:00Z",
    period_to: str = "2024-03-14T03:00:00Z",
    **head: Unpack[Head],
) -> bytes:
    """Nothing found."""
    data = {"section": section, "period_from": period_from, "period_to": period_to}
    return canonical(document("nil-report", data, **head))


def withdrawal(*, reason: str = "did-not-occur", **head: Unpack[Head]) -> bytes:
    """A report taken back; `amends` says which."""
    return canonical(document("withdrawal", {"reason": reason}, **head))


# --- the fold ---


def entry(raw: bytes, by: str | None = None) -> Fields:
    """Return an entry of the log that holds these bytes."""
    return {b"event": raw} if by is None else {b"event": raw, b"by": by.encode()}


class Folded:
    """A partition in memory: its state, the version in force of each key, what was parked, and the last changes."""

    def __init__(self, *events: bytes, side: str = "SI") -> None:
        self.state = State(Side(side), ZONES[side])
        self.index: dict[Key, Version] = {}
        self.parked: dict[Position, Parked] = {}
        self.take(*events)

    def take(self, *events: bytes) -> Changes:
        """Fold events as one batch."""
        return self.take_entries([entry(event) for event in events])

    def take_entries(self, entries: Sequence[Mapping[bytes, bytes]]) -> Changes:
        """Fold entries as one batch; positions count up from 1-0."""
        at = self.state.checkpoint.entries
        arrivals = [arrive(Position(f"{at + number}-0"), fields) for number, fields in enumerate(entries, 1)]
        changes = fold(self.state, arrivals, self.index)
        self.state.take(changes)
        self.index |= changes.index
        self.parked |= changes.parked
        return changes

    @property
    def tallies(self) -> dict[str, int]:
        """The tallies, by the text of the cell."""
        return {cell_text(cell): count for cell, count in self.state.tallies.items()}

    @property
    def outcomes(self) -> dict[str, int]:
        """The counters that are not zero."""
        counters = self.state.checkpoint.counters
        return {name: count for name in counters.__struct_fields__ if (count := getattr(counters, name))}

    @property
    def plans(self) -> dict[str, tuple[Any, Any]]:
        """Each operation's plan in force and its last day, as far as there are any."""
        return {
            name: (operation.plan, operation.closed)
            for name, operation in self.state.operations.items()
            if operation.plan or operation.closed
        }

    @property
    def numbers(self) -> dict[str, tuple[int, list[tuple[int, int]]]]:
        """Each device's highest number, and the ranges missing below it."""
        return {device: (numbers.highest, numbers.missing) for device, numbers in self.state.devices.items()}


# --- Hypothesis strategies: few keys, numbers and devices, so that they meet ---

SECTIONS: Final = ("koper", "novo-mesto", "ljubljana")
CITIZENSHIPS: Final = ("SYR", "AFG", "SVN", "HRV", "XXX", "XXA", "RKS")
MEASURES: Final = (
    "apprehensions", "persons", "smuggling_cases", "smugglers", "smuggled_persons", "remanded", "nil_reports",
)  # fmt: skip

_OFFSETS: Final = (UTC, timezone(timedelta(hours=1)), timezone(timedelta(hours=2)), timezone(timedelta(hours=-11)))
# Around local midnights: of usual days, of both changes of the clocks, of a leap day and of the year's end.
_MIDNIGHTS: Final = tuple(
    datetime(*day, tzinfo=UTC)
    for day in ((2024, 3, 14), (2024, 3, 31), (2024, 4, 1), (2024, 10, 27), (2024, 10, 28), (2024, 2, 29), (2025, 1, 1))
)


def moments() -> st.SearchStrategy[str]:
    """Times as text, many of them near local midnight."""
    edges = st.builds(
        lambda midnight, seconds: midnight + timedelta(seconds=seconds),
        st.sampled_from(_MIDNIGHTS),
        st.sampled_from((-7201, -7200, -7199, -3601, -3600, -3599, -1, 0, 1)),
    )
    anywhen = st.datetimes(datetime(2, 1, 2), datetime(9998, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001  # bounds
    return st.builds(
        lambda time, offset: time.astimezone(offset).isoformat().replace("+00:00", "Z"),
        st.one_of(edges, edges, anywhen),
        st.sampled_from(_OFFSETS),
    )


def _dates() -> st.SearchStrategy[str]:
    return st.sampled_from(("2023-12-31", "2024-02-29", "2024-03-13", "2024-03-15"))


def _counts(least: int = 1) -> st.SearchStrategy[list[Document]]:
    return st.dictionaries(
        st.sampled_from(CITIZENSHIPS), st.sampled_from((1, 2, 3, 10_000)), min_size=least, max_size=3
    ).map(counts)


@st.composite
def _data(draw: st.DrawFn, kind: str) -> Document:
    section = draw(st.sampled_from(SECTIONS))
    match kind:
        case "operation-opened":
            starts, ends = sorted((draw(_dates()), draw(_dates())))
            chosen = draw(st.lists(st.sampled_from(SECTIONS), min_size=1, unique=True))
            coverage = draw(st.sampled_from(("joint", "remaining")))
            plans = [{"section": name, "area": name, "coverage": coverage} for name in chosen]
            return {"name": "Joint control", "starts": starts, "ends": ends, "sections": plans}
        case "operation-closed":
            return {"closed": draw(_dates())}
        case "apprehension":
            return {"section": section, "persons": draw(_counts())}
        case "smuggler-arrest":
            return {
                "section": section,
                "case": "K-1",
                "opens_case": draw(st.booleans()),
                "smugglers": draw(_counts()),
                "smuggled_persons": draw(_counts(0)),
            }
        case "custody":
            return {"case": "K-1", "remanded": draw(_counts())}
        case "opening-balance":
            first, last = sorted((draw(_dates()), draw(_dates())))
            cells = st.tuples(st.sampled_from(MEASURES), st.sampled_from(("", *SECTIONS)), st.sampled_from(("", "SVN")))
            figures = draw(st.dictionaries(cells, st.sampled_from((1, 10**9)), min_size=1, max_size=3))
            totals = [
                {"measure": measure, "count": count}
                | ({"section": where} if where else {})
                | ({"citizenship": citizenship} if citizenship else {})
                for (measure, where, citizenship), count in figures.items()
            ]
            return {"period_from": first, "period_to": last, "totals": totals}
        case "nil-report":
            first, last = sorted((draw(moments()), draw(moments())), key=datetime.fromisoformat)
            return {"section": section, "period_from": first, "period_to": last}
        case _:
            return {"reason": draw(st.sampled_from(("duplicate", "did-not-occur", "out-of-scope", "data-entry-error")))}


@st.composite
def documents(draw: st.DrawFn, side: str) -> Document:
    """Events of every type as documents, of one of a few reports and revisions; as various as they can be."""
    ident = draw(st.integers(1, 5))
    revision = draw(st.sampled_from((0, 0, 1, 2)))
    kind = draw(st.sampled_from(KINDS if revision else KINDS[:-1]))
    head: Head = {
        "id": ident,
        "side": side,
        "device": draw(st.sampled_from(DEVICES)),
        "reportno": draw(st.integers(1, 12)),
        "time": draw(moments()),
    }
    if kind.startswith("operation") or draw(st.booleans()):
        head["subject"] = draw(st.sampled_from((OPERATION, "SI-2024")))
    if revision:
        head |= {"id": ident * 100 + revision, "amends": ident, "revision": revision}
    return document(kind, draw(_data(kind)), **head)


DEVICES: Final = ("9f3c2a", "0a11f0")

_EVENING, _NIGHT, _SUMMER = "2024-03-14T22:59:59Z", "2024-03-15T00:00:00+01:00", "2024-10-27T01:30:00.5Z"
_PLANS: Final = (
    {"name": "n", "starts": "2024-03-13", "ends": "2024-03-15", "sections": [_section]}
    for _section in (
        {"section": "koper", "area": "Koper", "coverage": "joint"},
        {"section": "koper", "area": "Koper", "coverage": "remaining"},
    )
)
_TOTAL: Final = {"measure": "persons", "count": 5, "section": "koper", "citizenship": "SYR"}
_CONTENTS: Final[tuple[tuple[str, Document, str, str], ...]] = (
    *(
        ("apprehension", {"section": section, "persons": counts(persons)}, time, subject)
        for section in SECTIONS[:2]
        for persons in ({"SYR": 1}, {"SYR": 2, "AFG": 1})
        for time in (_EVENING, _NIGHT)
        for subject in ("", OPERATION)
    ),
    *(
        (
            "smuggler-arrest",
            {"section": "koper", "case": "K-1", "opens_case": opens, "smugglers": counts({"UKR": 1})}
            | {"smuggled_persons": counts(persons)},
            _NIGHT,
            OPERATION,
        )
        for opens in (True, False)
        for persons in ({"SYR": 2}, {})
    ),
    ("custody", {"case": "K-1", "remanded": counts({"UKR": 1})}, _NIGHT, ""),
    ("custody", {"case": "K-1", "remanded": counts({"UKR": 1})}, _NIGHT, OPERATION),
    ("nil-report", {"section": "koper", "period_from": _EVENING, "period_to": _NIGHT}, _SUMMER, ""),
    ("opening-balance", {"period_from": "2024-03-15", "period_to": "2024-03-15", "totals": [_TOTAL]}, _NIGHT, ""),
    *(("operation-opened", plan, time, OPERATION) for plan in _PLANS for time in (_EVENING, _SUMMER)),
    *(("operation-closed", {"closed": day}, _NIGHT, OPERATION) for day in ("2024-03-15", "2024-03-16")),
    *(("withdrawal", {"reason": reason}, _NIGHT, "") for reason in ("duplicate", "out-of-scope") * 2),
)  # fmt: skip


@lru_cache(maxsize=100_000)
def _event(side: str, ident: int, revision: int, content: int, sender: int) -> bytes:
    """One of a few events, as various as the fold can tell apart: kept, since they come again and again."""
    kind, data, time, subject = _CONTENTS[content]
    head: Head = {
        "id": ident,
        "side": side,
        "device": DEVICES[sender % 2],
        "reportno": 1 + sender // 2,
        "time": time,
    }
    if subject:
        head["subject"] = subject
    if kind == "withdrawal":
        revision = revision or 1
    if revision:
        head |= {"id": ident * 1_000 + revision * 100 + sender, "amends": ident, "revision": revision}
    return canonical(document(kind, data, **head))


_WRONG: Final[tuple[object, ...]] = (None, True, 0, "", [])
_Contents: Final = st.integers(0, len(_CONTENTS) - 1)
_Senders: Final = st.integers(0, 23)


def events(side: str) -> st.SearchStrategy[bytes]:
    """Events in canonical bytes: every type, few reports, revisions, cells and numbers, so that they meet."""
    return st.builds(_event, st.just(side), st.integers(1, 4), st.sampled_from((0, 0, 1, 2, 3)), _Contents, _Senders)


@st.composite
def histories(draw: st.DrawFn, side: str, ident: int = 1) -> list[bytes]:
    """Amended histories: one report in several revisions, in their order, the original perhaps missing."""
    revisions = draw(st.sets(st.integers(0, 4), min_size=1, max_size=4))
    made: dict[int, bytes] = {}
    for revision in sorted(revisions):
        event = _event(side, ident, revision, draw(_Contents), draw(_Senders))
        # What withdraws is an amendment, whatever was asked for.
        made.setdefault(revision or json.loads(event).get("revision", 0), event)
    return [made[revision] for revision in sorted(made)]


@st.composite
def conflict_free(draw: st.DrawFn, side: str) -> list[bytes]:
    """Several histories one after the other: each report has each revision at most once."""
    return [event for ident in range(1, draw(st.integers(1, 4)) + 1) for event in draw(histories(side, ident))]


@lru_cache(maxsize=4)
def _junk(side: str) -> tuple[Fields, ...]:
    """Entries that are parked, one of each kind, and two that a direct write may hold and that count."""
    made = json.loads(apprehension(side=side, id=1))
    other_side = "HR" if side == "SI" else "SI"
    return (
        *({b"event": raw} for raw in (b"", b"{", b"null", b"{}", b"\xff", b"[" * 5_000)),
        *({b"event": as_json({name: made[name] for name in made if name != left_out})} for left_out in made),
        *({b"event": as_json(made | {name: wrong})} for name in made for wrong in _WRONG),
        {b"event": as_json(made | {"type": f"{TYPE_PREFIX}apprehension.v2"})},
        {b"event": as_json(made | {"officer": "x"})},
        {b"event": apprehension(side=other_side)},
        {b"by": b"SI-MP-07"},
        {b"events": as_json(made)},
        {b"event": as_json(made), b"priority": b"1"},
        {b"event": as_json(made), b"by": b"SI-MP-07"},
        {b"event": json.dumps(made, indent=1).encode()},
    )


def logs(side: str, max_size: int = 16) -> st.SearchStrategy[list[Fields]]:
    """Whole logs with every outcome: few reports in few revisions, repetitions of them, and junk between them."""
    event = events(side).map(entry)
    junk = st.binary(max_size=20).map(entry) | st.sampled_from(_junk(side))
    return st.lists(st.one_of(event, event, event, event, event, junk), max_size=max_size).flatmap(
        lambda pool: (
            st.lists(st.sampled_from(pool), max_size=len(pool)).map(lambda again: pool + again)
            if pool
            else st.just(pool)
        )
    )


# --- a long log, by its seed ---


def seeded_log(seed: int, reports: int) -> dict[str, list[Fields]]:
    """Return the log of each side: a simulated fleet's, and between its reports every other outcome there is.

    Equal arguments give equal logs, byte for byte. Each outcome occurs on each side once `reports` is a few hundred.
    Every entry has at least one field, so that a server takes it.
    """
    random = Random(f"seeded log {seed}")
    log: dict[str, list[Fields]] = {"SI": [], "HR": []}
    for submission in fleet(FleetPlan(seed=seed, reports=reports, amendments=0.1, duplicates=0.05)):
        log[submission.side].append(_written(json.loads(submission.event)))
    return {side: _untidied(random, side, entries) for side, entries in log.items()}


def _written(made: Document) -> Fields:
    """Return an entry as the gateway writes it, or as some other program does where it is no event."""
    try:
        return entry(canonical(made), by=made["source"])
    except codec.EventError:
        return entry(as_json(made))


def _untidied(random: Random, side: str, entries: list[Fields]) -> list[Fields]:
    """Lose one entry of fifty, and put every kind of trouble between the others."""
    made = [fields for fields in entries if random.random() >= 0.02]
    read = [json.loads(fields[b"event"]) for fields in made]
    originals = [event for event in read if "amends" not in event and "persons" in event["data"]]
    troubles = _Troubles(random, side, originals or [json.loads(apprehension(side=side))])
    for _ in range(1 + len(entries) // 100):
        for batch in (*([_written(event) for event in events] for events in troubles.events()), *troubles.junk()):
            places = sorted(random.randrange(len(made) + 1) for _ in batch)
            # From the end, so that the places before it stay what they were.
            for place, fields in reversed(list(zip(places, batch, strict=True))):
                made.insert(place, fields)
    return made


class _Troubles:
    """Makes what is not simply counted, from what the fleet reported."""

    def __init__(self, random: Random, side: str, originals: list[Document]) -> None:
        self.random = random
        self.side = side
        self.other_side = "HR" if side == "SI" else "SI"
        self.originals = originals
        self.number = 0

    def events(self) -> list[list[Document]]:
        """Return one kind after the other: events in the order in which they are to stand in the log."""
        random = self.random
        original = random.choice(self.originals)
        alone, clash, early, twice, taken_back = (self._fresh() for _ in range(5))
        opened = self._of_operation("operation-opened", _plan(random))
        return [
            [original | {"time": "2024-03-14T00:00:00.5+01:00"}],
            [clash, clash | {"time": "2024-03-14T00:00:00.5+01:00"}],  # the same revision with other content
            [self._amended(original, 7)],
            [self._amended(early, 1), early],  # the amendment before its original
            [self._amended(alone, 2)],  # the original never comes
            [twice, self._amended(twice, 3), self._amended(twice, 2)],  # the lower revision last
            [taken_back, self._amended(taken_back, 4, "withdrawal", {"reason": "duplicate"})],
            [self._amended(original, 8, "withdrawal", {"reason": "out-of-scope"}), self._amended(original, 9)],
            [clash, self._fresh() | {"reportno": clash["reportno"], "source": clash["source"]}],  # its number again
            [self._fresh() | {"reportno": random.randrange(100, 1_000)}],  # many numbers missing
            [opened, self._amended(opened, 1, "operation-opened", _plan(random))],
            [self._of_operation("operation-closed", {"closed": f"2024-03-{random.randrange(13, 16)}"})],
            [self._balance()],
            [document("apprehension", original["data"], side=self.other_side, id=self._ident())],
            [self._like(original, type=f"{TYPE_PREFIX}apprehension.v2")],
            [self._like(original, type="com.example.patrol")],
            [self._like(original, officer="x")],
            [self._like(original, side=self.other_side)],
            [self._like(original, data={"section": "koper", "persons": []})],
            [self._like(original, time="2024-03-14T03:12:09")],
        ]

    def junk(self) -> list[list[Fields]]:
        """Return one kind after the other: entries that only a direct write can make."""
        random = self.random
        original = random.choice(self.originals)
        self.number += 1
        otherwise = dict(reversed(original.items())) | {"reportno": self.number, "source": f"/{self.side}/OTHER/extra9"}
        return [
            [entry(json.dumps(otherwise, indent=1).encode())],  # the same content in other bytes, from another sender
            [entry(random.choice((b"", b"{}", b"null", b"\xff\xfe", b"[" * 5_000, b'{"type":', b"9" * 5_000)))],
            [entry(random.randbytes(random.randrange(1, 64)))],
            [{b"by": b"nobody"}],
            [{b"payload": as_json(original)}],
            [entry(as_json(self._like(original))) | {b"priority": b"1"}],
        ]

    def _ident(self) -> str:
        return str(UUID(int=self.random.getrandbits(128)))

    def _like(self, original: Document, **changed: Any) -> Document:
        """Another report with the same content but for what is changed."""
        return original | {"id": self._ident()} | changed

    def _fresh(self) -> Document:
        """A new report, of a device that the fleet does not have; now and then it leaves out numbers."""
        self.number += self.random.choice((1, 1, 1, 3))
        persons = {self.random.choice(CITIZENSHIPS): self.random.randrange(1, 9)}
        return document(
            "apprehension",
            {"section": "koper", "persons": counts(persons)},
            id=self._ident(),
            side=self.side,
            device=f"extra{self.random.randrange(3)}",
            reportno=self.number,
            time=f"2024-{self.random.choice(('03-31', '10-27', '02-29', '12-31'))}T22:30:00Z",
        )

    def _amended(
        self, before: Document, revision: int, kind: str = "apprehension", data: Document | None = None
    ) -> Document:
        """A later version of a report, from the desk and under a number of its own."""
        self.number += 1
        return before | {
            "type": f"{TYPE_PREFIX}{kind}.v1",
            "id": self._ident(),
            "source": f"/{self.side}/{self.side}-DESK/extra",
            "reportno": self.number,
            "amends": before["id"],
            "revision": revision,
            "data": data or {"section": "koper", "persons": counts({"TUR": self.random.randrange(1, 9)})},
        }

    def _of_operation(self, kind: str, data: Document) -> Document:
        return document(
            kind,
            data,
            id=self._ident(),
            side=self.side,
            unit=f"{self.side}-DESK",
            device="extra",
            subject=self.random.choice((OPERATION, "SI-HR-2024-10")),
            time=f"2024-03-12T{self.random.randrange(24):02}:00:00+01:00",
            reportno=self.random.randrange(1, 50),
        )

    def _balance(self) -> Document:
        more: tuple[Document, ...] = ({}, {"section": "koper"}, {"citizenship": "SVN"})
        totals = [
            {"measure": measure, "count": self.random.randrange(1, 10**9)} | more[number % len(more)]
            for number, measure in enumerate(MEASURES)
        ]
        data = {"period_from": "2023-01-01", "period_to": "2023-12-31", "totals": totals}
        return document("opening-balance", data, id=self._ident(), side=self.side, device="extra")


def _plan(random: Random) -> Document:
    sections = [
        {"section": section, "area": section, "coverage": random.choice(("joint", "remaining"))}
        for section in ("koper", "novo-mesto", "joint-sections")
    ]
    return {"name": "Joint control", "starts": "2024-03-13", "ends": "2024-03-15", "sections": sections}
