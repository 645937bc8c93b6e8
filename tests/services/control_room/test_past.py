"""The past: what `at` may be and means, and that what is rebuilt is rebuilt once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from schemas.vocabulary import Position, Side, order
from services.control_room.past import KEPT, Past, read_at
from services.runtime.errors import UsageError
from services.tally.fold import State
from tests import given
from tests.asynchronous import asynchronous
from tests.services.control_room.rooms import BOTH

SI, HR = BOTH
LAST = 2**64 - 1
NOON = f"1710414000000-{LAST}"  # 2024-03-14T11:00:00Z: all of that millisecond


@pytest.mark.parametrize(
    ("text", "si", "hr"),
    [
        ("1710385929000-0", "1710385929000-0", "1710385929000-0"),
        ("SI:1710385929000-0,HR:1710385928000-3", "1710385929000-0", "1710385928000-3"),
        ("HR:2-0,SI:1-0", "1-0", "2-0"),
        ("SI:1-0,HR:2-0,AT:3-0", "1-0", "2-0"),  # a link from one who sees more
        ("2024-03-14T12:00:00+01:00", NOON, NOON),
        ("2024-03-14T12:00:00 01:00", NOON, NOON),  # as a form's plus comes out of an address
        ("2024-03-14T11:00:00Z", NOON, NOON),
        ("2024-03-14 12:00+01:00", NOON, NOON),
        ("1969-12-31T00:00:00Z", f"0-{LAST}", f"0-{LAST}"),
        ("0001-01-01T00:00:00+14:00", f"0-{LAST}", f"0-{LAST}"),
        ("9999-12-31T23:59:59-14:00", f"253402351199000-{LAST}", f"253402351199000-{LAST}"),
        ("0-0", "0-0", "0-0"),
    ],
)
def test_a_position_and_a_time_mean_a_position_of_each_side(text: str, si: str, hr: str) -> None:
    assert {SI: si, HR: hr} == read_at(text, BOTH)
    if text != "HR:2-0,SI:1-0":
        assert {SI: si} == read_at(text, (SI,))


@pytest.mark.parametrize(
    "text",
    [
        "nonsense", "yesterday", "", " ", "-", "1-", "1", "2024-03-14T12:00:00", "2024-03-14", "SI:1-0", "SI:1-0,HR:x",
        "SI:1-0,SI:2-0", "2024-13-14T12:00:00Z", "9" * 5_000, "9" * 40 + "-0", "\x00", "1-0\n", "٣-0", "25:00+01:00",
    ],
)  # fmt: skip
def test_anything_else_is_refused_in_words(text: str) -> None:
    with pytest.raises(UsageError, match=r"`at` is a position such as 1710385929000-0, or a time with an offset"):
        read_at(text, BOTH)


def test_a_viewer_of_one_side_cannot_ask_by_another() -> None:
    with pytest.raises(UsageError):
        read_at("HR:1-0", (SI,))


@for_all(st.text(max_size=40) | st.datetimes().map(str) | st.datetimes(timezones=st.timezones()).map(str))
def test_no_text_is_too_strange_to_be_read(text: str) -> None:
    for audience in (BOTH, (SI,)):
        try:
            assert set(read_at(text, audience)) == set(audience)
        except UsageError:
            continue


class Sides:
    """Rebuilds nothing, and remembers what it was asked for; each side's log ends at 9-0."""

    def __init__(self) -> None:
        self.rebuilt: list[dict[Side, Position]] = []
        self.shown = 0
        self.end = Position("9-0")
        self.at_once = 0
        self.failing = False
        self.past_of = Past(self.rebuild, dict.fromkeys(BOTH, self))

    async def rebuild(self, stops: Mapping[Side, Position]) -> Mapping[Side, State]:
        """Take a while."""
        if self.failing:
            raise UsageError("away")
        self.at_once += 1
        assert 1 == self.at_once
        self.rebuilt.append(dict(stops))
        await asyncio.sleep(0)
        self.at_once -= 1
        return {side: State(side, given.ZONES[side]) for side in stops}

    async def reached(self, stop: Position) -> Position:
        """Know where the log ends."""
        return min(stop, self.end, key=order)

    async def past(self, state: State) -> Any:
        """Show the side by its name."""
        self.shown += 1
        return state.side


@asynchronous
async def test_many_who_open_a_link_at_once_cost_one_rebuild_and_another_waits_for_it() -> None:
    sides = Sides()
    stops = {SI: Position("1-0"), HR: Position("2-0")}, {SI: Position("1-0")}
    shown = await asyncio.gather(*(sides.past_of.shown(stop) for stop in stops * 20))
    assert [[SI, HR], [SI]] * 20 == shown
    assert list(stops) == sides.rebuilt
    assert 3 == sides.shown


@asynchronous
async def test_what_was_asked_for_in_the_future_is_asked_for_anew_when_the_log_has_grown() -> None:
    sides = Sides()
    for _ in range(2):
        await sides.past_of.shown({SI: Position("99-0")})
    sides.end = Position("12-0")
    await sides.past_of.shown({SI: Position("99-0")})
    assert [{SI: "9-0"}, {SI: "12-0"}] == sides.rebuilt


@asynchronous
async def test_those_looked_at_last_are_kept_and_none_once_the_server_was_set_back() -> None:
    sides = Sides()
    sides.end = Position("99-0")
    for number in (*range(KEPT), 0, KEPT, 0, 1):
        await sides.past_of.shown({SI: Position(f"{number}-0")})
    assert [f"{number}-0" for number in (*range(KEPT), KEPT, 1)] == [stops[SI] for stops in sides.rebuilt]
    sides.past_of.forget()
    await sides.past_of.shown({SI: Position("1-0")})
    assert "1-0" == sides.rebuilt[-1][SI] == sides.rebuilt[-2][SI]


@asynchronous
async def test_a_rebuild_that_fails_is_not_kept() -> None:
    sides = Sides()
    sides.failing = True
    with pytest.raises(UsageError):
        await sides.past_of.shown({SI: Position("1-0")})
    sides.failing = False
    assert [SI] == await sides.past_of.shown({SI: Position("1-0")})
