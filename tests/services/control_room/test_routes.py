"""The room's HTTP: who sees what, to the byte; log-in and log-out; what browsers may keep; and what is refused how."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import escape, unescape
from html.parser import HTMLParser
from itertools import product
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
import redis

from schemas.principals import ROLES
from schemas.vocabulary import order
from services.control_room import routes
from services.control_room.routes import LOGIN_BYTES_MAX
from services.control_room.words import LANGUAGES, Language, words
from services.runtime.settings import Settings, read_settings
from services.store.principals import token_digest
from tests import oracle
from tests.gateways import enrolled
from tests.projectors import ZONES, log_of
from tests.servers import plain_client
from tests.services.control_room.rooms import WORDS, Browser, Served, cells_of, holds, running_room, tell
from tests.waiting import wait_for

ALL = {"SI": "1119", "HR": "2230"}
PAGES = ("/", "/?at={id}", "/?side={side}", "/?operation={operation}")
DATA = (
    "/api/tallies", "/api/tallies?at={id}", "/api/tallies?at={future}", "/api/tallies.csv", "/api/tallies.csv?at={id}",
    "/api/tallies.json", "/api/tallies.json?download=1&at={id}", "/api/tallies.csv?side={side}",
    "/api/tallies.json?operation={operation}", "/api/stream", "/api/stream?since={id}",
)  # fmt: skip
PUBLIC = ("/health/live", "/health/ready")


@pytest.fixture(scope="module")
def settings(server_url: str) -> Settings:
    """Give settings that all tests here share: none of them changes anything but who may look."""
    return read_settings({"FIELDTALLY_REDIS_URL": server_url, "FIELDTALLY_PREFIX": "routes"})


@pytest.fixture(scope="module")
def client(server_url: str) -> Iterator[redis.Redis]:
    with plain_client(server_url) as client:
        yield client


@pytest.fixture(scope="module")
def served(client: redis.Redis, settings: Settings) -> Iterator[Served]:
    """Serve a room in which each side has its own."""
    tell(client, settings)
    with running_room(settings) as served:
        yield served


@pytest.fixture(scope="module")
def auditor(served: Served, client: redis.Redis, settings: Settings) -> Iterator[Browser]:
    with Browser(served.address, enrolled(client, settings.prefix, "auditor", "SI,HR", unit="wall")) as browser:
        yield browser


@pytest.fixture(scope="module")
def viewer(served: Served, client: redis.Redis, settings: Settings) -> Iterator[Browser]:
    with Browser(served.address, enrolled(client, settings.prefix, "viewer", "SI")) as browser:
        yield browser


def address_of(path: str, served: Served, side: str) -> str:
    """Fill in an address as a viewer of a side has it."""
    return path.format(
        id=served.side(side).position, side=side, operation=WORDS[side][2], future=quote("2999-01-01T00:00:00+01:00")
    )


def bytes_of(browser: Browser, path: str) -> tuple[int, bytes]:
    """Return the status and all bytes of an answer; of a stream those to its first heartbeats."""
    if path.startswith("/api/stream"):
        status = browser.send("POST", path).status_code
        if status == 401:
            return browser.get(path).status_code, b""
        with browser.listening(path.partition("since=")[2]) as listener:
            wait_for(lambda: listener.named("heartbeat"), what="the heartbeat")
            return 200, listener.text.encode()
    answer = browser.get(path)
    return answer.status_code, answer.content + repr(answer.headers).encode()


# Who sees what


def test_a_viewer_of_one_side_gets_no_byte_of_the_other(
    served: Served, client: redis.Redis, settings: Settings
) -> None:
    """Page, snapshot, stream, exports and the past, of viewers and auditors; and each byte of their own."""
    for role, side in product(("viewer", "auditor"), WORDS):
        other = "HR" if side == "SI" else "SI"
        hidden = [*WORDS[other], ALL[other], served.side(other).position, served.side(other).digest, ZONES[other]]
        own = [*WORDS[side][1:3], served.side(side).position]
        with Browser(served.address, enrolled(client, settings.prefix, role, side, unit="wall")) as browser:  # type: ignore[arg-type]
            for path in (*PAGES, *DATA):
                status, content = bytes_of(browser, address_of(path, served, side))
                assert 200 == status, path
                for word in hidden:
                    assert not holds(content, word), (role, side, path, word)
                if "stream" not in path:
                    assert all(word.encode() in content for word in own), path


def test_asking_for_the_other_side_shows_nothing_of_it(served: Served, viewer: Browser) -> None:
    hr = served.side("HR").position
    for path in ("/api/tallies.json?side=HR", "/api/tallies.csv?side=HR&operation=HR-OP-2"):
        refused = viewer.get(path)
        assert (400, "side", "`side` is one of SI") == (
            refused.status_code, refused.json()["pointer"], refused.json()["detail"]
        )  # fmt: skip
        assert refused.text == viewer.get(path.replace("HR", "XX", 1)).text  # as for one that there is not
    for path in (f"/api/tallies?at=HR:{hr}", f"/api/tallies.csv?at=HR:{hr}"):
        assert 400 == viewer.get(path).status_code
    both = viewer.get(f"/api/tallies?at=SI:{served.side().position},HR:{hr}")  # a link from one who sees more
    assert ["SI"] == [side["side"] for side in both.json()["sides"]]
    with viewer.listening(f"SI:{served.side().position},HR:{hr}") as listener:
        wait_for(lambda: listener.named("reset"), what="the reset")


@pytest.mark.parametrize(
    "who", ["nobody", "unknown", "unit", "desk", "of another side", "revoked", "expired", "damaged"]
)
def test_who_may_not_look_gets_the_log_in_page_and_nothing_else(
    served: Served, client: redis.Redis, settings: Settings, who: str
) -> None:
    def token(role: Any = "viewer", side: str = "SI", **more: Any) -> str:
        return enrolled(client, settings.prefix, role, side, unit="one", **more)

    tokens = {
        "nobody": lambda: None,
        "unknown": lambda: "0" * 43,
        "unit": lambda: token("unit"),
        "desk": lambda: token("desk"),
        "of another side": lambda: token(side="AT"),
        "revoked": lambda: token(state="revoked"),
        "expired": lambda: token(expires=datetime.now(UTC) - timedelta(seconds=1)),
        "damaged": lambda: "damaged",
    }
    client.hset(f"{settings.prefix}:principals", token_digest("damaged"), "{}")
    with Browser(served.address, tokens[who]()) as browser:
        for path in (*PAGES, *DATA):
            answer = browser.get(address_of(path, served, "SI"))
            assert 401 == answer.status_code, path
            for word in (*WORDS["SI"][:2], *WORDS["HR"][:2], "1111", "2222", served.side().digest):
                assert not holds(answer.content, word)
            if path in DATA:
                assert "application/problem+json" in answer.headers["content-type"]
                assert "`fieldtally devices enrol NAME --role viewer --side SI`" in answer.json()["detail"]
            else:
                assert '<form method="post" action="/login">' in answer.text
        for path in PUBLIC:
            assert 200 == browser.get(path).status_code
        bearer = browser.get("/api/tallies", Authorization=f"Bearer {browser.token or '-'}")
        assert 401 == bearer.status_code


@pytest.mark.parametrize("role", ROLES)
def test_a_program_may_bring_its_token_as_a_bearer(
    served: Served, client: redis.Redis, settings: Settings, role: Any
) -> None:
    with Browser(served.address) as browser:
        token = enrolled(client, settings.prefix, role, unit="one")
        answer = browser.get("/api/tallies", Authorization=f"Bearer {token}")
        assert (200 if role in ("viewer", "auditor") else 401) == answer.status_code


# Log-in and log-out


def log_in(browser: Browser, token: str, onward: str = "/", **headers: str) -> httpx.Response:
    return browser.send("POST", "/login", data={"token": token, "next": onward}, headers=headers)


def test_a_token_becomes_a_cookie_and_leads_on(served: Served, client: redis.Redis, settings: Settings) -> None:
    token = enrolled(client, settings.prefix, "viewer")
    with Browser(served.address) as browser:
        page = browser.get("/?operation=SI-OP-1&lang=sl")
        assert 'name="next" value="/?operation=SI-OP-1&amp;lang=sl"' in page.text
        answer = log_in(browser, f" {token}\n", "/?operation=SI-OP-1&lang=sl")
        assert (303, "/?operation=SI-OP-1&lang=sl") == (answer.status_code, answer.headers["location"])
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith(f"fieldtally_session={token}; ")
        assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Path=/" in cookie and "Secure" not in cookie
        assert 200 == browser.get("/").status_code
        gone = browser.send("POST", "/logout")
        assert (303, "/") == (gone.status_code, gone.headers["location"])
        assert 401 == browser.get("/").status_code


def test_behind_a_proxy_with_tls_the_cookie_is_secure(served: Served, client: redis.Redis, settings: Settings) -> None:
    token = enrolled(client, settings.prefix, "viewer")
    with Browser(served.address) as browser:
        assert "; Secure" in log_in(browser, token, **{"X-Forwarded-Proto": "https"}).headers["set-cookie"]
        assert (
            "; Secure" in browser.send("POST", "/logout", headers={"X-Forwarded-Proto": "https"}).headers["set-cookie"]
        )
        assert "; Secure" not in log_in(browser, token, **{"X-Forwarded-Proto": "http"}).headers["set-cookie"]


def test_a_wrong_token_gets_the_page_again_which_says_so(served: Served) -> None:
    before = len(served.lines.named("log_in_refused"))
    with Browser(served.address) as browser:
        for wrong in ("", "wrong", "0" * 43, "x" * 1_000, "č\x00;=", "a; Path=/x"):
            answer = log_in(browser, wrong, "/?lang=en&side=SI")
            assert 401 == answer.status_code
            assert 'id="wrong"' in answer.text
            assert 'value="/?lang=en&amp;side=SI"' in answer.text
            assert "set-cookie" not in answer.headers
    assert before + 6 == len(served.lines.named("log_in_refused"))
    assert "0" * 43 not in repr(served.lines)


@pytest.mark.parametrize("role", ["unit", "desk"])
def test_a_token_that_reports_is_told_apart_from_one_that_is_not_known(
    served: Served, client: redis.Redis, settings: Settings, role: Any
) -> None:
    with Browser(served.address) as browser:
        answer = log_in(browser, enrolled(client, settings.prefix, role, unit="one"), "/?lang=en")
        assert 401 == answer.status_code
        assert words("en")("login.reports") in answer.text
        assert "set-cookie" not in answer.headers


def test_the_log_in_page_s_own_address_leads_to_the_screen(served: Served) -> None:
    with Browser(served.address) as browser:
        answer = browser.get("/login")
        assert (303, "/") == (answer.status_code, answer.headers["location"])


@pytest.mark.parametrize(
    "onward",
    [
        "https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example",
        "/\n/evil.example", "\t//evil.example", " //evil.example", "javascript:alert(1)", "///evil.example", "",
        "/\r\nSet-Cookie: a=b", "/\x00//evil.example", "/%5Cevil.example", "/%09/evil.example", "http:evil.example",
    ],
)  # fmt: skip
def test_a_log_in_leads_nowhere_else(served: Served, client: redis.Redis, settings: Settings, onward: str) -> None:
    token = enrolled(client, settings.prefix, "viewer")
    with Browser(served.address) as browser:
        answer = log_in(browser, token, onward)
        location = answer.headers["location"]
        assert 303 == answer.status_code
        # As a browser reads it: tabs and line ends are nothing, and a backslash is a slash.
        read = re.sub(r"[\t\n\r]", "", location).replace("\\", "/")
        parts = urlsplit(read)
        assert location.startswith("/") and not read.startswith("//") and not parts.scheme and not parts.netloc
        assert location.isascii() and location.isprintable()
        assert 1 == len(answer.headers.get_list("set-cookie"))


@pytest.mark.parametrize("path", ["/login", "/logout"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "same-site", "Origin": "https://other.example"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "null"},
        {"Origin": "https://evil.example"},
    ],
)
def test_no_other_site_logs_anybody_in_or_out(
    served: Served, client: redis.Redis, settings: Settings, path: str, headers: dict[str, str]
) -> None:
    """Else a page elsewhere could put a wall on a token of its own, or take it off."""
    token = enrolled(client, settings.prefix, "viewer")
    with Browser(served.address) as browser:
        answer = browser.send("POST", path, data={"token": token, "next": "/"}, headers=headers)
        assert 403 == answer.status_code
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin", "Origin": "null"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "null"},
        {"Origin": "https://screen.example:8443", "Host": "screen.example:8443"},
        {},
    ],
)
def test_a_log_in_from_here_is_taken_however_the_browser_says_so(
    served: Served, client: redis.Redis, settings: Settings, headers: dict[str, str]
) -> None:
    token = enrolled(client, settings.prefix, "viewer")
    with Browser(served.address) as browser:
        assert 303 == log_in(browser, token, **headers).status_code


def test_a_log_in_has_a_bounded_body(served: Served, client: redis.Redis, settings: Settings) -> None:
    token = enrolled(client, settings.prefix, "viewer")
    with Browser(served.address) as browser:
        assert 303 == log_in(browser, token, "/?" + "x" * 2_000).status_code
        for body in (b"token=" + b"x" * LOGIN_BYTES_MAX, (b"x" * 1_000 for _ in range(100))):
            answer = browser.send("POST", "/login", content=body)
            assert 413 == answer.status_code
            assert "text/html" in answer.headers["content-type"]
            assert escape(words("en")("login.none")) in answer.text
        for odd in (b"", b"\xff\xfe", b"token", b"token=%zz&next=%", b"&&&=;", b"{}"):
            assert 401 == browser.send("POST", "/login", content=odd).status_code


# Pages


class Parts(HTMLParser):
    """What on a page a strict policy forbids, and what it loads."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.loaded: list[str] = []
        self.language = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one element."""
        named = dict(attrs)
        self.language = self.language or named.get("lang") or ""
        for name, value in attrs:
            if name.startswith("on") or name == "style" or (value or "").strip().lower().startswith("javascript:"):
                self.inline.append(f"{tag} {name}={value}")
        if tag == "style" or (tag == "script" and "src" not in named and named.get("type") != "application/json"):
            self.inline.append(tag)
        for name in ("src", "href"):
            if tag in ("script", "link", "img") and (address := named.get(name)):
                self.loaded.append(address)


def html_answers(served: Served, token: str) -> Iterator[httpx.Response]:
    """Yield every answer that is HTML."""
    with Browser(served.address) as nobody, Browser(served.address, token) as viewer:
        yield nobody.get("/")
        yield log_in(nobody, "wrong")
        yield log_in(nobody, token)
        yield nobody.send("POST", "/logout")
        for query in ("", "?lang=sl&kiosk=1", "?lang=hr&theme=dark", f"?at={served.side().position}"):
            yield viewer.get(f"/{query}")


def test_every_html_answer_has_a_strict_policy_and_nothing_inline(
    served: Served, client: redis.Redis, settings: Settings
) -> None:
    for answer in html_answers(served, enrolled(client, settings.prefix, "auditor", "SI,HR", unit="wall")):
        assert "text/html" in answer.headers["content-type"]
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert {"'none'"} == {policy[name] for name in ("default-src", "base-uri", "frame-ancestors")}
        assert {"'self'"} == {
            value for name, value in policy.items() if name.endswith("-src") and name != "default-src"
        }
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert "nosniff" == answer.headers["x-content-type-options"]
        assert "no-store" in answer.headers["cache-control"]
        parts = Parts(answer.text)
        assert [] == parts.inline
        with Browser(served.address) as browser:
            for address in parts.loaded:
                assert address.startswith("/static/")
                assert 200 == browser.get(address).status_code


HOSTILE = "'\"><script>alert(1)</script>"


def test_what_stands_in_the_address_is_never_markup(served: Served, auditor: Browser) -> None:
    for name in ("operation", "side", "from", "to", "lang", "theme", "kiosk", "next", "x"):
        with Browser(served.address) as nobody:
            for browser in (auditor, nobody):
                answer = browser.get(f"/?{name}={quote(HOSTILE)}")
                assert "<script>alert" not in answer.text
                assert [] == Parts(answer.text).inline


@pytest.mark.parametrize(
    ("query", "accepted", "language"),
    [
        ("", "", "en"),
        ("", "sl-SI,sl;q=0.9,en;q=0.8", "sl"),
        ("", "de,hr;q=0.5", "hr"),
        ("?lang=hr", "sl", "hr"),
        ("?lang=xx", "sl", "sl"),
        ("?lang=", "*", "en"),
    ],
)
def test_the_language_is_that_of_the_address_or_of_the_browser(
    served: Served, viewer: Browser, query: str, accepted: str, language: str
) -> None:
    with Browser(served.address) as nobody:
        for browser in (viewer, nobody):
            assert language == Parts(browser.get(f"/{query}", Accept_Language=accepted).text).language


def test_the_page_carries_the_snapshot_that_it_begins_with(served: Served, auditor: Browser) -> None:
    html = auditor.get("/").text
    found = re.search(r'<script type="application/json" id="snapshot">(.*?)</script>', html, re.DOTALL)
    assert found
    assert auditor.snapshot()["sides"][0]["cells"] == json.loads(found[1])["sides"][0]["cells"] == served.side().cells


# The snapshot


def test_the_snapshot_is_what_is_stored(
    served: Served, client: redis.Redis, settings: Settings, auditor: Browser
) -> None:
    snapshot = auditor.snapshot()
    stored = {side: cells_of(client, settings.prefix, side) for side in WORDS}
    assert stored == {side["side"]: side["cells"] for side in snapshot["sides"]}
    assert oracle.digest({**stored["SI"], **stored["HR"]}) == snapshot["digest"]
    for side in snapshot["sides"]:
        assert oracle.digest(stored[side["side"]]) == side["digest"]
        assert 5 == side["entries"]
    assert f"SI:{served.side().position},HR:{served.side('HR').position}" == snapshot["id"]
    assert ("live", 1) == (snapshot["view"], snapshot["fold_version"])


def test_two_audiences_have_two_snapshots(auditor: Browser, viewer: Browser) -> None:
    both, one = auditor.get("/api/tallies"), viewer.get("/api/tallies")
    assert 200 == viewer.get("/api/tallies", If_None_Match=both.headers["etag"]).status_code
    assert len(one.json()["sides"]) < len(both.json()["sides"])
    for answer in (both, one):
        assert "private" in answer.headers["cache-control"]
        assert "cookie" in answer.headers["vary"]


@pytest.mark.parametrize("path", ["/", "/api/tallies", "/api/tallies.csv", "/api/tallies.json", "/static/wall.js"])
def test_what_is_large_is_compressed_for_those_who_take_it(auditor: Browser, path: str) -> None:
    plain, packed = auditor.get(path, Accept_Encoding="identity"), auditor.get(path, Accept_Encoding="gzip")
    assert "content-encoding" not in plain.headers
    if len(plain.content) > 1_000:
        assert "gzip" == packed.headers["content-encoding"]
        assert int(packed.headers["content-length"]) < len(plain.content)
    assert "accept-encoding" in plain.headers["vary"]
    if path.startswith("/api"):
        assert "private" in plain.headers["cache-control"]
        assert "cookie" in plain.headers["vary"]


# The stream


def test_heartbeats_come_every_five_seconds() -> None:
    assert 5 == routes.HEARTBEAT_S


# Exports and the past


def test_exports_say_where_they_are_true(served: Served, auditor: Browser) -> None:
    answer = auditor.get("/api/tallies.csv?operation=SI-OP-1&from=2024-03-14&to=2024-03-14")
    assert "attachment" in answer.headers["content-disposition"]
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert {"1119", "2", "1"} == {row["count"] for row in rows if row["measure"]}
    assert {(side, served.side(side).position, auditor.snapshot()["digest"]) for side in WORDS} == {
        (row["side"], row["position"], row["digest"]) for row in rows
    }
    document = auditor.get("/api/tallies.json?operation=SI-OP-1&from=2024-03-14&download=1").json()
    assert document["position"] == {side: served.side(side).position for side in WORDS}
    assert document["digest"] == auditor.snapshot()["digest"]
    assert len(rows) == len(document["rows"]) + 1  # and one that says where the side without any stands
    assert [] == auditor.get("/api/tallies.json?to=2024-03-13").json()["rows"]
    both, one = auditor.snapshot()["digest"], served.side("HR").digest
    for query, sides, digest in (("", list(WORDS), both), ("&side=HR", ["HR"], one)):
        empty = auditor.get(f"/api/tallies.csv?operation=NONE&to=2024-03-13{query}")
        assert sides == [row["side"] for row in csv.DictReader(io.StringIO(empty.text)) if row["count"] == "0"]
        positions = {side: served.side(side).position for side in sides}
        newest = max(positions.values(), key=order)
        assert (
            ",".join(f"{side}:{position}" for side, position in positions.items())
            == (empty.headers["fieldtally-position"])
        )
        assert digest == empty.headers["fieldtally-digest"]
        assert empty.headers["content-disposition"].endswith(f'2024-03-13-{newest}.csv"')


@pytest.mark.parametrize("name", ["from", "to"])
@pytest.mark.parametrize("day", ["2024-02-30", "yesterday", "14.3.2024", "2024-03-14T00:00:00Z", "9" * 300])
def test_a_day_that_is_none_is_refused_in_words(viewer: Browser, name: str, day: str) -> None:
    for kind in ("csv", "json"):
        answer = viewer.get(f"/api/tallies.{kind}?{name}={quote(day)}")
        assert 400 == answer.status_code
        assert (f"`{name}` is a date such as 2024-03-14", name) == (answer.json()["detail"], answer.json()["pointer"])


@pytest.mark.parametrize(
    ("query", "pointer"),
    [("side=XX", "side"), ("side=si", "side"), ("side=SI&side=HR", "side"), ("from=2024-03-15&to=2024-03-14", "to"),
     ("from=20240314", "from"), ("from=2024-W11-4", "from"), ("at=1-0&at=2-0", "at")],
)  # fmt: skip
def test_a_view_of_nothing_that_there_is_has_no_rows_that_look_like_a_quiet_border(
    auditor: Browser, query: str, pointer: str
) -> None:
    for kind in ("csv", "json"):
        answer = auditor.get(f"/api/tallies.{kind}?{query}")
        assert (400, pointer) == (answer.status_code, answer.json()["pointer"])


def test_the_past_is_a_replay_to_that_position(client: redis.Redis, settings: Settings, auditor: Browser) -> None:
    logs = {side: log_of(client, settings.prefix, side) for side in WORDS}
    then = {side: oracle.count(side, ZONES[side], log[:3]).tallies for side, log in logs.items()}
    si, hr = (logs[side][2][0] for side in WORDS)
    snapshot = auditor.snapshot(f"?at=SI:{si},HR:{hr}")
    assert then == {side["side"]: side["cells"] for side in snapshot["sides"]}
    assert ("past", f"SI:{si},HR:{hr}", f"SI:{si},HR:{hr}") == (snapshot["view"], snapshot["id"], snapshot["at"])
    assert oracle.digest({**then["SI"], **then["HR"]}) == snapshot["digest"]
    assert [si, logs["SI"][1][0], logs["SI"][0][0]] == [one["position"] for one in snapshot["sides"][0]["latest"]]
    assert [] == snapshot["sides"][0]["amendments"]
    rows = list(csv.DictReader(io.StringIO(auditor.get(f"/api/tallies.csv?at=SI:{si},HR:{hr}").text)))
    assert {"1118", "2229", "2"} == {row["count"] for row in rows}
    assert {("SI", si), ("HR", hr)} == {(row["side"], row["position"]) for row in rows}
    assert "past" == auditor.get(f"/api/tallies.json?at=SI:{si},HR:{hr}").json()["view"]
    page = auditor.get(f"/?at=SI:{si},HR:{hr}")
    assert '"view":"past"' in page.text and 'data-state="past"' in page.text


@pytest.mark.parametrize("at", ["nonsense", "2024-03-32", "25:00", "XX:1-0", "%00", "9" * 400])
@pytest.mark.parametrize("path", ["/api/tallies", "/api/tallies.csv", "/api/tallies.json"])
def test_a_past_that_is_none_is_refused_in_words(auditor: Browser, path: str, at: str) -> None:
    answer = auditor.get(f"{path}?at={at}")
    assert 400 == answer.status_code
    assert "`at` is a position such as 1710385929000-0" in answer.json()["detail"]
    assert "at" == answer.json()["pointer"]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("at", ["nonsense", "<script>", "14.3.2024"])
def test_a_past_that_is_none_is_a_page_that_leads_to_the_present(auditor: Browser, at: str, language: Language) -> None:
    answer = auditor.get(f"/?at={quote(at)}&lang={language}&kiosk=1")
    assert (400, "text/html") == (answer.status_code, answer.headers["content-type"].partition(";")[0])
    assert words(language)("at.title") in unescape(answer.text)
    assert f": {escape(at)}</p>" in answer.text
    assert f'href="/?kiosk=1&amp;lang={language}"' in answer.text
    assert "http-equiv" not in answer.text  # no waiting mends it
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


# Files, and what there is not


def test_a_file_is_kept_for_ever_only_under_its_version(served: Served) -> None:
    with Browser(served.address) as browser:
        page = browser.get("/").text
        addresses = re.findall(r'"(/static/[^"?]+\?v=[0-9a-f]{16})"', page)
        assert addresses
        for address in addresses:
            bare, version = address.split("?v=")
            assert "immutable" in browser.get(address).headers["cache-control"]
            for other in (bare, f"{bare}?v=", f"{bare}?v={'0' * 16}", f"{bare}?v={version}&v=0", f"{bare}?w={version}"):
                answer = browser.get(other)
                assert "no-cache" == answer.headers["cache-control"]
                known = browser.get(other, If_None_Match=answer.headers["etag"])
                assert (304, b"") == (known.status_code, known.content)


def test_every_file_has_its_kind(served: Served) -> None:
    kinds = {"js": "text/javascript", "css": "text/css", "json": "application/json", "svg": "image/svg+xml"}
    with Browser(served.address) as browser:
        for name in served.app.room._assets:
            answer = browser.get(f"/static/{name}", Accept_Encoding="identity")
            assert 200 == answer.status_code
            assert answer.headers["content-type"].startswith(kinds[name.rpartition(".")[2]])
            assert "nosniff" == answer.headers["x-content-type-options"]
            packed = browser.get(f"/static/{name}", Accept_Encoding="gzip")
            assert packed.content == answer.content
            assert gzip.decompress(gzip.compress(answer.content)) == answer.content


@pytest.mark.parametrize(
    "path",
    [
        "/nonsense", "/static/", "/static/none.js", "/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py",
        "/static/%2e%2e%2fapp.py", "/static/..\\app.py", "/static//etc/passwd", "/static/words/en.json", "/api",
        "/api/", "/api/tallies.xml", "/static/wall.js%00", "/static/__init__.py", "/.git/config", "/schema",
    ],
)  # fmt: skip
def test_what_there_is_not_is_not_found(served: Served, path: str) -> None:
    status, headers, body = raw(served.address, f"GET {path} HTTP/1.1")
    assert status == 404
    assert "application/problem+json" in headers
    assert "not-found" in body
    assert "import" not in body


def raw(address: str, line: str) -> tuple[int, str, str]:
    """Send a request line as it stands: clients put paths in order before they send them."""
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"{line}\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
    head, _, body = answer.decode().partition("\r\n\r\n")
    return int(head.split(" ", 2)[1]), head, body


@pytest.mark.parametrize("path", ["/", "/api/tallies", "/api/tallies.csv", "/health/live", "/static/wall.js"])
def test_the_head_of_whatever_can_be_read_can_be_asked_for(viewer: Browser, path: str) -> None:
    """As programs do that watch whether a page is there."""
    whole, head = viewer.get(path), viewer.send("HEAD", path)
    assert (200, b"") == (head.status_code, head.content)
    assert whole.headers["content-type"] == head.headers["content-type"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/login"), ("GET", "/logout"), ("POST", "/"), ("DELETE", "/api/tallies"), ("POST", "/api/stream"),
     ("PUT", "/static/wall.js")],
)  # fmt: skip
def test_a_method_that_there_is_not_is_refused(viewer: Browser, method: str, path: str) -> None:
    answer = viewer.send(method, path)
    assert 405 == answer.status_code, answer.text
    assert "application/problem+json" in answer.headers["content-type"]
    assert answer.headers["allow"]


def test_ready_means_that_every_side_is_seen(served: Served) -> None:
    with Browser(served.address) as browser:
        assert ["SI", "HR"] == [check["side"] for check in browser.get("/health/ready").json()["checks"]]
        assert "ready" == browser.get("/health/ready").json()["status"]
        assert 200 == browser.get("/health/live").status_code
