"""What is shown, as rows to take along; each carries the position and the digest that it is true at."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from datetime import date
from typing import Final

from msgspec import Struct

from schemas.screen import SideShown, Snapshot
from schemas.vocabulary import Position, Side, order
from services.tally.cells import Tallies, parse_cell
from services.tally.rollup import Dimension, Selection, Terms, roll_up

BY: Final[tuple[Dimension, ...]] = ("side", "operation", "section", "coverage", "day", "measure", "citizenship")

NAME_MAX: Final = 200


class Filters(Struct, frozen=True):
    """Which cells: of one operation, one side, a period with both its days; what is left out is not filtered by."""

    operation: str | None = None
    side: str | None = None
    first: date | None = None
    last: date | None = None


class Export(Struct, frozen=True):
    """Rows with where they are true: the position of each side, and the digest over all cells of these sides.

    Of one side alone it is that side's position and digest, whoever takes it.
    """

    view: str
    position: dict[Side, Position]
    digest: str
    fold_version: int
    rows: list[dict[str, str | int]]


def export(snapshot: Snapshot, filters: Filters) -> Export:
    """Return the rows of a snapshot."""
    tallies: Tallies = {parse_cell(name): count for side in snapshot.sides for name, count in side.cells.items()}
    where: dict[Dimension, tuple[str, ...]] = {}
    if filters.operation is not None:
        where["operation"] = (filters.operation,)
    if filters.side is not None:
        where["side"] = (filters.side,)
    sides = [side for side in snapshot.sides if filters.side in (None, side.side)]
    selection = Selection(BY, where, filters.first, filters.last)
    return Export(
        view=snapshot.view,
        position={side.side: side.position for side in sides},
        digest=sides[0].digest if len(sides) == 1 else snapshot.digest,
        fold_version=snapshot.fold_version,
        rows=[
            {**dict(zip(BY, row.values, strict=True)), "count": row.count}
            for row in roll_up(tallies, selection, _terms(snapshot.sides))
        ],
    )


def as_csv(exported: Export) -> bytes:
    """Write the rows as CSV (RFC 4180, UTF-8), with position and digest beside each.

    A side without a row has one of its own that counts nothing: the digest is over all sides, each at its position.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow((*BY, "count", "position", "digest"))
    for row in exported.rows:
        writer.writerow((*row.values(), exported.position[Side(str(row["side"]))], exported.digest))
    told = {row["side"] for row in exported.rows}
    for side in (side for side in exported.position if side not in told):
        writer.writerow((side, *[""] * (len(BY) - 1), 0, exported.position[side], exported.digest))
    return text.getvalue().encode()


def name_of(exported: Export, filters: Filters) -> str:
    """Return what a file of this view is called, without its ending: what it is of, and the newest position in it."""
    period = [day.isoformat() for day in (filters.first, filters.last) if day]
    newest = max(exported.position.values(), key=order)
    parts = ["fieldtally", filters.operation or "all", filters.side or "", *period, newest]
    return re.sub(r"[^A-Za-z0-9._-]", "_", "-".join(part for part in parts if part))[:NAME_MAX]


def _terms(sides: Sequence[SideShown]) -> Terms:
    return Terms(
        domestic={side.side: side.citizenship for side in sides},
        coverage={
            (side.side, operation.operation, plan.section): plan.coverage
            for side in sides
            for operation in side.operations
            for plan in operation.sections
        },
    )
