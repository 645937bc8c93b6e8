"""What a view says of itself: what it counts over, what is wrong with it, and that what is taken along agrees."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from services.control_room.words import LANGUAGES, Language, words
from tests import given, oracle
from tests.screens import SECTIONS, Screen, Walls, running_wall
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def walls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walls]:
    """Give a wall with an operation that has a report."""
    with running_wall(tmp_path_factory.mktemp("wall")) as walls:
        walls.wall.apprehended(walls.wall.operation("KOLPA-26"), persons={"SYR": 4})
        walls.wall.apprehended("", persons={"AFG": 2})
        walls.wall.wait_until_counted()
        yield walls


def digits(screen: Screen) -> set[str]:
    """Return what stands in the place of the big numbers."""
    return set(screen.page.locator("#figures td b").all_inner_texts())


# What is counted over


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_view_without_a_period_says_that_it_counts_everything(walls: Walls, language: Language) -> None:
    say = words(language)
    with walls.screen() as screen:
        for query, said in (("", say("period.all")), ("&kiosk=1", say("period.all.short")), ("&to=2020-01-31", "2020")):
            screen.open(f"?lang={language}{query}")
            assert said in screen.text("#day")
            assert (said in (say("period.all"), say("period.all.short"))) == ("to=" not in query)
        screen.open(f"?lang={language}&operation=KOLPA-26")
        assert say("period.all") not in screen.text("#day")


# A view of nothing that there is


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("query", "key", "without"),
    [
        ("operation=KOLPA-62", "operation", "KOLPA-62"),
        ("side=XX&operation=KOLPA-26", "side", "side"),
        ("side=si", "side", "side"),
        ("side=SI&side=HR", "twice", "side"),
        ("from=2026-13-01", "day", "from"),
        ("to=x", "day", "to"),
        ("from=2026-03-15&to=2026-03-14", "order", "2026"),
    ],
)
def test_a_view_of_nothing_says_what_is_wrong_and_has_no_zeros(
    walls: Walls, language: Language, query: str, key: str, without: str
) -> None:
    with walls.screen() as screen:
        screen.open(f"?lang={language}&{query}")
        begin = words(language)(f"wrong.{key}").partition("{")[0]
        said = screen.text("#amiss")
        assert begin.strip() in said
        assert "{" not in said
        assert {"–"} == digits(screen)
        assert not screen.page.locator("#panels, footer .controls").first.is_visible()
        assert f"{words(language)('state.live')} · – ·" in screen.page.title()
        screen.page.locator("#amiss a").click()
        screen.wait_for_state("live")
        assert without not in screen.page.url
        assert {"–"} != digits(screen)
        assert screen.page.locator("#amiss").is_hidden()


def test_a_side_that_one_may_not_see_is_not_offered_and_not_zero(walls: Walls) -> None:
    with walls.screen(walls.wall.viewer("SI")) as screen:
        screen.open("?lang=en&side=HR")
        assert "There is no side HR that you may see. You see SI." in screen.text("#amiss")
        assert {"–"} == digits(screen)
        assert ["", "SI"] == screen.page.locator("#filters [name=side] option").evaluate_all(
            "(all) => all.map((one) => one.value)"
        )


def test_an_operation_that_nobody_opened_is_shown_when_reports_name_it_and_loses_the_note_once_opened(
    walls: Walls,
) -> None:
    wall = walls.wall
    with walls.screen() as screen:
        screen.open("?lang=en&operation=EARLY-1")
        assert "Nobody has opened an operation EARLY-1" in screen.text("#amiss")
        opened = wall.operation("EARLY-1")
        screen.wait_for_number("0")
        assert screen.page.locator("#amiss").is_hidden()
        assert opened in screen.page.url
    late = "BY-IMPORT-1"
    wall.client.xadd(wall.key("SI", "log"), {"event": _named(walls, late)})
    wall.wait_until_counted()
    with walls.screen() as screen:
        screen.open(f"?lang=en&operation={late}")
        assert f"Nobody has opened the operation {late}: shown is" in screen.text("#amiss")
        assert "7" == screen.number()


# Of several operations


def test_rows_of_two_operations_can_be_told_apart_where_the_view_is_of_all(walls: Walls) -> None:
    wall = walls.wall
    one, two = wall.operation(), wall.operation()
    for operation in (one, two):
        wall.apprehended(operation, persons={"SYR": 41})
    taken_back = wall.apprehended(one, persons={"AFG": 3, "IRQ": 1})
    wall.report("withdrawal", one, amends=taken_back, revision=1, reason="duplicate")
    wall.wait_until_counted()
    for kiosk in (0, 1):
        with walls.screen(viewport={"width": 1920, "height": 1080}) as screen:
            screen.open(f"?lang=en&kiosk={kiosk}")
            latest = screen.page.locator("#latest tbody tr")
            withdrawal = latest.filter(has_text="↩").first
            withdrawal.wait_for()
            told = withdrawal.inner_text()
            assert one in told
            assert "withdrawn: duplicate · apprehension; −4 persons: −3 Afghanistan, −1 Iraq · received " in told
            sections = screen.page.locator("#section tbody tr").all_inner_texts()
            assert {one, two} <= {row.split("\t")[1].strip() for row in sections if row.startswith("SI koper")}
            if not kiosk:
                assert latest.filter(has_text=f"operation opened: {two}").count() == 2
            screen.open(f"?lang=en&kiosk={kiosk}&operation={one}")
            assert "Operation" not in screen.text("#section thead")


# Out of the wall's view


@pytest.mark.parametrize("way", ["Escape", "mouse", "Tab"])
def test_a_wall_is_left_by_escape_the_mouse_or_the_keyboard(walls: Walls, way: str) -> None:
    with walls.screen() as screen:
        screen.open("?kiosk=1&lang=en&operation=KOLPA-26")
        leave = screen.page.locator("#leave")
        seen = "(one) => one.getBoundingClientRect().right <= innerWidth"
        assert not leave.evaluate(seen)
        screen.page.keyboard.press("Space")
        screen.page.keyboard.press("Escape")  # this one is for the frozen view
        assert "kiosk=1" in screen.page.url
        if way == "Escape":
            screen.page.keyboard.press("Escape")
        elif way == "mouse":
            screen.page.mouse.move(200, 200)
            wait_for(lambda: leave.evaluate(seen), what="the way out")
            leave.click()
        else:
            while not leave.evaluate("(one) => one === document.activeElement"):
                screen.page.keyboard.press("Tab")
            assert leave.evaluate(seen)
            screen.page.keyboard.press("Enter")
        screen.page.locator("#freeze").wait_for()
        assert screen.page.url.endswith("/?lang=en&operation=KOLPA-26")


# The past as somebody asks for it


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_time_that_is_typed_is_read_and_one_outside_the_log_is_not_dated(walls: Walls, language: Language) -> None:
    say = words(language)
    with walls.screen(may_fail=True) as screen:
        screen.open(f"?lang={language}")
        screen.page.locator("#filters [name=at]").fill(f"{datetime.now(UTC).date()}")
        screen.page.keyboard.press("Enter")
        screen.wait_for_state("past")
        wait_for(lambda: screen.number().isdigit() and int(screen.number()) >= 6, what="the numbers of the past")
        assert say("past.band", position="").strip() in screen.text("#banners .past")
        tomorrow = f"{datetime.now(UTC).date() + timedelta(days=2)}"
        screen.open(f"?lang={language}&at={tomorrow}", "past")
        assert say("past.ahead", position=tomorrow) in screen.text("#banners .past")
        for early in ("0-0", "1999-01-01"):
            screen.open(f"?lang={language}&at={early}", "past")
            assert say("past.before", position=early) in screen.text("#banners .past")
            assert "1970" not in screen.text("body")
            assert say("past.nothing") in screen.text("#asof")
            assert {"0"} == digits(screen)
        screen.page.goto(f"{walls.wall.address}/?lang={language}&at=yesterday")
        assert "2024-03-14 12:00" in screen.text("main")


# What is taken along


def taken(screen: Screen, kind: str) -> str:
    """Return what the link to an export leads to."""
    href = screen.page.locator(f'[data-export$="{kind}"]').get_attribute("href")
    text: str = screen.page.evaluate("(href) => fetch(href).then((answer) => answer.text())", href)
    return text


def test_what_is_taken_along_from_a_frozen_view_is_what_it_shows(walls: Walls) -> None:
    wall = walls.wall
    operation = wall.operation()
    with walls.screen() as screen:
        screen.open(f"?lang=en&operation={operation}")
        for count in (3, 5):  # the second time within the seconds before the server names a digest
            wall.apprehended(operation, persons={"SYR": count})
            screen.wait_for_number(str(count if count == 3 else 8))
        screen.page.keyboard.press("Space")
        shown = screen.page.locator("#asof a").all_inner_texts()
        then = oracle.digest(wall.tallies())
        wall.apprehended(operation, persons={"SYR": 9})
        wall.wait_until_counted()
        assert "8" == screen.number()
        document: Any = json.loads(taken(screen, ".json"))
        assert shown == [document["position"][side] for side in SECTIONS]
        assert "past" == document["view"]
        assert then == document["digest"] == screen.page.locator("#digest details > code").text_content()
        rows = list(csv.DictReader(io.StringIO(taken(screen, ".csv"))))
        assert ["8"] == [row["count"] for row in rows if row["measure"] == "persons"]
        screen.page.keyboard.press("Space")
        screen.wait_for_number("17")
        assert "at=" not in (screen.page.locator('[data-export$=".csv"]').get_attribute("href") or "")


def _named(walls: Walls, operation: str) -> bytes:
    return given.apprehension(section="koper", persons={"SYR": 7}, **walls.wall._head("SI", operation))


# Logging out


@pytest.mark.parametrize("other", ["live", "past"])
def test_who_logs_out_in_one_tab_has_logged_out_in_all(walls: Walls, other: str) -> None:
    with walls.screen(may_fail=True) as screen:
        screen.open("?lang=en")
        beside = Screen(walls.wall, screen.page.context.new_page())
        beside.open(f"?lang=en&operation=KOLPA-26{'&at=12:00' if other == 'past' else ''}", other)
        screen.page.get_by_role("button", name="Log out").click()
        for one in (screen, beside):
            one.page.locator("input[name=token]").wait_for()
        assert "operation=KOLPA-26" in beside.page.url
        assert not beside._linked


# How old it is

_DEAF = """
const add = EventSource.prototype.addEventListener;
EventSource.prototype.addEventListener = function (kind, listener) {
    add.call(this, kind, (event) => kind === "heartbeat" && globalThis.deaf || listener(event));
};"""


def test_a_change_moves_at_once_as_of_when_and_how_long_ago_something_was_heard(walls: Walls) -> None:
    """Within the seconds before a heartbeat, too: the position would be younger than the time beside it."""
    operation = walls.wall.operation()
    with walls.screen() as screen:
        screen.page.add_init_script(_DEAF)
        screen.open(f"?lang=en&operation={operation}")
        screen.page.evaluate("globalThis.deaf = true")
        for count in range(1, 3):
            screen.page.wait_for_timeout(1_300)
            walls.wall.apprehended(operation)
            screen.wait_for_number(str(count))
            screen.page.wait_for_timeout(1_050)  # the ages are written once a second
            position = screen.text('#asof [data-position="SI"]')
            received = datetime.fromtimestamp(int(position.partition("-")[0]) / 1_000, ZoneInfo("Europe/Ljubljana"))
            assert screen.text("#asof").partition(" CE")[0][-8:] >= f"{received:%H:%M:%S}"
            ago = re.search(r"heard (\d+) s ago", screen.text('#figures th[data-side="SI"]'))
            assert ago
            assert int(ago[1]) <= 2


# What is said


def test_the_first_state_is_spoken_soon_and_with_its_numbers(walls: Walls) -> None:
    with walls.screen() as screen:
        screen.open("?lang=en&operation=KOLPA-26")
        wait_for(lambda: screen.page.locator("#spoken").text_content(), within_s=5, what="a sentence")
        spoken = screen.page.locator("#spoken").text_content() or ""
        assert spoken.startswith("LIVE, ")
        assert "Persons apprehended: 4;" in spoken


def test_a_croatian_date_at_the_end_of_a_sentence_has_one_full_stop(walls: Walls) -> None:
    with walls.screen() as screen:
        screen.open("?lang=hr&from=2020-01-01&to=2020-12-31")
        assert screen.text("#lastyear tbody").endswith("2019.")
        assert ".." not in screen.text("#lastyear tbody")


def test_an_operation_is_chosen_by_its_code_and_name(walls: Walls) -> None:
    code = walls.wall.operation(name="Zelena meja")
    with walls.screen() as screen:
        for query in ("", f"?operation={code}"):
            screen.open(query)
            option = screen.page.locator(f'#filters option[value="{code}"]')
            assert f"{code} · Zelena meja" == option.text_content()
    same = walls.wall.operation("MEJA-1", name="MEJA-1")
    with walls.screen() as screen:
        screen.open("")
        assert same == screen.page.locator(f'#filters option[value="{same}"]').text_content()


def test_what_is_frozen_does_not_look_live_and_a_page_that_ends_it_says_so(walls: Walls) -> None:
    with walls.screen() as screen:
        screen.open("?lang=en")
        screen.page.keyboard.press("Space")
        assert "link: ● LIVE" == screen.text("#state")
        screen.page.get_by_role("link", name="Slovenščina").click()
        screen.wait_for_state("live")
        assert "● V ŽIVO" == screen.text("#state")
        assert words("sl")("frozen.ended") == screen.text("#notice")
        screen.page.reload()
        screen.wait_for_state("live")
        assert screen.page.locator("#notice").is_hidden()
