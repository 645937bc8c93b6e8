"""`rebuild`: a new generation of the tallies beside the live one, compared with it, and made live when told to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
from click import option
from msgspec.structs import replace

from schemas.vocabulary import Side
from services.cli.command import command, run_async, settings
from services.cli.output import Format, format_option, many, note, print_records, progress
from services.cli.server import require_entries, server_url, side_stores
from services.replay.processes import rebuild_generations
from services.replay.rebuild import Rebuilt, entries_left
from services.runtime.errors import DamagedLogError, FieldtallyError
from services.runtime.settings import Settings
from services.tally.cells import CELL_PARTS, cell_text

COLUMNS: Final = ("side", "generation", "position", "entries", "verdict", "digest")
NOTHING: Final = "nothing to compare with"

Removed = Mapping[Side, Sequence[str]]


@command(
    "rebuild",
    "rebuild",
    "rebuild --swap",
    "rebuild --swap --drop",
    "rebuild --drop --format json",
    stands="the live tallies are as they were, or swapped whole; `fieldtally rebuild` goes on where it was",
)
@option("--swap", is_flag=True, help="Make the new generation the live one, in one step.")
@option("--drop", is_flag=True, help="Remove every generation that is not live; alone, it does only that.")
@format_option("table", "json")
def rebuild(*, swap: bool, drop: bool, output_format: Format) -> int:
    """Make the tallies anew beside the live ones, and compare.

    A new generation is filled from the log, while reports keep coming, up to where the live one stands; there they are
    compared, cell by cell. Interrupted, it goes on where it was the next time. After --swap the projector goes on in
    the new generation, and the screens follow. Exit code 0: equal, swapped, or nothing to compare with; 1: they differ.
    """
    chosen = settings()
    rebuilt: dict[Side, Rebuilt] = {}
    failures: dict[Side, FieldtallyError] = {}
    with server_url(chosen) as url:
        here = replace(chosen, redis_url=url)
        if swap or not drop:
            run_async(_require_entries(chosen, here))
            left = run_async(_entries_left(here))
            outcomes = rebuild_generations(here, url, swap=swap, show=lambda: progress("rebuilding", left))
            for side, found in outcomes.items():
                if isinstance(found, Rebuilt):
                    rebuilt[side] = found
                else:
                    failures[side] = found
        # Where a rebuild failed, the live generation is not yet the one that the others were to give way to.
        removed = run_async(_drop(here, list(rebuilt) if swap else [one.side for one in chosen.sides])) if drop else {}
    if output_format == "json":
        rows = [_as_json(one.side, rebuilt.get(one.side), removed.get(one.side)) for one in chosen.sides]
        rows = [row | _failed(failures[row["side"]]) if row["side"] in failures else row for row in rows]
        print(msgspec.json.format(msgspec.json.encode([row for row in rows if len(row) > 1]), indent=2).decode())
    else:
        _print(list(rebuilt.values()), removed)
    if failures:
        raise next(iter(failures.values()))
    return 1 if any(one.differences and not one.swapped for one in rebuilt.values()) else 0


async def _require_entries(chosen: Settings, here: Settings) -> None:
    async with side_stores(here) as stores:
        with suppress(DamagedLogError):  # so there is something; see below
            require_entries(chosen, {store.side.side: await store.log.extent() for store in stores}, "rebuilt")


async def _entries_left(chosen: Settings) -> int:
    left = 0
    async with side_stores(chosen) as stores:
        for store in stores:
            with suppress(DamagedLogError):  # which is said when its turn comes; the other sides go on
                left += await entries_left(store.rebuildable())
    return left


async def _drop(chosen: Settings, sides: Sequence[Side]) -> dict[Side, list[str]]:
    """Remove what is not live, one generation after the other, and say which at once."""
    removed: dict[Side, list[str]] = {}
    async with side_stores(chosen) as stores:
        for store in stores:
            if store.side.side not in sides:
                continue
            removed[store.side.side] = []
            for found in await store.generations.found():
                if await store.generations.drop(found.name):
                    removed[store.side.side].append(found.name)
    return removed


def _failed(error: FieldtallyError) -> dict[str, Any]:
    return {"verdict": "failed", "problem": str(error), "swapped": False}


def _as_json(side: Side, rebuilt: Rebuilt | None, removed: Sequence[str] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"side": side}
    if rebuilt:
        row |= {
            "generation": rebuilt.generation,
            "position": rebuilt.position,
            "entries": rebuilt.entries,
            "digest": rebuilt.digest,
            "verdict": _verdict(rebuilt),
            "live": rebuilt.live,
            "compared_at": rebuilt.compared_at or "",
            "problem": rebuilt.problem,
            "differences": [
                dict(zip(CELL_PARTS, one.cell, strict=True)) | {"live": one.live, "rebuilt": one.rebuilt}
                for one in rebuilt.differences
            ],
            "swapped": rebuilt.swapped,
        }
    return row | ({"removed": removed or []} if rebuilt or removed is not None else {})


def _print(rebuilt: Sequence[Rebuilt], removed: Removed) -> None:
    """Print for a person."""
    if rebuilt:
        rows = [
            {
                "side": one.side,
                "generation": one.generation,
                "position": one.position,
                "entries": one.entries,
                "verdict": _in_words(one),
                "digest": one.digest,
            }
            for one in rebuilt
        ]
        print_records(rows, COLUMNS, "table", "rebuilt tallies")
    cells = [
        {"cell": cell_text(found.cell), "live": found.live, "rebuilt": found.rebuilt}
        for one in rebuilt
        for found in one.differences
    ]
    if cells:
        print()
        print_records(cells, ("cell", "live", "rebuilt"), "table", "live and rebuilt differ")
    for one in rebuilt:
        if one.problem:
            note(f"side {one.side}: {NOTHING}: {one.problem}")
        if one.swapped:
            print(f"side {one.side}: {one.generation} is live, at {one.position}; before it was {one.live}")
        elif one.differences or one.problem:
            note(f"side {one.side}: `fieldtally rebuild --swap` makes what was rebuilt the live one")
    for side, names in removed.items():
        print(f"side {side}: removed {', '.join(names) or 'nothing'}")


def _in_words(rebuilt: Rebuilt) -> str:
    differing = len(rebuilt.differences)
    return many(differing, "cell differs", "cells differ") if differing else _verdict(rebuilt)


def _verdict(rebuilt: Rebuilt) -> str:
    if rebuilt.problem:
        return NOTHING
    return "different" if rebuilt.differences else "equal"
