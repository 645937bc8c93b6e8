"""`demo`: the joint operation of March 2024, reported in twenty seconds, tallied live, replayed and audited."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Final

import click
from msgspec.structs import replace
from rich.console import Console
from rich.live import Live
from rich.table import Table

from schemas.claims import Claims, decode_claims
from schemas.vocabulary import UNITS
from services.cli.audit import note_agreement, print_verdict
from services.cli.command import Number, Whole, command, run_async, settings
from services.cli.screen import free_screen_port, say_where, screen_beside, viewer_token
from services.cli.server import Program, SideStore, program_beside, side_stores
from services.cli.simulate import publish
from services.cli.tallies import live_state
from services.replay.audit import Verdict, audit, join, terms
from services.runtime.embedded import embedded_server
from services.runtime.ending import end
from services.runtime.errors import FieldtallyError
from services.runtime.settings import Settings, read_settings
from services.simulator.fleet import Submission
from services.simulator.joint_operation import BEGINS, ENDS, OPERATION, joint_operation
from services.tally.digest import state_digest
from services.tally.rollup import Selection, roll_up

REFRESH_S: Final = 0.25
LINE_S: Final = 2.0
CATCH_UP_S: Final = 30.0
REMOVALS_MAX: Final = 50
REMOVAL_PAUSE_S: Final = 0.1

EXPECTED: Final = {("smugglers", "", "inconsistent"), ("smugglers", "ROU", "different")}
"""What the audit must find in the press release, and nothing else: its breakdown of the four smugglers names five."""


@command("demo", "demo", "demo --exit", "demo --seconds 5 --exit")
@click.option("--exit", "leave", is_flag=True, help="End by itself; off a terminal it always does.")
@click.option(
    "--seconds",
    type=Number(0, 3600),
    metavar="SECONDS",
    default=20.0,
    show_default=True,
    help="How long the three days take.",
)
@click.option(
    "--seed",
    type=Whole(),
    metavar="N",
    default=2024,
    show_default=True,
    help="Spreads the figures over sections, units and hours.",
)
def demo(*, leave: bool, seconds: float, seed: int) -> int:
    """Report the joint operation of March 2024, and audit it.

    The reports go to a log of their own, and the audit holds them against the press release on the joint control of the
    Slovenian-Croatian border of 13-15 March 2024. The totals are those published; sections, units and hours are made up
    by the seed. Exit code 0: live equals rebuilt, and the audit finds exactly the two differences known to be in the
    release; 1: anything else.
    """
    # A terminal that is closed, or a process manager: to be cleaned up after like Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    chosen = replace(settings(), sides=read_settings({}).sides)  # its two sides, whichever are set
    with _folder() as folder, embedded_server(folder) as url:
        chosen = replace(chosen, redis_url=url, data_dir=folder, screen_port=free_screen_port(chosen))
        token = run_async(viewer_token(chosen, url))
        with (
            program_beside("project", url, SIDES="", LOG_LEVEL="warning") as projector,
            screen_beside(chosen, url, SIDES="") as screen,
        ):
            say_where(chosen, token, screen)
            code = run_async(_demo(chosen, joint_operation(seed), seconds, projector))
            if sys.stdout.isatty() and not leave:
                print(f"\nThe screen stays on {chosen.screen_address}, and the log open. In another terminal:")
                print(f"FIELDTALLY_REDIS_URL={url} {sys.argv[0]} tallies --by day,measure")
                print("Ctrl-C ends.")
                projector.wait()
    return code


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fieldtally-demo-"))
    try:
        yield folder
    finally:
        # The server may still be ending, and files of its own come and go meanwhile.
        for _ in range(REMOVALS_MAX):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(REMOVAL_PAUSE_S)


async def _demo(chosen: Settings, submissions: Sequence[Submission], seconds: float, projector: Program) -> int:
    async with side_stores(chosen) as stores:
        print(f"Joint operation {OPERATION}: {len(submissions)} submissions of both sides, three days in {seconds:g} s")
        reporting = asyncio.create_task(_report(stores, submissions, seconds))
        showing = asyncio.create_task(_show(chosen, stores, submissions, seconds, projector))
        try:
            await asyncio.gather(reporting, showing)
        finally:
            await end(reporting, showing)
        print("\nReplaying the log and auditing the press release")
        claims = decode_claims(files("services.simulator").joinpath("press_release.toml").read_bytes())
        live = [await live_state(store) for store in stores]
        verdict = await audit([store.audited() for store in stores], claims.claims)
        await note_agreement(stores, verdict)
        live_digest = state_digest(join(live))
        print(f"live:    position {', '.join(f'{state.side} {state.checkpoint.position}' for state in live)}")
        print(f"live:    digest {live_digest}")
        print_verdict(verdict, claims)
        return _judge(verdict, claims, live_digest)


def _judge(verdict: Verdict, claims: Claims, live_digest: str) -> int:
    found = {(f.measure, f.key, f.verdict) for f in verdict.findings if f.verdict != "confirmed"}
    sides_equal = verdict.live_equals_rebuilt and live_digest == verdict.digest
    if sides_equal and found == EXPECTED:
        print(f"\nAs it should be: live equals rebuilt, and of {len(claims.claims)} claims all hold but the one that "
              "names five smugglers and says four.")  # fmt: skip
        return 0
    print("\nNOT as it should be: see above.")
    return 1


async def _report(stores: Sequence[SideStore], submissions: Sequence[Submission], seconds: float) -> None:
    """Publish each submission at its moment of arrival, the three days compressed."""
    by_side = {store.side.side: store for store in stores}
    loop = asyncio.get_running_loop()
    started = loop.time()
    for submission in submissions:
        due = started + _share(submission.arrives) * seconds
        await asyncio.sleep(max(0.0, due - loop.time()))
        await publish(by_side, [submission])


def _share(moment: datetime) -> float:
    """Return which share of the operation has passed at a moment; what was sent on its eve is there when it begins."""
    return max(0.0, (moment - BEGINS) / (ENDS - BEGINS))


async def _show(
    chosen: Settings,
    stores: Sequence[SideStore],
    submissions: Sequence[Submission],
    seconds: float,
    projector: Program,
) -> None:
    """Show the live tallies as they change, until they hold every submission."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    console = Console(highlight=False)
    line = ""
    with (
        Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else _no_picture() as picture
    ):
        while True:
            passed = loop.time() - started
            counts, entries = await _counts(chosen, stores)
            clock = BEGINS + (ENDS - BEGINS) * min(passed / seconds if seconds else 1.0, 1.0)
            if picture:
                picture.update(_picture(chosen, counts, clock, entries, len(submissions)), refresh=True)
            else:
                line, before = _line(chosen, counts, clock, entries), line
                if line != before:
                    print(line, flush=True)
            if entries >= len(submissions):
                return
            if projector.poll() is not None:
                raise FieldtallyError(f"the projector has ended (exit {projector.poll()}): run `fieldtally doctor`")
            if passed > seconds + CATCH_UP_S:
                raise FieldtallyError(f"the projector is at entry {entries} of {len(submissions)} and gets no further")
            await asyncio.sleep(REFRESH_S if picture else min(LINE_S, max(seconds - passed, 0.1)))


