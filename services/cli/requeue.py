"""`parked requeue`: puts parked entries back through admission once they can be counted, with who did it and why."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple, get_args

import click

from schemas.events import Event
from schemas.tallies import Parked, Requeued
from schemas.vocabulary import TEXT_MAX, ParkedReason, Position, Side, order
from services.cli.command import command, run_async, settings
from services.cli.output import Format, RecordWriter, format_option, many, note
from services.cli.server import SideStore, require_own_archives, side_stores
from services.gateway.admission import Admitted, Held, admit, settle
from services.gateway.tail import Identity, identity_of, name_of
from services.runtime.clock import now
from services.runtime.errors import UsageError
from services.runtime.settings import Settings
from services.store.contract import Entry
from services.tally.fold import BY_FIELD, EVENT_FIELD, Key, arrive

CHUNK: Final = 500
TAIL_CHUNK: Final = 2_000
COLUMNS: Final = ("side", "position", "reason", "status", "now_side", "now_position", "problem")
WIDTHS: Final = {"side": 4, "position": 17, "reason": 12, "status": 16, "now_side": 8, "now_position": 17}


class _Asked(NamedTuple):
    """What is to be put back, by whom and why."""

    side: Side
    positions: Sequence[str]
    reason: ParkedReason | None
    because: str
    dry_run: bool


@command(
    "requeue",
    'parked requeue --side SI --reason unknown-type --because "0.2 knows patrol reports"',
    'parked requeue 1710385929000-0 --side HR --because "entered on the wrong side" --dry-run',
    stands="what has a line stands; repeated, each entry is put back once",
)
@click.argument("positions", nargs=-1, metavar="[POSITION …]")
@click.option("--side", required=True, metavar="SIDE", help="The side where they are parked.")
@click.option("--reason", type=click.Choice(get_args(ParkedReason)), help="All that were parked for this reason.")
@click.option("--because", required=True, metavar="TEXT", help="Why: it is kept, with your name as this system has it.")
@click.option("--dry-run", is_flag=True, help="Say what would become of them, and append nothing.")
@format_option()
def requeue(
    *,
    positions: tuple[str, ...],
    side: str,
    reason: ParkedReason | None,
    because: str,
    dry_run: bool,
    output_format: Format,
) -> int:
    """Put parked entries back after a fix, such as an upgrade.

    Each goes through admission as a line of `import` does, and is appended to the log of the side that it belongs to,
    once, however often this is run. The parked entry stays where it is: the log is never changed. Exit code 0: all are
    in a log now; 1: some still cannot be counted, and stay parked.
    """
    chosen = settings()
    if bool(positions) == bool(reason):
        raise UsageError("name the positions to requeue, or a --reason: one of the two (`fieldtally parked list`)")
    text = because.strip()
    if not 0 < len(text) <= TEXT_MAX or not text.isprintable():
        raise UsageError(f"--because: say why in 1 to {TEXT_MAX} printable characters")
    asked = _Asked(chosen.side(side).side, positions, reason, text, dry_run)
    return run_async(_requeue(chosen, asked, output_format))


def user() -> str:
    """Return who runs this, as the operating system knows it, in characters that separate nothing in a log entry."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = f"uid-{os.getuid()}"
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)[:64]


async def _requeue(chosen: Settings, asked: _Asked, output_format: Format) -> int:
    done = {"parked": 0}
    async with side_stores(chosen) as stores:
        await require_own_archives(stores)
        logs = {store.side.side: _Log(store) for store in stores}
        source = logs[asked.side].store
        parked = await source.store.parked()
        for position in asked.positions:
            if Position(position) not in parked:
                raise UsageError(
                    f"no entry is parked at {position!r} of side {asked.side}; `fieldtally parked list` shows those "
                    "that are"
                )
        wanted = {Position(position) for position in asked.positions}
        rows = iter([(at, why) for at, why in parked.items() if at in wanted or why.reason == asked.reason])
        requeued = await requeued_of(stores)
        with RecordWriter(COLUMNS, output_format, WIDTHS) as writer:
            while chunk := list(islice(rows, CHUNK)):
                entries = await source.log.read_at([position for position, _ in chunk])
                reports = [_read(entry, logs.keys()) for entry in entries]
                for log in logs.values():
                    await log.look([one.event for one in reports if isinstance(one, Admitted)])
                for (position, why), report in zip(chunk, reports, strict=True):
                    before = requeued.get((asked.side, position))
                    row = await _put_back(logs, asked, position, why, report, before)
                    done[row["status"]] = done.get(row["status"], 0) + 1
                    writer.write({"side": asked.side, "position": position, "reason": why.reason} | row)
    if total := sum(done.values()):
        counts = ", ".join(f"{count:,} {status}" for status, count in done.items() if count or status == "parked")
        note(f"{many(total, 'entry', 'entries')}: {counts}")
    else:
        note(f"nothing is parked for {asked.reason} on side {asked.side}, so nothing was requeued")
    return 1 if done["parked"] else 0


