"""The control-room screen in a real browser, with everything behind it real: a wall, and screens that show it.

A wall is a Valkey, a projector, a gateway and a control room, each a process that may be stopped or killed. Tests share
one and do not get into each other's way: each works in an operation of its own.
"""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response

from schemas.principals import Role
from schemas.vocabulary import Position
from services.store.principals import token_digest
from tests import given, oracle
from tests.browsers import chromium
from tests.drills import OwnGateway, _unused_port
from tests.gateways import Sender, enrolled, recently
from tests.projectors import Cradle, Forked, environment, log_of
from tests.servers import OwnServer
from tests.waiting import wait_for

PREFIX: Final = "wall"
SIDES: Final = "SI:Europe/Ljubljana:SVN,HR:Europe/Zagreb:HRV"
SECTIONS: Final = {"SI": "koper", "HR": "rijeka"}
MEASURES: Final = ("persons", "smugglers", "smuggling_cases", "smuggled_persons", "remanded")
AWAY: Final = "Failed to load resource"
"""What Chromium itself says of a request that fails: what a test expects that takes something away."""

_WATCH: Final = """
document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
    console.error(`policy violated: ${violatedDirective} ${blockedURI}`));
addEventListener("DOMContentLoaded", () => {
    globalThis.states = [document.body?.dataset.state];
    new MutationObserver(() => states.push(document.body.dataset.state))
        .observe(document.body, { attributes: true, attributeFilter: ["data-state"] });
});
"""


class Wall:
    """Everything behind the screens."""

    def __init__(self, folder: Path, cradle: Cradle, users: ExitStack) -> None:
        self.server = OwnServer(folder / "server", users)
        self.client = users.enter_context(self.server.client())
        self._folder, self._cradle, self._users = folder, cradle, users
        self._environ = environment(self.server.url, PREFIX, SIDES) | {"FIELDTALLY_RATE_LIMIT": "100000"}
        self._numbers = count(1)
        self._said = count()
        self._senders: dict[tuple[str, Role], Sender] = {}
        self._port = _unused_port()
        self.projector = self._program("project", "projector_started")
        self.gateway = OwnGateway(cradle, folder, self._environ)
        users.callback(self.gateway.end)
        self.start_room()
        self._looker = users.enter_context(Sender(self.address, self.viewer()))

    def start_room(self) -> None:
        """Start the control room, or start it again at the same address."""
        self.room = self._program("control-room", "control_room_started")

    def kill_room(self) -> None:
        """End the control room as the kernel does; return when it is gone."""
        self.room.send(signal.SIGKILL)
        self.room.wait()

    def start_projector(self) -> None:
        """Start a projector once the one before has ended."""
        self.projector = self._program("project", "projector_started")

    def rebuild(self) -> None:
        """Make the live tallies anew from the logs, beside everything that runs."""
        rebuilt = Forked(self._cradle, ["rebuild", "--swap", "--drop"], self._folder / "rebuild", self._environ)
        self._users.callback(rebuilt.end)
        assert rebuilt.wait() == 0, rebuilt.text

    def mend(self) -> None:
        """Start what a test that failed has left ended."""
        if self.projector.poll() is not None:
            self.start_projector()
        if self.room.poll() is not None:
            self.start_room()

    def _program(self, command: str, started: str) -> Forked:
        said = self._folder / f"{command}-{next(self._said)}"
        environ = {**self._environ, "FIELDTALLY_SCREEN_PORT": str(self._port)}
        program = Forked(self._cradle, [command], said, environ)
        self._users.callback(program.end)
        wait_for(lambda: program.named(started) or program.poll() is not None, what=f"{command} to start")
        assert program.poll() is None, program.text
        return program

    @property
    def address(self) -> str:
        """Where the screen is."""
        return f"http://127.0.0.1:{self._port}"

    # What is reported

    def operation(self, code: str | None = None, name: str | None = None) -> str:
        """Open an operation of both sides that runs today; return its code."""
        number = next(self._numbers)
        operation = code or f"OP-{number}"
        today = datetime.now(UTC).date()
        for side, section in SECTIONS.items():
            opened = given.operation_opened(
                name=name or f"Plan {number}",
                starts=str(today - timedelta(days=1)),
                ends=str(today + timedelta(days=1)),
                sections={section: "joint"},
                **self._head(side, operation, unit=f"{side}-DESK"),
            )
            self.post(opened, side=side, role="desk")
        wait_for(lambda: self._knows(operation), what=f"the room to know {operation}")
        return operation

    def _knows(self, operation: str) -> bool:
        sides = self._looker.ask("GET", "/api/tallies").json()["sides"]
        return all(operation in [plan["operation"] for plan in side["operations"]] for side in sides)

    def apprehended(self, operation: str, side: str = "SI", persons: Mapping[str, int] | None = None) -> int:
        """Report persons apprehended; return the number of the report."""
        head = self._head(side, operation)
        self.post(given.apprehension(section=SECTIONS[side], persons=persons, **head), side=side)
        return int(head["reportno"])

    def report(self, kind: str, operation: str, side: str = "SI", **content: Any) -> None:
        """Report anything else, named as its builder is."""
        self.post(getattr(given, kind)(**content, **self._head(side, operation)), side=side)

    def _head(self, side: str, operation: str, **more: Any) -> dict[str, Any]:
        number = next(self._numbers)
        head = {"id": number, "reportno": number, "side": side, "time": recently(minutes=1), **more}
        return head | ({"subject": operation} if operation else {})

    def post(self, event: bytes, side: str = "SI", role: Role = "unit") -> None:
        """Post a report to the gateway until it is recorded, as a device does."""
        if (side, role) not in self._senders:
            token = enrolled(self.client, PREFIX, role, side)
            self._senders[side, role] = self._users.enter_context(Sender(self.gateway.address, token))

        def answered() -> httpx.Response | None:
            answer = self._senders[side, role].one(event)
            return None if answer.status_code == 503 else answer

        answer = wait_for(answered, what="the gateway to take a report")
        assert answer is not None
        assert answer.status_code in (200, 201), answer.text

    def late_entry(self, side: str, late_s: int) -> None:
        """Append a report to a log as if it had been there for a while; nothing newer may be in it."""
        event = given.apprehension(section=SECTIONS[side], **self._head(side, ""))
        at = int((datetime.now(UTC) - timedelta(seconds=late_s)).timestamp() * 1_000)
        self.client.xadd(self.key(side, "log"), {"event": event}, f"{at}-0")

    def viewer(self, sides: str = "SI,HR") -> str:
        """Return a new token to look with."""
        return enrolled(self.client, PREFIX, "viewer", sides, unit="wall", device=f"v{next(self._numbers)}")

    def revoke(self, token: str) -> None:
        """Revoke a token, as `devices revoke` does."""
        key, digest = f"{PREFIX}:principals", token_digest(token)
        row: Any = self.client.hget(key, digest)
        self.client.hset(key, digest, row.replace(b'"active"', b'"revoked"'))

    # What is stored

    def key(self, side: str, name: str) -> str:
        """Return the name of a key of a side."""
        return f"{{{PREFIX}:{side}}}:{name}"

    def tallies(self) -> dict[str, int]:
        """Return the stored tallies of both sides."""
        found: dict[str, int] = {}
        for side in SECTIONS:
            rows: Any = self.client.hgetall(self.key(side, f"{self._live(side)}:tallies"))
            found |= {cell.decode(): int(number) for cell, number in rows.items()}
        return {cell: number for cell, number in found.items() if number}

    def log(self, side: str) -> list[tuple[str, dict[bytes, bytes]]]:
        """Return the entries of a side's log."""
        return log_of(self.client, PREFIX, side)

    def position(self, side: str) -> Position:
        """Return where the stored tallies of a side stand."""
        at: Any = self.client.hget(self.key(side, f"{self._live(side)}:checkpoint"), "position")
        return Position((at or b"0-0").decode())

    def _live(self, side: str) -> str:
        live: Any = self.client.get(self.key(side, "live"))
        return live.decode() if live else "g1"

    def wait_until_counted(self) -> None:
        """Wait until the stored tallies reach the end of each log."""

        def counted() -> bool:
            ends: list[Any] = [self.client.xrevrange(self.key(side, "log"), count=1) for side in SECTIONS]
            return all(
                not end or end[0][0].decode() == self.position(side) for side, end in zip(SECTIONS, ends, strict=True)
            )

        wait_for(counted, what="the projector to count everything")


