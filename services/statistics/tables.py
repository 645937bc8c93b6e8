"""The tables that people publish, built from tallies; and which of their figures are hidden. Pure.

Every figure is a sum over cells, in a table of its own, and says by its `Key` what it sums. A total is written `_T`, as
in SDMX; an absent operation or citizenship is the empty text. Measures have different units and never stand in one sum.
Figures that are zero in a whole row are left out. Rows are sorted by what they are about, never by their counts: the
order would tell what is hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from functools import cache
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast, get_args

from msgspec import Struct
from msgspec.structs import replace

from schemas.vocabulary import UNITS, Measure, Side
from services.statistics.periods import Period, period_of
from services.tally.balances import Balance, cut_balances
from services.tally.cells import Tallies
from services.tally.names import absent_side
from services.tally.rollup import Dimension, Selection, Terms, roll_up
from services.tally.suppression import Atom, suppress

TableName = Literal["months", "year-to-date", "operations", "smuggling"]
TABLES: Final[tuple[TableName, ...]] = get_args(TableName)

TOTAL: Final = "_T"

Known = Literal["now", "then"]

BY_CITIZENSHIP: Final[frozenset[Measure]] = frozenset(("persons", "smugglers", "smuggled_persons", "remanded"))
SMUGGLING: Final[tuple[Measure, ...]] = ("smuggling_cases", "smugglers", "smuggled_persons", "remanded")
LEFT_OUT: Final[frozenset[Measure]] = frozenset(("nil_reports",))
"""Measures that are in a table only if they are asked for: nothing was counted by them."""

_DAYS: Final[tuple[Dimension, ...]] = ("day", "month", "year")
_CELL: Final[tuple[Dimension, ...]] = ("side", "operation", "day", "measure", "citizenship", "origin")


class Key(NamedTuple):
    """What a figure sums; `period` is a month, a year, or the first and last day with a stroke between.

    A month or a year of which not every day was asked for is such a range of days, never its whole name.
    """

    table: TableName
    measure: Measure
    period: str
    known: Known
    side: str
    operation: str = TOTAL
    citizenship: str = TOTAL
    origin: str = TOTAL


class Counted(Struct, frozen=True):
    """The tallies of all sides as known at one time.

    `begun` are the sides whose logs had entries by then: of the others nothing was known, which is not zero.
    """

    tallies: Tallies
    terms: Terms
    begun: frozenset[Side]
    balances: Sequence[Balance] = ()


class Asked(Struct, frozen=True):
    """Which tables, and of what. `where` is that of a `Selection`; the days bound all tables but the year to date.

    `this_year` may be None if that one is not asked for. A `min_cell` of 0 hides nothing.
    """

    tables: Sequence[TableName]
    sides: Sequence[Side]
    where: Mapping[Dimension, tuple[str, ...]] = {}
    first_day: date | None = None
    last_day: date | None = None
    this_year: Period | None = None
    min_cell: int = 0


class Figure(Struct, frozen=True):
    """One figure: its count, which is None where it is hidden or where nothing was known."""

    key: Key
    count: int | None
    hidden: bool = False


class Row(Struct, frozen=True):
    """One row for people: what it is about in words, and its figures."""

    labels: tuple[str, ...]
    figures: tuple[Figure, ...]


class Table(Struct, frozen=True):
    """One table; `small` is how many of its figures are hidden since they are small, `others` how many with them.

    They are published apart only if these are `countable`. `where` is what all of it was restricted to, and `notes` are
    what must be known of its figures.
    """

    name: TableName
    title: str
    headings: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    small: int = 0
    others: int = 0
    countable: bool = True
    where: Mapping[Dimension, tuple[str, ...]] = {}
    notes: tuple[str, ...] = ()

    @property
    def figures(self) -> Iterator[Figure]:
        """Every figure, row by row."""
        return (figure for row in self.rows for figure in row.figures)


_Cell: TypeAlias = tuple[Side, str, str, Measure, str, str]
_Column: TypeAlias = tuple[str, Mapping[str, Any]]
"""A heading, and what of a row's key the column replaces."""


class _Plan(Struct, frozen=True):
    """How one table is made: the figures that a cell is part of, what its rows are about, its columns."""

    title: str
    keys: Callable[[_Cell], Iterator[Key]]
    about: Mapping[str, str]
    columns: Sequence[_Column]


