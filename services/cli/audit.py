"""`audit`: live against rebuilt, the fold against SQL, and published figures against rebuilt."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import click
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from schemas.claims import Claim, Claims, Relation, decode_claims
from schemas.screen import AuditShown
from schemas.vocabulary import START, UNITS, Position, Side, order
from services.cli.command import ONLY_READ, FileName, command, run_async, settings
from services.cli.output import (
    Figure,
    Format,
    format_option,
    many,
    note,
    print_records,
    print_table,
    printable,
    progress,
)
from services.cli.selectors import ENDS, NOT_CUT, AsOf, read_as_of, read_value
from services.cli.server import SideStore, log_extents, require_entries, server_url, side_stores
from services.replay.audit import Live, Verdict, compare, read_live, terms
from services.replay.processes import histories_of_sides, replay_sides
from services.runtime.clock import now
from services.runtime.errors import UsageError
from services.runtime.settings import Settings
from services.store.contract import LogExtent
from services.tally.cells import CELL_PARTS, Cell, cell_text
from services.tally.compare import Finding, unknown_dimension
from services.tally.fold import State
from services.tally.names import absent_side
from services.tally.rollup import DIMENSIONS, Dimension

if TYPE_CHECKING:
    from services.archive.look import Item
    from services.cli.differences import Behind, Parted

CELLS_SHOWN: Final = 20
CELL_EVENTS_SHOWN: Final = 3
"""Of so many differing cells a person is shown so many events each; JSON has more."""

SHOWN_MAX: Final = 10
"""How many entries of a kind that deserve a look a table shows."""

CLAIM_COLUMNS: Final = ("verdict", "measure", "published", "rebuilt", "text")
SIGNS: Final[dict[Relation, str]] = {
    "equals": "", "more_than": "> ", "at_least": ">= ", "less_than": "< ", "at_most": "<= "
}  # fmt: skip


class Audit(Struct, frozen=True):
    """An audit's verdict, what explains each difference, and what deserves a look all the same."""

    verdict: Verdict
    parted: list[Parted]
    look_at: list[Item]
    copies: frozenset[Side] = frozenset()
    """The sides of which only an archive was read: their server was never given a log."""


@command(
    "audit",
    "audit",
    "audit --claims release.toml",
    "audit --claims release.toml --as-of 2024-03-15T12:00:00+01:00 --json",
    stands=ONLY_READ,
)
@click.option(
    "--claims", "claims_file", type=FileName(), metavar="FILE.toml", help="Published figures to hold against the log."
)
@click.option(
    "--as-of",
    "as_of",
    metavar="POSITION|TIME",
    help=f"Audit what was recorded by this position or time of receipt. {ENDS}",
)
@format_option("table", "json")
def audit(claims_file: str | None, as_of: str | None, output_format: Format) -> int:
    """Rebuild the tallies from the log, and compare.

    They are compared with the live ones, cell by cell, where those stand; with what an independent engine counts in
    SQL; and with the published figures of a claims file. Of each difference it names the cells, the first position from
    which on they differ, and the events behind them. What deserves a look although nothing differs is listed, too.
    Exit code 0: everything agrees; 1: differences were found.
    """
    chosen = settings()
    claims = read_claims(chosen, claims_file) if claims_file is not None else None
    found = audited(chosen, claims, read_as_of(chosen, as_of))
    if output_format == "json":
        print(msgspec.json.format(msgspec.json.encode(as_json(found)), indent=2).decode())
    else:
        print_verdict(found.verdict, claims, found.parted, found.look_at, found.copies)
    return 0 if found.verdict.clean else 1


def read_claims(chosen: Settings, path: str) -> Claims:
    """Read a claims file; UsageError names it and what is wrong in it."""
    try:
        claims = decode_claims(Path(path).read_bytes().removeprefix(BOM_UTF8))
    except OSError as error:
        raise UsageError(f"--claims {path!r}: {error.strerror or 'cannot be read'}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--claims {path!r}: not a text in UTF-8") from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # TOML errors are ValueErrors
        # The one closed vocabulary of a claims file.
        allowed = f"; the measures are {', '.join(UNITS)}" if "enum" in str(error) else ""
        raise UsageError(f"--claims {path!r}: {' '.join(str(error).split())}{allowed}") from error
    for claim in claims.claims:
        place = f"--claims {path!r}: {claim.text[:60]!r}: "
        if name := unknown_dimension(claim):
            raise UsageError(f"{place}no dimension {name!r}; there are {', '.join(DIMENSIONS)}")
        for name, given in claim.where.items():
            if not given and given != "":
                raise UsageError(f"{place}`where` names no value of {name}; leave it out, or give one")
            for value in (given,) if isinstance(given, str) else given:
                read_value(chosen, place, cast("Dimension", name), value)
        for name, members in claim.breakdown.items():
            if "" in members:
                raise UsageError(f"{place}a member of its breakdown has no name; the empty one stands for the total")
            for member in members:
                read_value(chosen, place, cast("Dimension", name), member)
    return claims


