"""`make screenshots`: pictures of the screen for the README, from a real run of the joint operation of March 2024.

A real log, projector, control room and browser; only the clocks stand still, in the evening of the operation's second
day, so that two runs make the same pictures.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from schemas.screen import AuditShown  # noqa: E402
from services.simulator.fleet import Submission  # noqa: E402
from services.simulator.joint_operation import OPERATION, joint_operation  # noqa: E402
from tests import oracle  # noqa: E402
from tests.projectors import ZONES  # noqa: E402
from tests.screens import SECTIONS, Screen, Wall, Walls, running_wall, stopped  # noqa: E402
from tests.stopped_clock import AT  # noqa: E402

FOLDER: Final = ROOT / "docs" / "screenshots"
AUDITED: Final = AT - timedelta(minutes=17)
LATEST: Final = 3  # reports that come while the screen is looked at
BYTES_MAX: Final = 200_000
WALL: Final[dict[str, Any]] = {"viewport": {"width": 1920, "height": 1080}, "device_scale_factor": 3 / 5}
PHONE: Final[dict[str, Any]] = {"viewport": {"width": 390, "height": 844}}


def main() -> None:
    """Write the pictures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with ExitStack() as users:
        folder = Path(users.enter_context(tempfile.TemporaryDirectory(prefix="fieldtally-pictures-")))
        walls = users.enter_context(running_wall(folder, "tests.stopped_clock"))
        submissions = [one for one in joint_operation() if one.arrives <= AT]
        write(walls.wall, (one for one in submissions[:-LATEST] if one.arrives <= AUDITED))
        note_audit(walls.wall, AUDITED)
        write(walls.wall, (one for one in submissions[:-LATEST] if one.arrives > AUDITED))
        with walls.screen(color_scheme="dark", **WALL) as screen:
            opened(screen, "kiosk=1&theme=dark")
            write(walls.wall, submissions[-LATEST:])
            caught_up(screen)
            take(screen, "wall")
            screen.page.keyboard.press("Space")
            screen.page.clock.fast_forward("01:00")
            caught_up(screen)
            take(screen, "frozen")
        picture(walls, "phone", PHONE, "theme=dark", caught_up)
        picture(walls, "lost", WALL, "kiosk=1&theme=dark", lost)


def picture(walls: Walls, name: str, size: dict[str, Any], view: str, until: Callable[[Screen], None]) -> None:
    """Take a picture of a view."""
    with walls.screen(color_scheme="dark", may_fail=True, **size) as screen:
        opened(screen, view)
        with stopped(*([walls.wall.room.pid] if until is lost else [])):
            until(screen)
            take(screen, name)


def write(wall: Wall, submissions: Iterable[Submission]) -> None:
    """Append submissions to the logs as they arrived, and let them be counted."""
    for one in submissions:
        arrived = int(one.arrives.timestamp() * 1_000)
        wall.client.xadd(wall.key(one.side, "log"), {"event": one.event}, f"{arrived}-*")
    wall.wait_until_counted()


def note_audit(wall: Wall, at: datetime) -> None:
    """Let the oracle rebuild the logs, and note that it agrees with what is stored."""
    tallies = wall.tallies()
    for side in SECTIONS:
        rebuilt = oracle.count(side, ZONES[side], wall.log(side)).tallies
        assert rebuilt == {cell: number for cell, number in tallies.items() if cell.startswith(f"{side}|")}
        audit = AuditShown(wall.position(side), oracle.digest(rebuilt), at)
        wall.client.set(wall.key(side, "audit"), msgspec.json.encode(audit))


def opened(screen: Screen, view: str) -> None:
    """Open a view on a machine whose clock stands still once the page is live."""
    screen.page.clock.install(time=AT)
    screen.open(f"?operation={OPERATION}&lang=en&{view}")
    screen.page.clock.pause_at(AT + timedelta(seconds=6))


def caught_up(screen: Screen) -> None:
    """Wait until the page is live and shows everything that is stored: numbers, digest and the devices heard last."""
    digest = oracle.digest(screen.wall.tallies())
    latest = screen.wall.position("SI")
    heard = datetime.fromtimestamp(int(latest.partition("-")[0]) / 1_000, tz=ZoneInfo(ZONES["SI"]))
    while not (
        screen.state == "live"
        and screen.text("#age") == "0 s"
        and latest in screen.text("#asof")
        and digest == screen.page.locator("#digest details > code").text_content()
        and "computed here too" in screen.text("#digest")
        and f"{heard:%H:%M}" in (screen.page.locator("#devices").text_content() or "")
        and "heard 1 min ago" in screen.text("#figures thead")
    ):
        screen.page.clock.run_for(20)


def lost(screen: Screen) -> None:
    """Let the page hear nothing for four minutes."""
    while screen.text("#age") != "4 min":
        screen.page.clock.run_for(1_000)


def take(screen: Screen, name: str) -> None:
    """Write a picture, and say so."""
    path = FOLDER / f"{name}.png"
    screen.page.screenshot(path=path, animations="disabled")
    size = path.stat().st_size
    assert size <= BYTES_MAX, f"{path.name} has {size:,} bytes, more than {BYTES_MAX:,}"
    print(f"{path.relative_to(ROOT)}  {size:,} bytes")  # noqa: T201  # it says what it has done


if __name__ == "__main__":
    main()
