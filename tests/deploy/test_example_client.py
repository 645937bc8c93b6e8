"""The example for other languages, `deploy/examples`, in a real browser against a real gateway on a real Valkey."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any, Final, NamedTuple
from uuid import UUID

import pytest
import redis
from playwright.sync_api import Browser, BrowserContext, Page, Request, Route

from services.runtime.settings import Settings, read_settings
from tests import given
from tests.browsers import Chromium, chromium
from tests.gateways import enrolled, running_gateway
from tests.projectors import log_of
from tests.servers import plain_client
from tests.waiting import wait_for

EXAMPLES: Final = Path(__file__).parents[2] / "deploy" / "examples"
CLIENT: Final = "fieldtally-outbox.js"
PREFIX: Final = "example"
EVENTS: Final = "**/v1/events"
LOGIN_PAGE: Final = "<!doctype html><title>Free Wi-Fi</title><form><input name=room></form>"

# Pauses are short, and so many reports are easily made; else the module is used as any page would.
_OPEN: Final = """async (link) => {
    const { Outbox } = await import("/fieldtally-outbox.js");
    globalThis.outbox = await Outbox.open();
    outbox.pausesMs = [20, 200];
    const persons = (count) => ({ section: "koper", persons: [{ citizenship: "SYR", count }] });
    globalThis.reported = (first, last, about) => Promise.all(Array.from({ length: last - first + 1 }, (_, at) =>
        outbox.report("apprehension", persons(first + at), about)));
    globalThis.paused = new Promise((resolve) => outbox.addEventListener("change", async () => {
        const { pause } = await outbox.status();
        if (pause) resolve(pause); // the first; it may be over before anybody outside asks
    }));
    if (link) await outbox.join(link);
}"""
_COPY: Final = """async () => {
    const done = (request) => new Promise((resolve, reject) =>
        Object.assign(request, { onsuccess: () => resolve(request.result), onerror: () => reject(request.error) }));
    const db = await done(indexedDB.open("fieldtally"));
    const stores = db.transaction(["device", "reports"], "readwrite");
    const [device, reports] = [stores.objectStore("device"), stores.objectStore("reports")];
    const copy = [await done(device.get(0)), await done(reports.getAll())];
    db.close();
    return copy;
}"""
_RESTORE: Final = """async ([this_device, all]) => {
    const stores = await new Promise((resolve) => {
        const request = indexedDB.open("fieldtally");
        request.onsuccess = () => resolve(request.result.transaction(["device", "reports"], "readwrite"));
    });
    stores.objectStore("device").put(this_device, 0);
    for (const report of all) stores.objectStore("reports").put(report);
    await new Promise((resolve) => { stores.oncomplete = resolve; });
}"""


class Field(NamedTuple):
    """What the tests share: where the page is served, a gateway that takes it, and a look at the log behind both."""

    browser: Chromium
    launched: Browser
    origin: str
    gateway: str
    client: redis.Redis

    def link(self, device: str, gateway: str | None = None) -> str:
        """Enrol a device; return its link."""
        token = enrolled(self.client, PREFIX, device=device)
        return f"{gateway or self.gateway}/#token={token}&source=/SI/SI-MP-07/{device}"

    def entries(self, device: str) -> list[tuple[str, dict[bytes, bytes]]]:
        """Return what the log holds of a device."""
        source = f'"/SI/SI-MP-07/{device}"'.encode()
        return [entry for entry in log_of(self.client, PREFIX, "SI") if source in entry[1][b"event"]]

    def events(self, device: str) -> list[dict[str, Any]]:
        """Return the events of a device, in the order of the log."""
        return [json.loads(fields[b"event"]) for _, fields in self.entries(device)]

    def counts(self, device: str) -> list[int]:
        """Return how many persons each report of a device brought, in the order of the log."""
        return [event["data"]["persons"][0]["count"] for event in self.events(device)]

    def tallied(self, device: str, measure: str) -> int:
        """Return what the reports of a device amount to."""
        tallies = given.Folded(*(fields[b"event"] for _, fields in self.entries(device))).tallies
        return sum(number for cell, number in tallies.items() if measure in cell.split("|"))

    @contextmanager
    def phone(self, device: str, gateway: str | None = None) -> Iterator[Page]:
        """Give a page with an outbox that has joined as a device; nothing but the outbox is on it."""
        with self.context() as context:
            yield self.tab(context, self.link(device, gateway))

    @contextmanager
    def context(self, **options: Any) -> Iterator[BrowserContext]:
        """Give a browser with nothing stored. A route sees no request that a service worker might answer: none here."""
        context = self.launched.new_context(service_workers="block", **options)
        try:
            yield context
        finally:
            context.close()

    def tab(self, context: BrowserContext, link: str | None = None) -> Page:
        """Open the outbox in a new tab."""
        page = context.new_page()
        page.goto(f"{self.origin}/empty.html")
        page.evaluate(_OPEN, link)
        return page


class _Examples(SimpleHTTPRequestHandler):
    """The folder as `python3 -m http.server` serves it, and an empty page beside."""

    def do_GET(self) -> None:
        if self.path != "/empty.html":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>Empty</title>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def _served() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Examples, directory=str(EXAMPLES))) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _settings(server_url: str, origin: str, **environ: str) -> Settings:
    named = {"REDIS_URL": server_url, "PREFIX": PREFIX, "HTTP_ORIGINS": origin, "RATE_LIMIT": "100000"} | environ
    return read_settings({f"FIELDTALLY_{name}": text for name, text in named.items()})


@pytest.fixture(scope="module")
def field(server_url: str) -> Iterator[Field]:
    """Give all that these tests have in common, once."""
    with ExitStack() as users:
        browser = users.enter_context(chromium())
        client = users.enter_context(plain_client(server_url))
        origin = users.enter_context(_served())
        gateway = users.enter_context(running_gateway(_settings(server_url, origin)))
        launched = browser.kind.launch(**browser.options)
        users.callback(launched.close)
        yield Field(browser, launched, origin, gateway, client)


_devices = (f"d{number}" for number in count())


@pytest.fixture
def device() -> str:
    """Give the name of a device that no other test has."""
    return next(_devices)


def _number(page: Page, which: str) -> int:
    number: int = page.evaluate(f"outbox.{which}().then((reports) => reports.length)")
    return number


def _wait_until_sent(page: Page) -> None:
    wait_for(lambda: _number(page, "pending") == 0, what="the outbox to be empty")


def _status(page: Page) -> dict[str, Any]:
    status: dict[str, Any] = page.evaluate("outbox.status()")
    return status


def _used(page: Page) -> dict[str, int]:
    used: dict[str, int] = wait_for(lambda: _status(page).get("used"), what="the numbers that the gateway has")
    return used


def _answers(page: Page, *answers: Callable[[Route], None]) -> list[Request]:
    """Treat one request after the other like this, let those after them through; return the requests as they come.

    Before anything is reported: a request that is under way already passes by a route that is only being laid.
    """
    assert 0 == _number(page, "pending")
    seen: list[Request] = []

    def treat(route: Route) -> None:
        seen.append(route.request)
        (answers[len(seen) - 1] if len(seen) <= len(answers) else Route.continue_)(route)

    page.route(EVENTS, treat)
    return seen


def _ids(request: Request) -> list[str]:
    return [event["id"] for event in json.loads(request.post_data or "[]")]


def _take_and_cut(route: Route) -> None:
    assert route.fetch().status == 202
    route.abort("connectionreset")


def _answer(status: int, body: str, content_type: str, **headers: str) -> Callable[[Route], None]:
    allowed = {"access-control-allow-origin": "*", "access-control-expose-headers": "retry-after"}

    def fulfil(route: Route) -> None:
        route.fulfill(status=status, body=body, content_type=content_type, headers={**allowed, **headers})

    return fulfil


# --- what it is ---


def test_the_client_has_less_than_200_lines_and_needs_nothing_else() -> None:
    text = (EXAMPLES / CLIENT).read_text(encoding="utf-8")

    assert len(text.splitlines()) < 200
    assert max(map(len, text.splitlines())) <= 120
    assert "import" not in text
    assert "https://" not in text.replace("https://gateway.example", "")


# --- offline ---


def _report_on_the_form(page: Page, persons: int) -> None:
    page.get_by_label("Section").fill("koper")
    page.get_by_label("Citizenship", exact=True).fill("SYR")
    page.get_by_label("Count").fill(str(persons))
    page.get_by_role("button", name="Report").click()
    page.get_by_text(f"{persons} SYR").wait_for()


def _waiting(page: Page) -> str:
    page.wait_for_function("document.querySelector('#who').textContent.includes('SI-MP-07')")
    return page.locator("#waiting-count").inner_text()


def test_reports_made_offline_survive_a_reload_and_a_restart_and_arrive_once_online(
    field: Field, device: str, tmp_path: Path
) -> None:
    """On the page of the example, which opens offline too; every header of the gateway's answers is the real one."""
    link = field.link(device)

    def started(*, offline: bool) -> BrowserContext:
        return field.browser.kind.launch_persistent_context(tmp_path, offline=offline, **field.browser.options)

    with started(offline=False) as context:
        page = context.pages[0]
        page.goto(field.origin)
        page.evaluate("navigator.serviceWorker.ready.then(() => undefined)")
        page.get_by_label("Enrolment link").fill(link)
        page.get_by_role("button", name="Join").click()
        page.get_by_text("Everything is sent").wait_for()
        context.set_offline(True)
        _report_on_the_form(page, 1)
        _report_on_the_form(page, 2)
        page.reload()
        assert "2" == _waiting(page)
    with started(offline=True) as context:
        page = context.pages[0]
        page.goto(field.origin)
        assert "2" == _waiting(page)
        _report_on_the_form(page, 3)
        assert [] == field.entries(device)
        context.set_offline(False)
        page.get_by_text("Everything is sent").wait_for()

    assert [1, 2, 3] == field.counts(device)
    assert [1, 2, 3] == [event["reportno"] for event in field.events(device)]


