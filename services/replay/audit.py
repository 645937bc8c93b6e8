"""The audit: live against rebuilt tallies, the fold against a second engine, and published figures against the fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct

from schemas.claims import Claim
from schemas.tallies import Parked
from schemas.vocabulary import START, Position, Side
from services.replay.replay import Replay
from services.runtime.settings import SideSettings
from services.store.contract import Log, Stored, TallyStore
from services.store.loading import load_fitting, require_zone
from services.tally.balances import Replayed, balances_of
from services.tally.cells import Tallies
from services.tally.compare import Difference, Disagreement, Finding, differences, judge
from services.tally.digest import state_digest
from services.tally.fold import State
from services.tally.operations import coverage_by_section
from services.tally.rollup import Terms


class Audited(NamedTuple):
    """One side to audit."""

    side: SideSettings
    log: Log
    store: TallyStore


class Verdict(Struct, frozen=True):
    """What an audit found. `position` and `digest` are those of the rebuilt tallies, at the log's end or as of then.

    `live_position` and `live_digest` are those of each side's live tallies; `uncounted` are the sides that have a log
    and no live tallies at all, so that there was nothing to compare. `disagreements` are the cells that the
    second engine counts otherwise at `position`; None if it was not asked.
    """

    position: dict[Side, Position]
    digest: str
    live_position: dict[Side, Position]
    entries_behind: dict[Side, int]
    live_digest: dict[Side, str]
    differences: list[Difference]
    findings: list[Finding]
    disagreements: list[Disagreement] | None = None
    uncounted: Sequence[Side] = ()

    @property
    def live_equals_rebuilt(self) -> bool | None:
        """Whether the live tallies equal the rebuilt ones, each side at the position the live ones had reached.

        None if nothing differs, and there is a side of which none are live.
        """
        return False if self.differences else None if self.uncounted else True

    @property
    def fold_equals_sql(self) -> bool | None:
        """Whether the second engine counts what the fold does; None if it was not asked."""
        return None if self.disagreements is None else not self.disagreements

    @property
    def agreed(self) -> list[Side]:
        """The sides whose live tallies equal the rebuilt ones, and where the second engine agrees with the fold."""
        differing = {row.cell[0] for row in (*self.differences, *(self.disagreements or ()))}
        return [side for side, at in self.live_position.items() if at != START and side not in differing]

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        confirmed = all(finding.verdict == "confirmed" for finding in self.findings)
        return not self.differences and not self.disagreements and confirmed


class Live(NamedTuple):
    """One side's live state, and where it and the log stood when it was read."""

    side: SideSettings
    stored: Stored
    position: Position
    log_end: Position
    parked: Mapping[Position, Parked]

    @property
    def tallies(self) -> Tallies:
        """The live tallies."""
        return self.stored.tallies


async def read_live(side: SideSettings, log: Log, store: TallyStore) -> Live:
    """Read one side's live tallies, then the log's end; DamagedLogError if the log no longer reaches the tallies."""
    stored, checkpoint, extent = await load_fitting(side, log, store)
    require_zone(side, checkpoint)
    return Live(side, stored, checkpoint.position, extent.last, await store.parked())


async def audit(
    sides: Sequence[Audited], claims: Sequence[Claim], on_progress: Callable[[int], None] = lambda _: None
) -> Verdict:
    """Audit every side, one after the other, in this process."""
    lives = []
    rebuilt = []
    for side, log, store in sides:
        live = await read_live(side, log, store)
        replay = Replay(side, log)
        await replay.run(live.position, on_progress)
        at_live = replay.replayed()
        await replay.run(live.log_end, on_progress)
        lives.append(live)
        rebuilt.append((at_live, replay.replayed()))
    return compare(lives, rebuilt, claims)


def compare(
    lives: Sequence[Live],
    rebuilt: Sequence[tuple[Replayed, Replayed]],
    claims: Sequence[Claim],
    second: Mapping[Side, Tallies] | None = None,
) -> Verdict:
    """Compare live tallies with those rebuilt where they stood, and all else with those rebuilt at the log's end.

    No pause is needed, whatever comes in meanwhile. The claims are held against everything recorded, whether or not the
    projector has come to it; `second` are the second engine's tallies of each side there.
    """
    sides = [live.side for live in lives]
    ends = [at_end for _, at_end in rebuilt]
    counted = join(ends)
    return Verdict(
        position={state.side: state.checkpoint.position for state in ends},
        digest=state_digest(counted),
        live_position={live.side.side: live.position for live in lives},
        uncounted=[live.side.side for live in lives if live.position == START != live.log_end],
        entries_behind={
            at_end.side: max(0, at_end.checkpoint.entries - at_live.checkpoint.entries) for at_live, at_end in rebuilt
        },
        live_digest={live.side.side: state_digest(live.tallies) for live in lives},
        differences=[
            difference
            for live, (at_live, _) in zip(lives, rebuilt, strict=True)
            for difference in differences(live.tallies, at_live.tallies)
        ],
        findings=judge(claims, counted, terms(sides, ends), balances_of(ends), _absent(ends)),
        disagreements=None
        if second is None
        else [Disagreement(*row) for state in ends for row in differences(state.tallies, second[state.side])],
    )


def _absent(states: Sequence[State]) -> list[Side]:
    """Return the sides of which nothing is here, if there is something of others."""
    absent = [state.side for state in states if not state.checkpoint.entries]
    return absent if len(absent) < len(states) else []


def join(states: Sequence[State]) -> Tallies:
    """Return the tallies of all sides as one; no cell belongs to two of them."""
    return {cell: count for state in states for cell, count in state.tallies.items()}


def terms(sides: Sequence[SideSettings], states: Sequence[State]) -> Terms:
    """Return what the derived dimensions need, from the operations as these states know them."""
    return Terms(
        domestic={side.side: side.citizenship for side in sides},
        coverage={
            (state.side, operation, section): coverage
            for state in states
            for (operation, section), coverage in coverage_by_section(state.operations).items()
        },
    )
