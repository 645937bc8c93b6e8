"""What deserves a look although every comparison agrees: found by SQL in the tables of `views`."""

# ruff: noqa: S608  # what is put into a query is our own text, sides and positions

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from services.archive.engine import Engine

ITEMS_MAX: Final = 100
"""So many items of one kind are listed; what is beyond is counted."""

POSITIONS_MAX: Final = 20

NEAR_MINUTES: Final = 30
"""How far apart in time two reports of one event may lie."""


class Item(Struct, frozen=True):
    """Something to look at: which side or sides, where in their logs (`SI:1710385929000-0`), and what it is."""

    kind: str
    side: str
    positions: list[str]
    text: str


def look_at(engine: Engine) -> list[Item]:
    """Return what deserves a look in the logs that the engine holds."""
    return [item for kind, (sql, _) in _LOOKS.items() for item in _items(engine, kind, sql)]


def limited(kind: str, items: list[Item]) -> list[Item]:
    """Return the first items of a kind, and one that counts the others."""
    if len(items) <= ITEMS_MAX:
        return items
    return [*items[:ITEMS_MAX], Item(kind, "", [], f"and {len(items) - ITEMS_MAX:,} more")]


def _items(engine: Engine, kind: str, sql: str) -> Iterator[Item]:
    rows = engine.rows(f"SELECT *, count(*) OVER () AS found FROM ({sql}) ORDER BY ALL LIMIT {ITEMS_MAX}")
    wording = _LOOKS[kind][1]
    for side, positions, *said, _ in rows:
        yield Item(kind, side, positions, wording.format(*said))
    if rows and rows[0][-1] > ITEMS_MAX:
        yield Item(kind, "", [], f"and {rows[0][-1] - ITEMS_MAX:,} more")


CROWD: Final = 3
"""Where a side reports the same counts more often than this within half an hour, likeness says nothing."""


_PLACES: Final = f"list(side || ':' || position ORDER BY ms, seq)[:{POSITIONS_MAX}]"

# Each counts the same persons, of one operation or of none, on the other side, near in time. Sides name sections of
# their own, so where the names differ both have to be sections that their operation covers jointly.
_TWICE: Final = f"""
    WITH reports AS (
        SELECT report.side, report.position, report.operation, report.section, report.type, report.time,
            epoch_us(report.time) // {NEAR_MINUTES * 60_000_000} AS half_hour, coverage,
            list_sort(counts)::VARCHAR AS said
        FROM (
            SELECT side, position, operation, section, type, time, counts
            FROM effective WHERE type IN ('apprehension', 'smuggler-arrest')
        ) AS report
        LEFT JOIN plans USING (side, operation, section)
        QUALIFY count(*) OVER (PARTITION BY report.side, report.operation, report.type, half_hour, said) <= {CROWD}
    )
    SELECT one.side || ',' || other.side, [one.side || ':' || one.position, other.side || ':' || other.position],
        one.type, if(one.operation = '', 'no operation', one.operation), one.section, other.section,
        abs(epoch_us(one.time) - epoch_us(other.time)) // 60_000_000
    FROM (SELECT *, unnest([half_hour - 1, half_hour, half_hour + 1]) AS near FROM reports) AS one
    JOIN reports AS other ON one.near = other.half_hour AND one.operation = other.operation AND one.type = other.type
        AND one.said = other.said AND one.side < other.side
    WHERE abs(epoch_us(one.time) - epoch_us(other.time)) <= {NEAR_MINUTES * 60_000_000}
        AND (one.section = other.section OR (one.coverage = 'joint' AND other.coverage = 'joint'))"""

# What was requeued says so in its new entry's `by`: `requeue/SIDE:POSITION/USER`.
_PARKED: Final = f"""
    SELECT side, {_PLACES}, count(*), if(count(*) = 1, 'entry', 'entries'), reason FROM parked
    WHERE side || ':' || position NOT IN (
        SELECT regexp_extract("by", '^requeue/([^/]+)/', 1) FROM events WHERE "by" LIKE 'requeue/%'
    )
    GROUP BY side, reason"""
_OPENED_TWICE: Final = f"""
    SELECT side, {_PLACES}, "case", count(*) FROM effective WHERE opens_case
    GROUP BY side, "case" HAVING count(*) > 1"""
_NEVER_OPENED: Final = f"""
    SELECT side, {_PLACES}, "case" FROM effective WHERE "case" IS NOT NULL
    GROUP BY side, "case" HAVING NOT coalesce(bool_or(opens_case), false)"""
_TOTAL: Final = (
    "coalesce(list_sum(list_transform(list_filter(counts, lambda part: part.measure = '{0}'), "
    "lambda part: part.count)), 0)"
)
_REMANDED: Final = f"""
    SELECT side, {_PLACES}, "case", sum(remanded), sum(arrested)
    FROM (
        SELECT side, position, ms, seq, "case",
            {_TOTAL.format("remanded")} AS remanded, {_TOTAL.format("smugglers")} AS arrested
        FROM effective WHERE "case" IS NOT NULL
    )
    GROUP BY side, "case" HAVING sum(remanded) > sum(arrested)"""

_LOOKS: Final[dict[str, tuple[str, str]]] = {
    "parked": (_PARKED, "{0:,} {1} parked as {2}; `fieldtally parked list` has them"),
    "case-opened-twice": (_OPENED_TWICE, "case {0} was opened {1} times"),
    "case-never-opened": (_NEVER_OPENED, "case {0} is spoken of and was never opened"),
    "remanded-above-arrested": (_REMANDED, "case {0}: {1} remanded, {2} arrested"),
    "reported-twice": (
        _TWICE,
        "{0} of {1} reported by both sides? sections {2} and {3}, {4} minutes apart, the same counts",
    ),
}
"""By kind: a query for side, positions and what is said, and how that is put."""