# --- the form ---


def test_the_form_shows_what_became_of_each_report_and_lets_it_be_corrected_and_taken_back(
    field: Field, device: str
) -> None:
    with field.context(viewport={"width": 390, "height": 844}) as context:
        page = context.new_page()
        errors: list[object] = []
        page.on("pageerror", lambda error: errors.append(error))  # noqa: PLW0108  # Playwright marks what it is given
        page.on("dialog", lambda dialog: dialog.accept())
        page.goto(field.origin)
        page.get_by_label("Enrolment link").fill(field.link(device))
        page.get_by_role("button", name="Join").click()
        page.get_by_label("Operation").fill("NO-SUCH")
        _report_on_the_form(page, 1)
        page.locator("#rejected").get_by_text("There is no such operation").wait_for()
        page.get_by_text("1 rejected and not counted").wait_for()
        page.locator("#rejected").get_by_role("button", name="Correct").click()
        page.get_by_role("button", name="Report the correction").wait_for()
        page.get_by_label("Operation").fill("")
        _report_on_the_form(page, 2)
        page.locator("#sent").get_by_text("2 SYR").wait_for()
        assert "0" == page.locator("#rejected-count").inner_text()
        page.locator("#sent").get_by_role("button", name="Take back").click()
        page.locator("#sent").get_by_text("Taken back").wait_for()
        assert 390 == page.evaluate("document.documentElement.scrollWidth")
        assert [] == errors

    assert 0 == field.tallied(device, "persons")
    assert ["apprehension", "withdrawal"] == [event["type"].split(".")[2] for event in field.events(device)]


