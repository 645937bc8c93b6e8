"""The screen in a real browser: reports that become numbers, who sees what, and what one may do with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.screens import Walls, running_wall

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
