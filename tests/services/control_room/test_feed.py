"""The feed under every kind of trouble: the room ends with the stored numbers, and those who look are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import redis
from msgspec.structs import replace

from schemas.vocabulary import Side
from services.control_room import app, routes, sessions
from services.control_room import feed as module
from services.control_room.room import RoomSide
from services.control_room.words import words
from services.replay.processes import rebuild_generations
from services.replay.rebuild import Rebuilt
from services.runtime.errors import UnreachableError
from services.runtime.settings import Settings
from tests import given, oracle
from tests.faults import Action, FaultProxy
from tests.gateways import enrolled
from tests.projectors import feed, project
from tests.servers import OwnServer
from tests.services.control_room.rooms import Browser, Listener, Served, add_up, cells_of, running_room, shows
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("quick")

GENERATION = ("checkpoint", "tallies", "index", "amendments", "devices", "operations", "parked")


class Watched:
    """A room on a server that may be harmed, and a page that holds what it has been told."""

    def __init__(self, served: Served, client: redis.Redis, settings: Settings, browser: Browser) -> None:
        self.served = served
        self.client = client
        self.settings = settings
        self.browser = browser
        self.number = 0

    def record(self, *sides: str) -> None:
        """Report something on these sides, and count it."""
        for side in sides or ("SI",):
            self.number += 1
            event = given.apprehension(id=self.number, side=side, persons={"SYR": self.number})
            feed(self.client, self.settings.prefix, side, [given.entry(event)])
        project(self.settings)

    def key(self, name: str, side: str = "SI") -> str:
        """Return the name of a key."""
        return f"{{{self.settings.prefix}:{side}}}:{name}"

    def wait_until_shown(self) -> None:
        """Wait until the room is level with the server."""
        prefix = self.settings.prefix
        wait_for(lambda: shows(self.served, self.client, prefix, "SI", "HR"), what="the room to show what is stored")

    def assert_agrees(self, listener: Listener) -> None:
        """Whoever begins anew where told to has the stored numbers, and the next heartbeat their digest."""
        self.wait_until_shown()
        stored = {side: cells_of(self.client, self.settings.prefix, side, self.live(side)) for side in ("SI", "HR")}
        digest = oracle.digest({**stored["SI"], **stored["HR"]})
        wait_for(
            lambda: (
                listener.named("heartbeat")[-1].data["digest"] == digest
                and listener.named("heartbeat")[-1].data["trouble"] == ""
            ),
            what="a heartbeat with the digest and without trouble",
        )
        wait_for(lambda: self.browser.get("/api/tallies").status_code == 200, what="tokens to be asked for again")
        snapshot = self.browser.snapshot()
        assert stored == {side["side"]: side["cells"] for side in snapshot["sides"]}
        assert digest == snapshot["digest"]

    def trouble_told(self, listener: Listener) -> str:
        """Return what the last heartbeat said."""
        said: str = listener.named("heartbeat")[-1].data["trouble"]
        return said

    def live(self, side: str) -> str:
        """Return the name of the live generation."""
        name: Any = self.client.get(self.key("live", side))
        return name.decode() if name else "g1"


@contextmanager
def watched(settings: Settings, client: redis.Redis, url: str | None = None) -> Iterator[Watched]:
    token = enrolled(client, settings.prefix, "auditor", "SI,HR", unit="wall")
    with running_room(settings, url) as served, Browser(served.address, token) as browser:
        yield Watched(served, client, settings, browser)


@pytest.fixture
def cut(settings: Settings, client: redis.Redis) -> Iterator[tuple[Watched, Callable[[], None], Callable[[], None]]]:
    """A room with something in it, and how to cut it off from the server and to connect it again."""
    assert settings.redis_url
    with FaultProxy(settings.redis_url) as proxy, watched(settings, client, proxy.url) as room:

        def cut_off() -> None:
            proxy.refuse()
            proxy.sever()

        room.record("SI", "HR")
        room.record("SI")
        room.wait_until_shown()
        yield room, cut_off, proxy.accept


def resets(listener: Listener) -> list[str]:
    return [message.data["reason"] for message in listener.named("reset")]


# Nothing wrong


def test_each_change_reaches_the_page_within_a_second(settings: Settings, client: redis.Redis) -> None:
    with watched(settings, client) as room:
        room.record("SI", "HR")
        room.wait_until_shown()
        snapshot = room.browser.snapshot()
        with room.browser.listening(snapshot["id"]) as listener:
            for number in range(5):
                room.record("SI" if number % 2 else "HR")
                wait_for(lambda n=number: len(listener.named("change")) > n, within_s=1.0, what="the change")  # type: ignore[misc]
            room.assert_agrees(listener)
            assert [] == resets(listener)
            assert add_up(snapshot, listener.messages) == {
                side["side"]: side["cells"] for side in room.browser.snapshot()["sides"]
            }


def test_a_seeded_log_that_is_counted_meanwhile_ends_with_the_same_numbers(
    settings: Settings, client: redis.Redis
) -> None:
    logs = given.seeded_log(20240313, 400)
    with watched(settings, client) as room:
        snapshot = room.browser.snapshot()
        with room.browser.listening(snapshot["id"]) as listener:
            while any(logs.values()):
                for side, entries in logs.items():
                    feed(client, settings.prefix, side, entries[:37])
                    del entries[:37]
                project(settings)
            room.assert_agrees(listener)
            assert [] == resets(listener)
            wait_for(
                lambda: (
                    listener.messages[-1].event == "heartbeat"
                    and add_up(snapshot, listener.messages)
                    == {side: cells_of(client, settings.prefix, side) for side in ("SI", "HR")}
                ),
                what="the page to have all numbers",
            )


# The connection


def test_a_cut_connection_is_said_and_what_was_missed_comes_without_a_reset(cut: Any) -> None:
    room, cut_off, connect = cut
    with room.browser.listening(room.browser.snapshot()["id"]) as listener:
        cut_off()
        wait_for(
            lambda: listener.named("heartbeat")[-1].data["trouble"] == "server-away", what="the trouble to be said"
        )
        room.record("SI", "HR")
        room.record("SI")
        assert not listener.named("change")
        connect()
        room.assert_agrees(listener)
        assert [] == resets(listener)
        assert 3 == len(listener.named("change"))
    assert 1 == len(room.served.lines.named("server_away")) == len(room.served.lines.named("server_back"))


def test_while_the_server_is_away_what_is_known_goes_on_and_its_age_is_said(cut: Any) -> None:
    room, cut_off, _ = cut
    with room.browser.listening() as listener:
        cut_off()
        wait_for(
            lambda: listener.named("heartbeat")[-1].data["trouble"] == "server-away", what="the trouble to be said"
        )
        beats = len(listener.named("heartbeat"))
        wait_for(lambda: len(listener.named("heartbeat")) > beats + 3, what="more heartbeats")
        first, *_, last = (message.data for message in listener.named("heartbeat")[beats:])
        assert first["looked"] == last["looked"] < first["now"] < last["now"]
        assert room.browser.get("/health/ready").status_code == 503
        assert not listener.ended


def test_while_the_server_is_away_a_wall_that_boots_gets_a_page_that_tries_again(cut: Any) -> None:
    room, cut_off, _ = cut
    cut_off()
    with Browser(room.served.address, "a token that nobody was asked about") as wall:
        screen = wall.get("/?kiosk=1&lang=hr&side=SI")
        login = wall.send("POST", "/login", data={"token": "another"})
        data = wall.get("/api/tallies")
    assert (503, "text/html; charset=utf-8") == (screen.status_code, screen.headers["content-type"])
    refresh = f'<meta http-equiv="refresh" content="{routes.AGAIN_S};url=/?side=SI&amp;kiosk=1&amp;lang=hr">'
    assert refresh in screen.text and words("hr")("trouble.server-away") in screen.text
    assert 503 == login.status_code
    assert f'content="{routes.AGAIN_S};url=/?lang=en"' in login.text
    assert (503, "unavailable") == (data.status_code, data.json()["code"])


def test_a_server_that_hangs_holds_up_no_heartbeat(
    settings: Settings, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor the question whether a token still sees its sides: who looks is told at once, and goes on afterwards."""
    monkeypatch.setattr(app, "connect", partial(app.connect, timeout_s=1.0))
    monkeypatch.setattr(sessions, "BELIEVED_S", 0.1)
    monkeypatch.setattr(routes, "CHECK_AGAIN_S", 0.05)
    assert settings.redis_url
    with (
        FaultProxy(settings.redis_url) as proxy,
        watched(settings, client, proxy.url) as room,
        room.browser.listening(room.browser.snapshot()["id"]) as listener,
    ):
        wait_for(lambda: listener.named("heartbeat"), what="a heartbeat")
        proxy.on_command = lambda _: Action.SWALLOW_REPLY
        beats = len(listener.named("heartbeat"))
        wait_for(lambda: len(listener.named("heartbeat")) > beats + 5, within_s=1.0, what="heartbeats meanwhile")
        wait_for(lambda: room.trouble_told(listener) == "server-away", what="the trouble to be said")
        proxy.on_command = None
        proxy.sever()
        room.record("SI")
        room.assert_agrees(listener)
        assert [] == resets(listener)
        assert not listener.ended


