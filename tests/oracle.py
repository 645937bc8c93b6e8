"""An oracle: counts a log a second time, by another method, and shares no code with the product.

The fold goes entry by entry and adds and takes out; the oracle sorts the entries by report, finds the version of each
that is in force at the end, and sums those. Its checks of the events are its own as well. DESIGN sections 2 and 3 are
all that the two have in common.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

CITIZENSHIPS: Final = frozenset(
    """
    ABW AFG AGO AIA ALA ALB AND ARE ARG ARM ASM ATA ATF ATG AUS AUT AZE BDI BEL BEN BES BFA BGD BGR BHR BHS BIH BLM
    BLR BLZ BMU BOL BRA BRB BRN BTN BVT BWA CAF CAN CCK CHE CHL CHN CIV CMR COD COG COK COL COM CPV CRI CUB CUW CXR
    CYM CYP CZE DEU DJI DMA DNK DOM DZA ECU EGY ERI ESH ESP EST ETH FIN FJI FLK FRA FRO FSM GAB GBR GEO GGY GHA GIB
    GIN GLP GMB GNB GNQ GRC GRD GRL GTM GUF GUM GUY HKG HMD HND HRV HTI HUN IDN IMN IND IOT IRL IRN IRQ ISL ISR ITA
    JAM JEY JOR JPN KAZ KEN KGZ KHM KIR KNA KOR KWT LAO LBN LBR LBY LCA LIE LKA LSO LTU LUX LVA MAC MAF MAR MCO MDA
    MDG MDV MEX MHL MKD MLI MLT MMR MNE MNG MNP MOZ MRT MSR MTQ MUS MWI MYS MYT NAM NCL NER NFK NGA NIC NIU NLD NOR
    NPL NRU NZL OMN PAK PAN PCN PER PHL PLW PNG POL PRI PRK PRT PRY PSE PYF QAT REU ROU RUS RWA SAU SDN SEN SGP SGS
    SHN SJM SLB SLE SLV SMR SOM SPM SRB SSD STP SUR SVK SVN SWE SWZ SXM SYC SYR TCA TCD TGO THA TJK TKL TKM TLS TON
    TTO TUN TUR TUV TWN TZA UGA UKR UMI URY USA UZB VAT VCT VEN VGB VIR VNM VUT WLF WSM YEM ZAF ZMB ZWE
    XXA XXB XXC XXX RKS
    """.split()  # noqa: SIM905  # as a list it would fill three pages
)
MEASURES: Final = frozenset(
    ("apprehensions", "persons", "smuggling_cases", "smugglers", "smuggled_persons", "remanded", "nil_reports")
)
OUTCOMES: Final = (
    "applied", "replaced", "duplicate", "superseded", "conflict", "malformed", "unknown_type", "wrong_side",
    "number_reused", "original_missing",
)  # fmt: skip


class Counted(NamedTuple):
    """What a log amounts to: counts by the text of the cell, entries by outcome, and the parked ones with reasons."""

    tallies: dict[str, int]
    outcomes: dict[str, int]
    parked: dict[str, str]


def count(side: str, zone: str, entries: Iterable[tuple[str, Mapping[bytes, bytes]]]) -> Counted:
    """Count one side's log, given its entries with their positions, in order."""
    outcomes: Counter[str] = Counter()
    parked: dict[str, str] = {}
    reports: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    log: list[tuple[str, dict[str, Any]]] = []
    for position, fields in entries:
        event = _event(fields)
        if isinstance(event, str):
            parked[position] = event
        elif event["side"] != side:
            parked[position] = "wrong-side"
        else:
            log.append((position, event))
            reports.setdefault(event.get("amends", event["id"]), []).append((position, event))

    judged: dict[str, str] = {}
    in_force: list[dict[str, Any]] = []
    for versions in reports.values():
        judged |= _judged(versions)
        in_force.append(max((event for _, event in versions), key=lambda event: event["revision"]))  # the first of them
        outcomes["original_missing"] += all(event["revision"] for _, event in versions)
    parked |= {position: outcome for position, outcome in judged.items() if outcome == "conflict"}
    outcomes.update(outcome for outcome in judged.values() if outcome != "conflict")
    outcomes.update(reason.replace("-", "_") for reason in parked.values())

    # A number that came before is odd only on what is new: what merely comes once more brings its number again.
    numbers: set[tuple[str, int]] = set()
    for position, event in log:
        number = event["source"], event["reportno"]
        outcomes["number_reused"] += number in numbers and judged[position] in {"applied", "replaced"}
        numbers.add(number)

    tallies: Counter[str] = Counter()
    for event in in_force:
        tallies.update(_cells(event, ZoneInfo(zone)))
    return Counted(
        {cell: number for cell, number in tallies.items() if number},
        {outcome: outcomes[outcome] for outcome in OUTCOMES if outcomes[outcome]},
        parked,
    )


