"""How the screen looks: legible across a room, on a phone, and to everybody; by rules, not by pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.screens import SECTIONS, Screen, Wall, Walls, running_wall, stopped

WALL: Final = {"width": 1920, "height": 1080}
PHONE: Final = {"width": 390, "height": 844}
LANGUAGES: Final = ("sl", "hr", "en")
FAR_PX: Final = 51
"""16 minutes of arc at 5 m on a 55-inch screen of 1080 lines."""
DIGITS_PX: Final = 64
TEXT_PX: Final = 20
TARGET_PX: Final = 24
WHOLE_NAME: Final = 12
"""Letters of a citizenship's name that are never cut off on a wall."""

# Of each text that can be seen: its size in pixels on the screen, with that of a drawing scaled.
_TEXTS: Final = """() => {
    const found = [];
    for (const element of document.querySelectorAll("body *")) {
        const own = [...element.childNodes].filter((node) => node.nodeType === 3 && node.data.trim());
        if (!own.length || !element.checkVisibility() || element.closest(".unseen, .skip, script, noscript")) continue;
        const drawing = element.closest("svg");
        const scale = drawing ? drawing.getBoundingClientRect().width / drawing.viewBox.baseVal.width : 1;
        const folded = element.closest("details");
        if (folded && getComputedStyle(folded).clipPath !== "none") continue;
        found.push([parseFloat(getComputedStyle(element).fontSize) * scale, element.textContent.trim().slice(0, 30)]);
    }
    return found;
}"""
_TARGETS: Final = """() =>
    Array.from(document.querySelectorAll("a[href], button, input:not([type=hidden]), select, summary"))
    .filter((element) => element.checkVisibility() && !element.matches(".skip"))
    .map((element) => [element.textContent.trim().slice(0, 20), element.getBoundingClientRect()])
    .map(([name, { width, height }]) => [name, Math.min(width, height)])"""
# The parts of a big number that reach out of their cell.
_OVERLAPS: Final = """() => Array.from(document.querySelectorAll("#figures td :is(b, .unit, .amended)"))
    .filter((part) => part.checkVisibility())
    .filter((part) => part.getBoundingClientRect().right > part.closest("td").getBoundingClientRect().right + 1)
    .map((part) => part.textContent)"""
_EXTENT: Final = "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"


@pytest.fixture(scope="module")
def walls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walls]:
    """Give a wall of an operation with something in every list, large numbers among it."""
    with running_wall(tmp_path_factory.mktemp("wall")) as walls:
        fill(walls.wall)
        yield walls


def fill(wall: Wall) -> None:
    """Report something of everything."""
    for operation in (wall.operation("KOLPA-26"), ""):
        for side, section in SECTIONS.items():
            for number, citizenship in enumerate(("AFG", "COD", "XXC", "SYR", "TUR", "BGD", "PAK", "IRN", "MAR", "NPL",
                                                  "EGY", "CHN", "XXX", "IND")):  # fmt: skip
                wall.apprehended(operation, side, {citizenship: 1 + 8_888 * (not number)})
            arrest: dict[str, Any] = {"smugglers": {"UKR": 11, "ROU": 1}, "smuggled_persons": {"AFG": 1_234}}
            wall.report("smuggler_arrest", operation, side, section=section, case=f"{side}-1", **arrest)
            wall.report("custody", operation, side, case=f"{side}-1", remanded={"UKR": 3})
            wall.report("nil_report", operation, side, section=section)
            amended = wall.apprehended(operation, side, {"SYR": 4})
            wall.report("withdrawal", operation, side, amends=amended, revision=1, reason="data-entry-error")
            amended = wall.apprehended(operation, side, {"COD": 4})
            correction: dict[str, Any] = {"amends": amended, "revision": 1, "persons": {"COD": 3}}
            wall.report("apprehension", operation, side, section=section, **correction)
    wall.wait_until_counted()