def test_a_double_tap_is_one_report(field: Field, device: str) -> None:
    with field.context() as context:
        page = context.new_page()
        page.goto(field.origin)
        page.get_by_label("Enrolment link").fill(field.link(device))
        page.get_by_role("button", name="Join").click()
        page.get_by_label("Section").fill("koper")
        page.get_by_label("Citizenship", exact=True).fill("SYR")
        page.get_by_label("Count").fill("1")
        page.evaluate("for (let tap = 0; tap < 2; tap++) document.getElementById('report').requestSubmit()")
        page.locator("#sent").get_by_text("1 SYR").wait_for()
        assert "1" == page.locator("#sent-count").inner_text()
        assert page.locator("#join").is_hidden()

    assert 1 == field.tallied(device, "persons")
    assert 1 == len(field.events(device))


# --- what is a receipt ---


def test_a_cut_reply_leads_to_the_same_bytes_again_and_the_tallies_count_them_once(field: Field, device: str) -> None:
    with field.phone(device) as page:
        requests = _answers(page, _take_and_cut, _take_and_cut)
        page.evaluate("reported(1, 1)")
        _wait_until_sent(page)

    assert [requests[0].post_data] * 3 == [request.post_data for request in requests]
    assert [1] == field.counts(device)
    assert 1 == field.tallied(device, "persons")


