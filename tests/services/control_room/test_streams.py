"""Streams: ids composed and read back, what was missed comes once and in order, and many readers cost little."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from schemas.screen import ChangeMessage, HeartbeatMessage, SideMessage
from schemas.vocabulary import START, Position, Side
from services.control_room import streams as module
from services.control_room.streams import BEHIND_BYTES_MAX, KEPT, Audience, Stream, Streams, read_id, write_id
from tests.asynchronous import asynchronous
from tests.services.control_room.rooms import BOTH, Message, read_messages

SI, HR = BOTH
ONLY_SI: Audience = (SI,)
NOW = datetime(2024, 3, 14, tzinfo=UTC)
BEAT = HeartbeatMessage(now=NOW, looked=NOW, trouble="", digest="", sides=())
LARGEST = 2**64 - 1

positions = st.builds(lambda ms, seq: Position(f"{ms}-{seq}"), st.integers(0, LARGEST), st.integers(0, LARGEST))


def change(number: int, side: Side = SI, size: int = 1) -> ChangeMessage:
    cells = {f"{side}|||2024-03-14|persons|{n}": number for n in range(size)}
    return ChangeMessage(
        side=side, position=Position(f"{number}-0"), generation="g1", at=NOW, cells=cells, hours={}, latest=(),
        amendments=(), amended={},
    )  # fmt: skip


def tell(streams: Streams, *numbers: int, side: Side = SI) -> None:
    """Tell changes, each of which follows the one before."""
    for number in numbers:
        streams.change(change(number, side), Position(f"{number - 1}-0" if number > 1 else START))


async def heard(stream: Stream) -> list[Message]:
    """Return what there is on a stream, without waiting for more."""
    stream.push(b"")
    return read_messages((await stream.next()).decode())


def brief(messages: list[Message]) -> list[tuple[str, object]]:
    """Return the changes by side and position, anything else by its name and reason."""
    return [
        (one.id, f"{one.data['side']}:{one.data['position']}")
        if one.event == "change"
        else (one.event, one.data.get("reason"))
        for one in messages
    ]


# Ids


@for_all(positions, positions)
def test_an_id_is_read_as_it_was_written(si: Position, hr: Position) -> None:
    for audience, standing in ((BOTH, {SI: si, HR: hr}), (ONLY_SI, {SI: si}), ((HR,), {HR: hr})):
        assert standing == read_id(write_id(standing, audience), audience)


def test_an_id_has_the_form_that_readers_know() -> None:
    standing = {SI: Position("1710385929000-0"), HR: Position("1710385928000-3")}

    assert "SI:1710385929000-0,HR:1710385928000-3" == write_id(standing, BOTH)
    assert "1710385929000-0" == write_id(standing, ONLY_SI)


NONSENSE = (
    "nonsense", "-", "1", "1-", "-1", "1-0-0", "SI:", "SI:1", "SI:1-0,", ",", "SI:1-0,SI:2-0", "SI:1-0,HR:2-0,AT:3-0",
    "SI:1-0;HR:2-0", "SI:1-0,HR:x", "AT:1-0", "SI:٣-0,HR:1-0", "SI:+1-0,HR:1-0", "SI: 1-0,HR:1-0", "1-0,2-0",
    f"SI:{'9' * 21}-0,HR:1-0", "\x00", "SI:1-0\nHR:1-0",
)  # fmt: skip


@pytest.mark.parametrize("text", NONSENSE)
def test_nonsense_is_no_id(text: str) -> None:
    assert read_id(text, BOTH) is None


@pytest.mark.parametrize("text", [*(text for text in NONSENSE if text != "SI:1-0,"), "HR:1-0", "SI:1-0,HR:2-0"])
def test_the_id_of_another_audience_is_none(text: str) -> None:
    assert read_id(text, ONLY_SI) is None
    assert read_id("1-0", BOTH) is None


@for_all(st.text(max_size=60))
def test_no_text_is_too_strange_to_be_read(text: str) -> None:
    for audience in (BOTH, ONLY_SI):
        found = read_id(text, audience)
        assert found is None or write_id(found, audience) in (text, text.partition(":")[2])


# Going on


@asynchronous
async def test_a_stream_begins_with_how_to_come_back_and_a_heartbeat() -> None:
    streams = Streams(BOTH)
    stream = streams.open(BOTH, "", BEAT)
    assert (await stream.next()).startswith(b"retry: 2000\n\nevent: heartbeat\ndata: {")


@pytest.mark.parametrize("known", range(6))
@asynchronous
async def test_whoever_comes_back_gets_what_was_missed_in_order_and_once(known: int) -> None:
    streams = Streams(BOTH)
    tell(streams, 1, 2, 3)
    tell(streams, 1, 2, side=HR)
    since = f"SI:{min(known, 3)}-0,HR:{max(0, known - 3)}-0"
    stream = streams.open(BOTH, since, BEAT)
    tell(streams, 4)
    streams.flush()
    expected = [f"SI:{n}-0" for n in range(min(known, 3) + 1, 4)] + [
        f"HR:{n}-0" for n in range(max(0, known - 3) + 1, 3)
    ]
    changes = [one for one in brief(await heard(stream)) if one[0] != "heartbeat"]
    assert [*expected, "SI:4-0"] == [position for _, position in changes]
    assert changes[-1][0] == "SI:4-0,HR:2-0"


@for_all(st.lists(st.sampled_from(BOTH), max_size=12), st.integers(0, 12), st.integers(0, 12))
def test_the_id_of_any_message_leads_on_from_it(order: list[Side], opened: int, left: int) -> None:
    """Whatever the message after which a connection ends, nothing is missed and nothing comes twice."""

    async def run() -> None:
        streams, told = Streams(BOTH), dict.fromkeys(BOTH, 0)

        def go_on(sides: list[Side]) -> None:
            for side in sides:
                told[side] += 1
                tell(streams, told[side], side=side)

        go_on(order[:opened])
        first = streams.open(BOTH, "SI:0-0,HR:0-0", BEAT)
        go_on(order[opened:])
        streams.flush()
        before = [one for one in await heard(first) if one.event == "change"][:left]
        since = before[-1].id if before else "SI:0-0,HR:0-0"
        after = [one for one in await heard(streams.open(BOTH, since, BEAT)) if one.event == "change"]
        got = [(one.data["side"], one.data["position"]) for one in before + after]
        for side in BOTH:
            assert [f"{n}-0" for n in range(1, told[side] + 1)] == [at for name, at in got if name == side]

    asyncio.run(run())


@asynchronous
async def test_what_is_about_to_go_out_does_not_come_twice_to_whoever_comes_now() -> None:
    streams = Streams(BOTH)
    streams.open(BOTH, "", BEAT)
    tell(streams, 1)
    for since, expected in (("SI:0-0,HR:0-0", ["change", "heartbeat"]), ("", ["heartbeat"])):
        stream = streams.open(BOTH, since, BEAT)
        streams.flush()
        assert expected == [message.event for message in await heard(stream)]


@asynchronous
async def test_whoever_knows_everything_gets_nothing() -> None:
    streams = Streams(BOTH)
    tell(streams, 1, 2)
    assert [("heartbeat", None)] == brief(await heard(streams.open(BOTH, "SI:2-0,HR:0-0", BEAT)))


@pytest.mark.parametrize(
    "since",
    ["nonsense", "SI:1-0", "1-0", "SI:9-0,HR:0-0", "SI:1-1,HR:0-0", "SI:2-0,HR:7-0", "AT:1-0,HR:0-0"],
)
@asynchronous
async def test_what_is_not_known_here_begins_with_a_reset(since: str) -> None:
    streams = Streams(BOTH)
    tell(streams, 1, 2, 3)
    assert [("reset", "too-old"), ("heartbeat", None)] == brief(await heard(streams.open(BOTH, since, BEAT)))


@asynchronous
async def test_as_much_is_kept_as_is_said_and_what_is_older_resets() -> None:
    streams = Streams(BOTH)
    tell(streams, *range(1, KEPT + 11))
    for since, first in (("SI:9-0,HR:0-0", "reset"), ("SI:10-0,HR:0-0", "change")):
        assert first == (await heard(streams.open(BOTH, since, BEAT)))[0].event
    assert KEPT + 1 == len(await heard(streams.open(BOTH, "SI:10-0,HR:0-0", BEAT)))


@pytest.mark.parametrize("reason", ["too-old", "generation", "restarted"])
@asynchronous
async def test_a_reset_is_told_to_all_who_see_the_side_and_to_those_who_come_back(reason: str) -> None:
    streams = Streams(BOTH)
    tell(streams, 1, 2, 3)
    both, si, hr = (streams.open(audience, "", BEAT) for audience in (BOTH, ONLY_SI, (HR,)))
    streams.reset(SI, Position("2-0"), reason)  # type: ignore[arg-type]
    streams.flush()
    for stream in (both, si):
        assert ("reset", reason) == brief(await heard(stream))[-1]
    assert [("heartbeat", None)] == brief(await heard(hr))
    for since in ("1-0", "3-0"):
        assert ("reset", "too-old") == brief(await heard(streams.open(ONLY_SI, since, BEAT)))[0]
    assert [("heartbeat", None)] == brief(await heard(streams.open(ONLY_SI, "2-0", BEAT)))


# Who hears what


@asynchronous
async def test_nobody_hears_of_a_side_that_is_not_theirs() -> None:
    streams = Streams(BOTH)
    tell(streams, 1, side=HR)
    opened = [streams.open(ONLY_SI, since, BEAT) for since in ("", "0-0")]
    tell(streams, 2, side=HR)
    tell(streams, 1)
    streams.side(SideMessage(HR, (), ()))
    streams.side(SideMessage(SI, (), ()))
    streams.flush()
    for stream in opened:
        stream.push(b"")
        piece = await stream.next()
        assert b"HR" not in piece
        assert 1 == piece.count(b"event: change") == piece.count(b"event: side")
        assert b"\nid: 1-0\nevent: change" in piece


@asynchronous
async def test_what_comes_close_together_goes_out_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_S", 0.001)
    streams = Streams(BOTH)
    stream = streams.open(BOTH, "", BEAT)
    await stream.next()
    tell(streams, 1, 2, 3)
    assert 3 == (await stream.next()).count(b"event: change")


# The ends


@asynchronous
async def test_a_slow_reader_is_told_and_left_and_the_others_are_not() -> None:
    streams = Streams(BOTH)
    slow, quick = streams.open(BOTH, "", BEAT), streams.open(BOTH, "", BEAT)
    got = b""
    for number in range(1, 200):
        streams.change(change(number, size=400), Position(f"{number - 1}-0"))
        streams.flush()
        got += await quick.next()
    assert BEHIND_BYTES_MAX < len(got)
    assert 199 == got.count(b"event: change")
    assert [("reset", "slow")] == brief(read_messages((await slow.next()).decode()))
    assert b"" == await slow.next()
    streams.change(change(200), Position("199-0"))
    streams.flush()
    assert b"" == await slow.next()


@asynchronous
async def test_what_waits_for_a_reader_is_bounded() -> None:
    streams = Streams(BOTH)
    for _ in range(20):
        streams.open(BOTH, "", BEAT)
    tracemalloc.start()
    for number in range(1, 400):
        streams.change(change(number, size=400), Position(f"{number - 1}-0"))
        streams._kept[SI].clear()
        streams.flush()
    assert tracemalloc.get_traced_memory()[0] < 3 * BEHIND_BYTES_MAX
    tracemalloc.stop()


@asynchronous
async def test_whoever_leaves_is_forgotten() -> None:
    streams = Streams(BOTH)
    stream, other = streams.open(BOTH, "", BEAT), streams.open(ONLY_SI, "", BEAT)
    assert (2, [BOTH, ONLY_SI]) == (len(streams), streams.audiences)
    streams.close(BOTH, stream)
    streams.close(BOTH, stream)
    assert (1, [ONLY_SI]) == (len(streams), streams.audiences)
    streams.close(ONLY_SI, other)
    assert 0 == len(streams)


@asynchronous
async def test_all_streams_end_with_what_there_is_also_those_that_come_late() -> None:
    streams = Streams(BOTH)
    stream = streams.open(BOTH, "", BEAT)
    tell(streams, 1)
    streams.close_all()
    late = streams.open(BOTH, "", BEAT)
    for one, events in ((stream, ["heartbeat", "change"]), (late, ["heartbeat"])):
        assert events == [message.event for message in read_messages((await one.next()).decode())]
        assert b"" == await one.next()


# Many


@asynchronous
async def test_two_hundred_readers_get_each_of_ten_thousand_changes_and_memory_stays_flat() -> None:
    streams, readers, changes = Streams(BOTH), 200, 10_000
    counted = [0] * readers
    last: list[bytes] = [b""] * readers

    async def read(number: int) -> None:
        stream = streams.open(BOTH if number % 2 else ONLY_SI, "", BEAT)
        while piece := await stream.next():
            counted[number] += piece.count(b"event: change\n")
            last[number] = piece[-400:]

    async with asyncio.TaskGroup() as group:
        for number in range(readers):
            group.create_task(read(number))
        await _until(lambda: len(streams) == readers)
        sizes = []
        tracemalloc.start()
        for number in range(1, changes + 1):
            tell(streams, number)
            if number % 50 == 0:
                streams.flush()
                await _until(lambda: all(not stream._bytes for group in streams._open.values() for stream in group))
            if number % 2_500 == 0:
                sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        streams.close_all()
    assert [changes] * readers == counted
    assert all(f'"position":"{changes}-0"'.encode() in piece for piece in last)
    assert sizes[-1] - sizes[0] < 500_000, sizes


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # the others have their turn
            await asyncio.sleep(0)