class Screen:
    """One page, and everything that went wrong on it."""

    def __init__(self, wall: Wall, page: Page) -> None:
        self.wall = wall
        self.page = page
        self.faults: list[str] = []
        page.add_init_script(_WATCH)
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        self._linked = False
        for event, linked in (("response", True), ("requestfailed", False), ("requestfinished", False)):
            page.on(event, partial(self._passed, linked=linked))  # type: ignore[call-overload]

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(message.text)

    def _passed(self, what: Request | Response, *, linked: bool) -> None:
        if "/api/stream" in what.url:
            self._linked = linked

    @property
    def linked(self) -> bool:
        """Whether the page has a stream open."""
        assert self.state  # Playwright tells of what happened only while it is asked something
        return self._linked

    def open(self, query: str = "", state: str = "live") -> None:
        """Open a view, and wait until the page is in a state."""
        wait_for(lambda: self._answered(query), what="the page")
        self.wait_for_state(state)

    def _answered(self, query: str) -> bool:
        answer = self.page.goto(f"{self.wall.address}/{query}")
        return answer is not None and answer.status != 503  # as for a second after the store was away

    def wait_for_state(self, state: str) -> None:
        """Wait until the page says how things are."""
        try:
            wait_for(lambda: self.state == state, within_s=15, what=f"the screen to be {state}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {self.text('body')[:600]}; {self.faults}") from error

    @property
    def state(self) -> str:
        """How the page says things are."""
        return self.page.locator("body").get_attribute("data-state") or ""

    def text(self, selector: str) -> str:
        """Return the text of an element as it is seen, with single spaces."""
        return " ".join(self.page.locator(selector).inner_text().split())

    def number(self, measure: str = "persons", side: str = "") -> str:
        """Return a big number, as it stands there; the side "" is the total."""
        return self.page.locator(f'#figures [data-measure={measure}] td[data-side="{side}"] b').inner_text()

    def unit(self, measure: str = "persons", side: str = "") -> str:
        """Return the unit beside a big number."""
        return self.page.locator(f'#figures [data-measure={measure}] td[data-side="{side}"] .unit').inner_text()

    def wait_for_number(self, expected: str, measure: str = "persons", side: str = "") -> None:
        """Wait until a big number is this one."""
        wait_for(lambda: self.number(measure, side) == expected, what=f"{measure} of {side or 'all'} to be {expected}")

    def figures(self) -> dict[str, int]:
        """Return all big numbers that are not zero, by `measure side`."""
        shown: dict[str, str] = self.page.evaluate(
            """() => Object.fromEntries(Array.from(document.querySelectorAll("#figures td[data-side]"), (cell) =>
                [`${cell.parentElement.dataset.measure} ${cell.dataset.side}`, cell.querySelector("b").textContent]))"""
        )
        return {name: number for name, text in shown.items() if (number := int(re.sub(r"\D", "", text) or 0))}

    def agrees(self) -> bool:
        """Tell whether the page has the numbers, the digest and the positions of the stored tallies."""
        tallies = self.wall.tallies()
        return (
            self.figures() == sums(tallies)
            and oracle.digest(tallies) == self.page.locator("#digest details > code").text_content()
            and [self.wall.position(side) for side in SECTIONS] == self.page.locator("#asof a").all_inner_texts()
        )

    def wait_until_it_agrees(self) -> None:
        """Wait until the page is live and has the numbers of the stored tallies; a view of everything is open."""
        wait_for(
            lambda: self.state == "live" and self.agrees(), within_s=15, what="the numbers of the tallies, and LIVE"
        )

    def wait_for_the_link(self) -> None:
        """Let the page's time pass until it has a stream again: it pauses before each attempt."""

        def linked() -> bool:
            if not self.linked:
                self.page.clock.run_for(500)
            return self.linked

        wait_for(linked, within_s=15, what="the page to have a stream")

    def filtered(self, **fields: str) -> None:
        """Choose from the filters."""
        for name, value in fields.items():
            field = self.page.locator(f'#filters [name="{name}"]')
            if name in ("operation", "side"):
                field.select_option(value)
            else:
                field.fill(value)