def audited(chosen: Settings, claims: Claims | None, as_of: AsOf = NOT_CUT) -> Audit:
    """Audit every side, with a progress bar."""
    with server_url(chosen, reading=True) as url:
        lives = run_async(_lives(replace(chosen, redis_url=url)))
        extents = run_async(log_extents(replace(chosen, redis_url=url), as_of))
        require_entries(chosen, extents, "audited")
        entries = sum(extent.entries for extent in extents.values())
        ends = {live.side.side: _earlier(live.log_end, as_of.get(live.side.side)) for live in lives}
        stops = {live.side.side: sorted([live.position, ends[live.side.side]], key=order) for live in lives}
        states = replay_sides(chosen, url, stops, lambda: progress("auditing", entries))
        rebuilt = []
        for live, replayed in zip(lives, states.values(), strict=True):
            first, last = replayed
            at_live = first if live.position == stops[live.side.side][0] else last
            rebuilt.append((at_live, last if at_live is first else first))
        if not any(at_end.checkpoint.entries for _, at_end in rebuilt):
            raise UsageError("nothing had been recorded by --as-of, so nothing was audited; leave it out, or say later")

        # Only now: these start threads, and what has threads must not be forked, as a replay is.
        from services.archive.engine import second_opinion  # noqa: PLC0415
        from services.archive.look import look_at  # noqa: PLC0415
        from services.cli.beside import beside_the_tallies  # noqa: PLC0415
        from services.cli.differences import Question, explain_all  # noqa: PLC0415
        from services.cli.second import second_engine  # noqa: PLC0415

        with second_engine(chosen, url, ends, entries) as engine:
            second = {side: second_opinion(engine, side) for side in ends}
            verdict = compare(lives, rebuilt, claims.claims if claims else (), second)
            failed = [
                (claim, finding)
                for claim, finding in (_by_claim(verdict.findings, claims) if claims else ())
                if finding.verdict == "different"
            ]
            parted = []
            if verdict.differences or verdict.disagreements or failed:
                question = Question(
                    verdict, lives, ends, failed, terms(chosen.sides, [at_end for _, at_end in rebuilt])
                )
                furthest = {side: both[-1] for side, both in stops.items()}
                histories = histories_of_sides(
                    chosen, url, furthest, question.watched(), lambda: progress("looking where they part", entries)
                )
                parted = explain_all(question, histories, engine)
            looked = [
                *absent_sides(extents),
                *beside_the_tallies(lives, [at_live for at_live, _ in rebuilt], ends, engine),
                *look_at(engine),
                *missing_numbers([at_end for _, at_end in rebuilt]),
            ]
        run_async(_note(replace(chosen, redis_url=url), verdict))
        copies = frozenset(side for side, extent in extents.items() if extent.apart)
        return Audit(verdict, parted, looked, copies)


def _earlier(end: Position, as_of: Position | None) -> Position:
    return end if as_of is None or order(end) <= order(as_of) else as_of


def absent_sides(extents: Mapping[Side, LogExtent]) -> list[Item]:
    """Return an item for each side of which nothing is here, while there is something of others."""
    from services.archive.look import Item  # noqa: PLC0415  # see `audited`

    if not any(extent.entries for extent in extents.values()):
        return []
    return [Item("no-entries", side, [], absent_side([side])) for side, one in extents.items() if not one.entries]


def missing_numbers(states: Iterable[State]) -> list[Item]:
    """Return an item for each device of which report numbers are missing."""
    from services.archive.look import Item, limited  # noqa: PLC0415  # see `audited`

    items = []
    for state in states:
        for device, numbers in sorted(state.devices.items()):
            if numbers.missing:
                ranges = ", ".join(
                    str(first) if first == last else f"{first}–{last}" for first, last in numbers.missing[:5]
                )
                more = f" and {len(numbers.missing) - 5:,} more ranges" if len(numbers.missing) > 5 else ""
                text = f"{device}: {ranges}{more} missing of {numbers.highest:,}"
                items.append(Item("missing-numbers", state.side, [f"{state.side}:{numbers.last_position}"], text))
    return limited("missing-numbers", items)


