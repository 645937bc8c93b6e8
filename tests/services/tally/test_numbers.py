"""The running numbers of a device: whatever the order, the missing ones are those that a set would miss."""

from __future__ import annotations

import copy
from random import Random

from hypothesis import given as examples
from hypothesis import strategies as st

from schemas.tallies import DeviceNumbers
from schemas.vocabulary import Position
from services.tally.numbers import missing_count, take_number
from tests import given, oracle
from tests.given import Folded

AT = Position("7-0")


def taken(*numbers: int) -> DeviceNumbers:
    device = DeviceNumbers()
    for number in numbers:
        take_number(device, number, AT)
    return device


def test_numbers_in_order_miss_nothing() -> None:
    assert DeviceNumbers(3, [], AT) == taken(1, 2, 3)


def test_a_first_number_above_1_misses_those_before_it() -> None:
    assert DeviceNumbers(118, [(1, 117)], AT) == taken(118)


def test_a_number_that_comes_late_splits_its_range() -> None:
    assert DeviceNumbers(10, [(1, 3), (5, 9)], AT) == taken(10, 4)


def test_a_number_at_the_edge_of_a_range_shortens_it() -> None:
    assert DeviceNumbers(10, [(2, 8)], AT) == taken(10, 1, 9)


def test_the_last_missing_number_closes_its_range() -> None:
    assert DeviceNumbers(5, [], AT) == taken(1, 2, 5, 4, 3)


def test_only_a_number_that_came_before_was_seen_before() -> None:
    device = taken(1, 5)

    assert [take_number(device, number, AT) for number in (5, 3, 3, 6, 1)] == [True, False, True, False, True]


@examples(st.lists(st.integers(1, 40), min_size=1))
def test_the_missing_ranges_are_what_a_set_misses(numbers: list[int]) -> None:
    device = DeviceNumbers()
    seen: set[int] = set()
    for number in numbers:
        assert (number in seen) == take_number(device, number, AT)
        seen.add(number)
        assert oracle.missing(seen) == (device.highest, device.missing)
    assert max(seen) - len(seen) == missing_count(device)


@examples(st.lists(st.integers(1, 10**12), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(numbers: list[int], random: Random) -> None:
    shuffled = copy.copy(numbers)
    random.shuffle(shuffled)

    assert taken(*numbers) == taken(*shuffled)


@examples(given.logs("SI"))
def test_the_fold_keeps_the_numbers_of_each_device_apart(log: list[given.Fields]) -> None:
    folded = Folded()
    folded.take_entries(log)
    came: dict[str, set[int]] = {}
    for fields in log:
        if document := oracle.event_of(fields, "SI"):
            came.setdefault(document["source"].removeprefix("/SI/"), set()).add(document["reportno"])

    assert {device: oracle.missing(numbers) for device, numbers in came.items()} == folded.numbers
