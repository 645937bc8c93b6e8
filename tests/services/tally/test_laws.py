"""The laws that the promise rests on: order and repetition do not matter, nothing raises, parts fold like the whole."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping

from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from services.tally.fold import arrive, fold
from tests import given, oracle
from tests.given import Folded


@st.composite
def _shuffled(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    """The same events in two orders."""
    events = draw(given.conflict_free("SI"))
    return events, draw(st.permutations(events))


@st.composite
def _repeated(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    """Events, and the same with some of them again later on."""
    events = draw(given.conflict_free("SI"))
    repeated = list(events)
    for number in draw(st.lists(st.integers(0, len(events) - 1), min_size=1, max_size=6)):
        repeated.insert(draw(st.integers(repeated.index(events[number]) + 1, len(repeated))), events[number])
    return events, repeated


@st.composite
def _split(draw: st.DrawFn) -> list[list[given.Fields]]:
    """A log in parts."""
    log = draw(given.logs("SI"))
    cuts = sorted(draw(st.lists(st.integers(0, len(log)), max_size=4)))
    return [log[start:end] for start, end in zip([0, *cuts], [*cuts, len(log)], strict=True)]


def whole(parts: list[list[given.Fields]]) -> Folded:
    folded = Folded()
    folded.take_entries([entry for part in parts for entry in part])
    return folded


@examples(_shuffled())
def test_any_order_gives_the_same_tallies_plans_and_numbers(orders: tuple[list[bytes], list[bytes]]) -> None:
    one, other = (Folded(*events) for events in orders)

    assert one.tallies == other.tallies
    assert one.plans == other.plans
    assert one.numbers == other.numbers
    assert one.outcomes.get("original_missing") == other.outcomes.get("original_missing")
    assert not one.parked | other.parked


@examples(_repeated())
def test_any_repetition_changes_only_counters_and_positions(logs: tuple[list[bytes], list[bytes]]) -> None:
    once, again = (Folded(*events) for events in logs)
    more = {name: again.outcomes.get(name, 0) - once.outcomes.get(name, 0) for name in oracle.OUTCOMES}

    assert once.tallies == again.tallies
    assert once.plans == again.plans
    assert once.numbers == again.numbers
    assert {name for name, count in more.items() if count} <= {"duplicate", "superseded"}
    assert len(logs[1]) - len(logs[0]) == sum(more.values())


@examples(given.conflict_free("SI"), st.permutations([1, 2, 3, 4]))
def test_what_is_withdrawn_at_last_leaves_nothing(events: list[bytes], order: list[int]) -> None:
    """Whatever a report said in between: amend, then withdraw, is zero."""
    folded = Folded(*events, *(given.withdrawal(amends=ident, revision=9) for ident in order))

    assert folded.tallies == {} == folded.plans
    assert not folded.state.tallies


@examples(_split())
@settings(max_examples=100)
def test_parts_fold_like_the_whole(parts: list[list[given.Fields]]) -> None:
    folded = Folded()
    for part in parts:
        folded.take_entries(part)
    once = whole(parts)

    assert once.state == folded.state
    assert once.index == folded.index
    assert once.parked == folded.parked


@examples(_split())
def test_the_changes_of_a_batch_are_all_that_changes(parts: list[list[given.Fields]]) -> None:
    """Who writes down the absolute values of the changes, once or twice, has the state."""
    folded = Folded()
    cells: dict[str, int] = {}
    for part in parts:
        changes = folded.take_entries(part)
        for _ in range(2):
            cells |= {"|".join(cell): count for cell, count in changes.cells.items()}

    assert whole(parts).tallies == {cell: count for cell, count in cells.items() if count}


@examples(given.logs("SI"), given.logs("SI"))
def test_a_state_is_not_changed_by_a_fold_until_it_takes_the_changes(
    before: list[given.Fields], after: list[given.Fields]
) -> None:
    folded = Folded()
    folded.take_entries(before)
    state, index = copy.deepcopy(folded.state), copy.deepcopy(folded.index)
    arrivals = [arrive(f"9-{number}", fields) for number, fields in enumerate(after)]  # type: ignore[arg-type]
    one = fold(folded.state, arrivals, folded.index)

    assert state == folded.state
    assert index == folded.index
    assert one == fold(folded.state, arrivals, folded.index)


@examples(st.lists(st.dictionaries(st.sampled_from((b"event", b"by", b"x", b"")), st.binary(), max_size=3), max_size=5))
def test_no_entry_makes_the_fold_raise(entries: list[Mapping[bytes, bytes]]) -> None:
    folded = Folded()
    folded.take_entries(entries)

    assert folded.state.checkpoint.entries == len(entries)
    assert len(folded.parked) == len(entries)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(("type", "id", "data", "persons", "count", "")), inner, max_size=4)
    ),
    max_leaves=10,
)


@examples(given.documents("SI"), st.sampled_from(("type", "id", "source", "time", "amends", "data", "side")), _JSON)
def test_no_json_makes_the_fold_raise(document: given.Document, attribute: str, value: object) -> None:
    folded = Folded(given.as_json(document), json.dumps(document | {attribute: value}).encode())

    assert folded.state.checkpoint.entries == 2


@examples(given.logs("SI"))
def test_every_entry_has_one_outcome(log: list[given.Fields]) -> None:
    folded = whole([log])
    counted = {name: count for name, count in folded.outcomes.items() if name in oracle.OUTCOMES[:8]}

    assert sum(counted.values()) == len(log) == folded.state.checkpoint.entries
    assert folded.state.checkpoint.counters.parked == len(folded.parked)


@examples(_split())
def test_no_stored_count_is_zero_or_less(parts: list[list[given.Fields]]) -> None:
    folded = Folded()
    for part in parts:
        folded.take_entries(part)
        assert min(folded.tallies.values(), default=1) > 0
