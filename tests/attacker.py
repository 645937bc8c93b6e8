"""Works out hidden figures from published ones: shares no code with what hides them.

Unknown are the parts that figures are sums of, whole numbers from 0. A shown figure fixes the sum of its parts, a
hidden one is at least 1, for zeros are shown. Exact: bounds are narrowed until nothing moves, then values are tried.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

INFINITE: Final = 10**12
TRIES: Final = 20_000

Name = TypeVar("Name", bound=Hashable)


class Sum(NamedTuple):
    """What is known of a sum: its parts, and the least and most that it may be."""

    parts: tuple[int, ...]
    least: int
    most: int


class GaveUpError(Exception):
    """The search took too long to say yes or no."""


def sums(
    figures: Mapping[Name, Sequence[int]], shown: Mapping[Name, int], bounds: Mapping[Name, tuple[int, int]]
) -> dict[Name, Sum]:
    """Return what is known: of shown figures their value, of the others the bounds, from 1 on if there are none."""
    return {
        name: Sum(tuple(parts), *((shown[name],) * 2 if name in shown else bounds.get(name, (1, INFINITE))))
        for name, parts in figures.items()
    }


def possible(known: Mapping[Name, Sum], figure: Name, value: int, near: Sequence[int]) -> bool:
    """Tell whether a figure may have a value, with everything else that is known; values near some are tried first."""
    system = [*known.values(), Sum(known[figure].parts, value, value)]
    ranges = dict.fromkeys(sorted({part for one in system for part in one.parts}), (0, INFINITE))
    return _solvable(system, _touching(system), ranges, range(len(system)), near, [TRIES])


def values(
    known: Mapping[Name, Sum], figure: Name, candidates: Iterable[int], near: Sequence[int], enough: int = 2
) -> list[int]:
    """Return possible values of a figure, no more than are enough; GaveUpError if too few are certain."""
    found: list[int] = []
    uncertain = False
    for value in candidates:
        if len(found) == enough:
            break
        try:
            found += [value] if possible(known, figure, value, near) else []
        except GaveUpError:
            uncertain = True
    if uncertain and len(found) < enough:
        raise GaveUpError
    return found


def singled_out(known: Mapping[Name, Sum], figures: Iterable[Name]) -> list[Name]:
    """Return the figures whose value is found without trying, by narrowing the bounds of all their parts."""
    system = list(known.values())
    ranges = dict.fromkeys(sorted({part for one in system for part in one.parts}), (0, INFINITE))
    assert _narrowed(system, _touching(system), ranges, range(len(system)))
    return [name for name in figures if all(ranges[part][0] == ranges[part][1] for part in known[name].parts)]


def _touching(system: Sequence[Sum]) -> dict[int, list[int]]:
    touching: dict[int, list[int]] = {}
    for number, one in enumerate(system):
        for part in one.parts:
            touching.setdefault(part, []).append(number)
    return touching


def _solvable(
    system: Sequence[Sum],
    touching: Mapping[int, Sequence[int]],
    ranges: dict[int, tuple[int, int]],
    changed: Iterable[int],
    near: Sequence[int],
    budget: list[int],
) -> bool:
    budget[0] -= 1
    if budget[0] < 0:
        raise GaveUpError
    if not _narrowed(system, touching, ranges, changed):
        return False
    loose = {part: bounds for part, bounds in ranges.items() if bounds[0] < bounds[1]}
    if not loose:
        return True
    part, (least, most) = min(loose.items(), key=lambda item: (item[1][1] - item[1][0], item[0]))
    return any(
        _solvable(system, touching, ranges | {part: (value, value)}, touching[part], near, budget)
        for value in _spread(least, most, near[part])
    )


def _spread(least: int, most: int, near: int) -> Iterable[int]:
    """Values from one outward; of a long range only those around it."""
    least, most = max(least, near - 100), min(most, near + 100)
    return sorted(range(least, most + 1), key=lambda value: abs(value - near))


def _narrowed(
    system: Sequence[Sum],
    touching: Mapping[int, Sequence[int]],
    ranges: dict[int, tuple[int, int]],
    changed: Iterable[int],
) -> bool:
    waiting = dict.fromkeys(changed)
    while waiting:
        number, _ = waiting.popitem()
        one = system[number]
        least = sum([ranges[part][0] for part in one.parts])
        most = sum([ranges[part][1] for part in one.parts])
        if least > one.most or most < one.least:
            return False
        for part in one.parts:
            low, high = ranges[part]
            tighter = max(low, one.least - (most - high)), min(high, one.most - (least - low))
            if tighter[0] > tighter[1]:
                return False
            if tighter != (low, high):
                ranges[part] = tighter
                least, most = least - low + tighter[0], most - high + tighter[1]
                waiting.update(dict.fromkeys(touching[part]))
    return True
