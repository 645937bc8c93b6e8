"""The room while things change: who hears of what, whose token ends, and what goes wrong."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
import redis

from schemas.vocabulary import START
from services.control_room import routes, sessions
from services.runtime.settings import Settings
from services.store.principals import token_digest
from tests import given, oracle
from tests.gateways import enrolled
from tests.projectors import feed, log_of, project
from tests.services.control_room.rooms import WORDS, Browser, Served, holds, shows, tell
from tests.waiting import wait_for


@pytest.fixture
def room(served: Served, client: redis.Redis, settings: Settings) -> Served:
    """Serve a room in which each side has its own."""
    tell(client, settings)
    wait_for(lambda: shows(served, client, settings.prefix, "SI", "HR"), what="the room to show everything")
    wait_for(
        lambda: all(served.side(side).shown().operations and served.side(side).shown().devices for side in WORDS),
        what="a look at operations and devices",
    )
    return served


def test_changes_of_the_other_side_reach_only_those_who_see_it(
    room: Served, client: redis.Redis, settings: Settings, viewer: Browser, auditor: Browser
) -> None:
    with viewer.listening() as one, auditor.listening() as both:
        more = given.apprehension(id=9, side="HR", unit="HR-PU-07", section="rijeka", persons={"SYR": 3333})
        feed(client, settings.prefix, "HR", [given.entry(more)])
        project(settings)
        wait_for(lambda: both.named("change") and len(both.named("side")) > 2, what="the change for who sees both")
        beats = len(one.named("heartbeat"))
        wait_for(lambda: len(one.named("heartbeat")) > beats + 1, what="heartbeats")
        assert not one.named("change", "reset")
        assert ["SI"] == [message.data["side"] for message in one.named("side")]  # with which each stream begins
        for word in (*WORDS["HR"], "3333", "HR"):
            assert not holds(one.text.encode(), word)
    assert not holds(viewer.get("/api/tallies").content, "3333")
    assert room


def test_a_stream_begins_with_the_operations_and_devices_of_its_sides(room: Served, auditor: Browser) -> None:
    """They are told when they change, and kept by nobody: one told between a snapshot and its stream would be lost."""
    snapshot = auditor.get("/api/tallies").json()
    with auditor.listening(since=snapshot["id"]) as stream:
        wait_for(lambda: stream.named("heartbeat"), what="the stream to begin")
        wait_for(lambda: len(stream.named("side")) == 2, what="both sides")
        told = {message.data["side"]: message.data for message in stream.named("side")}
    for side in snapshot["sides"]:
        assert side["operations"] and side["devices"]
        assert {name: side[name] for name in ("side", "operations", "devices")} == told[side["side"]]
    assert room


@pytest.mark.parametrize("end", ["revoked", "expired", "deleted", "another side"])
def test_a_token_that_ends_ends_requests_and_open_streams(
    served: Served, client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """How soon is a matter of three lengths of time, which `test_sessions` adds up; here they are short."""
    monkeypatch.setattr(sessions, "BELIEVED_S", 0.1)
    monkeypatch.setattr(routes, "CHECK_AGAIN_S", 0.05)
    token = enrolled(client, settings.prefix, "viewer")
    lasting = enrolled(client, settings.prefix, "viewer", unit="other")
    key, digest = f"{settings.prefix}:principals", token_digest(token)
    row: Any = client.hget(key, digest)
    with Browser(served.address, token) as browser, Browser(served.address, lasting) as other:
        with browser.listening() as listener, other.listening() as going_on:
            wait_for(lambda: len(listener.named("heartbeat")) > 3, what="heartbeats")
            if end == "deleted":
                client.hdel(key, digest)
            elif end == "expired":
                past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat().encode()
                client.hset(key, digest, row[:-1] + b',"expires":"' + past + b'"}')
            else:
                new = {"revoked": (b'"active"', b'"revoked"'), "another side": (b'"side":"SI"', b'"side":"SI,HR"')}[end]
                assert new[0] in row
                client.hset(key, digest, row.replace(*new))
            wait_for(lambda: listener.ended, what="the stream to end")
            beats = len(going_on.named("heartbeat"))
            wait_for(lambda: len(going_on.named("heartbeat")) > beats + 3, what="the other stream to go on")
        assert (200 if end == "another side" else 401) == browser.get("/api/tallies").status_code
        assert 200 == other.get("/api/tallies").status_code


def test_a_snapshot_that_is_known_is_not_sent_again(
    served: Served, client: redis.Redis, settings: Settings, auditor: Browser
) -> None:
    """It is another one with every look at the server, and with every change."""

    def known() -> str:
        tag = auditor.get("/api/tallies").headers["etag"]
        answer = auditor.get("/api/tallies", If_None_Match=tag)
        return tag if (answer.status_code, answer.content) == (304, b"") else ""

    tag = wait_for(known, what="two requests between two looks")
    feed(client, settings.prefix, "SI", [given.entry(given.apprehension(id=1))])
    project(settings)
    wait_for(lambda: shows(served, client, settings.prefix), what="the change")
    answer = auditor.get("/api/tallies", If_None_Match=tag)
    assert 200 == answer.status_code
    assert answer.json()["sides"][0]["cells"]


def test_a_snapshot_is_compressed_once_for_all_who_ask(
    room: Served, auditor: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a reset that is every screen at the same moment."""
    compress, compressed = gzip.compress, []

    def noted(raw: bytes, *how: int, **more: Any) -> bytes:
        compressed.append(raw)
        return compress(raw, *how, **more)

    monkeypatch.setattr(gzip, "compress", noted)

    def same() -> bool:
        first, second = (auditor.get("/api/tallies", accept_encoding="gzip") for _ in range(2))
        assert "gzip" == first.headers["content-encoding"]
        assert room.side().position == first.json()["sides"][0]["position"]
        return first.headers["etag"] == second.headers["etag"]

    wait_for(same, what="two requests between two looks")
    assert len(set(compressed)) == len(compressed)


