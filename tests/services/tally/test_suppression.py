"""What is hidden cannot be worked out from what is shown; who tries is `tests/attacker.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from random import Random
from typing import Any, NamedTuple

import pytest

from services.tally.suppression import Atom, Suppression, suppress
from tests import attacker
from tests.attacker import INFINITE

SMALL_SEEDS = range(40)


class Tables(NamedTuple):
    """Published figures as sums of parts, and the parts' counts."""

    counts: list[int]
    axes: list[tuple[Any, ...]]
    figures: dict[Any, list[int]]

    def value(self, figure: Any) -> int:
        """The count of a figure."""
        return sum(self.counts[part] for part in self.figures[figure])

    def suppressed(self, min_cell: int) -> tuple[set[Any], set[Any]]:
        """The names of the figures that are hidden: small ones, and others."""
        names, found = list(self.figures), self.found(min_cell)
        return {names[at] for at in found.primary}, {names[at] for at in found.secondary}

    def found(self, min_cell: int) -> Suppression:
        """What is hidden, by number."""
        names = list(self.figures)
        number = {name: at for at, name in enumerate(names)}
        of: list[list[int]] = [[] for _ in self.counts]
        for name, parts in self.figures.items():
            for part in parts:
                of[part].append(number[name])
        atoms = [
            Atom(count, tuple(figures), axes)
            for count, figures, axes in zip(self.counts, of, self.axes, strict=True)
        ]  # fmt: skip
        return suppress(atoms, min_cell)

    def known(
        self, hidden: Iterable[Any], bounds: Mapping[Any, tuple[int, int]] | None = None
    ) -> dict[Any, attacker.Sum]:
        """What a reader knows."""
        hidden = set(hidden)
        shown = {figure: self.value(figure) for figure in self.figures if figure not in hidden}
        return attacker.sums(self.figures, shown, bounds or {})


def tables(seed: int, months: int = 3, citizenships: int = 3, sides: int = 2, scale: float = 1.0) -> Tables:
    """Counts by side, citizenship, month and operation, and all the sums of them that `stats` publishes."""
    random = Random(seed)
    counts: list[int] = []
    axes: list[tuple[Any, ...]] = []
    figures: dict[Any, list[int]] = {}
    density = random.choice((0.4, 0.7, 1.0))
    for month, citizenship, side in product(range(months), range(citizenships), range(sides)):
        for operation in ("", "joint") if month == 1 else ("",):
            if random.random() > density:
                continue
            part = len(counts)
            counts.append(min(int(random.paretovariate(scale)), 10**9))
            axes.append((side, citizenship, (month, operation)))
            year = f"year {month // 12}"
            periods = [month, year, *(["to date"] if month % 12 < 2 else [])]
            for name in [
                *product(periods, (citizenship, "all"), (side, "both")),
                ("operation", operation, side),
                ("operation", operation, "both"),
            ]:
                figures.setdefault(name, []).append(part)
    return Tables(counts, axes, figures)


def line(*counts: int) -> Tables:
    """A line of figures with its total."""
    figures: dict[Any, list[int]] = {at: [at] for at in range(len(counts))}
    return Tables(list(counts), [(0, at, 0) for at in range(len(counts))], figures | {"all": list(range(len(counts)))})


def hidden(made: Tables, min_cell: int = 5) -> set[Any]:
    small, others = made.suppressed(min_cell)
    return small | others


def disclosed(made: Tables, shown_none_of: set[Any], small: Iterable[Any], min_cell: int, **more: Any) -> list[Any]:
    """Return the small figures that can have one value only."""
    known = made.known(shown_none_of, **more)
    found = []
    for figure in sorted(small, key=str):
        true = made.value(figure)
        near = sorted(range(1, 4 * min_cell), key=lambda value: (abs(value - true), value))
        if 2 > len(attacker.values(known, figure, near, made.counts)):
            found.append(figure)
    return found


@pytest.mark.parametrize("seed", SMALL_SEEDS)
def test_no_small_figure_can_be_worked_out(seed: int) -> None:
    min_cell = Random(seed).choice((3, 5, 5, 10))
    made = tables(seed, *((2, 3, 2), (3, 2, 2), (2, 4, 1), (1, 4, 2))[seed % 4])
    small, others = made.suppressed(min_cell)
    assert {figure for figure in made.figures if 0 < made.value(figure) < min_cell} == small
    assert not small & others
    assert [] == disclosed(made, small | others, small, min_cell)


def test_the_attacker_works_out_what_is_only_hidden_for_being_small() -> None:
    """Or the test above would show nothing."""
    worked_out = 0
    for seed in range(5):
        made = tables(seed, 2, 3, 2)
        small, _ = made.suppressed(5)
        worked_out += len(disclosed(made, small, small, 5))
    assert worked_out > 10, worked_out


