"""The running numbers of one device: the highest, the missing ranges below it, and numbers used twice."""

from __future__ import annotations

from bisect import bisect_right

from schemas.tallies import DeviceNumbers
from schemas.vocabulary import Position


def take_number(numbers: DeviceNumbers, number: int, position: Position) -> bool:
    """Note a number in place; return True if it had been seen before."""
    numbers.last_position = position
    if number == numbers.highest + 1:
        numbers.highest = number
        return False
    if number > numbers.highest:
        numbers.missing.append((numbers.highest + 1, number - 1))
        numbers.highest = number
        return False
    return not _fill(numbers.missing, number)


def missing_count(numbers: DeviceNumbers) -> int:
    """Return how many numbers below the highest have not come."""
    return sum(last - first + 1 for first, last in numbers.missing)


def _fill(missing: list[tuple[int, int]], number: int) -> bool:
    """Take a number out of the missing ranges; return False if it was not missing."""
    at = bisect_right(missing, number, key=lambda gap: gap[0]) - 1
    if at < 0 or missing[at][1] < number:
        return False
    first, last = missing[at]
    missing[at : at + 1] = [gap for gap in ((first, number - 1), (number + 1, last)) if gap[0] <= gap[1]]
    return True
