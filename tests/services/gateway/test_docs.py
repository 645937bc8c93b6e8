"""The page for people says all that the document does, reaches for nothing outside, and can be read by anyone."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Browser

from schemas.http import CODES, TITLES
from schemas.vocabulary import Side
from services.gateway.docs import DOCS_CSS, docs_page
from services.gateway.openapi import openapi
from tests.browsers import chromium

DOCUMENT = openapi((Side("SI"), Side("HR")))
PAGE = docs_page(DOCUMENT)
POLICY = "default-src 'none'; style-src 'self'"
VOID = {"meta", "link", "wbr", "br"}


class Page(HTMLParser):
    """The page as a browser that forgives nothing would read it."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[tuple[int, str]] = []
        self.text = ""
        self.feed(page.decode())
        self.close()
        assert [] == self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the beginning of an element."""
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))

    def handle_endtag(self, tag: str) -> None:
        """Take the end of an element: the one begun last."""
        assert tag == self.open.pop()

    def handle_data(self, text: str) -> None:
        """Take text."""
        self.text += text
        if self.open and any(re.fullmatch("h[1-6]", tag) for tag in self.open):
            level, before = self.headings[-1]
            self.headings[-1] = (level, before + text)

    def attributes(self, name: str) -> list[str]:
        """Return the values of an attribute wherever it stands."""
        return [value for _, attributes in self.tags if (value := attributes.get(name)) is not None]


READ = Page(PAGE)


# --- it says everything ---


def test_every_route_stands_under_a_heading_of_its_own() -> None:
    routes = [f"{method.upper()} {path}" for path, item in DOCUMENT["paths"].items() for method in item]

    assert sorted(routes) == sorted(text for level, text in READ.headings if level == 3 and " /" in text)


def test_every_answer_is_there() -> None:
    answers = [status for item in DOCUMENT["paths"].values() for one in item.values() for status in one["responses"]]

    assert sorted(answers) == sorted(text[:3] for level, text in READ.headings if level == 5)


def test_every_refusal_stands_there_with_its_status() -> None:
    refusals = [text[:3] for level, text in READ.headings if level == 3 and text[:1].isdecimal()]

    assert ["400", "401", "403", "404", "405", "413", "415", "429", "500", "503"] == refusals


def test_every_schema_with_every_member_and_every_code_with_its_title_is_there() -> None:
    ids = set(READ.attributes("id"))
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert f"schema-{name}" in ids
        for member in schema.get("properties", {}):
            assert f"<code>{member}</code>" in PAGE.decode()
    for code in CODES:
        assert f"{code}: {TITLES[code]}" in READ.text


def test_every_example_is_there() -> None:
    shown = READ.text.count("Example: ")

    assert sum(examples(part) for part in (DOCUMENT["paths"], DOCUMENT["components"]["responses"])) == shown


def examples(node: Any) -> int:
    """Count the examples of bodies, and those of parameters."""
    if isinstance(node, list):
        return sum(examples(part) for part in node)
    if not isinstance(node, dict):
        return 0
    return (
        len(node.get("examples", ()))
        + ("in" in node)
        + sum(examples(part) for name, part in node.items() if name not in {"examples", "example"})
    )


@pytest.mark.parametrize(
    "words",
    [
        "anyone, without a token",
        "unit or desk, with its token",
        "a whole number, 1 to 10,000",
        "a time as in RFC 3339, with an offset",
        "a list of CitizenshipCount, at least 1, none twice",
        "one of SI, HR",
        "one of 254 values",
        "always recorded",
        "amends never comes without revision.",
        "one of Recorded, Duplicate, Conflict or Rejected",
        "Another member is refused.",
    ],
)
def test_rules_are_in_words(words: str) -> None:
    assert words in READ.text


# --- it reaches for nothing, and runs nothing ---


def test_it_holds_no_outside_address_no_script_and_no_inline_style() -> None:
    links = READ.attributes("href")

    assert {"docs.css", "openapi.json", "asyncapi.json"} == {link for link in links if not link.startswith("#")}
    assert [] == [tag for tag, _ in READ.tags if tag in {"script", "style", "img", "iframe", "form"}]
    assert [] == [
        name for _, attributes in READ.tags for name in attributes if name == "style" or name.startswith("on")
    ]
    assert b"url(" not in DOCS_CSS and b"@import" not in DOCS_CSS and b"//" not in DOCS_CSS


def test_every_link_leads_somewhere_and_every_anchor_is_there_once() -> None:
    ids = READ.attributes("id")

    assert len(ids) == len(set(ids))
    assert set() == {link.removeprefix("#") for link in READ.attributes("href") if link.startswith("#")} - set(ids)


EVIL = '<script>alert("x")</script>&`<b>`'


def poisoned(node: Any) -> Any:
    """Put what a page must not run into every text of a document."""
    if isinstance(node, list):
        return [poisoned(part) for part in node]
    if isinstance(node, dict):
        return {key: node[key] if key == "$ref" else poisoned(node[key]) for key in node}
    return f"{node}{EVIL}" if isinstance(node, str) else node


def test_whatever_the_document_says_is_text_and_nothing_else() -> None:
    document = {
        "info": poisoned(DOCUMENT["info"]),
        "tags": poisoned(DOCUMENT["tags"]),
        "paths": poisoned(DOCUMENT["paths"]),
        "components": {
            "schemas": {f"{name}{EVIL}": poisoned(one) for name, one in DOCUMENT["components"]["schemas"].items()},
            "responses": poisoned(DOCUMENT["components"]["responses"]),
        },
    }
    read = Page(docs_page(document))

    assert {"script", "b"} & {tag for tag, _ in read.tags} == set()
    assert read.text.count("alert(") > 500


# --- anyone can read it ---


def test_it_has_a_language_a_title_and_headings_in_order() -> None:
    assert ("html", {"lang": "en"}) in READ.tags
    assert [(1, DOCUMENT["info"]["title"])] == [heading for heading in READ.headings if heading[0] == 1]
    levels = [level for level, _ in READ.headings]
    assert all(after <= before + 1 for before, after in pairwise(levels))


PAIRS = [
    *[(text, under) for text in ("ink", "quiet", "link", "key", "text", "bare") for under in ("paper", "panel")],
    *[("on", under) for under in ("good", "bad", "worse", "plain")],
]


def colours(scheme: str) -> dict[str, str]:
    """Return the colours of a scheme, by name."""
    blocks = re.findall(r":root \{([^}]*)", DOCS_CSS.decode())
    light, dark = (dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in blocks)
    return light if scheme == "light" else dark


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("text", "under"), PAIRS)
def test_texts_stand_out_from_what_is_under_them(scheme: str, text: str, under: str) -> None:
    """WCAG 2.2 AA, 1.4.3."""
    palette = colours(scheme)
    low, high = sorted((luminance(palette[text]), luminance(palette[under])))

    assert (high + 0.05) / (low + 0.05) >= 4.5


# --- in a real browser, under the policy that it is served with ---


class _Serves(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body, kind = (DOCS_CSS, "text/css") if self.path == "/docs.css" else (PAGE, "text/html; charset=utf-8")
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Serves) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/docs"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        launched = found.kind.launch(**found.options)
        yield launched
        launched.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_it_fits_a_phone_and_a_screen_in_light_and_dark(
    browser: Browser, address: str, scheme: Any, width: int
) -> None:
    said: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.on("console", lambda message: said.append(message.text))
    page.goto(address)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    drawn = page.evaluate("document.documentElement.scrollWidth")
    page.close()

    assert [] == said
    assert width == drawn
    assert "rgb({}, {}, {})".format(*bytes.fromhex(colours(scheme)["paper"][1:])) == paper
