"""`events`: read the log, and follow it."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import click
import msgspec

from schemas.events import TYPE_PREFIX, Event
from schemas.vocabulary import START, Position, order
from services.cli.command import Whole, command, run_async, settings
from services.cli.output import Format, RecordWriter, format_option
from services.cli.selectors import ENDS, AsOf, read_as_of
from services.cli.server import SideStore, note_early, side_stores
from services.runtime.errors import UsageError
from services.runtime.settings import Settings
from services.store.contract import Entry
from services.store.loading import require_one_log
from services.tally.fold import BY_FIELD, EVENT_FIELD, arrive

COLUMNS: Final = ("position", "side", "type", "operation", "device", "no")
WIDTHS: Final = {"position": 17, "side": 4, "type": 17, "operation": 13, "device": 15, "no": -4}
CSV_COLUMNS: Final = ("position", "side", "type", "operation", "source", "reportno", "id", "problem", "event")
BATCH: Final = 1_000
WAIT_MS: Final = 200  # every side is waited for, so this is the longest that an entry stays unseen


@command(
    "events",
    "events --side SI --limit 20",
    "events --after 2024-03-14T12:00:00+01:00 --format csv",
    "events --after 2024-03-13 --as-of 2024-03-14",
    "events --follow --format ndjson",
)
@click.option("--side", metavar="SIDE", help="Only this side's log.")
@click.option(
    "--after",
    metavar="POSITION|TIME",
    help=f"Begin after this position or time of receipt. {ENDS} To see a day, begin after the day before it.",
)
@click.option("--as-of", "as_of", metavar="POSITION|TIME", help=f"End at this position or time of receipt. {ENDS}")
@click.option("--limit", type=Whole(min=1), metavar="N", help="End after so many entries.")
@click.option("--follow", is_flag=True, help="Go on with what comes in, until Ctrl-C.")
@format_option()
def events(
    *,
    side: str | None,
    after: str | None,
    as_of: str | None,
    limit: int | None,
    follow: bool,
    output_format: Format,
) -> None:
    """Print the log, all sides in the order of receipt.

    json, ndjson and csv have the whole events; an entry that is none has a `problem`.
    """
    chosen = settings()
    if follow and as_of is not None:
        raise UsageError("--as-of ends where --follow goes on: give one of them")
    start = read_as_of(chosen, after, "--after")
    end = read_as_of(chosen, as_of)
    if side is not None:
        chosen = msgspec.structs.replace(chosen, sides=(chosen.side(side),))
    run_async(_print(chosen, start, end, limit, output_format, follow=follow))


async def _print(
    chosen: Settings, start: AsOf, end: AsOf, limit: int | None, output_format: Format, *, follow: bool
) -> None:
    columns = CSV_COLUMNS if output_format == "csv" else COLUMNS
    async with side_stores(chosen, reading=True) as stores:
        for store in stores:
            require_one_log(store.side.side, await store.log.extent())
        await note_early(stores, end)
        at = {store.side.side: start.get(store.side.side, START) for store in stores}
        printed = 0
        with RecordWriter(columns, output_format, WIDTHS) as writer:
            while True:
                came = 0
                for side, entry in await _next(stores, at, end):
                    at[side.side.side] = entry.position
                    writer.write(_record(side, entry, output_format))
                    came += 1
                    printed += 1
                    if printed == limit:
                        return
                writer.flush()
                if not came and not follow:
                    if not printed and output_format == "table":
                        print("events: nothing")
                    return
                if not came:
                    await asyncio.gather(*(_wait(store, at[store.side.side]) for store in stores))


async def _wait(side_store: SideStore, position: Position) -> None:
    await side_store.log.read_after(position, 1, block_ms=WAIT_MS)


async def _next(stores: list[SideStore], at: AsOf, end: AsOf) -> list[tuple[SideStore, Entry]]:
    """Return the next entries of all sides in the order of receipt, up to where the slowest reading ends."""
    read = []
    for store in stores:
        side = store.side.side
        entries = await store.log.read_after(at[side], BATCH)
        if side in end:
            entries = [entry for entry in entries if order(entry.position) <= order(end[side])]
        read.append((store, entries))
    # Beyond the last position read of a side, another side's entries may come after this side's next ones.
    horizon = min((order(entries[-1].position) for _, entries in read if entries), default=None)
    merged = [
        (store, entry) for store, entries in read for entry in entries if horizon and order(entry.position) <= horizon
    ]
    return sorted(merged, key=lambda item: order(item[1].position))


def _record(side_store: SideStore, entry: Entry, output_format: Format) -> dict[str, Any]:
    arrival = arrive(entry.position, entry.fields)
    event, problem = arrival.event, str(arrival.fault or "")
    reason = arrival.fault.reason if arrival.fault else ""
    if event and event.side != side_store.side.side:
        reason, problem = "wrong-side", f"an event of side {event.side} in the log of {side_store.side.side}"
    # A direct write may have line breaks between its members, never within a text.
    raw = arrival.raw.replace(b"\n", b" ").replace(b"\r", b" ")
    record: dict[str, Any] = {"position": entry.position, "side": side_store.side.side}
    if output_format == "table":
        if event is None or problem:
            return record | {"type": f"({reason})"}
        device = event.source.removeprefix(f"/{event.side}/")
        kind = _type(event).partition(".")[0]
        return record | {"type": kind, "operation": event.subject, "device": device, "no": event.reportno}
    if output_format == "csv":
        if event is None:  # what it holds may be anything, and csv is printed as it is
            return record | {"problem": problem}
        names = {"type": _type(event), "operation": event.subject, "source": event.source}
        numbers = {"reportno": event.reportno, "id": str(event.id)}
        return record | names | numbers | {"problem": problem, "event": raw.decode()}
    if by := entry.fields.get(BY_FIELD):
        record["by"] = by.decode(errors="replace")
    if event is None:
        return record | {"problem": problem, "raw": entry.fields.get(EVENT_FIELD, b"").decode(errors="replace")}
    return record | ({"problem": problem} if problem else {}) | {"event": msgspec.Raw(raw)}


def _type(event: Event) -> str:
    return str(event.__struct_config__.tag).removeprefix(TYPE_PREFIX)
