"""What gives way on the screen where there is little room: names, never a number, a warning or a row without a word."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from tests import given
from tests.screens import SECTIONS, Screen, Wall, Walls, running_wall
from tests.waiting import wait_for

SIZES: Final = {
    "full": {"width": 1920, "height": 1080},
    "browser": {"width": 1920, "height": 937},
    "desk": {"width": 1600, "height": 900},
    "small": {"width": 1366, "height": 768},
    "square": {"width": 1280, "height": 1024},
    "upright": {"width": 1080, "height": 1920},
    "large": {"width": 3840, "height": 2160},
}
PHONE: Final = {"width": 390, "height": 844}
LANGUAGES: Final = ("sl", "hr", "en")
UNIT: Final = "HR-PU-PRIMORSKO-GORANSKA-3-PRIJAVNICA-RUPA"
NAME: Final = "Skupna slovensko-hrvaška operacija nadzora zelene meje z mešanimi patruljami"
SECTION: Final = "sektor-severozahodne-zelene-meje-ob-reki-dragonji-3"
CITIZENSHIPS: Final = ("AFG", "COD", "XXC", "SYR", "TUR", "BGD", "PAK", "IRN", "MAR", "NPL", "EGY", "CHN", "XXX", "IND",
                       "IRQ", "GEO", "UKR", "RUS", "ALB", "DZA", "TUN", "LBN", "LKA")  # fmt: skip

# The texts of some elements that cannot be read in full: outside the window, or cut off by something around them.
_CUT: Final = """(selector) => Array.from(document.querySelectorAll(selector))
    .filter((one) => one.checkVisibility() && one.textContent)
    .filter((one) => {
        const inner = document.createRange();
        inner.selectNodeContents(one);
        const { left, right, top, bottom } = inner.getBoundingClientRect();
        for (let around = one; around; around = around.parentElement) {
            const edge = around === document.documentElement
                ? { left: 0, top: 0, right: innerWidth, bottom: document.body.scrollHeight }
                : getComputedStyle(around).overflowX === "visible" ? null : around.getBoundingClientRect();
            if (edge && (left < edge.left - 1 || right > edge.right + 1 || top < edge.top - 1
                || bottom > edge.bottom + 1)) return true;
        }
        return false;
    }).map((one) => one.textContent)"""


@pytest.fixture(scope="module")
def walls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walls]:
    """Give a wall with long names, many gaps and many rows in every list."""
    with running_wall(tmp_path_factory.mktemp("wall")) as walls:
        fill(walls.wall)
        yield walls


def record(wall: Wall, kind: str, side: str, operation: str = "LONG-1", **more: Any) -> None:
    """Write a report of any device into the log."""
    head = wall._head(side, operation) | {name: more.pop(name) for name in ("unit", "device", "reportno", "time")
                                          if name in more}  # fmt: skip
    wall.client.xadd(wall.key(side, "log"), {"event": getattr(given, kind)(**more, **head)})


def fill(wall: Wall) -> None:
    """Report from many devices and places; one device has very many gaps."""
    wall.operation("LONG-1", name=NAME)
    last_year = f"{datetime.now(UTC).year - 1}-01-02T12:00:00Z"
    for side, section in SECTIONS.items():
        for number, citizenship in enumerate(CITIZENSHIPS):
            place = SECTION if not number else f"{section}-{number}"
            unit = UNIT if side == "HR" and not number else f"{side}-MP-{number:02}"
            persons = {citizenship: 1 + 9_998 * (not number)}
            record(
                wall, "apprehension", side, unit=unit, device="telefon-04", reportno=9, section=place, persons=persons
            )
        for reportno in range(20, 20 + 5 * 40, 5):
            record(wall, "nil_report", side, unit=f"{side}-GAPS", device="d", reportno=reportno, section=section)
        arrest: dict[str, Any] = {"smugglers": {"UKR": 11}, "smuggled_persons": {"AFG": 9_999}}
        for time in (last_year, None):
            when = {"time": time} if time else {}
            record(wall, "smuggler_arrest", side, section=section, case=f"{side}-{bool(time):d}", **arrest, **when)
            record(wall, "custody", side, case=f"{side}-{bool(time):d}", remanded={"UKR": 3}, **when)
            record(wall, "apprehension", side, section=section, **when)
    wall.wait_until_counted()


def opened(walls: Walls, screen: Screen, query: str) -> None:
    """Open a view and wait until it has everything, the devices too."""
    screen.open(query)
    at = walls.wall.position("SI")
    screen.page.locator("#asof a", has_text=at).wait_for()
    wait_for(lambda: "△" in (screen.page.locator("#devices").text_content() or ""), what="the devices")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("size", ["full", "phone"])
def test_a_long_name_is_shortened_and_no_number_beside_it(walls: Walls, size: str, language: str) -> None:
    """Of devices and sections every warning and number can be read without scrolling sideways."""
    wall = size != "phone"
    with walls.screen(viewport=SIZES.get(size, PHONE)) as screen:
        opened(walls, screen, f"?operation=LONG-1&lang={language}&kiosk={int(wall)}")
        lists = screen.page.locator(".scroll")
        if not wall:
            widths = lists.evaluate_all("(all) => all.map((one) => one.scrollWidth - one.clientWidth)")
            assert [] == [width for width in widths if width > 0]
            lists.evaluate_all("(all) => all.forEach((one) => (one.style.maxHeight = 'none'))")
        assert [] == screen.page.evaluate(_CUT, "#devices :is(td, th):not(:first-child)")
        assert [] == screen.page.evaluate(_CUT, "#section :is(td, th):not(:first-child)")
        name = screen.page.locator(f'#section [title^="SI {SECTION}"]')
        assert name.is_visible()


def test_of_very_many_gaps_a_few_are_named_and_the_rest_unfold(walls: Walls) -> None:
    with walls.screen() as screen:
        opened(walls, screen, "?lang=en&side=SI")
        gaps = screen.page.locator("#devices tr", has_text="SI-GAPS").locator("td").last
        assert "△ 1–19, 21–24 +38 more" == gaps.inner_text()
        gaps.locator("summary").click()
        assert "211–214" in gaps.inner_text()
        record(walls.wall, "nil_report", "SI", unit="SI-GAPS", device="d", reportno=220)
        wait_for(lambda: "+39 more" in gaps.inner_text(), what="another gap")
        assert "211–214" in gaps.inner_text()
        screen.page.emulate_media(media="print")
        screen.page.locator("#devices summary").first.click()
        assert "211–214" not in gaps.inner_text()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("size", ["full", "small", "phone"])
def test_the_period_stands_beside_the_operation_however_long_its_name(walls: Walls, size: str, language: str) -> None:
    with walls.screen(viewport=SIZES.get(size, PHONE)) as screen:
        for kiosk in (0, 1):
            query = f"?operation=LONG-1&from=2024-03-13&to=2024-03-15&lang={language}&kiosk={kiosk}"
            screen.open(query)
            said = screen.text("#day")
            assert "2024" in said and "13" in said and "15" in said
            assert "2 " in said  # the day of the operation too
            assert [] == screen.page.evaluate(_CUT, "header :is(#day, #health, #asof)")
            assert screen.text("#operation").startswith("Skupna")


# What is cut off without a word: rows of a list, parts of the foot or of a big number.
_SILENT: Final = """() => {
    const whole = (one, around) => one.bottom <= around.bottom + 1.5 && one.right <= around.right + 1.5;
    const box = (one) => one.getBoundingClientRect();
    const found = [];
    for (const section of document.querySelectorAll("#panels section"))
        for (const row of section.querySelectorAll(".scroll tr, figcaption, svg"))
            if (!whole(box(row), box(section))) found.push([section.id, row.textContent]);
    for (const part of document.querySelectorAll("footer :is(p, span, summary), #panels section, header > *"))
        if (part.checkVisibility() && !whole(box(part), { bottom: innerHeight, right: innerWidth }))
            found.push(["page", part.id, part.textContent.slice(0, 40)]);
    for (const part of document.querySelectorAll("#figures td :is(b, .unit, .chip, .amended)")) {
        const cell = box(part.closest("td"));
        if (part.checkVisibility() && part.textContent && (!whole(box(part), cell) || box(part).top < cell.top - 1.5))
            found.push(["figure", part.textContent]);
    }
    return found;
}"""


@pytest.mark.parametrize("size", list(SIZES))
def test_on_a_wall_of_any_shape_nothing_is_cut_without_a_word(walls: Walls, size: str) -> None:
    """Rows that do not fit are counted in the last row or beside the heading, also once an audit fills the foot."""
    with walls.screen(viewport=SIZES[size]) as screen:
        for language in LANGUAGES:
            opened(walls, screen, f"?kiosk=1&lang={language}")
            width, height = SIZES[size].values()
            extent = "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
            assert [width, height] == screen.page.evaluate(extent)
            assert [] == screen.page.evaluate(_SILENT)
            for name in ("citizenship", "section", "devices"):
                rows = screen.page.locator(f"#{name} tbody tr")
                last = rows.last.locator("td, th").first.inner_text()
                assert "(" in last or (name == "citizenship" and rows.count() == len(CITIZENSHIPS))
                assert rows.count() >= 4
            screen.page.evaluate(
                """() => (document.querySelector("#audit").textContent =
                    "✓ SI rebuilt = live at 1795914801311-0, 02:13:22 CET ".repeat(4))"""
            )
            wait_for(lambda: [] == screen.page.evaluate(_SILENT), what="everything to fit beside the audits")


def test_a_change_and_its_reason_push_nothing_down(walls: Walls) -> None:
    """The room for what changed and was amended is there before they are."""
    operation = walls.wall.operation()
    place = """() => Array.from(document.querySelectorAll("#figures tr, #panels"),
        (one) => Math.round(one.getBoundingClientRect().top))"""
    for size in ("full", "small", "upright"):
        with walls.screen(viewport=SIZES[size]) as screen:
            screen.open(f"?kiosk=1&lang=sl&operation={operation}")
            before = screen.page.evaluate(place)
            amended = walls.wall.apprehended(operation, persons={"SYR": 9_999, "AFG": 9_999})
            correction: Any = {"amends": amended, "revision": 1, "persons": {"SYR": 8_765, "AFG": 9_999}}
            walls.wall.report("apprehension", operation, **correction)
            walls.wall.report("custody", operation, case=f"K-{size}", remanded={"UKR": 9_999, "AFG": 9_999})
            wait_for(lambda: screen.page.locator(".amended:visible").count() >= 2, what="the mark")
            assert before == screen.page.evaluate(place)
            assert [] == screen.page.evaluate(_SILENT)


def test_a_wall_whose_screen_changes_its_shape_fits_again_and_goes_on(walls: Walls) -> None:
    with walls.screen(viewport=SIZES["full"]) as screen:
        opened(walls, screen, "?kiosk=1&lang=en")
        for size in ("small", "upright", "browser", "full"):
            screen.page.set_viewport_size(SIZES[size])  # type: ignore[arg-type]
            wait_for(lambda: [] == screen.page.evaluate(_SILENT), what="everything to fit")
            assert "live" == screen.state