def sums(tallies: Mapping[str, int]) -> dict[str, int]:
    """Add up tallies as the big numbers have them."""
    found: Counter[str] = Counter()
    for cell, number in tallies.items():
        side, _, _, _, measure, _ = cell.split("|")
        if measure in MEASURES:
            found[f"{measure} {side}"] += number
            found[f"{measure} "] += number
    return {name: number for name, number in found.items() if number}


class Walls:
    """A wall with the browser that looks at it."""

    def __init__(self, wall: Wall, browser: Browser) -> None:
        self.wall = wall
        self.browser = browser

    @contextmanager
    def screen(self, token: str | None = "", *, may_fail: bool = False, **options: Any) -> Iterator[Screen]:
        """Yield a screen that is logged in, with a viewer's token of its own if none is given; None is nobody's.

        Afterwards nothing may have gone wrong on the page; what may fail are requests, and only where that is said.
        """
        context = self.browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        try:
            if token is not None:
                log_in(context, self.wall, token or self.wall.viewer())
            screen = Screen(self.wall, context.new_page())
            yield screen
            faults = [fault for fault in screen.faults if not (may_fail and fault.startswith(AWAY))]
            assert not faults, faults
        finally:
            context.close()


def log_in(context: BrowserContext, wall: Wall, token: str) -> None:
    """Give a browser the cookie of a log-in."""
    context.add_cookies([{"name": "fieldtally_session", "value": token, "url": wall.address}])


@contextmanager
def running_wall(folder: Path, *changes: str) -> Iterator[Walls]:
    """Run a wall and a browser; `changes` are modules that change something in the wall's processes.

    Without a browser the test is skipped, as `tests.browsers` says.
    """
    with ExitStack() as users:
        installed = users.enter_context(chromium())
        modules = ("services.cli.control_room", "services.control_room.app", "services.gateway.app", "tests.quick")
        cradle = users.enter_context(Cradle(*modules, *changes))
        wall = Wall(folder, cradle, users)
        browser = installed.kind.launch(**installed.options)
        users.callback(browser.close)
        yield Walls(wall, browser)


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Stop processes as a machine that sleeps does, and let them go on afterwards."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def renderers() -> list[int]:
    """Return the processes of this test's browser that run pages."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            if b"--type=renderer" in command and os.getpid() in _ancestors(int(folder.name)):
                found.append(int(folder.name))
        except OSError:
            continue  # it has ended
    return found


def _ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        found.append(pid)
    return found
