"""An index entry is read back as it was packed, and is as small as it says."""

from __future__ import annotations

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.vocabulary import REVISION_MAX, Position
from services.store.index_entry import IndexEntry, pack, pack_amendment, unpack, unpack_amendment
from services.tally.fold import Amendment
from tests import given  # noqa: F401  # it loads the Hypothesis profile

MS_USUAL = 2**48 - 1
MS_MAX = 2**64 - 1
SEQUENCE_MAX = 2**64 - 1


def packed(entry: IndexEntry) -> bytes:
    return pack(entry.position, entry.revision, original_missing=entry.original_missing, original=entry.original)


_positions = st.builds(
    lambda milliseconds, sequence: Position(f"{milliseconds}-{sequence}"),
    st.integers(0, MS_USUAL + 1) | st.sampled_from((MS_USUAL - 1, MS_USUAL, MS_USUAL + 1, MS_MAX)),
    st.integers(0, 300) | st.integers(0, SEQUENCE_MAX),
)
# Only an amendment may lack its original, or stand elsewhere than it.
_entries = st.builds(IndexEntry, _positions, st.just(0), st.just(value=False)) | st.builds(
    IndexEntry, _positions, st.integers(1, 300) | st.integers(1, REVISION_MAX), st.booleans(), st.none() | _positions
)


@examples(_entries)
def test_an_entry_is_read_back_as_it_was_packed(entry: IndexEntry) -> None:
    assert entry == unpack(packed(entry))


@examples(_positions, st.none() | _positions)
def test_an_amendment_is_read_back_as_it_was_packed(position: Position, replaced: Position | None) -> None:
    assert Amendment(position, replaced) == unpack_amendment(pack_amendment(Amendment(position, replaced)))


@examples(_entries, _entries, st.sampled_from(("position", "revision", "original_missing", "original")))
def test_different_entries_are_packed_differently(one: IndexEntry, other: IndexEntry, changed: str) -> None:
    """Also those that differ in one thing only."""
    almost = replace(one, **{changed: getattr(other, changed)})
    if (almost.original_missing or almost.original) and not almost.revision:
        almost = replace(almost, revision=1)

    assert (one == almost) == (packed(one) == packed(almost))


@pytest.mark.parametrize(
    ("position", "revision", "size"),
    [("1710385929000-0", 0, 6), ("1710385929000-127", 0, 7), ("1710385929000-300", 0, 8), ("1710385929000-0", 63, 8)],
)
def test_a_usual_entry_takes_six_to_eight_bytes(position: str, revision: int, size: int) -> None:
    assert size == len(pack(Position(position), revision, original_missing=False))
