"""The screen while things break: it says so within the thresholds, and ends with the numbers of the stored tallies."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from typing import Final

import pytest

from tests.screens import Screen, Wall, Walls, renderers, running_wall, stopped
from tests.waiting import wait_for

GENERATION: Final = ("checkpoint", "tallies", "index", "amendments", "devices", "operations", "parked")


@pytest.fixture(scope="module")
def walls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walls]:
    """Give all that these tests have in common, once. Each leaves it running."""
    with running_wall(tmp_path_factory.mktemp("wall")) as walls:
        walls.wall.apprehended("", persons={"SYR": 2})
        walls.wall.late_entry("HR", late_s=3_600)  # nothing else of this side, so that one test may add another
        walls.wall.wait_until_counted()
        yield walls


@pytest.fixture
def screen(walls: Walls) -> Iterator[Screen]:
    """Give a screen that is live, on a machine whose clock can be turned on."""
    walls.wall.mend()
    with walls.screen(may_fail=True) as screen:
        screen.page.clock.install()
        screen.open("?lang=en")
        screen.wait_until_it_agrees()
        yield screen


def silence(screen: Screen) -> list[tuple[int, str]]:
    """Let a screen hear nothing for some twenty seconds; return what it said after each, and for how long by itself."""
    said: list[tuple[int, str]] = []
    for _ in range(20):
        screen.page.clock.run_for(1_000)
        age, state = screen.page.evaluate("[document.querySelector('#age').textContent, document.body.dataset.state]")
        said.append((int(re.sub(r"\D", "", age)), state))
    return said


def thresholds(age_s: int) -> set[str]:
    """Return what a screen may say that has heard nothing for so many whole seconds."""
    if age_s in (10, 15):
        return {"live", "delayed"} if age_s == 10 else {"delayed", "lost"}
    return {"live"} if age_s < 10 else {"delayed"} if age_s < 15 else {"lost"}


# The control room


def test_a_silent_room_is_said_to_be_delayed_after_10_s_and_lost_after_15_s(walls: Walls, screen: Screen) -> None:
    """A half-open connection raises no error: only the page's own clock tells."""
    with stopped(walls.wall.room.pid):
        said = silence(screen)
        assert [] == [(age, state) for age, state in said if state not in thresholds(age)]
        assert {"live", "delayed", "lost"} == {state for _, state in said}
        wait_for(lambda: not screen.linked, what="the page to give up a connection on which nothing comes")
        assert screen.text("#loss").startswith("✕ Link lost since ")
        assert "✕ LOST" in screen.page.title()
        hatched = screen.page.locator("#figures b").first.evaluate(
            "(digits) => getComputedStyle(digits).backgroundImage"
        )
        assert "gradient" in hatched
        assert "lag not known" in screen.text("#lag")
        heard = screen.page.locator('#figures th[data-side="SI"] .heard')
        assert re.fullmatch(r"heard at .*, not known since", heard.inner_text())
        screen.page.clock.run_for(700_000)
        assert "silent" not in heard.inner_text(), "nobody knows"
        screen.page.keyboard.press(" ")
        assert "❄ FROZEN · ✕ LOST" in screen.page.title()
        assert "0 s old" not in screen.text("#frozen"), "what stands there is as old as it is"
        screen.page.keyboard.press(" ")
        walls.wall.apprehended("")
    screen.wait_for_the_link()
    screen.wait_until_it_agrees()
    assert "" == screen.text("#loss")


def test_a_room_that_is_killed_is_lost_and_comes_back_with_the_numbers(walls: Walls, screen: Screen) -> None:
    walls.wall.kill_room()
    said = silence(screen)
    assert "lost" == said[-1][1]
    assert [] == [(age, state) for age, state in said if state not in thresholds(age)]
    walls.wall.apprehended("")
    walls.wall.wait_until_counted()
    walls.wall.start_room()
    screen.wait_for_the_link()
    screen.wait_until_it_agrees()


def test_a_room_that_is_restarted_at_once_is_no_loss(walls: Walls, screen: Screen) -> None:
    screen.page.evaluate("states.length = 0")
    walls.wall.kill_room()
    wait_for(lambda: not screen.linked, what="the page to notice")
    walls.wall.apprehended("")
    walls.wall.start_room()
    screen.wait_for_the_link()
    screen.wait_until_it_agrees()
    assert "lost" not in screen.page.evaluate("states")