async def _counts(chosen: Settings, stores: Sequence[SideStore]) -> tuple[dict[tuple[str, str], int], int]:
    """Return the operation's live counts by measure and side, and how many entries they include."""
    states = [await live_state(store) for store in stores]
    selection = Selection(("measure", "side"), {"operation": (OPERATION,)})
    rows = roll_up(join(states), selection, terms(chosen.sides, states))
    return {(row.values[0], row.values[1]): row.count for row in rows}, sum(
        state.checkpoint.entries for state in states
    )


def _picture(chosen: Settings, counts: dict[tuple[str, str], int], clock: datetime, entries: int, total: int) -> Table:
    table = Table(title=f"{OPERATION}   {clock:%d %B %Y %H:%M}   {entries} of {total} entries", title_justify="left")
    table.add_column("measure")
    for side in chosen.sides:
        table.add_column(side.side, justify="right", min_width=6)
    table.add_column("unit", style="dim")
    for measure in UNITS:
        table.add_row(measure, *(f"{counts.get((measure, one.side), 0):,}" for one in chosen.sides), UNITS[measure])
    return table


def _line(chosen: Settings, counts: dict[tuple[str, str], int], clock: datetime, entries: int) -> str:
    def of(measure: str, side: str) -> int:
        return counts.get((measure, side), 0)

    sides = "   ".join(
        f"{one.side} persons {of('persons', one.side):>3} smugglers {of('smugglers', one.side):>2}"
        for one in chosen.sides
    )
    return f"{clock:%d %B %H:%M}   {sides}   ({entries} entries)"


@contextmanager
def _no_picture() -> Iterator[None]:
    yield None
