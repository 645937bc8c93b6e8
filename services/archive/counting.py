"""The counting rules a second time, as SQL: written from DESIGN section 3, and sharing nothing with the fold.

Every function returns the text of a query. The tables they name are made by `engine`: for each side `counted_SI`, its
readable events of its own side, each with its local `day`; `versions_SI`, position, revision and key (in two halves) of
those whose key stands in the log more than once; `days_SI`, how the side's zone turns a time into a day.
"""

# ruff: noqa: S608  # what is put into a query is our own text, sides and positions

from __future__ import annotations

from typing import Final

from schemas.vocabulary import Position, Side, order

DAY_US: Final = 86_400_000_000
YEAR_ONE_US: Final = 62_135_596_800_000_000
"""From the first day of the year 1 to 1970: added to a time, so that no division meets a number below zero."""

UTC_DAY: Final = f"(epoch_us(time) + {YEAR_ONE_US}) // {DAY_US}"
LOCAL_DAY: Final = (
    f"DATE '0001-01-01' + ((epoch_us(time) + {YEAR_ONE_US} "
    f"+ CASE WHEN epoch_us(time) < changes THEN before ELSE after END) // {DAY_US})::INTEGER"
)
"""The local calendar day, from a row of `days_SI`: the zone's offset on this UTC day before and after it changes."""

KEY: Final = "coalesce(amends, id)"


def events_of(side: Side) -> str:
    """Return the events that the side's log may count: readable, and of this side."""
    return (
        f"SELECT log.*, {LOCAL_DAY} AS day FROM internal.log_{side} AS log "
        f"JOIN internal.days_{side} ON utc_day = {UTC_DAY} WHERE {_countable(side)}"
    )


def keys(side: Side) -> str:
    """Return the key, in two halves, the revision and the position of each of these events."""
    return (
        f"SELECT (key >> 64)::UBIGINT AS high, (key & {2**64 - 1}::UHUGEINT)::UBIGINT AS low, revision, ms, seq "
        f"FROM (SELECT {KEY}::UHUGEINT AS key, revision, ms, seq FROM internal.log_{side} WHERE {_countable(side)})"
    )


def replaced(side: Side, stop: Position | None = None) -> str:
    """Return the positions that do not count: of one key the highest revision does, and of two equal ones the first."""
    return (
        "SELECT ms, seq FROM (SELECT ms, seq, "
        "row_number() OVER (PARTITION BY high, low ORDER BY revision DESC, ms, seq) AS place "
        f"FROM internal.versions_{side} WHERE {until(stop)}) WHERE place > 1"
    )


def in_force(side: Side, stop: Position | None = None) -> str:
    """Return the events in force at a position, or at the end."""
    without = f"internal.replaced_{side}" if stop is None else f"({replaced(side, stop)})"
    return f"SELECT * FROM internal.counted_{side} ANTI JOIN {without} USING (ms, seq) WHERE {until(stop)}"


def cells(side: Side, stop: Position | None = None) -> str:
    """Return the cells with their counts: operation, section, day, measure, citizenship, count."""
    return (
        f"WITH in_force AS NOT MATERIALIZED ({in_force(side, stop)}), reported AS MATERIALIZED ({_REPORTED}), "
        f"parts AS ({_REPORTS} UNION ALL {_COUNTS} UNION ALL {_BALANCES}) {_SUM}"
    )


def until(stop: Position | None) -> str:
    """Return the condition that an entry lies at or before a position."""
    if stop is None:
        return "true"
    ms, seq = order(stop)
    return f"(ms < {ms}::UBIGINT OR (ms = {ms}::UBIGINT AND seq <= {seq}::UBIGINT))"


def _countable(side: Side) -> str:
    return f"fault IS NULL AND side = '{side}'"


# An opening balance may add to a cell that reports add to as well.
_SUM: Final = (
    "SELECT operation, section, day, measure, citizenship, sum(count)::BIGINT AS count FROM parts GROUP BY ALL "
    "HAVING sum(count) <> 0"
)
# All that reports count is read at once, since each reading costs more than the adding. Of the rows of one report the
# first has a 1 beside it, the others nothing; a report without counts has this row alone.
_REPORTED: Final = """
    SELECT operation, section, day, type, opens_case, part.measure, part.citizenship, sum(part.count) AS count,
        sum(report) AS reports
    FROM (
        SELECT operation, section, day, type, opens_case, unnest(counts) AS part, unnest([1]) AS report
        FROM in_force WHERE type IN ('apprehension', 'smuggler-arrest', 'custody', 'nil-report')
    )
    GROUP BY ALL"""
_REPORTS: Final = """
    SELECT operation, section, day, CASE type
        WHEN 'apprehension' THEN 'apprehensions' WHEN 'nil-report' THEN 'nil_reports' ELSE 'smuggling_cases'
        END AS measure, '' AS citizenship, reports AS count
    FROM reported WHERE type IN ('apprehension', 'nil-report') OR (type = 'smuggler-arrest' AND opens_case)"""
_COUNTS: Final = """
    SELECT operation, CASE type WHEN 'custody' THEN '' ELSE section END AS section, day, measure, citizenship, count
    FROM reported WHERE measure IS NOT NULL"""
_BALANCES: Final = """
    SELECT operation, total.section, day, total.measure, total.citizenship, sum(total.count) AS count
    FROM (SELECT operation, period_to AS day, unnest(totals) AS total FROM in_force WHERE type = 'opening-balance')
    GROUP BY ALL"""
