"""The screen in a real browser: reports that become numbers, who sees what, and what one may do with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from schemas.screen import AMENDMENTS_MAX, LATEST_MAX
from tests import given
from tests.screens import Walls, running_wall
from tests.waiting import wait_for

UNITS = {"en": ("person", "persons", "persons", "persons"), "sl": ("oseba", "osebi", "osebe", "oseb"),
         "hr": ("osoba", "osobe", "osobe", "osoba")}  # fmt: skip
NAMES = {"en": "Syria", "sl": "Sirija", "hr": "Sirija"}

_NOTE_CHANGES = """() => {
    globalThis.same = true; // a page that was loaded anew does not know it
    globalThis.changed = [];
    const digits = document.querySelector('#figures [data-measure=persons] td[data-side=""] b');
    new MutationObserver(() => changed.push([digits.textContent, Date.now()]))
        .observe(digits, { childList: true, characterData: true, subtree: true });
}"""


@pytest.fixture(scope="module")
def walls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walls]:
    """Give all that these tests have in common, once."""
    with running_wall(tmp_path_factory.mktemp("wall")) as walls:
        yield walls


# Numbers


@pytest.mark.parametrize("language", ["sl", "hr", "en"])
def test_a_report_changes_the_right_number_within_a_second_without_a_reload(walls: Walls, language: str) -> None:
    operation = walls.wall.operation()
    with walls.screen() as screen:
        screen.open(f"?operation={operation}&lang={language}")
        screen.page.evaluate(_NOTE_CHANGES)
        for total, more, unit in zip((1, 2, 3, 5), (1, 1, 1, 2), UNITS[language], strict=True):
            posted = screen.page.evaluate("Date.now()")
            walls.wall.apprehended(operation, persons={"SYR": more})
            screen.wait_for_number(str(total))
            digits, at = screen.page.evaluate("changed.at(-1)")
            assert str(total) == digits
            assert at - posted < 1_000
            assert unit == screen.unit()
        assert screen.page.evaluate("same")
        assert ["5", "0"] == [screen.number(side=side) for side in ("SI", "HR")]
        assert [f"{NAMES[language]} 5 0 5 0"] == [
            " ".join(row.split()) for row in screen.page.locator("#citizenship tbody tr").all_inner_texts()
        ]


def test_each_measure_and_side_has_its_own_numbers(walls: Walls) -> None:
    operation = walls.wall.operation()
    with walls.screen() as screen:
        screen.open(f"?operation={operation}")
        walls.wall.report(
            "smuggler_arrest", operation, case=operation, smugglers={"UKR": 2}, smuggled_persons={"SYR": 1_234}
        )
        walls.wall.report("custody", operation, case=operation, remanded={"UKR": 1})
        walls.wall.apprehended(operation, "HR", {"AFG": 3, "XXA": 1})
        expected = {"smugglers": 2, "smuggling_cases": 1, "smuggled_persons": 1_234, "remanded": 1}
        wait_for(
            lambda: (
                screen.figures()
                == {f"{measure} {side}": number for measure, number in expected.items() for side in ("", "SI")}
                | {"persons ": 4, "persons HR": 4}
            ),
            what="the numbers",
        )
        assert "1,234" == screen.number("smuggled_persons")
        assert ["smugglers", "case", "persons", "person"] == [screen.unit(measure) for measure in expected]
        chips = screen.page.locator("#figures .chip:visible").all_inner_texts()
        assert ["▲+4", "▲+4", "▲+2", "▲+2", "▲+1", "▲+1", "▲+1,234", "▲+1,234", "▲+1", "▲+1"] == chips


def test_what_is_shown_is_what_is_stored_and_the_page_has_computed_the_digest_itself(walls: Walls) -> None:
    operation = walls.wall.operation()
    walls.wall.apprehended(operation, persons={"SYR": 4})
    walls.wall.wait_until_counted()
    with walls.screen() as screen:
        screen.open()
        screen.wait_until_it_agrees()
        wait_for(lambda: "computed here too" in screen.text("#digest"), what="the page's own digest")


# Amendments


def test_an_amended_number_says_by_how_much_and_why(walls: Walls) -> None:
    operation = walls.wall.operation()
    with walls.screen() as screen:
        screen.open(f"?operation={operation}")
        corrected = walls.wall.apprehended(operation, persons={"SYR": 4})
        withdrawn = walls.wall.apprehended(operation, persons={"AFG": 2})
        screen.wait_for_number("6")
        assert 0 == screen.page.locator(".amended:visible").count()
        corrected_content: dict[str, Any] = {"amends": corrected, "revision": 1, "persons": {"SYR": 3}}
        walls.wall.report("apprehension", operation, **corrected_content)
        walls.wall.report("withdrawal", operation, amends=withdrawn, revision=1, reason="duplicate")
        screen.wait_for_number("3")
        mark = screen.page.locator('#figures [data-measure=persons] td[data-side="SI"] .amended')
        assert "r −3" == mark.inner_text()
        mark.click()
        assert "Amended: Persons apprehended, SI" == screen.text("#reasons h2")
        rows = [
            re.split(r"\t", row) for row in screen.page.locator("#reasons tbody tr").all_inner_texts()
        ]  # fmt: skip
        assert [("−2 Afghanistan", "withdrawn: duplicate"), ("−1 Syria", "corrected content")] == [
            (row[2], row[3]) for row in rows
        ]
        screen.page.keyboard.press("Escape")
        assert screen.page.locator("#reasons").is_hidden()
        assert mark.evaluate("(mark) => mark === document.activeElement")


def test_a_number_stays_marked_however_many_amendments_come_after(walls: Walls) -> None:
    """The reasons of the oldest are no longer on the screen, and it says so; that and by how much they amended is."""
    operation, other = walls.wall.operation(), walls.wall.operation()
    amended = walls.wall.apprehended(operation, persons={"SYR": 9})
    correction: dict[str, Any] = {"amends": amended, "revision": 1, "persons": {"SYR": 4}}
    walls.wall.report("apprehension", operation, **correction)
    busy = walls.wall.apprehended(other, persons={"AFG": 1})
    with walls.screen() as screen:
        screen.open(f"?operation={operation}")
        screen.wait_for_number("4")
        mark = screen.page.locator('#figures [data-measure=persons] td[data-side="SI"] .amended')
        assert "r −5" == mark.inner_text()
        for revision in range(1, AMENDMENTS_MAX + 1):
            more: dict[str, Any] = {"amends": busy, "revision": revision, "persons": {"AFG": 1 + revision}}
            walls.wall.report("apprehension", other, **more)
        for loaded_anew in (False, True):
            if loaded_anew:
                screen.open()
            for view, number in ((other, str(1 + AMENDMENTS_MAX)), (operation, "4")):
                screen.page.select_option("#filters [name=operation]", view)
                screen.wait_for_number(number)
            assert "r −5" == mark.inner_text()
            mark.click()
            assert "newest 50 amendments" in screen.text("#reasons p")
            assert "SYR" not in screen.text("#reasons") and "Syria" not in screen.text("#reasons")
            screen.page.keyboard.press("Escape")


# Who sees what


def test_a_viewer_of_one_side_receives_no_byte_about_the_other(walls: Walls) -> None:
    """Of everything that the browser received; one who sees both sides receives all of it."""
    operation = walls.wall.operation()
    words = {"SI": (operation, "4711"), "HR": ("HR-MP-07", "HR-DESK", "rijeka", "6174", "6,174")}

    def received(sides: str) -> str:
        texts: list[str] = []
        answers: list[Any] = []

        def keep() -> None:
            texts.append(screen.page.content())
            texts.extend(answer.text() for answer in answers if "/api/stream" not in answer.url)
            answers.clear()

        def heard(word: str) -> int:
            assert screen.state == "live"  # Playwright tells of what came only while it is asked something
            return sum(word in text for text in texts)

        with walls.screen(walls.wall.viewer(sides)) as screen:
            wire = screen.page.context.new_cdp_session(screen.page)
            wire.send("Network.enable")
            wire.on("Network.eventSourceMessageReceived", lambda message: texts.append(json.dumps(message)))
            screen.page.on("response", lambda answer: answer.status == 304 or answers.append(answer))
            screen.open("?lang=en")
            walls.wall.apprehended(operation, "HR", {"IRQ": 6_174})
            walls.wall.apprehended(operation, "SI", {"IRQ": 4_711})
            wait_for(lambda: heard("4711"), what="the change")
            wait_for(lambda: heard('"heartbeat"') > 2, what="heartbeats")
            keep()
            screen.open(f"?lang=en&at={walls.wall.position('SI')}", "past")
            for kind in ("", ".csv", ".json"):
                screen.page.evaluate(f"fetch('/api/tallies{kind}').then((answer) => answer.text())")
            keep()
        return "\n".join(texts)

    one, both = received("SI"), received("SI,HR")
    for word in words["SI"]:
        assert word in one
    for word in words["HR"]:
        assert word not in one
        assert word in both
    assert not re.search(r'"HR"|HR[:|]|HR-', one)


def test_the_foot_says_where_when_and_with_which_digest_an_audit_agreed(walls: Walls) -> None:
    found = {"position": "1710385929000-0", "digest": "0123456789abcdef" * 4, "at": "2024-03-14T03:12:09Z"}
    walls.wall.client.set(walls.wall.key("HR", "audit"), json.dumps(found))
    with walls.screen() as screen:
        screen.open("?lang=en")
        expected = "✓ HR rebuilt = live at 1710385929000-0, 14 Mar 2024 04:12:09 CET · 0123456789ab"
        wait_for(lambda: expected in screen.text("#audit"), what="the audit")
        screen.open(f"?lang=en&at={walls.wall.position('SI')}", "past")
        assert expected in screen.text("#audit"), "where and when it agreed is said, and true of any view"


# The address is the view


def test_filters_write_the_address_and_the_address_restores_the_view(walls: Walls) -> None:
    operation = walls.wall.operation()
    walls.wall.apprehended(operation, "SI", {"SYR": 3})
    walls.wall.apprehended(operation, "HR", {"SYR": 4})
    walls.wall.wait_until_counted()
    with walls.screen() as screen:
        screen.open("?theme=dark")
        screen.page.evaluate("globalThis.same = true")
        screen.filtered(operation=operation)
        screen.wait_for_number("7")
        screen.filtered(side="HR")
        screen.wait_for_number("4")
        screen.filtered(to="2020-01-31")
        screen.wait_for_number("0")
        screen.page.go_back()
        screen.wait_for_number("4")
        assert screen.page.evaluate("same")
        assert screen.page.url.endswith(f"/?theme=dark&operation={operation}&side=HR")
        seen = screen.figures()
        screen.page.reload()
        screen.wait_for_state("live")
        assert [seen] == [screen.figures()]
        assert 1 == screen.page.locator("#figures thead th[data-side]").count()
        assert [operation, "HR"] == [
            screen.page.locator(f"#filters [name={name}]").input_value() for name in ("operation", "side")
        ]
        for export in ("csv", "json"):
            address = screen.page.locator(f'[data-export$="{export}"]').get_attribute("href")
            answer = screen.page.evaluate("(address) => fetch(address).then((answer) => answer.text())", address)
            assert "SYR" in answer
            assert "|SI|" not in answer


@pytest.mark.parametrize("name", ["from", "to"])
def test_a_date_may_be_typed_key_by_key(walls: Walls, name: str) -> None:
    """Chromium tells of each year on the way: 0002, 0020, 0202, 2020; and of 20200 after one key too many."""
    with walls.screen(locale="en-GB") as screen:
        screen.open("?lang=en")
        screen.page.locator(f"#filters [name={name}]").focus()
        screen.page.keyboard.type("030320")  # the same day wherever the month stands
        heard = screen.text("#devices")
        walls.wall.apprehended("")
        wait_for(lambda: screen.text("#devices") != heard, what="news that fills in the choices anew")
        screen.page.keyboard.type("20")
        assert "live" == screen.state
        assert screen.page.url.endswith(f"/?lang=en&{name}=2020-03-03")
        assert "3 Mar 2020" in screen.text("#day")
        screen.page.locator(f"#filters [name={name}]").focus()
        screen.page.keyboard.type("030320200")
        screen.page.keyboard.press("Tab")
        assert "live" == screen.state


def test_a_period_of_an_operation_is_said_where_there_are_no_filters(walls: Walls) -> None:
    operation = walls.wall.operation()
    with walls.screen() as screen:
        screen.open(f"?operation={operation}&from=2020-03-13&to=2020-03-14&kiosk=1&lang=en")
        assert screen.text("#day").startswith("13 – 14 Mar 2020 · day 2 of 3")


def test_whole_months_stay_whole_a_year_before(walls: Walls) -> None:
    """The opening balance of January and February is counted on their last day, which a leap year has later."""
    for last, number in (("2028-02-29", 5_000), ("2027-02-28", 300)):
        head = walls.wall._head("SI", "", unit="SI-DESK", time=f"{last}T10:00:00Z")
        totals = [{"measure": "persons", "count": number}]
        balance = given.opening_balance(totals=totals, period_from=f"{last[:4]}-01-01", period_to=last, **head)
        walls.wall.client.xadd(walls.wall.key("SI", "log"), {"event": balance})
    walls.wall.wait_until_counted()
    with walls.screen() as screen:
        for period, before, persons in (
            ("from=2029-01-01&to=2029-02-28", "1 Jan – 29 Feb 2028", "5,000"),
            ("from=2028-02-01&to=2028-02-29", "1 – 28 Feb 2027", "300"),
            ("from=2029-02-27&to=2029-02-28", "27 – 28 Feb 2028", "The log has nothing for"),
        ):
            screen.open(f"?{period}&side=SI&lang=en")
            assert before in screen.text("#lastyear")
            assert persons in screen.text("#lastyear")


def test_an_operation_ahead_is_compared_with_the_days_of_its_plan(walls: Walls) -> None:
    head = walls.wall._head("SI", "AHEAD", unit="SI-DESK")
    walls.wall.post(given.operation_opened(starts="2038-05-01", ends="2038-05-03", **head), role="desk")
    with walls.screen() as screen:
        screen.open("?operation=AHEAD&lang=en")
        wait_for(lambda: "starts 1 May 2038" in screen.text("#day"), what="the plan")
        assert "The log has nothing for 1 – 3 May 2037." in screen.text("#lastyear")


def test_the_past_is_marked_has_its_numbers_and_no_stream(walls: Walls) -> None:
    operation = walls.wall.operation()
    walls.wall.apprehended(operation, persons={"SYR": 3})
    walls.wall.wait_until_counted()
    then = walls.wall.position("SI")
    walls.wall.apprehended(operation, persons={"SYR": 9})
    walls.wall.wait_until_counted()
    with walls.screen() as screen:
        asked: list[str] = []
        screen.page.on("request", lambda request: asked.append(request.url))
        screen.open(f"?operation={operation}&at={then}&lang=en", "past")
        assert "3" == screen.number()
        assert f"◷ The past: as rebuilt at {then} To the live view" == screen.text("#banners .past")
        assert "◷ THE PAST" == screen.text("#state")
        assert not [url for url in asked if "/api/" in url]
        screen.page.get_by_text("To the live view").click()
        screen.wait_for_state("live")
        assert "12" == screen.number()
        assert [url for url in asked if "/api/stream" in url]


def test_language_and_theme_change_and_the_rest_of_the_view_stays(walls: Walls) -> None:
    operation = walls.wall.operation()
    with walls.screen(color_scheme="light") as screen:
        screen.open("?lang=en")
        screen.filtered(operation=operation)
        light = screen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        screen.page.get_by_role("link", name="Slovenščina").click()
        screen.wait_for_state("live")
        assert "● V ŽIVO" == screen.text("#state")
        assert "sl" == screen.page.locator("html").get_attribute("lang")
        screen.page.get_by_role("link", name="Temno").click()
        screen.wait_for_state("live")
        assert screen.page.url.endswith(f"/?lang=sl&operation={operation}&theme=dark")
        assert light != screen.page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_the_hours_of_a_day_that_is_over_are_asked_for_once_at_a_time(walls: Walls) -> None:
    """However long a large log takes to answer: requests that pile up would keep the server from everything else."""
    asked: list[Any] = []
    with walls.screen(may_fail=True) as screen:
        screen.page.clock.install()
        screen.page.route("**/api/hours*", lambda route: asked.append(route))  # noqa: PLW0108  # Playwright takes no method
        screen.open("?to=2020-01-31&lang=en")
        for _ in range(3):
            before = screen.text("#asof")
            walls.wall.apprehended("")
            wait_for(lambda before=before: screen.text("#asof") != before, what="the change")  # type: ignore[misc]
            screen.page.clock.run_for(12_000)
        assert 1 == len(asked)
        asked.pop().fulfill(status=503)
        wait_for(lambda: screen.state and asked, what="another attempt after one that failed")


def test_a_page_lets_go_of_hours_that_no_chart_shows_any_more(walls: Walls) -> None:
    with walls.screen() as screen:
        screen.open()
        found = screen.page.evaluate(
            """async () => {
                const { Room, hourly } = await import("/static/tallies.js");
                const side = { side: "SI", generation: "g1", cells: {}, hours: { since: 0, counts: {} } };
                const room = new Room({ id: "", digest: "", sides: [{ ...side, latest: [], amendments: [] }] });
                for (let hour = 0; hour < 1_000; hour += 1) {
                    const hours = { [`${hour * 3_600}||koper|persons`]: 1 };
                    room.change({ side: "SI", position: `${hour}-0`, generation: "g1", cells: {}, hours });
                    room.forgetBefore((hour - 25) * 3_600);
                }
                const { hours } = room.sides.get("SI");
                const shown = hourly(room.sides.get("SI"), {}, 1_000 * 3_600);
                return [Object.keys(hours.counts).length, hours.since, shown.map(({ count }) => count)];
            }"""
        )
        assert [26, 974 * 3_600, [1] * 24] == found


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-10", 24)])
def test_a_day_has_as_many_hours_as_the_clock_shows(walls: Walls, day: str, hours: int) -> None:
    """A report in each hour of a local day: all of them stand in the chart's table."""
    zone = ZoneInfo("Europe/Ljubljana")
    first = datetime.fromisoformat(day).replace(tzinfo=zone)
    begin, end = (int((first + timedelta(days=more)).timestamp()) for more in (0, 1))
    counts = {f"{hour}||koper|persons": 1 for hour in range(begin - 7_200, end + 7_200, 3_600)}
    with walls.screen() as screen:
        screen.page.route("**/api/hours*", lambda route: route.fulfill(json={"SI": {"since": begin, "counts": counts}}))
        screen.open(f"?lang=en&side=SI&from={day}&to={day}")
        figure = screen.page.locator('#hours figure[data-side="SI"]')
        wait_for(lambda: f"SI {hours} persons" in figure.inner_text(), what="the hours of the day")
        figure.locator("summary").click()
        rows = figure.locator("tbody tr").all_inner_texts()
        assert [hours, []] == [len(rows), [row for row in rows if not row.endswith("1")]]
        assert "00:00" in rows[-1]