async def _note(chosen: Settings, verdict: Verdict) -> None:
    async with side_stores(chosen) as stores:
        await note_agreement(stores, verdict)


async def note_agreement(stores: Iterable[SideStore], verdict: Verdict) -> None:
    """Tell the screens of each side that was found to agree."""
    for store in stores:
        side = store.side.side
        if side in verdict.agreed:
            position, digest = verdict.live_position[side], verdict.live_digest[side]
            await store.store.note_audit(AuditShown(position, digest, now()))


async def _lives(chosen: Settings) -> list[Live]:
    async with side_stores(chosen) as stores:
        return [await read_live(store.side, store.log, store.store) for store in stores]


def as_json(found: Audit) -> dict[str, object]:
    """Return the audit as the one object of DESIGN section 9, with what explains it beside the contract's members."""
    verdict = found.verdict
    return {
        "position": verdict.position,
        "digest": verdict.digest,
        "live_equals_rebuilt": verdict.live_equals_rebuilt,
        "claims": verdict.findings,
        "live_position": verdict.live_position,
        "fold_equals_sql": verdict.fold_equals_sql,
        "differences": found.parted,
        "look_at": found.look_at,
    }


def _few_of_each(items: Sequence[Item]) -> Iterator[dict[str, str]]:
    """Yield the first items of each kind as rows, and how many there are besides: JSON has those."""
    for kind, of_kind in groupby(items, key=lambda item: item.kind):
        found = list(of_kind)
        for item in found[:SHOWN_MAX]:
            yield {"kind": kind, "what": item.text, "where": ", ".join(item.positions[:3])}
        if len(found) > SHOWN_MAX:
            beyond = "" if found[-1].positions else f", {found[-1].text}"  # the last says how many nobody has listed
            yield {"kind": kind, "what": f"and {len(found) - SHOWN_MAX:,} more with --format json{beyond}", "where": ""}


def print_verdict(
    verdict: Verdict,
    claims: Claims | None,
    parted: Iterable[Parted] = (),
    look_at: Sequence[Item] = (),
    copies: Collection[Side] = (),
) -> None:
    """Print the audit for a person: what was compared, what deserves a look, and last what became of the claims."""
    explained = {kind: [one for one in parted if one.kind == kind] for kind in ("live", "sql", "claim")}
    compared = {side: at for side, at in verdict.live_position.items() if side not in verdict.uncounted}
    if not verdict.differences:
        if not verdict.uncounted or any(at != START for at in compared.values()):
            at = ", ".join(f"{side} {position}" for side, position in compared.items())
            print(f"live equals rebuilt: every cell agrees at {at}")
        if verdict.uncounted:
            print(f"live not compared: of {', '.join(verdict.uncounted)} nothing is live here")
    else:
        rows = [{"cell": cell_text(row.cell), "live": row.live, "rebuilt": row.rebuilt} for row in verdict.differences]
        print_records(
            _begun(rows, explained["live"]), ("cell", "live", "rebuilt", "from"), "table", "live and rebuilt differ"
        )
        note("`fieldtally rebuild --swap` makes the live tallies anew from the log")
        for one in explained["live"]:
            print_cells(one)
    if verdict.fold_equals_sql:
        at = ", ".join(f"{side} {position}" for side, position in verdict.position.items())
        print(f"fold equals SQL: every cell agrees at {at}")
    elif verdict.disagreements:
        rows = [{"cell": cell_text(row.cell), "fold": row.fold, "sql": row.sql} for row in verdict.disagreements]
        print_records(_begun(rows, explained["sql"]), ("cell", "fold", "sql", "from"), "table", "fold and SQL differ")
        for one in explained["sql"]:
            print_cells(one)
    for side, entries in verdict.entries_behind.items():
        if side in copies:
            note(f"side {side}: this server has an archive and no log, so nothing of it is live")
        elif entries:
            behind = many(entries, "entry", "entries")
            note(f"side {side}: {behind} not in the live tallies yet; is the projector running?")
    print(f"rebuilt: position {', '.join(f'{side} {at}' for side, at in verdict.position.items())}")
    print(f"rebuilt: digest {verdict.digest}")
    if look_at:
        print()
        print_table(
            list(_few_of_each(look_at)),
            ("kind", "what", "where"),
            "worth a look",
        )
    if claims:
        paired = list(_by_claim(verdict.findings, claims))
        print()
        title = printable(f"{claims.title} ({claims.published.isoformat()})")
        print_table(list(_rows(paired)), CLAIM_COLUMNS, title)
        print()
        found = [(claim, finding) for claim, finding in paired if finding.verdict != "confirmed"]
        print(f"{len(paired) - len(found)} confirmed, {len(found)} not:" if found else "all confirmed")
        explanations = iter(explained["claim"])
        for claim, finding in found:
            print(printable(f"- {explain(claim, finding)}"))
            if finding.verdict == "different" and (explanation := next(explanations, None)):
                print_explained(explanation)