def test_a_captive_portals_page_is_no_receipt(field: Field, device: str) -> None:
    with field.phone(device) as page:
        page.evaluate("outbox.pausesMs = [3_600_000, 3_600_000]")
        requests = _answers(page, *(_answer(status, LOGIN_PAGE, "text/html") for status in (200, 202)))
        page.evaluate("reported(1, 2)")
        for status in (200, 202):
            wait_for(lambda: _status(page).get("pause"), what="the attempt to fail")
            assert str(status) in _status(page)["pause"]["why"]
            assert 2 == _number(page, "pending")
            page.evaluate("outbox.flush()")
        _wait_until_sent(page)

    assert 3 == len(requests)
    assert [1, 2] == field.counts(device)


@pytest.mark.parametrize(
    "results",
    [
        [{"id": given.uid(1), "status": "recorded", "position": "1-0"}],
        [{"id": "", "status": "recorded", "position": "1-0"}],
        [None, 7, "recorded"],
        {"id": "recorded"},
    ],
    ids=("another id", "no id", "no results", "no list"),
)
def test_an_answer_that_does_not_name_the_report_is_no_receipt(field: Field, device: str, results: object) -> None:
    with field.phone(device) as page:
        requests = _answers(page, _answer(202, json.dumps({"results": results}), "application/json"))
        page.evaluate("reported(1, 1)")
        _wait_until_sent(page)

    assert 2 == len(requests)
    assert [1] == field.counts(device)


# --- what is no reason to drop anything ---


def test_a_503_drops_nothing_and_its_retry_after_is_honoured_even_when_the_link_comes_back(
    field: Field, device: str
) -> None:
    with field.phone(device) as page:
        unavailable = json.dumps({"code": "unavailable", "title": "Not now", "retryable": True})
        requests = _answers(page, _answer(503, unavailable, "application/problem+json", **{"retry-after": "1"}))
        page.evaluate("reported(1, 2)")
        pause = page.evaluate("paused")
        page.evaluate("dispatchEvent(new Event('online'))")
        _wait_until_sent(page)
        waited_ms = page.evaluate("Date.now()") - pause["since"]

    assert "Not now" == pause["why"]
    assert 1_000 <= waited_ms
    assert 2 <= len(requests)
    assert [1, 2] == field.counts(device)


def test_a_429_of_the_gateway_drops_nothing_and_its_retry_after_can_be_read(
    field: Field, server_url: str, device: str
) -> None:
    """No route in between: the gateway's own answer, to a page of another origin."""
    limited = _settings(server_url, field.origin, RATE_LIMIT="4")  # 40 at once; 50 in one request are 10 ahead
    with running_gateway(limited) as slow, field.phone(device, slow) as page:
        page.evaluate("reported(1, 50)")
        _wait_until_sent(page)
        page.evaluate("reported(51, 52)")
        pause = page.evaluate("paused")
        _wait_until_sent(page)

    assert pause["asked"]
    assert 1_000 <= pause["until"] - pause["since"]
    assert list(range(1, 53)) == field.counts(device)


def test_pauses_grow_to_a_limit_and_each_has_chance_in_it(field: Field, device: str) -> None:
    with field.phone(device) as page:
        page.evaluate("""() => {
            globalThis.seen = {};
            outbox.pausesMs = [20, 60];
            outbox.addEventListener("change", async () => {
                const { pause } = await outbox.status();
                if (pause) seen[pause.tries] = pause.until - pause.since;
            });
        }""")
        _answers(page, *[lambda route: route.abort("connectionrefused")] * 4)
        page.evaluate("reported(1, 1)")
        _wait_until_sent(page)
        seen = page.evaluate("seen")

    assert ["1", "2", "3", "4"] == sorted(seen)
    for tries, most in (("1", 20), ("2", 40), ("3", 60), ("4", 60)):
        assert most / 2 <= seen[tries] < most + 1, (tries, seen)