async def requeued_of(stores: Sequence[SideStore]) -> dict[tuple[Side, Position], Requeued]:
    """Return what was put back, by the side and the position where it is parked."""
    return {at: one for store in stores for at, one in (await store.requeued.notes()).items()}


async def _put_back(
    logs: Mapping[Side, _Log],
    asked: _Asked,
    position: Position,
    why: Parked,
    report: Admitted | str,
    before: Requeued | None,
) -> dict[str, str]:
    """Append one entry again, unless something is in the way; return what became of it."""
    at = asked.side, position
    if before:
        if not asked.dry_run and before.side in logs:
            target = logs[before.side].store
            before = await target.requeued.find(target.log, at, before)
        return _row("already-requeued", before.side, before.position)
    if isinstance(report, str):
        return _row("parked", problem=report)
    event = report.event
    log = logs[event.side]
    if repeated := settle(event, log.held.get(identity_of(event))):
        if repeated.problem is None:
            return _row("duplicate", event.side, repeated.position, "the log holds this report there already")
        return _row("parked", problem=repeated.problem.detail)
    key, revision = identity_of(event)
    if why.reason == "conflict" and (in_force := log.in_force.get(key, -1)) >= revision:
        return _row("parked", problem=f"revision {in_force} of this report is in force, so this one would not count")
    if asked.dry_run:
        return _row("would-be-requeued", event.side)
    by = f"requeue/{asked.side}:{position}/{user()}"
    mine = Requeued(by, asked.because, now(), event.side)
    noted, is_mine = await log.store.requeued.append(report.canonical, at, mine)
    if not is_mine:  # somebody else was at it at the same time
        noted = await log.store.requeued.find(log.store.log, at, noted)
    log.held[identity_of(event)] = Held(event, noted.position)
    return _row("requeued" if is_mine else "already-requeued", event.side, noted.position)


def _row(status: str, side: str = "", position: str = "", problem: str = "") -> dict[str, str]:
    return {"status": status, "now_side": side, "now_position": position, "problem": problem}


def _read(entry: Entry | None, sides: Collection[Side]) -> Admitted | str:
    """Return what an entry reports, or what keeps it out of a log."""
    if entry is None:
        return "the entry itself is no longer in the log"
    raw = entry.fields.get(EVENT_FIELD)
    if raw is None or not entry.fields.keys() <= {EVENT_FIELD, BY_FIELD}:
        return str(arrive(entry.position, entry.fields).fault)
    decision = admit(raw, sides)
    return decision if isinstance(decision, Admitted) else decision.problem.detail


class _Log:
    """One side's log, and what it holds of some reports: by the index, and by its end that the index lacks."""

    def __init__(self, store: SideStore) -> None:
        self.store = store
        self.held: dict[Identity, Held] = {}
        self.in_force: dict[Key, int] = {}
        self._tail: dict[Identity, Position] = {}
        self._read_to: Position | None = None

    async def look(self, events: Sequence[Event]) -> None:
        """Look these reports up, as far as they are of this side."""
        events = [event for event in events if event.side == self.store.side.side]
        if not events:
            return
        seen = await self.store.glance.take()
        await self._read_on(seen.position)
        keys = list({identity_of(event)[0] for event in events})
        index = await self.store.glance.index(seen.generation, keys)
        names = [name_of(event) for event in events if event.revision]
        amendments = await self.store.glance.amendments(seen.generation, names)
        places = {self._tail[identity] for event in events if (identity := identity_of(event)) in self._tail}
        places |= {place for one in index.values() for place in (one.position, one.original) if place}
        places |= {one.position for one in amendments.values()}
        for key, one in index.items():
            self.in_force[key] = max(one.revision, self.in_force.get(key, -1))
        for entry in await self.store.log.read_at(sorted(places, key=order)):
            for held in self._of(entry):
                self.held.setdefault(identity_of(held.event), held)

    async def _read_on(self, position: Position) -> None:
        """Note where reports stand behind a position; what comes in meanwhile is the fold's to judge."""
        at = self._read_to or position
        while entries := await self.store.log.read_after(at, TAIL_CHUNK):
            for entry in entries:
                for held in self._of(entry):
                    key, revision = identity_of(held.event)
                    self._tail.setdefault((key, revision), held.position)
                    self.in_force[key] = max(revision, self.in_force.get(key, -1))
            at = entries[-1].position
        self._read_to = at

    def _of(self, entry: Entry | None) -> Iterator[Held]:
        event = arrive(entry.position, entry.fields).event if entry else None
        if entry and event and event.side == self.store.side.side:
            yield Held(event, entry.position)
