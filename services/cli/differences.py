"""What an audit says of each difference: the cells, the first position at which they part, the events behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

from msgspec import Struct

from schemas.claims import Claim
from schemas.vocabulary import Position, Side, order
from services.archive.disagreement import Partings
from services.archive.engine import Engine
from services.replay.audit import Live, Verdict
from services.replay.history import History, Timeline, Touch
from services.tally.cells import CELL_PARTS, Cell
from services.tally.compare import Finding, holds, of_claim
from services.tally.rollup import Terms

CELLS_MAX: Final = 1_000
"""So many differing cells are followed through the log; more are only named."""

EVENTS_MAX: Final = 20
"""So many events of each cell, or of a published figure, are listed; more are counted."""

SOUGHT_MAX: Final = 20
"""Of so many cells SQL is asked for each by itself where it parts from the fold; it takes some twenty looks a cell."""


class Behind(Struct, frozen=True):
    """An event that changed differing cells: `cells` are these, each with the `change` that the fold made of it."""

    side: Side
    position: Position
    id: str
    type: str
    revision: int
    time: datetime
    section: str
    cells: list[dict[str, Any]]


class Parted(Struct, frozen=True):
    """What parted, from which position on, and the first of the events behind it, of which there are `events_in_all`.

    `kind` is `live` (against rebuilt), `sql` (against the fold) or `claim`. `first_position` is the first from which
    the two are never again the same; None if no entry of the log has to do with it. `side` says whose it is. Each of
    the cells has a `first_position` and an `events_in_all` of its own, and says in its `text` what these mean; they are
    not known of a cell that was not `followed`. The events are the first EVENTS_MAX of every cell.
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
    ever, touches = _by_cell(history.touches), _by_cell(_until(history, live.position).touches)
    cells: list[dict[str, Any]] = []
    behind: dict[Cell, list[Touch]] = {}
    followed = set(question.live_cells())
    for cell, row in rows.items():
        since = behind[cell] = _since(touches.get(cell, ()), cell, row.live) if cell in followed else []
        first = since[0].position if since else None
        known = cell in followed and (first is not None or not row.rebuilt)
        if first:
            text = f"from {first} on the log never again gives the {row.live:,} that live holds"
        elif cell not in followed:
            text = "not followed through the log"
        elif row.rebuilt:
            text = "the entries that changed it come after those that were followed"
        elif cell in ever:
            text = f"no event had added to it at {live.position}, live holds {row.live:,} there"
        else:
            text = f"no event of the log ever added to it, live holds {row.live:,}"
        figures = {"live": row.live, "rebuilt": row.rebuilt, "first_position": first, "followed": known}
        cells.append(_named(cell) | figures | {"events_in_all": len(since), "text": text})
    first = min((since[0].position for since in behind.values() if since), key=order, default=None)
    text = (
        f"from {first} on the log never again gives what live holds"
        if first
        else "no entry of the log changed these cells: live holds what was never reported"
    )
    return _parted("live", side, cells, first, behind, text + _caveat(history, len(rows)))


def _sql(question: Question, side: Side, history: History, engine: Engine) -> Parted | None:
    rows = {row.cell: row for row in question.verdict.disagreements or () if row.cell[0] == side}
    if not rows:
        return None
    followed = [cell for cell in question.sql_cells() if cell[0] == side] or list(rows)[:CELLS_MAX]
    partings = Partings(engine, side, Timeline(history.touches, followed).at)
    first, _ = partings.first(followed)
    touches = _by_cell(history.touches)
    cells: list[dict[str, Any]] = []
    behind: dict[Cell, list[Touch]] = {}
    for cell, row in rows.items():
        sought = cell in followed[:SOUGHT_MAX]
        figures: dict[str, Any] = {"fold": row.fold, "sql": row.sql, "first_position": None, "followed": sought}
        text = f"not sought by itself; it parts at {first} or after"
        since = [touch for touch in touches.get(cell, ()) if order(touch.position) >= order(first)]
        if sought:
            position, counts = partings.first([cell])
            fold, sql = counts.get(cell, (row.fold, row.sql))
            figures["first_position"] = position
            text = f"from {position} on they differ: there the fold counts {fold:,}, SQL {sql:,}"
            since = [touch for touch in since if order(touch.position) >= order(position)]
            if not since or since[0].position != position:  # the fold made nothing of it
                found = engine.event_at(side, position)
                since[:0] = [Touch(side, position, *found, {cell: 0})] if found else []
        behind[cell] = since
        cells.append(_named(cell) | figures | {"events_in_all": len(since), "text": text})
    text = f"from {first} on the fold and SQL differ"
    return _parted("sql", side, cells, first, behind, text + _caveat(history, len(rows)))


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
        since = f" from {touches[right_until].side} {touches[right_until].position} on" if right_until >= 0 else ""
        text = f"{what}: right{since} until the {parting.type} at {parting.side} {parting.position} parted it"
        events = touches[right_until + 1 :]
    if not touches:
        text = f"{what}: no event of the log ever added to it"
    first = parting or (touches[0] if touches else None)
    side, position = (first.side, first.position) if first else ("", None)
    caveat = "".join({_caveat(history, 0) for history in histories.values()})
    figures = {
        "text": finding.text, "measure": finding.measure, "key": finding.key,
        "published": finding.published, "rebuilt": finding.rebuilt,
        "first_position": position, "events_in_all": len(events),
    }  # fmt: skip
    behind = [
        _behind(touch, {cell: change for cell, change in touch.changed.items() if summed(cell)})
        for touch in events[:EVENTS_MAX]
    ]
    return Parted("claim", side, [figures], position, behind, len(events), text + caveat)


def _parted(
    kind: Literal["live", "sql"],
    side: str,
    cells: list[dict[str, Any]],
    first: Position | None,
    behind: Mapping[Cell, Sequence[Touch]],
    text: str,
) -> Parted:
    """Put the events of all cells in the order of the log, each with the cells that it is listed for."""
    listed: dict[Position, Touch] = {}
    changes: dict[Position, dict[Cell, int]] = {}
    for cell, touches in behind.items():
        for touch in touches[:EVENTS_MAX]:
            listed[touch.position] = touch
            changes.setdefault(touch.position, {})[cell] = touch.changed[cell]
    events = [_behind(listed[position], changes[position]) for position in sorted(listed, key=order)]
    in_all = len({touch.position for touches in behind.values() for touch in touches})
    return Parted(kind, side, cells, first, events, in_all, text)


def _behind(touch: Touch, changes: Mapping[Cell, int]) -> Behind:
    cells = [_named(cell) | {"change": change} for cell, change in changes.items()]
    return Behind(touch.side, touch.position, touch.id, touch.type, touch.revision, touch.time, touch.section, cells)


def _by_cell(touches: Iterable[Touch]) -> dict[Cell, list[Touch]]:
    found: dict[Cell, list[Touch]] = {}
    for touch in touches:
        for cell in touch.changed:
            found.setdefault(cell, []).append(touch)
    return found


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