def test_a_feed_trimmed_past_the_room_means_a_reset(cut: Any) -> None:
    room, cut_off, connect = cut
    with room.browser.listening(room.browser.snapshot()["id"]) as listener:
        cut_off()
        for _ in range(3):
            room.record("SI")
        room.client.xtrim(room.key("changes"), maxlen=1, approximate=False)
        connect()
        room.assert_agrees(listener)
        wait_for(lambda: resets(listener) == ["too-old"], what="the reset")


def test_a_feed_that_was_deleted_meanwhile_means_a_reset(cut: Any) -> None:
    room, cut_off, connect = cut
    with room.browser.listening(room.browser.snapshot()["id"]) as listener:
        cut_off()
        room.record("SI")
        room.client.delete(room.key("changes"))
        connect()
        room.assert_agrees(listener)
        wait_for(lambda: resets(listener) == ["too-old"], what="the reset")
        room.record("SI")
        room.assert_agrees(listener)
        assert ["too-old"] == resets(listener)


def test_a_feed_deleted_behind_the_room_is_no_loss(cut: Any) -> None:
    room, _, _ = cut
    with room.browser.listening(room.browser.snapshot()["id"]) as listener:
        room.client.delete(room.key("changes"))
        room.record("SI")
        room.assert_agrees(listener)
        assert [] == resets(listener)


