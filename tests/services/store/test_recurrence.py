"""Which reports come again: exactly those that do, however they are spread, and no longer than until the last time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.vocabulary import Position
from services.store import recurrence
from services.store.recurrence import Marks, find_recurring, marks_of

KEYS = st.lists(st.integers(0, 40).map(lambda number: number.to_bytes(16, "big")), max_size=120)


@settings(max_examples=200, deadline=None)
@given(keys=KEYS, cuts=st.lists(st.integers(0, 120), max_size=6), reports=st.sampled_from([0, 1, 5, 50]))
def test_what_comes_again_is_known_until_its_last_time(keys: list[bytes], cuts: list[int], reports: int) -> None:
    ends = [0, *sorted(min(cut, len(keys)) for cut in cuts), len(keys)]
    batches = [keys[start:end] for start, end in pairwise(ends)]

    def read() -> Iterator[Marks]:
        for batch in batches:
            yield marks_of(b"".join(batch))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recurrence, "PASS_REPORTS", 4)  # so that many are found in several passes
        recurring = find_recurring(read, reports, Position("1-0"))
    left = Counter(keys)
    for batch in batches:
        left.subtract(batch)
        expected = {key: left[key] for key in batch if left[key] and Counter(keys)[key] > 1}
        assert expected == recurring.take(batch)