def test_back_brings_the_view_back_also_in_the_field_that_one_is_in(walls: Walls) -> None:
    operation = walls.wall.operation()
    with walls.screen() as screen:
        screen.open(f"?lang=en&operation={operation}")
        field = screen.page.locator('#filters [name="operation"]')
        field.focus()
        field.select_option("")
        assert "operation" not in screen.page.url
        screen.page.go_back()
        wait_for(lambda: operation in screen.page.url, what="the address")
        assert operation == field.input_value()
        screen.filtered(side="SI")
        assert f"operation={operation}" in screen.page.url


def test_latest_reports_of_a_view_that_are_older_than_those_known_are_not_said_to_be_none(walls: Walls) -> None:
    operation = walls.wall.operation()
    walls.wall.apprehended(operation, persons={"SYR": 3})
    for side in ("HR", "SI"):
        for _ in range(LATEST_MAX + 2 if side == "SI" else 3):
            walls.wall.apprehended("", side=side)
    walls.wall.apprehended(operation, side="HR", persons={"SYR": 5})
    walls.wall.wait_until_counted()
    with walls.screen() as screen:
        screen.open(f"?lang=en&operation={operation}&side=SI")
        assert "3" == screen.number(side="SI")
        assert f"none among the newest {LATEST_MAX} reports of a side" == screen.text("#latest tbody")
        screen.open(f"?lang=en&operation={operation}")
        rows = screen.page.locator("#latest tbody tr")
        assert 1 == rows.count()
        assert f"of the newest {LATEST_MAX} of a side" in screen.text("#latest-title")
        screen.open("?lang=en")
        assert LATEST_MAX == rows.count(), "of all sides together: an older one of a side would stand between holes"
        assert "newest" not in screen.text("#latest-title")


