"""The book: counts by hour, reports and amendments as shown. Pure, so held to the oracle in any order of events."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from schemas import codec
from schemas.vocabulary import Position, order
from services.control_room.book import (
    HOUR_S,
    Book,
    Recorded,
    apply_cells,
    joined_digest,
    received_at,
    show_amendment,
    show_report,
)
from services.tally.fold import arrive
from tests import given, oracle
from tests.services.control_room.rooms import hours_of

SIDES = ("SI", "HR")
FROM_EVER = -(1 << 40)
MARCH = 1_710_385_200  # 2024-03-14T03:00:00Z


def recorded(entries: Sequence[Mapping[bytes, bytes]], side: str) -> list[Recorded]:
    """Return the events of a side among entries, which stand at 1-0, 2-0 and so on."""
    return [
        Recorded(event, Position(f"{number}-0"))
        for number, fields in enumerate(entries, 1)
        if (event := arrive(Position(f"{number}-0"), fields).event) and event.side == side
    ]


def booked(*events: bytes, since: int = FROM_EVER) -> Book:
    book = Book(given.ZONES["SI"], since)
    book.take(recorded([given.entry(event) for event in events], "SI"))
    return book


# Hours


@pytest.mark.parametrize("side", SIDES)
@for_all(st.data())
def test_the_hours_are_those_of_the_events_in_force(side: str, data: st.DataObject) -> None:
    """Whatever there is in the log: late lower revisions, withdrawals, a time that is amended, conflicts, junk."""
    entries = data.draw(given.logs(side))
    book = Book(given.ZONES[side], FROM_EVER)
    left = recorded(entries, side)
    while left:
        size = data.draw(st.integers(1, len(left)))
        book.take(left[:size])
        del left[:size]

    assert hours_of([(f"{n}-0", fields) for n, fields in enumerate(entries, 1)], side) == book.counts


@pytest.mark.parametrize("side", SIDES)
@for_all(st.data())
def test_without_conflicts_any_order_gives_the_same_hours(side: str, data: st.DataObject) -> None:
    events = data.draw(given.conflict_free(side))
    entries = [given.entry(event) for event in data.draw(st.permutations(events))]
    book = Book(given.ZONES[side], FROM_EVER)
    book.take(recorded(entries, side))

    assert hours_of([(f"{n}-0", given.entry(event)) for n, event in enumerate(events, 1)], side) == book.counts


@for_all(given.logs("SI"), st.integers(0, 2**32))
def test_whoever_adds_what_changed_has_the_same_hours(entries: list[given.Fields], seed: int) -> None:
    """A page has no book: it has counts, and the changed ones replace them."""
    book, page = Book(given.ZONES["SI"], FROM_EVER), dict[str, int]()
    draw, left = random.Random(seed), recorded(entries, "SI")
    while left:
        size = draw.randint(1, len(left))
        apply_cells(page, book.take(left[:size]))
        del left[:size]

    assert book.counts == page


def test_a_time_that_is_amended_moves_the_counts_to_another_hour() -> None:
    first = given.apprehension(id=1, persons={"SYR": 4}, time="2024-03-14T03:12:09Z")
    book = booked(first)
    moved = given.apprehension(id=2, amends=1, persons={"SYR": 3}, time="2024-03-14T06:59:59+01:00")
    changed = book.take([Recorded(codec.decode(moved), Position("9-0"))])

    assert {f"{MARCH + 2 * HOUR_S}||koper|apprehensions": 1, f"{MARCH + 2 * HOUR_S}||koper|persons": 3} == book.counts
    assert {f"{MARCH}||koper|apprehensions": 0, f"{MARCH}||koper|persons": 0, **book.counts} == changed


def test_an_opening_balance_is_of_no_hour() -> None:
    assert {} == booked(given.opening_balance(totals=[{"measure": "persons", "count": 9}])).counts


def test_hours_that_begin_before_the_book_are_not_in_it() -> None:
    early = given.apprehension(id=1, time="2024-03-14T02:59:59Z")
    late = given.apprehension(id=2, time="2024-03-14T03:00:00Z")

    assert booked(late).counts == booked(early, late, since=MARCH).counts


@for_all(given.logs("SI"), given.logs("SI"))
def test_a_book_that_forgets_is_one_that_began_later(before: list[given.Fields], after: list[given.Fields]) -> None:
    """It forgets between batches, and what is amended afterwards is still taken out of the hours that it knows."""
    all_of_it = recorded([*before, *after], "SI")
    known = len(recorded(before, "SI"))
    keeping, forgetting = Book(given.ZONES["SI"], FROM_EVER), Book(given.ZONES["SI"], FROM_EVER)
    for book in (keeping, forgetting):
        book.take(all_of_it[:known])
    since = 1_710_460_800  # 2024-03-15, with reports on both sides of it
    forgetting.forget_before(since)
    # As the room does it: only what is in force in the end.
    in_force = {one.event.amends or one.event.id: one for one in reversed(_by_revision(all_of_it))}
    last = [one for one in all_of_it[known:] if in_force[one.event.amends or one.event.id] is one]
    for book in (keeping, forgetting):
        book.take(last)

    assert {name: n for name, n in keeping.counts.items() if int(name.split("|")[0]) >= since} == forgetting.counts


def test_a_book_lets_go_of_the_reports_that_it_forgets() -> None:
    book = booked(given.apprehension(id=1, time="2024-03-14T02:59:59Z"), given.apprehension(id=2))
    book.forget_before(MARCH)

    assert 1 == len(book._in_force)
    book.forget_before(0)
    assert book.since == MARCH  # and never goes back


def _by_revision(reports: list[Recorded]) -> list[Recorded]:
    """Return reports with the highest revision first, and of equal ones the first in the log."""
    return sorted(reports, key=lambda one: (-one.event.revision, order(one.position)))


# Reports and amendments


def test_a_report_is_shown_with_its_counts() -> None:
    event = given.apprehension(
        id=1, persons={"SYR": 4, "AFG": 3}, time="2024-03-14T04:12:09+01:00", subject=given.OPERATION, section="koper"
    )
    shown = show_report(Recorded(codec.decode(event), Position("1710385929000-3")), given.ZONES["SI"])

    assert shown.counts == {"apprehensions": {"": 1}, "persons": {"SYR": 4, "AFG": 3}}
    assert (shown.type, shown.unit, shown.operation, shown.section) == (
        "apprehension", "SI-MP-07", given.OPERATION, "koper",
    )  # fmt: skip
    assert shown.time == datetime(2024, 3, 14, 3, 12, 9, tzinfo=UTC)
    assert shown.received == datetime(2024, 3, 14, 3, 12, 9, tzinfo=UTC)


def test_a_withdrawal_is_shown_with_its_reason_and_what_it_took_back() -> None:
    withdrawn = codec.decode(given.apprehension(id=1, persons={"SYR": 4}, subject=given.OPERATION))
    event = codec.decode(given.withdrawal(amends=1, reason="duplicate", time="2024-03-16T00:00:00Z"))
    one = Recorded(event, Position("9-0"))
    shown = show_amendment(one, withdrawn, given.ZONES["SI"])

    cell = f"SI|{given.OPERATION}|koper|2024-03-14"
    assert shown.changes == {f"{cell}|apprehensions|": -1, f"{cell}|persons|SYR": -4}
    assert (shown.type, shown.reason) == ("withdrawal", "duplicate")
    assert (shown.operation, shown.section, shown.day) == (given.OPERATION, "koper", "2024-03-14")
    assert show_report(one, given.ZONES["SI"]).reason == "duplicate"


def test_what_stays_the_same_is_no_change() -> None:
    before = codec.decode(given.apprehension(id=1, persons={"SYR": 4, "AFG": 1}))
    after = codec.decode(given.apprehension(id=2, amends=1, persons={"SYR": 4, "AFG": 2}))

    assert show_amendment(Recorded(after, Position("9-0")), before, given.ZONES["SI"]).changes == {
        "SI||koper|2024-03-14|persons|AFG": 1
    }


# Cells


def test_a_count_of_nothing_removes_the_cell() -> None:
    cells = {"a": 1, "b": 2}
    apply_cells(cells, {"a": 0, "b": 3, "c": 0, "d": 4})

    assert {"b": 3, "d": 4} == cells


def test_the_digest_of_several_sides_is_that_of_all_their_cells() -> None:
    one, other = {"SI|||2024-03-14|persons|SYR": 4}, {"HR|||2024-03-14|persons|SYR": 2}

    assert oracle.digest({**one, **other}) == joined_digest([one, other])
    assert oracle.digest(one) == joined_digest([one])


@pytest.mark.parametrize(
    ("position", "moment"),
    [
        ("0-0", datetime(1970, 1, 1, tzinfo=UTC)),
        ("1710385929250-7", datetime(2024, 3, 14, 3, 12, 9, 250_000, tzinfo=UTC)),
        (f"{2**64 - 1}-{2**64 - 1}", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_a_position_says_when_it_was_received(position: str, moment: datetime) -> None:
    assert moment == received_at(Position(position))