def test_a_feed_that_was_trimmed_past_the_page_means_another_snapshot(walls: Walls, screen: Screen) -> None:
    fetched: list[str] = []
    screen.page.on("request", lambda request: fetched.append(request.url))
    walls.wall.kill_room()
    for _ in range(2):
        walls.wall.apprehended("")
        walls.wall.wait_until_counted()
    assert walls.wall.client.xtrim(walls.wall.key("SI", "changes"), maxlen=0, approximate=False)
    walls.wall.start_room()
    screen.wait_for_the_link()
    screen.wait_until_it_agrees()
    assert [url for url in fetched if url.endswith("/api/tallies")]


# The store and the projector


def test_a_server_that_is_killed_is_said_and_the_page_goes_on_after_it_is_back(walls: Walls, screen: Screen) -> None:
    walls.wall.server.kill()
    screen.wait_for_state("delayed")
    assert "The store does not answer. The store was last reached at " in screen.text("#delay")
    walls.wall.server.start()
    screen.wait_for_state("live")
    walls.wall.apprehended("")
    walls.wall.wait_until_counted()
    screen.wait_until_it_agrees()
    assert "" == screen.text("#delay")


def test_a_store_that_does_not_answer_is_lost_as_a_link_is(walls: Walls, screen: Screen) -> None:
    """The control room goes on speaking; the numbers are as old as if it did not."""
    with stopped(walls.wall.client.info("server")["process_id"]):
        screen.wait_for_state("delayed")
        wait_for(lambda: "lag not known" in screen.text("#lag"), what="the lag to be unknown")
        wait_for(lambda: screen.state == "lost", what="the store to be lost")
        assert screen.text("#loss").startswith("✕ No look at the store since ")
        age = int(re.sub(r"\D", "", screen.text("#age").partition("s")[0]))
        assert age >= 15, "that of the numbers"
    screen.wait_for_state("live")
    assert "" == screen.text("#loss")
    screen.wait_until_it_agrees()


def test_a_projector_that_stands_still_is_said_with_its_side(walls: Walls, screen: Screen) -> None:
    """The entry that waits has been in the log for a minute: nobody has to wait for it to be late."""
    walls.wall.projector.send(signal.SIGTERM)
    walls.wall.projector.wait()
    screen.page.clock.run_for(1_000)
    assert "live" == screen.state
    walls.wall.late_entry("HR", late_s=60)
    screen.wait_for_state("delayed")
    said = screen.text("#delay")
    assert re.fullmatch(r"◐ HR: the projector is (1 min|6\d s) behind the log\.", said), said
    assert "· lag 1" == screen.text("#lag")
    walls.wall.start_projector()
    walls.wall.wait_until_counted()
    screen.wait_until_it_agrees()


def test_a_log_that_is_gone_is_no_quiet_border(walls: Walls, screen: Screen) -> None:
    walls.wall.projector.send(signal.SIGTERM)
    walls.wall.projector.wait()
    log = walls.wall.key("SI", "log")
    walls.wall.client.rename(log, f"{log}.elsewhere")
    screen.wait_for_state("delayed")
    said = screen.text("#delay")
    assert "◐ The log and what was counted from it do not fit together: `fieldtally doctor` says more." == said
    walls.wall.client.rename(f"{log}.elsewhere", log)
    screen.wait_for_state("live")
    walls.wall.start_projector()
    walls.wall.wait_until_counted()
    screen.wait_until_it_agrees()


def swap_in_a_copy(wall: Wall, cell: str, count: int) -> None:
    """Make live what is a copy of the live generation but for one cell: in one step, for the projector may be writing.

    Of the live one, whichever that is: an older one would be behind the log, as no swap ever leaves it.
    """
    live = wall._live("SI")
    another = f"g{int(live[1:]) + 10}"
    with wall.client.pipeline() as swap:
        for name in GENERATION:
            swap.copy(wall.key("SI", f"{live}:{name}"), wall.key("SI", f"{another}:{name}"))
        swap.hset(wall.key("SI", f"{another}:tallies"), cell, count)
        swap.set(wall.key("SI", "live"), another)
        swap.execute()