@pytest.mark.parametrize("seed", range(24))
def test_nor_by_who_is_told_how_many_of_the_hidden_figures_are_small_where_that_is_told(seed: int) -> None:
    """Even if it was told which."""
    made = tables(seed, 2, 3, 2)
    found = made.found(5)
    small, others = made.suppressed(5)
    bounds = dict.fromkeys(small, (1, 4)) | dict.fromkeys(others, (5, INFINITE))
    singled_out = disclosed(made, small | others, small, 5, bounds=bounds) if found.countable else []
    assert [] == singled_out


def test_mostly_it_is_told() -> None:
    countable = [tables(seed, 2, 3, 2).found(5).countable for seed in range(24)]
    assert 8 < sum(countable) < 24, countable


def test_many_small_figures_may_as_well_be_no_small_ones() -> None:
    reaching = known_small = 0
    for seed in range(10):
        made = tables(seed, 2, 3, 2)
        small, others = made.suppressed(5)
        known = made.known(small | others)
        for figure in small:
            reaching += bool(attacker.values(known, figure, range(5, 9), made.counts, 1))
            known_small += 1
    assert reaching > 0.8 * known_small, (reaching, known_small)


# --- cases that a person can follow ---


def test_without_small_figures_nothing_is_hidden() -> None:
    assert Suppression() == suppress([Atom(5, (0, 1), (0, 0, 0)), Atom(7, (1,), (0, 1, 0))], 5)
    assert Suppression() == suppress([], 5)


def test_a_small_figure_takes_the_smallest_other_with_it() -> None:
    assert {0, 2} == hidden(line(2, 90, 20, 60))


def test_two_ones_do_not_hide_each_other() -> None:
    """Their sum is 2 and zeros are shown: both would be 1."""
    assert {0, 1, 2} == hidden(line(1, 1, 30, 90))


def test_two_fours_do_not_hide_each_other() -> None:
    """The table says that nothing else is hidden, so both are below 5, and their sum is 8."""
    assert {0, 1, 2} == hidden(line(4, 4, 30, 90))


def test_three_small_ones_need_no_other() -> None:
    assert {0, 1, 2} == hidden(line(1, 2, 3, 90))


def test_a_small_total_is_hidden_with_its_parts() -> None:
    assert {0, 1, "all"} == hidden(line(1, 2))


def test_the_only_part_of_a_total_takes_the_total_with_it() -> None:
    assert {0, "all"} == hidden(line(3))


def test_a_figure_that_is_a_difference_of_two_totals_is_not_given_away() -> None:
    """A year to date that lacks one small month of the year."""
    made = Tables([40, 2], [(0, 0, 0), (0, 0, 1)], {"year": [0, 1], "to date": [0]})
    assert set() == hidden(made)  # the month is published nowhere
    published = Tables([40, 2], [(0, 0, 0), (0, 0, 1)], {"year": [0, 1], "to date": [0], "month": [1]})
    assert "month" in hidden(published)
    assert len(hidden(published)) > 1


def test_counts_of_a_thousand_million_are_exact() -> None:
    made = line(2, 10**9, 10**9 + 1, 3 * 10**9)
    assert {0, 1} == hidden(made)
    assert [] == disclosed(made, hidden(made), [0], 5)


def test_twins_are_hidden_together() -> None:
    """A figure known at two times: if another neighbour of the small one were hidden at each, the two would tell."""
    now = [Atom(2, (0, 3), (0, 0, 0)), Atom(20, (1, 3), (0, 1, 0)), Atom(30, (2, 3), (0, 2, 0))]
    then = [
        Atom(2, (10, 13), (0, 0, 0), "then"),
        Atom(31, (11, 13), (0, 1, 0), "then"),
        Atom(30, (12, 13), (0, 2, 0), "then"),
    ]
    twins = {at: at + 10 for at in range(4)} | {at + 10: at for at in range(4)}
    found = suppress([*now, *then], 5, twins)
    assert {0, 1, 10, 11} == found.primary | found.secondary


@pytest.mark.parametrize("min_cell", [-1, 0, 1, 2])
def test_below_three_the_rule_itself_would_tell(min_cell: int) -> None:
    with pytest.raises(ValueError, match="at least 3"):
        suppress([], min_cell)


def test_the_same_figures_are_always_hidden() -> None:
    made = tables(7, 12, 10, 2)
    assert made.suppressed(5) == made.suppressed(5)


# --- the size of the real thing ---


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_two_years_of_sixty_citizenships_are_hidden_fast_and_hold(scale: float) -> None:
    made = tables(3, 24, 60, 2, scale)
    small, others = made.suppressed(5)
    assert len(small) > 500
    assert others
    assert [] == attacker.singled_out(made.known(small | others), small)
    assert [] != attacker.singled_out(made.known(small), small)
