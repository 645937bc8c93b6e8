"""`watch`: the control-room screen in a terminal, for a shell over ssh."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import click
import msgspec
from msgspec.structs import replace
from rich.console import Console
from rich.live import Live
from structlog.typing import FilteringBoundLogger

from schemas.screen import Snapshot
from services.cli.command import command, run_async, settings
from services.cli.gateway import told_to_end
from services.cli.output import Format, format_option, note
from services.cli.picture import Look, State, Sums, add_up, as_line, health, narrowed, picture
from services.cli.selectors import read_selection, read_value
from services.cli.server import kept_running, server_url
from services.control_room.book import joined_digest
from services.control_room.export import Filters
from services.control_room.feed import Feed
from services.control_room.room import RoomSide
from services.control_room.streams import write_id
from services.runtime.clock import now
from services.runtime.logging import set_up_logging
from services.runtime.settings import Settings, SideSettings
from services.store.connection import Client, check_server, connect
from services.store.glance import RedisGlance
from services.store.keys import PartitionKeys
from services.store.tally_store import RedisTallyStore
from services.store.whole_log import open_log
from services.tally.fold import FOLD_VERSION

TICK_S: Final = 1.0
REFRESH_S: Final = 0.25
"""Changes within so long are shown as one."""
FILE_WIDTH: Final = 120

Show = Callable[[Look], None]


@command(
    "watch",
    "watch",
    "watch --operation SI-HR-2024-03 --side SI",
    "watch --from 2024-03-13 --to 2024-03-15 --once",
    "watch --format json",
)
@click.option("--operation", metavar="NAME", help="Only this operation.")
@click.option("--side", "sides", metavar="SIDE", multiple=True, help="Only this side; may be repeated.")
@click.option("--from", "first_day", metavar="DATE", help="First day, included.")
@click.option("--to", "last_day", metavar="DATE", help="Last day, included.")
@click.option("--once", is_flag=True, help="Print it once, in full length, and end.")
@format_option("table", "json")
def watch(
    *,
    operation: str | None,
    sides: tuple[str, ...],
    first_day: str | None,
    last_day: str | None,
    once: bool,
    output_format: Format,
) -> None:
    """Show the control-room screen in the terminal.

    It fills the terminal and follows every change until Ctrl-C; off a terminal, each change is a line. As json, a line
    is the whole snapshot that the screen gets, written when anything in it but its clock has changed; the digest in it
    is over all cells of its sides, those included that --operation, --from and --to leave out. Exit code 3: the server
    cannot be reached at the start; later it is waited for.
    """
    chosen = settings()
    wanted = {chosen.side(name).side for name in sides}
    chosen = replace(chosen, sides=tuple(one for one in chosen.sides if not wanted or one.side in wanted))
    if operation is not None:
        read_value(chosen, "--", "operation", operation)
    period = read_selection(chosen, ("measure",), (), first_day, last_day)
    filters = Filters(operation=operation, first=period.first_day, last=period.last_day)
    logger = set_up_logging(chosen.log_format, "error")  # what is wrong is shown, and would be in the picture's way
    with told_to_end(), server_url(chosen) as url, kept_running(chosen, logger):
        run_async(_watch(chosen, url, filters, output_format, logger, once=once))


async def _watch(
    chosen: Settings, url: str, filters: Filters, output_format: Format, logger: FilteringBoundLogger, *, once: bool
) -> None:
    client = connect(url)
    try:
        await check_server(client, url)
        room = _Room([_side(side, chosen, client, url) for side in chosen.sides], filters)
        if once:
            for side in room.sides:
                await side.load()
            _show_once(room.look(), filters, output_format)
            return
        feed = Feed(url, chosen.prefix, room.sides, logger)
        try:
            await feed.start()
            with _showing(filters, output_format) as show:
                await _follow(room, show)
        finally:
            await feed.stop()
    finally:
        await client.aclose()


def _side(side: SideSettings, chosen: Settings, client: Client, url: str) -> RoomSide:
    keys = PartitionKeys(chosen.prefix, side.side)
    log = open_log(client, url, keys, chosen.archive_dir)
    return RoomSide(side, log, RedisTallyStore(client, url, keys), RedisGlance(client, url, keys), now)


async def _follow(room: _Room, show: Show) -> None:
    """Show the room for ever: soon after a change, and every second because of the ages."""
    changed = asyncio.Event()
    for side in room.sides:
        side.on_change = lambda _message, _after: changed.set()
        side.on_side = lambda _message: changed.set()
        side.on_reset = lambda _reason: changed.set()
    while True:
        changed.clear()
        show(room.look())
        await asyncio.sleep(REFRESH_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(TICK_S - REFRESH_S):
                await changed.wait()


class _Room:
    """The sides as one snapshot."""

    def __init__(self, sides: Sequence[RoomSide], filters: Filters) -> None:
        self.sides = sides
        self._filters = filters
        self._held: object = None
        self._digest = ""
        self._sums: Sums = {}

    def look(self) -> Look:
        """Return what there is to see now."""
        at = now()
        positions = {side.side.side: side.position for side in self.sides}
        held = [(side.generation, side.position) for side in self.sides]
        if held != self._held:
            self._digest = joined_digest([side.cells for side in self.sides])
        snapshot = Snapshot(
            view="live",
            now=at,
            id=write_id(positions, tuple(positions)),
            digest=self._digest,
            fold_version=FOLD_VERSION,
            sides=tuple(side.shown() for side in self.sides),
        )
        looked = min((side.looked for side in self.sides if side.looked), default=at)
        failures = {str(side.failure): side.failure for side in self.sides if side.failure}
        chosen = narrowed(snapshot, self._filters)
        if held != self._held:  # what takes long is done once for the same tallies
            self._held, self._sums = held, add_up(chosen)
        return Look(chosen, self._sums, health(snapshot, looked, failures.values()))


def _show_once(look: Look, filters: Filters, output_format: Format) -> None:
    if output_format == "json":
        _write(_json(look))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, FILE_WIDTH)
    with console.capture() as printed:
        console.print(picture(look, filters, console.width))
    _write("\n".join(line.rstrip() for line in printed.get().splitlines()))


@contextmanager
def _showing(filters: Filters, output_format: Format) -> Iterator[Show]:
    """Yield what shows each look: as a picture on a terminal that can have one, else as lines."""
    console = Console(highlight=False)
    if output_format == "json":
        yield _Lines(_json, _known)
    elif not console.is_terminal or console.is_dumb_terminal:
        yield _Lines(_line, as_line)
    else:
        with Live(
            console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        ) as live:
            yield lambda look: live.update(picture(look, filters, *console.size), refresh=True)


class _Lines:
    """Prints a line whenever there is something new to say, and on stderr what is wrong, once."""

    def __init__(self, line: Callable[[Look], str], news: Callable[[Look], object]) -> None:
        self._line = line
        self._news = news
        self._printed: object = None
        self._said: State = "LIVE"

    def __call__(self, look: Look) -> None:
        news = self._news(look)
        if news != self._printed:
            self._printed = news
            _write(self._line(look))
        state, _, causes = look.health
        if state != self._said:
            self._said = state
            note(f"{state}: {'; '.join(causes)}" if causes else state)


def _line(look: Look) -> str:
    return f"{look.snapshot.now:%Y-%m-%dT%H:%M:%SZ}   {as_line(look)}"


def _json(look: Look) -> str:
    return msgspec.json.encode(look.snapshot).decode()


def _known(look: Look) -> object:
    """Return what makes a snapshot another one than before: all in it that no clock moves."""
    return [
        (side.generation, side.position, side.entries, side.lag, side.heard, side.parked, side.operations, side.devices,
         side.audit)
        for side in look.snapshot.sides
    ]  # fmt: skip


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