def build(asked: Asked, now: Counted, then: Counted | None = None) -> list[Table]:
    """Return the tables; `then` is what was known one year before, and is needed for the year to date only."""
    days = _days(asked, now)
    periods = [days, *((asked.this_year, asked.this_year.year_before()) if asked.this_year else ())]
    cells: dict[Known, Iterable[tuple[_Cell, int]]] = {"now": _cells(now, asked, periods)}
    unknown: frozenset[str] = frozenset()
    if then:
        cells["then"] = _cells(then, asked, periods)
        late = frozenset(_sides(asked)) - then.begun
        unknown = late | {TOTAL} if late else late
    plans = _plans(asked, days)
    sums: dict[Key, int] = {}
    parts: dict[tuple[Key, ...], int] = {}
    for known, counted in cells.items():
        for cell, count in counted:
            keys = tuple(
                key
                for plan in plans.values()
                for key in plan.keys(cell)
                if key.known == known and not (known == "then" and key.side in unknown)
            )
            if keys:
                parts[keys] = parts.get(keys, 0) + count
            for key in keys:
                sums[key] = sums.get(key, 0) + count
    hidden = _hide(sums, parts, asked.min_cell)
    tables = (_table(name, plan, asked, sums, hidden, unknown) for name, plan in plans.items())
    return [replace(table, notes=tuple(_notes(table.name, asked, now))) for table in tables]


_PARTS: Final[Mapping[TableName, tuple[Dimension, ...]]] = {"months": ("month",), "smuggling": ("year",)}
"""By which parts of time a table sums."""


def _notes(name: TableName, asked: Asked, now: Counted) -> Iterator[str]:
    """Yield what must be known of a table's figures: which sides they lack, which balances reach beyond their days."""
    absent = [side for side in _sides(asked) if side not in now.begun]
    if absent and now.begun:
        yield absent_side(absent)
    measures = asked.where.get("measure") or {"months": ("persons",), "smuggling": SMUGGLING}.get(name, tuple(UNITS))
    selection = Selection(_PARTS.get(name, ()), {**asked.where, "measure": measures}, asked.first_day, asked.last_day)
    if name != "year-to-date":
        yield from cut_balances(now.balances, selection, now.terms)
    elif this := asked.this_year:
        for days in (this, this.year_before()):
            of_days = replace(selection, first_day=days.first, last_day=days.last)
            yield from cut_balances(now.balances, of_days, now.terms)


def _sides(asked: Asked) -> list[Side]:
    wanted = asked.where.get("side", asked.sides)
    return [side for side in asked.sides if side in wanted]


def _cells(counted: Counted, asked: Asked, periods: Sequence[Period]) -> list[tuple[_Cell, int]]:
    chosen: Mapping[Dimension, tuple[str, ...]] = asked.where
    if "measure" not in chosen:
        chosen = {**chosen, "measure": tuple(measure for measure in UNITS if measure not in LEFT_OUT)}
    tallies = counted.tallies if "day" in chosen else _gathered(counted.tallies, periods)
    rows = roll_up(tallies, Selection(_CELL, chosen), counted.terms)
    return [(cast("_Cell", row.values), row.count) for row in rows]


def _gathered(tallies: Tallies, periods: Sequence[Period]) -> Tallies:
    """Sum the days that no table tells apart, each under the first of them: there are hundreds of cells for one sum."""
    firsts: dict[tuple[object, ...], str] = {}
    alike: dict[str, str] = {}
    sums: Tallies = {}
    for (side, operation, section, day, measure, citizenship), count in tallies.items():
        if day not in alike:
            alike[day] = firsts.setdefault((day[:7], *(period.has(day) for period in periods)), day)
        cell = (side, operation, section, alike[day], measure, citizenship)
        sums[cell] = sums.get(cell, 0) + count
    return sums


class _Hidden(NamedTuple):
    small: frozenset[Key] = frozenset()
    others: frozenset[Key] = frozenset()
    countable: bool = True


def _hide(sums: Mapping[Key, int], parts: Mapping[tuple[Key, ...], int], min_cell: int) -> _Hidden:
    """Return small figures and others to hide, over all tables at once: one's total may be a sum of another's rows."""
    if not min_cell:
        return _Hidden()
    keys = sorted(sums)
    number = {key: at for at, key in enumerate(keys)}
    atoms = [
        Atom(count, tuple(number[key] for key in part), _axes(part), (part[0].measure, part[0].known))
        for part, count in sorted(parts.items())
    ]
    twins = {number[key]: number[twin] for key in keys if (twin := _twin(key)) in number}
    found = suppress(atoms, min_cell, twins)
    small, others = (frozenset(keys[at] for at in figures) for figures in (found.primary, found.secondary))
    return _Hidden(small, others, found.countable)


