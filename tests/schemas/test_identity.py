"""Identifiers are UUIDs of version 7 as RFC 9562 lays them out, and sort by the time they were made at."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.identity import RANDOM_BITS, uuid7

TIMES_MS = st.integers(0, 2**48 - 1)
RANDOM = st.integers(0, 2**RANDOM_BITS - 1)


def test_the_example_of_the_rfc_is_met() -> None:
    """RFC 9562, appendix A.6; two of its bits and the version's four are not random."""
    random_bits = 0xCC3 << 64 | 0x18C4DC0C0C07398F
    assert uuid.UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f") == uuid7(0x017F22E279B0, random_bits)


@given(TIMES_MS, RANDOM)
def test_version_and_variant_are_right_whatever_is_drawn(unix_ms: int, random_bits: int) -> None:
    made = uuid7(unix_ms, random_bits)
    assert (7, uuid.RFC_4122) == (made.version, made.variant)


@given(TIMES_MS, RANDOM)
def test_the_time_can_be_read_back(unix_ms: int, random_bits: int) -> None:
    assert unix_ms == uuid7(unix_ms, random_bits).int >> 80


@given(st.tuples(TIMES_MS, RANDOM), st.tuples(TIMES_MS, RANDOM))
def test_a_later_one_sorts_after_an_earlier_one_as_text_too(one: tuple[int, int], other: tuple[int, int]) -> None:
    if one[0] != other[0]:
        first, second = sorted((one, other))
        assert str(uuid7(*first)) < str(uuid7(*second))


def test_74_random_bits_tell_those_of_one_millisecond_apart() -> None:
    none = uuid7(0, 0).int
    told = [bit for bit in range(RANDOM_BITS) if uuid7(0, 1 << bit).int != none]
    assert 74 == len(told)
    assert 74 == len({uuid7(0, 1 << bit) for bit in told})


def test_bits_beyond_the_random_ones_do_not_touch_the_time() -> None:
    assert uuid7(1, 0) == uuid7(1, 1 << RANDOM_BITS)


@pytest.mark.parametrize("unix_ms", [-1, 2**48])
def test_a_time_that_has_no_place_is_refused(unix_ms: int) -> None:
    with pytest.raises(ValueError, match="128-bit"):
        uuid7(unix_ms, 0)
