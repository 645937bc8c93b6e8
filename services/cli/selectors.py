"""The selectors that `tallies` and `replay` share: which cells to sum, by what, and up to which position."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import click

from schemas.vocabulary import CITIZENSHIPS, LAST_SEQUENCE, NAME_RULE, UNITS, Position, is_name
from services.runtime.errors import UsageError
from services.runtime.settings import Settings
from services.tally.rollup import DIMENSIONS, MIXED_UNITS, Dimension, Selection

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


def read_as_of(text: str, option: str = "--as-of") -> Position:
    """Read a position, or a time of receipt as the last position that it includes."""
    if found := re.fullmatch(r"([0-9]{1,20})-([0-9]{1,20})", text):
        if max(int(found[1]), int(found[2])) <= LAST_SEQUENCE:
            return Position(text)
    elif re.fullmatch(r"[0-9]{11,15}", text):
        return Position(f"{text}-{LAST_SEQUENCE}")
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise UsageError(
            f"{option} {text!r}: a position such as 1710385929000-0, or a time with an offset such as "
            "2024-03-14T12:00:00+01:00"
        )
    milliseconds = (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    return Position(f"{max(milliseconds, 0)}-{LAST_SEQUENCE}")


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
