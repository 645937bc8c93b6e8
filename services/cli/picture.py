"""What `watch` shows: the part of the snapshot that is chosen, how far it can be believed, and the picture. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, tzinfo
from typing import Final, Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

from msgspec.structs import replace
from rich.text import Text

from schemas.screen import LATEST_MAX, DeviceShown, Hours, ReportShown, SideShown, Snapshot
from schemas.vocabulary import START, UNITS, Measure, order
from services.cli.output import many, printable
from services.control_room.book import received_at
from services.control_room.export import Filters
from services.control_room.words import citizenship_names
from services.runtime.errors import DamagedLogError, FieldtallyError
from services.tally.cells import SEPARATOR, Tallies, local_day, parse_cell
from services.tally.rollup import Selection, Terms, roll_up

DELAYED_S: Final = 10.0
LOST_S: Final = 15.0
SILENT_S: Final = 600.0
"""The thresholds of the screen: `clock.js` and `wall.js` have the same."""

BIG: Final[tuple[Measure, ...]] = ("persons", "smugglers", "smuggling_cases", "smuggled_persons", "remanded")

TWO_COLUMNS: Final = 72
ROOMY: Final = 110
GAP: Final = 3
RANGES: Final = 3
"""As many gaps of a device are named; of more there are two and how many others: `lists.js` has the same."""
LEAST: Final = 3
"""Lines that a list needs to say anything: its heading, the first row, and how many others there are."""

State = Literal["LIVE", "DELAYED", "LOST"]
_SIGNS: Final[dict[State, tuple[str, str]]] = {
    "LIVE": ("●", "bold"),
    "DELAYED": ("◐", "bold black on yellow"),
    "LOST": ("✕", "bold white on red"),
}
_WARNING: Final = "yellow"
NOTHING: Final = "nothing counted in this view"

_NOUNS: Final[Mapping[str, tuple[str, str]]] = {
    "persons": ("person", "persons"),
    "smuggling_cases": ("case", "cases"),
    "smugglers": ("smuggler", "smugglers"),
    "smuggled_persons": ("person with them", "persons with them"),
    "remanded": ("person remanded", "persons remanded"),
}

Cell: TypeAlias = int | str | Text
Lines: TypeAlias = list[Text]


class Health(NamedTuple):
    """How far the numbers can be believed: the state, for how long the server was not seen, and what is wrong."""

    state: State
    unseen_s: float
    causes: tuple[str, ...]


Sums: TypeAlias = Mapping[tuple[str, str, str, str], int]
"""Counts by side, section, measure and citizenship."""


class Look(NamedTuple):
    """One look at the room: the chosen part of the snapshot with its sums, and its health."""

    snapshot: Snapshot
    sums: Sums
    health: Health


def health(snapshot: Snapshot, looked: datetime, failures: Iterable[FieldtallyError]) -> Health:
    """Judge by facts that are never derived from one another.

    They are when the server was seen, what keeps a side from being shown as it is, and the projector's lag.
    """
    unseen_s = max(0.0, (snapshot.now - looked).total_seconds())
    failures = list(failures)
    causes = [str(failure) for failure in failures]
    if unseen_s > DELAYED_S:  # what the projector does meanwhile, nobody knows
        seen = _moment(looked, ZoneInfo(snapshot.sides[0].zone), snapshot.now)
        causes.insert(0, f"the numbers are old: the server was last seen at {seen}, {_age(unseen_s)} ago")
        return Health("LOST" if unseen_s > LOST_S else "DELAYED", unseen_s, tuple(causes))
    behind = [(side.side, _age(side.lag_s)) for side in snapshot.sides if side.lag_s > DELAYED_S]
    for side, age in behind:
        causes.append(f"{side}: the projector is {age} behind the log: does `fieldtally project` run?")
    stands = any(isinstance(failure, DamagedLogError) for failure in failures)
    return Health("DELAYED" if behind or stands else "LIVE", unseen_s, tuple(causes))


def narrowed(snapshot: Snapshot, filters: Filters) -> Snapshot:
    """Return the part of a snapshot that belongs to an operation and a period; its digest stays that of the whole."""
    if filters == Filters():
        return snapshot
    return replace(snapshot, sides=tuple(_narrowed(side, filters) for side in snapshot.sides))


def add_up(snapshot: Snapshot) -> Sums:
    """Return what all that is shown is a sum of."""
    tallies: Tallies = {parse_cell(name): count for side in snapshot.sides for name, count in side.cells.items()}
    rows = roll_up(tallies, Selection(("side", "section", "measure", "citizenship")), Terms({}, {}))
    return {(row.values[0], row.values[1], row.values[2], row.values[3]): row.count for row in rows}


def _narrowed(side: SideShown, filters: Filters) -> SideShown:
    zone = ZoneInfo(side.zone)
    first = filters.first.isoformat() if filters.first else ""
    last = filters.last.isoformat() if filters.last else "9999-12-31"

    def within(operation: str, day: str) -> bool:
        return filters.operation in (None, operation) and first <= day <= last

    def counted(cells: Mapping[str, int]) -> dict[str, int]:
        return {name: count for name, count in cells.items() if within(*parse_cell(name)[1:4:2])}

    def hour(name: str) -> bool:
        start, operation, *_ = name.split(SEPARATOR)
        return within(operation, local_day(datetime.fromtimestamp(int(start), UTC), zone))

    return replace(
        side,
        operations=tuple(one for one in side.operations if filters.operation in (None, one.operation)),
        cells=counted(side.cells),
        hours=Hours(side.hours.since, {name: count for name, count in side.hours.counts.items() if hour(name)}),
        latest=tuple(one for one in side.latest if within(one.operation, local_day(one.time, zone))),
        amendments=tuple(replace(one, changes=changes) for one in side.amendments if (changes := counted(one.changes))),
        amended=counted(side.amended),
    )


def as_line(look: Look) -> str:
    """Return the look as one line, with nothing in it that only a clock moves."""
    figures = _by(look.sums, 2, 0)
    texts: list[str] = [look.health.state]
    for side in look.snapshot.sides:
        counts = " ".join(f"{measure} {figures.get((measure, side.side), 0)}" for measure in BIG)
        texts.append(f"{side.side} {counts} at {side.position}")
    return "   ".join(texts)


def picture(look: Look, filters: Filters, width: int, height: int | None = None) -> Text:
    """Return the screen as so many columns have room for it; in full length, or cut to a height.

    What matters most stands first. Lists share the lines that are left, and say what they leave out.
    """
    head = [*_head(look, filters, width), *_figures(look, width)]
    foot = _foot(look.snapshot)
    left = None if height is None else max(0, height - len(head) - len(foot))
    lines = [*head, *_lists(look, filters, width, left)]
    if height is not None:
        lines += [Text()] * (height - len(foot) - len(lines))
    return Text("\n", no_wrap=True).join([_fitted(line, width) for line in [*lines, *foot]][:height])


# Above: how things are, and the big numbers


def _head(look: Look, filters: Filters, width: int) -> Lines:
    snapshot, _, (state, unseen_s, causes) = look
    sign, style = _SIGNS[state]
    zone = ZoneInfo(snapshot.sides[0].zone)
    lag, lag_s = sum(side.lag for side in snapshot.sides), max(side.lag_s for side in snapshot.sides)
    projector = f"{many(lag, 'entry', 'entries')} behind{f', {_age(lag_s)}' if lag else ''}"
    clock = f"{snapshot.now.astimezone(zone):%H:%M:%S %Z}"
    first = Text.assemble(
        (f" {sign} {state} ", style),
        f" server seen {_age(unseen_s)} ago · projector {projector if unseen_s <= DELAYED_S else 'not known'}",
    )
    if first.cell_len + len(clock) < width:
        first = _beside([first], [Text(clock)], width - len(clock) - 1, 1)[0]
    return [
        first,
        *(Text(line, _WARNING if state == "LIVE" else style) for cause in causes for line in _wrapped(cause, width)),
        Text(_view(snapshot, filters, zone), "bold"),
        *(_side(side, snapshot.now, unseen_s) for side in snapshot.sides),
    ]


def _view(snapshot: Snapshot, filters: Filters, zone: tzinfo) -> str:
    """Name what is looked at: the operation with its day, or all, those that run first; and the period."""
    today = snapshot.now.astimezone(zone).date()
    plans = {one.operation: one for side in snapshot.sides for one in side.operations}
    names = sorted(plans, key=lambda name: (plans[name].ends < today, plans[name].starts > today, plans[name].starts))
    if filters.operation is None:
        shown = ", ".join(f"{name} {_day(snapshot, name, today)}" for name in names)
        texts = [f"all operations: {shown}" if shown else "all operations"]
    elif not filters.operation:
        texts = ["outside any operation"]
    elif filters.operation in plans:
        texts = [filters.operation, plans[filters.operation].name, _day(snapshot, filters.operation, today)]
    else:
        texts = [filters.operation, "nobody has opened this operation yet"]
    match filters.first, filters.last:
        case None, None:
            pass
        case first, None:
            texts.append(f"from {first}")
        case None, last:
            texts.append(f"until {last}")
        case first, last:
            texts.append(f"{first} to {last}")
    return printable(" · ".join(texts))


def _day(snapshot: Snapshot, operation: str, today: date) -> str:
    """Return how far an operation is, from its first day at any side to its last."""
    plans = [one for side in snapshot.sides for one in side.operations if one.operation == operation]
    starts = min(plan.starts for plan in plans)
    ends = max(min(plan.ends, plan.closed or plan.ends) for plan in plans)
    if today < starts:
        return f"starts {starts}"
    if today > ends or all(plan.closed for plan in plans):
        return f"ended {ends}"
    return f"day {(today - starts).days + 1} of {(ends - starts).days + 1}"


def _side(side: SideShown, current: datetime, unseen_s: float) -> Text:
    """Return how a side stands; since the server was last seen, nobody knows whether it is silent."""
    zone = ZoneInfo(side.zone)
    line = Text(f"{side.side}  ")
    if side.position == START:
        line.append("nothing counted yet")
    else:
        line.append(f"as of {side.position} at {_moment(received_at(side.position), zone, current)}")
    unheard_s = (current - side.heard).total_seconds() - unseen_s if side.heard else None
    if side.heard is None or unheard_s is None:
        line.append(" · ").append("◐ nothing heard yet", _WARNING)
    elif unseen_s > DELAYED_S:
        line.append(f" · heard at {_moment(side.heard, zone, current)}, not known since")
    elif unheard_s > SILENT_S:
        line.append(" · ").append(f"◐ silent for {_age(unheard_s)}", _WARNING)
    else:
        line.append(f" · heard {_age(max(0.0, unheard_s))} ago")
    if side.parked:
        line.append(" · ").append(f"△ {side.parked:,} set aside", _WARNING)
    return line


def _figures(look: Look, width: int) -> Lines:
    """Return the big numbers, each measure with its unit; what amendments have changed stands beside it."""
    snapshot = look.snapshot
    sides = [side.side for side in snapshot.sides]
    sums = _by(look.sums, 2, 0)
    amended = dict.fromkeys(BIG, 0)
    for side in snapshot.sides:
        for name, change in side.amended.items():
            if (measure := parse_cell(name)[4]) in amended:
                amended[measure] += change
    style = "bold" if look.health.state != "LOST" else "dim"
    rows: list[tuple[Cell, ...]] = []
    for measure in BIG:
        counts = [sums.get((measure, side), 0) for side in sides]
        unit = UNITS[measure] + (f" (amended {amended[measure]:+,})" if amended[measure] else "")
        rows.append((measure, *([sum(counts)] if len(sides) > 1 else []), *counts, unit))
    heading = ("", *(["total"] if len(sides) > 1 else []), *sides, "unit")
    return _Panel(heading, rows, flexible=len(heading) - 1, style=style).drawn(width)


# In between: what is listed as far as there is room


class _Panel(NamedTuple):
    """A list under its heading: rows of numbers and texts, of which one column takes what room is left."""

    heading: Sequence[str]
    rows: Sequence[tuple[Cell, ...]]
    flexible: int = 0
    rest: bool = True
    empty: str = ""
    style: str = ""
    named: bool = False
    """Whether its first column is but a name, which gives way down to a third of the width."""

    @property
    def lines(self) -> int:
        """How many lines it has in full length."""
        return 1 + max(1, len(self.rows))

    def drawn(self, width: int, lines: int | None = None) -> Lines:
        """Draw it in so many lines; rows beyond them become one with their sums, or are left out."""
        if lines is not None and lines < 2:
            return []
        rows = list(self.rows)
        if lines is not None and len(rows) > lines - 1:
            kept = lines - 2 if self.rest else lines - 1
            rows = [*rows[:kept], *([_others(rows[kept:])] if self.rest else [])]
        widths = [max(_text(row[at]).cell_len for row in (self.heading, *rows)) for at in range(len(self.heading))]
        if self.named:
            widths[0] = max(6, min(widths[0], max(width // 3, width - 2 - sum(widths[1:]))))
        others = sum(widths) - widths[self.flexible] + 2 * (len(widths) - 1)
        widths[self.flexible] = max(6, width - others)
        numeric = [any(isinstance(row[at], int) for row in rows) for at in range(len(widths))]
        drawn = [_row(self.heading, widths, numeric, "underline")]
        drawn += [_row(row, widths, numeric, self.style) for row in rows]
        return [_fitted(line, width) for line in drawn] if rows else [*drawn, Text(self.empty)]


def _others(rows: Sequence[tuple[Cell, ...]]) -> tuple[Cell, ...]:
    sums: list[Cell] = [
        sum(cell for cell in column if isinstance(cell, int)) if isinstance(column[0], int) else ""
        for column in zip(*rows, strict=True)
    ]
    return (many(len(rows), "other"), *sums[1:])


def _row(cells: Sequence[Cell], widths: Sequence[int], numeric: Sequence[bool], style: str) -> Text:
    texts = []
    for cell, width, right in zip(cells, widths, numeric, strict=True):
        text = _text(cell)
        text.truncate(width, overflow="ellipsis")
        text.align("right" if right else "left", width)
        if style and (right or style == "underline"):
            text.stylize(style)
        texts.append(text)
    return Text("  ", "underline" if style == "underline" else "").join(texts)


def _text(cell: Cell) -> Text:
    if isinstance(cell, Text):
        return cell.copy()
    return Text(f"{cell:,}" if isinstance(cell, int) else cell)


def _lists(look: Look, filters: Filters, width: int, lines: int | None) -> Lines:
    """Draw the lists: two beside each other where there is room, and the lines shared by what each needs."""
    roomy = width >= ROOMY
    panels = [
        _citizenships(look, roomy=roomy),
        _sections(look, filters, roomy=roomy),
        _latest(look.snapshot, roomy=roomy),
        _devices(look.snapshot),
    ]
    bands = [panels[:2], panels[2:]] if width >= TWO_COLUMNS else [[panel] for panel in panels]
    if lines is not None:
        bands = bands[: lines // LEAST]
    needs = [max(panel.lines for panel in band) for band in bands]
    spaced = lines is None or lines >= 6 * len(bands)
    shares = needs if lines is None else _shared(lines - len(bands) * spaced, needs)
    drawn: Lines = []
    for band, share, part in zip(bands, shares, (0.5, 0.65) if roomy else (0.55, 0.55, 0, 0), strict=False):
        if spaced:
            drawn.append(Text())
        if len(band) == 1:
            drawn += band[0].drawn(width, share)
        else:
            left = int((width - GAP) * part)
            drawn += _beside(band[0].drawn(left, share), band[1].drawn(width - GAP - left, share), left, GAP)
    return drawn


def _shared(lines: int, needs: Sequence[int]) -> list[int]:
    """Share lines so that nobody gets more than he needs, and whoever needs more gets as much as the others."""
    shares = [0] * len(needs)
    for done, at in enumerate(sorted(range(len(needs)), key=lambda at: needs[at])):
        shares[at] = min(needs[at], lines // (len(needs) - done))
        lines -= shares[at]
    return shares


def _citizenships(look: Look, *, roomy: bool) -> _Panel:
    names = citizenship_names("en")
    sides = [side.side for side in look.snapshot.sides]
    sums = _by(look.sums, 3, 2, 0)

    def counts(code: str, measure: Measure) -> list[int]:
        return [sums.get((code, measure, side), 0) for side in sides]

    found = sorted(
        {code for code, measure, _ in sums if measure == "persons" or (roomy and measure == "smugglers")},
        key=lambda code: (-sum(counts(code, "persons")), -sum(counts(code, "smugglers")), code),
    )
    rows: list[tuple[Cell, ...]] = [
        (
            f"{code} {names[code]}" if code else "not stated",
            *counts(code, "persons"),
            *([sum(counts(code, "persons"))] if len(sides) > 1 else []),
            *([sum(counts(code, "smugglers"))] if roomy else []),
        )
        for code in found
    ]
    heading = ("Persons by citizenship", *sides, *(["total"] if len(sides) > 1 else []))
    return _Panel([*heading, *(["smugglers"] if roomy else [])], rows, empty=NOTHING)


def _sections(look: Look, filters: Filters, *, roomy: bool) -> _Panel:
    """Nil reports stand beside the counts: zero where somebody looked is another thing than zero."""
    measures = ("persons", "smugglers", "nil_reports")
    sums = _by(look.sums, 0, 1, 2)
    coverage: dict[tuple[str, str], set[str]] = {}
    for side in look.snapshot.sides:
        for operation in side.operations:
            for plan in operation.sections:
                coverage.setdefault((side.side, plan.section), set()).add(plan.coverage)
    places = {(side, section) for side, section, measure in sums if measure in measures}
    if filters.operation:
        places |= coverage.keys()
    rows: list[tuple[Cell, ...]] = []
    for side_name, section in sorted(places, key=lambda place: (-sums.get((*place, "persons"), 0), place)):
        persons, smugglers, nil = (sums.get((side_name, section, measure), 0) for measure in measures)
        covered = " or ".join(sorted(coverage.get((side_name, section), ())))
        name = section or "no section"
        rows.append((name, side_name, covered, persons, smugglers, nil) if roomy else (name, side_name, persons, nil))
    heading = ("By section", "side", "coverage", "persons", "smugglers", "nil")
    return _Panel(heading if roomy else ("By section", "side", "persons", "nil"), rows, empty=NOTHING)


def _latest(snapshot: Snapshot, *, roomy: bool) -> _Panel:
    reports = sorted(
        ((side, report) for side in snapshot.sides for report in side.latest),
        key=lambda one: order(one[1].position),
        reverse=True,
    )
    rows: list[tuple[Cell, ...]] = []
    for side, report in reports[:LATEST_MAX]:  # of each side there are so many: of older ones some would be missing
        local, today = (at.astimezone(ZoneInfo(side.zone)) for at in (report.time, snapshot.now))
        if local.date() == today.date():
            time = f"{local:%H:%M}"
        elif local.year == today.year:
            time = f"{local:%d %b %H:%M}" if roomy else f"{local:%d %b}"
        else:
            time = f"{local:%Y-%m-%d}"
        what = _what(report, roomy=roomy)
        if roomy:
            rows.append((time, side.side, what, report.section, report.unit))
        else:
            rows.append((time, side.side, f"{what}, {report.section}" if report.section else what))
    heading = ("Latest", "side", "report", "section", "unit")
    return _Panel(heading if roomy else heading[:3], rows, flexible=2, rest=False, empty="no report in this view")


def _what(report: ReportShown, *, roomy: bool) -> str:
    if report.reason:
        return f"↩ withdrawn: {report.reason.replace('-', ' ')}"
    if report.type == "nil-report":
        return "nothing found"
    parts = []
    for measure, counts in report.counts.items():
        if measure in _NOUNS:
            named = ", ".join(f"{count:,} {code}" for code, count in counts.items() if code) if roomy else ""
            parts.append(f"{many(sum(counts.values()), *_NOUNS[measure])}{f' ({named})' if named else ''}")
    what = ", ".join(parts) or report.type.replace("-", " ")
    return f"{what}, amended" if report.revision else what


def _devices(snapshot: Snapshot) -> _Panel:
    """Return the devices that somebody has to ask: with numbers missing or used twice, then the silent ones."""
    known = [device for side in snapshot.sides for device in side.devices]

    def silent_s(device: DeviceShown) -> float:
        return (snapshot.now - device.heard).total_seconds() if device.heard else 0.0

    asked = [device for device in known if device.missing or device.reused or silent_s(device) > SILENT_S]
    asked.sort(key=lambda device: (-len(device.missing), -device.reused, -silent_s(device)))
    rows: list[tuple[Cell, ...]] = []
    for device in asked:
        facts = [f"△ {_ranges(device.missing)} missing"] if device.missing else []
        if device.reused:
            facts.append(f"△ {many(device.reused, 'number')} used twice")
        if silent_s(device) > SILENT_S:
            facts.append(f"◐ silent for {_age(silent_s(device))}")
        rows.append((f"{device.unit}/{device.device}", Text("; ".join(facts), _WARNING)))
    heading = ("Devices to ask", f"{len(asked):,} of {len(known):,}")
    return _Panel(heading, rows, flexible=1, empty="no numbers missing, none silent", named=True)


def _ranges(missing: Sequence[tuple[int, int]]) -> str:
    """Return the first gaps in a device's numbers, and how many others there are."""
    shown = missing if len(missing) <= RANGES else missing[: RANGES - 1]
    left = len(missing) - len(shown)
    texts = [f"{low}" if low == high else f"{low}–{high}" for low, high in shown]
    return ", ".join(texts) + (f" +{left:,} more" if left else "")