def digest(tallies: Mapping[str, int]) -> str:
    """Return the state digest: SHA-256 over the sorted lines `cell=count` of the non-zero cells."""
    text = sha256()
    for line in sorted(f"{cell}={number}" for cell, number in tallies.items() if number):
        text.update(line.encode() + b"\n")
    return text.hexdigest()


def missing(numbers: Iterable[int]) -> tuple[int, list[tuple[int, int]]]:
    """Return the highest of the numbers that came, and the ranges missing below it."""
    came = set(numbers)
    ranges: list[tuple[int, int]] = []
    for number in range(1, max(came) + 1):
        if number not in came:
            first = ranges.pop()[0] if ranges and ranges[-1][1] == number - 1 else number
            ranges.append((first, number))
    return max(came), ranges


def event_of(fields: Mapping[bytes, bytes], side: str) -> dict[str, Any] | None:
    """Return the event of an entry with its values read, if it is one of this side."""
    event = _event(fields)
    return event if isinstance(event, dict) and event["side"] == side else None


def _judged(versions: list[tuple[str, dict[str, Any]]]) -> dict[str, str]:
    """Return what became of each entry about one report, by position."""
    judged: dict[str, str] = {}
    for number, (position, event) in enumerate(versions):
        before = [other for _, other in versions[:number]]
        highest = max((other["revision"] for other in before), default=-1)
        if not before:
            judged[position] = "applied"
        elif event["revision"] > highest:
            judged[position] = "replaced"
        elif event["revision"] < highest:
            judged[position] = "superseded"
        else:
            first = next(other for other in before if other["revision"] == highest)
            judged[position] = "duplicate" if _content(first) == _content(event) else "conflict"
    return judged


def _content(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in {"id", "source", "reportno"}}


def _cells(event: dict[str, Any], zone: ZoneInfo) -> Counter[str]:
    kind, data = event["type"], event["data"]
    time, _ = event["time"]
    day = time.astimezone(zone).date().isoformat()

    def cell(measure: str, citizenship: str = "", section: str = data.get("section", ""), day: str = day) -> str:
        return f"{event['side']}|{event['subject']}|{section}|{day}|{measure}|{citizenship}"

    cells: Counter[str] = Counter()
    for measure in ("persons", "smugglers", "smuggled_persons", "remanded"):
        for one in data.get(measure, ()):
            cells[cell(measure, one["citizenship"])] += one["count"]
    cells[cell("apprehensions")] += kind == "apprehension"
    cells[cell("smuggling_cases")] += data.get("opens_case", False)
    cells[cell("nil_reports")] += kind == "nil-report"
    for total in data.get("totals", ()):
        where = total["section"]
        cells[cell(total["measure"], total["citizenship"], where, data["period_to"].isoformat())] += total["count"]
    return cells


# --- the rules of an event ---


class _Broken(Exception):  # noqa: N818  # not an error of the oracle
    """The event breaks a rule."""


