"""`parked list` and `parked show`: what was set aside, why in words, and whether it was put back."""

from __future__ import annotations

from typing import Any, Final

import click

from schemas.tallies import Parked, Requeued
from schemas.vocabulary import ParkedReason, Position, Side
from services.cli.command import command, group, run_async, settings
from services.cli.output import Format, format_option, note, print_records, printable
from services.cli.requeue import requeue, requeued_of
from services.cli.server import SideStore, side_stores
from services.runtime.errors import UsageError
from services.store.contract import Entry
from services.tally.fold import BY_FIELD, EVENT_FIELD

COLUMNS: Final = ("side", "position", "reason", "detail")

IN_WORDS: Final[dict[ParkedReason, str]] = {
    "malformed": "The entry breaks a rule of its event type, so it cannot be counted.",
    "unknown-type": "The entry is of a type that this program does not know: not counted rather than guessed.",
    "wrong-side": "The entry stands in the log of a side that it does not belong to.",
    "conflict": "The log already holds this report, at the same revision, with other content; the first one stands.",
}

UNCOUNTED: Final = (
    "nothing is counted here yet, and so nothing parked; `fieldtally project` does that, and where only a copy of the "
    'archive is, `fieldtally sql "SELECT * FROM parked"` shows what it would set aside'
)


@group("parked", "parked list", "parked show 1710385929000-0")
def parked() -> None:
    """See which entries could not be counted, and put them back.

    They are set aside with a reason; none is ever dropped.
    """


@command("list", "parked list", "parked list --format json")
@format_option()
def list_parked(output_format: Format) -> None:
    """Print every parked entry.

    Of one that was requeued, also by whom, why and when, and where it stands now.
    """
    rows, uncounted = run_async(_all())
    columns = (*COLUMNS, "requeued") if any("requeued" in row for row in rows) else COLUMNS
    if output_format in ("table", "csv"):
        rows = [row | {"requeued": in_words(row["requeued"])} if "requeued" in row else row for row in rows]
    print_records(rows, columns, output_format, "parked entries")
    for one in uncounted:
        note(f"side {one}: {UNCOUNTED}")


@command("show", "parked show 1710385929000-0", "parked show 1710385929000-0 --side SI")
@click.argument("position")
@click.option("--side", metavar="SIDE", help="The side, where both have an entry at that position.")
def show_parked(position: str, side: str | None) -> None:
    """Print why an entry was parked, and what it holds."""
    found = run_async(_one(position, side))
    if not found:
        where = f"at {position!r}" if side is None else f"at {position!r} of side {side}"
        raise UsageError(f"no entry is parked {where}; `fieldtally parked list` shows those that are")
    for side_store, parked_entry, entry, requeued in found:
        print(f"{side_store.side.side} {position}: {parked_entry.reason}")
        print(f"  {IN_WORDS[parked_entry.reason]}")
        print(f"  {printable(parked_entry.detail)}")
        print(f"  digest of its bytes (BLAKE2b-128): {parked_entry.digest}")
        if requeued:
            print(f"  requeued: {printable(in_words(requeued))}")
        if entry is None:
            print("  the entry itself is no longer in the log")
        else:
            # Whatever stands there is untrusted: escaped, so that it cannot steer the terminal.
            by, event = entry.fields.get(BY_FIELD), entry.fields.get(EVENT_FIELD, b"")
            print(f"  written by: {ascii(by.decode(errors='replace')) if by else 'not recorded'}")
            print(f"  content: {event.decode(errors='replace')!a}")
            for name, value in entry.fields.items():
                if name not in (EVENT_FIELD, BY_FIELD):
                    print(f"  also a field {name.decode(errors='replace')!a}: {value.decode(errors='replace')!a}")


parked.add_command(list_parked)
parked.add_command(show_parked)
parked.add_command(requeue)


def in_words(requeued: Requeued) -> str:
    """Say where an entry was put back, when, by whom and why."""
    where = f"{requeued.side} {requeued.position or 'after ' + requeued.after}"
    return f"{where}, {requeued.at:%Y-%m-%dT%H:%M:%SZ} by {requeued.by.rpartition('/')[2]}: {requeued.because}"


async def _all() -> tuple[list[dict[str, Any]], list[Side]]:
    async with side_stores(settings(), reading=True) as stores:
        requeued = await requeued_of(stores)
        rows = [
            {"side": store.side.side, "position": position, "reason": entry.reason, "detail": entry.detail}
            | ({"requeued": requeued[at]} if (at := (store.side.side, position)) in requeued else {})
            for store in stores
            for position, entry in (await store.store.parked()).items()
        ]
        return rows, [store.side.side for store in stores if await _uncounted(store)]


async def _uncounted(store: SideStore) -> bool:
    """Tell whether the projector, which sets entries aside, has never run here though there is a log."""
    live = await store.generations.look(await store.generations.live())
    return live.position is None and bool((await store.log.extent()).entries)


async def _one(position: str, side: str | None) -> list[tuple[SideStore, Parked, Entry | None, Requeued | None]]:
    chosen = settings()
    if side is not None:
        chosen.side(side)
    found = []
    async with side_stores(chosen, reading=True) as stores:
        requeued = await requeued_of(stores)
        at = Position(position)
        for store in stores:
            entry = (await store.store.parked()).get(at)
            if entry and side in (None, store.side.side):
                found.append((store, entry, (await store.log.read_at([at]))[0], requeued.get((store.side.side, at))))
    return found
