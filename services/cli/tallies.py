"""`tallies` and `replay`: the same view of the live tallies and of tallies rebuilt from the log."""

from __future__ import annotations

from collections.abc import Sequence

import click
from msgspec.structs import replace

from services.cli.command import ONLY_READ, command, run_async, settings
from services.cli.output import Format, format_option, note, print_records, progress
from services.cli.selectors import ENDS, AsOf, read_as_of, read_selection, selector_options
from services.cli.server import SideStore, log_extents, note_absent, server_url, side_stores
from services.replay.audit import join, terms
from services.replay.processes import replay_sides
from services.runtime.settings import Settings
from services.tally.balances import Replayed, balances_of, cut_balances
from services.tally.digest import state_digest
from services.tally.fold import State
from services.tally.names import unknown_names
from services.tally.rollup import Selection, roll_up


@command(
    "tallies",
    "tallies",
    "tallies --by side,citizenship --where measure=persons --where operation=SI-HR-2024-03",
    "tallies --by day,measure --from 2024-03-13 --to 2024-03-15 --format csv",
    stands=ONLY_READ,
)
@selector_options
@click.option("--as-of", "as_of", metavar="POSITION|TIME", help=f"As they were then, rebuilt from the log. {ENDS}")
@format_option()
def tallies(
    by: tuple[str, ...],
    where: tuple[str, ...],
    first_day: str | None,
    last_day: str | None,
    as_of: str | None,
    output_format: Format,
) -> None:
    """Print the live tallies, as the projector keeps them.

    Their position and digest go to stderr.
    """
    chosen = settings()
    selection = read_selection(chosen, by, where, first_day, last_day)
    if as_of is not None:
        _print(chosen, selection, _rebuilt(chosen, read_as_of(chosen, as_of)), output_format, "rebuilt tallies")
    else:
        _print(chosen, selection, run_async(_live(chosen)), output_format, "live tallies")


@command(
    "replay",
    "replay",
    "replay --as-of 2024-03-14T12:00:00+01:00 --by side,measure",
    "replay --by month,citizenship --where measure=persons --format json",
    stands=ONLY_READ,
)
@selector_options
@click.option("--as-of", "as_of", metavar="POSITION|TIME", help=f"Stop after this position or time of receipt. {ENDS}")
@format_option()
def replay(
    by: tuple[str, ...],
    where: tuple[str, ...],
    first_day: str | None,
    last_day: str | None,
    as_of: str | None,
    output_format: Format,
) -> None:
    """Print tallies rebuilt from the log, from its first entry on.

    Their position and digest go to stderr.
    """
    chosen = settings()
    selection = read_selection(chosen, by, where, first_day, last_day)
    until = read_as_of(chosen, as_of)
    states = _rebuilt(chosen, until)
    _print(chosen, selection, states, output_format, "rebuilt tallies")
    for text in cut_balances(balances_of(states), selection, terms(chosen.sides, states)):
        note(text)


async def _live(chosen: Settings) -> list[State]:
    async with side_stores(chosen, reading=True) as stores:
        return [await live_state(store) for store in stores]


async def live_state(side_store: SideStore) -> State:
    """Return one side's live state as the projector stored it."""
    side = side_store.side
    stored = await side_store.store.load()
    state = State(side.side, side.zone, tallies=stored.tallies, operations=stored.operations, devices=stored.devices)
    if stored.checkpoint:
        state.checkpoint = stored.checkpoint
    return state


def _rebuilt(chosen: Settings, until: AsOf) -> list[Replayed]:
    with server_url(chosen, reading=True) as url:
        extents = run_async(log_extents(replace(chosen, redis_url=url), until))
        note_absent(chosen, extents)
        stops = {side: [until.get(side, extent.last)] for side, extent in extents.items()}
        entries = sum(extent.entries for extent in extents.values())
        replayed = replay_sides(chosen, url, stops, lambda: progress("replaying", entries))
        return [state for (state,) in replayed.values()]


def _print(chosen: Settings, selection: Selection, states: Sequence[State], output_format: Format, what: str) -> None:
    counted = join(states)
    of = terms(chosen.sides, states)
    rows = roll_up(counted, selection, of)
    records = [dict(zip(selection.by, row.values, strict=True)) | {"count": row.count} for row in rows]
    print_records(records, (*selection.by, "count"), output_format, what)
    for text in unknown_names(selection.where, counted, of):
        note(f"--where: {text}")
    positions = ", ".join(f"{state.side} {state.checkpoint.position}" for state in states)
    note(f"{what} as of {positions}; digest {state_digest(counted)}")