def _event(fields: Mapping[bytes, bytes]) -> dict[str, Any] | str:
    """Return the event of an entry with its values read, or why it is parked."""
    if b"event" not in fields or set(fields) - {b"event", b"by"}:
        return "malformed"
    try:
        made = json.loads(fields[b"event"].decode(), parse_constant=_refuse)
        json.dumps(made, ensure_ascii=False).encode()  # fails on half a surrogate pair
    except (ValueError, RecursionError, _Broken):
        return "malformed"
    if not isinstance(made, dict) or not isinstance(made.get("type"), str) or not made["type"]:
        return "malformed"  # by CloudEvents a type is a text that is not empty
    kind = re.fullmatch(r"org\.fieldtally\.([a-z-]+)\.v1", made["type"])
    if not kind or kind[1] not in _DATA:
        return "unknown-type"
    try:
        return _checked(made, kind[1])
    except _Broken:
        return "malformed"


def _checked(made: dict[str, Any], kind: str) -> dict[str, Any]:
    required = {"specversion", "type", "id", "source", "reportno", "side", "time", "data"}
    _fields(made, required, {"subject", "amends", "revision"})
    _must(made["specversion"] == "1.0")
    parts = re.fullmatch(r"/([A-Z]{2})/[A-Za-z0-9-]{1,64}/[A-Za-z0-9-]{1,64}", _text(made["source"]))
    _must(parts is not None and parts[1] == made["side"])
    event = {
        "type": kind,
        "id": _uuid(made["id"]),
        "source": made["source"],
        "reportno": _integer(made["reportno"], 10**12),
        "side": made["side"],
        "subject": _name(made["subject"]) if "subject" in made else "",
        "time": _moment(made["time"]),
        "revision": _integer(made["revision"], 10**6) if "revision" in made else 0,
    }
    _must(("amends" in made) == ("revision" in made))
    if "amends" in made:
        event["amends"] = _uuid(made["amends"])
        _must(event["amends"] != event["id"])
    _must(kind != "withdrawal" or "amends" in made)
    _must(not kind.startswith("operation-") or "subject" in made)
    _must(isinstance(made["data"], dict))
    return event | {"data": _DATA[kind](made["data"])}


def _opened(data: dict[str, Any]) -> dict[str, Any]:
    _fields(data, {"name", "starts", "ends", "sections"})
    _must(1 <= len(_text(data["name"])) <= 200)
    plans = _list(data["sections"])
    for plan in plans:
        _fields(plan, {"section", "area", "coverage"})
        _must(1 <= len(_text(plan["area"])) <= 200 and plan["coverage"] in ("joint", "remaining"))
    _once([_name(plan["section"]) for plan in plans])
    starts, ends = _day(data["starts"]), _day(data["ends"])
    _must(starts <= ends)
    return data | {"starts": starts, "ends": ends}


def _closed(data: dict[str, Any]) -> dict[str, Any]:
    _fields(data, {"closed"})
    return {"closed": _day(data["closed"])}


def _apprehension(data: dict[str, Any]) -> dict[str, Any]:
    _fields(data, {"section", "persons"})
    _name(data["section"])
    return data | {"persons": _counts(data["persons"])}


def _arrest(data: dict[str, Any]) -> dict[str, Any]:
    _fields(data, {"section", "case", "opens_case", "smugglers", "smuggled_persons"})
    _name(data["section"])
    _name(data["case"])
    _must(isinstance(data["opens_case"], bool))
    _counts(data["smugglers"])
    _counts(data["smuggled_persons"], least=0)
    return data


def _custody(data: dict[str, Any]) -> dict[str, Any]:
    _fields(data, {"case", "remanded"})
    _name(data["case"])
    _counts(data["remanded"])
    return data