def test_a_generation_that_is_swapped_in_is_shown_without_a_reload(walls: Walls, screen: Screen) -> None:
    screen.page.evaluate("globalThis.same = true")
    wall = walls.wall

    def shown() -> int:
        return int(screen.number(side="SI").replace(",", ""))

    before = shown()
    swap_in_a_copy(wall, "SI||koper|2024-03-14|persons|SYR", 7_777)
    wait_for(lambda: shown() > before + 7_000, what="the other generation")
    screen.wait_until_it_agrees()
    wall.apprehended("")
    wall.wait_until_counted()
    screen.wait_until_it_agrees()
    wall.rebuild()
    wait_for(lambda: shown() < before + 7_000, what="the rebuilt generation")
    screen.wait_until_it_agrees()
    wall.apprehended("")
    wall.wait_until_counted()
    screen.wait_until_it_agrees()
    assert screen.page.evaluate("same")


def test_a_generation_that_is_swapped_in_while_the_page_is_away_is_shown_as_well(walls: Walls, screen: Screen) -> None:
    """At the same position: nothing is missing between what the page knows and what the stream goes on from."""
    wall = walls.wall
    wall.kill_room()
    wait_for(lambda: not screen.linked, what="the page to notice")
    swap_in_a_copy(wall, "SI||koper|2024-03-14|persons|AFG", 5_555)
    wall.start_room()
    screen.wait_for_the_link()
    screen.wait_until_it_agrees()


# The page's own machine


def test_a_machine_that_slept_shows_no_old_number_as_live(walls: Walls, screen: Screen) -> None:
    """What it shows first after an hour is how old it is; timers that stood still have noticed nothing before."""
    with stopped(walls.wall.room.pid):
        screen.page.evaluate("states.length = 0")
        screen.page.clock.fast_forward("01:00:00")
        assert "lost" == screen.state
        assert "1 h 0 min" == screen.text("#age")
        assert ["lost"] == screen.page.evaluate("states")
        walls.wall.apprehended("")
    screen.wait_for_the_link()
    screen.wait_until_it_agrees()


def test_a_renderer_that_stood_still_catches_up(walls: Walls, screen: Screen) -> None:
    with stopped(*renderers()):
        walls.wall.apprehended("")
        walls.wall.wait_until_counted()
    screen.wait_until_it_agrees()


def test_a_page_that_the_browser_froze_and_thawed_begins_its_stream_anew(walls: Walls, screen: Screen) -> None:
    """After eight seconds, too, which are no loss yet: what waited in the connection is old."""
    streams: list[str] = []
    screen.page.on("request", lambda request: streams.append(request.url))
    wire = screen.page.context.new_cdp_session(screen.page)
    wire.send("Page.setWebLifecycleState", {"state": "frozen"})
    walls.wall.apprehended("")
    walls.wall.wait_until_counted()
    screen.page.clock.fast_forward("00:08")
    wire.send("Page.setWebLifecycleState", {"state": "active"})
    screen.wait_until_it_agrees()
    assert 1 == len([url for url in streams if "/api/stream" in url])


def test_a_network_that_comes_back_is_used_at_once(walls: Walls, screen: Screen) -> None:
    """Without the pause that keeps a herd apart: no second of the page's time passes."""
    screen.page.context.set_offline(True)
    walls.wall.kill_room()  # which cuts the stream; where it is again, the page does not get to
    walls.wall.start_room()
    walls.wall.apprehended("")
    walls.wall.wait_until_counted()
    assert "lost" == silence(screen)[-1][1]
    screen.page.clock.pause_at(screen.page.evaluate("Date.now()") / 1_000 + 1)
    screen.page.context.set_offline(False)
    screen.wait_for_state("live")
    screen.page.clock.resume()
    screen.wait_until_it_agrees()


def test_messages_that_come_late_are_said_to_and_a_new_connection_begins_anew(screen: Screen) -> None:
    """To the page a message is late as well if its own clock has gone ahead; it must not stay so for ever."""
    for _ in range(12):
        screen.page.clock.run_for(1_000)
    wait_for(lambda: re.fullmatch(r"◐ Messages arrive 1\d s late\.", screen.text("#delay")), what="the late messages")
    wait_for(lambda: not screen.linked, what="the end of the connection")
    assert "delayed" == screen.state
    screen.wait_for_the_link()
    screen.wait_for_state("live")
    assert "" == screen.text("#delay")


def test_an_error_in_the_page_itself_looks_like_no_working_screen(walls: Walls) -> None:
    with walls.screen() as screen:
        screen.open("?lang=en")
        screen.page.evaluate("document.querySelector('#lag').remove()")
        screen.wait_for_state("lost")
        assert "This page has failed" in screen.text("#loss")
        assert screen.faults
        screen.page.get_by_role("link", name="Reload").click()
        screen.wait_for_state("live")
        screen.faults.clear()
