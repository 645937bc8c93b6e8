"""The selectors that commands share: which cells to sum, by what, and up to which position."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any, Final, TypeAlias

import click

from schemas.vocabulary import CITIZENSHIPS, NAME_RULE, UNITS, Position, Side, is_name, order
from services.cli.output import note
from services.runtime.clock import now
from services.runtime.errors import UsageError
from services.runtime.settings import Settings
from services.runtime.stops import (
    EXAMPLE_POSITION,
    EXAMPLE_TIME,
    EXAMPLES_LOCAL,
    ahead,
    read_positions,
    read_stops,
)
from services.tally.rollup import DIMENSIONS, MIXED_UNITS, Dimension, Selection

AsOf: TypeAlias = Mapping[Side, Position]
"""The last position that is taken of each side."""

NOT_CUT: Final[AsOf] = {}

ENDS: Final = "A day (2024-03-14) or a month (2024-03) means its end."
"""For the help of each option that `read_as_of` reads."""

_SHAPES: Final[dict[str, tuple[str, str]]] = {
    "day": (r"[0-9]{4}-[0-9]{2}-[0-9]{2}", "a date such as 2024-03-14"),
    "month": (r"[0-9]{4}-(0[1-9]|1[0-2])", "a month such as 2024-03"),
    "year": (r"[0-9]{4}", "a year such as 2024"),
}


def selector_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose cells."""
    options = [
        click.option("--by", "by", multiple=True, default=("side,operation,measure",), show_default=True,
                     metavar="DIM,…", help=f"Dimensions: {', '.join(DIMENSIONS)}."),
        click.option("--where", "where", multiple=True, metavar="DIM=VALUE",
                     help="Only these cells; may be repeated. Several values of one dimension: any of them."),
        click.option("--from", "first_day", metavar="DATE", help="First day, included."),
        click.option("--to", "last_day", metavar="DATE", help="Last day, included."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def read_selection(
    settings: Settings, by: tuple[str, ...], where: tuple[str, ...], first_day: str | None, last_day: str | None
) -> Selection:
    """Read the selectors; UsageError names the wrong one and what is allowed."""
    named = ",".join(by)
    chosen = tuple(_dimension("--by", name.strip()) for name in named.split(","))
    if len(set(chosen)) != len(chosen):
        raise UsageError(f"--by {named!r} names a dimension twice; once is enough")
    wanted: dict[Dimension, tuple[str, ...]] = {}
    for condition in where:
        name, equals, value = condition.partition("=")
        if not equals:
            raise UsageError(f"--where {condition!r}: write DIM=VALUE, such as side=SI")
        dimension = _dimension("--where", name.strip())
        given = read_value(settings, "--where ", dimension, value.strip())
        wanted[dimension] = tuple(dict.fromkeys([*wanted.get(dimension, ()), given]))
    selection = Selection(chosen, wanted, _day("--from", first_day), _day("--to", last_day))
    if selection.first_day and selection.last_day and selection.first_day > selection.last_day:
        raise UsageError(f"--from {first_day} lies after --to {last_day}")
    if selection.mixes_units:
        raise UsageError(f"--by {named}: {MIXED_UNITS}, such as --where measure=persons")
    return selection


def read_as_of(settings: Settings, text: str | None, option: str = "--as-of") -> AsOf:
    """Read a position or a time, and say of it what may not be obvious; without one, no side has a stop.

    UsageError names the option, what is wrong, and what may be written.
    """
    if text is None:
        return NOT_CUT
    sides = [side.side for side in settings.sides]
    each = ",".join(f"{side}:…" for side in sides)
    zone, at = settings.sides[0].zone, now()
    named = read_positions(text) or {}
    if unknown := [side for side in named if side not in sides]:
        raise UsageError(f"{option} {text!r}: there is no side {unknown[0]}; there are {', '.join(sides)}")
    stops = read_stops(text, sides, zone, at)
    if stops is None and named:
        raise UsageError(f"{option} {text!r}: name one side, or each of them: {each}")
    if stops is None:
        raise UsageError(
            f"{option} {text!r}: a position such as {EXAMPLE_POSITION}, one for each side as printed ({each}), "
            f"a time with an offset such as {EXAMPLE_TIME}, or {', '.join(EXAMPLES_LOCAL)} in {zone.key}"
        )
    if stops.said == "position" and len(sides) > 1:
        note(f"{option} {text} names no side: it is taken for each of {', '.join(sides)}; one for each is {each}")
    elif stops.said == "one-position":
        others = ", ".join(side for side in sides if side not in named)
        note(f"{option} {text} names no other side: {others} up to the end of that millisecond; one for each is {each}")
    elif stops.said == "local-time":
        time = datetime.fromtimestamp(order(stops.at[sides[0]])[0] // 1_000, zone)
        note(f"{option} {text} is {time.isoformat()}, in {zone.key}")
    if late := ahead(stops.at, at):
        note(f"{option} {text} has not come yet: {', '.join(late)} as the log stands now")
    return stops.at


def _dimension(option: str, name: str) -> Dimension:
    if name not in DIMENSIONS:
        raise UsageError(f"{option} {name!r}: no such dimension; there are {', '.join(DIMENSIONS)}")
    return name


def read_value(settings: Settings, place: str, dimension: Dimension, value: str) -> str:
    """Read a value of a dimension; UsageError names the place it stands in, such as `--where `, and what is allowed."""
    closed: dict[str, tuple[str, ...]] = {
        "side": tuple(side.side for side in settings.sides),
        "measure": tuple(UNITS),
        "coverage": ("joint", "remaining", ""),
        "origin": ("domestic", "foreign", ""),
    }
    if dimension in closed and value not in closed[dimension]:
        allowed = ", ".join(option or "nothing (for none)" for option in closed[dimension])
        raise UsageError(f"{place}{dimension}={value}: no such {dimension}; there are {allowed}")
    if dimension == "citizenship" and value and value not in CITIZENSHIPS:
        raise UsageError(f"{place}{dimension}={value}: three letters of a travel document, such as SYR, or nothing")
    if dimension in ("operation", "section") and value and not is_name(value):
        raise UsageError(f"{place}{dimension}={value}: {dimension} {NAME_RULE}")
    if dimension in _SHAPES:
        pattern, example = _SHAPES[dimension]
        if not re.fullmatch(pattern, value):
            raise UsageError(f"{place}{dimension}={value}: {example}")
        if dimension == "day":
            _day(f"{place}day", value)
    return value


def _day(option: str, text: str | None) -> date | None:
    if text is None:
        return None
    try:
        if not re.fullmatch(_SHAPES["day"][0], text):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{option} {text!r}: {_SHAPES['day'][1]}") from error