def test_a_link_that_comes_back_ends_a_pause_of_the_devices_own(field: Field, device: str) -> None:
    with field.phone(device) as page:
        page.evaluate("outbox.pausesMs = [3_600_000, 3_600_000]")
        _answers(page, lambda route: route.abort("connectionrefused"))
        page.evaluate("reported(1, 1)")
        wait_for(lambda: _status(page).get("pause"), what="the pause")
        page.context.set_offline(True)
        page.context.set_offline(False)
        _wait_until_sent(page)

    assert [1] == field.counts(device)


def test_what_failed_for_a_passing_reason_stays_and_is_sent_again(field: Field, device: str) -> None:
    def fail_the_second(route: Route) -> None:
        first, *rest = json.loads(route.request.post_data or "")
        answer = route.fetch(post_data=json.dumps([first], separators=(",", ":")))
        problem = {"code": "unavailable", "title": "Not now", "detail": "", "retryable": True}
        results = [
            *answer.json()["results"],
            *({"id": one["id"], "status": "rejected", "problem": problem} for one in rest),
        ]
        route.fulfill(response=answer, json={"results": results})

    with field.phone(device) as page:
        requests = _answers(page, fail_the_second)
        page.evaluate("reported(1, 3)")  # all three are on the disk before the first request
        _wait_until_sent(page)
        assert 0 == _number(page, "rejected")

    assert [3, 2] == [len(_ids(request)) for request in requests]
    assert [1, 2, 3] == field.counts(device)


# --- what is refused ---


def test_a_rejected_one_is_kept_with_its_problem_and_the_rest_go_on(field: Field, device: str) -> None:
    with field.phone(device) as page:
        page.context.set_offline(True)
        page.evaluate("reported(1, 1)")
        page.evaluate("reported(2, 2, { subject: 'NO-SUCH' })")
        page.evaluate("reported(3, 3)")
        page.context.set_offline(False)
        _wait_until_sent(page)
        (kept,) = page.evaluate("outbox.rejected()")

    assert [1, 3] == field.counts(device)
    assert 2 == kept["event"]["data"]["persons"][0]["count"]
    assert "unknown-operation" == kept["problem"]["code"]


def test_a_rejected_one_that_is_corrected_is_a_report_of_its_own(field: Field, device: str) -> None:
    with field.phone(device) as page:
        page.evaluate("reported(2, 2, { subject: 'NO-SUCH' })")
        _wait_until_sent(page)
        (kept,) = page.evaluate("outbox.rejected()")
        page.evaluate("([id, data]) => outbox.amend(id, data, { subject: '' })", [kept["id"], kept["event"]["data"]])
        _wait_until_sent(page)
        assert 0 == _number(page, "rejected")

    (event,) = field.events(device)
    assert kept["id"] != event["id"]
    assert "amends" not in event


def test_a_rejected_one_whose_first_answer_was_lost_is_amended_and_counts_once(field: Field, device: str) -> None:
    """It is in the log, though the last answer says no: its operation may have changed in between."""

    def reject(route: Route) -> None:
        problem = {"code": "unknown-section", "title": "The operation has no such section", "detail": ""}
        results = [{"id": ident, "status": "rejected", "problem": problem} for ident in _ids(route.request)]
        _answer(202, json.dumps({"results": results}), "application/json")(route)

    with field.phone(device) as page:
        _answers(page, _take_and_cut, reject)
        (ident,) = page.evaluate("reported(1, 1)")
        wait_for(lambda: _number(page, "rejected"), what="the second answer")
        data = {"section": "koper", "persons": [{"citizenship": "SYR", "count": 7}]}
        page.evaluate("([id, data]) => outbox.amend(id, data)", [ident, data])
        _wait_until_sent(page)
        assert 0 == _number(page, "rejected")

    assert [(ident, 1)] == [(event["amends"], event["revision"]) for event in field.events(device)[1:]]
    assert 7 == field.tallied(device, "persons")
    assert 1 == field.tallied(device, "apprehensions")