def _begun(rows: Iterable[dict[str, object]], parted: Iterable[Parted]) -> list[dict[str, object]]:
    """Return rows of cells with the position from which on each of them differs."""
    begun = {
        _cell(cell): cell["first_position"] or ("no event" if cell["followed"] else "not followed")
        for one in parted
        for cell in one.cells
    }
    return [row | {"from": begun.get(str(row["cell"]), "")} for row in rows]


def _cell(named: Mapping[str, Any]) -> str:
    return cell_text(cast("Cell", tuple(named[part] for part in CELL_PARTS)))


def print_cells(one: Parted) -> None:
    """Print of each differing cell where that begins, and the first events behind it; JSON has more of them."""
    print(printable(f"  {one.side}: {one.text}"))
    behind: dict[str, list[tuple[Behind, int]]] = {}
    for event in one.events:
        for named in event.cells:
            behind.setdefault(_cell(named), []).append((event, named["change"]))
    for named in one.cells[:CELLS_SHOWN]:
        cell = _cell(named)
        print(printable(f"  {cell}: {named['text']}"))
        events = behind.get(cell, [])[:CELL_EVENTS_SHOWN]
        _print_events(events, named["events_in_all"] - len(events))
    if len(one.cells) > CELLS_SHOWN:
        print(f"  and {len(one.cells) - CELLS_SHOWN:,} more cells; `--format json` has the events of each")


def print_explained(one: Parted) -> None:
    """Print from where on a published figure differs, and the events behind it."""
    print(printable(f"  {one.text}"))
    events = [(event, sum(cell["change"] for cell in event.cells)) for event in one.events]
    _print_events(events, one.events_in_all - len(events))


def _print_events(events: Iterable[tuple[Behind, int]], more: int) -> None:
    """Print events with what each changed, and how many there are besides."""
    for event, change in events:
        version = f", revision {event.revision}" if event.revision else ""
        where = f"  {event.section}" if event.section else ""
        at = f"{event.side} {event.position}  {event.time.isoformat()}{where}"
        print(printable(f"    {at}  {event.type}{version}  {change:+,}  {event.id}"))
    if more:
        print(f"    and {many(more, 'more event')}")


def explain(claim: Claim, finding: Finding) -> str:
    """Say in words what a finding means."""
    what = f"{finding.measure} {finding.key}".strip()
    unknown = f"; {finding.note}" if finding.note else ""
    if finding.verdict == "different":
        return f"{what}: published {_published(claim, finding)}, rebuilt {finding.rebuilt:,} ({finding.text}){unknown}"
    parts = sum(count for members in claim.breakdown.values() for count in members.values())
    return f"{what}: the breakdown adds up to {parts:,}, its own total is {_published(claim, finding)} ({finding.text})"


def _by_claim(findings: Iterable[Finding], claims: Claims) -> Iterator[tuple[Claim, Finding]]:
    """Pair the findings with their claims: they come in that order, and each claim's begin with its total.

    Not by the text: one sentence may hold several figures of one measure. A total may be twice in a row, because it
    differs and because its own breakdown does not add up to it.
    """
    left = iter(claims.claims)
    claim, before = claims.claims[0], None
    for finding in findings:
        again = finding.verdict == "inconsistent" and before == "different" and claim.breakdown
        if finding.key == "" and not again:
            claim = next(left)
        before = finding.verdict if finding.key == "" else None
        yield claim, finding


def _rows(paired: Iterable[tuple[Claim, Finding]]) -> Iterator[dict[str, object]]:
    """Return the rows for a person: a claim's text stands once, at its first figure."""
    shown: Claim | None = None
    for claim, finding in paired:
        yield {
            "verdict": finding.verdict,
            "measure": f"{finding.measure} {finding.key}".strip(),
            "published": Figure(_published(claim, finding)),
            "rebuilt": finding.rebuilt,
            "text": "; ".join(filter(None, ("" if claim is shown else finding.text, finding.note))),
        }
        shown = claim


def _published(claim: Claim, finding: Finding) -> str:
    """Return the published figure with its relation; the members of a breakdown are exact."""
    return f"{'' if finding.key else SIGNS[claim.relation]}{finding.published:,}"