def _twin(key: Key) -> Key:
    """Return the same figure as known at the other time, whether or not there is one."""
    return key._replace(known="then" if key.known == "now" else "now")


def _axes(part: Sequence[Key]) -> tuple[Hashable, Hashable, Hashable]:
    """Return where a part of the figures stands: its side, whom it is about, and when and in which operation it was."""
    return (
        frozenset(key.side for key in part),
        frozenset((key.citizenship, key.origin) for key in part),
        frozenset((key.period, key.operation) for key in part),
    )


def _plans(asked: Asked, days: Period) -> dict[TableName, _Plan]:
    sides = _sides(asked)
    columns: list[_Column] = [(side, {"side": side}) for side in sides]
    several = len(sides) > 1
    if several:
        columns.append(("all sides", {"side": TOTAL}))
    chosen = asked.where.get("measure")
    detailed = frozenset(chosen or ("persons",))
    limits = _limits(asked)
    label = _labels(asked)

    def of_sides(*keys: Key) -> Iterator[Key]:
        for key in keys:
            yield key
            if several:
                yield key._replace(side=TOTAL)

    def by_citizenship(key: Key, citizenship: str) -> list[Key]:
        """The total, and the figure of the citizenship where the table goes by it; of only one, that is the total."""
        if key.measure in detailed & BY_CITIZENSHIP:
            member = key._replace(citizenship=citizenship)
            return [member] if len(asked.where.get("citizenship", ())) == 1 else [key, member]
        return [key]

    def months(cell: _Cell) -> Iterator[Key]:
        side, _, day, measure, citizenship, _ = cell
        if measure in detailed and days.has(day):
            for period in dict.fromkeys((label(day[:7]), label(day[:4]))):
                yield from of_sides(*by_citizenship(Key("months", measure, period, "now", side), citizenship))

    def operations(cell: _Cell) -> Iterator[Key]:
        side, operation, day, measure, _, _ = cell
        if days.has(day):
            yield from of_sides(Key("operations", measure, str(days), "now", side, operation))

    def smuggling(cell: _Cell) -> Iterator[Key]:
        side, _, day, measure, _, origin = cell
        if measure in SMUGGLING and days.has(day):
            total = Key("smuggling", measure, label(day[:4]), "now", side)
            apart = measure in BY_CITIZENSHIP
            if not (apart and len(asked.where.get("origin", ())) == 1):
                yield from of_sides(total)
            if apart:
                yield from of_sides(total._replace(origin=origin))

    plans: dict[TableName, _Plan] = {}
    for name in dict.fromkeys(asked.tables):
        match name:
            case "months":
                about = {"measure": "measure", "period": "month", "citizenship": "citizenship"}
                plans[name] = _Plan(f"By month and citizenship{limits}", months, about, columns)
            case "operations":
                about = {"operation": "operation", "measure": "measure"}
                plans[name] = _Plan(f"Per operation{limits}", operations, about, columns)
            case "smuggling":
                about = {"period": "year", "measure": "measure", "origin": "origin"}
                plans[name] = _Plan(
                    f"Smuggling: cases, smugglers, persons found with them, remanded{limits}", smuggling, about, columns
                )
            case "year-to-date":
                plans[name] = _year_to_date(asked, of_sides, by_citizenship)
    return plans


def _year_to_date(
    asked: Asked, of_sides: Callable[..., Iterator[Key]], by_citizenship: Callable[[Key, str], list[Key]]
) -> _Plan:
    this = asked.this_year
    if this is None:
        raise ValueError("the year to date needs its days")
    last = this.year_before()
    columns: list[_Column] = [
        ("this year", {"period": str(this), "known": "now"}),
        ("last year", {"period": str(last), "known": "now"}),
        ("as known then", {"period": str(last), "known": "then"}),
    ]

    def keys(cell: _Cell) -> Iterator[Key]:
        side, _, day, measure, citizenship, _ = cell
        for period, known in ((this, "now"), (last, "now"), (last, "then")):
            if period.has(day):
                key = Key("year-to-date", measure, str(period), cast("Known", known), side)
                yield from of_sides(*by_citizenship(key, citizenship))

    about = {"measure": "measure", "citizenship": "citizenship", "side": "side"}
    cut = " (what was known ends there)" if asked.last_day and asked.last_day > this.last else ""
    days = f"{this.first} to {this.last}{cut} against {last.first} to {last.last}"
    return _Plan(f"Year to date, {days}{_conditions(asked)}", keys, about, columns)