_NO_SUCH: Final = "reported(1, 1, { subject: 'NO-SUCH' })"


def _the_rejected(page: Page) -> dict[str, Any]:
    wait_for(lambda: _number(page, "rejected"), what="the rejection")
    (kept,) = page.evaluate("outbox.rejected()")
    return dict(kept)


def test_what_never_left_the_device_is_let_go_when_it_is_rejected_and_taken_back(field: Field, device: str) -> None:
    """Offline it is not even tried, so there is nothing to ask the gateway; which would not answer."""
    with field.phone(device) as page:
        wait_for(lambda: _status(page)["known"], what="the first look")
        requests = _answers(page)
        page.route("**/v1/devices/me", lambda route: route.abort("connectionreset"))
        page.context.set_offline(True)
        page.evaluate(_NO_SUCH)
        for _ in range(3):
            page.evaluate("outbox.flush()")
        assert _status(page).get("pause") is None
        page.context.set_offline(False)
        kept = _the_rejected(page)
        assert (False, 1) == (kept["mayBeLogged"], len(requests))
        page.evaluate("id => outbox.withdraw(id, 'data-entry-error')", kept["id"])
        assert (0, 0) == (_number(page, "rejected"), _number(page, "pending"))

    assert [] == field.entries(device)


def test_what_the_log_has_not_got_is_let_go_once_the_gateway_was_asked(field: Field, device: str) -> None:
    with field.phone(device) as page:
        wait_for(lambda: _status(page)["known"], what="the first look")
        _answers(page, *[lambda route: route.abort("connectionreset")] * 2)
        page.evaluate(_NO_SUCH)
        wait_for(lambda: _the_rejected(page)["mayBeLogged"] is False, what="the gateway's word on it")
        page.evaluate("id => outbox.withdraw(id, 'data-entry-error')", _the_rejected(page)["id"])
        assert (0, 0) == (_number(page, "rejected"), _number(page, "pending"))

    assert [] == field.entries(device)


def test_the_page_offers_to_discard_only_what_is_not_in_the_log(field: Field, device: str) -> None:
    def conflict(route: Route) -> None:
        problem = {"code": "conflict", "title": "This report is in the log with other content", "detail": ""}
        results = [{"id": ident, "status": "conflict", "problem": problem} for ident in _ids(route.request)]
        _answer(202, json.dumps({"results": results}), "application/json")(route)

    with field.context() as context:
        page = context.new_page()
        page.goto(field.origin)
        page.get_by_label("Enrolment link").fill(field.link(device))
        page.get_by_role("button", name="Join").click()
        page.get_by_text("Everything is sent").wait_for()
        page.route(EVENTS, conflict)
        _report_on_the_form(page, 1)
        page.locator("#rejected").get_by_role("button", name="Take back").wait_for()
        page.unroute(EVENTS)
        page.get_by_label("Operation").fill("NO-SUCH")
        _report_on_the_form(page, 2)
        page.locator("#rejected").get_by_role("button", name="Discard").wait_for()


_MALFORMED: Final = json.dumps({"code": "malformed-request", "title": "The request cannot be read", "retryable": False})


@pytest.mark.parametrize(
    "refusal",
    [
        _answer(413, "<html>413 Request Entity Too Large</html>", "text/html"),
        _answer(400, _MALFORMED, "application/problem+json"),
        _answer(500, "", "text/plain"),
    ],
    ids=("a proxy's 413", "400", "500"),
)
def test_one_that_is_refused_without_being_named_stays_and_the_rest_go_on(
    field: Field, device: str, refusal: Callable[[Route], None]
) -> None:
    with field.phone(device) as page:
        page.context.set_offline(True)
        ids = page.evaluate("reported(1, 9)")

        def treat(route: Route) -> None:
            (refusal if ids[3] in _ids(route.request) else Route.continue_)(route)

        page.route(EVENTS, treat)
        page.context.set_offline(False)
        wait_for(lambda: _number(page, "pending") == 1, what="the others to be sent")
        assert 0 == _number(page, "rejected")
        assert [1, 2, 3, 5, 6, 7, 8, 9] == sorted(field.counts(device))
        page.unroute(EVENTS)
        _wait_until_sent(page)

    assert list(range(1, 10)) == sorted(field.counts(device))


