"""`parked list` and `parked show`: what was set aside, and why in words."""

from __future__ import annotations

from typing import Any, Final

import click

from schemas.tallies import Parked
from schemas.vocabulary import ParkedReason, Position
from services.cli.command import command, group, run_async, settings
from services.cli.output import Format, format_option, print_records, printable
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


@group("parked", "parked list", "parked show 1710385929000-0")
def parked() -> None:
    """See which entries of the log could not be counted, and why.

    They are set aside with a reason; none is ever dropped.
    """


@command("list", "parked list", "parked list --format json")
@format_option()
def list_parked(output_format: Format) -> None:
    """Print every parked entry."""
    print_records(run_async(_all()), COLUMNS, output_format, "parked entries")


@command("show", "parked show 1710385929000-0", "parked show 1710385929000-0 --side SI")
@click.argument("position")
@click.option("--side", metavar="SIDE", help="The side, where both have an entry at that position.")
def show_parked(position: str, side: str | None) -> None:
    """Print why an entry was parked, and what it holds."""
    found = run_async(_one(position, side))
    if not found:
        where = f"at {position!r}" if side is None else f"at {position!r} of side {side}"
        raise UsageError(f"no entry is parked {where}; `fieldtally parked list` shows those that are")
    for side_store, parked_entry, entry in found:
        print(f"{side_store.side.side} {position}: {parked_entry.reason}")
        print(f"  {IN_WORDS[parked_entry.reason]}")
        print(f"  {printable(parked_entry.detail)}")
        print(f"  digest of its bytes (BLAKE2b-128): {parked_entry.digest}")
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


async def _all() -> list[dict[str, Any]]:
    async with side_stores(settings()) as stores:
        return [
            {"side": store.side.side, "position": position, "reason": entry.reason, "detail": entry.detail}
            for store in stores
            for position, entry in (await store.store.parked()).items()
        ]


async def _one(position: str, side: str | None) -> list[tuple[SideStore, Parked, Entry | None]]:
    chosen = settings()
    if side is not None:
        chosen.side(side)
    found = []
    async with side_stores(chosen) as stores:
        for store in stores:
            entry = (await store.store.parked()).get(Position(position))
            if entry and side in (None, store.side.side):
                found.append((store, entry, (await store.log.read_at([Position(position)]))[0]))
    return found
