"""The past: what `at` may be and means, and that what is rebuilt is rebuilt once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from schemas.vocabulary import Position, Side
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


class Rebuilds:
    """Rebuilds nothing, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[dict[Side, Position]] = []
        self.at_once = 0

    async def __call__(self, stops: Mapping[Side, Position]) -> Mapping[Side, State]:
        """Take a while."""
        self.at_once += 1
        assert 1 == self.at_once
        self.asked.append(dict(stops))
        await asyncio.sleep(0)
        self.at_once -= 1
        return {side: State(side, given.ZONES[side]) for side in stops}


@asynchronous
async def test_many_who_open_a_link_at_once_cost_one_rebuild_and_another_waits_for_it() -> None:
    rebuilds = Rebuilds()
    past = Past(rebuilds)
    stops = [
        {SI: Position("1-0"), HR: Position("2-0")},
        {HR: Position("2-0"), SI: Position("1-0")},
        {SI: Position("1-0")},
    ]
    await asyncio.gather(*(past.states(stop) for stop in stops * 20))
    assert [stops[0], stops[2]] == rebuilds.asked


@asynchronous
async def test_only_the_last_few_are_kept_and_none_once_the_server_was_set_back() -> None:
    rebuilds = Rebuilds()
    past = Past(rebuilds)
    for number in (*range(KEPT + 1), KEPT, 1, 0):
        await past.states({SI: Position(f"{number}-0")})
    assert [f"{number}-0" for number in (*range(KEPT + 1), 0)] == [stops[SI] for stops in rebuilds.asked]
    past.forget()
    await past.states({SI: Position("0-0")})
    assert "0-0" == rebuilds.asked[-1][SI] == rebuilds.asked[-2][SI]


@asynchronous
async def test_a_rebuild_that_fails_is_not_kept() -> None:
    failing = True

    async def rebuild(stops: Mapping[Side, Position]) -> Mapping[Side, State]:
        if failing:
            raise UsageError("away")
        return {side: State(side, given.ZONES[side]) for side in stops}

    past = Past(rebuild)
    with pytest.raises(UsageError):
        await past.states({SI: Position("1-0")})
    failing = False
    assert {SI} == set(await past.states({SI: Position("1-0")}))