def test_a_batch_that_a_proxy_finds_too_long_is_halved_until_it_passes(field: Field, device: str) -> None:
    with field.phone(device) as page:
        page.context.set_offline(True)
        page.evaluate("reported(1, 40)")
        too_long = _answer(413, "<html>413 Request Entity Too Large</html>", "text/html")
        sizes = []

        def treat(route: Route) -> None:
            sizes.append(len(_ids(route.request)))
            (too_long if sizes[-1] > 10 else Route.continue_)(route)

        page.route(EVENTS, treat)
        page.context.set_offline(False)
        _wait_until_sent(page)

    assert [40, 20, 10] == sizes[:3]
    assert list(range(1, 41)) == field.counts(device)


def test_a_single_one_that_is_too_large_is_rejected_on_the_gateways_word(field: Field, device: str) -> None:
    problem = json.dumps({"code": "too-large", "title": "Too long to be taken", "detail": "", "retryable": False})
    with field.phone(device) as page:
        page.context.set_offline(True)
        ids = page.evaluate("reported(1, 3)")

        def treat(route: Route) -> None:
            too_large = _answer(413, problem, "application/problem+json")
            (too_large if ids[1] in _ids(route.request) else Route.continue_)(route)

        page.route(EVENTS, treat)
        page.context.set_offline(False)
        _wait_until_sent(page)
        assert ("too-large", ids[1]) == (_the_rejected(page)["problem"]["code"], _the_rejected(page)["id"])

    assert [1, 3] == field.counts(device)


def test_a_look_that_fails_is_made_again(field: Field, device: str) -> None:
    with field.context() as context:
        asked: list[Route] = []

        def treat(route: Route) -> None:
            asked.append(route)
            (_answer(503, "{}", "application/json") if len(asked) == 1 else Route.continue_)(route)

        context.route("**/v1/devices/me", treat)
        page = field.tab(context, field.link(device))
        wait_for(lambda: _status(page)["known"], what="the second look")


def test_a_text_that_no_gateway_can_read_spoils_no_other_report(field: Field, device: str) -> None:
    """One that is no Unicode: the client writes it so that it can be read, and refused by its id."""
    with field.phone(device) as page:
        page.context.set_offline(True)
        page.evaluate("reported(1, 2)")
        page.evaluate("reported(3, 3, { subject: '\\ud800' })")
        page.evaluate("reported(4, 5)")
        page.context.set_offline(False)
        _wait_until_sent(page)
        (kept,) = page.evaluate("outbox.rejected()")

    assert [1, 2, 4, 5] == field.counts(device)
    assert 3 == kept["event"]["reportno"]


def test_a_report_that_was_amended_or_taken_back_counts_as_it_is_now(field: Field, device: str) -> None:
    """Also when all of it was done before anything was sent."""
    with field.phone(device) as page:
        page.context.set_offline(True)
        amended, withdrawn, _ = page.evaluate("reported(1, 3)")
        data = {"section": "koper", "persons": [{"citizenship": "AFG", "count": 40}]}
        page.evaluate("([id, data]) => outbox.amend(id, data)", [amended, data])
        page.evaluate("(id) => outbox.withdraw(id, 'duplicate')", withdrawn)
        page.context.set_offline(False)
        _wait_until_sent(page)
        data["persons"] = [{"citizenship": "AFG", "count": 50}]
        page.evaluate("([id, data]) => outbox.amend(id, data)", [amended, data])
        _wait_until_sent(page)
        assert 0 == _number(page, "rejected")

    assert [0, 0, 0, 1, 1, 2] == [event.get("revision", 0) for event in field.events(device)]
    assert 2 == field.tallied(device, "apprehensions")
    assert 50 + 3 == field.tallied(device, "persons")


# --- more than one of it ---


