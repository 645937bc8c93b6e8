"""`audit`: live against rebuilt, and published figures against rebuilt."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, cast

import click
import msgspec
from msgspec.structs import replace

from schemas.claims import Claim, Claims, Relation, decode_claims
from schemas.screen import AuditShown
from schemas.vocabulary import UNITS
from services.cli.command import FileName, command, run_async, settings
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
from services.cli.selectors import read_value
from services.cli.server import SideStore, log_extents, server_url, side_stores
from services.replay.audit import Live, Verdict, compare, read_live
from services.replay.processes import replay_sides
from services.runtime.clock import now
from services.runtime.errors import UsageError
from services.runtime.settings import Settings
from services.tally.cells import cell_text
from services.tally.compare import Finding, unknown_dimension
from services.tally.rollup import DIMENSIONS, Dimension

CLAIM_COLUMNS: Final = ("verdict", "measure", "published", "rebuilt", "text")
_CELL_PARTS: Final = ("side", "operation", "section", "day", "measure", "citizenship")
SIGNS: Final[dict[Relation, str]] = {
    "equals": "", "more_than": "> ", "at_least": ">= ", "less_than": "< ", "at_most": "<= "
}  # fmt: skip


@command("audit", "audit", "audit --claims release.toml", "audit --claims release.toml --format json")
@click.option(
    "--claims", "claims_file", type=FileName(), metavar="FILE.toml", help="Published figures to hold against the log."
)
@format_option("table", "json")
def audit(claims_file: str | None, output_format: Format) -> int:
    """Rebuild the tallies from the log, and compare.

    They are compared with the live ones, cell by cell, and with the published figures of a claims file.
    Exit code 0: everything agrees; 1: differences were found.
    """
    chosen = settings()
    claims = read_claims(chosen, claims_file) if claims_file is not None else None
    verdict = audited(chosen, claims)
    if output_format == "json":
        print(msgspec.json.format(msgspec.json.encode(as_json(verdict)), indent=2).decode())
    else:
        print_verdict(verdict, claims)
    return 0 if verdict.clean else 1


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


def audited(chosen: Settings, claims: Claims | None) -> Verdict:
    """Audit every side, with a progress bar."""
    with server_url(chosen) as url:
        lives = run_async(_lives(replace(chosen, redis_url=url)))
        entries = sum(extent.entries for extent in run_async(log_extents(replace(chosen, redis_url=url))).values())
        stops = {live.side.side: [live.position, live.log_end] for live in lives}
        states = replay_sides(chosen, url, stops, lambda: progress("auditing", entries))
        rebuilt = [(at_live, at_end) for at_live, at_end in states.values()]
        verdict = compare(lives, rebuilt, claims.claims if claims else ())
        run_async(_note(replace(chosen, redis_url=url), verdict))
        return verdict


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


def as_json(verdict: Verdict) -> dict[str, object]:
    """Return the audit as the one object of DESIGN section 9; where live and rebuilt differ, with the cells that do."""
    found: dict[str, object] = {
        "position": verdict.position,
        "digest": verdict.digest,
        "live_equals_rebuilt": verdict.live_equals_rebuilt,
        "claims": verdict.findings,
    }
    if verdict.live_equals_rebuilt:
        return found
    return found | {
        "live_position": verdict.live_position,
        "differences": [
            dict(zip(_CELL_PARTS, row.cell, strict=True)) | {"live": row.live, "rebuilt": row.rebuilt}
            for row in verdict.differences
        ],
    }


def print_verdict(verdict: Verdict, claims: Claims | None) -> None:
    """Print the audit for a person."""
    if verdict.live_equals_rebuilt:
        at = ", ".join(f"{side} {position}" for side, position in verdict.live_position.items())
        print(f"live equals rebuilt: every cell agrees at {at}")
    else:
        rows = [{"cell": cell_text(row.cell), "live": row.live, "rebuilt": row.rebuilt} for row in verdict.differences]
        print_records(rows, ("cell", "live", "rebuilt"), "table", "live and rebuilt differ")
        note("`fieldtally rebuild --swap` makes the live tallies anew from the log")
    for side, entries in verdict.entries_behind.items():
        if entries:
            behind = many(entries, "entry", "entries")
            note(f"side {side}: {behind} not in the live tallies yet; is the projector running?")
    print(f"rebuilt: position {', '.join(f'{side} {at}' for side, at in verdict.position.items())}")
    print(f"rebuilt: digest {verdict.digest}")
    if claims:
        paired = list(_by_claim(verdict.findings, claims))
        print()
        title = printable(f"{claims.title} ({claims.published.isoformat()})")
        print_table(list(_rows(paired)), CLAIM_COLUMNS, title)
        print()
        found = [(claim, finding) for claim, finding in paired if finding.verdict != "confirmed"]
        print(f"{len(paired) - len(found)} confirmed, {len(found)} not:" if found else "all confirmed")
        for claim, finding in found:
            print(printable(f"- {explain(claim, finding)}"))


def explain(claim: Claim, finding: Finding) -> str:
    """Say in words what a finding means."""
    what = f"{finding.measure} {finding.key}".strip()
    if finding.verdict == "different":
        return f"{what}: published {_published(claim, finding)}, rebuilt {finding.rebuilt:,} ({finding.text})"
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
            "text": "" if claim is shown else finding.text,
        }
        shown = claim


def _published(claim: Claim, finding: Finding) -> str:
    """Return the published figure with its relation; the members of a breakdown are exact."""
    return f"{'' if finding.key else SIGNS[claim.relation]}{finding.published:,}"