# Standing still


def test_a_frozen_view_stands_still_says_so_and_goes_on_with_what_is_true(walls: Walls) -> None:
    operation = walls.wall.operation()
    with walls.screen() as screen, walls.screen() as beside:
        for one in (screen, beside):
            one.open(f"?operation={operation}&lang=en")
        for before, (how, back) in enumerate((("Space", "Escape"), ("Space", "Space"), ("#freeze", "#resume"))):
            _do(screen, how)
            assert screen.page.locator("#frozen").is_visible()
            assert screen.text("#frozen").startswith("❄ FROZEN view of ")
            assert "❄ FROZEN" in screen.page.title()
            walls.wall.apprehended(operation)
            beside.wait_for_number(str(before + 1))
            assert str(before) == screen.number()
            assert "live" == screen.state  # the link is another fact
            _do(screen, back)
            screen.wait_for_number(str(before + 1))
            assert screen.page.locator("#frozen").is_hidden()


def test_a_frozen_view_is_exported_as_it_stands(walls: Walls) -> None:
    operation = walls.wall.operation()
    walls.wall.apprehended(operation, persons={"SYR": 3})
    walls.wall.wait_until_counted()
    with walls.screen() as screen, walls.screen() as beside:
        for one in (screen, beside):
            one.open(f"?operation={operation}&lang=en")
            one.wait_for_number("3")
        screen.page.keyboard.press("Space")
        walls.wall.apprehended(operation, persons={"SYR": 4})
        beside.wait_for_number("7")

        def exported() -> dict[str, Any]:
            address = screen.page.locator('[data-export$="json"]').get_attribute("href")
            found: dict[str, Any] = screen.page.evaluate("(at) => fetch(at).then((answer) => answer.json())", address)
            return found

        frozen = exported()
        assert [3] == [row["count"] for row in frozen["rows"] if row["measure"] == "persons"]
        assert screen.page.locator("#digest details > code").text_content() == frozen["digest"]
        assert screen.page.locator("#asof a").all_inner_texts() == list(frozen["position"].values())
        screen.page.keyboard.press("Escape")
        assert [7] == [row["count"] for row in exported()["rows"] if row["measure"] == "persons"]


