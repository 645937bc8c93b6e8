"""Engines opened on logs that are given as entries, and the fold of the same logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from schemas.vocabulary import Position, Side
from services.archive.engine import Engine
from services.runtime.settings import SideSettings, read_settings
from services.store.columns import table_of
from services.store.contract import Entry
from services.tally.fold import State, arrive, fold
from tests import given

Logs: TypeAlias = Mapping[str, Sequence[given.Fields]]


def position(number: int) -> Position:
    """Return the position of an entry by its number from 1; some share a millisecond."""
    return Position(f"{1_700_000_000_000 + number // 3}-{number % 3}")


def entries(fields: Sequence[given.Fields]) -> list[Entry]:
    """Return these as entries of a log."""
    return [Entry(position(number), one) for number, one in enumerate(fields, 1)]


def settings_of(side: str) -> SideSettings:
    """Return the settings of a side."""
    return read_settings({}).side(side)


def opened(logs: Logs) -> Engine:
    """Return an engine on these logs, as if nothing were archived; both sides have one, if only an empty one."""
    engine = Engine()
    for name in ("SI", "HR"):
        engine.add_side(settings_of(name))
        engine.add(Side(name), table_of(entries(logs.get(name, ()))))
    engine.complete()
    return engine


def folded(side: str, made: Sequence[Entry], stop: int | None = None) -> given.Folded:
    """Return the fold of a log, or of so many of its first entries."""
    into = given.Folded(side=side)
    arrivals = [arrive(entry.position, entry.fields) for entry in made[:stop]]
    changes = fold(State(Side(side), given.ZONES[side]), arrivals, {})
    into.state.take(changes)
    into.parked |= changes.parked
    return into