def test_junk_in_the_feed_is_passed_over_and_read_once(
    settings: Settings, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    follow = RoomSide.follow

    async def counted(self: RoomSide, changes: Any) -> bool:
        taken.append(len(changes))
        return await follow(self, changes)

    monkeypatch.setattr(RoomSide, "follow", counted)
    with watched(settings, client) as room:
        room.record("SI")
        room.wait_until_shown()
        with room.browser.listening(room.browser.snapshot()["id"]) as listener:
            client.xadd(room.key("changes"), {"junk": "x"})
            wait_for(lambda: 0 in taken, what="the junk to be met")
            room.record("SI")
            room.assert_agrees(listener)
            assert [] == resets(listener)
            assert 1 == taken.count(0)


# The server


def test_a_server_killed_and_started_again_ends_with_the_same_numbers(
    fresh_server: OwnServer, settings_for: Callable[..., Settings]
) -> None:
    settings = settings_for(fresh_server.url)
    with fresh_server.client() as client, watched(settings, client) as room:
        room.record("SI", "HR")
        room.wait_until_shown()
        with room.browser.listening(room.browser.snapshot()["id"]) as listener:
            fresh_server.kill()
            wait_for(
                lambda: listener.named("heartbeat")[-1].data["trouble"] == "server-away", what="the trouble to be said"
            )
            fresh_server.start()
            room.record("SI", "HR")
            room.assert_agrees(listener)
            assert [] == resets(listener)
            assert not listener.ended


def test_a_server_set_back_to_an_older_state_means_a_reset(cut: Any) -> None:
    room, cut_off, connect = cut
    keys = [room.key(name) for name in ("log", "changes", "live", *(f"g1:{part}" for part in GENERATION))]
    kept = {key: value for key in keys if (value := room.client.dump(key))}
    room.record("SI")
    room.wait_until_shown()
    with room.browser.listening(room.browser.snapshot()["id"]) as listener:
        cut_off()
        for key, value in kept.items():
            room.client.restore(key, 0, value, replace=True)
        connect()
        room.assert_agrees(listener)
        wait_for(lambda: resets(listener) == ["restarted"], what="the reset")
        room.record("SI")
        room.assert_agrees(listener)
        assert ["restarted"] == resets(listener)


def test_an_emptied_server_means_a_reset_and_counts_from_nothing(cut: Any) -> None:
    room, _, _ = cut
    with room.browser.listening(room.browser.snapshot()["id"]) as listener:
        room.client.delete(*room.client.scan_iter(f"{{{room.settings.prefix}:*"))
        wait_for(lambda: resets(listener) == ["restarted"] * 2, what="a reset for each side")
        room.assert_agrees(listener)
        assert {} == room.browser.snapshot()["sides"][0]["cells"]
        room.record("SI", "HR")
        room.assert_agrees(listener)
        assert {} != room.browser.snapshot()["sides"][0]["cells"]


@pytest.mark.parametrize("behind", [False, True], ids=["level", "behind"])
def test_a_generation_swapped_in_means_one_reset(
    settings: Settings,
    client: redis.Redis,
    behind: bool,  # noqa: FBT001  # a parameter of the test
) -> None:
    """Also one that is behind the feed: it is loaded once, not over and over until a projector has gone on."""
    with watched(settings, client) as room:
        room.record("SI", "HR")
        if behind:
            _copy_generation(room)
        room.record("SI")
        room.record("SI")
        if not behind:
            _copy_generation(room)
        client.hset(room.key("g2:tallies"), "SI||koper|2024-03-14|persons|SYR", 77)
        room.wait_until_shown()
        with room.browser.listening(room.browser.snapshot()["id"]) as listener:
            client.set(room.key("live"), "g2")
            wait_for(lambda: resets(listener), what="the reset")
            room.assert_agrees(listener)
            assert room.served.side().cells["SI||koper|2024-03-14|persons|SYR"] == 77
            beats = len(listener.messages)
            wait_for(lambda: len(listener.messages) > beats + 5, what="more heartbeats")
            room.record("SI")
            room.assert_agrees(listener)
            assert ["generation"] == resets(listener)


def test_what_a_generation_that_was_behind_catches_up_with_comes_change_by_change(
    settings: Settings, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its changes stand before those that were read already, so the reader goes back to where it begins."""
    monkeypatch.setattr(module, "LOOK_S", 1.0)  # else a look would load everything before the reader reads again
    monkeypatch.setattr("services.projector.app.BATCH_MAX", 1)
    with watched(settings, client) as room:
        room.record("SI")
        _copy_generation(room)
        for _ in range(3):
            room.record("SI")
        room.wait_until_shown()
        with room.browser.listening(room.browser.snapshot()["id"]) as listener:
            client.set(room.key("live"), "g2")
            wait_for(lambda: resets(listener), what="the reset")
            project(settings)
            room.assert_agrees(listener)
            assert ["generation"] == resets(listener)
            assert 3 == len(listener.named("change"))


def test_a_rebuild_that_is_swapped_in_mends_what_is_shown(settings: Settings, client: redis.Redis) -> None:
    """While the room runs: one reset, and the right numbers."""
    cell = "SI||koper|2024-03-14|persons|SYR"
    feed(client, settings.prefix, "SI", [given.entry(given.apprehension(id=1, persons={"SYR": 4}))])
    project(settings)
    client.hset(f"{{{settings.prefix}:SI}}:g1:tallies", cell, 77)
    one_side = replace(settings, sides=settings.sides[:1])
    with watched(settings, client) as room:
        room.number = 1
        room.wait_until_shown()
        assert room.served.side().cells[cell] == 77
        with room.browser.listening(room.browser.snapshot()["id"]) as listener:
            rebuilt = rebuild_generations(one_side, str(settings.redis_url), swap=True)[Side("SI")]
            assert isinstance(rebuilt, Rebuilt)
            assert [(77, 4)] == [(found.live, found.rebuilt) for found in rebuilt.differences]
            assert client.get(room.key("live")) == b"g2"
            wait_for(lambda: resets(listener), what="the reset")
            room.assert_agrees(listener)
            assert room.served.side().cells[cell] == 4
            room.record("SI")
            room.assert_agrees(listener)
            assert room.served.side().cells[cell] == 4 + 2
            assert ["generation"] == resets(listener)


def _copy_generation(room: Watched) -> None:
    for name in GENERATION:
        room.client.copy(room.key(f"g1:{name}"), room.key(f"g2:{name}"))


def test_a_projector_that_stands_still_is_said(settings: Settings, client: redis.Redis, monkeypatch: Any) -> None:
    monkeypatch.setattr("services.control_room.routes.LOOKED_S", 0.2)
    with watched(settings, client) as room, room.browser.listening() as listener:
        feed(client, settings.prefix, "SI", [given.entry(given.apprehension(id=1))])
        wait_for(
            lambda: listener.named("heartbeat")[-1].data["trouble"] == "projector-behind", what="the trouble to be said"
        )
        si, hr = listener.named("heartbeat")[-1].data["sides"]
        assert (1, 0) == (si["lag"], hr["lag"])
        assert si["lag_s"] > 0.2
        project(settings)
        room.assert_agrees(listener)


# Faults of our own


@pytest.mark.parametrize("step", ["follow", "look"])
@pytest.mark.parametrize("error", [RuntimeError("bug"), UnreachableError("away")], ids=["fault", "away"])
def test_whatever_goes_wrong_is_said_and_got_over(
    settings: Settings, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception
) -> None:
    working: Any = getattr(RoomSide, step)
    failed: list[str] = []

    async def fail(self: RoomSide, *args: Any) -> Any:
        if len(failed) < 3:
            failed.append(self.side.side)
            raise error
        return await working(self, *args)

    with watched(settings, client) as room, room.browser.listening() as listener:
        room.record("SI", "HR")
        room.wait_until_shown()
        monkeypatch.setattr(RoomSide, step, fail)
        room.record("SI", "HR")
        wait_for(lambda: len(failed) == 3, what="the failures")
        room.assert_agrees(listener)
        assert room.served.lines.named("server_back") or step == "follow"


def test_a_room_that_cannot_load_does_not_start(settings: Settings, client: redis.Redis) -> None:
    client.set(f"{{{settings.prefix}:HR}}:log", "no stream")
    client.hset(f"{{{settings.prefix}:HR}}:g1:checkpoint", "position", "7-0")
    with pytest.raises(Exception, match="another kind of value"), running_room(settings):
        pass
