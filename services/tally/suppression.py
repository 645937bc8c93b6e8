"""Which figures to hide so that no small one can be read or worked out. Pure, exact, and the same for the same figures.

Everything that is published together is one system of sums: every figure is the sum over a set of *atoms*, the parts
that no figure tells apart. Whoever reads the tables knows every figure that is shown, that counts are whole and not
negative, and that zeros are never hidden, so that a hidden figure is at least 1.

A figure from 1 to `min_cell` - 1 is *small* and hidden (primary). It is safe once there is a *move*: counts of a few
atoms that go up or down by one, so that every shown figure stays as it is and the small one does not. Where a move
changes figures that are shown, hiding these makes it one (secondary). A move is sought that holds good even for a
reader who was told which of the hidden figures are small: small ones stay small by it, and the others do not become
small. So a small figure has at least two possible values even for that reader. Only where there is no such move, one
will do by which hidden figures merely stay at least 1.

A figure that is hidden with a small one has a move as well, so none of the hidden ones can be worked out. Hiding more
never spoils a move, since what was shown does not change by it. What is hidden is found by a search of moves of 1, 2, 4
and 8 atoms, cheapest first; that it is the least possible is not promised.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Final, NamedTuple, TypeAlias

from msgspec import Struct

LEAST_MIN_CELL: Final = 3
"""Below it the rule itself would tell a small figure: of 1 to 1 there is only one."""

NEAREST: Final = 8
"""How many atoms of a line are tried as a move's other end."""


class Atom(Struct, frozen=True):
    """A part that no figure tells apart: its count above 0, the figures it is in, and where it stands.

    Atoms of another `group` share no figure with it. Atoms that differ in one of the `axes` alone stand in one line.
    """

    count: int
    figures: tuple[int, ...]
    axes: tuple[Hashable, Hashable, Hashable]
    group: Hashable = None


class Suppression(Struct, frozen=True):
    """The figures to hide: those that are small, and those that would give them away.

    `countable` tells whether it may be said how many there are of each: not if a small figure has several values only
    as long as nobody knows.
    """

    primary: frozenset[int] = frozenset()
    secondary: frozenset[int] = frozenset()
    countable: bool = True

    def hides(self, figure: int) -> bool:
        """Tell whether a figure is hidden."""
        return figure in self.primary or figure in self.secondary


_BOXES: Final = ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))
"""Along which axes a move goes: its atoms are the corners of a box with so many edges."""

Move: TypeAlias = list[tuple[int, int]]
"""Atoms by their index, and by how much each changes: 1 or -1."""


class _Option(NamedTuple):
    """A move: what hiding for it costs, whether it falls short of making the small figure none, what it changes."""

    cost: int
    short: bool
    changes: dict[int, int]


def suppress(atoms: Sequence[Atom], min_cell: int, twins: Mapping[int, int] | None = None) -> Suppression:
    """Return what to hide of the figures that the atoms make up; those without an atom are 0 and are shown.

    `twins` are figures that are nearly equal, such as one figure as known at two times, each by the other: they are
    hidden together, or the one that is shown would tell the other.
    """
    if min_cell < LEAST_MIN_CELL:
        raise ValueError(f"min_cell is at least {LEAST_MIN_CELL}")
    return _Search(atoms, min_cell, twins or {}).run()


