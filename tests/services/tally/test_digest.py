"""The state digest is equal exactly where the tallies are."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given as examples
from hypothesis import strategies as st

from schemas.vocabulary import Side
from services.tally.cells import Cell, Tallies, cell_text
from services.tally.digest import state_digest
from tests import given, oracle

SI = Side("SI")
SYR: Cell = (SI, given.OPERATION, "koper", "2024-03-14", "persons", "SYR")
AFG: Cell = (SI, given.OPERATION, "koper", "2024-03-14", "persons", "AFG")


def test_the_digest_is_sha_256_over_the_sorted_lines() -> None:
    lines = b"SI|SI-HR-2024-03|koper|2024-03-14|persons|AFG=3\nSI|SI-HR-2024-03|koper|2024-03-14|persons|SYR=4\n"

    assert sha256(lines).hexdigest() == state_digest({SYR: 4, AFG: 3})


def test_nothing_counted_has_the_digest_of_nothing() -> None:
    assert sha256().hexdigest() == state_digest({})


def test_a_zero_is_as_good_as_no_cell() -> None:
    assert state_digest({SYR: 4}) == state_digest({SYR: 4, AFG: 0})


_CELLS: st.SearchStrategy[Cell] = st.tuples(
    st.just(SI),
    st.sampled_from(("", given.OPERATION)),
    st.sampled_from(given.SECTIONS),
    st.sampled_from(("2024-03-14", "2024-03-15")),
    st.sampled_from(("persons", "smugglers")),
    st.sampled_from(("SYR", "AFG")),
)
_TALLIES: st.SearchStrategy[Tallies] = st.dictionaries(_CELLS, st.integers(0, 20), max_size=6)


@examples(_TALLIES)
def test_the_order_in_which_cells_were_counted_does_not_matter(tallies: Tallies) -> None:
    assert state_digest(tallies) == state_digest(dict(reversed(tallies.items())))


@examples(_TALLIES, _CELLS, st.integers(0, 20))
def test_tallies_have_one_digest_exactly_if_they_are_equal(tallies: Tallies, cell: Cell, count: int) -> None:
    """Whichever cell is counted otherwise, and however little."""
    equal = tallies.get(cell, 0) == count

    assert equal == (state_digest(tallies) == state_digest(tallies | {cell: count}))


@examples(_CELLS, _CELLS)
def test_a_count_in_another_cell_is_another_digest(one: Cell, other: Cell) -> None:
    assert (one == other) == (state_digest({one: 1}) == state_digest({other: 1}))


@examples(_TALLIES)
def test_the_oracle_has_the_same_digest(tallies: Tallies) -> None:
    assert oracle.digest({cell_text(cell): count for cell, count in tallies.items()}) == state_digest(tallies)