def test_the_last_event_id_wins_over_since(
    room: Served, client: redis.Redis, settings: Settings, viewer: Browser
) -> None:
    known = room.side().position
    for number in (11, 12):
        feed(client, settings.prefix, "SI", [given.entry(given.apprehension(id=number))])
        project(settings)
        wait_for(lambda: shows(room, client, settings.prefix), what="the change")
    with viewer.listening(room.side().position) as listener:
        wait_for(lambda: listener.named("heartbeat"), what="the heartbeat")
        assert ["heartbeat"] == [message.event for message in listener.messages[:1]]
    with viewer.listening(room.side().position, Last_Event_ID=known) as listener:
        wait_for(lambda: listener.named("heartbeat"), what="the heartbeat")
        first, second, *_ = listener.messages
        assert ["change", "change"] == [first.event, second.event]
        assert room.side().position == second.id == second.data["position"]
    with viewer.listening(known, Last_Event_ID="nonsense") as listener:
        wait_for(lambda: listener.named("heartbeat"), what="the heartbeat")
        assert ("reset", {"reason": "too-old"}) == (listener.messages[0].event, listener.messages[0].data)


def test_whoever_leaves_a_stream_is_forgotten(served: Served, auditor: Browser) -> None:
    with auditor.listening(), auditor.listening():
        wait_for(lambda: len(served.app.streams) == 2, what="two streams")
    wait_for(lambda: len(served.app.streams) == 0, what="no stream")


def test_before_the_first_report_there_was_nothing_and_in_the_future_there_is_the_present(
    room: Served, client: redis.Redis, settings: Settings, auditor: Browser
) -> None:
    for at in ("0-0", "1-0", "2000-01-01T00:00:00Z", quote("2000-01-01T00:00:00+01:00"), "1969-01-01T00:00:00Z"):
        snapshot = auditor.snapshot(f"?at={at}")
        assert "SI:0-0,HR:0-0" == snapshot["id"]
        assert oracle.digest({}) == snapshot["digest"]
        assert [({}, [], 0)] * 2 == [(side["cells"], side["latest"], side["entries"]) for side in snapshot["sides"]]
    for number in (21, 22):
        for at in ("2999-01-01T00:00:00Z", f"{10**18}-0"):
            snapshot = auditor.snapshot(f"?at={at}")
            assert room.side().cells == snapshot["sides"][0]["cells"]
        feed(client, settings.prefix, "SI", [given.entry(given.apprehension(id=number))])
        project(settings)
        wait_for(lambda: shows(room, client, settings.prefix), what="the change")


def test_a_log_that_is_damaged_has_no_past(
    room: Served, client: redis.Redis, settings: Settings, viewer: Browser
) -> None:
    client.xdel(f"{{{settings.prefix}:SI}}:log", log_of(client, settings.prefix, "SI")[1][0])
    answer = viewer.get(f"/api/tallies?at={room.side().position}")
    assert (503, "unavailable") == (answer.status_code, answer.json()["code"])
    assert 200 == viewer.get("/api/tallies").status_code


def test_a_fault_of_our_own_shows_nothing_of_it(
    served: Served, viewer: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(served.app.room, "_encoded", fail)
    answer = viewer.get("/api/tallies")
    assert 500 == answer.status_code
    assert "secret" not in answer.text
    assert [{"reason": "RuntimeError"}] == [{"reason": line["reason"]} for line in served.lines.named("fault")]


def test_a_stream_is_of_the_kind_that_browsers_take(served: Served, auditor: Browser) -> None:
    with auditor.listening() as listener:
        assert listener.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert listener.headers["cache-control"] == "no-store"
        assert "content-encoding" not in listener.headers
        wait_for(lambda: len(listener.named("heartbeat")) > 2, what="heartbeats")
        assert listener.text.startswith("retry: 2000\n\nevent: heartbeat\n")
        beat = listener.messages[-1].data
        assert beat["trouble"] == ""
        assert ["SI", "HR"] == [side["side"] for side in beat["sides"]]
        assert served.side().position == beat["sides"][0]["position"]
        assert all(message.id == "" for message in listener.named("heartbeat"))


def test_a_past_that_was_rebuilt_does_not_outlive_its_log(
    room: Served, client: redis.Redis, settings: Settings, viewer: Browser
) -> None:
    """A server that is set back may go on with another log, which has other reports at the same positions."""
    position = room.side().position
    (before,) = viewer.snapshot(f"?at={position}")["sides"]
    client.delete(*client.scan_iter(f"{{{settings.prefix}:SI}}:*"))
    wait_for(lambda: room.side().position == START, what="the room to notice")
    fields: Any = given.entry(given.apprehension(id=77))
    client.xadd(f"{{{settings.prefix}:SI}}:log", fields, position)
    project(settings)
    wait_for(lambda: shows(room, client, settings.prefix), what="the change")
    (after,) = viewer.snapshot(f"?at={position}")["sides"]
    assert (5, 1) == (before["entries"], after["entries"])
    assert room.side().cells == after["cells"] != before["cells"]