def _days(asked: Asked, now: Counted) -> Period:
    """Return the days that tables are about: those asked for, as far as they are, else those with a count.

    It has none, and ends before it begins, where what was asked for has none in common.
    """
    counted = sorted(cell[3] for cell, count in now.tallies.items() if count) or ["0001-01-01"]
    first = asked.first_day or date.fromisoformat(counted[0])
    last = asked.last_day or date.fromisoformat(counted[-1])
    for name in _DAYS:
        if asked.where.get(name):
            chosen = [period_of(value) for value in asked.where[name]]
            first = max(first, min(period.first for period in chosen))
            last = min(last, max(period.last for period in chosen))
    return Period(first, last)


def _labels(asked: Asked) -> Callable[[str], str]:
    """Return what a month or a year is called: by its name if all its days were asked for, else by the days that were.

    Days that are not all next to each other, as conditions may choose them, are called by the first and the last.
    """
    first, last = asked.first_day or date.min, asked.last_day or date.max
    chosen = [asked.where[name] for name in _DAYS if name in asked.where]

    @cache
    def label(name: str) -> str:
        whole = period_of(name)
        days = [whole.first + timedelta(days=number) for number in range(whole.days)]
        asked_for = [
            day for day in days if first <= day <= last and all(day.isoformat().startswith(of) for of in chosen)
        ]
        around = Period(asked_for[0], asked_for[-1])
        return around.name if around.days == len(asked_for) else str(around)

    return label


def _limits(asked: Asked) -> str:
    first, last = asked.first_day, asked.last_day
    if first and last:
        return f", {first} to {last}{_conditions(asked)}"
    days = f", from {first} on" if first else f", up to {last}" if last else ""
    return f"{days}{_conditions(asked)}"


def _conditions(asked: Asked) -> str:
    named = [f"{name}={' or '.join(value or 'none' for value in values)}" for name, values in asked.where.items()]
    return f", only {', '.join(named)}" if named else ""


def _table(
    name: TableName,
    plan: _Plan,
    asked: Asked,
    sums: Mapping[Key, int],
    hidden: _Hidden,
    unknown: frozenset[str],
) -> Table:
    blank: dict[str, Any] = dict.fromkeys(plan.columns[0][1], "")

    def figure(key: Key) -> Figure:
        if key.known == "then" and key.side in unknown:
            return Figure(key, None)
        if key in hidden.small or key in hidden.others:
            return Figure(key, None, hidden=True)
        return Figure(key, sums.get(key, 0))

    def rank(row: Key) -> list[tuple[object, ...]]:
        return [_rank(field, getattr(row, field), asked.sides) for field in plan.about]

    abouts = sorted({key._replace(**blank) for key in sums if key.table == name}, key=rank)
    rows = tuple(
        Row(
            tuple(_label(field, getattr(about, field)) for field in plan.about),
            tuple(figure(about._replace(**replaced)) for _, replaced in plan.columns),
        )
        for about in abouts
    )
    return Table(
        name,
        plan.title,
        tuple(plan.about.values()),
        tuple(heading for heading, _ in plan.columns),
        rows,
        sum(key.table == name for key in hidden.small),
        sum(key.table == name for key in hidden.others),
        hidden.countable,
        asked.where,
    )


_MEASURES: Final[tuple[str, ...]] = tuple(UNITS)
_ORIGINS: Final = ("foreign", "domestic")


def _rank(field: str, value: str, sides: Sequence[Side]) -> tuple[object, ...]:
    """Totals come after their parts, what is not stated before them; a year comes after its months."""
    match field:
        case "measure":
            return (_MEASURES.index(value),)
        case "period":
            first, stroke, last = value.partition("/")
            return value[:4], first[:7] != last[:7] if stroke else len(value) == len("2024"), value
        case "side" if value in sides:
            return False, False, list(sides).index(Side(value))
        case "origin" if value in _ORIGINS:
            return False, False, _ORIGINS.index(value)
    return value == TOTAL, not value, 0 if field in ("side", "origin") else value


_ABSENT: Final = {"operation": "outside any", "citizenship": "not stated", "origin": "not stated"}


def _label(field: str, value: str) -> str:
    if field == "operation":  # no total stands among operations, and one of them may have any name
        return value or _ABSENT[field]
    if value == TOTAL:
        return "all sides" if field == "side" else "total"
    return value or _ABSENT.get(field, "")