# Below: what the numbers were held against


def _foot(snapshot: Snapshot) -> Lines:
    lines = [
        Text(
            f"✓ {side.side} rebuilt = live at {audit.position}, audited at "
            f"{_moment(audit.at, ZoneInfo(side.zone), snapshot.now)}"
            if (audit := side.audit)
            else f"○ {side.side} no audit has agreed yet"
        )
        for side in snapshot.sides
    ]
    return [*lines, Text(f"digest {snapshot.digest}")]


# Small things


def _by(sums: Sums, *parts: int) -> dict[tuple[str, ...], int]:
    """Return the sums by some of side (0), section (1), measure (2) and citizenship (3), in this order."""
    found: dict[tuple[str, ...], int] = {}
    for key, count in sums.items():
        chosen = tuple([key[part] for part in parts])
        found[chosen] = found.get(chosen, 0) + count
    return found


def _beside(left: Lines, right: Lines, width: int, gap: int) -> Lines:
    """Put two blocks beside each other, the left one in so many columns."""
    lines = []
    for at in range(max(len(left), len(right))):
        line = _fitted(left[at] if at < len(left) else Text(), width)
        line.pad_right(width - line.cell_len + gap)
        lines.append(line + right[at] if at < len(right) else line)
    return lines


def _fitted(line: Text, width: int) -> Text:
    fitted = line.copy()
    fitted.truncate(width, overflow="ellipsis")
    return fitted


def _wrapped(cause: str, width: int) -> list[str]:
    lines = [""]
    for word in f"△ {printable(cause)}".split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines


def _moment(at: datetime, zone: tzinfo, current: datetime) -> str:
    local = at.astimezone(zone)
    if local.date() == current.astimezone(zone).date():
        return f"{local:%H:%M:%S %Z}"
    return f"{local:%Y-%m-%d %H:%M %Z}"


def _age(seconds: float) -> str:
    seconds = max(0, int(seconds))
    for limit, length, unit in ((120, 1, "s"), (7_200, 60, "min"), (172_800, 3_600, "h")):
        if seconds < limit:
            return f"{seconds // length} {unit}"
    return many(seconds // 86_400, "day")