def _do(screen: Any, step: str) -> None:
    if step.startswith("#"):
        screen.page.locator(step).click()
    else:
        screen.page.evaluate("document.activeElement.blur()")
        screen.page.keyboard.press(step)


def test_space_in_a_field_or_on_a_button_is_for_the_field_or_the_button(walls: Walls) -> None:
    with walls.screen() as screen:
        screen.open()
        for field in ("[name=operation]", "[name=at]", "#digest summary"):
            screen.page.locator(field).focus()
            screen.page.keyboard.press("Space")
            assert screen.page.locator("#frozen").is_hidden()
            screen.page.keyboard.press("Escape")


def test_a_wall_that_somebody_froze_and_left_goes_on_by_itself(walls: Walls) -> None:
    operation = walls.wall.operation()
    with walls.screen() as screen:
        screen.page.clock.install()
        screen.open(f"?operation={operation}&kiosk=1&lang=en")
        walls.wall.apprehended(operation)
        screen.wait_for_number("1")
        screen.page.keyboard.press("Space")
        walls.wall.apprehended(operation)
        screen.page.clock.fast_forward("04:00")
        wait_for(lambda: "4 min old · resumes by itself in 5" in screen.text("#frozen"), what="how old the view is")
        screen.wait_for_state("live")
        screen.page.clock.run_for(2_000)
        assert "1" == screen.number()
        assert "▲+1" == screen.text('#figures [data-measure=persons] td[data-side=""] .chip')
        screen.page.clock.fast_forward("01:05")
        screen.wait_for_number("2")
        assert screen.page.locator("#frozen").is_hidden()
        assert "The frozen view went on by itself after 5 min." == screen.text("#notice")


