"""How some cells came to hold what they hold: a replay that notes every entry which changed one of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from schemas.events import TYPE_PREFIX
from schemas.vocabulary import Position, Side, order
from services.replay.replay import Replay
from services.runtime.settings import SideSettings
from services.store.contract import Log
from services.tally.cells import Cell
from services.tally.fold import Arrival, Key, Version, fold

if TYPE_CHECKING:
    from services.store.recurrence import Recurring

TOUCHES_MAX: Final = 100_000
"""So many are noted of one side; what is watched is a few cells, or the cells of one published figure."""


class Touch(Struct, frozen=True):
    """An entry that changed cells: which event it is, when and where it was, and by how much it changed each of them.

    `section` is empty where the event has none.
    """

    side: Side
    position: Position
    id: str
    type: str
    revision: int
    time: datetime
    section: str
    changed: dict[Cell, int]


class History(Struct, frozen=True):
    """The touches of one side, in the order of its log; `whole` unless there were too many to note."""

    touches: list[Touch]
    whole: bool


async def history(
    side: SideSettings,
    log: Log,
    until: Position,
    watched: Callable[[Cell], bool],
    recurring: Recurring | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> History:
    """Return what changed the watched cells, up to and with a position; `recurring` as a replay takes it."""
    replay = _Watching(side, log, watched, recurring)
    await replay.run(until, on_progress)
    return History(replay.touches[:TOUCHES_MAX], whole=len(replay.touches) <= TOUCHES_MAX)


class Timeline:
    """What some cells held at any position, from the touches of one side."""

    def __init__(self, touches: Iterable[Touch], cells: Iterable[Cell]) -> None:
        self._at: dict[Cell, tuple[list[tuple[int, int]], list[int]]] = {cell: ([], []) for cell in cells}
        for touch in touches:
            for cell, change in touch.changed.items():
                if cell in self._at:
                    positions, counts = self._at[cell]
                    positions.append(order(touch.position))
                    counts.append((counts[-1] if counts else 0) + change)

    def at(self, position: Position) -> Mapping[Cell, int]:
        """Return the cells' counts at a position."""
        found = {}
        for cell, (positions, counts) in self._at.items():
            number = bisect_right(positions, order(position))
            found[cell] = counts[number - 1] if number else 0
        return found


class _Watching(Replay):
    """Folds entry by entry: a batch only says what became of a cell in the end."""

    def __init__(
        self, side: SideSettings, log: Log, watched: Callable[[Cell], bool], recurring: Recurring | None
    ) -> None:
        super().__init__(side, log, recurring)
        self._watched = watched
        self.touches: list[Touch] = []

    async def _fold(self, arrivals: list[Arrival]) -> None:
        known = dict(await self._known(arrivals))
        index: dict[Key, Version] = {}
        for arrival in arrivals:
            before = self.state.tallies
            changes = fold(self.state, [arrival], known)
            event = arrival.event
            if event and len(self.touches) <= TOUCHES_MAX:
                changed = {
                    cell: count - before.get(cell, 0) for cell, count in changes.cells.items() if self._watched(cell)
                }
                if changed:
                    kind = str(event.__struct_config__.tag).removeprefix(TYPE_PREFIX).rpartition(".")[0]
                    section = getattr(event.data, "section", "")
                    self.touches.append(
                        Touch(
                            self.state.side, arrival.position, str(event.id), kind, event.revision, event.time, section,
                            changed,
                        )
                    )  # fmt: skip
            self.state.take(changes)
            known |= changes.index
            index |= changes.index
        self._remember(arrivals, index)