def shown(walls: Walls, screen: Screen) -> None:
    """Wait until a screen has everything; then let something change, so that the change is on it, too."""
    walls.wall.apprehended("KOLPA-26")
    walls.wall.wait_until_counted()
    at = walls.wall.position("SI")
    screen.page.locator("#asof a", has_text=at).wait_for()


def assert_no_findings(screen: Screen) -> None:
    """Nothing is found by axe-core."""
    found = Axe().run(screen.page).response
    assert [] == [
        (one["id"], one["help"], node["target"], node["failureSummary"])
        for one in found["violations"]
        for node in one["nodes"]
    ]


# Legible


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("view", ["operation=KOLPA-26", ""], ids=["one operation", "all"])
def test_a_wall_shows_everything_at_once_in_letters_that_carry(walls: Walls, language: str, view: str) -> None:
    """On a 55-inch screen at 5 m: digits of 64 px, nothing below 20 px, nothing to scroll, no number cut off."""
    with walls.screen(viewport=WALL) as screen:
        screen.open(f"?kiosk=1&lang={language}&{view}")
        shown(walls, screen)
        assert [1920, 1080] == screen.page.evaluate(_EXTENT)
        digits = screen.page.locator("#figures b").evaluate_all(
            "(all) => all.map((one) => parseFloat(getComputedStyle(one).fontSize))"
        )
        assert DIGITS_PX <= min(digits)
        assert [] == [text for text in screen.page.evaluate(_TEXTS) if text[0] < TEXT_PX]
        assert FAR_PX <= min(sizes(screen, "#state, #age"))
        cut_off = screen.page.evaluate(
            """() => Array.from(document.querySelectorAll(
                "#figures :is(td, th), #figures .unit, #figures b, #health, #asof, footer p, h2, #panels section"))
                .filter((one) => one.checkVisibility())
                .filter((one) => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== "inline"
                    || one.getBoundingClientRect().bottom > innerHeight + 1
                    || one.getBoundingClientRect().right > innerWidth + 1)
                .map((one) => [one.tagName, one.id, one.textContent.slice(0, 40)])"""
        )
        assert [] == cut_off
        names = screen.page.locator("#citizenship tbody th").evaluate_all(
            "(all) => all.map((one) => [one.textContent, one.scrollWidth <= one.clientWidth + 1])"
        )
        assert [] == [name for name, whole in names if len(name) <= WHOLE_NAME and not whole]


def sizes(screen: Screen, selector: str) -> list[float]:
    """Return the sizes of letters, in pixels."""
    found: list[float] = screen.page.locator(selector).evaluate_all(
        "(all) => all.map((one) => parseFloat(getComputedStyle(one).fontSize))"
    )
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_wrong_is_read_from_as_far_as_the_numbers_and_nothing_is_cut_for_it(
    walls: Walls, language: str
) -> None:
    with walls.screen(viewport=WALL, may_fail=True) as screen:
        screen.page.clock.install()
        screen.open(f"?kiosk=1&lang={language}")
        shown(walls, screen)
        with stopped(walls.wall.room.pid):
            for state, banner in (("delayed", "#delay p"), ("lost", "#loss p")):
                while screen.state != state:
                    screen.page.clock.run_for(1_000)
                assert FAR_PX <= min(sizes(screen, banner))
                screen.page.clock.run_for(100)  # the lists find out how many rows there is room for now
                assert [1920, 1080] == screen.page.evaluate(_EXTENT)
                parts = ("header", banner, "#figures", "#panels", "footer")
                boxes = [screen.page.locator(part).bounding_box() for part in parts]
                edges = [edge for box in boxes if box for edge in (box["y"], box["y"] + box["height"])]
                assert edges == sorted(edges) and edges[-1] <= 1081, "one below the other"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_phone_has_nothing_beside_its_screen(walls: Walls, language: str) -> None:
    with walls.screen(viewport=PHONE, has_touch=True, is_mobile=True) as screen:
        screen.open(f"?lang={language}")
        shown(walls, screen)
        for width in (320, 390, 600, 900):
            screen.page.set_viewport_size({"width": width, "height": 844})
            assert [width] == screen.page.evaluate(_EXTENT)[:1]
            assert [] == screen.page.evaluate(_OVERLAPS)
        screen.page.set_viewport_size(PHONE)
        assert [] == [target for target in screen.page.evaluate(_TARGETS) if target[1] < TARGET_PX]
        screen.page.locator("#more").click()
        screen.page.locator("#freeze").wait_for()
        assert [] == [target for target in screen.page.evaluate(_TARGETS) if target[1] < TARGET_PX]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_desk_has_nothing_beside_its_screen_and_targets_that_are_easily_hit(walls: Walls, language: str) -> None:
    with walls.screen(viewport=WALL) as screen:
        screen.open(f"?lang={language}")
        shown(walls, screen)
        for width in (1024, 1280, 1600, 1920):
            screen.page.set_viewport_size({"width": width, "height": 900})
            assert [width] == screen.page.evaluate(_EXTENT)[:1]
            assert [] == screen.page.evaluate(_OVERLAPS)
            assert [] == [target for target in screen.page.evaluate(_TARGETS) if target[1] < TARGET_PX]