def test_changes_fade_unless_motion_is_not_wanted(walls: Walls) -> None:
    operation = walls.wall.operation()
    with walls.screen() as moving, walls.screen(reduced_motion="reduce") as still:
        for screen in (moving, still):
            screen.page.clock.install()
            screen.open(f"?operation={operation}")
        walls.wall.apprehended(operation)
        for screen, animated in ((moving, True), (still, False)):
            screen.wait_for_number("1")
            chip = screen.page.locator('#figures [data-measure=persons] td[data-side=""] .chip')
            assert "▲+1" == chip.inner_text()
            assert animated == chip.evaluate("(chip) => chip.getAnimations().length > 0")
            screen.page.clock.fast_forward("01:05")
            wait_for(lambda chip=chip: not chip.inner_text(), what="the change to go")  # type: ignore[misc]


# Logging in and out


def test_a_wrong_token_is_refused_in_words_and_a_right_one_leads_to_the_view_that_was_asked_for(walls: Walls) -> None:
    operation = walls.wall.operation()
    with walls.screen(None, may_fail=True) as screen:
        page = screen.page
        page.goto(f"{walls.wall.address}/?operation={operation}&lang=sl")
        page.locator("[name=token]:focus").wait_for()
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        assert screen.text("#wrong").startswith("✕ Ta žeton ni znan ali je preklican.")
        page.locator("[name=token]:focus").wait_for()
        page.keyboard.type(walls.wall.viewer())
        page.keyboard.press("Enter")
        screen.wait_for_state("live")
        assert page.url.endswith(f"/?operation={operation}&lang=sl")
        (cookie,) = page.context.cookies()
        assert (True, "Lax") == (cookie["httpOnly"], cookie["sameSite"])
        page.get_by_role("button", name="Odjava").click()
        page.locator("input[name=token]").wait_for()
        assert [] == page.context.cookies()
        page.go_back()
        page.locator("input[name=token]").wait_for()  # nothing of it is kept by the browser


