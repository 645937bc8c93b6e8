"""The screen in a real Chromium: `pages.py watch|paint|size ADDRESS TOKEN [SAMPLES]` prints what it finds, as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page

from services.control_room.sessions import COOKIE
from tests.browsers import chromium
from tests.waiting import wait_for

WALL = {"width": 1920, "height": 1080}
DIGITS = '#figures [data-measure="persons"] [data-side=""] b'
LIVE = 'body[data-state="live"]'

# A frame's message comes after it has been drawn: it is then that somebody can see the digits.
NOTE_CHANGES = """(selector) => {
    const place = document.querySelector(selector);
    const digits = () => Number(place.textContent.replace(/\\D/g, ""));
    window.seen = [];
    new MutationObserver(() => {
        const [channel, shown] = [new MessageChannel(), digits()];
        channel.port1.onmessage = () => seen.push([performance.timeOrigin + performance.now(), shown]);
        channel.port2.postMessage(null);
    }).observe(place, {childList: true, characterData: true, subtree: true});
    return digits();
}"""
NOTE_FIRST_NUMBERS = """new MutationObserver((_, observer) => {
    if (!/\\d/.test(document.querySelector("#figures b")?.textContent)) return;
    window.numbersAt = performance.now();
    observer.disconnect();
}).observe(document, {childList: true, subtree: true})"""
FIRST_PAINT = 'performance.getEntriesByName("first-contentful-paint")[0]?.startTime'


def watch(browser: Browser, address: str, token: str) -> None:
    """Print the digits, wait for those that a line of the input says, and print when which were there."""
    with opened(browser, address, token) as page:
        page.goto(f"{address}/?kiosk=1&lang=sl")
        page.wait_for_selector(LIVE)
        print(page.evaluate(NOTE_CHANGES, DIGITS), flush=True)
        goal = sys.stdin.readline()
        wait_for(lambda: page.evaluate(f"seen.at(-1)?.[1] === {goal}"), what="all digits on the page")
        ahead = max(ahead_s(page) for _ in range(20))
        print(json.dumps([(at_ms / 1e3 - ahead, shown) for at_ms, shown in page.evaluate("seen")]), flush=True)


def ahead_s(page: Page) -> float:
    """Return by how much the page's clock is at least ahead of that of this process."""
    at_ms: float = page.evaluate("performance.timeOrigin + performance.now()")
    return at_ms / 1e3 - time.time()


def paint(browser: Browser, address: str, token: str, samples: str) -> None:
    """Print for each new browser context when it first painted something and when the numbers stood, in ms."""
    found = []
    for _ in range(int(samples) + 1):
        with opened(browser, address, token) as page:
            page.add_init_script(NOTE_FIRST_NUMBERS)
            page.goto(f"{address}/?kiosk=1&lang=sl")
            page.wait_for_selector(LIVE)
            first_ms = wait_for(lambda page=page: page.evaluate(FIRST_PAINT), what="the first paint")
            found.append((first_ms, page.evaluate("numbersAt")))
    print(json.dumps(found[1:]), flush=True)  # the first one finds a browser that has just been started


def size(browser: Browser, address: str, token: str) -> None:
    """Print how many bytes each file was that the page loads, by its name."""
    with opened(browser, address, token) as page:
        names: dict[str, str] = {}
        sizes: Counter[str] = Counter()
        network = page.context.new_cdp_session(page)
        network.send("Network.enable")
        network.on("Network.requestWillBeSent", lambda sent: names.update({sent["requestId"]: sent["request"]["url"]}))
        network.on("Network.loadingFinished", lambda got: sizes.update({got["requestId"]: got["encodedDataLength"]}))
        page.goto(f"{address}/?kiosk=1&lang=sl")
        page.wait_for_selector(LIVE)
        page.wait_for_load_state()
        found: Counter[str] = Counter()
        for request, length in sizes.items():
            found[urlsplit(names[request]).path] += length
    print(json.dumps(dict(found.most_common())), flush=True)


@contextmanager
def opened(browser: Browser, address: str, token: str) -> Iterator[Page]:
    """Yield a page of somebody who is logged in, in a browser that has seen nothing yet."""
    context = browser.new_context(viewport=WALL)
    try:
        context.add_cookies([{"name": COOKIE, "value": token, "url": address}])
        yield context.new_page()
    finally:
        context.close()


PROGRAMS: dict[str, Callable[..., Any]] = {"watch": watch, "paint": paint, "size": size}

if __name__ == "__main__":
    with chromium() as installed:
        browser = installed.kind.launch(**installed.options)
        try:
            PROGRAMS[sys.argv[1]](browser, *sys.argv[2:])
        finally:
            browser.close()