# For everybody


@pytest.mark.parametrize(
    ("view", "theme", "size", "language"),
    [
        ("kiosk=1", "dark", WALL, "en"),
        ("kiosk=1", "light", WALL, "hr"),
        ("", "light", WALL, "sl"),
        ("", "dark", PHONE, "hr"),
    ],
    ids=["dark wall", "light wall", "desk", "phone"],
)
def test_axe_finds_nothing(walls: Walls, view: str, theme: str, size: Any, language: str) -> None:
    """Live, frozen, with the reasons of an amendment open, delayed and lost."""
    with walls.screen(viewport=size, may_fail=True) as screen:
        screen.page.clock.install()
        screen.open(f"?operation=KOLPA-26&theme={theme}&lang={language}&{view}")
        shown(walls, screen)
        assert_no_findings(screen)
        if not view:
            screen.page.locator(".amended:visible").first.click()
            screen.page.locator("#reasons").wait_for()
            assert_no_findings(screen)
            screen.page.keyboard.press("Escape")
        screen.page.evaluate("document.activeElement.blur()")
        screen.page.keyboard.press("Space")
        screen.page.locator("#frozen").wait_for()
        assert_no_findings(screen)
        screen.page.keyboard.press("Escape")
        with stopped(walls.wall.room.pid):
            for state in ("delayed", "lost"):
                while screen.state != state:
                    screen.page.clock.run_for(1_000)
                assert_no_findings(screen)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_axe_finds_nothing_about_the_past_the_log_in_and_what_is_folded(walls: Walls, theme: str) -> None:
    with walls.screen(viewport=WALL) as screen:
        screen.open(f"?theme={theme}&lang=sl&at={walls.wall.position('SI')}", "past")
        for folded in screen.page.locator("summary").all():
            folded.click()
        assert_no_findings(screen)
    with walls.screen(None, may_fail=True) as screen:
        screen.page.goto(f"{walls.wall.address}/?theme={theme}")
        assert_no_findings(screen)
        screen.page.locator("[name=token]:focus").wait_for()
        screen.page.keyboard.type("wrong")
        screen.page.keyboard.press("Enter")
        screen.page.locator("#wrong").wait_for()
        assert_no_findings(screen)


def test_axe_finds_nothing_in_the_menu_of_a_phone(walls: Walls) -> None:
    with walls.screen(viewport=PHONE) as screen:
        screen.open("?lang=sl")
        screen.page.locator("#more").click()
        screen.page.locator("#freeze").wait_for()
        assert_no_findings(screen)
