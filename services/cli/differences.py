"""What an audit says of each difference: the cells, the first position at which they part, the events behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from msgspec import Struct

from schemas.claims import Claim
from schemas.vocabulary import Position, Side, order
from services.archive.disagreement import first_parting
from services.archive.engine import Engine
from services.replay.audit import Live, Verdict
from services.replay.history import History, Timeline, Touch
from services.tally.cells import Cell
from services.tally.compare import Finding, holds, of_claim
from services.tally.rollup import Terms

CELL_PARTS: Final = ("side", "operation", "section", "day", "measure", "citizenship")
CELLS_MAX: Final = 1_000
"""So many differing cells are followed through the log; more are only named."""

EVENTS_MAX: Final = 20


class Behind(Struct, frozen=True):
    """An event that changed a differing cell."""

    side: Side
    position: Position
    id: str
    type: str
    revision: int


class Parted(Struct, frozen=True):
    """What parted, from which position on, and the first of the events behind it, of which there are `events_in_all`.

    `kind` is `live` (against rebuilt), `sql` (against the fold) or `claim`. `first_position` is the first from which
    the two are never again the same; None if no entry of the log has to do with it. `side` says whose it is.
    """

    kind: Literal["live", "sql", "claim"]
    side: str
    cells: list[dict[str, Any]]
    first_position: Position | None
    events: list[Behind]
    events_in_all: int
    text: str


class Question(Struct, frozen=True):
    """What an audit found, and what it takes to explain it; `ends` is where the logs were read to."""

    verdict: Verdict
    lives: Sequence[Live]
    ends: Mapping[Side, Position]
    failed: Sequence[tuple[Claim, Finding]]
    terms: Terms

    def watched(self) -> Callable[[Cell], bool]:
        """Return which cells have to be followed through the log."""
        cells = {*self.live_cells(), *self.sql_cells()}
        summed = [of_claim(claim, finding.key, self.terms) for claim, finding in self.failed]
        return lambda cell: cell in cells or any(one(cell) for one in summed)

    def live_cells(self) -> list[Cell]:
        """Return the cells in which live and rebuilt differ, as far as they are followed: the earliest days first."""
        return _earliest(row.cell for row in self.verdict.differences)

    def sql_cells(self) -> list[Cell]:
        """Return the cells in which the fold and SQL differ, as far as they are followed."""
        return _earliest(row.cell for row in self.verdict.disagreements or ())


def explain_all(question: Question, histories: Mapping[Side, History], engine: Engine) -> list[Parted]:
    """Return an explanation of every difference, from what changed the watched cells of each side."""
    ended = {side: _until(found, question.ends[side]) for side, found in histories.items()}
    return [
        *(one for live in question.lives if (one := _live(question, live, histories[live.side.side]))),
        *(one for side, found in ended.items() if (one := _sql(question, side, found, engine))),
        *(_claim(claim, finding, question.terms, ended) for claim, finding in question.failed),
    ]


def _live(question: Question, live: Live, history: History) -> Parted | None:
    side = live.side.side
    rows = {row.cell: row for row in question.verdict.differences if row.cell[0] == side}
    if not rows:
        return None
    touches = _until(history, live.position).touches
    cells: list[dict[str, Any]] = []
    behind: set[Position] = set()
    firsts: list[Position] = []
    followed = set(question.live_cells())
    for cell, row in rows.items():
        parted = _since(touches, cell, row.live) if cell in followed else []
        behind |= {touch.position for touch in parted}
        first = parted[0].position if parted else None
        firsts += [first] if first else []
        cells.append(_named(cell) | {"live": row.live, "rebuilt": row.rebuilt, "first_position": first})
    first = min(firsts, key=order, default=None)
    events = [touch for touch in touches if touch.position in behind]
    text = (
        f"from {first} on the log never again gives what live holds"
        if first
        else "no entry of the log changed these cells: live holds what was never reported"
    )
    return _parted("live", side, cells, first, events, text + _caveat(history, len(rows)))


def _sql(question: Question, side: Side, history: History, engine: Engine) -> Parted | None:
    rows = {row.cell: row for row in question.verdict.disagreements or () if row.cell[0] == side}
    if not rows:
        return None
    followed = [cell for cell in question.sql_cells() if cell[0] == side] or list(rows)[:CELLS_MAX]
    first = first_parting(engine, side, Timeline(history.touches, followed).at)
    events = [
        touch
        for touch in history.touches
        if order(touch.position) >= order(first) and any(cell in rows for cell in touch.changed)
    ]
    if not events or events[0].position != first:  # the fold made nothing of it
        found = engine.event_at(side, first)
        events[:0] = [Touch(side, first, *found, {})] if found else []
    cells = [_named(row.cell) | {"fold": row.fold, "sql": row.sql} for row in rows.values()]
    text = f"from {first} on the fold and SQL differ"
    return _parted("sql", side, cells, first, events, text + _caveat(history, len(rows)))


def _claim(claim: Claim, finding: Finding, terms: Terms, histories: Mapping[Side, History]) -> Parted:
    summed = of_claim(claim, finding.key, terms)
    touches = sorted(
        (touch for history in histories.values() for touch in history.touches if any(map(summed, touch.changed))),
        key=lambda touch: (order(touch.position), touch.side),
    )
    counted, right, right_until = 0, holds(claim, finding.key, 0), -1
    for number, touch in enumerate(touches):
        counted += sum(change for cell, change in touch.changed.items() if summed(cell))
        if holds(claim, finding.key, counted):
            right, right_until = True, number
    what = f"{finding.measure} {finding.key}".strip()
    parting = touches[right_until + 1] if right and right_until + 1 < len(touches) else None
    if not parting:
        text = f"{what}: at no position did the log give the published figure"
        events = touches
    else:
        until = f"until {touches[right_until].side} {touches[right_until].position}" if right_until >= 0 else "at first"
        text = f"{what}: right {until}, parted by the {parting.type} at {parting.side} {parting.position}"
        events = touches[right_until + 1 :]
    first = parting or (touches[0] if touches else None)
    figures = {"text": finding.text, "measure": finding.measure, "key": finding.key}
    cells = [figures | {"published": finding.published, "rebuilt": finding.rebuilt}]
    side, position = (first.side, first.position) if first else ("", None)
    caveat = "".join({_caveat(history, 0) for history in histories.values()})
    return _parted("claim", side, cells, position, events, text + caveat)


def _parted(
    kind: Literal["live", "sql", "claim"],
    side: str,
    cells: list[dict[str, Any]],
    first: Position | None,
    events: Sequence[Touch],
    text: str,
) -> Parted:
    behind = [Behind(one.side, one.position, one.id, one.type, one.revision) for one in events[:EVENTS_MAX]]
    return Parted(kind, side, cells, first, behind, len(events), text)


def _until(found: History, end: Position) -> History:
    return History([touch for touch in found.touches if order(touch.position) <= order(end)], whole=found.whole)


def _since(touches: Iterable[Touch], cell: Cell, held: int) -> list[Touch]:
    """Return the touches of a cell from the first on after which it never again was what is held."""
    since: list[Touch] = []
    counted = 0
    for touch in touches:
        if cell in touch.changed:
            counted += touch.changed[cell]
            if counted == held:
                since.clear()
            else:
                since.append(touch)
    return since


def _caveat(history: History, cells: int) -> str:
    if not history.whole:
        return f"; only the first {len(history.touches):,} entries that changed these cells were followed"
    return f"; of {cells:,} cells, {CELLS_MAX:,} were followed" if cells > CELLS_MAX else ""


def _earliest(cells: Iterable[Cell]) -> list[Cell]:
    return sorted(cells, key=lambda cell: (cell[3], cell))[:CELLS_MAX]


def _named(cell: Cell) -> dict[str, Any]:
    return dict(zip(CELL_PARTS, cell, strict=True))
