"""The page as it is sent: in each language and view, and safe whatever the address and the snapshot say."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from itertools import product
from urllib.parse import parse_qs

import pytest

from services.control_room.assets import load_assets
from services.control_room.page import MEASURES, THEMES, View, login_page, page
from services.control_room.words import LANGUAGES, Language, words

ASSETS = {name: f"/static/{name}?v={asset.version}" for name, asset in load_assets().items()}
VIEW = View("SI-HR-2024-03", "SI", "2024-03-13", "2024-03-15", "dark", kiosk=True, at="1710385929000-0")
VOID = {"meta", "link", "input", "br", "img", "hr", "path", "rect"}


class Outline(HTMLParser):
    """The elements of a page with their attributes; it insists that each is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.unlabelled: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert [] == self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element."""
        named = dict(attrs)
        assert len(named) == len(attrs), f"<{tag}> has an attribute twice"
        self.elements.append((tag, named))
        visible = tag in ("select", "textarea") or (tag == "input" and named.get("type") != "hidden")
        if visible and "label" not in self._open and "aria-label" not in named:
            self.unlabelled.append(str(named.get("name")))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close an element."""
        assert tag == self._open.pop()

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements of a kind."""
        return [named for name, named in self.elements if name == tag]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("view", [View(), VIEW])
def test_a_page_is_whole_and_in_its_language(language: Language, view: View) -> None:
    html = page(language, view, "{}", ASSETS)
    outline = Outline(html)
    assert [language] == [named["lang"] for named in outline.all("html")]
    assert f"<title>{words(language)('title')}" in html
    text = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert not re.findall(r"\{\w+\}", text)  # everything is filled in
    ids = Counter(named["id"] for _, named in outline.elements if "id" in named)
    assert 1 == max(ids.values())
    assert [] == outline.unlabelled
    for _, named in outline.elements:
        for reference in ("aria-labelledby", "aria-describedby", "for"):
            assert set((named.get(reference) or "").split()) <= set(ids)
    assert 1 == len(outline.all("main")) == len(outline.all("h1"))
    rows = [named["data-measure"] for named in outline.all("tr") if "data-measure" in named]
    assert list(MEASURES) == rows


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("wrong", [False, True])
def test_a_log_in_page_is_whole_and_says_what_went_wrong(language: Language, wrong: bool) -> None:  # noqa: FBT001
    html = login_page(language, "/?side=SI", wrong=wrong, assets=ASSETS)
    outline = Outline(html)
    assert [] == outline.unlabelled
    assert wrong == (words(language)("login.wrong") in html)
    assert {"next": "/?side=SI"} == {
        str(named["name"]): named.get("value") for named in outline.all("input") if named.get("type") == "hidden"
    }


def test_a_page_never_looks_live_by_itself() -> None:
    assert 'data-state="connecting"' in page("en", View(), "{}", ASSETS)
    assert words("en")("state.live") not in page("en", View(), "{}", ASSETS)
    past = page("en", View(at="5-0"), "{}", ASSETS)
    assert 'data-state="past"' in past
    assert words("en")("past.band", position="5-0") in past


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_address_of_a_view_says_all_of_it(language: Language) -> None:
    said = {name: values[0] for name, values in parse_qs(VIEW.query(language)[1:]).items()}
    assert said == {
        "operation": "SI-HR-2024-03", "side": "SI", "from": "2024-03-13", "to": "2024-03-15", "theme": "dark",
        "kiosk": "1", "at": "1710385929000-0", "lang": language,
    }  # fmt: skip
    assert f"?lang={language}" == View().query(language)


def test_links_to_another_language_or_theme_keep_the_view() -> None:
    links = [str(named["href"]) for named in Outline(page("en", VIEW, "{}", ASSETS)).all("a")]
    for language in LANGUAGES:
        assert VIEW.query(language) in links
    for theme in THEMES:
        assert VIEW._replace(theme=theme).query("en") in links
    for kind in ("csv", "json"):
        assert [link for link in links if link.startswith(f"/api/tallies.{kind}{VIEW.query('en')}")]


HOSTILE = ("'\"><script>alert(1)</script>", "</script><script>alert(1)</script>", "<!--", "&quot;", "\u2028")


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_in_an_address_or_a_snapshot_becomes_markup(text: str) -> None:
    tags = Counter(tag for tag, _ in Outline(page("en", VIEW, "{}", ASSETS)).elements)
    for field in ("operation", "side", "first", "last", "at"):
        outline = Outline(page("en", VIEW._replace(**{field: text}), "{}", ASSETS))
        assert tags == Counter(tag for tag, _ in outline.elements)
    snapshot = json.dumps({"name": text})
    html = page("en", VIEW, snapshot, ASSETS)
    assert tags == Counter(tag for tag, _ in Outline(html).elements)
    found = re.search(r'id="snapshot">(.*?)</script>', html, re.DOTALL)
    assert found
    assert {"name": text} == json.loads(found[1])
    login = login_page("en", text, wrong=True, assets=ASSETS)
    assert "<script" not in login
    assert text in [named.get("value") for named in Outline(login).all("input")]


@pytest.mark.parametrize(("theme", "kiosk"), list(product(THEMES, [False, True])))
def test_theme_and_kiosk_are_on_the_page_from_its_first_paint(theme: str, kiosk: bool) -> None:  # noqa: FBT001
    html = page("en", View(theme=theme, kiosk=kiosk), "{}", ASSETS)
    assert f'data-theme="{theme}"' in html
    assert kiosk == ('class="wall kiosk"' in html)


def test_every_module_of_the_page_is_loaded_ahead() -> None:
    html = page("en", View(), "{}", ASSETS)
    modules = {name for name in ASSETS if name.endswith(".js")}
    for name in modules - {"wall.js"}:
        assert f'<link rel="modulepreload" href="/static/{name}">' in html
    assert '<script type="module" src="/static/wall.js"></script>' in html