def _balance(data: dict[str, Any]) -> dict[str, Any]:
    _fields(data, {"period_from", "period_to", "totals"})
    totals = []
    for total in _list(data["totals"]):
        _fields(total, {"measure", "count"}, {"section", "citizenship"})
        whole = {"section": "", "citizenship": ""} | total
        _must(_text(whole["measure"]) in MEASURES and _text(whole["citizenship"]) in CITIZENSHIPS | {""})
        _must(whole["section"] == "" or bool(_name(whole["section"])))
        _integer(whole["count"], 10**9)
        totals.append(whole)
    _once([(total["measure"], total["section"], total["citizenship"]) for total in totals])
    first, last = _day(data["period_from"]), _day(data["period_to"])
    _must(first <= last)
    return {"period_from": first, "period_to": last, "totals": totals}


def _nil(data: dict[str, Any]) -> dict[str, Any]:
    _fields(data, {"section", "period_from", "period_to"})
    _name(data["section"])
    first, last = _moment(data["period_from"], years=(1, 9999)), _moment(data["period_to"], years=(1, 9999))
    _must(first[0] <= last[0])
    return {"section": data["section"], "period_from": first, "period_to": last}


def _withdrawal(data: dict[str, Any]) -> dict[str, Any]:
    _fields(data, {"reason"})
    _must(_text(data["reason"]) in {"duplicate", "did-not-occur", "out-of-scope", "data-entry-error"})
    return data


_DATA: Final = {
    "operation-opened": _opened,
    "operation-closed": _closed,
    "apprehension": _apprehension,
    "smuggler-arrest": _arrest,
    "custody": _custody,
    "opening-balance": _balance,
    "nil-report": _nil,
    "withdrawal": _withdrawal,
}


def _must(holds: bool) -> None:  # noqa: FBT001  # it is the statement itself
    if not holds:
        raise _Broken


def _refuse(_: str) -> None:
    raise _Broken


def _fields(made: Any, required: set[str], optional: frozenset[str] | set[str] = frozenset()) -> None:
    _must(isinstance(made, dict) and required <= set(made) <= required | optional)


def _list(made: Any, least: int = 1) -> list[Any]:
    _must(isinstance(made, list) and len(made) >= least)
    return list(made)


def _once(values: list[Any]) -> None:
    _must(len(set(values)) == len(values))


def _counts(made: Any, least: int = 1) -> list[Any]:
    for one in _list(made, least):
        _fields(one, {"citizenship", "count"})
        _must(_text(one["citizenship"]) in CITIZENSHIPS)
        _integer(one["count"], 10_000)
    _once([one["citizenship"] for one in made])
    return list(made)


def _text(made: Any) -> str:
    _must(isinstance(made, str))
    return str(made)


def _integer(made: Any, most: int) -> int:
    _must(isinstance(made, int) and not isinstance(made, bool) and 1 <= made <= most)
    return int(made)


def _name(made: Any) -> str:
    _must(re.fullmatch(r"[A-Za-z0-9._/-]{1,64}", _text(made)) is not None)
    return str(made)


def _uuid(made: Any) -> str:
    hexadecimal = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32}"
    _must(re.fullmatch(hexadecimal, _text(made).lower()) is not None and made.isascii())
    return str(made).lower().replace("-", "")


def _day(made: Any) -> date:
    _must(re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", _text(made)) is not None)
    try:
        return date.fromisoformat(made)
    except ValueError as error:
        raise _Broken from error


def _moment(made: Any, years: tuple[int, int] = (2, 9998)) -> tuple[datetime, timedelta | None]:
    """Return a time with its offset: the same moment at another offset is not the same content."""
    form = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
    _must(re.fullmatch(form, _text(made)) is not None)
    try:
        time = datetime.fromisoformat(re.sub(r"(\.[0-9]{1,6})[0-9]*", r"\1", made.upper()))
    except ValueError as error:
        raise _Broken from error
    _must(years[0] <= time.year <= years[1])
    return time, time.utcoffset()