def test_two_tabs_send_each_report_once_and_in_order(field: Field, device: str) -> None:
    with field.context() as context:
        sent: Counter[str] = Counter()
        context.on("requestfinished", lambda request: sent.update(_ids(request) if request.method == "POST" else []))
        first = field.tab(context, field.link(device))
        second = field.tab(context)
        context.set_offline(True)
        ids = first.evaluate("reported(1, 60)") + second.evaluate("reported(61, 120)")
        context.set_offline(False)
        for tab in (first, second):
            ids += tab.evaluate("reported(1, 5)")
        _wait_until_sent(first)
        _wait_until_sent(second)
        wait_for(lambda: Counter(ids) == sent, what="the browser to have told of each request, and each report of one")

    assert list(range(1, 131)) == [event["reportno"] for event in field.events(device)]


def test_a_restored_copy_goes_on_above_the_numbers_used_and_loses_and_doubles_nothing(
    field: Field, device: str
) -> None:
    with field.phone(device) as page:
        page.evaluate("reported(1, 2)")
        _wait_until_sent(page)
        page.context.set_offline(True)
        page.evaluate("reported(3, 3)")
        copy = page.evaluate(_COPY)
        page.context.set_offline(False)
        page.evaluate("reported(4, 5)")
        _wait_until_sent(page)
    with field.context() as context:
        page = field.tab(context)
        page.evaluate(_RESTORE, copy)
        page.reload()
        page.evaluate(_OPEN)
        assert {"from": 4, "to": 5} == _used(page)
        page.evaluate("reported(6, 6)")
        _wait_until_sent(page)

    assert [1, 2, 3, 4, 5, 6] == field.counts(device)
    assert [1, 2, 3, 4, 5, 6] == [event["reportno"] for event in field.events(device)]


@pytest.mark.parametrize("followed", [False, True], ids=("in the log", "followed once"))
def test_no_number_in_the_log_stops_a_report(field: Field, device: str, followed: bool) -> None:  # noqa: FBT001
    standing = {"side": "SI", "unit": "SI-MP-07", "device": device, "highest": 10**12, "missing": [[3, 10**12 - 1]]}
    with field.context() as context:
        context.route("**/v1/devices/me", _answer(200, json.dumps(standing), "application/json"))
        page = field.tab(context, field.link(device))
        wait_for(lambda: _status(page)["strange"], what="the number in the log")
        if followed:
            this_device, reports = page.evaluate(_COPY)
            page.evaluate(_RESTORE, [this_device | {"next": 10**12 + 1}, reports])
        page.evaluate("reported(1, 2)")
        _wait_until_sent(page)

    first = 1 if followed else 3
    assert [first, first + 1] == [event["reportno"] for event in field.events(device)]


def test_the_page_says_what_a_restored_copy_means_until_it_is_read(field: Field, device: str) -> None:
    with field.phone(device) as page:
        page.evaluate("reported(1, 2)")
        _wait_until_sent(page)
    with field.context() as context:
        page = context.new_page()
        page.goto(field.origin)
        page.get_by_label("Enrolment link").fill(field.link(device))
        page.get_by_role("button", name="Join").click()
        page.get_by_text("with the numbers 1 to 2").wait_for()
        page.get_by_role("button", name="I have read this").click()
        page.get_by_text("with the numbers 1 to 2").wait_for(state="hidden")
        page.reload()
        page.get_by_text("Everything is sent").wait_for()
        assert page.locator("#notice").is_hidden()


def test_a_device_that_is_installed_again_goes_on_above_the_numbers_used(field: Field, device: str) -> None:
    with field.phone(device) as page:
        page.evaluate("reported(1, 2)")
        _wait_until_sent(page)
    with field.phone(device) as page:
        assert {"from": 1, "to": 2} == _used(page)
        page.evaluate("reported(3, 3)")
        _wait_until_sent(page)

    assert [1, 2, 3] == [event["reportno"] for event in field.events(device)]


# --- what it writes ---


def test_a_report_has_an_id_that_sorts_by_time_and_the_offset_of_the_devices_clock(field: Field, device: str) -> None:
    with field.context(timezone_id="America/St_Johns") as context:
        page = field.tab(context, field.link(device))
        page.evaluate("reported(1, 2, { time: new Date('2025-01-14T03:12:09Z') })")
        _wait_until_sent(page)

    first, second = field.events(device)
    assert "2025-01-13T23:42:09-03:30" == first["time"]
    assert {7} == {UUID(event["id"]).version for event in (first, second)}
    assert [first["id"][:8]] == [second["id"][:8]]
