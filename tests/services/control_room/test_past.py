"""The past: what `at` may be and means, and that what is rebuilt is rebuilt once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from schemas.vocabulary import Position, Side, order
from services.control_room.past import KEPT, Past, lies_ahead, read_at
from services.runtime.errors import UsageError
from services.tally.fold import State
from tests import given
from tests.asynchronous import asynchronous
from tests.services.control_room.rooms import BOTH

SI, HR = BOTH
LAST = 2**64 - 1
LJUBLJANA = ZoneInfo("Europe/Ljubljana")
NOW = datetime(2024, 3, 14, 12, 30, tzinfo=UTC)  # 13:30 in Ljubljana
NOON = f"1710414000000-{LAST}"  # 2024-03-14T11:00:00Z: all of that millisecond


@pytest.mark.parametrize(
    ("text", "si", "hr"),
    [
        ("1710385929000-0", "1710385929000-0", "1710385929000-0"),
        ("SI:1710385929000-0,HR:1710385928000-3", "1710385929000-0", "1710385928000-3"),
        ("HR:2-0,SI:1-0", "1-0", "2-0"),
        ("SI:1-0,HR:2-0,AT:3-0", "1-0", "2-0"),  # a link from one who sees more
        ("SI 1-0, HR 2-0", "1-0", "2-0"),  # as commands print it
        ("2024-03-14T12:00:00+01:00", NOON, NOON),
        ("2024-03-14T12:00:00 01:00", NOON, NOON),  # as a form's plus comes out of an address
        ("2024-03-14T11:00:00Z", NOON, NOON),
        ("2024-03-14 12:00+01:00", NOON, NOON),
        ("1969-12-31T00:00:00Z", f"0-{LAST}", f"0-{LAST}"),
        ("0001-01-01T00:00:00+14:00", f"0-{LAST}", f"0-{LAST}"),
        ("9999-12-31T23:59:59-14:00", f"253402351199000-{LAST}", f"253402351199000-{LAST}"),
        ("0-0", "0-0", "0-0"),
        ("1899-12", "1899-12", "1899-12"),
        ("SI:2024-03,HR:2024-04", "2024-03", "2024-04"),
    ],
)
def test_a_position_and_a_time_mean_a_position_of_each_side(text: str, si: str, hr: str) -> None:
    assert {SI: si, HR: hr} == read_at(text, BOTH, LJUBLJANA, NOW)
    if text != "HR:2-0,SI:1-0":
        assert {SI: si} == read_at(text, (SI,), LJUBLJANA, NOW)


def at(moment: datetime) -> str:
    return f"{int(moment.timestamp() * 1000)}-{LAST}"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("12:00", datetime(2024, 3, 14, 11, tzinfo=UTC)),
        ("9:05", datetime(2024, 3, 14, 8, 5, tzinfo=UTC)),
        ("13:29:59", datetime(2024, 3, 14, 12, 29, 59, tzinfo=UTC)),
        ("2024-03-13 23:15", datetime(2024, 3, 13, 22, 15, tzinfo=UTC)),
        ("2024-03-13T23:15:01", datetime(2024, 3, 13, 22, 15, 1, tzinfo=UTC)),
        ("2024-03-14", NOW),  # today has not ended
        ("2024-03-13", datetime(2024, 3, 13, 22, 59, 59, 999_000, tzinfo=UTC)),
        ("2024-03-15", datetime(2024, 3, 15, 22, 59, 59, 999_000, tzinfo=UTC)),
        ("2024-03-30", datetime(2024, 3, 30, 22, 59, 59, 999_000, tzinfo=UTC)),
        ("2024-03-31", datetime(2024, 3, 31, 21, 59, 59, 999_000, tzinfo=UTC)),  # of 23 hours
        ("2024-10-27", datetime(2024, 10, 27, 22, 59, 59, 999_000, tzinfo=UTC)),  # of 25 hours
        ("2024-03-31 02:30", datetime(2024, 3, 31, 1, 30, tzinfo=UTC)),  # skipped: 03:30 after the change
        ("2024-10-27 02:30", datetime(2024, 10, 27, 1, 30, tzinfo=UTC)),  # comes twice: the second of them
        ("2024-10-27 01:59", datetime(2024, 10, 26, 23, 59, tzinfo=UTC)),
        ("2024-02", datetime(2024, 2, 29, 22, 59, 59, 999_000, tzinfo=UTC)),
        ("2024-03", NOW),  # this month has not ended
        ("2024-04", datetime(2024, 4, 30, 21, 59, 59, 999_000, tzinfo=UTC)),
        ("2023-12", datetime(2023, 12, 31, 22, 59, 59, 999_000, tzinfo=UTC)),
        ("1710414000000", datetime(2024, 3, 14, 11, tzinfo=UTC)),
    ],
)
def test_what_somebody_types_on_duty_is_a_local_time(text: str, moment: datetime) -> None:
    for typed in (text, f" {text} "):
        assert dict.fromkeys(BOTH, at(moment)) == read_at(typed, BOTH, LJUBLJANA, NOW)


@pytest.mark.parametrize("text", ["SI 1710414000000-3", "SI:1710414000000-3"])
def test_a_position_as_the_screen_shows_it_is_that_of_its_side(text: str) -> None:
    assert {SI: "1710414000000-3", HR: NOON} == read_at(text, BOTH, LJUBLJANA, NOW)


@pytest.mark.parametrize(
    ("text", "ahead"),
    [("2024-03-14", False), ("12:00", False), ("14:00", True), ("2024-03-15", True), ("2024-03-13", False),
     ("2024-02", False), ("2024-03", False), ("2024-04", True),
     (f"SI:{10**14}-0,HR:1-0", False)],
)  # fmt: skip
def test_what_has_not_come_yet_is_known_as_such(text: str, ahead: bool) -> None:  # noqa: FBT001
    assert ahead == lies_ahead(read_at(text, BOTH, LJUBLJANA, NOW), NOW)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense", "yesterday", "", " ", "-", "1-", "1", "20240314", "2024-W11-4", "2024-02-30", "9999-12-31", "24:00",
        "12:60", "12", "SI:1-0,HR:x", "SI:1-0,AT:1-0", "AT:1-0", "1-18446744073709551616",
        "SI:1-0,SI:2-0", "2024-13-14T12:00:00Z", "2024-13", "2024-3",
        "9" * 5_000, "9" * 40 + "-0", "\x00", "1-0\n", "٣-0", "25:00+01:00",
    ],
)  # fmt: skip
def test_anything_else_is_refused_in_words(text: str) -> None:
    with pytest.raises(
        UsageError, match=r"`at` is a position such as 1710385929000-0, or a time such as .*, 12:00, 2024-03-14 12:00"
    ):
        read_at(text, BOTH, LJUBLJANA, NOW)


@pytest.mark.parametrize("text", ["HR:1-0", "HR 1-0"])
def test_a_viewer_of_one_side_cannot_ask_by_another(text: str) -> None:
    with pytest.raises(UsageError):
        read_at(text, (SI,), LJUBLJANA, NOW)


@for_all(st.text(max_size=40) | st.datetimes().map(str) | st.datetimes(timezones=st.timezones()).map(str))
def test_no_text_is_too_strange_to_be_read(text: str) -> None:
    for audience, zone in product((BOTH, (SI,)), (LJUBLJANA, ZoneInfo("Pacific/Apia"))):
        try:
            assert set(read_at(text, audience, zone, NOW)) == set(audience)
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