def test_a_log_in_that_has_ended_is_said_and_no_number_looks_current(walls: Walls) -> None:
    token = walls.wall.viewer()
    with walls.screen(token, may_fail=True) as screen:
        screen.open("?lang=en")
        walls.wall.revoke(token)
        screen.wait_for_state("ended")
        assert "✕ LOGGED OUT" == screen.text("#state")
        assert "Your log-in has ended." in screen.text("#loss")
        screen.page.get_by_role("link", name="Log in again").click()
        screen.page.locator("input[name=token]").wait_for()


# Keyboard


def test_everything_is_reached_by_the_keyboard_in_the_order_of_the_page_and_seen_to_be(walls: Walls) -> None:
    operation = walls.wall.operation()
    walls.wall.apprehended(operation)
    walls.wall.wait_until_counted()
    with walls.screen() as screen:
        screen.open(f"?operation={operation}&lang=en")
        expected: int = screen.page.evaluate(
            """() => Array.from(document.querySelectorAll("a[href], button, input:not([type=hidden]), select, summary,"
                + "[tabindex='0']")).filter((element) => element.checkVisibility()).length"""
        )
        reached = []
        for _ in range(3 * expected):
            screen.page.keyboard.press("Tab")
            at = screen.page.evaluate(
                """() => {
                    const element = document.activeElement;
                    if (element === document.body) return null;
                    const { top, bottom, left } = element.getBoundingClientRect();
                    const seen = document.elementFromPoint(Math.max(left + 3, 0), (top + bottom) / 2);
                    return { name: element.name || element.id || element.textContent.trim().slice(0, 20),
                        again: Boolean(element.reached), place: (element.reached = true),
                        outlined: getComputedStyle(element).outlineStyle !== "none",
                        seen: element.contains(seen) || Boolean(seen?.contains(element)) };
                }"""
            )
            if at is None:
                break
            if not at["again"]:  # the parts of a date are one after the other
                reached.append(at)
        assert "Skip to the numbers" == reached[0]["name"]
        assert expected == len(reached)
        assert [] == [at for at in reached if not (at["outlined"] and at["seen"])]