class _Search:
    def __init__(self, atoms: Sequence[Atom], min_cell: int, twins: Mapping[int, int]) -> None:
        self._atoms = atoms
        self._least = min_cell
        self._twins = twins
        self._values: dict[int, int] = {}
        self._members: dict[int, list[int]] = {}
        for number, atom in enumerate(atoms):
            for figure in atom.figures:
                self._values[figure] = self._values.get(figure, 0) + atom.count
                self._members.setdefault(figure, []).append(number)
        self._primary = frozenset(figure for figure, value in self._values.items() if value < min_cell)
        self._hidden: set[int] = set()
        self._hide(self._primary)
        self._at: dict[tuple[Hashable, ...], int] = {
            (atom.group, *atom.axes): number for number, atom in enumerate(atoms)
        }
        # The figure that says most about an atom: the smallest that it is in.
        self._finest = [min(atom.figures, key=lambda figure: (self._values[figure], figure)) for atom in atoms]
        self._lines: dict[tuple[Hashable, ...], list[int]] = {}
        for number, atom in enumerate(atoms):
            for axis in range(3):
                self._lines.setdefault(_line(atom, axis), []).append(number)

    def run(self) -> Suppression:
        safe: set[int] = set()
        countable = True
        while waiting := self._hidden - safe:  # the small ones, then what was hidden with them and has no move yet
            for figure in sorted(waiting, key=self._turn):
                if figure not in safe:
                    option = self._best(figure, strict=True)
                    if option is None:
                        countable = False
                        option = self._best(figure, strict=False)
                    if option is None:  # an atom that goes up alone is always a move, once all that it is in is hidden
                        raise AssertionError(f"no move for figure {figure}")
                    self._hide(option.changes)
                    safe.update(option.changes)
        return Suppression(self._primary, frozenset(self._hidden - self._primary), countable)

    def _turn(self, figure: int) -> tuple[bool, int, int]:
        return figure not in self._primary, len(self._members[figure]), figure

    def _hide(self, figures: Iterable[int]) -> None:
        for figure in figures:
            self._hidden.add(figure)
            twin = self._twins.get(figure)
            if twin in self._values:
                self._hidden.add(twin)

    def _cost(self, figure: int) -> int:
        """What is lost by hiding a figure: much by a big one, and something by any."""
        return 0 if figure in self._hidden else self._values[figure] + self._least

    def _best(self, figure: int, *, strict: bool) -> _Option | None:
        """Return the cheapest move that changes a figure; of equal ones, one by which it might be no small one."""
        best: _Option | None = None
        for number in self._members[figure]:
            for direction in (1, -1):
                for move in self._moves(number, direction, strict=strict):
                    option = self._judged(figure, move, best and best.cost, strict=strict)
                    if option and (best is None or option[:2] < best[:2]):
                        best = option
                        if best.cost == 0 and not best.short:
                            return best
        return best

    def _judged(self, figure: int, move: Move, most: int | None, *, strict: bool) -> _Option | None:
        """Return what a move costs and changes; None if it is none, or costs more than allowed."""
        changes: dict[int, int] = {}
        for number, change in move:
            if self._atoms[number].count + change < 0:
                return None
            for changed in self._atoms[number].figures:
                changes[changed] = changes.get(changed, 0) + change
        changes = {changed: by for changed, by in changes.items() if by}
        if figure not in changes:
            return None
        cost = 0
        for changed, by in changes.items():
            cost += self._cost(changed)
            if (most is not None and cost > most) or not self._allowed(changed, by, strict=strict):
                return None
        return _Option(cost, not self._reaches(figure, move, changes), changes)

    def _allowed(self, figure: int, change: int, *, strict: bool) -> bool:
        value = self._values[figure] + change
        if not strict:
            return value >= 1
        return 1 <= value < self._least if figure in self._primary else value >= self._least

    def _reaches(self, figure: int, move: Move, changes: Mapping[int, int]) -> bool:
        """Tell whether the same move, made again and again, brings a small figure to where it is none."""
        if changes[figure] < 0:
            return False
        times = -(-(self._least - self._values[figure]) // changes[figure])
        return all(self._atoms[number].count + times * change >= 0 for number, change in move) and all(
            self._values[changed] + times * by >= 1 for changed, by in changes.items()
        )

    def _moves(self, number: int, direction: int, *, strict: bool) -> Iterator[Move]:
        """Yield moves that begin with an atom: corners of a box, up and down in turn, so that sums along it stay."""
        yield [(number, direction)]
        near = [self._nearest(number, axis, -direction, strict=strict) for axis in range(3)]
        for box in _BOXES:
            for ends in product(*(near[axis] for axis in box)):
                if move := self._corners(number, box, ends, direction):
                    yield move

    def _corners(self, number: int, box: Sequence[int], ends: Sequence[int], direction: int) -> Move | None:
        atom = self._atoms[number]
        corners: Move = []
        for taken in product((False, True), repeat=len(box)):
            axes = list(atom.axes)
            for axis, end, at_end in zip(box, ends, taken, strict=True):
                if at_end:
                    axes[axis] = self._atoms[end].axes[axis]
            corner = self._at.get((atom.group, *axes))
            if corner is None:
                return None
            corners.append((corner, -direction if sum(taken) % 2 else direction))
        return corners

    def _nearest(self, number: int, axis: int, change: int, *, strict: bool) -> list[int]:
        """Return the atoms of a line that may change so, those first that cost least."""
        ranked = [
            (self._cost(finest), -self._values[finest], other)
            for other in self._lines[_line(self._atoms[number], axis)]
            if other != number and self._allowed(finest := self._finest[other], change, strict=strict)
        ]
        return [other for *_, other in sorted(ranked)[:NEAREST]]


def _line(atom: Atom, axis: int) -> tuple[Hashable, ...]:
    """Return what all atoms have in common that differ along one axis alone."""
    return atom.group, axis, *atom.axes[:axis], *atom.axes[axis + 1 :]
